"""Clipping that is always on, never on, or cannot act: planted in loops, known by exact norms, absent where it is in order."""

import numpy as np
import pytest
from history_cases import calm, evidence, findings, noted, told_of, trained

from gradlab import GRU, LSTM, Elman, bptt, mean_squared_error
from gradlab.diagnosis.clipped import clipped_of
from gradlab.diagnosis.evidence import Evidence, Look
from gradlab.diagnosis.history import History
from gradlab.diagnosis.rules_clipping import (
    clipping_always,
    clipping_always_statistic,
    clipping_inactive,
    clipping_never,
    clipping_never_statistic,
)
from gradlab.diagnosis.rules_clipping_inactive import clipping_inactive_statistic
from gradlab.tasks import adding
from gradlab.training import Adam, ByLayer, ByNorm, ByValue, Monitor

RULES = (clipping_always, clipping_never, clipping_inactive)


def norms(n=80, level=4.0, seed=0):
    """Of gradients: lognormal about `level`, a factor 1.3 up or down."""
    return level * np.exp(0.26 * np.random.default_rng(seed).standard_normal(n))


# ---- always ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "severity"), [(0.2, "warning"), (0.9, "warning"), (2.0, "info")])
def test_clipping_that_is_always_on_is_found_with_its_share(threshold, severity):
    before = norms()
    (found,) = findings(RULES, evidence(noted(before=before, after=np.minimum(before, threshold)), clip_norm=threshold))
    assert (found.code, found.severity) == ("clipping-always", severity)
    assert found.numbers["share"].value == np.mean(before > threshold)
    assert found.numbers["kept"].value == pytest.approx(np.median(threshold / before[before > threshold]), rel=1e-12)
    low, high = found.numbers["share"].interval
    assert low < found.numbers["share"].value <= high <= 1.0


def test_the_interval_of_the_share_is_that_of_wilson():
    before = np.r_[np.full(95, 4.0), np.full(5, 0.5)]
    (found,) = findings([clipping_always], evidence(noted(before=before, after=np.minimum(before, 0.6))))
    assert found.numbers["share"].interval == pytest.approx((0.88825, 0.97846), abs=1e-5)  # 95 of 100, by the formula


def test_clipping_that_cuts_the_exceptions_is_passed_over():
    before = norms()
    shown = evidence(noted(before=before, after=np.minimum(before, 4.0)), clip_norm=4.0)
    assert findings(RULES, shown) == []
    assert clipping_always_statistic(shown) == np.mean(before > 4.0)


def test_norm_and_threshold_are_enough_to_tell():
    monitor = Monitor()
    for k, norm in enumerate(norms()):
        monitor.record(k, gradient_norm=norm)
    assert [one.code for one in findings(RULES, evidence(monitor, clip_norm=0.1))] == ["clipping-always"]
    assert [one.code for one in findings(RULES, evidence(monitor, clip_norm=100.0))] == ["clipping-never"]
    assert [one.code for one in findings(RULES, evidence(monitor, clip_value=100.0))] == ["clipping-never"]
    assert findings(RULES, evidence(monitor, clip_value=1.0)) == []  # no entry is known to be above it, or below
    assert findings(RULES, evidence(monitor)) == []


@pytest.mark.parametrize("clip", [ByNorm(1e-3), ByLayer(1e-3), ByValue(1e-5)])
def test_a_real_run_with_a_tiny_threshold_says_so(clip):
    monitor, *_ = trained(GRU(), updates=40, clip=clip)
    (found,) = findings([clipping_always], evidence(monitor))
    assert found.severity == "warning"
    assert found.numbers["share"].value == 1.0


# ---- never ----------------------------------------------------------------------------------------------------


def test_a_threshold_that_is_never_reached_is_an_info_while_nothing_happens():
    before, losses = norms(), calm(80, np.random.default_rng(0))
    (found,) = findings(RULES, evidence(noted(losses, before, before), clip_norm=100.0))
    assert (found.code, found.severity) == ("clipping-never", "info")
    assert found.numbers["largest norm"].value == pytest.approx(before.max() / 100.0)


def test_it_is_a_warning_where_the_gradient_spikes():
    before = norms()
    before[50] *= 20.0
    shown = evidence(noted(before=before, after=before), clip_norm=1e4)
    (found,) = findings(RULES, shown)
    assert (found.code, found.severity) == ("clipping-never", "warning")
    assert clipping_never_statistic(shown) == pytest.approx(20.0, rel=0.5)  # 20 times a gradient that is itself noisy


def test_it_is_a_warning_where_the_loss_jumps():
    before, losses = norms(), calm(80, np.random.default_rng(0))
    losses[50] *= 100.0
    (found,) = findings(RULES, evidence(noted(losses, before, before), clip_norm=100.0))
    assert found.severity == "warning"
    assert "the loss jumped" in found.message


def test_a_real_run_that_jumps_below_a_huge_threshold_says_so():
    monitor, *_ = trained(clip=ByNorm(1e5), outliers=(60,), rate=0.01)
    (found,) = findings(RULES, evidence(monitor, clip_norm=1e5))
    assert (found.code, found.severity) == ("clipping-never", "warning")


def test_a_threshold_that_is_reached_now_and_then_is_passed_over():
    monitor, *_ = trained(updates=60, clip=ByValue(0.3))
    assert 0.0 < clipping_always_statistic(evidence(monitor)) < 0.9
    assert findings(RULES, evidence(monitor, clip_value=0.3)) == []


# ---- inactive -------------------------------------------------------------------------------------------------


def run(clip, threshold=0.3, scale=1.0, updates=40, cell=None):
    """A loop by hand, with whatever mistake `clip(gradients, threshold)` holds, and its network at the end."""
    from gradlab import Network

    rng = np.random.default_rng(0)
    net = Network(cell or LSTM(), adding.INPUT_SIZE, 6, output_size=1, readout="last", num_layers=2)
    params, monitor = net.init(rng), Monitor()
    for update in range(updates):
        record = bptt(net, params, adding.sample(rng, 8, 8), mean_squared_error)
        gradients = {key: scale * value for key, value in record.gradients.items()}
        clipped = clip(gradients, threshold * scale)
        after = {key: params[key] - 0.03 / scale * clipped[key] for key in params}
        monitor.record(update, loss=scale * record.loss, gradients=gradients, clipped=clipped, params=params, new_params=after)
        params = after
    return monitor, Look(record, "", net, params)


def cut(gradients, threshold, keys=None):
    own = list(gradients if keys is None else keys)
    norm = np.sqrt(sum(float(np.square(gradients[key]).sum()) for key in own))
    return gradients | {key: gradients[key] * min(1.0, threshold / norm) for key in own}


def before_the_backward_pass(gradients, threshold):
    return dict(gradients)


def read_out_forgotten(gradients, threshold):
    return cut(gradients, threshold, [key for key in gradients if not key.startswith("readout")])


def to_a_scaled_threshold(gradients, threshold):
    return cut(gradients, 5.0 * threshold)


@pytest.mark.parametrize("clip", [before_the_backward_pass, read_out_forgotten, to_a_scaled_threshold])
def test_gradients_longer_than_the_threshold_after_clipping_are_found_with_their_factor(clip):
    monitor, _ = run(clip)
    (found,) = findings([clipping_inactive], evidence(monitor, clip_norm=0.3))
    after = History.of(monitor).global_norm("clipped")[1]
    assert (found.code, found.severity) == ("clipping-inactive", "warning")
    assert found.numbers["norm after clipping"].value == pytest.approx(after.max() / 0.3)
    assert found.place.update == int(np.argmax(after > after.max() * (1.0 - 1e-6)))  # the first of equal ones
    assert found.numbers["share"].value == np.mean(after > 0.3 * 1.01)


def test_the_parameter_that_was_left_out_is_named():
    monitor, _ = run(read_out_forgotten)
    (found,) = findings([clipping_inactive], evidence(monitor, clip_norm=0.3))
    assert found.place.layer == ""
    assert found.place.parameter in ("readout.V", "readout.b_y")
    one = {"0.U": np.full(40, 3.0), "1.U": np.full(40, 2.0), "1.W": np.full(40, 1.0)}
    monitor = noted(before=one, after=one | {"0.U": np.full(40, 0.1)})
    (found,) = findings([clipping_inactive], evidence(monitor, clip_norm=1.0))
    assert (found.place.layer, found.place.parameter) == ("1", "1.U")


def test_clipping_on_the_gradients_of_a_scaled_loss_is_found():
    """With a loss scaled by 1024, what is left after unscaling is the threshold over 1024."""
    monitor, _ = run(lambda gradients, threshold: cut(gradients, threshold / 1024.0))
    found = findings(RULES, evidence(monitor, clip_norm=0.3))
    assert [one.code for one in found] == ["clipping-always", "clipping-inactive"]
    assert found[1].numbers["norm after clipping"].value == pytest.approx(1.0 / 1024.0, rel=1e-9)
    assert "scaled loss" in found[1].message


@pytest.mark.parametrize("clip", [ByNorm(0.5), ByLayer(0.3)])
def test_clipping_that_acts_is_passed_over(clip):
    monitor, *_ = trained(LSTM(), updates=60, clip=clip)
    shown = evidence(monitor, clip_norm=clip.threshold)
    assert findings([clipping_inactive], shown) == []
    assert History.of(monitor).numbers("was_clipped")[1].any()  # it did act


def test_clipping_of_each_parameter_by_itself_is_passed_over():
    """As `clipnorm` of Keras does; the joint norm is then above the threshold."""
    monitor, _ = run(lambda g, threshold: {key: value * min(1.0, threshold / np.linalg.norm(value)) for key, value in g.items()})
    shown = evidence(monitor, clip_norm=0.3)
    assert clipping_inactive_statistic(shown) > 1.01
    assert findings([clipping_inactive], shown) == []


def test_clipping_by_value_is_judged_by_the_size_of_the_parameters():
    right, look = run(lambda gradients, bound: {key: np.clip(value, -bound, bound) for key, value in gradients.items()}, 0.01)
    wrong, _ = run(before_the_backward_pass)
    assert findings([clipping_inactive], evidence(right, (look,), clip_value=0.01)) == []
    (found,) = findings([clipping_inactive], evidence(wrong, (look,), clip_value=0.01))
    b_y = History.of(wrong).norms("clipped")["readout.b_y"][1]
    assert found.place.parameter == "readout.b_y"  # of one entry: its norm is that entry's size
    assert found.numbers["norm after clipping"].value == pytest.approx(b_y.max() / 0.01)
    assert findings([clipping_inactive], evidence(wrong, clip_value=0.01)) == []  # sizes are not known
    for factor in (1.0, 2.0):  # of the threshold, every entry
        monitor = Monitor()
        for k in range(30):
            monitor.record(k, clipped={"0.U": np.full_like(look.params["0.U"], 0.01 * factor)})
        found = findings([clipping_inactive], evidence(monitor, (look,), clip_value=0.01))
        assert [one.numbers["norm after clipping"].value for one in found] == ([] if factor == 1.0 else [pytest.approx(2.0)])


def test_a_torch_loop_that_reports_gradients_after_clipping_alone():
    monitor = Monitor()
    for k, norm in enumerate(norms()):
        monitor.record(k, gradient_norm=norm, clipped={"0.U": np.array([min(norm, 1.0)], np.float32)})
    assert [one.code for one in findings(RULES, evidence(monitor, clip_norm=1.0))] == ["clipping-always"]
    monitor = Monitor()
    for k, norm in enumerate(norms()):
        monitor.record(k, gradient_norm=norm, clipped={"0.U": np.array([min(norm, 3.5)], np.float32)})
    assert clipping_always_statistic(evidence(monitor, clip_norm=3.5)) == pytest.approx(np.mean(norms() > 3.5), abs=0.02)
    monitor = Monitor()
    for k, norm in enumerate(norms()):
        monitor.record(k, clipped={"0.U": np.array([norm], np.float32)})
    assert [one.code for one in findings(RULES, evidence(monitor, clip_norm=1.0))] == ["clipping-inactive"]


@pytest.mark.peer
@pytest.mark.parametrize("place", ["before backward", "before step"])
def test_a_real_torch_loop_is_judged_by_where_it_clips(place):
    torch = pytest.importorskip("torch", reason="needs torch: pip install torch")
    torch.manual_seed(0)
    rnn, head = torch.nn.GRU(2, 8), torch.nn.Linear(8, 1)
    own = dict(rnn.named_parameters()) | {f"head.{key}": value for key, value in head.named_parameters()}
    optimiser, monitor = torch.optim.SGD(own.values(), 0.02), Monitor()
    for update in range(40):
        x = torch.randn(12, 8, 2)
        loss = ((head(rnn(x)[0][-1]) - 2.0) ** 2).mean()
        optimiser.zero_grad()
        if place == "before backward":
            torch.nn.utils.clip_grad_norm_(own.values(), 0.5)
        loss.backward()
        before = {key: value.grad.clone() for key, value in own.items()}
        if place == "before step":
            torch.nn.utils.clip_grad_norm_(own.values(), 0.5)
        after = {key: value.grad.clone() for key, value in own.items()}
        optimiser.step()
        monitor.record(update, loss=loss, gradients=before, clipped=after, new_params=own)
    found = findings([clipping_inactive], evidence(monitor, clip_norm=0.5))
    assert [one.code for one in found] == ["clipping-inactive"] * (place == "before backward")


# ---- units, nothing wrong, odd histories ----------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("clip", [cut, before_the_backward_pass, read_out_forgotten, to_a_scaled_threshold])
def test_findings_do_not_change_with_the_unit_of_the_loss(clip, scale):
    first = findings(RULES, evidence(run(clip, 0.05)[0], clip_norm=0.05))
    second = findings(RULES, evidence(run(clip, 0.05, scale)[0], clip_norm=0.05 * scale))
    assert first
    assert told_of(first) == told_of(second)
    for one, other in zip(first, second, strict=True):
        for name, number in one.numbers.items():
            assert other.numbers[name].value == pytest.approx(number.value, rel=1e-9), name  # rounding, through 40 updates


@pytest.mark.parametrize(
    ("cell", "clip", "optimiser", "rate"),
    [(Elman(), ByNorm(1.0), Adam(), 0.003), (LSTM(), ByNorm(2.0), None, 0.03), (GRU(), ByLayer(1.0), Adam(), 0.003)],
)
def test_a_run_that_learns_with_clipping_gets_no_warning(cell, clip, optimiser, rate):
    monitor, *_ = trained(cell, 120, rate, optimiser, clip)
    assert [str(one) for one in findings(RULES, evidence(monitor, clip_norm=clip.threshold)) if one.severity != "info"] == []


def test_odd_histories_leave_the_rules_silent():
    nothing = np.full(40, np.nan)
    strange = {
        "gradient/0.U": (np.arange(40), nothing),
        "clipped/0.U": (np.arange(40), nothing),
        "was_clipped": (np.arange(40), np.zeros(40)),
    }
    apart = {"gradient/0.U": (np.arange(40), np.ones(40)), "clipped/0.U": (np.arange(50, 90), np.ones(40))}
    boxes = {"gradient/0.U": (np.arange(40), np.ones((40, 2))), "clipped/0.U": (np.arange(40), np.array(["x"] * 40))}
    for series in (strange, apart, boxes, {}, {"was_clipped": (np.arange(3), np.ones(3))}):
        for told in ({"clip_norm": 1.0}, {"clip_value": 1.0}, {}):
            shown = Evidence((), History(series), evidence(Monitor(), **told).circumstances)
            assert findings(RULES, shown) == []
    assert findings(RULES, Evidence()) == []
    assert clipped_of(Evidence()) is None


def test_gradients_that_are_no_numbers_do_not_count_as_clipped_or_not():
    before = norms()
    before[7] = np.inf
    after = np.where(np.isfinite(before), np.minimum(before, 0.1), before)  # a norm that is no number has no direction to keep
    (found,) = findings(RULES, evidence(noted(before=before, after=after), clip_norm=0.1))
    assert (found.code, found.numbers["share"].value) == ("clipping-always", 1.0)
