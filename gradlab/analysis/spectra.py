"""Spectra of single Jacobians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_array
from gradlab.errors import ShapeError
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
    """Eigenvalues and singular values of matrices (..., S, S)."""
    jacobians = require_array("jacobians", jacobians)
    if jacobians.ndim < 2 or jacobians.shape[-1] != jacobians.shape[-2] or jacobians.size == 0:
        raise ShapeError(f"jacobians has shape {jacobians.shape}; expected (..., S, S), at least one")
    flat = jacobians.reshape(-1, *jacobians.shape[-2:])
    finite = np.asarray(np.isfinite(flat).all(axis=(-2, -1)))  # LAPACK gives wrong numbers, or none, for what is not finite
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
    status = OK
    if not finite.all():
        status = Status(
            "overflow", f"{int((~finite).sum())} of {len(flat)} Jacobians are not finite, the first is {int(np.argmin(finite))}"
        )
    elif failed:
        status = Status("nonconverged", f"the factorisation of {failed} of {len(flat)} Jacobians did not converge")
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
