"""The contract of a cell in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gradlab.checks.contract import CONTRACT, Example
from gradlab.errors import DTypeError, GradientMismatch, NumericalError
from gradlab.network import Network

Word = Literal["PASS", "FAIL", "UNRESOLVED"]


@dataclass(frozen=True)
class CheckResult:
    """One check of the contract: its name, its verdict, and why it is not PASS."""

    name: str
    verdict: Word
    detail: str = ""


@dataclass(frozen=True)
class CellReport:
    """What the contract says about a cell. `str` of it is the report; `raise_for_failure` turns it into an exception."""

    cell: str
    results: tuple[CheckResult, ...]

    @property
    def verdict(self) -> Word:
        """FAIL if a check failed, UNRESOLVED if none could be decided, else PASS."""
        words = [result.verdict for result in self.results]
        return "FAIL" if "FAIL" in words else "PASS" if "PASS" in words else "UNRESOLVED"

    def __str__(self) -> str:
        count = {word: sum(result.verdict == word for result in self.results) for word in ("PASS", "FAIL", "UNRESOLVED")}
        passed, failed, unresolved = (count[word] for word in ("PASS", "FAIL", "UNRESOLVED"))
        lines = [f"{self.cell}: {self.verdict}, {passed} checks passed, {failed} failed, {unresolved} unresolved"]
        lines += [f"  {r.verdict.lower()} {r.name}: {r.detail}" for r in self.results if r.verdict != "PASS"]
        return "\n".join(lines)

    def raise_for_failure(self) -> None:
        """Raise GradientMismatch with the whole report if a check failed."""
        if self.verdict == "FAIL":
            raise GradientMismatch(str(self))


def check_cell(cell: Any, *, input_size: int = 2, hidden_size: int = 3, layers: int = 2, seed: int = 0) -> CellReport:
    """Hold every derivative of `cell` against a complex step of its `step`, on one small random network.

    A stack of `layers`, 5 steps, 2 sequences of unequal length, random initial states and weights of size 1. A check passes
    only by a relative criterion. UNRESOLVED: the check needs what the cell does not have, or its oracle is not to be trusted.
    """
    rng = np.random.default_rng(seed)
    net = Network(cell, input_size, hidden_size, num_layers=layers)
    params = {key: rng.uniform(-1.0, 1.0, shape) for key, shape in net.shapes.items()}
    x = rng.uniform(-1.0, 1.0, (5, 2, input_size))
    initial = {layer.name: rng.uniform(-1.0, 1.0, (2, layer.state_size)) for layer in net.layers}
    cotangent = rng.uniform(0.5, 1.5, (5, 2, net.top_size)) * rng.choice([-1.0, 1.0], (5, 2, net.top_size))
    example = Example(net, params, x, initial, cotangent, np.array([5, 3]))
    return CellReport(repr(net.cell), tuple(_run(check, example) for check in CONTRACT))


def _run(check: Callable[[Example], None], example: Example) -> CheckResult:
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        check(example)
    except GradientMismatch as error:
        return CheckResult(name, "FAIL", str(error))
    except (NumericalError, DTypeError) as error:
        return CheckResult(name, "UNRESOLVED", str(error))
    return CheckResult(name, "PASS")
