"""The map of a gradient report: one row for each gradient and gate, one mark for each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHADES = (1e-6, 1e-3, 1e-1)
"""Upper ends of error/S of the lighter shades; there is one more, for all above."""


@dataclass(frozen=True)
class Mark:
    """What became of one gradient at one step, over all rows and entries.

    `error`: the largest error/S among those of this verdict; None where the report does not say. `shade`: 1 to 4, for FAIL.
    """

    verdict: str = "PASS"
    error: float | None = None
    reason: str = ""
    rows: tuple[int, ...] = ()

    @property
    def shade(self) -> int:
        if self.verdict != "FAIL" or self.error is None:
            return 0
        return 1 + sum(not self.error <= limit for limit in SHADES)

    @property
    def text(self) -> str:
        """Verdict and size without any colour: "ok", "x 1e-08", "? floor"."""
        size = "" if self.error is None else f"{self.error:.0e}"
        if self.verdict == "PASS":
            return size or "ok"
        return f"✗ {size}" if self.verdict == "FAIL" else f"? {self.reason}"


def place(finding: Mapping[str, Any]) -> str:
    """Gradient and gate in words: dU[f]."""
    return f"d{finding['quantity']}[{finding['gate']}]" if finding["gate"] else f"d{finding['quantity']}"


def gate_map(report: Mapping[str, Any]) -> dict[str, list[Mark]]:
    """Marks by gradient and gate, from the plain data of a `GradientReport`; empty for a function, which has no steps.

    What does not pass comes first, the worst on top; then the gradients without any fault.
    `blocks` of the data, if it has them, are the largest error/S by gradient, gate and step.
    """
    if not report.get("located", True):
        return {}
    found: dict[str, list[Mark]] = {}
    for one in report["findings"]:
        row = found.setdefault(place(one), [])
        row += [Mark()] * (max(report["steps"], one["step"] + 1) - len(row))
        row[one["step"]] = _worse(row[one["step"]], one)
    for name, errors in report.get("blocks", {}).items():
        known = [Mark(error=float(error)) for error in errors]
        row = found.setdefault(name, known)
        row[:] = [mark if mark.rows else old for mark, old in zip(row, known, strict=False)] + row[len(known) :]
    for name in report["clean"]:
        if not any(row == f"d{name}" or row.startswith(f"d{name}[") for row in found):
            found[f"d{name}"] = [Mark()] * (report["steps"] + name.startswith("s "))  # the initial state is a step of its own
    return found


def _worse(mark: Mark, one: Mapping[str, Any]) -> Mark:
    """`mark` with another finding at the same gradient and step, of another row."""
    error, rows = float(one["error"]), (*mark.rows, int(one["row"]))
    stronger = not mark.rows or (mark.verdict != "FAIL" and one["verdict"] == "FAIL")
    if stronger:
        return Mark(one["verdict"], error, one["reason"], rows)
    if mark.verdict != one["verdict"] or mark.error is None:
        return Mark(mark.verdict, mark.error, mark.reason, rows)
    return Mark(mark.verdict, max(mark.error, error), mark.reason, rows)
