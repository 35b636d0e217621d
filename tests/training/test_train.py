"""Training against problems it solves in closed form, against its own parts, and against its members one by one."""

import numpy as np
import pytest
from training.problems import member, neuron, run, setting

from gradlab import LSTM, Batch, Elman, Network, bptt, mean_squared_error, truncated_bptt
from gradlab.tasks import adding
from gradlab.training import SGD, Adam, ByNorm, NormPreserving, RMSProp, clip_by_norm, schedules, train


def test_a_quadratic_is_approached_by_the_known_factor_each_update():
    # Only b_y moves: loss (b_y - 3)^2, so b_y - 3 shrinks by 1 - 2 rate each time.
    net, params, batch = neuron()
    n, rate = 40, 0.1
    history = run(net, params, batch, n, learning_rate=rate, keep_path=True)
    error = -3.0 * (1.0 - 2.0 * rate) ** np.arange(n + 1)
    np.testing.assert_allclose(history.path["readout.b_y"][:, 0], 3.0 + error, rtol=1e-13)  # 40 updates, each rounded
    np.testing.assert_allclose(history.loss, error[:-1] ** 2, rtol=1e-10)  # near the target b_y - 3 cancels to 3e-4
    np.testing.assert_allclose(history.gradient_norm, 2.0 * np.abs(error[:-1]), rtol=1e-10)
    np.testing.assert_array_equal(history.params["readout.b_y"], history.path["readout.b_y"][-1])
    for key in ("0.W", "0.U", "0.b", "readout.V"):
        np.testing.assert_array_equal(history.path[key], 0.0)


CURVATURE = 2.0
"""Of the neuron's loss along b_y."""


@pytest.mark.parametrize(
    ("optimiser", "limit"),
    [
        (SGD(), 2.0 / CURVATURE),
        (SGD(momentum=0.9), 2.0 * 1.9 / CURVATURE),
        (SGD(momentum=0.5, nesterov=True), 2.0 * 1.5 / (CURVATURE * 2.0)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("share", [0.95, 1.05])
def test_a_quadratic_diverges_above_the_known_limit_of_the_learning_rate_and_not_below(optimiser, limit, share):
    # a < 2/eta, 2(1 + m)/eta, 2(1 + m)/(eta(1 + 2m)) for a curvature a
    net, params, batch = neuron()
    loss = run(net, params, batch, 500, learning_rate=share * limit, optimiser=optimiser).loss
    assert (loss[-1] > 1e3 * loss[0]) == (share > 1.0)
    assert (loss[-1] < 1e-3 * loss[0]) == (share < 1.0)


def test_clipping_limits_the_length_of_each_step():
    net, params, batch = neuron()
    history = run(net, params, batch, 10, learning_rate=0.5, clip=ByNorm(0.2), keep_path=True)
    # Far from the target the gradient 2 (b_y - 3) is clipped to 0.2: ten steps of 0.1.
    np.testing.assert_allclose(np.diff(history.path["readout.b_y"][:, 0]), 0.1, rtol=1e-13)
    np.testing.assert_allclose(history.gradient_norm, 2.0 * (3.0 - 0.1 * np.arange(10)), rtol=1e-13)  # before clipping
    np.testing.assert_array_equal(history.clipped, 1.0)


def test_a_schedule_multiplies_the_learning_rate_update_by_update():
    net, params, batch = neuron()
    factors = [1.0, 0.5, 0.0, 0.25]
    history = run(net, params, batch, 4, learning_rate=0.1, schedule=lambda update: factors[update], keep_path=True)
    error = -3.0 * np.cumprod([1.0, *(1.0 - 0.2 * f for f in factors)])
    np.testing.assert_allclose(history.path["readout.b_y"][:, 0] - 3.0, error, rtol=1e-13)  # four updates


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (schedules.constant(), {0: 1.0, 999: 1.0}),
        (schedules.inverse_time(100), {0: 1.0, 100: 0.5, 300: 0.25}),
        (schedules.exponential(50), {0: 1.0, 50: 0.5, 150: 0.125}),
        (schedules.steps(10, 0.1), {9: 1.0, 10: 0.1, 25: 0.01}),
        (schedules.cosine(100, 0.2), {0: 1.0, 50: 0.6, 100: 0.2, 500: 0.2}),
        (schedules.warm_up(4, schedules.exponential(2)), {0: 0.25, 3: 1.0, 4: 1.0, 6: 0.5}),
    ],
)
def test_schedules_have_their_known_values(schedule, values):
    for update, value in values.items():
        assert schedule(update) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("clip", [None, ByNorm(0.05)])
@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM()], ids=repr)
def test_each_update_is_the_gradient_of_its_batch_times_the_rate(cell, clip):
    net, params, sample = setting(cell)
    history = run(net, params, sample, learning_rate=0.3, clip=clip, keep_path=True)
    current, rng = params, np.random.default_rng(3)
    for k in range(5):
        record = bptt(net, current, sample(rng), mean_squared_error)
        gradients = record.gradients if clip is None else clip_by_norm(net, record.gradients, 0.05)[0]
        current = {key: current[key] - 0.3 * gradients[key] for key in current}
        assert history.loss[k] == record.loss
        for key, value in current.items():
            np.testing.assert_array_equal(history.path[key][k + 1], value)  # the same operations
    for key in params:
        np.testing.assert_array_equal(history.path[key][0], params[key])
        np.testing.assert_array_equal(history.params[key], current[key])


@pytest.mark.parametrize("optimiser", [SGD(0.9), SGD(0.9, True), RMSProp(), Adam()], ids=repr)
def test_an_optimiser_is_told_how_many_updates_there_were_this_one_included(optimiser):
    net, params, sample = setting(LSTM())
    moved = run(net, params, sample, 4, learning_rate=0.01, optimiser=optimiser).params
    current, rng = params, np.random.default_rng(3)
    slots = {key: {name: np.zeros_like(value) for name in optimiser.slots} for key, value in params.items()}
    for count in range(1, 5):
        gradients = bptt(net, current, sample(rng), mean_squared_error).gradients
        current = {k: current[k] - 0.01 * optimiser.change(gradients[k], slots[k], np.array(count)) for k in current}
    for key, value in moved.items():
        np.testing.assert_array_equal(value, current[key])  # the same operations


def test_truncated_training_follows_the_truncated_gradient():
    net = Network(Elman("tanh"), 2, 4, output_size=1)
    params, rng = net.init(np.random.default_rng(0)), np.random.default_rng(1)
    batch = Batch(rng.normal(size=(12, 3, 2)), rng.normal(size=(12, 3, 1)))
    moved = run(net, params, batch, 1, learning_rate=0.5, truncate=(2, 5)).params
    cut = truncated_bptt(net, params, batch, mean_squared_error, 2, 5).gradients
    whole = bptt(net, params, batch, mean_squared_error).gradients
    for key, value in moved.items():
        np.testing.assert_array_equal(value, params[key] - 0.5 * cut[key])
    assert np.abs(cut["0.U"] - whole["0.U"]).max() > 1e-3 * np.abs(whole["0.U"]).max()


def test_the_regulariser_is_added_to_the_gradient_before_clipping():
    net, params, sample = setting(Elman("tanh"))
    regulariser = NormPreserving(4.0)
    batch = sample(np.random.default_rng(1))
    moved = run(net, params, batch, 1, learning_rate=0.5, regulariser=regulariser, clip=ByNorm(0.1)).params
    record = bptt(net, params, batch, mean_squared_error)
    gradients = dict(record.gradients)
    gradients["0.U"] = gradients["0.U"] + 4.0 * regulariser(net, params, record)[1]["0.U"]
    clipped, norm = clip_by_norm(net, gradients, 0.1)
    assert norm > 0.1
    for key, value in moved.items():
        np.testing.assert_array_equal(value, params[key] - 0.5 * clipped[key])


def test_given_parameters_are_not_modified_and_not_shared():
    net, params, sample = setting(LSTM())
    before = {k: v.copy() for k, v in params.items()}
    history = run(net, params, sample, optimiser=Adam(), keep_path=True)
    for key, value in params.items():
        np.testing.assert_array_equal(value, before[key])
        assert not np.shares_memory(value, history.params[key])
        assert not np.shares_memory(value, history.path[key])


def test_no_updates_return_the_parameters_themselves():
    net, params, sample = setting(LSTM())
    history = run(net, params, sample, 0, keep_path=True)
    assert history.loss.shape == (0,)
    assert history.updates == 0
    for key, value in params.items():
        np.testing.assert_array_equal(history.params[key], value)
        np.testing.assert_array_equal(history.path[key], value[None])
        assert not np.shares_memory(history.params[key], value)


def test_without_a_path_none_is_kept_and_progress_counts_the_updates():
    net, params, sample = setting(Elman("tanh"))
    told = []
    assert not run(net, params, sample, progress=lambda done, of: told.append((done, of))).path
    assert told == [(k, 5) for k in range(1, 6)]


def test_initial_states_are_used():
    net, params, sample = setting(Elman("tanh"))
    states = {"0": np.full((8, 4), 0.5)}
    one, other = (run(net, params, sample, initial_states=s) for s in (states, None))
    first = sample(np.random.default_rng(3))
    assert one.loss[0] == bptt(net, params, first, mean_squared_error, initial_states=states).loss
    assert one.loss[0] != other.loss[0]


def test_float32_is_trained_in_float32():
    net, params, sample = setting(LSTM())

    def single(rng):
        batch = sample(rng)
        return Batch(batch.inputs.astype(np.float32), batch.targets.astype(np.float32))

    narrow = {k: v.astype(np.float32) for k, v in params.items()}
    for optimiser in (SGD(momentum=0.9), Adam()):
        history = run(net, narrow, single, learning_rate=0.1, clip=ByNorm(1.0), optimiser=optimiser)
        wide = run(net, params, sample, learning_rate=0.1, clip=ByNorm(1.0), optimiser=optimiser)
        for key, value in history.params.items():
            assert value.dtype == np.float32, key
            # A hundred roundings of 6e-8, which Adam divides by gradients of their own size.
            assert np.abs(value - wide.params[key]).max() <= 1e-4 * np.abs(wide.params[key]).max() + 1e-5


def test_vanished_gradients_move_the_parameters_by_their_own_size():
    # A bias of 0 and a gradient of 1e-250: the update is not rounded away.
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {key: np.zeros(shape) for key, shape in net.shapes.items()}

    def loss(outputs, targets, mask):
        return 1e-250 * outputs.sum(), np.full_like(outputs, 1e-250)

    history = run(net, params, Batch(np.zeros((1, 1, 1)), np.zeros((1, 1))), 1, loss=loss, learning_rate=0.5, clip=ByNorm(1.0))
    np.testing.assert_allclose(history.params["0.b"], -5e-251, rtol=1e-15)
    np.testing.assert_allclose(history.gradient_norm, 1e-250, rtol=1e-14)


def validated(values):
    """A validation that reads its values off a list, one row a run."""
    rows = iter(values)
    return lambda params: np.array(next(rows))


def test_a_member_stops_when_it_has_not_improved_for_long_enough_and_keeps_its_best():
    net, params, sample = setting(Elman("tanh"), E=2)
    values = [[3.0, 3.0], [2.0, 2.0], [2.5, 1.0], [2.5, 0.5], [9.0, 0.4]]  # the first gets no better after its second run
    history = run(net, params, sample, 10, validate=validated(values), validate_every=2, patience=2, keep_path=True)
    assert history.updates == 10
    for key, value in history.params.items():
        np.testing.assert_array_equal(value[0], history.path[key][4, 0])
        np.testing.assert_array_equal(value[1], history.path[key][10, 1])
    np.testing.assert_array_equal(np.isnan(history.loss), np.arange(10)[:, None] >= [8, 10])
    np.testing.assert_array_equal(history.path["0.U"][8:, 0], history.path["0.U"][[8, 8, 8], 0])  # it stands still
    np.testing.assert_array_equal(history.validation[0], [2, 4, 6, 8, 10])
    np.testing.assert_array_equal(history.validation[1][:, 1], [3.0, 2.0, 1.0, 0.5, 0.4])
    assert history.status.ok


def test_a_member_stops_below_the_target_and_all_stop_when_the_last_has():
    net, params, sample = setting(Elman("tanh"), E=2)
    history = run(net, params, sample, 100, validate=validated([[0.5, 0.9], [7.0, 0.2]]), validate_every=3, target=0.6)
    assert history.updates == 6
    np.testing.assert_array_equal(np.isnan(history.loss).sum(axis=0), [3, 0])


def test_validation_also_runs_after_the_last_update_and_nan_is_never_best():
    net, params, sample = setting(Elman("tanh"))
    history = run(net, params, sample, 5, validate=validated([2.0, np.nan]), validate_every=4, keep_path=True)
    np.testing.assert_array_equal(history.validation[0], [4, 5])
    np.testing.assert_array_equal(history.params["0.U"], history.path["0.U"][4])


def test_a_validation_that_writes_into_its_parameters_does_not_train():
    net, params, sample = setting(Elman("tanh"))

    def destructive(params):
        for value in params.values():
            value[...] = np.nan
        return 1.0

    history = run(net, params, sample, 4, validate=destructive, validate_every=2, keep_path=True)
    assert np.isfinite(history.path["0.U"]).all()


def test_the_adding_problem_is_learnt_below_its_baseline():
    net = Network(LSTM(), 2, 16, output_size=1, readout="last")
    rng = np.random.default_rng(0)
    history = train(
        net,
        net.init(rng),
        lambda rng: adding.sample(rng, 32, 4),
        mean_squared_error,
        200,
        rng,
        optimiser=Adam(),
        clip=ByNorm(1.0),
    )
    assert history.loss[-50:].mean() < 0.5 * adding.BASELINE  # sequences of four steps: easy, if every gradient is right


# ---- ensembles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"clip": ByNorm(0.1)}, {"optimiser": Adam(), "clip": ByNorm(0.1)}], ids=repr)
@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM()], ids=repr)
def test_twenty_members_are_twenty_separate_runs(cell, options):
    net, params, sample = setting(cell, E=20)
    together = run(net, params, sample, 10, learning_rate=0.05, **options)
    assert together.loss.shape == together.gradient_norm.shape == (10, 20)
    for e in range(20):
        alone = run(net, member(params, e), sample, 10, learning_rate=0.05, **options)
        # Products of a stack of matrices may be blocked otherwise than those of one: rounding, over ten updates.
        np.testing.assert_allclose(together.loss[:, e], alone.loss, rtol=1e-11)
        for key in params:
            gap = np.abs(together.params[key][e] - alone.params[key]).max()
            assert gap <= 1e-11 * np.abs(alone.params[key]).max() + 1e-16, key  # biases start at 0


def test_members_with_their_own_streams_rates_and_thresholds_are_separate_runs():
    net, params, sample = setting(LSTM(), E=4)
    rates, thresholds = np.array([0.01, 0.02, 0.05, 0.1]), np.array([0.01, 0.1, 1.0, 10.0])
    streams = [np.random.default_rng([7, e]) for e in range(4)]
    together = train(
        net, params, sample, mean_squared_error, 10, streams, learning_rate=rates, clip=ByNorm(thresholds), optimiser=Adam()
    )
    for e in range(4):
        alone = train(
            net,
            member(params, e),
            sample,
            mean_squared_error,
            10,
            np.random.default_rng([7, e]),
            learning_rate=rates[e],
            clip=ByNorm(thresholds[e]),
            optimiser=Adam(),
        )
        np.testing.assert_allclose(together.loss[:, e], alone.loss, rtol=1e-11)  # as above
        np.testing.assert_array_equal(together.clipped[:, e], alone.clipped)
    assert 0.0 < together.clipped.mean() < 1.0


def test_members_that_share_a_start_part_from_it():
    net, params, sample = setting(Elman("tanh"))
    gains = np.array([0.5, 1.0])
    together = run(net, params | {"0.U": gains[:, None, None] * params["0.U"]}, sample, learning_rate=0.3)
    for e, gain in enumerate(gains):
        alone = run(net, params | {"0.U": gain * params["0.U"]}, sample, learning_rate=0.3)
        np.testing.assert_allclose(together.loss[:, e], alone.loss, rtol=1e-12)  # as above
        np.testing.assert_allclose(together.params["0.W"][e], alone.params["0.W"], rtol=1e-12)


def test_two_ensemble_axes_are_rates_times_seeds():
    net, params, sample = setting(Elman("tanh"), E=3)
    rates = np.array([0.05, 0.2])
    stacked = {key: np.broadcast_to(value, (2, *value.shape)) for key, value in params.items()}
    together = run(net, stacked, sample, learning_rate=np.repeat(rates[:, None], 3, axis=1), clip=ByNorm(0.1))
    assert together.loss.shape == (5, 2, 3)
    for k, rate in enumerate(rates):
        alone = run(net, params, sample, learning_rate=rate, clip=ByNorm(0.1))
        np.testing.assert_allclose(together.loss[:, k], alone.loss, rtol=1e-12)  # as above


def test_members_may_have_their_own_labels_at_every_step():
    # Targets with a time axis: the ensemble axis stands behind it, and a mask goes with them.
    net = Network(Elman("tanh"), 2, 4, output_size=1)
    params = {k: np.stack([v, 0.5 * v]) for k, v in net.init(np.random.default_rng(0)).items()}

    def sample(rng):
        return Batch(rng.normal(size=(6, 3, 2)), rng.normal(size=(6, 3, 1)), rng.random((6, 3)) < 0.7)

    together = train(net, params, sample, mean_squared_error, 4, [np.random.default_rng(e) for e in (1, 2)])
    for e in (1, 2):
        alone = train(net, member(params, e - 1), sample, mean_squared_error, 4, np.random.default_rng(e))
        np.testing.assert_allclose(together.loss[:, e - 1], alone.loss, rtol=1e-12)  # as above


def test_threads_that_share_the_members_change_no_bit():
    net, params, sample = setting(LSTM(), E=5)
    options = {"learning_rate": 0.05, "optimiser": Adam(), "clip": ByNorm(0.1)}
    one, other = (run(net, params, sample, 10, threads=threads, **options) for threads in (1, 2))
    assert np.array_equal(one.loss, other.loss)
    assert all(np.array_equal(one.params[key], other.params[key]) for key in params)
