"""Does the diagnosis find what was planted, in the right place, and is it silent about what is healthy?

Claim: of networks and training runs with one planted pathology each, at several sizes, places, cells and scales of the loss,
`gradlab.diagnose` finds at least 95 % and places at least 90 % of them right; of healthy ones, trained and untrained, at most
5 % get a warning. What is planted is a cause (a bias, a matrix, an input, a mistake in a training loop), never the number that
a rule looks at; the place follows from the construction. A finding counts from the severity "warning" on. "Right place": layer,
direction, gate and parameter equal, and timestep, lag or update within max(2, 5 % of T), wherever the planting fixes them.

The thresholds were set on the half "calibration" alone. The rates are those of the half "held-out", with other seeds, other
sizes, and cells that the first half has not (LSTMs with peepholes or coupled gates, GRUs with the reset before, SCRN and
Clockwork), all with Wilson's intervals. A case with a loss has it multiplied by 1e-6, 1 or 1e6, and is diagnosed again at both
ends, with learning rates divided and clipping thresholds multiplied by the same factor: the findings must be the same.

The claim is contradicted, on the held-out half, by a sensitivity below 95 %, false alarms above 5 %, places right below 90 %, or
a finding that changes with the scale of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from analyses._diagnosis_cases import CASES
from analyses._diagnosis_given import HALVES, HEALTHY, Case
from analyses._diagnosis_remedies import REMEDIES, carried_out
from analyses._diagnosis_scores import same, score, wilson
from analyses._diagnosis_statistics import STATISTICS, measured
from gradlab.diagnosis.diagnosis import Diagnosis
from gradlab.runs import GroundTruth, Verdict

Array = npt.NDArray[Any]

CLAIM = (
    "The diagnosis finds 95 % of planted pathologies, 90 % of them in the right place, and alarms on at most 5 % of healthy nets"
)
SOURCE = "this project"
CONTRADICTED_IF = (
    "on the held-out half sensitivity < 95 %, places right < 90 %, false alarms on healthy nets > 5 %, or a finding that changes "
    "with the scale of the loss"
)
NEEDS: tuple[str, ...] = ()
ALONE = False
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {"every": 1, "scales": [1e-6, 1e6], "halves": list(HALVES), "remedies": len(REMEDIES)},
    "quick": {"every": 12, "scales": [1e6], "halves": list(HALVES), "remedies": 3},
}
SENSITIVITY, ALARMS, PLACES = 0.95, 0.05, 0.90

CODES: tuple[str, ...] = tuple(dict.fromkeys(case.planted for case in CASES if case.planted != HEALTHY))
"""What is planted, in the order of the figure."""


def chosen(scale: str) -> list[Case]:
    """The cases of a run; a quick one takes some of each half, healthy ones and others."""
    p = PARAMETERS[scale]
    kinds = [
        [case for case in CASES if case.half == half and (case.planted == HEALTHY) == well]
        for half in p["halves"]
        for well in (False, True)
    ]
    return [case for kind in kinds for case in kind[:: p["every"]]]


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    cases, seeds = chosen(scale), rng.bit_generator.seed_seq  # type: ignore[attr-defined]
    remedies = REMEDIES[: p["remedies"]]
    n, columns = len(cases), (*CODES, HEALTHY)
    found, fixed, right, unchanged = (np.zeros(n, bool) for _ in range(4))
    reported, unexplained = np.zeros((n, len(CODES)), bool), np.zeros((n, len(CODES)), bool)
    headline, other = np.zeros(n, int), np.zeros(n, int)
    numbers = np.full((n, len(STATISTICS)), np.nan)
    scaled = np.array([case.invariant for case in cases])
    for k, case in enumerate(cases):
        diagnosis = case.given(seeds).diagnose()
        seen = score(case, diagnosis)
        found[k], fixed[k], right[k] = seen.found, seen.placed is not None, bool(seen.placed)
        reported[k] = [code in seen.reported for code in CODES]
        unexplained[k] = [code in seen.unexplained for code in CODES]
        other[k] = len(seen.unexplained - set(CODES))
        headline[k] = columns.index(seen.headline) if seen.headline in columns else -1
        numbers[k] = measured(diagnosis.evidence)
        unchanged[k] = scaled[k] and _unchanged(case, diagnosis, seeds, p["scales"])
        if progress is not None:
            progress(k + 1, n + len(remedies))
    cured = np.zeros((len(remedies), 3), bool)
    for k, remedy in enumerate(remedies):
        cured[k] = carried_out(remedy, seeds)
        if progress is not None:
            progress(n + k + 1, n + len(remedies))
    names = "\n".join(f"{case.half}\t{case.planted}\t{case.family}\t{case.name}" for case in cases)
    return {
        "cases": np.frombuffer(names.encode(), np.uint8),  # half, planted code, family of the cell, name; a line a case
        "found": found,
        "place_fixed": fixed,
        "place_right": right,
        "reported": reported,  # (case, code), warnings and errors
        "unexplained": unexplained,  # (case, code), those that the planting does not bring with it
        "unexplained_other": other,  # how many of codes that nobody planted
        "headline": headline,  # the code of the first finding; len(CODES) for none, -1 for one that nobody planted
        "scaled": scaled,  # can be built at other scales of the loss
        "unchanged": unchanged,
        "statistics": numbers,  # (case, statistic), of the worst layer
        "thresholds": np.array([one.threshold for one in STATISTICS]),
        "remedies": cured,  # (remedy: found before, found after, healthy after)
    }


def _unchanged(case: Case, diagnosis: Diagnosis, seeds: Any, scales: list[float]) -> bool:
    """Whether the findings are the same at every scale of the loss."""
    others = [one for one in scales if one != case.scale]
    return all(same(diagnosis, case.given(seeds, other).diagnose()) for other in others)


# ---- reading a result ----------------------------------------------------------------------------------------------------


def table(result: Mapping[str, Array]) -> dict[str, Array]:
    """Half, planted code, family and name of each case, as arrays of strings."""
    lines = [line.split("\t") for line in bytes(result["cases"]).decode().split("\n")]
    return dict(zip(("half", "planted", "family", "name"), np.array(lines).T, strict=True))


def rates(result: Mapping[str, Array], half: str, code: str | None = None) -> dict[str, tuple[int, int]]:
    """(hits, trials) of one half, of one planted code or of all."""
    cases = table(result)
    own = cases["half"] == half
    well, planted = own & (cases["planted"] == HEALTHY), own & (cases["planted"] != HEALTHY)
    if code is not None:
        planted &= cases["planted"] == code
    index = np.array([CODES.index(one) if one in CODES else -2 for one in cases["planted"]])
    odd = result["unexplained"].any(axis=1) | (result["unexplained_other"] > 0)
    asked = planted & result["place_fixed"]
    scaled = own & result["scaled"] & (planted | (well if code is None else False))

    def count(hits: Array, trials: Array) -> tuple[int, int]:
        return int((hits & trials).sum()), int(trials.sum())

    return {
        "sensitivity": count(result["found"], planted),
        "places right": count(result["place_right"], asked),
        "headline right": count(result["headline"] == index, planted),
        "other findings unexplained": count(odd, planted),
        "false alarms on healthy": count(result["headline"] != len(CODES), well),
        "same at every loss scale": count(result["unchanged"], scaled),
    }


def check(result: Mapping[str, Array]) -> Verdict:
    judged = "held-out" if (table(result)["half"] == "held-out").any() else "calibration"
    own = rates(result, judged)
    share = {name: hits / trials if trials else float("nan") for name, (hits, trials) in own.items()}
    holds = (
        share["sensitivity"] >= SENSITIVITY
        and share["false alarms on healthy"] <= ALARMS
        and share["places right"] >= PLACES
        and share["same at every loss scale"] == 1.0
    )
    numbers: dict[str, float | int | str] = {}
    for half in HALVES:
        for name, (hits, trials) in rates(result, half).items():
            low, high = wilson(hits, trials)
            numbers[f"{half}: {name}"] = f"{hits} of {trials} = {hits / max(trials, 1):.1%} [{low:.1%}, {high:.1%}]"
    for code in CODES:
        one = rates(result, judged, code)
        (hits, trials), (placed, asked) = one["sensitivity"], one["places right"]
        numbers[f"{judged}, {code}"] = f"found {hits} of {trials}, placed {placed} of {asked}"
    cases = table(result)
    missed = (cases["half"] == judged) & (cases["planted"] != HEALTHY) & ~result["found"]
    numbers["missed"] = "; ".join(cases["name"][missed]) or "none"
    misplaced = (cases["half"] == judged) & result["place_fixed"] & result["found"] & ~result["place_right"]
    numbers["misplaced"] = "; ".join(cases["name"][misplaced]) or "none"
    alarms = (cases["half"] == judged) & (cases["planted"] == HEALTHY) & (result["headline"] != len(CODES))
    numbers["false alarms"] = "; ".join(cases["name"][alarms]) or "none"
    moved = (cases["half"] == judged) & result["scaled"] & ~result["unchanged"]
    numbers["changed by the scale of the loss"] = "; ".join(cases["name"][moved]) or "none"
    for remedy, (before, after, healthy) in zip(REMEDIES, result["remedies"], strict=False):
        told = f"{'found' if before else 'not found'} before, {'found' if after else 'gone'} after"
        numbers[f"remedy of {remedy.code}: {remedy.what}"] = told + (", healthy" if healthy else ", other findings")
    told = ", ".join(f"{name} {hits} of {trials}" for name, (hits, trials) in own.items())
    gone = int((result["remedies"][:, 0] & ~result["remedies"][:, 1]).sum())
    sentence = f"{judged} half: {told}; {gone} of {len(result['remedies'])} remedies remove their finding"
    low, high = wilson(9, 10)
    truths = (
        GroundTruth(
            "Wilson interval of 9 of 10, low", low, 0.5958499732047615, 1e-12, "Wilson (1927); R prop.test(9, 10, correct = F)"
        ),
        GroundTruth(
            "Wilson interval of 9 of 10, high", high, 0.9821237869049271, 1e-12, "Wilson (1927); R prop.test(9, 10, correct = F)"
        ),
    )
    return Verdict("confirmed" if holds else "contradicted", sentence, numbers, truths)


def draw(result: Mapping[str, Array]) -> Any:
    from analyses import _diagnosis_figure  # late: it imports matplotlib

    return _diagnosis_figure.draw(result)
