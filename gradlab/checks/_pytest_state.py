"""What a pytest session knows of its gradient checks. Standard library and pytest only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from gradlab.checks._pytest_options import Settings
from gradlab.checks._pytest_tally import Tally


@dataclass
class State:
    """`tests`: counts by node id, of all processes; the rest belongs to the test that runs now.

    `options`: of the checks in it. `pending`: what was checked since its last report. `shown`: what has had its negative control.
    """

    settings: Settings
    worker: bool = False
    tests: dict[str, Tally] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    pending: Tally = field(default_factory=Tally)
    shown: set[str] = field(default_factory=set)
    trouble: str | None = None

    def begin(self, marked: dict[str, Any]) -> None:
        """Begin a test, or its repetition, with the options of its markers."""
        self.options, self.shown = self.settings.checks | marked, set()

    def wants_control(self, what: str) -> bool:
        """Whether the next check of `what`, a cell or function in words, shall have its negative control."""
        if self.settings.selftest == "item":
            return what not in self.shown
        return self.settings.selftest == "always"

    def checked(self, what: str, report: Any, accepted: bool) -> None:
        """Count a report.

        The control is over once at least half of its alterations could be seen: hypothesis begins with zero weights, where
        most change nothing. One that missed an alteration is never over: hypothesis runs a failing example again, which
        must fail again. All this depends on the calls within one test alone, hence not on how xdist spreads tests.
        """
        self.pending.add(report, accepted=accepted, whole=self.settings.report is not None)
        control = report.control
        if control is not None and control.passed and control.rejected >= max(1, control.void):
            self.shown.add(what)

    def attach(self, report: pytest.TestReport) -> None:
        """Let what was checked since the last report travel with this one.

        An attribute of a report goes wherever reports go: from workers to the controller, test by test, so that a worker that
        dies later takes nothing with it. `user_properties` would do the same and fill junit-xml with it.
        """
        if self.pending.counts:
            vars(report)["gradlab_checks"] = self.pending.plain()
            self.pending = Tally()

    def collect(self, report: pytest.TestReport) -> None:
        """Take up what a report carries."""
        data = vars(report).get("gradlab_checks")
        if data and not self.worker:
            self.tests.setdefault(report.nodeid, Tally()).merge(data)
