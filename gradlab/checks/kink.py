"""Kinks: points where a function has a derivative to the left and another to the right.

Both lie at the point itself if the jump between one-sided differences does not depend on their step. Curvature makes a
jump, too, but one that shrinks with the step; rounding one that grows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

COARSE, FINE = 1e-6, 1e-9
"""Steps of the one-sided differences. A kink counts only if it lies nearer than the finer one."""
JUMP = 1e-5
"""One-sided derivatives that differ by more than this share of S make a kink."""
STEADY = 1e-2
"""The jumps at both steps agree to this share: curvature would make them differ a thousandfold."""


def rounding(terms: float) -> float:
    """Rounding error of a one-sided difference of float64 numbers whose absolute terms add up to `terms`."""
    return 16.0 * float(np.finfo(float).eps) / FINE * terms


def between(value: Array, coarse: tuple[Array, Array], fine: tuple[Array, Array], scale: Array, noise: float) -> Array:
    """Where `value` lies between the derivatives to the left and to the right of a kink; (left, right) at both steps."""
    (left, right), (left_fine, right_fine) = coarse, fine
    with np.errstate(all="ignore"):
        slack = JUMP * np.maximum(np.maximum(np.abs(left_fine), np.abs(right_fine)), scale)
        jump, jump_fine = right - left, right_fine - left_fine
        kink = (np.abs(jump_fine) > slack + noise) & (np.abs(jump - jump_fine) <= STEADY * np.abs(jump_fine) + noise)
        low, high = np.minimum(left_fine, right_fine) - slack - noise, np.maximum(left_fine, right_fine) + slack + noise
        return np.asarray(kink & (value >= low) & (value <= high))
