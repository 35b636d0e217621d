"""What clipping did to the gradients of a history, however the loop told the monitor about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.history import History, Series, together

Array = npt.NDArray[Any]

ROUNDING = 1e-3
"""A norm this much smaller, relatively, was cut: above the rounding of float16 sums, below any threshold that matters."""


@dataclass(frozen=True)
class Clipped:
    """Of n updates with finite gradients: `before`, `after` (n,), the joint norms, NaN if they were not recorded; `cut` (n,),
    whether anything was clipped.
    """

    updates: Array
    before: Array
    after: Array
    cut: Array

    @property
    def share(self) -> float:
        """Of updates that were clipped."""
        return float(self.cut.mean())

    @property
    def kept(self) -> float:
        """What clipping leaves of the norm where it acts, median; NaN if unknown."""
        ratio = self.after[self.cut] / self.before[self.cut]
        ratio = ratio[np.isfinite(ratio)]
        return float(np.median(ratio)) if len(ratio) else float("nan")


def clipped_of(evidence: Evidence) -> Clipped | None:
    """From "was_clipped", or norms before and after, or the norm before and the threshold; None if none of them is there."""
    history, told = evidence.history, evidence.circumstances
    if history is None:
        return None
    before, after, flag = history.global_norm("gradient"), history.global_norm("clipped"), history.numbers("was_clipped")
    known = [series for series in (before, after, flag) if series is not None]
    if before is None and flag is None:
        return None
    updates, _ = together(*known)
    norm, cut_norm, flags = (_at(series, updates) for series in (before, after, flag))
    if flag is not None:
        cut = flags > 0.5
    elif after is not None:
        cut = cut_norm < norm * (1.0 - ROUNDING)
    elif told.clip_norm is not None:
        cut, cut_norm = norm > told.clip_norm, np.minimum(norm, told.clip_norm)
    elif told.clip_value is not None and not _reached(history, told.clip_value):
        cut = np.zeros(len(updates), bool)
    else:
        return None
    finite = np.isfinite(norm) if before is not None else np.ones(len(updates), bool)
    return Clipped(updates[finite], norm[finite], cut_norm[finite], cut[finite]) if finite.any() else None


def _reached(history: History, value: float) -> bool:
    """Whether some entry may have been above `value`: no entry is larger than the norm of its parameter."""
    own = history.norms("gradient")
    series = list(own.values()) or [one for one in (history.numbers("gradient_norm"),) if one is not None]
    return any(bool((norms > value).any()) for _, norms in series)


def _at(series: Series | None, updates: Array) -> Array:
    if series is None:
        return np.full(len(updates), np.nan)
    return series[1][np.isin(series[0], updates)]
