"""How many digits a function of one real variable carries, whatever the type of its values says.

Difference tables (Hamming 1971, chapter 6; More & Wild 2011, SIAM J. Sci. Comput. 33): high differences of a smooth function
at narrow steps are nothing but the rounding of its values.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SPACING = 1e-7
"""Wide enough to cross the grid of float32, narrow enough for a function that oscillates a hundred thousand times in one unit."""
ORDER = 6
TOLERATED = 1e3
"""Roundings of a double that values may carry: sums of some hundred terms."""


def hidden_noise(f: Callable[[Any], Array]) -> Array:
    """Standard deviation of the noise of f near 0, entry by entry; 0 where it is what float64 explains."""
    with np.errstate(all="ignore"):
        values = np.stack([np.asarray(f(np.asarray(k * SPACING)), float) for k in range(-ORDER, ORDER + 1)])
        differences = np.diff(values, ORDER, axis=0)
        level = np.sqrt((differences**2).mean(axis=0) / comb(2 * ORDER, ORDER))
        ordinary = TOLERATED * np.finfo(float).eps * np.abs(values).max(axis=0)
        return np.where(level > ordinary, level, 0.0)
