"""Eigenvalues at one end of the spectrum of a symmetric operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab.analysis.lanczos import Operator, quadrature, tridiagonal

Array = npt.NDArray[Any]

SMALL = 32
"""Up to this size an operator is made a matrix."""
LOOSE = 100.0
"""A residual this many times above the tolerance is reported as not converged."""
ROUNDING = 8.0 * float(np.finfo(float).eps)
"""Of the modulus of the spectrum: values below that are noise."""


@dataclass(frozen=True)
class Eigenpairs:
    """`values` (k,), outermost first; `vectors` (k, n), one a row, of norm 1; `residuals` (k,): |A v - value v|, and
    not less than what rounding does to values of the size of the largest one.

    An eigenvalue of A lies within the residual of each value. NaN for pairs that were not found.
    """

    values: Array
    vectors: Array
    residuals: Array


NO_PAIRS = Eigenpairs(np.empty(0), np.empty((0, 0)), np.empty(0))


def end_of_spectrum(
    operator: Operator, k: int, sign: float, rng: np.random.Generator, tol: float, restarts: int
) -> tuple[Eigenpairs, str]:
    """The k largest (`sign` 1) or smallest (-1) eigenpairs, and what went wrong, if anything did."""
    n = operator.size
    if n <= SMALL or 2 * k + 1 >= n:
        refuse_above(32 * n * n, None, f"{k} eigenvalues of an operator of size {n}", "ask for fewer, then no matrix is needed")
        A = operator.apply(np.eye(n))
        values, columns = np.linalg.eigh(0.5 * (A + A.T))
        order = np.argsort(-sign * values, kind="stable")[:k]
        values, vectors, radius = values[order], columns.T[order], float(np.abs(values).max())
        fault = ""
    else:
        values, vectors, radius, fault = _by_arpack(operator, k, sign, rng, tol, restarts)
    residuals = np.linalg.norm(operator.apply(vectors) - values[:, None] * vectors, axis=-1)
    residuals = np.maximum(residuals, ROUNDING * radius)
    missing = k - len(values)
    if not fault and (residuals > LOOSE * tol * radius).any():
        fault = (
            f"the largest residual is {residuals.max() * operator.unit:.2g}, above {LOOSE * tol:.2g} of the spectrum's modulus"
        )
    values = np.concatenate([values, np.full(missing, np.nan)])
    vectors = np.concatenate([vectors, np.full((missing, n), np.nan)])
    residuals = np.concatenate([residuals, np.full(missing, np.nan)])
    return Eigenpairs(values * operator.unit, vectors, residuals * operator.unit), fault


def _by_arpack(
    operator: Operator, k: int, sign: float, rng: np.random.Generator, tol: float, restarts: int
) -> tuple[Array, Array, float, str]:
    """The pairs that converged, outermost first, the modulus of the spectrum, and what did not.

    ARPACK's tolerance is relative to each eigenvalue, which one next to 0 never meets: the operator is shifted away from 0.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    n = operator.size
    start = rng.normal(size=n)
    radius = float(np.abs(quadrature(*tridiagonal(operator, start[None], min(n, 12)))[0]).max())
    if radius == 0.0:
        return np.zeros(k), np.linalg.qr(rng.normal(size=(n, k)))[0].T, 0.0, ""
    shift = 2.0 * sign * radius
    shifted = LinearOperator((n, n), lambda v: operator.apply(v.reshape(1, n))[0] + shift * v.ravel(), dtype=np.float64)
    fault = ""
    try:
        found, columns = eigsh(
            shifted,
            k,
            which="LA" if sign > 0 else "SA",
            v0=start,
            ncv=min(n, max(2 * k + 1, 32)),
            maxiter=restarts,
            tol=tol,
        )
    except ArpackNoConvergence as error:
        found, columns = error.eigenvalues, error.eigenvectors
        fault = f"{len(found)} of {k} eigenvalues converged in {restarts} restarts"
    values = np.asarray(found) - shift
    order = np.argsort(-sign * values, kind="stable")
    return values[order], np.asarray(columns).T[order], radius, fault
