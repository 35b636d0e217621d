"""Initialisations of a weight matrix: each returns a function (rng, (rows, columns)) -> matrix.

Gated cells apply it to each gate's block on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_number

Array = npt.NDArray[Any]
Init = Callable[[np.random.Generator, tuple[int, int]], Array]


def gaussian(gain: float = 1.0) -> Init:
    """N(0, gain^2/columns): for a square matrix the spectral radius tends to `gain`, the largest singular value
    to 2 `gain` (Girko 1984; Geman 1980). The random networks of Sompolinsky, Crisanti & Sommers (1988).
    """
    require_number("gain", gain)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return rng.normal(0.0, gain / np.sqrt(shape[1]), shape)

    return draw


def glorot(gain: float = 1.0) -> Init:
    """Uniform in +-gain sqrt(6/(rows + columns)): variance 2 gain^2/(rows + columns) (Glorot & Bengio 2010, eq. 16)."""
    require_number("gain", gain)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        bound = gain * np.sqrt(6.0 / (shape[0] + shape[1]))
        return rng.uniform(-bound, bound, shape)

    return draw


def orthogonal(gain: float = 1.0) -> Init:
    """`gain` times an orthogonal matrix, Haar distributed (Saxe, McClelland & Ganguli 2014; Mezzadri 2007):
    every singular value is `gain`. A rectangular matrix has orthonormal rows or columns, whichever are fewer.
    """
    require_number("gain", gain)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        long, short = max(shape), min(shape)
        q, r = np.linalg.qr(rng.normal(size=(long, short)))
        q = q * np.sign(np.diagonal(r))  # without it the distribution is LAPACK's, not Haar's
        return np.asarray(gain * (q if shape[0] >= shape[1] else q.T))

    return draw


def identity(factor: float = 1.0) -> Init:
    """`factor` on the diagonal, 0 elsewhere (Le, Jaitly & Hinton 2015: 1, and 0.01 for speech)."""
    require_number("factor", factor)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return factor * np.eye(*shape)

    return draw


FACTORIES = (gaussian, glorot, orthogonal, identity)
"""The functions above, which make an init and are none."""
