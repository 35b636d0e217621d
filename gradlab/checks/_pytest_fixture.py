"""The fixture `gradcheck`: gradient checks that know the test they run in. Loaded when a test first asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, overload

from gradlab.cells.completed import as_cell
from gradlab.checks._pytest_options import CHECK_OPTIONS
from gradlab.checks._pytest_state import State
from gradlab.checks.cell import CellReport, check_cell
from gradlab.checks.comparison import RTOL
from gradlab.checks.example import Example
from gradlab.checks.functions import check_gradient, check_vjp
from gradlab.checks.network import check_example
from gradlab.checks.report import GradientReport
from gradlab.errors import GradientMismatch

AnyReport = TypeVar("AnyReport", CellReport, GradientReport)


class GradCheck:
    """`gradcheck(cell)`, `gradcheck(example)`, `gradcheck.gradient(f, grad, x)`, `gradcheck.vjp(f, vjp, *args)`.

    Each returns the report of `gradlab.checks.check_cell`, `check_example`, `check_gradient` or `check_vjp`. Each raises
    GradientMismatch, with the whole report as its text, for FAIL, and for UNRESOLVED unless all its reasons are in `allow`.
    `rtol`, `oracle`, `kink` and `allow` come from the call, else from the test's marker `gradcheck`, else from the command
    line, else from the ini file. All other options are those of the function that checks.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def __repr__(self) -> str:
        return "gradcheck"  # in what hypothesis prints of a failing example

    @overload
    def __call__(self, subject: Example, **options: Any) -> GradientReport: ...
    @overload
    def __call__(self, subject: object, **options: Any) -> CellReport | GradientReport: ...
    def __call__(self, subject: object, **options: Any) -> CellReport | GradientReport:
        """Check a cell, or an `Example`. An example's own `rtol`, if it is not the default, counts as one of the call."""
        __tracebackhide__ = True
        if not isinstance(subject, Example):
            cell = as_cell(subject)
            return self._judge(f"cell {cell!r}", options, lambda chosen: check_cell(cell, **chosen))
        example = subject
        if example.rtol != RTOL:
            options.setdefault("rtol", example.rtol)

        def check(chosen: dict[str, Any]) -> GradientReport:
            rtol = chosen.pop("rtol", example.rtol)
            return check_example(example if rtol == example.rtol else replace(example, rtol=rtol), **chosen)

        return self._judge(f"example {example.net.cell!r}", options, check)

    def gradient(self, f: Callable[[Any], Any], grad: Callable[[Any], Any], x: Any, **options: Any) -> GradientReport:
        """Check the gradient `grad` of the scalar function `f` at `x`."""
        __tracebackhide__ = True
        return self._judge(f"gradient {_name(f)}", options, lambda chosen: check_gradient(f, grad, x, **chosen))

    def vjp(self, f: Callable[..., Any], vjp: Callable[..., Any], *args: Any, **options: Any) -> GradientReport:
        """Check the vector-Jacobian product `vjp` of `f` at `args`."""
        __tracebackhide__ = True
        return self._judge(f"vjp {_name(f)}", options, lambda chosen: check_vjp(f, vjp, *args, **chosen))

    def _judge(self, what: str, options: Mapping[str, Any], check: Callable[[dict[str, Any]], AnyReport]) -> AnyReport:
        __tracebackhide__ = True
        read = {key: CHECK_OPTIONS[key](key, value) for key, value in options.items() if key in CHECK_OPTIONS}
        chosen = {**self._state.options, **options, **read}
        allow = chosen.pop("allow", ())
        chosen.setdefault("control", self._state.wants_control(what))
        report = check(chosen)
        accepted = report.verdict == "UNRESOLVED" and bool(report.reasons) and set(report.reasons) <= set(allow)
        self._state.checked(what, report, accepted)
        _tell_hypothesis(report, accepted)
        # Two lines on purpose: what hypothesis sees raised in two lines it takes for two faults, and shrinks each alone.
        if report.verdict == "FAIL":
            raise GradientMismatch(str(report))
        if report.verdict != "PASS" and not accepted:
            raise GradientMismatch(str(report))
        return report


def _name(f: Callable[..., Any]) -> str:
    return getattr(f, "__qualname__", type(f).__name__)


def _tell_hypothesis(report: CellReport | GradientReport, accepted: bool) -> None:
    """Events for the statistics, and the text of what was let pass, if a property is what runs."""
    hypothesis = sys.modules.get("hypothesis")  # never loaded for this
    if hypothesis is None or not hypothesis.currently_in_test_context():
        return
    parts = report.gradients if isinstance(report, CellReport) else (report,)
    if report.verdict == "UNRESOLVED":
        for reason in report.reasons:
            hypothesis.event(f"gradlab UNRESOLVED ({reason})")
    if any(part.counts.kinks for part in parts):
        hypothesis.event("gradlab kink")
    if accepted:
        hypothesis.note(str(report))
