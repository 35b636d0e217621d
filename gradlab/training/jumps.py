"""Jumps of the loss: updates after which it is far above what it has just been."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_count
from gradlab.errors import ShapeError

Array = npt.NDArray[Any]


def jumps(losses: Array, window: int = 20, deviations: float = 6.0, share: float = 0.1) -> Array:
    """Which of `losses` (updates, ...) jump: booleans of the same shape.

    A loss jumps if it lies more than `deviations` robust standard deviations (1.4826 times the median absolute deviation)
    AND more than `share` of its size above the median of the `window` losses before it. A loss that is not finite, after a
    finite one, is a jump.
    The first `window` updates have nothing to be compared with and are never jumps. Error: ShapeError without an axis of updates.
    """
    window = require_count("window", window)
    losses = np.asarray(losses, float)
    if losses.ndim == 0:
        raise ShapeError("losses is a single number; expected (updates, ...)")
    found = np.zeros(losses.shape, bool)
    if len(losses) <= window:
        return found
    before = np.lib.stride_tricks.sliding_window_view(losses, window, axis=0)[:-1]  # (updates - window, ..., window)
    with np.errstate(all="ignore"):
        middle = np.median(before, axis=-1)
        spread = 1.4826 * np.median(np.abs(before - middle[..., None]), axis=-1)
        now = losses[window:]
        found[window:] = (now - middle > deviations * spread) & (now - middle > share * np.abs(middle))
        found[window:] |= ~np.isfinite(now) & np.isfinite(before[..., -1])
    return found
