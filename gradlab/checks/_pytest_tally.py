"""Counts of gradient checks under pytest: plain data that travel with the reports of tests, and what is written from them.

Standard library only, until a file is written.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradlab._version import __version__
from gradlab.errors import GradlabError

KEPT = 50
"""Of each test the first and the last 50 reports are kept whole; a search of hypothesis ends with the smallest failing one."""
NOTES = 10
"""Lines of notes in the summary."""
VERDICTS = ("PASS", "FAIL", "UNRESOLVED")


@dataclass
class Tally:
    """What was checked. `counts` by name, "verdict PASS" and "reason floor" among them; `notes` on passed checks; JSON texts."""

    counts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    reports: list[str] = field(default_factory=list)

    def add(self, report: Any, *, accepted: bool, whole: bool) -> None:
        """Count a report of `gradlab.checks`; `accepted`: UNRESOLVED for allowed reasons; `whole`: keep its text too."""
        self.counts.update(["reports", f"verdict {report.verdict}"])
        if report.verdict == "UNRESOLVED":
            self.counts.update(f"reason {reason}" for reason in report.reasons)
        self.counts["accepted"] += accepted
        parts = getattr(report, "gradients", (report,))
        for part in parts:
            self.counts.update(entries=part.counts.entries, kinks=part.counts.kinks, exact_zeros=part.counts.exact_zeros)
            if part.control is not None:
                one = part.control
                self.counts.update(controls=1, tried=one.tried, rejected=one.rejected, void=one.void, missed=len(one.missed))
        if report.verdict == "PASS":
            self.notes.update({f"{report.subject}: {part.note}" for part in parts if part.note})
        if whole:
            self._keep([json.dumps(report.as_json(), ensure_ascii=True)])

    def _keep(self, texts: list[str]) -> None:
        for text in texts:
            if len(self.reports) == 2 * KEPT:
                del self.reports[KEPT]
                self.counts["left_out"] += 1
            self.reports.append(text)

    def merge(self, data: dict[str, Any]) -> None:
        """Add what `plain` of another tally has."""
        self.counts.update(data["counts"])
        self.notes.update(data["notes"])
        self._keep(data["reports"])

    def plain(self) -> dict[str, Any]:
        """Built-in types only, as processes can send them."""
        return {"counts": dict(self.counts), "notes": dict(self.notes), "reports": list(self.reports)}


def total(tests: dict[str, Tally]) -> Tally:
    """The sum of all tests, without texts."""
    found = Tally()
    for one in tests.values():
        found.counts.update(one.counts)
        found.notes.update(one.notes)
    return found


def _by(counts: Counter[str], kind: str) -> dict[str, int]:
    return {key.removeprefix(kind): number for key, number in sorted(counts.items()) if key.startswith(kind) and number}


def lines(tests: dict[str, Tally], selftest: str) -> list[str]:
    """The summary."""
    whole = total(tests)
    n = whole.counts
    unresolved = ", ".join(f"{reason} {number}" for reason, number in _by(n, "reason ").items())
    verdicts = [f"{n[f'verdict {word}']} {word}" for word in VERDICTS]
    failing = sum(one.counts["verdict FAIL"] > 0 for one in tests.values())
    verdicts[1] += f" in {failing} tests" if failing else ""  # hypothesis repeats what fails, hundreds of times
    verdicts[2] += f" ({unresolved}; {n['accepted']} accepted)" if unresolved else ""
    found = [f"checks     {n['reports']} in {len(tests)} tests: {', '.join(verdicts)}"]
    found += [f"entries    {n['entries']} compared, {n['kinks']} accepted at a kink, {n['exact_zeros']} exact zeros"]
    if n["controls"]:
        text = f"{n['tried']} alterations in {n['controls']} checks: {n['rejected']} rejected, {n['void']} void"
        found += [f"control    {text}, {n['missed']} NOT rejected" if n["missed"] else f"control    {text}"]
    else:
        found += ["control    none: --gradlab-selftest=never" if selftest == "never" else "control    none"]
    found += [
        f"note       {text}{f' ({times} times)' if times > 1 else ''}" for text, times in sorted(whole.notes.items())[:NOTES]
    ]
    found += [f"note       ... and {len(whole.notes) - NOTES} more"] * (len(whole.notes) > NOTES)
    return found


def write(path: Path, tests: dict[str, Tally]) -> None:
    """All reports, by test, whole or not at all. Error: GradlabError if the file cannot be written."""
    ordered = dict(sorted(tests.items()))
    reports = [{"test": test, **json.loads(text)} for test, tally in ordered.items() for text in tally.reports]
    if path.suffix == ".html":
        # The page is made in a room above this one, which a session without such a file never enters.
        importlib.import_module("gradlab.report").write_html(path, reports)
        return
    n = total(ordered).counts
    data = {
        "schema": 1,
        "gradlab": __version__,
        "summary": {
            "tests": len(ordered),
            "reports": n["reports"],
            "verdicts": {word: n[f"verdict {word}"] for word in VERDICTS},
            "unresolved": _by(n, "reason "),
            **{key: n[key] for key in ("accepted", "entries", "kinks", "exact_zeros", "left_out")},
            "control": {key: n[key] for key in ("controls", "tried", "rejected", "void", "missed")},
        },
        "reports": reports,
    }
    files = importlib.import_module("gradlab._files")  # loads NumPy
    files.write_bytes(path, files.dump_json(data))


def trouble_of_writing(path: Path, tests: dict[str, Tally]) -> str | None:
    """Write the file; in words, why it could not be written."""
    try:
        write(path, tests)
    except (GradlabError, OSError, ImportError) as error:
        return str(error)
    return None
