"""Every planted defect is rejected, in its own place and nowhere else; the same numbers pass without it."""

import numpy as np
import pytest

from analyses._planted_defects import DEFECTS
from analyses._planting import B, T, found, found_in_single_steps, grads, in_engine, places, put
from gradlab import forward_pass, objective
from gradlab.cells import ALL, LSTM, Elman
from gradlab.checks import block_products, check_example, random_example

SEEDS = (0, 1)
SMALL = 1e-8
PATTERNS = (
    "adds nothing",  # a missing step, or a missing gate
    "wrong sign",
    "off by the factor",
    "wrong row",
    "truncated",
    "shifted by one step",
    "are swapped",
    "transposed",
    "stale state",
    "carried back wrongly",
)
"""The closed list of what a report may read out of a pattern."""


def named(name):
    return next(one for one in DEFECTS if one.name.startswith(name))


def report_of(defect, seed, size=1.0):
    with defect.plant(defect.cell, size) as cell:
        return check_example(defect.example(cell, seed), replay=False)


# ---- the catalogue ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda one: one.name)
def test_a_planted_defect_fails_in_its_own_place_and_nowhere_else(defect):
    for seed in SEEDS:
        report = report_of(defect, seed)
        assert report.verdict == "FAIL"
        assert {one.verdict for one in report.findings} == {"FAIL"}
        assert found(report) == defect.label
        assert found_in_single_steps(report) == defect.made
        assert report.oracle.startswith("complex step")
        if defect.reading is not None:
            assert defect.reading in report.reading


RIGHT = {f"{one.cell!r} {dict(one.options)}": one for one in reversed(DEFECTS)}
"""One defect of each kind of network: without it they are the same."""


@pytest.mark.parametrize("defect", RIGHT.values(), ids=lambda one: f"{one.cell!r} {dict(one.options)}")
def test_the_cell_without_the_defect_passes_on_the_same_numbers(defect):
    for seed in SEEDS:
        report = check_example(defect.example(defect.cell, seed), replay=False)
        assert (report.verdict, report.findings) == ("PASS", ())
        assert report.counts.entries == report.counts.passed > 50


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda one: one.name)
def test_a_hundred_millionth_of_a_defect_still_fails_in_its_own_place(defect):
    report = report_of(defect, SEEDS[0], SMALL)
    assert report.verdict == "FAIL"
    assert found(report) <= defect.label  # of a label of many places some may be below the criterion
    assert found_in_single_steps(report) <= defect.made


def test_the_catalogue_has_every_kind_of_cell_and_every_pattern_that_a_report_can_name():
    assert len(DEFECTS) >= 30
    assert len({one.name for one in DEFECTS}) == len(DEFECTS)
    families = {type(one.cell).__name__ for one in DEFECTS}
    assert {type(cell).__name__ for cell in ALL} | {"Leaky"} == families
    assert {f"P{k}" for k in range(1, 8)} <= {one.name.partition(":")[0] for one in DEFECTS}
    read = [one.reading for one in DEFECTS if one.reading is not None]
    assert [pattern for pattern in PATTERNS if not any(pattern in text for text in read)] == []
    assert all(one.label for one in DEFECTS)


# ---- one gate at one step, by a hundred-millionth --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_the_forget_gate_wrong_by_1e_8_at_one_step_is_named_as_that_gate_and_that_step(seed):
    report = report_of(named("P4"), seed, SMALL)
    assert report.verdict == "FAIL"
    assert {(one.quantity, one.gate, one.step) for one in report.findings} == {("0.U", "f", 2)}
    assert report.one_step == ("wrong where it is made: d0.U[f], step 2",)
    for one in report.findings:
        # The worst entry has few cancelling terms; its last digits, 1e-15 of S, are 1e-7 of the defect for each of them.
        assert (one.backward - one.oracle) / one.oracle == pytest.approx(SMALL, rel=1e-4)
        assert 0.1 * SMALL < one.error <= SMALL * (1.0 + 1e-4)  # S is the larger, by what cancels
    assert report.reading.startswith("d0.U[f], step 2")
    assert report.reading.endswith("off by the factor 1+1.0e-08")


@pytest.mark.parametrize("seed", range(8))
def test_the_dot_product_of_a_block_names_the_gate_of_the_same_defect(seed):
    defect = named("P4")
    with defect.plant(defect.cell, SMALL) as cell:
        compared = block_products(defect.example(cell, seed), np.random.default_rng(seed))
    assert [one.name for one in compared if not one.passed] == ["d0.U[f]"]


# ---- the engine's own faults ------------------------------------------------------------------------------------


def test_an_engine_that_forgets_the_ends_of_rows_fails_in_the_rows_that_end_early():
    example = random_example(Elman("tanh"), T=T, B=B, seed=3, ragged=True)
    plant = in_engine(forward_pass, "live", lambda right, size: lambda steps, lengths: None)
    with plant(None, 1.0):
        report = check_example(example, replay=False)
    assert report.verdict == "FAIL"
    assert {one.row for one in report.findings} == {1}
    assert check_example(example, replay=False).verdict == "PASS"


def test_a_planted_fault_of_the_engine_is_gone_afterwards_even_after_an_exception():
    before = objective.unrows
    plant = in_engine(objective, "unrows", lambda right, size: lambda *args: 2.0 * right(*args))

    def fail():
        with plant(None, 1.0):
            assert objective.unrows is not before
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert objective.unrows is before


# ---- the means of planting --------------------------------------------------------------------------------------


def test_a_label_is_read_as_it_is_written():
    assert places("W[o] ..#..@1") == {("0.W", "o", 2, 1)}
    assert places("x #..; s[c] .#") == {("x", "", 0, 0), ("x", "", 0, 1), ("s 0", "c", 1, 0), ("s 0", "c", 1, 1)}
    assert places("1.backward.U,s 1.backward .#@0") == {("1.backward.U", "", 1, 0), ("s 1.backward", "", 1, 0)}
    assert places("") == frozenset()


@pytest.mark.parametrize("size", [0.0, 1e-12, 0.5, 1.0, -1.0])
def test_a_defect_of_a_size_is_the_right_result_plus_that_share_of_the_difference(size):
    cell = LSTM()
    right = random_example(cell, T=T, B=B, seed=1).record.gradients
    plant = grads(lambda v: {"b": put(v.right["b"], 2, 7.0)})
    with plant(cell, size) as broken:
        wrong = random_example(broken, T=T, B=B, seed=1).record.gradients
    expected = right["0.b"].copy()
    expected[2] += size * (7.0 - expected[2])
    np.testing.assert_allclose(wrong["0.b"], expected, rtol=1e-15)  # one rounding
    assert all(np.array_equal(wrong[key], right[key]) for key in ("0.W", "0.U"))


def test_planting_leaves_the_right_cell_as_it_is():
    cell = LSTM()
    plant = grads(lambda v: {"b": 0.0 * v.right["b"]})
    with plant(cell, 1.0) as broken:
        assert broken is not cell
        assert vars(cell) == vars(LSTM())
