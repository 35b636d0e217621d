"""Two diagnoses, finding by finding: what is gone, new, changed or the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gradlab.diagnosis.diagnosis import Diagnosis, finding_json
from gradlab.diagnosis.finding import SEVERITIES, Finding, Number

Change = Literal["gone", "new", "changed", "same"]
CHANGES: tuple[Change, ...] = ("new", "changed", "same", "gone")

SCHEMA = "gradlab-comparison-1"
SHARE = 0.01
"""Relative difference of two numbers without an interval up to which they count as the same."""


@dataclass(frozen=True)
class Compared:
    """One finding in both. `before`, `after`: None where it is not there. `what`: how they differ, in words."""

    change: Change
    before: Finding | None
    after: Finding | None
    what: str = ""

    @property
    def finding(self) -> Finding:
        """The later of the two."""
        found = [one for one in (self.after, self.before) if one is not None]
        return found[0]

    @property
    def worse(self) -> bool:
        """New, or graver than before."""
        if self.before is None or self.after is None:
            return self.after is not None
        return SEVERITIES.index(self.after.severity) > SEVERITIES.index(self.before.severity)


@dataclass(frozen=True, repr=False)
class Comparison:
    """Findings of `before` and `after`, those that are new first."""

    before: Diagnosis
    after: Diagnosis
    rows: tuple[Compared, ...]

    def of(self, change: Change) -> tuple[Compared, ...]:
        """The rows with one kind of change."""
        return tuple(row for row in self.rows if row.change == change)

    @property
    def verdict(self) -> str:
        """One line: how many findings are gone, new, changed and the same."""
        if not self.rows:
            return "no findings in either"
        return ", ".join(f"{len(self.of(change))} {change}" for change in ("gone", "new", "changed", "same"))

    def __str__(self) -> str:
        return "\n".join(
            [self.verdict, *(f"{row.change}: {row.finding}{f' ({row.what})' * bool(row.what)}" for row in self.rows)]
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, of the schema SCHEMA: the rows, and both diagnoses whole."""
        rows = [
            {
                "change": row.change,
                "what": row.what,
                "worse": row.worse,
                "before": None if row.before is None else finding_json(row.before),
                "after": None if row.after is None else finding_json(row.after),
            }
            for row in self.rows
        ]
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "rows": rows,
            "before": self.before.as_json(),
            "after": self.after.as_json(),
        }


def compare(before: Diagnosis, after: Diagnosis) -> Comparison:
    """Match the findings of two diagnoses by code and place, but for steps, lags and updates, which may move.

    Several of one code at one place are matched in their order. A finding is `changed` if its severity, its step, lag or
    update, or one of its numbers differs: two intervals that do not meet, or, without intervals, by more than SHARE.
    """
    earlier, later = _by_place(before), _by_place(after)
    rows: list[Compared] = []
    for key in dict.fromkeys((*later, *earlier)):
        old, new = earlier.get(key, []), later.get(key, [])
        rows += [_compared(a, b) for a, b in zip(old, new, strict=False)]
        rows += [Compared("new", None, one) for one in new[len(old) :]]
        rows += [Compared("gone", one, None) for one in old[len(new) :]]
    return Comparison(before, after, tuple(sorted(rows, key=lambda row: CHANGES.index(row.change))))


def _by_place(diagnosis: Diagnosis) -> dict[tuple[str, ...], list[Finding]]:
    found: dict[tuple[str, ...], list[Finding]] = {}
    for one in diagnosis.findings:
        place = one.place
        key = (one.code, place.layer, place.direction, place.gate, place.parameter, place.phase)
        found.setdefault(key, []).append(one)
    return found


def _compared(before: Finding, after: Finding) -> Compared:
    differences = []
    if before.severity != after.severity:
        differences.append(f"{before.severity} -> {after.severity}")
    for name in ("timestep", "lag", "update"):
        old, new = getattr(before.place, name), getattr(after.place, name)
        if old != new:
            differences.append(f"{name} {old} -> {new}")
    differences += _numbers(before.numbers, after.numbers)
    return Compared("changed" if differences else "same", before, after, "; ".join(differences))


def _numbers(before: Mapping[str, Number], after: Mapping[str, Number]) -> list[str]:
    both = [name for name in before if name in after]
    return [f"{name} {before[name]} -> {after[name]}" for name in both if _differ(before[name], after[name])]


def _differ(a: Number, b: Number) -> bool:
    if a.value == b.value or (a.value != a.value and b.value != b.value):
        return False
    if a.interval is not None and b.interval is not None:
        return a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]
    if not (math.isfinite(a.value) and math.isfinite(b.value)):
        return True
    return not abs(a.value - b.value) <= SHARE * max(abs(a.value), abs(b.value))
