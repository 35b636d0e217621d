"""What a replay is worth: its deviation from the framework's own numbers, and what explains one that is too large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LIMITS = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-11}
"""The largest deviation that a proved replay may have, by precision."""

EXPLAINED = 10.0
"""How many times the difference between the replays in two precisions a deviation may be: both are rounding errors, amplified
by the same steps, and of two draws the largest entries may differ by some factor."""

SATURATED = 1e-2
"""Replays in two precisions that differ by more have no digits left to say how far rounding can go: single steps decide."""


@dataclass(frozen=True)
class Proof:
    """How close a replay comes: `verdict` proved, ill-conditioned, or unproved (nothing of the backward pass to compare with).

    `deviations`: max|a-b| / max|b| of "outputs", the final states and each weight's gradient, under torch's names, summed over
    all calls of the same backward pass that use the weight. `limit`: what they may be. `unproved`: {name: why}.
    `penalties`: {name: k}: the gradient held k times the weight itself besides, as an L2 penalty in the loss gives it; the
    deviation is that of the rest.
    ill-conditioned: rounding errors grow along the sequence (or cancel in a sum) so far that two correct runs differ by as much
    as these do. `precisions`: how far the replays in float32 and float64 lie apart; `steps`: deviation of single steps, each
    from the recorded states: "0 state", "0 adjoint" against torch's own cell, "0 seen" against what the layer emitted.
    """

    verdict: str
    limit: float
    deviations: Mapping[str, float]
    unproved: Mapping[str, str] = field(default_factory=dict)
    penalties: Mapping[str, float] = field(default_factory=dict)
    precisions: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        """The largest deviation."""
        return max(self.deviations.values(), default=0.0)

    def __str__(self) -> str:
        lines = [f"{self.verdict} (largest deviation {self.worst:.1e}, limit {self.limit:.0e})"]
        for name, value in self.deviations.items():
            apart = f", float32 and float64 replays {self.precisions[name]:.1e} apart" if name in self.precisions else ""
            more = f", beside {self.penalties[name]:.3g} times the weight: an L2 penalty" if name in self.penalties else ""
            lines.append(f"  {name:<24} {value:.1e}{apart}{more}")
        lines += [f"  {name:<24} unproved: {why}" for name, why in self.unproved.items()]
        if self.steps:
            lines.append("  single steps: " + ", ".join(f"{name} {value:.1e}" for name, value in self.steps.items()))
        return "\n".join(lines)


def deviation(ours: Array, theirs: Array) -> float:
    """max|a-b| / max|b|, over all entries; 0 for two arrays of zeros, infinite where one alone is not finite."""
    with np.errstate(all="ignore"):
        size = float(np.abs(theirs).max(initial=0.0))
        gap = float(np.abs(ours - theirs).max(initial=0.0))
    if gap == 0.0:
        return 0.0
    found = gap / size if size else np.inf
    return found if np.isfinite(found) else np.inf


def penalty(ours: Array, theirs: Array, weight: Array) -> tuple[float, float]:
    """(k, deviation) of theirs = ours + k weight, with the k of least squares."""
    ours, theirs, weight = (np.asarray(value, np.float64) for value in (ours, theirs, weight))
    with np.errstate(all="ignore"):
        k = float(((theirs - ours) * weight).sum() / (weight * weight).sum())
        return k, deviation(ours + k * weight, theirs)


def explained(deviation: float, apart: Mapping[str, float], dtype: np.dtype[Any]) -> bool:
    """Whether rounding, as far as replays in two precisions show it grow, is enough for a deviation.

    The same steps amplify all arrays of a layer, but not to the same largest entry: the array that lies furthest apart counts.
    """
    seen = max(apart.values(), default=0.0)
    if seen >= SATURATED:
        return True
    if dtype == np.float64:  # the gap is float32's: the same amplification takes float64's rounding that much less far
        seen *= float(np.finfo(np.float64).eps / np.finfo(np.float32).eps)
    return deviation <= EXPLAINED * seen
