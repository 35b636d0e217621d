"""What a gradient check says: one screen of text, the whole as JSON, an exception on demand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gradlab.checks.control import Control
from gradlab.checks.judgement import REASONS, Counts, Finding, Word
from gradlab.errors import GradientMismatch, ValueRangeError

SHOWN = 12
"""Rows of the table before it becomes a map."""


@dataclass(frozen=True)
class Report:
    """Common to all reports: a verdict, its text, and what turns it into an exception."""

    subject: str
    verdict: Word

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is UNRESOLVED, if it is."""
        return ()

    def raise_for_failure(self, allow: Collection[str] = ()) -> None:
        """Raise GradientMismatch with the whole report unless the verdict is PASS.

        `allow`: reasons for which UNRESOLVED is accepted, e.g. {"floor"}. Error: ValueRangeError for an unknown reason.
        """
        require_reasons(allow)
        excused = bool(self.reasons) and set(self.reasons) <= set(allow)
        if self.verdict == "FAIL" or (self.verdict == "UNRESOLVED" and not excused):
            raise GradientMismatch(str(self))


def require_reasons(allow: Collection[str]) -> None:
    """Refuse what is no reason."""
    unknown = [allow] if isinstance(allow, str) else [reason for reason in allow if reason not in REASONS]
    if unknown:
        raise ValueRangeError(f"allow has {unknown[0]!r}; expected a collection of reasons out of {', '.join(REASONS)}")


@dataclass(frozen=True)
class GradientReport(Report):
    """One function or network on one set of numbers.

    `oracle`: which one, and why. `size`: of what was checked. `counts`: entries by verdict. `findings`: every cell
    (quantity, gate, step, row) that did not pass, the worst first. `clean`: the quantities without any.
    `one_step`: where the fault is made, found by checking single steps. `reading`: what the pattern looks like, or None.
    `note`: what else the reader must know. `replay`: a line that runs it again. `blocks`: by gate of each gradient the largest
    error/S of every step.
    """

    oracle: str
    size: str
    rtol: float
    counts: Counts
    findings: tuple[Finding, ...] = ()
    clean: tuple[str, ...] = ()
    one_step: tuple[str, ...] = ()
    reading: str | None = None
    note: str | None = None
    control: Control | None = None
    replay: str | None = None
    steps: int = 0
    located: bool = True
    blocks: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(self.counts.unresolved)

    def __str__(self) -> str:
        lines = [
            f"gradlab {self.verdict}   {self.subject}   {self.size}",
            f"oracle     {self.oracle}    rtol {self.rtol:.0e} of S",
        ]
        lines += [f"entries    {self.counts}"]
        if self.findings:
            lines += ["", *self._table()]
            if self.clean:
                lines += [f"  clean: {', '.join(f'd{name}' for name in self.clean)}; worst error/S there {self.counts.worst:.1e}"]
            lines += [""]
        else:
            lines += [f"worst      error/S {self.counts.worst:.1e}"]
        lines += [f"one step   {line}" for line in self.one_step]
        lines += [f"reading    {self.reading}"] if self.reading else []
        lines += [f"note       {self.note}"] if self.note else []
        lines += [f"control    {self.control}"] if self.control and self.control.tried else []
        lines += [f"replay     {self.replay}"] if self.replay and self.verdict != "PASS" else []
        return "\n".join(lines)

    def with_control_counted(self) -> GradientReport:
        """FAIL instead of PASS if an alteration of the backward pass was not rejected: the check has no power there."""
        if self.control is None or self.control.passed or self.verdict != "PASS":
            return self
        return replace(self, verdict="FAIL", note="the check has no power: an altered backward pass passes it too")

    def _table(self) -> list[str]:
        place = ("step", "row") if self.located else ("worst entry",)
        head = ("gradient", *place, "entries", "backward", "oracle", "error/S", "")
        rows = [head]
        for one in self.findings[:SHOWN]:
            where = (str(one.step), str(one.row)) if self.located else (str(one.index),)
            word = one.reason and f"UNRESOLVED ({one.reason})"
            bad = f"{one.bad} of {one.entries}"
            rows.append((one.place, *where, bad, f"{one.backward:.9e}", f"{one.oracle:.9e}", f"{one.error:.1e}", word))
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if len(self.findings) > SHOWN:
            lines += [f"  ... and {len(self.findings) - SHOWN} more cells; by gradient and step (# FAIL, ? UNRESOLVED, . clean):"]
            lines += self._map()
        return lines

    def _map(self) -> list[str]:
        """One line a gradient, one sign a step."""
        steps = max(self.steps, 1 + max(one.step for one in self.findings))
        places: dict[str, list[str]] = {}
        for one in self.findings:
            signs = places.setdefault(one.place, ["."] * steps)
            sign = "#" if one.verdict == "FAIL" else "?"
            if signs[one.step] != "#":
                signs[one.step] = sign
        width = max(len(place) for place in places)
        ordered = sorted(places.items())
        return [f"    {place.ljust(width)}  {_squeezed(signs)}" for place, signs in ordered[:40]]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data: every finding, not only those of the table."""
        return {
            "subject": self.subject,
            "verdict": self.verdict,
            "size": self.size,
            "oracle": self.oracle,
            "rtol": self.rtol,
            "counts": plain(self.counts),
            "findings": [plain(one) for one in self.findings],
            "clean": list(self.clean),
            "one_step": list(self.one_step),
            "reading": self.reading,
            "note": self.note,
            "control": None if self.control is None else plain(self.control),
            "replay": self.replay,
            "steps": self.steps,
            "located": self.located,
            "blocks": {place: [one if one - one == 0.0 else str(one) for one in errors] for place, errors in self.blocks.items()},
        }


def plain(value: Any) -> dict[str, Any]:
    """A frozen dataclass of numbers and words as a dict that JSON can hold: what is not finite becomes a word."""
    found: dict[str, Any] = {}
    for key, one in vars(value).items():
        if isinstance(one, float) and one - one != 0.0:
            one = str(one)
        found[key] = dict(one) if isinstance(one, Mapping) else list(one) if isinstance(one, tuple) else one
    return found


def _squeezed(signs: list[str]) -> str:
    """At most 80 signs: of each group of steps the worst."""
    group = -(-len(signs) // 80)
    order = ".?#"
    parts = (signs[start : start + group] for start in range(0, len(signs), group))
    return "".join(max(part, key=order.index) for part in parts)
