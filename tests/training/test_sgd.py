"""Gradient descent against problems it solves in closed form, and against its own members one by one."""

import itertools

import numpy as np
import pytest

from gradlab import LSTM, Batch, Elman, Network, bptt, mean_squared_error
from gradlab.errors import GradlabError, NumericalError
from gradlab.tasks import adding
from gradlab.training import clip_by_norm, sgd


def neuron():
    """y = V h + b_y with h = b, one step, no input: a network whose output is linear in b_y."""
    net = Network(Elman("linear"), 1, 1, output_size=1, readout="last")
    params = {
        "0.W": np.zeros((1, 1)),
        "0.U": np.zeros((1, 1)),
        "0.b": np.zeros(1),
        "readout.V": np.zeros((1, 1)),
        "readout.b_y": np.zeros(1),
    }
    return net, params, Batch(np.zeros((1, 1, 1)), np.full((1, 1), 3.0))


def test_a_quadratic_is_approached_by_the_known_factor_each_update():
    # Only b_y moves: loss (b_y - 3)^2, so b_y - 3 shrinks by 1 - 2 rate each time.
    net, params, batch = neuron()
    n, rate = 40, 0.1
    history = sgd(net, params, itertools.repeat(batch, n), mean_squared_error, rate, keep_path=True)
    error = -3.0 * (1.0 - 2.0 * rate) ** np.arange(n + 1)
    np.testing.assert_allclose(history.path["readout.b_y"][:, 0], 3.0 + error, rtol=1e-13)  # 40 updates, each rounded
    np.testing.assert_allclose(history.loss, error[:-1] ** 2, rtol=1e-10)  # near the target b_y - 3 cancels to 3e-4
    np.testing.assert_allclose(history.gradient_norm, 2.0 * np.abs(error[:-1]), rtol=1e-10)
    np.testing.assert_array_equal(history.params["readout.b_y"], history.path["readout.b_y"][-1])
    for key in ("0.W", "0.U", "0.b", "readout.V"):
        np.testing.assert_array_equal(history.path[key], 0.0)


@pytest.mark.parametrize(("rate", "grows"), [(0.99, False), (1.01, True)])
def test_the_limit_of_the_learning_rate_is_two_over_the_curvature(rate, grows):
    net, params, batch = neuron()  # curvature 2: stable below a rate of 1
    loss = sgd(net, params, itertools.repeat(batch, 50), mean_squared_error, rate).loss
    assert (loss[-1] > loss[0]) == grows


def test_clipping_limits_the_length_of_each_step():
    net, params, batch = neuron()
    history = sgd(net, params, itertools.repeat(batch, 10), mean_squared_error, 0.5, clip_norm=0.2, keep_path=True)
    # Far from the target the gradient 2 (b_y - 3) is clipped to 0.2: ten steps of 0.1.
    np.testing.assert_allclose(np.diff(history.path["readout.b_y"][:, 0]), 0.1, rtol=1e-13)
    np.testing.assert_allclose(history.gradient_norm, 2.0 * (3.0 - 0.1 * np.arange(10)), rtol=1e-13)  # before clipping


def setting(cell, E=None, seed=0):
    rng = np.random.default_rng(seed)
    net = Network(cell, 2, 4, output_size=1, readout="last")
    params = net.init(rng)
    if E:
        params = {k: v * rng.uniform(0.5, 1.5, (E, *(1,) * v.ndim)) for k, v in params.items()}
    return net, params, [adding.sample(rng, 8, 12) for _ in range(5)]


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM()], ids=repr)
def test_each_update_is_the_gradient_of_its_batch_times_the_rate(cell, clip_norm):
    net, params, batches = setting(cell)
    history = sgd(net, params, batches, mean_squared_error, 0.3, clip_norm=clip_norm, keep_path=True)
    current = params
    for k, batch in enumerate(batches):
        record = bptt(net, current, batch, mean_squared_error)
        gradients = record.gradients if clip_norm is None else clip_by_norm(net, record.gradients, clip_norm)[0]
        current = {key: current[key] - 0.3 * gradients[key] for key in current}
        assert history.loss[k] == record.loss
        for key, value in current.items():
            np.testing.assert_array_equal(history.path[key][k + 1], value)  # the same operations
    for key in params:
        np.testing.assert_array_equal(history.path[key][0], params[key])
        np.testing.assert_array_equal(history.params[key], current[key])


@pytest.mark.parametrize("clip_norm", [None, 0.1])
@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM()], ids=repr)
def test_an_ensemble_learns_what_its_members_learn_alone(cell, clip_norm):
    net, params, batches = setting(cell, E=3)
    together = sgd(net, params, batches, mean_squared_error, 0.3, clip_norm=clip_norm, keep_path=True)
    assert together.loss.shape == together.gradient_norm.shape == (5, 3)
    for e in range(3):
        alone = sgd(
            net, {k: v[e] for k, v in params.items()}, batches, mean_squared_error, 0.3, clip_norm=clip_norm, keep_path=True
        )
        np.testing.assert_allclose(together.loss[:, e], alone.loss, rtol=1e-12)  # sums blocked otherwise, five updates
        np.testing.assert_allclose(together.gradient_norm[:, e], alone.gradient_norm, rtol=1e-11)
        for key in params:
            gap = np.abs(together.path[key][:, e] - alone.path[key]).max()
            assert gap <= 1e-12 * np.abs(alone.path[key]).max() + 1e-16, key  # biases start at 0


def test_members_that_share_a_start_part_from_it():
    net, params, batches = setting(Elman("tanh"))
    gains = np.array([0.5, 1.0])
    mixed = params | {"0.U": gains[:, None, None] * params["0.U"]}
    together = sgd(net, mixed, batches, mean_squared_error, 0.3)
    for e, gain in enumerate(gains):
        alone = sgd(net, params | {"0.U": gain * params["0.U"]}, batches, mean_squared_error, 0.3)
        np.testing.assert_allclose(together.loss[:, e], alone.loss, rtol=1e-12)  # as above
        np.testing.assert_allclose(together.params["0.W"][e], alone.params["0.W"], rtol=1e-12)


def test_each_member_may_have_its_own_learning_rate():
    net, params, batches = setting(LSTM(), E=3)
    rates = np.array([0.1, 0.2, 0.4])
    together = sgd(net, params, batches, mean_squared_error, rates)
    for e, rate in enumerate(rates):
        alone = sgd(net, {k: v[e] for k, v in params.items()}, batches, mean_squared_error, float(rate))
        np.testing.assert_allclose(together.loss[:, e], alone.loss, rtol=1e-12)  # as above
    for wrong in (np.array([0.1, 0.2]), np.array([0.1, -0.2, 0.3]), np.array([0.1, np.nan, 0.3]), np.array([[0.1, 0.2, 0.3]])):
        with pytest.raises(GradlabError, match="learning_rate"):
            sgd(net, params, batches, mean_squared_error, wrong)


def test_members_may_read_their_own_batches():
    net, params, _ = setting(Elman("tanh"), E=2)
    rng = np.random.default_rng(7)
    pairs = [(adding.sample(rng, 8, 12), adding.sample(rng, 8, 12)) for _ in range(4)]
    joint = [Batch(np.stack([a.inputs, b.inputs], axis=1), np.stack([a.targets, b.targets])) for a, b in pairs]
    together = sgd(net, params, joint, mean_squared_error, 0.3)
    for e in range(2):
        alone = sgd(net, {k: v[e] for k, v in params.items()}, [p[e] for p in pairs], mean_squared_error, 0.3)
        np.testing.assert_allclose(together.loss[:, e], alone.loss, rtol=1e-12)  # as above


def test_given_parameters_are_not_modified_and_not_shared():
    net, params, batches = setting(LSTM())
    before = {k: v.copy() for k, v in params.items()}
    history = sgd(net, params, batches, mean_squared_error, 0.3, keep_path=True)
    for key, value in params.items():
        np.testing.assert_array_equal(value, before[key])
        assert not np.shares_memory(value, history.params[key])
        assert not np.shares_memory(value, history.path[key])


def test_no_updates_return_the_parameters_themselves():
    net, params, _ = setting(LSTM())
    history = sgd(net, params, [], mean_squared_error, 0.3, keep_path=True)
    assert history.loss.shape == (0,)
    for key, value in params.items():
        np.testing.assert_array_equal(history.params[key], value)
        np.testing.assert_array_equal(history.path[key], value[None])
        assert not np.shares_memory(history.params[key], value)


def test_without_a_path_none_is_kept():
    net, params, batches = setting(Elman("tanh"))
    assert not sgd(net, params, batches, mean_squared_error, 0.3).path


def test_progress_counts_the_updates():
    net, params, batches = setting(Elman("tanh"))
    told = []
    sgd(net, params, batches, mean_squared_error, 0.3, progress=told.append)
    assert told == [1, 2, 3, 4, 5]


def test_initial_states_are_used():
    net, params, batches = setting(Elman("tanh"))
    states = {"0": np.full((8, 4), 0.5)}
    one, other = (sgd(net, params, batches, mean_squared_error, 0.3, initial_states=s) for s in (states, None))
    assert one.loss[0] == bptt(net, params, batches[0], mean_squared_error, initial_states=states).loss
    assert one.loss[0] != other.loss[0]


@pytest.mark.parametrize("mode", ["warn", "raise"])
@pytest.mark.parametrize("clip_norm", [None, 1e200])
def test_a_diverging_run_stops_with_the_update_the_place_and_a_remedy(mode, clip_norm):
    net, params, batch = neuron()
    done = []
    cure = "clip_norm" if clip_norm is None else r"a smaller clip_norm than 1e\+200"
    # b_y - 3 grows by a factor 2e40 - 1 each update: the fifth loss, 9 (2e40)^8, is beyond every float.
    message = rf"update 4: overflow: .*; try a smaller learning_rate than 1e\+40 or {cure}$"
    with np.errstate(all=mode), pytest.raises(NumericalError, match=message):
        sgd(net, params, itertools.repeat(batch, 20), mean_squared_error, 1e40, clip_norm=clip_norm, progress=done.append)
    assert done == [1, 2, 3, 4]
    np.testing.assert_array_equal(params["readout.b_y"], 0.0)


@pytest.mark.parametrize("mode", ["ignore", "warn", "raise"])
@pytest.mark.parametrize("updates", [1, 5])
def test_a_step_that_itself_overflows_is_reported_as_an_error_of_gradlab(updates, mode):
    net, params, batch = neuron()
    far = Batch(batch.inputs, np.full((1, 1), 1e150))
    # Gradient -2e150, finite, and its square too; times the rate 1e200 it is not.
    with np.errstate(all=mode), pytest.raises(NumericalError, match="update"):
        sgd(net, params, itertools.repeat(far, updates), mean_squared_error, 1e200)


def test_a_poisoned_batch_is_named():
    net, params, batches = setting(LSTM())

    def loss(outputs, targets, mask):
        value, slope = mean_squared_error(outputs, targets, mask)
        return (value, slope * np.nan) if targets is batches[3].targets else (value, slope)

    with pytest.raises(NumericalError, match="update 3: overflow"):
        sgd(net, params, batches, loss, 0.1)


def test_float32_is_trained_in_float32():
    net, params, batches = setting(LSTM())
    single = [Batch(b.inputs.astype(np.float32), b.targets.astype(np.float32)) for b in batches]
    history = sgd(net, {k: v.astype(np.float32) for k, v in params.items()}, single, mean_squared_error, 0.3, clip_norm=1.0)
    wide = sgd(net, params, batches, mean_squared_error, 0.3, clip_norm=1.0)
    for key, value in history.params.items():
        assert value.dtype == np.float32, key
        # A hundred roundings of 6e-8, relative to the largest entry.
        assert np.abs(value - wide.params[key]).max() <= 1e-5 * np.abs(wide.params[key]).max() + 1e-6


def test_vanished_gradients_move_the_parameters_by_their_own_size():
    # A bias of 0 and a gradient of 1e-250: the update is not rounded away.
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.zeros((1, 1)), "0.U": np.zeros((1, 1)), "0.b": np.zeros(1)}

    def loss(outputs, targets, mask):
        return 1e-250 * outputs.sum(), np.full_like(outputs, 1e-250)

    history = sgd(net, params, [Batch(np.zeros((1, 1, 1)), np.zeros((1, 1)))], loss, 0.5, clip_norm=1.0)
    np.testing.assert_allclose(history.params["0.b"], -5e-251, rtol=1e-15)
    np.testing.assert_allclose(history.gradient_norm, 1e-250, rtol=1e-12)  # exp of 576 nats


def test_the_adding_problem_is_learnt_below_its_baseline():
    rng = np.random.default_rng(0)
    net = Network(LSTM(), 2, 16, output_size=1, readout="last")
    batches = (adding.sample(rng, 32, 4) for _ in range(400))
    history = sgd(net, net.init(rng), batches, mean_squared_error, 0.5, clip_norm=1.0)
    assert history.loss[-50:].mean() < 0.5 * adding.BASELINE  # sequences of four steps: easy, if every gradient is right
