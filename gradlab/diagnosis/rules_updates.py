"""Rule: updates that are too large, or too small, for what they change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gradlab.analysis.flow import median_interval
from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding, Number, Place
from gradlab.diagnosis.history import layer_of

LARGE = Threshold(
    0.1,
    "|update|/|parameter|",
    "100 times the 1e-3 of practice (Karpathy 2015, CS231n, notes 3); calibrated: figures/diagnosis_accuracy",
)
FIRST = Threshold(
    1.0,
    "|update|/|parameter|",
    "one of the first updates is larger than the parameter: its initial value is thrown away; calibrated: "
    "figures/diagnosis_accuracy (runs that learn stay below 0.8)",
)
SMALL = Threshold(
    1e-5,
    "|update|/|parameter|",
    "a hundredth of the 1e-3 of practice (Karpathy 2015, CS231n, notes 3); calibrated: figures/diagnosis_accuracy",
)
ALONE = Threshold(
    1e-6,
    "|update|/|parameter|",
    "of one matrix among others that move: recurrent weights of small states move slowly at first; calibrated: "
    "figures/diagnosis_accuracy",
)
PATH = Threshold(0.1, "of its size", "all updates together, had they one direction; a long run with small steps moves further")

EARLY = 5
"""First updates, which say nothing about the usual size: an adaptive optimiser makes its largest then."""
RECURRENT = ("U", "weight_hh", "recurrent_kernel")
"""How the names of recurrent matrices begin: these never start near zero, as input weights and read-outs may on purpose."""
FEWEST = 20
"""Later updates that the rule needs."""


@dataclass(frozen=True)
class Ratio:
    """|update|/|parameter| of one weight matrix: its `median`, with the interval of it, after the first updates; `high`, the
    ninth decile; `path`, all of them added up; `first`, the largest of the first updates, and which one that was.
    """

    parameter: str
    median: float
    interval: tuple[float, float]
    high: float
    path: float
    first: float
    update: int


def update_ratio(evidence: Evidence) -> Iterator[Finding]:
    """Updates that are too large, or too small, for the parameter that they change.

    Weight matrices only: the size of a bias says nothing about how far it may move, and what starts at zero has none. Where
    most matrices have it, the learning rate as such is wrong, and one finding at the worst of them says so.
    """
    found = ratios_of(evidence)
    moved = [one for one in found if one.high > 0.0]
    large = sorted((one for one in moved if one.median > LARGE.value), key=lambda one: -one.median)
    thrown = sorted((one for one in moved if one.first > FIRST.value and one not in large), key=lambda one: -one.first)
    small = sorted((one for one in moved if one.high < SMALL.value and one.path < PATH.value), key=lambda one: one.median)
    yield from _usual(large, len(found), LARGE, "too large")
    if not _most(large, len(found)):
        whole = _most(thrown, len(found))
        yield from _early(thrown if whole else [one for one in thrown if _recurrent(one.parameter)], len(found))
    whole = _most(small, len(found))
    yield from _usual(
        small if whole else [one for one in small if one.high < ALONE.value], len(found), SMALL if whole else ALONE, "too small"
    )
    for one in found if moved else ():
        if one.high == 0.0:
            told = "no update changes it: it is frozen, or no gradient reaches it"
            yield Finding("update-ratio", "info", _place(one), told, {"ratio": Number(0.0, SMALL.unit, threshold=SMALL.value)})


def _most(group: list[Ratio], matrices: int) -> bool:
    return len(group) > 1 and 2 * len(group) > matrices


def _usual(group: list[Ratio], matrices: int, limit: Threshold, word: str) -> Iterator[Finding]:
    """One for each matrix, the worst first; one in all if most matrices have it."""
    for one in group[:1] if _most(group, matrices) else group:
        told = f"an update changes it by {one.median:.2g} of its size (median), {word}: the usual is 0.001"
        numbers = {"ratio": Number(one.median, limit.unit, one.interval, limit.value)}
        yield Finding("update-ratio", "warning", _place(one), told + _others(group, matrices), numbers)


def _early(group: list[Ratio], matrices: int) -> Iterator[Finding]:
    """The same of updates that throw the initial value away."""
    for one in group[:1] if _most(group, matrices) else group:
        told = f"update {one.update} changes it by {one.first:.2g} times its size, too large: its initial value is lost"
        numbers = {
            "first": Number(one.first, FIRST.unit, threshold=FIRST.value),
            "ratio": Number(one.median, LARGE.unit, one.interval),
        }
        yield Finding("update-ratio", "warning", _place(one), told + _others(group, matrices), numbers)


def _others(group: list[Ratio], matrices: int) -> str:
    more = f"; so are those of {len(group) - 1} more of {matrices} matrices: it is the learning rate"
    return more if _most(group, matrices) else ""


def _place(one: Ratio) -> Place:
    return Place(layer=layer_of(one.parameter), parameter=one.parameter)


def update_ratio_statistic(evidence: Evidence) -> dict[str, float]:
    """{parameter: median |update|/|parameter|} of the weight matrices."""
    return {one.parameter: one.median for one in ratios_of(evidence)}


def first_update_statistic(evidence: Evidence) -> dict[str, float]:
    """{parameter: largest |update|/|parameter| of the first updates} of the weight matrices."""
    return {one.parameter: one.first for one in ratios_of(evidence)}


def ratios_of(evidence: Evidence) -> list[Ratio]:
    """Of each weight matrix whose history is long enough and that did not start at zero."""
    if evidence.history is None:
        return []
    found = []
    for key, (updates, ratios) in evidence.history.norms("ratio").items():
        usual = ratios[EARLY:]
        usual = usual[np.isfinite(usual)]
        if _bias(key) or not np.isfinite(ratios[0]) or len(usual) < FEWEST:
            continue
        early = np.where(np.isfinite(ratios) & (updates < updates[0] + EARLY), ratios, 0.0)
        k, span = int(early.argmax()), float(updates[-1] - updates[0] + 1)
        middle, high = float(np.median(usual)), float(np.quantile(usual, 0.9))
        path = float(usual.mean()) * span
        found.append(Ratio(key, middle, median_interval(usual, 0.95), high, path, float(early[k]), int(updates[k])))
    return found


def _bias(key: str) -> bool:
    """Whether a parameter is added, not multiplied with a vector: a bias, or a peephole."""
    letter = key.rpartition(".")[2]
    return letter.startswith(("b", "p_")) or "bias" in letter


def _recurrent(key: str) -> bool:
    return key.rpartition(".")[2].startswith(RECURRENT)
