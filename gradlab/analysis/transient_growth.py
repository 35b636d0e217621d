"""How far powers of a matrix, or products of Jacobians, grow before they decay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import LN2
from gradlab._validate import as_numbers, require_count
from gradlab.analysis._matrices import finite_matrices
from gradlab.analysis.products import RunningProduct
from gradlab.errors import ShapeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]

CHUNK = 2**23
"""Bytes of products whose norms are computed together."""


@dataclass(frozen=True)
class TransientGrowth:
    """The growth of the worst perturbation: `log_norm` (steps+1, *L), ln of the 2-norm of A^t, or of J_t ... J_1, in nats.

    Row 0 is 0. `log_peak`, `peak_step` (*L,): the largest one and its first step. `below_one` (*L,): from this step on, up to the
    last one, the norm is below 1; inf if it is not below at the last. A spectral radius below 1 says that such a step
    exists, not when. `status`: `beyond-range` if some product is still at its peak at the last step; `overflow`.
    """

    log_norm: Array
    log_peak: Array
    peak_step: Array
    below_one: Array
    status: Status


def power_growth(matrix: Array, steps: int) -> TransientGrowth:
    """Transient growth of A^t, t = 0 .. `steps`, for `matrix` (*L, S, S), rescaled by an exact power of two at each step.

    Errors: ShapeError, ValueRangeError for no finite square matrices or no steps.
    """
    matrix = finite_matrices("matrix", matrix)
    return product_growth(matrix for _ in range(require_count("steps", steps)))


def product_growth(jacobians: Iterable[Array]) -> TransientGrowth:
    """Transient growth of J_t ... J_1 for `jacobians` in the order of time, (*L, S, S) each, read once.

    Errors: ShapeError for no factors or unequal shapes.
    """
    norms = np.concatenate(list(_log_norms(jacobians)))
    if len(norms) < 2:
        raise ShapeError("jacobians is empty; expected at least one matrix (S, S)")
    last = len(norms) - 1
    peak = norms.argmax(axis=0)
    above = ~(norms < 0.0)
    below = np.where(above[-1], np.inf, last + 1.0 - above[::-1].argmax(axis=0))
    status = OK
    if np.isnan(norms).any():
        first = int(np.flatnonzero(np.isnan(norms).reshape(len(norms), -1).any(axis=1))[0])
        status = Status("overflow", f"the product is not finite from step {first} on")
    elif (peak == last).any():
        status = Status(
            "beyond-range", f"{int((peak == last).sum())} of {peak.size} products are at their largest at the last step"
        )
    return TransientGrowth(norms, norms.max(axis=0), peak, below, status)


def _log_norms(jacobians: Iterable[Array]) -> Iterator[Array]:
    """Logarithm of the largest singular value after 0, 1, ... factors, a chunk of steps at a time."""
    product = RunningProduct()
    waiting: list[tuple[Array, Array]] = []
    for J in jacobians:
        mantissa = product.multiply(as_numbers(f"jacobians[{product.steps}]", J))
        if product.steps == 1:
            yield np.zeros((1, *mantissa.shape[:-2]))
        waiting.append((mantissa, product.exponent))
        if len(waiting) * mantissa.nbytes >= CHUNK:
            yield _largest(waiting)
            waiting = []
    yield _largest(waiting) if waiting else np.zeros((0, *product.exponent.shape))


def _largest(products: list[tuple[Array, Array]]) -> Array:
    mantissas = np.stack([mantissa for mantissa, _ in products])
    found = np.full(mantissas.shape[:-2], np.nan)
    finite = np.asarray(np.isfinite(mantissas).all(axis=(-2, -1)))
    with np.errstate(divide="ignore"):
        found[finite] = np.log(np.linalg.norm(mantissas[finite], 2, axis=(-2, -1)))
    return np.asarray(found + np.stack([exponent for _, exponent in products]) * LN2)
