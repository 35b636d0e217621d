"""What a report says, to a person and to a program: first lines, table, map, columns, JSON, exceptions."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hand_written import Relu, Tanh, scalar

from gradlab import cells
from gradlab.checks import GradientReport, Report, check_cell, check_example, check_gradient, random_example
from gradlab.checks.judgement import Counts, Finding
from gradlab.errors import GradientMismatch, ValueRangeError


class ForgetGate(cells.LSTM):
    """The forget gate's part of dU at the given steps is scaled."""

    def __init__(self, steps, factor):
        super().__init__()
        self.steps, self.factor = steps, factor

    def param_grads(self, p, x, a, s, da, delta, t):
        gradients = super().param_grads(p, x, a, s, da, delta, t)
        picked = np.isin(np.asarray(t), self.steps)[:, None, None]
        H = len(gradients["b"]) // 4
        some = super().param_grads(p, x, a, s, da * picked, delta, t)["U"]
        gradients["U"][H : 2 * H] += (self.factor - 1.0) * some[H : 2 * H]
        return gradients


FEW = check_example(random_example(ForgetGate([2], 3.0), T=4, B=2))
MANY = check_example(random_example(ForgetGate(range(20), 1.0 + 1e-6), T=20, B=2))


def rows(report):
    """The table as a list of dicts, by the columns' own places: nothing is read by counting words."""
    lines = str(report).splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("  gradient"))
    names = re.findall(r"\S+(?: \S+)*", lines[head])
    starts = [lines[head].index(name) for name in names]
    found = []
    for line in lines[head + 1 :]:
        if not line.startswith("  d"):
            break
        cut = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        found.append(dict(zip(names, cut, strict=True)))
    return found


# ---- the text ----------------------------------------------------------------------------------------------


def test_the_first_lines_say_verdict_subject_size_oracle_and_counts():
    first, second, third = str(FEW).splitlines()[:3]
    assert first == "gradlab FAIL   LSTM()   float64 T=4 B=2 D=2 H=3"
    assert second == "oracle     complex step, h=1e-200 (pre-flight: Richardson agrees)    rtol 1e-09 of S"
    entries = FEW.counts.entries
    assert third.startswith(f"entries    {entries} compared: {entries - 18} PASS, 18 FAIL, 0 UNRESOLVED")
    assert entries >= 2 * (4 * (24 + 36 + 12 + 2) + 5 * 6)  # B (T (W + U + b + x) + (T + 1) s), and what is summed


def test_a_passing_report_is_a_few_lines_with_the_worst_error():
    report = check_example(random_example(cells.LSTM()), control=True)
    lines = str(report).splitlines()
    assert lines[0].startswith("gradlab PASS")
    assert lines[3] == f"worst      error/S {report.counts.worst:.1e}"
    assert lines[4].startswith("control    ")
    assert len(lines) == 5
    assert 0.0 < report.counts.worst < 1e-13


def test_the_table_names_gate_step_and_row_the_worst_first_and_keeps_its_columns():
    table = rows(FEW)
    assert [(row["gradient"], row["step"]) for row in table] == [("d0.U[f]", "2")] * 2
    assert {row["row"] for row in table} == {"0", "1"}
    errors = [float(row["error/S"]) for row in table]
    assert errors == sorted(errors, reverse=True)
    for row in table:
        # The backward pass says three times what is true: columns that were swapped would say a third.
        assert float(row["backward"]) / float(row["oracle"]) == pytest.approx(3.0, rel=1e-5)
        assert row["entries"] == "9 of 9"
    assert "reading    d0.U[f], step 2, every row: it is off by the factor 3" in str(FEW)
    assert "one step   wrong where it is made: d0.U[f], step 2" in str(FEW)


def test_the_clean_quantities_are_listed_and_the_faulty_one_is_not():
    line = next(line for line in str(FEW).splitlines() if line.startswith("  clean: "))
    assert line.startswith("  clean: dx, ds 0, d0.W, d0.b")
    assert set(FEW.clean) >= {"x", "s 0", "0.W", "0.b"}
    assert "0.U" not in FEW.clean


def test_more_than_twelve_cells_end_in_a_map_of_gradients_and_steps():
    assert len(MANY.findings) == 40
    text = str(MANY).splitlines()
    assert len(rows(MANY)) == 12
    at = next(k for k, line in enumerate(text) if "more cells" in line)
    assert text[at] == "  ... and 28 more cells; by gradient and step (# FAIL, ? UNRESOLVED, . clean):"
    assert text[at + 1] == "    d0.U[f]  " + "#" * 20
    assert not any("more cells" in line for line in str(FEW).splitlines())


def test_the_map_shows_which_steps_fail_and_which_are_clean():
    report = check_example(random_example(ForgetGate([0, 3, 4, 5, 6, 7, 9], 2.0), T=12, B=2))
    line = next(line for line in str(report).splitlines() if line.startswith("    d0.U[f]"))
    assert line.split() == ["d0.U[f]", "#..#####.#.."]


def finding(step, verdict="FAIL", error=1.0):
    return Finding("0.U", "f", step, 0, verdict, "" if verdict == "FAIL" else "floor", 9, 9, 2.0, 1.0, error)


def report_of(findings, steps):
    counts = Counts(9, 0, 9, {}, 0, 0, 0.0)
    return GradientReport("LSTM()", "FAIL", "complex step", "T", 1e-9, counts, tuple(findings), steps=steps)


def test_a_map_of_many_steps_is_squeezed_to_eighty_signs_that_keep_the_worst():
    found = [finding(t, "UNRESOLVED") for t in range(0, 400, 2)]
    found[50] = finding(100)
    line = next(line for line in str(report_of(found, 400)).splitlines() if line.startswith("    d0.U[f]"))
    signs = line.split()[1]
    assert len(signs) == 80
    assert signs[20] == "#"  # steps 100 to 104
    assert set(signs[:20] + signs[21:]) == {"?"}


def test_a_fail_and_an_unresolved_in_one_place_show_the_fail():
    found = [finding(t, "UNRESOLVED") for t in range(13)]
    for both in ([*found, finding(3)], [finding(3), *found]):
        assert "d0.U[f]  ???#?????????" in str(report_of(both, 13))


def test_a_function_has_entries_in_place_of_steps_and_rows():
    report = check_gradient(lambda x: (x**3).sum(), lambda x: 3.0 * x**2 * [[1.0, 1.0], [2.0, 1.0]], np.ones((2, 2)))
    (row,) = rows(report)
    assert (row["gradient"], row["worst entry"], row["entries"]) == ("dx", "(1, 0)", "1 of 4")
    assert (float(row["backward"]), float(row["oracle"]), float(row["error/S"])) == (6.0, 3.0, 1.0)
    assert "row" not in row


def test_the_largest_error_stands_first_whatever_the_order_of_the_steps():
    class Growing(Tanh):
        def vjp(self, params, x_t, s_prev, delta, t):
            gradients, dx, ds = super().vjp(params, x_t, s_prev, delta, t)
            return {**gradients, "b": gradients["b"] * (1.0 + 10.0 ** (t - 8))}, dx, ds

    report = check_example(random_example(Growing(), T=5))
    assert [one.step for one in report.findings] == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    errors = [one.error for one in report.findings]
    assert errors == sorted(errors, reverse=True)


def test_what_failed_stands_before_what_is_unresolved():
    example = scalar(Relu(W=2.0), [1.0, 0.0, 2.0])
    report = check_example(example, kink="unresolved")
    words = [one.verdict for one in report.findings]
    assert set(words) == {"FAIL", "UNRESOLVED"}
    assert words == sorted(words)
    assert "UNRESOLVED (kink)" in str(report)
    assert report.verdict == "FAIL"


def test_kinks_and_exact_zeros_are_counted_in_the_text():
    text = str(check_example(scalar(Relu(), [1.0, 0.0, 2.0], u=0.0)))
    assert re.search(r"[35] of the PASS at a kink, between its one-sided derivatives", text)  # with or without their sums
    assert re.search(r"\d+ exact zeros", text)


# ---- JSON --------------------------------------------------------------------------------------------------


class NotFinite(Tanh):
    def vjp(self, params, x_t, s_prev, delta, t):
        gradients, dx, ds = super().vjp(params, x_t, s_prev, delta, t)
        return gradients, dx, ds * (np.nan if t == 2 else 1.0)


REPORTS = {
    "few": FEW,
    "many": MANY,
    "pass": check_example(random_example(cells.LSTM()), control=True),
    "NaN": check_example(random_example(NotFinite())),
    "overflow": check_example(random_example(cells.Elman("linear"), scale=1e160)),
    "function": check_gradient(np.sum, lambda x: np.zeros(3), np.ones(3)),
    "kinks": check_example(scalar(Relu(), [1.0, 0.0, 2.0]), kink="unresolved"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_strict_json_with_every_finding(name):
    report = REPORTS[name]
    data = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert data["verdict"] == report.verdict
    assert data["oracle"] == report.oracle
    assert data["counts"]["entries"] == report.counts.entries
    assert data["counts"]["unresolved"] == dict(report.counts.unresolved)
    assert len(data["findings"]) == len(report.findings)
    for one, found in zip(data["findings"], report.findings, strict=True):
        assert (one["quantity"], one["gate"], one["step"], one["row"]) == (found.quantity, found.gate, found.step, found.row)
        assert (one["verdict"], one["reason"], one["index"]) == (found.verdict, found.reason, list(found.index))
        if np.isfinite([found.backward, found.oracle, found.error]).all():
            assert (one["backward"], one["oracle"], one["error"]) == (found.backward, found.oracle, found.error)


def test_what_is_not_finite_is_a_word_in_json():
    one = REPORTS["NaN"].as_json()["findings"][0]
    assert (one["backward"], one["error"]) == ("nan", "inf")


def test_the_report_of_a_cell_is_strict_json_too():
    report = check_cell(NotFinite())
    data = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert data["verdict"] == "FAIL"
    assert [len(one["findings"]) for one in data["gradients"]] == [len(one.findings) for one in report.gradients]
    assert {one["name"] for one in data["results"] if one["verdict"] == "FAIL"} >= {"jacobians"}


@pytest.mark.parametrize("rtol", [np.float32(1e-9), np.int64(0)])
def test_a_tolerance_from_numpy_is_json_too(rtol):
    json.dumps(check_gradient(np.sum, np.ones_like, np.ones(3), rtol=rtol).as_json(), allow_nan=False)


# ---- exceptions --------------------------------------------------------------------------------------------


def test_a_failure_raises_the_whole_report_whatever_is_allowed():
    for allow in ((), {"floor"}, {"kink", "floor", "nonfinite", "nondeterministic", "oracle-disagrees", "ill-conditioned"}):
        with pytest.raises(GradientMismatch) as caught:
            FEW.raise_for_failure(allow=allow)
        assert str(caught.value) == str(FEW)
    assert isinstance(caught.value, AssertionError)


def test_a_pass_raises_nothing():
    assert REPORTS["pass"].raise_for_failure() is None


def test_every_reason_must_be_allowed():
    counts = Counts(3, 0, 0, {"kink": 1, "floor": 2}, 0, 0, 0.0)
    report = replace(report_of([], 1), verdict="UNRESOLVED", counts=counts)
    for allow in ((), {"kink"}, {"floor", "nonfinite"}):
        with pytest.raises(GradientMismatch):
            report.raise_for_failure(allow=allow)
    report.raise_for_failure(allow={"kink", "floor"})


def test_an_unresolved_report_without_a_reason_raises():
    with pytest.raises(GradientMismatch):
        Report("a cell", "UNRESOLVED").raise_for_failure()


@pytest.mark.parametrize("allow", ["floor", ["flor"], {"FAIL"}, ["floor", None]])
def test_what_is_no_reason_is_refused(allow):
    for report in (FEW, REPORTS["pass"], check_cell(cells.Elman(), control=False)):
        with pytest.raises(ValueRangeError, match="collection of reasons out of kink, floor"):
            report.raise_for_failure(allow=allow)
