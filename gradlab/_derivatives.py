"""Exact differentiation of any function of arrays: complex step and Richardson extrapolation.

Complex step (Squire & Trapp 1998, SIAM Review 40): f'(x) = Im f(x + ih)/h has no subtraction, so h can be
1e-200 and the derivative is exact to rounding, if f is holomorphic. Richardson extrapolation of central
differences (1911) needs real evaluations only and comes with an error estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

STEP = 1e-200
"""Default complex step. Its square underflows to 0, so it cannot move an exact 0 across a kink."""
LARGE_STEP = 1e-30
"""Used where `STEP` times the derivative is no normal number; the relative error is about h^2."""
_TINY = np.finfo(float).tiny


def complex_step(f: Callable[[Array], Array], x: Array, v: Array) -> Array:
    """Directional derivative of `f` at real `x` along `v`, exact to rounding; shape of f(x).

    If a derivative times 1e-200 is zero or subnormal, the larger step 1e-30 is used for it. Where the derivative is
    exactly zero that step leaves a remainder of size h^2, which a second step tells from a derivative: it changes with h.
    """
    out = np.imag(f(x + 1j * (STEP * v)))
    lost = np.abs(out) < _TINY
    derivative: Array = out / STEP
    if lost.any():
        large, other = (np.imag(f(x + 1j * (h * v))) / h for h in (LARGE_STEP, LARGE_STEP / 8.0))
        derivative = np.where(lost & (np.abs(large - other) <= 1e-6 * np.abs(large)), large, derivative)
    return np.asarray(derivative)


def complex_step_jacobian(f: Callable[[Array], Array], x: Array) -> Array:
    """All partial derivatives of `f` at real `x`; shape f(x).shape + x.shape. One evaluation an entry."""
    columns = []
    for index in np.ndindex(x.shape):
        v = np.zeros(x.shape)
        v[index] = 1.0
        columns.append(complex_step(f, x, v))
    out = np.stack(columns, axis=-1)
    return out.reshape(out.shape[:-1] + x.shape)


def richardson(
    f: Callable[[Array], Array], x: Array, v: Array, h0: float = 1e-2, levels: int = 5, noise: Array | float = 0.0
) -> tuple[Array, Array]:
    """Directional derivative of `f` at `x` along `v` and an estimate of its error; both of shape f(x).

    Central differences at h0, h0/2, ... extrapolated to h = 0. Of the extrapolation table's diagonal, the
    entry that differs least from its predecessor is returned, entry by entry; the difference, and the
    rounding error of the differences it stands on, are the error estimate. A function whose values are float32 has its
    larger rounding error in the estimate. `noise`: what values carry beyond the rounding of their type, of the shape of f(x).
    """
    eps = float(np.finfo(float).eps)
    moved = np.broadcast_to(v, x.shape) != 0.0
    reach = float(np.max(np.abs(x / np.where(moved, v, 1.0)), initial=0.0, where=moved))  # x + h v is rounded too
    best = error = np.zeros(0)
    previous: list[Array] = []
    for level in range(levels):
        h = h0 / 2.0**level
        upper, lower = np.asarray(f(x + h * v)), np.asarray(f(x - h * v))
        if upper.dtype == np.float32:
            eps = float(np.finfo(np.float32).eps)
            upper, lower = upper.astype(float), lower.astype(float)
        row = [np.asarray((upper - lower) / (2.0 * h))]
        for k, coarse in enumerate(previous):
            row.append(row[k] + (row[k] - coarse) / (4.0 ** (k + 1) - 1.0))
        if level == 0:
            best, error = row[-1], np.full(row[-1].shape, np.inf)
        else:
            estimate = (
                np.abs(row[-1] - previous[-1])
                + eps * (np.abs(upper) + np.abs(lower) + np.abs(row[0]) * reach) / h
                + 2.0 * noise / h
            )
            better = estimate < error
            best, error = np.where(better, row[-1], best), np.where(better, estimate, error)
        previous = row
    return best, error


def richardson_jacobian(f: Callable[[Array], Array], x: Array, h0: float = 1e-2) -> tuple[Array, Array]:
    """All partial derivatives of `f` at `x` with error estimates; both of shape f(x).shape + x.shape."""
    values, errors = [], []
    for index in np.ndindex(x.shape):
        v = np.zeros(x.shape)
        v[index] = max(1.0, abs(float(x[index])))  # the step follows the size of the entry
        value, error = richardson(f, x, v, h0)
        values.append(value / v[index])
        errors.append(error / v[index])
    stacked, bounds = np.stack(values, axis=-1), np.stack(errors, axis=-1)
    shape = stacked.shape[:-1] + x.shape
    return stacked.reshape(shape), bounds.reshape(shape)
