"""The contract of a cell in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradlab._validate import require_count
from gradlab.cells.completed import as_cell
from gradlab.checks.blocks import block_products
from gradlab.checks.comparison import RTOL
from gradlab.checks.contract import CONTRACT, NEEDS_COMPLEX
from gradlab.checks.control import Control
from gradlab.checks.doubts import Kinks
from gradlab.checks.example import Example, random_example
from gradlab.checks.judgement import Word
from gradlab.checks.network import check_example
from gradlab.checks.oracle import Choice
from gradlab.checks.report import GradientReport, Report, plain
from gradlab.errors import DTypeError, GradientMismatch, NumericalError

CONTRACT_RTOL = 1e-10
"""Of closed forms of the cell against others: sums in another order, through a few steps."""


@dataclass(frozen=True)
class CheckResult:
    """One check of the contract: its name, its verdict, why it is not PASS, and the reason if it is UNRESOLVED."""

    name: str
    verdict: Word
    detail: str = ""
    reason: str = ""


@dataclass(frozen=True)
class CellReport(Report):
    """What the checks say about a cell. `str` of it is the report; `raise_for_failure` turns it into an exception.

    `gradients`: the untied check of a single layer and of a ragged stack. `results`: the rest of the contract.
    `without`: what the cell cannot do, which is no fault. `shrunk`: the smallest sizes at which a gradient is still wrong.
    """

    gradients: tuple[GradientReport, ...]
    results: tuple[CheckResult, ...]
    without: tuple[str, ...] = ()
    shrunk: str | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        found = [reason for report in self.gradients for reason in report.reasons]
        found += [result.reason for result in self.results if result.verdict == "UNRESOLVED"]
        return tuple(dict.fromkeys(found))

    @property
    def control(self) -> Control | None:
        """The negative control of the gradients."""
        return next((report.control for report in self.gradients if report.control is not None), None)

    def __str__(self) -> str:
        words = [report.verdict for report in self.gradients] + [result.verdict for result in self.results]
        passed, failed, unresolved = (words.count(word) for word in ("PASS", "FAIL", "UNRESOLVED"))
        lines = [f"{self.subject}: {self.verdict}, {passed} checks passed, {failed} failed, {unresolved} unresolved"]
        lines += [f"  {r.verdict.lower()} {r.name}: {r.detail}" for r in self.results if r.verdict != "PASS"]
        lines += [f"  without {text}" for text in self.without]
        for report in self.gradients:
            lines += ["", str(report)]
        lines += [f"shrunk to  {self.shrunk}"] if self.shrunk else []
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "subject": self.subject,
            "verdict": self.verdict,
            "gradients": [report.as_json() for report in self.gradients],
            "results": [plain(result) for result in self.results],
            "without": list(self.without),
            "shrunk": self.shrunk,
        }


def check_cell(
    cell: Any,
    *,
    steps: int = 5,
    batch: int = 2,
    input_size: int = 2,
    hidden_size: int = 3,
    layers: int = 2,
    seed: int = 0,
    oracle: Choice = "auto",
    rtol: float = RTOL,
    kink: Kinks = "interval",
    control: bool = True,
) -> CellReport:
    """Hold every derivative of `cell`, an object with `init` and `step` and whatever closed forms it has, against exact ones.

    The contribution of every step and row to every gradient is compared, for a single layer and for a stack of `layers` over
    rows of unequal lengths, so that a mismatch is named by parameter, gate, step and row; then the rest of the
    contract: values, Jacobians, linearity, causality, chunks, ensembles, complex numbers, float32.
    All numbers are drawn from `seed`: weights, inputs and initial states of size 1.
    `oracle`, `kink`: as in `check_example`. `rtol`: of the gradients. `control`: alter what the backward pass returned and
    demand that each alteration is rejected; if one is not, the check has no power there and the verdict is FAIL.

        >>> import gradlab
        >>> gradlab.checks.check_cell(gradlab.GRU()).verdict
        'PASS'

    Errors: DTypeError if `cell` lacks init or step.
    """
    cell = as_cell(cell)
    sizes: dict[str, Any] = {"T": steps, "B": batch, "D": input_size, "H": hidden_size}
    for name, value in zip(("steps", "batch", "input_size", "hidden_size", "layers"), (*sizes.values(), layers), strict=True):
        require_count(name, value)
    single = random_example(cell, **sizes, seed=seed, rtol=rtol)
    stack = random_example(cell, **sizes, seed=seed + 1, rtol=rtol, ragged=True, num_layers=layers, output_size=2)
    gradients = (
        check_example(single, oracle=oracle, kink=kink, control=control),
        check_example(stack, oracle=oracle, kink=kink),
    )
    results: list[CheckResult] = []
    without: list[str] = []
    for check in CONTRACT:
        found = [_run(check, replace(example, rtol=max(CONTRACT_RTOL, rtol))) for example in (single, stack)]
        worst = max(found, key=lambda result: ("PASS", "UNRESOLVED", "FAIL").index(result.verdict))
        if check in NEEDS_COMPLEX and worst.verdict == "UNRESOLVED":
            without.append(f"{worst.name}: {worst.detail}")
        else:
            results.append(worst)
    results.append(_blocks(cell, seed, oracle))
    if gradients[0].control is not None and not gradients[0].control.passed:
        results.append(CheckResult("negative control", "FAIL", str(gradients[0].control)))
    for reason in ("nonfinite", "nondeterministic"):  # numbers that are no numbers, or others each time, fail every comparison
        if any(reason in report.reasons for report in gradients):
            results = [replace(one, verdict="UNRESOLVED", reason=reason) if one.verdict == "FAIL" else one for one in results]
    words = [report.verdict for report in gradients] + [result.verdict for result in results]
    verdict: Word = "FAIL" if "FAIL" in words else "UNRESOLVED" if "UNRESOLVED" in words else "PASS"
    shrunk = _shrunk(cell, sizes, seed, oracle, rtol, kink) if any(report.verdict == "FAIL" for report in gradients) else None
    return CellReport(repr(cell), verdict, gradients, tuple(results), tuple(without), shrunk)


def _run(check: Callable[[Example], None], example: Example) -> CheckResult:
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        check(example)
    except GradientMismatch as error:
        return CheckResult(name, "FAIL", str(error))
    except (NumericalError, DTypeError) as error:
        return CheckResult(name, "UNRESOLVED", str(error), "oracle-disagrees")
    return CheckResult(name, "PASS")


def _blocks(cell: Any, seed: int, oracle: Choice) -> CheckResult:
    """The dot-product test at a size that the untied check cannot reach."""
    name = "block products at T = 20, H = 16"
    example = random_example(cell, T=20, B=3, D=4, H=16, seed=seed, scale=0.25)
    try:
        wrong = [found for found in block_products(example, np.random.default_rng(seed), oracle) if not found.passed]
    except (NumericalError, DTypeError) as error:
        return CheckResult(name, "UNRESOLVED", str(error), "oracle-disagrees")
    if not wrong:
        return CheckResult(name, "PASS")
    worst = max(wrong, key=lambda found: found.error)
    return CheckResult(
        name,
        "FAIL",
        f"{len(wrong)} blocks differ ({', '.join(found.name for found in wrong[:6])}); worst error/S {worst.error:.1e}",
    )


def _shrunk(cell: Any, sizes: dict[str, Any], seed: int, oracle: Choice, rtol: float, kink: Kinks) -> str | None:
    """The smallest sizes, in the order T, H, B, D, at which some gradient of a single layer is wrong."""
    ranges = [
        (T, B, D, H) for T in range(1, sizes["T"] + 1) for H in (1, sizes["H"]) for B in (1, sizes["B"]) for D in (1, sizes["D"])
    ]
    for T, B, D, H in dict.fromkeys(ranges):
        report = check_example(random_example(cell, T=T, B=B, D=D, H=H, seed=seed, rtol=rtol), oracle=oracle, kink=kink)
        if report.verdict == "FAIL":
            worst = report.findings[0]
            what = f"{worst.place} backward {worst.backward:.9e}, oracle {worst.oracle:.9e}"
            return f"T={T} B={B} D={D} H={H}: {what}\nreplay     {report.replay}"
    return None
