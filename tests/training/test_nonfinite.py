"""What is not finite: named with update, parameter and time step, stopped or skipped, and felt by nobody else."""

import itertools

import numpy as np
import pytest
from training.problems import neuron, run, setting

from gradlab import LSTM, Batch, Elman, Network, mean_squared_error
from gradlab.training import Adam, ByNorm, train


@pytest.mark.parametrize("mode", ["ignore", "warn", "raise"])
@pytest.mark.parametrize("clip", [None, ByNorm(1e200)])
def test_a_diverging_run_stops_with_the_update_the_place_and_a_remedy(mode, clip):
    net, params, batch = neuron()
    # b_y - 3 grows by a factor 2e40 - 1 each update: the fifth loss, 9 (2e40)^8, is beyond every float.
    with np.errstate(all=mode):
        found = run(net, params, batch, 20, learning_rate=1e40, clip=clip)
    assert found.status.code == "overflow"
    assert found.status.detail == ("update 4: not finite: the loss; 1 stopped; try a smaller learning_rate or clip=ByNorm(1.0)")
    assert found.updates == 5
    assert found.skipped == 1
    assert np.isfinite(found.params["readout.b_y"]).all()
    np.testing.assert_array_equal(params["readout.b_y"], 0.0)


def test_an_update_that_itself_overflows_names_the_parameter_and_is_not_made():
    net, params, batch = neuron()
    far = Batch(batch.inputs, np.full((1, 1), 1e150))
    # Gradient -2e150, finite, and its square too; times the rate 1e200 it is not.
    found = run(net, params, far, 5, learning_rate=1e200)
    (event,) = found.events
    assert (event.update, event.parameter, event.step, event.stopped) == (0, "readout.b_y", None, True)
    assert "readout.b_y out of the range of floats" in event.what
    np.testing.assert_array_equal(found.params["readout.b_y"], 0.0)


def growing():
    """A linear net whose state grows by a factor 1e100 at each of six steps."""
    net = Network(Elman("linear"), 1, 1, output_size=1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 1e100), "0.b": np.zeros(1)}
    params |= {"readout.V": np.ones((1, 1)), "readout.b_y": np.zeros(1)}
    x = np.zeros((6, 1, 1))
    x[0] = 1.0
    return net, params, Batch(x, np.zeros((1, 1)))


@pytest.mark.parametrize("truncate", [None, (2, 3)])
def test_the_step_at_which_a_state_overflows_is_named(truncate):
    net, params, batch = growing()
    # h_t = 1e100^(t-1): 1e300 at t = 4, infinite at t = 5.
    (event,) = run(net, params, batch, 3, truncate=truncate).events
    assert event.step == 5
    assert "state of layer 0 from t = 5 on" in event.what
    assert str(event).startswith("update 0: not finite: ")


def test_the_step_and_parameter_at_which_a_gradient_overflows_are_named():
    net, params, _ = growing()
    quiet = Batch(
        np.zeros((6, 1, 1)), np.full((1, 1), -0.5)
    )  # states 0, loss 1/4, adjoint 1 at t = 6 and 1e100 times more before
    (event,) = run(net, params, quiet, 3).events
    assert event.step == 2  # delta_3 = 1e300, delta_2 = 1e400
    assert event.parameter in {"0.W", "0.U", "0.b"}
    assert "adjoint of layer 0 from t = 2 down" in event.what
    assert f"the gradient of {event.parameter}" in event.what


def poisoned(net_loss, updates):
    """A loss whose derivative is NaN at its calls number `updates`."""
    calls = itertools.count()

    def loss(outputs, targets, mask):
        value, slope = net_loss(outputs, targets, mask)
        return (value, slope * np.nan) if next(calls) in updates else (value, slope)

    return loss


def test_skipping_leaves_out_the_update_counts_it_and_trains_on():
    net, params, sample = setting(LSTM())
    found = run(
        net, params, sample, 6, loss=poisoned(mean_squared_error, {1, 3}), nonfinite="skip", optimiser=Adam(), keep_path=True
    )
    assert [event.update for event in found.events] == [1, 3]
    assert not any(event.stopped for event in found.events)
    assert found.skipped == 2
    assert found.status.ok
    moved = (np.diff(found.path["0.U"], axis=0) != 0.0).any(axis=(1, 2))
    np.testing.assert_array_equal(moved, [True, False, True, False, True, True])


def test_a_skipped_update_leaves_no_trace_in_the_optimiser():
    net, params, sample = setting(LSTM())
    batch = sample(np.random.default_rng(5))
    skipped = run(net, params, batch, 5, loss=poisoned(mean_squared_error, {2}), nonfinite="skip", optimiser=Adam())
    straight = run(net, params, batch, 4, optimiser=Adam())
    for key, value in straight.params.items():
        np.testing.assert_array_equal(skipped.params[key], value)  # the same four updates, moments and bias correction too


def test_events_are_bounded_but_all_are_counted():
    net, params, batch = neuron()
    found = run(net, params, batch, 1100, loss=poisoned(mean_squared_error, range(10**6)), nonfinite="skip")
    assert len(found.events) == 1000
    assert found.skipped == 1100


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("optimiser", [None, Adam()], ids=repr)
def test_a_member_that_diverges_does_not_touch_a_bit_of_the_others(policy, optimiser):
    net, params, sample = setting(Elman("relu"), E=4)
    wild = {key: value.copy() for key, value in params.items()}
    wild["0.U"][2] *= 1e60
    options = {"optimiser": optimiser, "clip": ByNorm(0.1), "nonfinite": policy, "learning_rate": 0.05}
    with np.errstate(all="raise"):
        one, other = (run(net, p, sample, 10, **options) for p in (params, wild))
    assert {event.member for event in other.events} == {(2,)}
    assert not one.events
    others = [0, 1, 3]
    for key in params:
        np.testing.assert_array_equal(one.params[key][others], other.params[key][others])
        np.testing.assert_array_equal(other.params[key][2], wild[key][2])  # it stays at its last good parameters
    np.testing.assert_array_equal(one.loss[:, others], other.loss[:, others])
    np.testing.assert_array_equal(np.isfinite(other.loss[:, 2]).any(), False)
    if policy == "stop":
        assert other.status.detail.startswith("update 0, member 2: not finite: state of layer 0 from t = ")


def test_training_ends_when_every_member_has_stopped():
    net, params, sample = setting(Elman("relu"), E=2)
    params["0.U"] *= 1e60
    found = run(net, params, sample, 1000)
    assert found.updates == 1
    assert found.status.detail.count("2 stopped") == 1


def test_no_state_of_the_program_is_changed_and_the_stream_alone_advances():
    net, params, sample = setting(LSTM())
    rng, before = np.random.default_rng(1), (np.geterr(), np.random.get_state()[1].copy())  # noqa: NPY002
    start = rng.bit_generator.state
    batches = []

    def remembered(rng):
        batches.append(sample(rng))
        batches[-1].inputs.flags.writeable = batches[-1].targets.flags.writeable = False
        return batches[-1]

    for value in params.values():
        value.flags.writeable = False
    train(net, params, remembered, mean_squared_error, 3, rng, optimiser=Adam(), clip=ByNorm(1.0))
    assert np.geterr() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert rng.bit_generator.state != start
