"""The planted cases of the diagnosis, its scores, its rates, the verdict on made-up results, and the figure.

Whether something is planted is checked against closed forms and direct runs, never with the rules themselves.
"""

from dataclasses import fields

import numpy as np
import pytest
from matplotlib.text import Text
from scipy.stats import binomtest

import gradlab
from analyses import _diagnosis_data_cases as data_cases
from analyses import _diagnosis_flow_cases as flow_cases
from analyses import _diagnosis_gate_cases as gate_cases
from analyses import _diagnosis_training_cases as training_cases
from analyses import diagnosis_accuracy
from analyses._diagnosis_cases import CASES
from analyses._diagnosis_given import HALVES, HEALTHY, SCALES, Case, Given, Scaled, norm_preserving, squared
from analyses._diagnosis_remedies import REMEDIES, carried_out, table
from analyses._diagnosis_scores import right_place, same, score, tolerance, wilson
from analyses._diagnosis_statistics import STATISTICS, Statistic
from gradlab import plotting
from gradlab.diagnosis.catalogue import CATALOGUE
from gradlab.diagnosis.diagnosis import Diagnosis
from gradlab.diagnosis.finding import Finding, Place
from gradlab.runs.runner import generator

CODES = diagnosis_accuracy.CODES
SEEDS = np.random.SeedSequence(11)
HELD_OUT_ALONE = {"LSTM peephole", "LSTM coupled", "GRU before", "SCRN", "Clockwork"}


def rng(seed=3):
    return np.random.default_rng(seed)


# ---- the cases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", HALVES)
def test_each_half_has_sixty_cases_of_every_code_and_twenty_healthy_ones(half):
    own = [case for case in CASES if case.half == half]
    planted = [case.planted for case in own]
    assert len(own) - planted.count(HEALTHY) >= 60
    assert planted.count(HEALTHY) >= 20
    assert set(planted) == {*CODES, HEALTHY}
    assert len({case.name for case in own}) == len(own)  # a name is a random stream
    assert {case.scale for case in own} == set(SCALES)


def test_no_case_is_in_both_halves_and_some_cells_are_in_the_second_alone():
    first, second = ({(case.planted, case.name) for case in CASES if case.half == half} for half in HALVES)
    assert not first & second
    families = [{case.family for case in CASES if case.half == half} for half in HALVES]
    assert families[1] - families[0] == HELD_OUT_ALONE


def test_places_have_the_fields_of_a_place_and_codes_are_in_the_catalogue():
    known = {field.name for field in fields(Place)}
    for case in CASES:
        assert set(case.place) <= known
        assert case.also <= set(CODES)
        assert case.place.get("timestep", 0) < case.steps
    assert set(CODES) <= set(CATALOGUE)


def test_a_case_draws_the_same_numbers_at_every_scale_and_its_loss_is_multiplied():
    case = next(case for case in CASES if case.name == "padding-counted: GRU, -1 from step 8, last")
    one, other = case.given(SEEDS, 1.0), case.given(SEEDS, 1e6)
    np.testing.assert_array_equal(one.data.inputs, other.data.inputs)
    for key, value in one.params.items():
        np.testing.assert_array_equal(value, other.params[key])
    small, large = (gradlab.bptt(g.subject, g.params, g.data, g.loss) for g in (one, other))
    np.testing.assert_allclose(1e6 * small.loss, large.loss, rtol=1e-14)  # one rounding each
    np.testing.assert_allclose(1e6 * small.gradients["0.U"], large.gradients["0.U"], rtol=1e-9, atol=1e-9 * abs(large.loss))
    again = Case("another name", "calibration", case.planted, case.build).given(SEEDS)
    assert not np.array_equal(again.data.inputs, one.data.inputs)


def test_a_run_divides_the_rate_and_multiplies_the_threshold_so_that_the_parameters_move_alike():
    run = training_cases.Run(training_cases.TANH, updates=5, threshold=0.5, clip=training_cases.by_norm)
    one, other = run(rng(), 1.0), run(rng(), 2.0**20)  # a power of two: no rounding differs
    np.testing.assert_array_equal(one.subject.series("ratio/0.U")[1], other.subject.series("ratio/0.U")[1])
    np.testing.assert_array_equal(2.0**20 * one.subject.series("clipped/0.U")[1], other.subject.series("clipped/0.U")[1])
    assert other.options["clip_norm"] == 2.0**20 * one.options["clip_norm"]
    assert other.options["learning_rate"] == one.options["learning_rate"] / 2.0**20


def test_scaled_multiplies_value_and_derivative():
    outputs, targets = rng().standard_normal((4, 2)), rng(1).standard_normal((4, 2))
    value, d = gradlab.mean_squared_error(outputs, targets)
    scaled, d_scaled = Scaled(gradlab.mean_squared_error, 8.0)(outputs, targets)
    assert scaled == 8.0 * value
    np.testing.assert_array_equal(d_scaled, 8.0 * d)


# ---- what is planted is there -------------------------------------------------------------------------------------


def test_a_chain_has_the_eigenvalues_it_says_and_grows_to_its_peak():
    H, radius, link = 8, 0.5, 2.0
    U = flow_cases.chain(rng(), H, radius, link)
    # A Jordan block of size 8: eigenvalues move by the 8th root of rounding.
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(U)), radius, atol=0.1)
    np.testing.assert_allclose(np.trace(U), H * radius, rtol=1e-12)
    sizes = [np.linalg.norm(np.linalg.matrix_power(U, k)) for k in range(60)]
    assert int(np.argmax(sizes)) == flow_cases.peak(H, radius, link)
    assert max(sizes) > 100.0 * sizes[1]
    assert sizes[-1] < sizes[1]


def test_an_orthogonal_matrix_times_a_gain_passes_a_limit_at_the_lag_that_is_planted():
    for gain, nats in ((0.8, -15.9), (1.2, 4.6)):
        lag = flow_cases.falls(gain, nats)
        assert abs(lag * np.log(gain)) >= abs(nats) > abs((lag - 1) * np.log(gain))


def test_a_pulse_saturates_every_unit_at_its_step_and_no_other():
    given = flow_cases.pulse(7, T=15, H=6)(rng(), 1.0)
    states = np.abs(gradlab.forward(given.subject, given.params, given.data.inputs).states["0"][1:])
    assert (states[7] > 1.0 - 1e-9).all()
    assert (np.delete(states, 7, axis=0) < 0.999).any(axis=(1, 2)).all()


def test_a_gate_is_stuck_by_its_bias_alone():
    given = gate_cases.biased(gradlab.LSTM(), "o", "0", -9.0, T=12, H=5)(rng(), 1.0)
    gates = gradlab.bptt(given.subject, given.params, given.data, given.loss).layers["0"].gates
    assert gates["o"].max() < 0.01
    assert 0.1 < np.median(np.abs(gates["g"])) < 0.9


def test_a_flooded_gate_is_shut_exactly_where_the_place_says():
    given = gate_cases.flooded(gradlab.LSTM(), "o", 4, 9, T=14, H=5)(rng(), 1.0)
    o = gradlab.bptt(given.subject, given.params, given.data, given.loss).layers["0"].gates["o"]
    assert (o[4:9] < 0.01).all()
    assert (np.delete(o, range(4, 9), axis=0) > 0.1).all()


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_the_share_of_dead_units_is_what_was_asked_for(share):
    given = gate_cases.dead(gradlab.Elman("relu"), "0", share, T=20, H=10)(rng(), 1.0)
    states = gradlab.forward(given.subject, given.params, given.data.inputs).states["0"][1:]
    assert (states == 0.0).all(axis=(0, 1)).mean() == share


def test_padding_begins_at_the_shortest_row_and_the_targets_ask_for_nothing_there():
    given = data_cases.padded(gradlab.GRU(), 6, T=15, H=5, readout="every")(rng(), 1.0)
    padded = (given.data.inputs == 0.0).all(axis=-1)
    assert int(np.argmax(padded.any(axis=1))) == 6
    assert (given.data.targets[padded] == 0.0).all()


@pytest.mark.parametrize("backward", [False, True])
def test_numbers_leave_the_range_of_floats_at_the_step_that_is_planted(backward):
    case = data_cases._overflow("calibration", 1e8, backward, T=50, H=6)
    given = case.given(SEEDS, 1.0)
    layer = gradlab.bptt(given.subject, given.params, given.data, given.loss).layers["0"]
    if backward:
        assert np.isfinite(layer.states).all()
        lost = np.flatnonzero(~np.isfinite(layer.adjoints).all(axis=(1, 2)))[-1] - 1  # the input read there
    else:
        lost = np.flatnonzero(~np.isfinite(layer.states).all(axis=(1, 2)))[0] - 1
    assert abs(lost - case.place["timestep"]) <= tolerance(case.steps)


def test_a_network_in_order_keeps_its_gradient():
    net = gradlab.Network(gradlab.Elman("linear"), 4, 10, output_size=1, readout="last")
    params = norm_preserving(rng(), net)
    batch = gradlab.Batch(rng(1).standard_normal((30, 4, 4)), rng(2).standard_normal((4, 1)))
    adjoints = gradlab.bptt(net, params, batch, squared(1.0)).layers["0"].series("adjoints")
    norms = np.linalg.norm(adjoints, axis=-1)
    np.testing.assert_allclose(norms, np.broadcast_to(norms[-1], norms.shape), rtol=1e-12)  # 30 orthogonal products


@pytest.mark.parametrize("half", HALVES)
def test_descent_goes_down_where_a_rate_is_planted_as_healthy_and_up_where_it_is_a_cliff(half):
    for case in CASES:
        steady = "SGD at" in case.name and "trained" not in case.name
        if case.half != half or not (steady or case.planted == "cliff"):
            continue
        given = case.given(SEEDS, 1.0)
        params, losses = dict(given.params), []
        for _ in range(40):
            with np.errstate(all="ignore"):
                record = gradlab.bptt(given.subject, params, given.data, given.loss, ())
                params = {key: value - given.options["learning_rate"] * record.gradients[key] for key, value in params.items()}
            losses.append(float(record.loss))
            if not all(np.isfinite(value).all() for value in params.values()):
                break
        if steady:
            assert (np.diff(losses) < 0.0).all(), case.name
        else:
            assert max(losses) > losses[0] or not np.isfinite(losses[-1]) or len(losses) < 40, case.name


def test_the_mistakes_of_a_loop_leave_what_they_say_unclipped():
    net = gradlab.Network(gradlab.Elman(), 2, 3, output_size=1)
    gradients = {key: np.ones_like(value) for key, value in net.init(rng()).items()}
    total = {
        name: np.sqrt(sum(np.square(value).sum() for value in clip(net, gradients, 0.1).values()))
        for name, clip in (("right", training_cases.by_norm), ("nothing", training_cases.nothing))
    }
    assert total["right"] == pytest.approx(0.1, rel=1e-14)  # a product and a root
    assert total["nothing"] == pytest.approx(np.sqrt(sum(value.size for value in gradients.values())), rel=1e-14)
    top = training_cases.read_out_alone(net, gradients, 0.1)
    assert np.linalg.norm(np.concatenate([top["readout.V"].ravel(), top["readout.b_y"]])) == pytest.approx(0.1, rel=1e-14)
    np.testing.assert_array_equal(top["0.U"], gradients["0.U"])
    np.testing.assert_array_equal(training_cases.one_forgotten(net, gradients, 0.1)["0.W"], gradients["0.W"])
    late = training_cases.too_late(16.0)(net, gradients, 0.1)
    assert np.sqrt(sum(np.square(value).sum() for value in late.values())) == pytest.approx(1.6, rel=1e-14)


# ---- the scores ---------------------------------------------------------------------------------------------------


def finding(code="vanishing", severity="warning", **place):
    return Finding(code, severity, Place(**place), "made up")


def of(*findings):
    return Diagnosis("made up", findings)


PLANTED = Case(
    "made up",
    "held-out",
    "vanishing",
    lambda *_: Given(None),
    {"layer": "1", "timestep": 50},
    frozenset({"saturated"}),
    steps=100,
)


def test_timesteps_may_be_off_by_five_percent_and_names_must_be_equal():
    assert (tolerance(20), tolerance(40), tolerance(100)) == (2.0, 2.0, 5.0)
    assert right_place(finding(layer="1", timestep=55), PLANTED.place, 100)
    assert not right_place(finding(layer="1", timestep=56), PLANTED.place, 100)
    assert not right_place(finding(layer="0", timestep=50), PLANTED.place, 100)
    assert not right_place(finding(layer="1"), PLANTED.place, 100)
    assert not right_place(finding(gate="i"), {"gate": "o"}, 100)


def test_a_score_counts_warnings_and_errors_alone_and_the_first_finding_of_the_code():
    seen = score(PLANTED, of(finding("saturated"), finding(layer="1", timestep=52), finding(layer="0"), finding("cliff", "info")))
    assert seen.found
    assert seen.placed
    assert seen.headline == "saturated"
    assert seen.reported == {"saturated", "vanishing"}
    assert not seen.unexplained
    assert not score(PLANTED, of(finding(severity="info", layer="1", timestep=50))).found
    wrong = score(PLANTED, of(finding(layer="0", timestep=50), finding(layer="1", timestep=50), finding("cliff")))
    assert wrong.found
    assert wrong.placed is False
    assert wrong.unexplained == {"cliff"}
    assert score(PLANTED, of()).headline == HEALTHY
    assert score(Case("x", "held-out", "cliff", PLANTED.build), of(finding("cliff"))).placed is None


def test_findings_are_the_same_if_code_severity_and_place_are():
    assert same(of(finding(layer="1")), of(finding(layer="1")))
    assert not same(of(finding(layer="1")), of(finding(layer="2")))
    assert not same(of(finding()), of(finding(severity="error")))
    assert not same(of(finding()), of())


@pytest.mark.parametrize(("hits", "trials"), [(9, 10), (0, 29), (29, 29), (50, 100), (1, 1)])
def test_wilson_s_interval_is_scipy_s(hits, trials):
    interval = binomtest(hits, trials).proportion_ci(method="wilson")
    assert wilson(hits, trials) == pytest.approx((interval.low, interval.high), abs=1e-14)  # two orders of the same sums


def test_no_trials_leave_everything_open():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("threshold", "below", "value", "margin"),
    [
        (2.0, False, 6.0, 3.0),
        (-16.0, True, -32.0, 2.0),
        (-16.0, True, 3.0, 0.0),
        (0.1, True, 0.05, 2.0),
        (0.0, False, 0.2, np.inf),
    ],
)
def test_the_margin_is_above_one_on_the_bad_side(threshold, below, value, margin):
    statistic = Statistic("x", "x", threshold, below, lambda evidence: [])
    assert statistic.margin(np.array([value]))[0] == pytest.approx(margin, rel=1e-15)
    assert np.isnan(statistic.margin(np.array([np.nan]))[0])


# ---- the verdict --------------------------------------------------------------------------------------------------


def made_up(**arrays):
    """What a run would give that finds everything and nothing else."""
    n = len(CASES)
    index = np.array([CODES.index(case.planted) if case.planted != HEALTHY else len(CODES) for case in CASES])
    reported = np.zeros((n, len(CODES) + 1), bool)
    reported[np.arange(n), index] = True
    ill = index < len(CODES)
    fixed = np.array([bool(case.place) for case in CASES])
    names = "\n".join(f"{case.half}\t{case.planted}\t{case.family}\t{case.name}" for case in CASES)
    scaled = np.array([case.invariant for case in CASES])
    numbers = rng().standard_normal((n, len(STATISTICS)))
    result = {
        "cases": np.frombuffer(names.encode(), np.uint8),
        "found": ill.copy(),
        "place_fixed": fixed,
        "place_right": fixed.copy(),
        "reported": reported[:, :-1],
        "unexplained": np.zeros((n, len(CODES)), bool),
        "unexplained_other": np.zeros(n, int),
        "headline": index,
        "scaled": scaled,
        "unchanged": scaled.copy(),
        "statistics": numbers,
        "thresholds": np.array([one.threshold for one in STATISTICS]),
        "remedies": np.tile([True, False, True], (len(REMEDIES), 1)),
    }
    return {**result, **arrays}


def held_out(ill):
    return [k for k, case in enumerate(CASES) if case.half == "held-out" and (case.planted != HEALTHY) == ill]


def with_wrong(name, cases, value):
    changed = made_up()[name].copy()
    changed[cases] = value
    return made_up(**{name: changed})


def test_everything_found_confirms_the_claim_and_the_intervals_are_told():
    verdict = diagnosis_accuracy.check(made_up())
    ill, well = len(held_out(True)), len(held_out(False))
    assert verdict.word == "confirmed"
    assert verdict.broken == ()
    low = wilson(ill, ill)[0]
    assert verdict.numbers["held-out: sensitivity"] == f"{ill} of {ill} = 100.0% [{low:.1%}, 100.0%]"
    assert verdict.numbers["held-out: false alarms on healthy"].startswith(f"0 of {well} = 0.0%")
    assert verdict.numbers["missed"] == "none"
    assert f"sensitivity {ill} of {ill}" in verdict.sentence


@pytest.mark.parametrize(
    ("name", "ill", "share", "value"),
    [
        ("found", True, 0.06, False),
        ("place_right", True, 0.11, False),
        ("headline", False, 0.06, 0),
        ("unchanged", True, 0.03, False),
    ],
    ids=["missed", "misplaced", "false alarms", "changed by the scale"],
)
def test_a_rate_beyond_its_limit_on_the_held_out_half_contradicts_the_claim(name, ill, share, value):
    own = held_out(ill)
    if name == "place_right":
        own = [k for k in own if CASES[k].place]
    if name == "unchanged":
        own = [k for k in own if CASES[k].invariant]
    wrong = own[: int(np.ceil(share * len(own)))]
    verdict = diagnosis_accuracy.check(with_wrong(name, wrong, value))
    assert verdict.word == "contradicted"


def test_what_goes_wrong_on_the_calibration_half_has_no_part_in_the_verdict():
    first = [k for k, case in enumerate(CASES) if case.half == "calibration"]
    verdict = diagnosis_accuracy.check(with_wrong("found", first, False))
    assert verdict.word == "confirmed"
    assert verdict.numbers["calibration: sensitivity"].startswith("0 of ")


def test_misses_are_named_and_counted_for_their_code():
    k = next(k for k in held_out(True) if CASES[k].planted == "exploding")
    verdict = diagnosis_accuracy.check(with_wrong("found", [k], False))
    assert verdict.numbers["missed"] == CASES[k].name
    trials = sum(CASES[j].planted == "exploding" for j in held_out(True))
    assert verdict.numbers["held-out, exploding"].startswith(f"found {trials - 1} of {trials}")


def test_other_findings_count_only_where_the_planting_does_not_bring_them():
    odd = made_up()["unexplained"].copy()
    odd[held_out(True)[0], 2] = odd[held_out(True)[0], 3] = True
    rates = diagnosis_accuracy.rates(made_up(unexplained=odd), "held-out")
    assert rates["other findings unexplained"] == (1, len(held_out(True)))
    assert diagnosis_accuracy.check(made_up(unexplained=odd)).word == "confirmed"


# ---- a run of a few cases -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few():
    """Every twelfth case of the calibration half, at two scales, and two remedies."""
    old, told = diagnosis_accuracy.PARAMETERS["quick"], []
    diagnosis_accuracy.PARAMETERS["quick"] = {"every": 12, "scales": [1e6], "halves": ["calibration"], "remedies": 2}
    try:
        yield diagnosis_accuracy.compute(generator(2013, "diagnosis_accuracy"), "quick", lambda *d: told.append(d)), told
    finally:
        diagnosis_accuracy.PARAMETERS["quick"] = old


def test_a_run_finds_and_places_what_is_planted_and_leaves_the_healthy_alone(few):
    result, told = few
    cases = diagnosis_accuracy.table(result)
    well = cases["planted"] == HEALTHY
    assert well.sum() >= 2
    assert result["found"][~well].all()
    assert result["place_right"][result["place_fixed"]].all()
    assert (result["headline"][well] == len(CODES)).all()
    assert result["unchanged"][result["scaled"]].all()
    assert result["remedies"][:, 0].all()
    assert not result["remedies"][:, 1].any()
    assert told == [(k, len(well) + 2) for k in range(1, len(well) + 3)]
    assert diagnosis_accuracy.check(result).word == "confirmed"  # without a held-out half it speaks of the other
    assert diagnosis_accuracy.check(result).sentence.startswith("calibration half")


def test_statistics_stand_on_the_bad_side_of_their_threshold_where_their_code_was_planted(few):
    result, _ = few
    planted = diagnosis_accuracy.table(result)["planted"]
    for k, one in enumerate(STATISTICS):
        if one.code in ("exploding", "vanishing", "dead-relu", "ill-conditioned", "padding-counted", "nonfinite"):
            margin = one.margin(result["statistics"][planted == one.code, k])
            assert (margin > 1.0).all(), one.name
            healthy = one.margin(result["statistics"][planted == HEALTHY, k])
            assert not (healthy > 1.0).any(), one.name


# ---- remedies -----------------------------------------------------------------------------------------------------


def test_every_remedy_belongs_to_a_planted_case_and_a_code_of_the_catalogue():
    assert len({remedy.code for remedy in REMEDIES}) >= 6
    for remedy in REMEDIES:
        assert remedy.case.planted == remedy.code
        assert remedy.code in CATALOGUE


@pytest.mark.parametrize("code", ["saturated", "dead-relu", "unused-direction"])
def test_a_remedy_removes_its_finding_and_brings_no_other(code):
    remedy = next(one for one in REMEDIES if one.code == code)
    assert carried_out(remedy, SEEDS) == (True, False, True)


def test_the_table_of_remedies_says_what_happened():
    lines = table(np.array([[True, False, True], [True, True, False], [True, False, False]])).split("\n")
    assert len(lines) == 5
    assert lines[2] == f"| `{REMEDIES[0].code}` | {REMEDIES[0].what} | found | gone |"
    assert lines[3].endswith("| found | still there |")
    assert lines[4].endswith("| found | gone; another finding |")


# ---- the figure ---------------------------------------------------------------------------------------------------


def drawn(result):
    with plotting.style():
        figure = diagnosis_accuracy.draw(result)
        figure.draw_without_rendering()
    return figure


def test_the_figure_names_every_code_and_every_statistic_and_shows_the_counts():
    figure = drawn(with_wrong("found", held_out(True)[:1], False))
    texts = [text.get_text() for text in figure.findobj(Text)]
    for code in CODES:
        assert code in texts
    for one in STATISTICS:
        assert f"{one.code}: {one.name}" in texts
    total = len(held_out(True))
    assert any(text.startswith(f"sensitivity: {total - 1} of {total}") for text in texts)
    assert any("held-out: all" in text for text in texts)


def test_a_finding_that_the_planting_does_not_explain_gets_a_cross():
    odd = made_up()["unexplained"].copy()
    odd[held_out(True)[0], 5] = True

    def crosses(figure):
        return sum(len(line.get_xdata()) for line in figure.axes[0].get_lines() if line.get_marker() == "x")

    assert crosses(drawn(made_up())) == 0
    assert crosses(drawn(made_up(unexplained=odd))) == 1
