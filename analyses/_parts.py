"""A claim that says several things: a word for each part, and one for the whole. Paired differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from gradlab.analysis.flow import median_interval

Array = npt.NDArray[Any]
ORDER = ("contradicted", "depends", "inconclusive", "confirmed")


@dataclass(frozen=True)
class Part:
    """One statement of a claim: what it says, the word for it, and the numbers in words."""

    says: str
    word: str
    told: str


def whole(parts: Sequence[Part]) -> str:
    """The word for all parts at once: one that fails contradicts the claim, and only if all hold it is confirmed."""
    return min((part.word for part in parts), key=ORDER.index)


def words(parts: Sequence[Part]) -> dict[str, float | int | str]:
    """The word for each part, to stand among the numbers."""
    return {f"word for: {part.says}": part.word for part in parts}


MARGIN = 0.05
"""Shares of right answers closer than this are level."""


@dataclass(frozen=True)
class Difference:
    """The median of paired differences, one a seed, with its distribution-free 95 % interval; and a sign test.

    `above`, `below`: how many pairs differ by more than the margin; `p` that both are equally likely, two-sided. The interval
    counts equal pairs as on either side, so it is wide where many are equal; the test leaves them out (Dixon & Mood 1946).
    """

    median: float
    low: float
    high: float
    above: int
    below: int

    @property
    def p(self) -> float:
        return min(1.0, 2.0 * float(bdtr(float(min(self.above, self.below)), self.above + self.below, 0.5)))

    @property
    def reading(self) -> str:
        """What it says: "level" if the interval lies within the margin, else "higher" or "lower" at 5 %, else "undecided"."""
        if self.low >= -MARGIN and self.high <= MARGIN:
            return "level"
        return "undecided" if self.p >= 0.05 else "higher" if self.above > self.below else "lower"


def difference(one: Array, other: Array) -> Difference:
    """`one` - `other`, seed by seed (seeds,); order statistics of 6 seeds or more bound the median, of fewer nothing does."""
    pairs = np.asarray(one) - np.asarray(other)
    low, high = median_interval(pairs, 0.95) if len(pairs) >= 6 else (-np.inf, np.inf)
    return Difference(float(np.median(pairs)), low, high, int((pairs > MARGIN).sum()), int((pairs < -MARGIN).sum()))
