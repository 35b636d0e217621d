"""The comparison of gradient checkers: its problems, its bisection, its counts, and the verdict on made-up results."""

import importlib.util

import numpy as np
import pytest
from matplotlib.text import Text
from runs import quick

import gradlab
from analyses import ALL, gradient_checkers
from analyses._checkers import as_functions, vanishing
from analyses._planted_defects import DEFECTS
from gradlab import plotting
from gradlab.checks import check_vjp, random_example
from gradlab.runs import main

STEM = "gradient_checkers"
CHECKERS, CASES = gradient_checkers.CHECKERS, gradient_checkers.CASES
FULL = gradient_checkers.PARAMETERS["full"]


def made_up(**arrays):
    """What a full run would give if every peer saw defects of 1e-2 and no vanished gradient; needs no other library."""
    deltas, seeds = np.array(FULL["deltas"]), FULL["seeds"]
    rejected = np.ones((len(CHECKERS), 2, len(deltas), seeds), bool)
    rejected[2:, :, deltas < 1e-2] = False
    faint = np.zeros((len(CHECKERS), len(CASES), seeds), bool)
    faint[:2, 1:] = True
    result = {
        "deltas": deltas,
        "rejected": rejected,
        "named": np.ones((len(deltas), seeds), bool),
        "false_alarms": np.zeros((len(CHECKERS), seeds), bool),
        "vanishing": faint,
        "vanishing_gap": np.full(seeds, 1e-15),
        "smallest": np.full((len(DEFECTS), FULL["catalogue_seeds"]), 1e-9),
        "finest": np.array(1e-12),
        "catalogue": np.frombuffer("\n".join(f"{one.family}\t{one.name}" for one in DEFECTS).encode(), np.uint8),
    }
    return {**result, **arrays}


def with_entry(name, index, value):
    """`made_up` with one entry changed."""
    changed = made_up()[name].copy()
    changed[index] = value
    return made_up(**{name: changed})


# ---- measured ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured():
    pytest.importorskip("torch", reason="one of the checkers compared: pip install torch==2.13.0")
    pytest.importorskip("jax", reason="one of the checkers compared: pip install jax")
    return quick.result(STEM)


def test_gradlab_rejects_every_defect_of_the_quick_run_and_no_right_gradient(measured):
    assert measured["rejected"][0].all()
    assert measured["named"].all()
    assert measured["vanishing"][:2, 1:].all()
    assert not measured["vanishing"][:, 0].any()
    assert not measured["false_alarms"].any()
    assert (measured["smallest"] <= 1e-8).all()
    assert gradient_checkers.check(measured).word == "confirmed"
    assert gradient_checkers.check(measured).broken == ()


def test_the_peers_do_what_their_tolerances_say(measured):
    """|a - n| <= 1e-5 + 1e-3 |n| holds for any defect below 1e-3 and for any numbers below 1e-5; a whole gate is seen."""
    deltas = measured["deltas"]
    slow = CHECKERS.index("torch gradcheck")
    assert not measured["rejected"][slow:, :, deltas < 1e-5].any()
    assert not measured["rejected"][slow, :, deltas < 1e-3].any()
    assert measured["rejected"][slow, :, deltas == 1.0].all()
    assert not measured["vanishing"][slow:].any()


def test_a_run_leaves_the_libraries_as_they_were(measured):
    import jax
    import torch

    state = torch.random.get_rng_state()
    flags = (jax.config.jax_enable_x64, torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
    gradient_checkers.on_lstm(gradient_checkers.scaled_once(2), 1.0, 0, FULL)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert flags == (jax.config.jax_enable_x64, torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())


def test_progress_is_told_up_to_its_total_and_the_same_seed_gives_the_same_result(measured, monkeypatch):
    net = {"T": 8, "H": 2, "radius": 0.6, "size": 1e-4}
    small = {**FULL, "seeds": 1, "deltas": [1e-8], "catalogue_seeds": 1, "every": 40, "vanishing": net}
    monkeypatch.setitem(gradient_checkers.PARAMETERS, "quick", small)
    told = []
    one, two = (
        gradient_checkers.compute(np.random.default_rng(5), "quick", lambda done, total: told.append((done, total)))
        for _ in range(2)
    )
    assert told == [(k, 6) for k in range(1, 7)] * 2  # right, two places, the vanishing net, defects 0 and 40
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], strict=True)


# ---- the problems -------------------------------------------------------------------------------------------------


def test_the_lstm_has_72_parameters_and_its_functions_are_each_other_s_adjoint():
    f, vjp, args = as_functions(random_example(gradlab.LSTM(), seed=4, **FULL["lstm"]))
    assert sum(value.size for value in args) == 72
    assert f(*args).size == 36
    report = check_vjp(f, vjp, *args, control=False)
    assert report.verdict == "PASS"
    assert report.oracle.startswith("complex step")


@pytest.mark.parametrize("delta", [1.0, 1e-3, 0.0])
def test_the_defect_scales_the_forget_gate_of_dU_and_nothing_else(delta):
    def gradients(plant):
        with plant(gradlab.LSTM(), delta) as cell:
            _, vjp, args = as_functions(random_example(cell, seed=4, **FULL["lstm"]))
            return vjp(*args, np.ones((6, 2, 3)))

    _, right_vjp, args = as_functions(random_example(gradlab.LSTM(), seed=4, **FULL["lstm"]))
    right = right_vjp(*args, np.ones((6, 2, 3)))
    everywhere, once = gradients(gradient_checkers.scaled_everywhere()), gradients(gradient_checkers.scaled_once(2))
    for wrong in (everywhere, once):
        for k in (0, 2):
            np.testing.assert_array_equal(wrong[k], right[k])
        np.testing.assert_array_equal(np.delete(wrong[1], range(3, 6), 0), np.delete(right[1], range(3, 6), 0))
    np.testing.assert_allclose(everywhere[1][3:6], (1.0 + delta) * right[1][3:6], rtol=1e-15)  # one rounding
    contributions = [gradients(gradient_checkers.scaled_once(t))[1][3:6] - right[1][3:6] for t in range(6)]
    # The contributions of all steps add up to the whole; each is a difference of numbers of size 1.
    np.testing.assert_allclose(sum(contributions), everywhere[1][3:6] - right[1][3:6], rtol=1e-12, atol=1e-14)


def test_the_vanishing_net_has_the_size_and_the_spectral_radius_asked_for():
    net = vanishing(np.random.default_rng(0), T=12, H=3, radius=0.7, size=1e-5)
    assert np.abs(np.linalg.eigvals(net.U)).max() == pytest.approx(0.7, rel=1e-13)
    assert np.abs(net.jacobian()).max() == pytest.approx(1e-5, rel=1e-9)
    J = np.stack([net.vjp(net.start, unit)[0] for unit in np.eye(3)])
    np.testing.assert_allclose(J, net.jacobian(), rtol=1e-12, atol=1e-19)  # the same products in another order
    record = net.example(gradlab.Elman("tanh")).record
    np.testing.assert_allclose(record.outputs[0], net.f(net.start), rtol=1e-13)
    weight = net.example(gradlab.Elman("tanh")).cotangent[0]
    np.testing.assert_allclose(record.layers["0"].series("adjoints")[0, 0], weight @ J, rtol=1e-12, atol=1e-19)


@pytest.mark.parametrize(
    ("threshold", "expected"), [(2.0, np.inf), (1.0, 1.0), (0.5, 1.0), (3e-9, 1e-8), (0.9e-9, 1e-9), (0.0, 1e-12)]
)
def test_the_bisection_finds_the_smallest_decade_that_is_rejected(threshold, expected):
    asked = []

    def rejected(size):
        asked.append(size)
        return size >= threshold

    assert gradient_checkers.smallest(rejected, 12) == pytest.approx(expected, rel=1e-15)
    assert len(asked) <= 4  # of 14 answers


# ---- the verdict --------------------------------------------------------------------------------------------------


def test_the_claim_is_confirmed_by_what_it_says_whatever_the_peers_do():
    assert gradient_checkers.check(made_up()).word == "confirmed"
    for value in (True, False):
        rejected = made_up()["rejected"]
        rejected[2:] = value
        assert gradient_checkers.check(made_up(rejected=rejected)).word == "confirmed"


@pytest.mark.parametrize(
    "result",
    [
        with_entry("rejected", (0, 1, -1, 3), False),
        with_entry("vanishing", (0, 1, 3), False),
        with_entry("vanishing", (0, 2, 3), False),
        with_entry("vanishing", (0, 3, 3), False),
        with_entry("vanishing", (0, 0, 3), True),
        with_entry("false_alarms", (0, 3), True),
    ],
    ids=["a seed passes at 1e-8", "zero passes", "negated passes", "doubled passes", "right rejected", "false alarm"],
)
def test_one_wrong_decision_of_gradlab_contradicts_the_claim(result):
    assert gradient_checkers.check(result).word == "contradicted"


def test_the_numbers_are_counts_of_the_arrays():
    result = with_entry("smallest", (7, 1), np.inf)
    result["rejected"][3, 0, 1, :5] = False
    result["named"][-1, 0] = False
    verdict = gradient_checkers.check(result)
    assert verdict.numbers["torch gradcheck, fast, every step: rejected at each size"] == "8 3 8 0 0 0 0"
    assert verdict.numbers["sizes of the defect"] == "1 0.1 0.01 0.001 0.0001 1e-06 1e-08"
    assert verdict.numbers["gradlab check_example, one step, 1e-08: named as that gate and step alone"] == 7
    assert verdict.numbers["gradlab check_vjp, 1e-11 doubled: rejected"] == 8
    assert verdict.numbers["jax check_grads, 1e-11 doubled: rejected"] == 0
    assert verdict.numbers["planted defects with a size"] == len(DEFECTS)
    assert verdict.numbers["planted defects missed at size 1"] == 1
    assert verdict.numbers["largest of the smallest sizes still rejected"] == np.inf
    assert "rejects 8 of 8 (7 named" in verdict.sentence


@pytest.mark.parametrize("gap", [1e-11, np.nan])
def test_two_forms_of_the_vanished_jacobian_that_differ_break_the_ground_truth(gap):
    (truth,) = gradient_checkers.check(made_up(vanishing_gap=np.array([1e-15, gap]))).broken
    assert truth.name.startswith("1 + largest gap")


# ---- the figure ---------------------------------------------------------------------------------------------------


def drawn(result):
    with plotting.style():
        figure = gradient_checkers.draw(result)
        figure.draw_without_rendering()
    return figure


def test_every_defect_is_named_in_the_figure_in_the_order_of_its_smallest_size():
    sizes = made_up()["smallest"]
    sizes[11], sizes[5] = 1e-4, 1e-11
    ticks = [tick.get_text() for tick in drawn(made_up(smallest=sizes)).axes[3].get_yticklabels()]
    assert sorted(ticks) == sorted(one.name for one in DEFECTS)
    assert (ticks[0], ticks[-1]) == (DEFECTS[11].name, DEFECTS[5].name)


def test_a_defect_that_was_missed_is_shown_as_missed():
    figure = drawn(with_entry("smallest", (4, slice(None)), np.inf))
    ticks = figure.axes[3].get_xticklabels()
    assert ticks[-1].get_text() == "missed"
    assert figure.axes[3].get_yticklabels()[0].get_text() == DEFECTS[4].name
    assert "missed" not in {text.get_text() for text in drawn(made_up()).findobj(Text)}


def test_the_table_of_the_figure_holds_the_counts():
    table = drawn(with_entry("vanishing", (3, 2, 1), True)).axes[2]
    cells = [text.get_text() for text in table.texts]
    assert cells[:4] == ["0 of 8", "8 of 8", "8 of 8", "8 of 8"]
    assert cells[12:16] == ["0 of 8", "0 of 8", "1 of 8", "0 of 8"]


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_without_a_peer_the_analysis_is_skipped_with_its_install_line(library, tmp_path, capsys, monkeypatch):
    find, needed = importlib.util.find_spec, ALL[STEM].NEEDS

    def there(name, *rest):  # all that it needs but one library
        return (name != library and (name in needed or find(name, *rest))) or None

    monkeypatch.setattr(importlib.util, "find_spec", there)
    assert main(ALL, [STEM, "--out", str(tmp_path)], folder=tmp_path / "default") == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"skipped: needs {library}" in out
    assert list(tmp_path.iterdir()) == []
