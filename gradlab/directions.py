"""Sequences in both directions and of unequal lengths.

The convention is that of packed sequences: row b has its own `lengths[b]` steps; the reverse direction starts at
each row's own end. Reversed rows stay left-aligned, so that padding is at the end in both directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def live(steps: int, lengths: Array | None) -> Array | None:
    """(T, B) booleans: the steps that exist; None if all do."""
    if lengths is None or bool((lengths == steps).all()):
        return None
    return np.asarray(np.arange(steps)[:, None] < lengths)


def flip(x: Array, lengths: Array | None) -> Array:
    """Each row's own steps in reverse order, (T, *E, B, K); padding stays where it is. Its own inverse."""
    if lengths is None:
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x[::-1], 0, -3)), -3, 0)
    steps = np.arange(x.shape[0])[:, None]
    index = np.where(steps < lengths, lengths - 1 - steps, steps)  # (T, B)
    turned = np.moveaxis(x, -2, 1)[index, np.arange(x.shape[-2])]
    return np.asarray(np.moveaxis(turned, 1, -2))


def last(x: Array, lengths: Array | None) -> Array:
    """Each row's last own step: (T, *E, B, K) -> (*E, B, K)."""
    if lengths is None:
        return np.asarray(x[-1])
    picked: Array = np.moveaxis(x, -2, 1)[lengths - 1, np.arange(x.shape[-2])]  # (B, *E, K)
    return np.asarray(np.moveaxis(picked, 0, -2))


def place_last(d: Array, out: Array, lengths: Array | None) -> None:
    """The adjoint of `last`: `d` (*E, B, K) at each row's last own step of `out` (T, *E, B, K), 0 elsewhere."""
    out[...] = 0.0
    if lengths is None:
        out[-1] = d
    else:
        np.moveaxis(out, -2, 1)[lengths - 1, np.arange(out.shape[-2])] = np.moveaxis(d, -2, 0)


def broadcast_mask(mask: Array, like: Array) -> Array:
    """(T, B) -> (T, 1, ..., B, 1), to multiply sequences (T, *E, B, K)."""
    return np.asarray(mask).reshape(mask.shape[0], *(1,) * (like.ndim - 3), mask.shape[1], 1)
