"""Spectra of single Jacobians, and how evenly they act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import LN2
from gradlab._validate import as_numbers
from gradlab.analysis._matrices import square_matrices, stacked
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class JacobianSpectra:
    """Of each Jacobian: `eigenvalues` (..., S), largest modulus first; `spectral_radius` (...);
    `singular_values` (..., S), descending.

    The spectral radius says what happens in the long run, the largest singular value what one step can do at
    most; for a non-normal matrix they differ, and neither alone carries a verdict on a finite horizon.
    Entries that belong to a non-finite Jacobian, or to one whose factorisation failed, are NaN; `status` says so.
    """

    eigenvalues: Array
    spectral_radius: Array
    singular_values: Array
    status: Status


def jacobian_spectra(jacobians: Array) -> JacobianSpectra:
    """Eigenvalues and singular values of matrices (..., S, S). Errors: DTypeError, ShapeError."""
    jacobians = square_matrices("jacobians", jacobians)
    flat, finite, status = stacked(jacobians, "Jacobians")  # LAPACK gives wrong numbers, or none, for what is not finite
    values = np.full(flat.shape[:-1], np.nan, dtype=np.complex128)
    singular = np.full(flat.shape[:-1], np.nan)
    failed = 0
    try:
        values[finite] = np.linalg.eigvals(flat[finite])
        singular[finite] = np.linalg.svd(flat[finite], compute_uv=False)
    except np.linalg.LinAlgError:
        failed = _one_by_one(flat, finite, values, singular)
    order = np.argsort(-np.abs(values), axis=-1, kind="stable")
    values = np.take_along_axis(values, order, axis=-1).reshape(jacobians.shape[:-1])
    beyond = int((np.isinf(values[..., 0].reshape(-1)) | np.isinf(singular[:, 0])).sum())
    if failed and status.ok:
        status = Status("nonconverged", f"the factorisation of {failed} of {len(flat)} Jacobians did not converge")
    elif beyond and status.ok:
        status = Status("overflow", f"{beyond} of {len(flat)} Jacobians have spectra beyond the range of floats; scale them down")
    return JacobianSpectra(values, np.abs(values[..., 0]), singular.reshape(jacobians.shape[:-1]), status)


def _one_by_one(flat: Array, finite: Array, values: Array, singular: Array) -> int:
    """Where one matrix of a stack fails LAPACK reports nothing for the others: take them apart."""
    failed = 0
    for k in np.flatnonzero(finite):
        before = failed
        try:
            values[k] = np.linalg.eigvals(flat[k])
        except np.linalg.LinAlgError:
            failed = before + 1
            values[k] = np.nan
        try:
            singular[k] = _singular_values(flat[k])
        except np.linalg.LinAlgError:
            failed = before + 1
            singular[k] = np.nan
    return failed


def _singular_values(matrix: Array) -> Array:
    """By LAPACK's gesdd, or by gesvd where that fails: slower, and it converges where the other may not."""
    try:
        return np.asarray(np.linalg.svd(matrix, compute_uv=False))
    except np.linalg.LinAlgError:
        from scipy.linalg import svd

        return np.asarray(svd(matrix, compute_uv=False, lapack_driver="gesvd"))


@dataclass(frozen=True)
class Conditioning:
    """How evenly a matrix acts in all directions, from its singular values s_1 >= ... >= s_S; each array (...).

    `effective_rank`: exp of the entropy of s_i/sum s, from 1 to S (Roy & Vetterli 2007). `stable_rank`: sum s^2/s_1^2.
    Both are 0 for a zero matrix. `log_condition`: ln s_1/s_S, inf for a singular matrix. `log_mean_square`: ln of the mean
    of s^2, the growth of the squared norm of a random vector, in nats. `isometry_spread`: the variance of s^2 over their squared
    mean, 0 for a multiple of an orthogonal matrix; with mean 1 the variance of the spectrum of J J^T that measures
    dynamical isometry (Pennington, Schoenholz & Ganguli 2017), L for a product of L large Gaussian matrices.
    `status`: `rank-deficient` where s_S is below the rounding of s_1, so that the condition is no more than a lower bound.
    """

    effective_rank: Array
    stable_rank: Array
    log_condition: Array
    log_mean_square: Array
    isometry_spread: Array
    status: Status


def conditioning(singular_values: Array, exponent: Array | int = 0) -> Conditioning:
    """Ranks, condition and isometry of matrices from their singular values (..., S), in any order.

    `exponent` (...): the matrices are those times 2^exponent, as of a `JacobianProduct`: pass the singular values of its
    mantissa and its exponent for a product end to end. Entries of matrices with values that are not finite are NaN.
    Errors: ShapeError for no values; ValueRangeError for negative ones.
    """
    values = as_numbers("singular_values", singular_values)
    if values.ndim < 1 or values.size == 0:
        raise ShapeError(f"singular_values has shape {values.shape}; expected (..., S), at least one value")
    if values.dtype.kind == "c" or (values < 0.0).any():
        raise ValueRangeError(f"singular_values has dtype {values.dtype} or entries below 0; expected real numbers >= 0")
    if not np.issubdtype(np.asarray(exponent).dtype, np.number) or np.shape(exponent) not in ((), values.shape[:-1]):
        raise ShapeError(f"exponent is {exponent!r}; expected a number, or one for each matrix, of shape {values.shape[:-1]}")
    finite = np.isfinite(values).all(axis=-1)
    largest, smallest = values.max(axis=-1), values.min(axis=-1)
    zero = largest == 0.0
    with np.errstate(all="ignore"):
        share = values / np.where(zero, 1.0, largest)[..., None]  # from here on scale-free: squares neither vanish nor overflow
        p = share / share.sum(axis=-1, keepdims=True)
        entropy = -np.where(p > 0.0, p * np.log(np.where(p > 0.0, p, 1.0)), 0.0).sum(axis=-1)
        square = share**2
        mean = square.mean(axis=-1)
        rank, stable = np.where(zero, 0.0, np.exp(entropy)), square.sum(axis=-1)
        log_condition = np.where(smallest == 0.0, np.inf, np.log(largest) - np.log(smallest))
        log_mean = np.log(mean) + 2.0 * (np.log(largest) + np.asarray(exponent) * LN2)
        spread = np.where(zero, 0.0, square.var(axis=-1) / mean**2)
        lost = finite & (smallest <= values.shape[-1] * np.finfo(values.dtype).eps * largest)
    status = OK
    if not finite.all():
        status = Status("overflow", f"{int((~finite).sum())} of {finite.size} matrices have singular values that are not finite")
    elif lost.any():
        status = Status("rank-deficient", f"{int(lost.sum())} of {lost.size} matrices are singular to working precision")
    rank, stable, log_condition, log_mean, spread = (
        np.where(finite, one, np.nan) for one in (rank, stable, log_condition, log_mean, spread)
    )
    return Conditioning(rank, stable, log_condition, log_mean, spread, status)
