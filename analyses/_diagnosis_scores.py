"""What a diagnosis got right of a planted case, and how sure a share of so few cases is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analyses._diagnosis_given import HEALTHY, Case
from gradlab.diagnosis.diagnosis import Diagnosis
from gradlab.diagnosis.finding import Finding

COUNTED = ("timestep", "lag", "update")
"""Fields of a place that may be off by `tolerance`; all others must be equal."""


@dataclass(frozen=True)
class Score:
    """`found`: the planted code, as a warning or an error. `placed`: its first finding stands where the planting was; None where
    the planting fixes no place. `headline`: the code of the first finding, HEALTHY if none is a warning. `reported`: codes of
    all warnings and errors. `unexplained`: those of them that the planting does not bring with it.
    """

    found: bool
    placed: bool | None
    headline: str
    reported: frozenset[str]
    unexplained: frozenset[str]


def score(case: Case, diagnosis: Diagnosis) -> Score:
    """Only warnings and errors count: an info keeps nobody from training."""
    grave = [one for one in diagnosis.findings if one.severity != "info"]
    codes = frozenset(one.code for one in grave)
    own = [one for one in grave if one.code == case.planted]
    placed = bool(own) and right_place(own[0], case.place, case.steps) if case.place else None
    headline = grave[0].code if grave else HEALTHY
    return Score(bool(own), placed, headline, codes, codes - case.also - {case.planted})


def tolerance(steps: int) -> float:
    """How far a timestep, a lag or an update may lie off, of so many."""
    return max(2.0, 0.05 * steps)


def right_place(finding: Finding, place: Mapping[str, Any], steps: int) -> bool:
    """Whether a finding stands at `place`, in all fields that it names."""
    for name, expected in place.items():
        value = getattr(finding.place, name)
        if name in COUNTED:
            if value is None or abs(value - expected) > tolerance(steps):
                return False
        elif value != expected:
            return False
    return True


def same(one: Diagnosis, other: Diagnosis) -> bool:
    """The same findings: codes, severities and places, in the same order."""
    return [(f.code, f.severity, f.place) for f in one.findings] == [(f.code, f.severity, f.place) for f in other.findings]


def wilson(hits: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The interval of Wilson (1927) for the probability behind `hits` of `trials`; z: of the normal distribution, for 95 %.

    All values p with |hits/n - p| <= z sqrt(p (1 - p)/n).
    """
    if not trials:
        return 0.0, 1.0
    share, weight = hits / trials, z * z / trials
    middle = (share + 0.5 * weight) / (1.0 + weight)
    half = math.sqrt(share * (1.0 - share) * weight + 0.25 * weight * weight) / (1.0 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)
