"""The largest singular values and eigenvalues of a Jacobian that is never formed: for wide networks and long windows.

Products with vectors are enough for ARPACK (Lehoucq, Sorensen & Yang 1998), which runs through scipy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import LN2, power_of_two
from gradlab._validate import require_count, require_generator, require_one_of, require_positive
from gradlab.analysis._matrices import finite_matrices
from gradlab.analysis.matrix_free import JacobianOperator
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]

FAR = 300
"""Binary exponents up to which ARPACK, which squares numbers, has room."""


@dataclass(frozen=True)
class TopSpectrum:
    """The k largest singular values or eigenvalues, descending (eigenvalues by modulus).

    `values` (k,), to be multiplied by 2^`exponent`; `log_values` (k,): ln of their moduli, with the exponent.
    `residuals` (k,): the norm of A^T u - s v, or of A v - lambda v, over the largest value. A singular value is off by no
    more than its residual, so that those near the residual times the largest mean nothing; an eigenvalue by no more than its
    residual times its condition. NaN for what ARPACK did not find. `status`: `nonconverged` if a residual is above `tolerance`.
    """

    values: Array
    log_values: Array
    residuals: Array
    exponent: int
    tolerance: float
    status: Status


def top_spectrum(
    operator: JacobianOperator | Array,
    k: int = 6,
    kind: str = "singular",
    *,
    rng: np.random.Generator,
    tolerance: float = 1e-8,
    max_iterations: int | None = None,
) -> TopSpectrum:
    """The `k` largest singular values (`kind` "singular") or eigenvalues ("eigen") of a `jacobian_operator` or a matrix (S, S).

    `rng` draws the start vector. `tolerance`: relative residual that is accepted. `max_iterations`: restarts of ARPACK.
    Errors: ValueRangeError for k above S - 2, where `jacobian_spectra` has them all; ShapeError, DTypeError for no matrix.
    """
    require_one_of("kind", kind, ("singular", "eigen"))
    tolerance = require_positive("tolerance", tolerance)
    k = require_count("k", k)
    if max_iterations is not None:
        max_iterations = require_count("max_iterations", max_iterations)
    A = operator if isinstance(operator, JacobianOperator) else _Matrix(operator)
    S = A.size
    if k > S - 2:
        raise ValueRangeError(f"k is {k}; expected at most S - 2 = {S - 2}; gradlab.analysis.jacobian_spectra has all {S}")
    start = require_generator("rng", rng).normal(size=S)
    find = _singular if kind == "singular" else _eigen
    values, rest, failure = find(A, k, start, max_iterations)
    order = np.argsort(-np.abs(values), kind="stable")
    found, residuals = np.full(k, np.nan, values.dtype), np.full(k, np.nan)
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    found[: len(order)] = values[order]
    residuals[: len(order)] = np.linalg.norm(rest, axis=0)[order] / largest
    with np.errstate(divide="ignore"):
        log_values = np.log(np.abs(found)) + A.exponent * LN2
    status = OK
    good = int((residuals <= tolerance).sum())
    if good < k:
        detail = f"{good} of {k} values have a residual below {tolerance:.3g}; allow more iterations"
        status = Status("nonconverged", f"{detail} ({failure})" if failure else detail)
    return TopSpectrum(found, log_values, residuals, A.exponent, tolerance, status)


class _Matrix:
    """A matrix with the products of a `JacobianOperator`: scaled by a power of two if its squares would leave the range."""

    def __init__(self, matrix: object) -> None:
        self.matrix, self.exponent = finite_matrices("operator", matrix, allow_complex=False), 0
        if self.matrix.ndim != 2:
            raise ShapeError(f"operator has shape {self.matrix.shape}; expected one matrix (S, S) or a jacobian_operator")
        mantissa, exponent = power_of_two(self.matrix, (-2, -1))
        if abs(exponent) > FAR:
            self.matrix, self.exponent = mantissa, int(exponent)
        self.size = len(self.matrix)

    def forward(self, v: Array) -> Array:
        return np.asarray(self.matrix @ v)

    def backward(self, u: Array) -> Array:
        return np.asarray(self.matrix.T @ u)


def _linear(operator: JacobianOperator | _Matrix) -> Any:
    from scipy.sparse.linalg import LinearOperator

    return LinearOperator(
        (operator.size, operator.size),
        matvec=lambda v: operator.forward(v.reshape(-1, 1)).ravel(),
        rmatvec=lambda u: operator.backward(u.reshape(-1, 1)).ravel(),
        matmat=operator.forward,
        rmatmat=operator.backward,
        dtype=np.float64,
    )


def _singular(operator: JacobianOperator | _Matrix, k: int, start: Array, most: int | None) -> tuple[Array, Array, str]:
    """Singular values, the residuals A^T u - s v in columns, and what ARPACK complained about."""
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, svds

    try:
        u, values, vt = svds(_linear(operator), k=k, which="LM", v0=start, maxiter=most)
        return values, operator.backward(u) - vt.T * values, ""
    except ArpackNoConvergence as error:  # what it found are eigenvectors of A^T A
        v = error.eigenvectors
        image = operator.forward(v)
        values = np.linalg.norm(image, axis=0)
        return values, operator.backward(image / np.where(values > 0.0, values, 1.0)) - v * values, "no convergence"
    except ArpackError as error:
        return _nothing(operator, k, start, str(error))


def _eigen(operator: JacobianOperator | _Matrix, k: int, start: Array, most: int | None) -> tuple[Array, Array, str]:
    """Eigenvalues, the residuals A v - lambda v in columns, and what ARPACK complained about."""
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigs

    failure = ""
    try:
        values, v = eigs(_linear(operator), k=k, which="LM", v0=start, maxiter=most)
    except ArpackNoConvergence as error:
        values, v, failure = error.eigenvalues, error.eigenvectors, "no convergence"
    except ArpackError as error:
        return _nothing(operator, k, start, str(error))
    if not v.size:
        return values, np.zeros((operator.size, 0)), failure
    return values, operator.forward(v.real.copy()) + 1j * operator.forward(v.imag.copy()) - v * values, failure


def _nothing(operator: JacobianOperator | _Matrix, k: int, start: Array, failure: str) -> tuple[Array, Array, str]:
    """ARPACK gives up on an operator that maps its start to 0: exactly zero, or it found nothing."""
    n = 0 if operator.forward(start[:, None]).any() else k
    return np.zeros(n), np.zeros((operator.size, n)), failure
