"""A diagnosis: the findings, in order, and one line that says it all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradlab.diagnosis.catalogue import CATALOGUE
from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import SEVERITIES, Finding, Severity

SCHEMA = "gradlab-diagnosis-1"


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What the rules found in `subject`.

    `findings`: the gravest first. `assumptions`: what was assumed for want of data, in sentences. `silent`: {rule: why} for the
    rules that had nothing to look at. `evidence`: what they looked at. `provenance`: versions and the like.
    """

    subject: str
    findings: tuple[Finding, ...]
    assumptions: tuple[str, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """No warning and no error."""
        return all(one.severity == "info" for one in self.findings)

    @property
    def verdict(self) -> str:
        """One line: healthy, or the gravest finding with its place and number, and how many more there are."""
        if self.healthy:
            return "healthy: nothing that keeps it from training was found"
        first = self.findings[0]
        more = sum(one.severity != "info" for one in self.findings) - 1
        return f"{first.code} at {first.place}: {first.message}" + (f" (and {more} more)" if more else "")

    def worst(self) -> Severity | None:
        """The severity of the gravest finding; None without findings."""
        return self.findings[0].severity if self.findings else None

    def __getitem__(self, code: str) -> tuple[Finding, ...]:
        """The findings of one code."""
        return tuple(one for one in self.findings if one.code == code)

    def __repr__(self) -> str:
        return f"Diagnosis({self.subject}: {self.verdict})"

    def __str__(self) -> str:
        lines = [self.verdict]
        for one in self.findings:
            lines += [str(one), f"  try: {CATALOGUE[one.code].remedy}"]
        return "\n".join([*lines, *(f"assumed: {text}" for text in self.assumptions)])


def ordered(findings: list[Finding]) -> tuple[Finding, ...]:
    """The gravest first; equally grave ones in the order of the rules."""
    return tuple(sorted(findings, key=lambda one: -SEVERITIES.index(one.severity)))
