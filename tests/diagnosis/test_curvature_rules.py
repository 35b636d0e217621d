"""A cliff ahead: sharpness known in closed form, walls that are really there, nothing on nets that can be trained."""

import numpy as np
import pytest
from history_cases import scaled, symbols, told_of

from gradlab import GRU, LSTM, Batch, Elman, Network, bptt, irnn, mean_squared_error, softmax_cross_entropy
from gradlab.analysis.hessian import Hessian, dense_hessian
from gradlab.diagnosis import ahead
from gradlab.diagnosis.ahead import affordable, ahead_of, problem_of, steepness_of
from gradlab.diagnosis.circumstances import Circumstances
from gradlab.diagnosis.evidence import Evidence, Look
from gradlab.diagnosis.rules_curvature import SHARP, WALL, cliff, cliff_statistic
from gradlab.diagnosis.silence import silent
from gradlab.inits import orthogonal
from gradlab.tasks import adding
from gradlab.training import SGD, train


def shown(net, params, batch, loss=mean_squared_error, record=None, **told):
    record = bptt(net, params, batch, loss) if record is None else record
    return Evidence((Look(record, "", net, params, batch=batch, loss=loss),), None, Circumstances(**told))


def findings(evidence):
    with np.errstate(all="ignore"):
        return list(cliff(evidence))


def saddle():
    """L = (V b + b_y - 3)^2 at 0: the Hessian is 2 for b_y and ((0, -6), (-6, 0)) for V and b, so the sharpness is 6."""
    net = Network(Elman("linear"), 1, 1, output_size=1, readout="last")
    params = {key: np.zeros(shape) for key, shape in net.shapes.items()}
    return net, params, Batch(np.zeros((1, 1, 1)), np.full((1, 1), 3.0))


def power(weight=0.9, T=20, rows=4):
    """y = w^T exactly, for a unit input at the first step; the target is 1: the gradient leads up a wall."""
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.eye(1), "0.U": np.full((1, 1), weight), "0.b": np.zeros(1)}
    x = np.zeros((T, rows, 1))
    x[0] = 1.0
    return net, params, Batch(x, np.ones((rows, 1)))


# ---- sharpness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "severity"), [(0.3, None), (0.4, "info"), (0.6, "info"), (0.7, "warning"), (5.0, "warning")])
def test_a_sharpness_above_the_limit_of_the_learning_rate_is_found_with_its_number(rate, severity):
    found = findings(shown(*saddle(), learning_rate=rate))
    assert [one.severity for one in found] == ([] if severity is None else [severity])
    for one in found:
        assert one.code == "cliff"
        assert one.numbers["sharpness"].value == pytest.approx(6.0 / (2.0 / rate), rel=1e-12)  # a 5 x 5 matrix, by LAPACK
        assert one.numbers["sharpness"].threshold == (SHARP.value if severity == "warning" else 1.0)


def test_clipping_shortens_the_step_that_is_judged():
    net, params, batch = saddle()  # the gradient is -6, by b_y
    (free,) = findings(shown(net, params, batch, learning_rate=1.0))
    assert free.numbers["sharpness"].value == pytest.approx(3.0)
    assert findings(shown(net, params, batch, learning_rate=1.0, clip_norm=1.5)) == []  # 3/4
    assert findings(shown(net, params, batch, learning_rate=1.0, clip_value=1.5)) == []
    (same,) = findings(shown(net, params, batch, learning_rate=1.0, clip_norm=60.0))
    assert same == free


def test_the_parameter_that_is_steep_is_named():
    net, params, batch = power(1.0)
    hessian = Hessian(net, params, batch, mean_squared_error)
    steepest = np.linalg.eigh(dense_hessian(hessian))[1][:, -1]
    (key,) = (key for key, own in hessian.vector.slices.items() if (steepest[own] ** 2).sum() > 0.5)
    (found,) = findings(shown(net, params, batch, learning_rate=0.1))
    assert (found.place.layer, found.place.parameter) == ("0", key)


def test_a_net_that_is_too_large_is_judged_along_the_step(monkeypatch):
    evidence = shown(*power(0.97), learning_rate=0.3)
    (exact,) = findings(evidence)
    monkeypatch.setattr(ahead, "WORK", 1)
    assert affordable(evidence.looks[0]) == 0
    (bound,) = findings(evidence)
    assert "at least" in bound.message
    assert 1.0 < bound.numbers["sharpness"].value <= exact.numbers["sharpness"].value * (1.0 + 1e-6)  # a Rayleigh quotient
    assert "Only the step ahead" in silent(evidence)["sharpness"]


def test_training_on_the_edge_of_stability_gets_no_warning():
    """Full-batch descent settles just above the limit by itself (Cohen et al. 2021)."""
    rng = np.random.default_rng(0)
    net = Network(Elman(), 2, 8, output_size=1, readout="last")
    params, batch = net.init(rng), adding.sample(rng, 16, 6)
    first = steepness_of(shown(net, params, batch, learning_rate=1.0).looks[0], 1.0, 0)
    rate = 0.8 / first.ratio
    trained = train(net, params, lambda rng: batch, mean_squared_error, 900, rng, learning_rate=rate, optimiser=SGD()).params
    evidence = shown(net, trained, batch, learning_rate=rate)
    assert cliff_statistic(evidence)["sharpness"] > 0.9  # it is there
    assert all(one.severity == "info" for one in findings(evidence))


# ---- walls ----------------------------------------------------------------------------------------------------


def test_a_wall_within_the_step_is_found_and_is_really_there():
    net, params, batch = power()
    rate = 0.02
    record = bptt(net, params, batch, mean_squared_error)
    (found,) = findings(shown(net, params, batch, learning_rate=rate))
    assert (found.code, found.severity) == ("cliff", "warning")
    assert "through a wall" in found.message
    after = {key: value - rate * record.gradients[key] for key, value in params.items()}
    loss = float(bptt(net, after, batch, mean_squared_error).loss)
    assert found.numbers["rise"].value == pytest.approx(loss / float(record.loss) - 1.0, rel=1e-9)
    norm = sum(float(np.square(value).sum()) for value in record.gradients.values())
    assert WALL.value < found.numbers["wall"].value <= (loss - float(record.loss)) / (rate * norm)


@pytest.mark.parametrize(("rate", "clip"), [(1e-3, None), (0.1, 0.05)])
def test_a_step_that_is_short_enough_does_not_reach_the_wall(rate, clip):
    assert findings(shown(*power(), learning_rate=rate, clip_norm=clip)) == []


@pytest.mark.parametrize("T", [60, 400])
def test_a_step_into_overflow_is_an_error(T):
    net = Network(Elman("linear"), 1, 1)
    params = {"0.W": np.eye(1), "0.U": np.full((1, 1), 1.05), "0.b": np.zeros(1)}
    batch = Batch(np.ones((T, 2, 1)), np.zeros((T, 2, 1)))
    (found,) = findings(shown(net, params, batch, learning_rate=1.0))
    assert found.severity == "error"


def test_a_quadratic_loss_has_no_wall():
    evidence = shown(*saddle(), learning_rate=0.25)
    assert ahead_of(evidence.looks[0], evidence.circumstances).wall == pytest.approx(-0.75, abs=1e-6)  # at s = 1: -1 + eta s
    evidence = shown(*saddle(), learning_rate=1.25)  # the step overshoots, as the quadratic model says it does
    assert ahead_of(evidence.looks[0], evidence.circumstances).wall == pytest.approx(0.0, abs=1e-6)  # differences of gradients
    assert "wall" not in findings(evidence)[0].numbers


def test_a_wall_that_is_low_against_the_loss_is_passed_over():
    def lifted(outputs, targets, mask=None):
        value, gradient = mean_squared_error(outputs, targets, mask)
        return value + 1e6, gradient

    (found,) = findings(shown(*power(), lifted, learning_rate=0.02))
    assert "wall" not in found.numbers
    assert found.severity == "info"  # of its sharpness


# ---- cost, rows, parameters -----------------------------------------------------------------------------------


def test_parameters_and_batch_stay_as_they_are_and_equal_seeds_give_equal_numbers():
    rng = np.random.default_rng(0)
    net = Network(LSTM(), 2, 6, output_size=1, readout="last")
    params, batch = net.init(rng, dtype=np.float32), adding.sample(rng, 40, 9)
    kept, inputs = {key: value.copy() for key, value in params.items()}, batch.inputs.copy()
    evidence = shown(net, params, batch, learning_rate=40.0)
    first, second = findings(evidence), findings(evidence)
    assert first == second != []
    assert all(np.array_equal(params[key], kept[key]) and params[key].dtype == np.float32 for key in params)
    np.testing.assert_array_equal(batch.inputs, inputs)
    assert "on 32 sequences" in first[0].message  # of 40


@pytest.mark.parametrize("readout", ["every", "last"])
def test_rows_are_taken_with_their_targets_mask_and_lengths(readout):
    rng = np.random.default_rng(0)
    net = Network(GRU(), 3, 4, output_size=2, readout=readout)
    lead = (7, 50) if readout == "every" else (50,)
    lengths = rng.integers(2, 8, 50)
    lengths[0] = 7
    mask = rng.integers(0, 2, lead).astype(float)
    batch = Batch(rng.standard_normal((7, 50, 3)), rng.standard_normal((*lead, 2)), mask, lengths)
    problem = problem_of(shown(net, net.init(rng), batch).looks[0])
    rows = np.unique(np.linspace(0, 49, 32).astype(int))
    np.testing.assert_array_equal(problem.batch.inputs, batch.inputs[:, rows])
    np.testing.assert_array_equal(problem.batch.targets, batch.targets[..., rows, :])
    np.testing.assert_array_equal(problem.batch.mask, mask[..., rows])
    np.testing.assert_array_equal(problem.batch.lengths, lengths[rows])
    assert problem.sequences == 32


def test_the_work_is_bounded():
    net = Network(LSTM(), 2, 256, output_size=1)
    for T in (100, 10000):
        look = Look(None, "", net, {}, batch=Batch(np.zeros((T, 64, 2)), None))
        assert affordable(look) * T * sum(int(np.prod(shape)) for shape in net.shapes.values()) <= ahead.WORK
    small = Look(None, "", Network(Elman(), 2, 8), {}, batch=Batch(np.zeros((50, 64, 2)), None))
    assert affordable(small) == 32


# ---- units, nothing wrong, odd input --------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize(("case", "rate"), [(saddle, 1.0), (power, 0.1), (lambda: power(1.3, 40), 0.1)])
def test_findings_do_not_change_with_the_unit_of_the_loss(case, rate, scale):
    net, params, batch = case()
    first = findings(shown(net, params, batch, learning_rate=rate))
    second = findings(shown(net, params, batch, scaled(mean_squared_error, scale), learning_rate=rate / scale))
    assert first
    assert told_of(first) == told_of(second)


@pytest.mark.parametrize("cell", [Elman(U=orthogonal()), LSTM(), GRU(), irnn(), LSTM(peepholes=True)])
@pytest.mark.parametrize("task", ["adding", "symbols"])
def test_nets_that_can_be_trained_get_no_warning(cell, task):
    rng = np.random.default_rng(0)
    if task == "adding":
        net, batch, loss = Network(cell, 2, 10, output_size=1, readout="last"), adding.sample(rng, 8, 15), mean_squared_error
    else:
        net, batch, loss = Network(cell, 4, 10, output_size=4, num_layers=2), symbols(rng), softmax_cross_entropy
    assert findings(shown(net, net.init(rng), batch, loss, learning_rate=0.01, clip_norm=1.0)) == []


def test_a_loss_that_is_not_complex_safe_is_judged_along_the_step():
    def absolute(outputs, targets, mask=None):
        error = outputs - targets
        return np.asarray((np.abs(error) ** 2).mean()), 2.0 * np.real(error) / error.size

    net, params, batch = power(0.97)
    (found,) = findings(shown(net, params, batch, absolute, bptt(net, params, batch, mean_squared_error), learning_rate=0.3))
    assert "at least" in found.message


def test_odd_input_leaves_the_rule_silent():
    rng = np.random.default_rng(0)
    net = Network(Elman(), 2, 4, output_size=1, readout="last")
    params, batch = net.init(rng), adding.sample(rng, 5, 6)
    record = bptt(net, params, batch, mean_squared_error)
    told = Circumstances(learning_rate=100.0)

    def broken(outputs, targets, mask=None):
        raise RuntimeError("no")

    def infinite(outputs, targets, mask=None):
        return np.asarray(np.inf), np.full(outputs.shape, np.nan)

    tuples = Batch(adding.sample(rng, 40, 6).inputs, (1, 2))
    looks = [
        Look(record),
        Look(record, "", net, params),
        Look(record, "", net, params, batch=batch),
        Look(record, "", net, params, batch=batch, loss=broken),
        Look(record, "", net, params, batch=batch, loss=infinite),
        Look(
            record,
            "",
            net,
            {key: np.full_like(value, np.nan) for key, value in params.items()},
            batch=batch,
            loss=mean_squared_error,
        ),
        Look(
            record, "", net, {key: np.stack([value] * 2) for key, value in params.items()}, batch=batch, loss=mean_squared_error
        ),
        Look(record, "", net, {}, batch=batch, loss=mean_squared_error),
        Look(record, "", net, params, batch=tuples, loss=mean_squared_error),
    ]
    for look in looks:
        assert findings(Evidence((look,), None, told)) == []
    assert findings(Evidence((Look(record, "", net, params, batch=batch, loss=mean_squared_error),))) == []  # no learning rate
    assert findings(Evidence((), None, told)) == []
    one = Batch(rng.standard_normal((1, 1, 2)), np.zeros((1, 1)))
    for found in findings(shown(net, params, one, learning_rate=1e9)):  # T = 1, B = 1
        assert found.code == "cliff"
    nothing = {key: np.zeros_like(value) for key, value in params.items()}
    zero = Batch(np.zeros((3, 2, 2)), np.zeros((2, 1)))
    assert ahead_of(Look(record, "", net, nothing, batch=zero, loss=mean_squared_error), told) is None  # no gradient, no step
