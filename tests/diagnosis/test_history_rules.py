"""Jumps of the loss, sizes of updates, gradients over time: planted at known updates, absent from runs that learn."""

import ast

import numpy as np
import pytest
from history_cases import calm, evidence, findings, moved, noted, told_of, trained

from gradlab import GRU, LSTM, SCRN, Elman, irnn
from gradlab.diagnosis.catalogue_training import TRAINING
from gradlab.diagnosis.evidence import Evidence, Look
from gradlab.diagnosis.history import History, layer_of
from gradlab.diagnosis.rules_flow_history import flow_history
from gradlab.diagnosis.rules_history import loss_jumps, loss_jumps_statistic
from gradlab.diagnosis.rules_updates import LARGE, first_update_statistic, update_ratio, update_ratio_statistic
from gradlab.diagnosis.silence import silent
from gradlab.errors import DTypeError, ShapeError
from gradlab.inits import orthogonal
from gradlab.training import SGD, Adam, ByNorm, Monitor, RMSProp

RULES = (flow_history, loss_jumps, update_ratio)


# ---- jumps of the loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "factor"), [(30, 4.0), (77, 40.0), (119, 1e6)])
def test_a_jump_is_found_at_its_update_with_its_size(at, factor):
    losses = calm(120, np.random.default_rng(at))
    losses[at] *= factor
    (found,) = findings([loss_jumps], evidence(noted(losses)))
    assert (found.code, found.severity, found.place.update) == ("loss-jumps", "warning", at)
    assert found.numbers["largest"].value == pytest.approx(factor, rel=0.25)  # the noise is 5 %, the fall 17 % in 20 updates
    assert found.numbers["jumps per 100 updates"].value == pytest.approx(1.0)  # 1 of the 100 that have 20 in front


def test_a_jump_that_stays_is_told_from_one_that_goes():
    losses = calm(120, np.random.default_rng(1))
    losses[60] *= 4.0
    losses[61:75] *= 2.5
    (found,) = findings([loss_jumps], evidence(noted(losses)))
    assert found.severity == "warning"
    assert found.place.update == 60
    assert found.numbers["largest"].value == pytest.approx(4.0, rel=0.25)
    assert found.numbers["after"].value == pytest.approx(2.5, rel=0.25)  # as above


@pytest.mark.parametrize("seed", range(5))
def test_the_noise_of_small_batches_is_no_reason_to_warn(seed):
    rng = np.random.default_rng(seed)
    for sequences in (1, 2, 8):
        losses = np.exp(-np.arange(400) / 200.0) * rng.chisquare(sequences, 400)  # squared errors of so many sequences
        assert all(one.severity == "info" for one in findings([loss_jumps], evidence(noted(losses))))
        assert loss_jumps_statistic(evidence(noted(losses)))["per 100 updates"] <= 1.0


def test_a_spike_of_a_loss_that_is_almost_nothing_is_no_reason_to_warn():
    losses = np.exp(-np.arange(300) / 20.0) * np.exp(0.2 * np.random.default_rng(0).standard_normal(300))
    losses[250] *= 100.0  # from 4e-6 to 4e-4, and back
    (found,) = findings([loss_jumps], evidence(noted(losses)))
    assert (found.severity, found.place.update) == ("info", 250)


def test_a_loss_that_stays_a_little_higher_is_no_reason_to_warn():
    losses = np.r_[np.geomspace(100.0, 1.0, 60), np.ones(100)] * np.exp(0.01 * np.random.default_rng(0).standard_normal(160))
    losses[120:150] *= 1.3
    (found,) = findings([loss_jumps], evidence(noted(losses)))
    assert (found.severity, found.place.update) == ("info", 120)


def test_a_loss_a_hundred_times_as_large_is_a_jump_whatever_the_noise():
    losses = calm(120, np.random.default_rng(0), noise=0.7)
    losses[80] = 100.0 * np.median(losses[60:80])
    (found,) = findings([loss_jumps], evidence(noted(losses)))
    assert (found.severity, found.place.update) == ("warning", 80)
    assert found.numbers["deviations"].value < 8.5  # the noise is that large


def test_a_loss_below_zero_can_jump_too():
    losses = -5.0 + 0.05 * np.random.default_rng(0).standard_normal(100)  # a log-likelihood of densities
    losses[50] += 3.0
    (found,) = findings([loss_jumps], evidence(noted(losses)))
    assert (found.severity, found.place.update) == ("warning", 50)


def test_clipping_is_told_to_have_caught_a_jump_or_not():
    caught, *_ = trained(clip=ByNorm(3.0), outliers=(60,))
    (found,) = findings([loss_jumps], evidence(caught))
    assert found.place.update == 60
    assert "clipping caught them" in found.message
    assert found.numbers["clipped"].value == 1.0
    assert found.numbers["gradient norm"].value > 10.0
    missed, *_ = trained(clip=ByNorm(1e4), outliers=(60,), rate=0.01)
    (found,) = findings([loss_jumps], evidence(missed))
    assert "clipping did not catch them" in found.message
    assert found.numbers["clipped"].value == 0.0


def test_a_loss_that_is_no_number_is_left_to_another_rule():
    losses = calm(100, np.random.default_rng(0))
    losses[50:] = np.nan
    assert findings([loss_jumps], evidence(noted(losses))) == []


def test_the_update_is_right_where_a_full_history_dropped_rows():
    losses = calm(1000, np.random.default_rng(0))
    losses[700:760] *= 20.0
    monitor = Monitor(capacity=130)
    for k, value in enumerate(losses):
        monitor.record(k, loss=value)
    (found,) = findings([loss_jumps], evidence(monitor))
    assert abs(found.place.update - 700) <= 16  # one row in 8 is left, and equal rows follow the first


# ---- sizes of updates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "word"), [(0.3, "too large"), (1e-7, "too small")])
def test_an_update_out_of_proportion_is_found_at_its_matrix_with_the_exact_ratio(ratio, word):
    shown = evidence(moved({"0.W": 1e-3, "1.forward.U": ratio, "readout.V": 2e-3}))
    (found,) = findings([update_ratio], shown)
    assert (found.code, found.severity) == ("update-ratio", "warning")
    assert (found.place.layer, found.place.parameter) == ("1.forward", "1.forward.U")
    assert word in found.message
    assert found.numbers["ratio"].value == pytest.approx(ratio, rel=1e-6)  # a difference of numbers of size 1
    assert update_ratio_statistic(shown)["0.W"] == pytest.approx(1e-3, rel=1e-9)


@pytest.mark.parametrize("ratio", [1e-4, 1e-3, 1e-2, 0.05])
def test_usual_ratios_are_passed_over(ratio):
    assert findings([update_ratio], evidence(moved({"0.W": ratio, "0.U": ratio / 3, "readout.V": ratio}))) == []


def test_one_finding_tells_of_a_wrong_learning_rate():
    (found,) = findings([update_ratio], evidence(moved({"0.W": 1e-7, "0.U": 1e-8, "readout.V": 1e-7, "0.b": 1e-7})))
    assert found.place.parameter == "0.U"
    assert "2 more of 3 matrices" in found.message


def test_biases_and_what_starts_at_zero_have_no_size_to_be_compared_with():
    monitor = Monitor()
    V = np.zeros((1, 2))
    for k in range(60):
        params = {"readout.V": V, "0.b": np.full(2, 1e-9), "0.p_i": np.full(2, 1e9), "0.U": np.eye(2)}
        V = 1.2 * V + 1e-3
        new = {"readout.V": V, "0.b": np.full(2, 2e-9), "0.p_i": np.full(2, 1e9 + 1.0), "0.U": 1.001 * np.eye(2)}
        monitor.record(k, params=params, new_params=new)
    assert findings([update_ratio], evidence(monitor)) == []


def test_a_matrix_that_never_moves_among_others_that_do_is_an_info():
    (found,) = findings([update_ratio], evidence(moved({"0.W": 0.0, "0.U": 1e-3, "readout.V": 1e-3})))
    assert (found.severity, found.place.parameter) == ("info", "0.W")


def test_small_steps_of_a_long_run_that_goes_far_are_passed_over():
    monitor = Monitor()
    for k in range(50):
        params = {"0.U": np.eye(2), "0.W": np.eye(2)}
        monitor.record(100000 * k, params=params, new_params={key: (1.0 + 2e-6) * value for key, value in params.items()})
    assert findings([update_ratio], evidence(monitor)) == []


def test_one_matrix_may_move_slowly_while_the_others_move():
    assert findings([update_ratio], evidence(moved({"0.W": 1e-3, "0.U": 5e-6, "readout.V": 1e-3}))) == []


@pytest.mark.parametrize(("optimiser", "rate"), [(Adam(), 0.5), (RMSProp(), 0.1), (Adam(), 1e-8), (SGD(), 1e-7)])
def test_a_real_run_with_a_wrong_learning_rate_says_so(optimiser, rate):
    monitor, *_ = trained(LSTM(), updates=60, rate=rate, optimiser=optimiser)
    found = findings([update_ratio], evidence(monitor))
    assert [one.severity for one in found] == ["warning"]
    assert "it is the learning rate" in found[0].message


def test_input_weights_that_start_tiny_on_purpose_are_passed_over():
    """IRNN draws W with standard deviation 0.001: Adam's first update is as large as W itself."""
    monitor, *_ = trained(irnn(), rate=3e-3, optimiser=Adam())
    assert first_update_statistic(evidence(monitor))["0.W"] > 1.0
    assert findings([update_ratio], evidence(monitor)) == []


# ---- gradients over time, from update to update ---------------------------------------------------------------


def flowing(slopes, T=40, layer="0"):
    """Adjoints that grow by `slopes` (n,) nats for each step back, every update."""
    monitor = Monitor(every=1)
    back = np.arange(T + 1)[::-1]
    for k, slope in enumerate(slopes):
        monitor.record(k, adjoint_norms={layer: np.exp(slope * back)}, loss=1.0)
    return monitor


def test_growing_gradients_are_found_from_the_first_update_that_has_them():
    slopes = np.where(np.arange(50) < 20, 0.0, 0.5)
    (found,) = findings([flow_history], evidence(flowing(slopes, layer="0.backward")))
    assert (found.code, found.severity) == ("exploding", "error")
    assert (found.place.layer, found.place.direction, found.place.update) == ("0.backward", "backward", 20)
    assert found.numbers["gain"].value == pytest.approx(0.5 * 39)  # from step 40 to the state behind the first input
    assert found.numbers["share"].value == pytest.approx(0.6)


@pytest.mark.parametrize(("slope", "severity"), [(-0.6, "warning"), (-1.5, "error")])
def test_lost_gradients_are_found(slope, severity):
    (found,) = findings([flow_history], evidence(flowing(np.where(np.arange(30) < 5, 0.0, slope))))
    assert (found.code, found.severity, found.place.update) == ("vanishing", severity, 5)
    assert found.numbers["gain"].value == pytest.approx(slope * 39)


def test_a_loss_at_every_step_adds_up_and_does_not_explode():
    monitor = Monitor(every=1)
    for k in range(10):
        monitor.record(k, adjoint_norms={"0": np.arange(401.0, 0.0, -1.0)})  # k + 1 equal gradients k steps back
    assert findings([flow_history], evidence(monitor)) == []


def test_steps_that_an_update_did_not_have_are_no_gradient_that_was_lost():
    monitor = Monitor(every=1)
    for k in range(10):
        monitor.record(k, adjoint_norms={"0": np.where(np.arange(31) < 10, np.nan, 1.0)})
    assert findings([flow_history], evidence(monitor)) == []


def test_a_real_run_of_an_unstable_net_explodes_from_the_start():
    monitor, net, params = trained(Elman("linear"), updates=30, rate=1e-12, U=orthogonal(3.0))
    (found,) = findings([flow_history], evidence(monitor))
    assert (found.code, found.place.layer, found.place.update) == ("exploding", "0", 0)
    assert found.numbers["gain"].value == pytest.approx(9 * np.log(3.0), rel=1e-6)  # 10 steps; an orthogonal U times 3
    record = trained(Elman("linear"), updates=1)[0]
    assert record.names  # the same layer in a pass: the rules of flow speak instead
    look = _pass(net, params)
    assert findings([flow_history], evidence(monitor, looks=(look,))) == []


def _pass(net, params):
    from gradlab import bptt, mean_squared_error
    from gradlab.tasks import adding

    batch = adding.sample(np.random.default_rng(0), 4, 10)
    return Look(bptt(net, params, batch, mean_squared_error, ("states", "adjoints")), "", net, params)


# ---- nothing wrong --------------------------------------------------------------------------------------------

HEALTHY = [
    (Elman(U=orthogonal()), SGD(), 0.03, None, "adding"),
    (Elman(), SGD(0.9), 0.003, ByNorm(1.0), "adding"),
    (LSTM(), Adam(), 0.003, ByNorm(1.0), "adding"),
    (LSTM(coupled=True), RMSProp(), 0.001, None, "adding"),
    (GRU(), Adam(), 0.01, None, "adding"),
    (GRU(reset="before"), SGD(), 0.1, ByNorm(2.0), "adding"),
    (irnn(), Adam(), 0.001, ByNorm(1.0), "adding"),
    (SCRN(4), Adam(), 0.003, None, "adding"),
    (LSTM(), Adam(), 0.01, ByNorm(1.0), "symbols"),
    (GRU(), SGD(0.9), 0.03, None, "symbols"),
    (Elman(), Adam(), 0.003, ByNorm(5.0), "symbols"),
]


@pytest.mark.parametrize(("cell", "optimiser", "rate", "clip", "task"), HEALTHY)
def test_a_run_that_learns_gets_no_warning(cell, optimiser, rate, clip, task):
    monitor, *_ = trained(cell, 150, rate, optimiser, clip, task=task)
    losses = monitor.series("loss")[1]
    assert np.median(losses[-20:]) < 0.8 * losses[0]  # it does learn
    assert [str(one) for one in findings(RULES, evidence(monitor)) if one.severity != "info"] == []


# ---- units ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 2.0**-13, 1e6])
def test_findings_do_not_change_with_the_unit_of_the_loss(scale):
    plain, *_ = trained(outliers=(60, 90), rate=0.02, clip=ByNorm(3.0))
    other, *_ = trained(outliers=(60, 90), rate=0.02 / scale, clip=ByNorm(3.0 * scale), scale=scale)
    first, second = (findings(RULES, evidence(one)) for one in (plain, other))
    assert [one.code for one in first] == ["loss-jumps"]
    assert told_of(first) == told_of(second)
    for name, number in first[0].numbers.items():
        assert second[0].numbers[name].value == pytest.approx(number.value, rel=1e-6), name  # rounding, through 120 updates


# ---- odd histories --------------------------------------------------------------------------------------------


def test_odd_histories_leave_the_rules_silent():
    strange = {
        "loss": (np.arange(60), np.full(60, np.inf)),
        "ratio/0.U": (np.arange(60), np.full(60, np.nan)),
        "ratio/0.W": (np.arange(60), np.zeros(60)),
        "ratio/1.W": (np.arange(3), np.zeros(60)),
        "gradient/0.U": (np.arange(60), np.full(60, np.nan)),
        "adjoint/0": (np.arange(60), np.full((60, 20), -np.inf)),
        "adjoint/1": (np.arange(60), np.full((60, 20), np.nan)),
        "adjoint/2": (np.arange(60), np.full((60, 20), np.inf)),
        "adjoint/3": (np.arange(60), np.zeros(60)),
        "adjoint/4": (np.arange(60), np.zeros((60, 1))),
    }
    short = {
        "loss": (np.arange(3), np.ones(3)),
        "ratio/0.U": (np.arange(1), np.ones(1)),
        "adjoint/0": (np.arange(1), np.zeros((1, 2))),
    }
    for series in (strange, short, {}, {"loss": (np.arange(50), np.ones((50, 2)))}, {"loss": (np.arange(50), np.zeros(50))}):
        assert findings(RULES, Evidence((), History(series))) == []
    assert findings(RULES, Evidence()) == []


def test_the_history_of_an_ensemble_is_refused_by_name():
    monitor = Monitor()
    monitor.record(0, loss=np.ones(3), gradients={"0.U": np.ones((3, 2, 2))})
    with pytest.raises(ShapeError, match=r'history has "loss" of shape \(1, 3\)'):
        History.of(monitor)
    with pytest.raises(DTypeError, match="expected a gradlab"):
        History.of([1.0, 2.0])


def test_what_a_history_lacks_is_said():
    told = silent(evidence(noted(np.ones(10)), clip_norm=1.0))
    assert "record loss= of 40 updates" in told["loss jumps"]
    assert "new_params=" in told["update sizes"]
    assert "clipped=" in told["whether clipping acts"]
    full = silent(evidence(trained(updates=60, clip=ByNorm(1.0))[0], clip_norm=1.0))
    assert not {"loss jumps", "update sizes", "whether clipping acts"} & set(full)


def test_the_layer_of_a_parameter():
    assert [layer_of(key) for key in ("0.U", "1.backward.b", "encoder.lstm.0.W", "readout.V")] == [
        "0",
        "1.backward",
        "encoder.lstm.0",
        "",
    ]


@pytest.mark.parametrize("code", TRAINING)
def test_remedies_are_told_with_code_that_parses(code):
    entry = TRAINING[code]
    assert entry.remedy.endswith(".")
    for text in (entry.pytorch, entry.keras):
        assert len(ast.parse(text).body) >= 1


def test_thresholds_say_why():
    assert LARGE.value == 0.1
    assert "Karpathy" in LARGE.why
