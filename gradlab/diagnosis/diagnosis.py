"""A diagnosis: the findings, in order, and one line that says it all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradlab.diagnosis.catalogue import CATALOGUE
from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import SEVERITIES, Finding, Severity
from gradlab.diagnosis.maps import LayerFlow, layer_flows

SCHEMA = "gradlab-diagnosis-1"
"""Of the JSON. Fields may be added under the same name; one that changes or goes away makes it -2."""


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

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values, of the schema SCHEMA: gradlab/report/schemas/gradlab-diagnosis-1.schema.json describes it.

        Numbers that are not finite are None, and a list beside them says which: "non_finite" of a finding names its numbers, of
        a layer's gradient "zero" and "non_finite" hold the steps. Equal diagnoses give equal values.
        """
        return {
            "schema": SCHEMA,
            "subject": self.subject,
            "verdict": self.verdict,
            "healthy": self.healthy,
            "worst": self.worst(),
            "findings": [finding_json(one) for one in self.findings],
            "assumptions": list(self.assumptions),
            "not_judged": dict(self.silent),
            "layers": [_layer(flow) for flow in layer_flows(self.evidence)],
            "seed": self.evidence.seed,
            "provenance": dict(self.provenance),
        }

    def __repr__(self) -> str:
        return f"Diagnosis({self.subject}: {self.verdict})"

    def __str__(self) -> str:
        lines, told = [self.verdict], set[str]()
        for one in self.findings:
            lines.append(str(one))
            if one.code in CATALOGUE and one.code not in told:
                lines.append(f"  try: {CATALOGUE[one.code].remedy}")
            told.add(one.code)
        return "\n".join([*lines, *(f"assumed: {text}" for text in self.assumptions)])


def finding_json(one: Finding) -> dict[str, Any]:
    """A finding and what the catalogue says about it, as the schema has it."""
    entry = CATALOGUE.get(one.code)
    advice = {} if entry is None else {"title": entry.title, "remedy": entry.remedy, "reference": entry.reference}
    numbers: dict[str, Any] = {}
    bad: list[str] = []
    for name, number in one.numbers.items():
        ends = number.interval or ()
        kept = [None if value is None else _plain(value) for value in (number.value, number.threshold, *ends)]
        bad += [name] * any(
            was is not None and now is None for was, now in zip((number.value, number.threshold, *ends), kept, strict=True)
        )
        numbers[name] = {"value": kept[0], "unit": number.unit, "interval": kept[2:] or None, "threshold": kept[1]}
    return {**one.as_json(), **advice, "numbers": numbers, "decided_by": next(iter(numbers), None), "non_finite": bad}


def _layer(flow: LayerFlow) -> dict[str, Any]:
    """The gradient of one layer, step by step."""
    gone = np.isneginf(flow.median)
    return {
        "name": flow.name,
        "direction": flow.direction or "forward",
        "unit": "nats",
        "log_gradient": [_plain(value) for value in flow.median],
        "zero": np.flatnonzero(gone).tolist(),
        "non_finite": np.flatnonzero(flow.bad).tolist(),
    }


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def ordered(findings: list[Finding]) -> tuple[Finding, ...]:
    """The gravest first; equally grave ones in the order of the rules."""
    return tuple(sorted(findings, key=lambda one: -SEVERITIES.index(one.severity)))
