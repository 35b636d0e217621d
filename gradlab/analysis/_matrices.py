"""Square matrices as arguments: one wording for what is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab._validate import as_numbers, require_finite
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]

LEAST, MOST = 1e-280, 1e300
"""Frobenius norms between which sums of entries, and their inverses times numbers of the order of 1, stay in range."""


def square_matrices(name: str, value: object, *, allow_complex: bool = True) -> Array:
    """`value` as matrices (*L, S, S) of numbers, at least one. Errors: DTypeError, ShapeError."""
    matrices = as_numbers(name, value, allow_complex=allow_complex)
    if matrices.ndim < 2 or matrices.shape[-1] != matrices.shape[-2] or matrices.size == 0:
        raise ShapeError(f"{name} has shape {matrices.shape}; expected (..., S, S), at least one matrix with S >= 1")
    return matrices


def finite_matrices(name: str, value: object, *, allow_complex: bool = True) -> Array:
    """The same in double precision, and finite. Error: ValueRangeError as well."""
    matrices = square_matrices(name, value, allow_complex=allow_complex)
    require_finite(name, matrices)
    return matrices.astype(np.result_type(matrices.dtype, np.float64), copy=False)


def matrices_in_range(name: str, value: object) -> Array:
    """The same, each of a norm that leaves room for what is made of it, or exactly zero. Error: ValueRangeError as well."""
    matrices = finite_matrices(name, value)
    size = log_norm(matrices, (-2, -1))
    wrong = ((size < np.log(LEAST)) | (size > np.log(MOST))) & (size > -np.inf)
    if wrong.any():
        decades = size[wrong].flat[0] / np.log(10.0)
        raise ValueRangeError(
            f"{name} has a norm of 10^{decades:.1f}; expected {LEAST:g} to {MOST:g}, or 0; scale it: all that is asked for "
            "scales along"
        )
    return matrices


def stacked(matrices: Array, noun: str) -> tuple[Array, Array, Status]:
    """(flat (n, S, S), which of them are finite (n,), what to say about the others)."""
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    finite = np.asarray(np.isfinite(flat).all(axis=(-2, -1)))
    if finite.all():
        return flat, finite, OK
    detail = f"{int((~finite).sum())} of {len(flat)} {noun} are not finite, the first is {int(np.argmin(finite))}"
    return flat, finite, Status("overflow", detail)


def frobenius(matrix: Array) -> float:
    """Frobenius norm of one matrix, for entries whose squares leave the range of floats too."""
    return float(np.exp(log_norm(matrix, (-2, -1))))
