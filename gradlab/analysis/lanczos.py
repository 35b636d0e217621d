"""Symmetric operators held to their contract, and their Lanczos tridiagonalisation.

A V_m = V_m T_m + beta_m v_{m+1} e_m^T  with V_m orthonormal and T_m tridiagonal (Lanczos 1950). In floating point the
vectors lose their orthogonality, so each is orthogonalised against all before it, twice (Parlett 1998, sec. 6.9 and 13.8).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import LN2, log_norm, power_of_two
from gradlab._validate import as_numbers, require_callable, require_count
from gradlab.analysis.hessian import Hessian
from gradlab.errors import DTypeError, NumericalError, ShapeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]
Matvec = Callable[[Array], Array]

CONTRACT = 1e-6
"""How far <u, A v> and <v, A u>, or A (u + v) and A u + A v, may be apart, relative to what random vectors give."""
FAR = 950
"""Binary exponents of an operator beyond which rounding, or its trace, would leave the range of floats."""
BREAKDOWN = 1e-13
"""An off-diagonal entry of T below this share of the largest is zero: the Krylov space is exhausted."""


@dataclass(frozen=True)
class Operator:
    """A symmetric operator A of `size` rows that passed its checks; `apply(V)` is A V / 2^exponent for the rows of V (K, n).

    `exponent`: of the size of A u for a random unit vector u, so that nothing under- or overflows. None where A u = 0.
    `at_once`: how many vectors are worth sending together.
    """

    raw: Callable[[Array], Array]
    size: int
    exponent: int | None
    at_once: int

    def apply(self, V: Array) -> Array:
        return np.ldexp(self.raw(V), -(self.exponent or 0))

    @property
    def unit(self) -> float:
        """2^exponent: what an eigenvalue of `apply` is multiplied with."""
        return float(2.0 ** (self.exponent or 0))


def checked_operator(operator: Hessian | Matvec, size: int | None, rng: np.random.Generator) -> Operator:
    """`operator` once it has shown on two random vectors that it is linear, symmetric, finite and the same twice.

    Errors: DTypeError, ShapeError for what it returns; NumericalError that names both numbers for a broken contract.
    """
    if isinstance(operator, Hessian):
        if size not in (None, operator.size):
            raise ShapeError(f"size is {size}; expected that of the Hessian, {operator.size}, or None")
        n, raw, at_once = operator.size, _rows_of(operator, operator.size, True), operator.at_once
    else:
        require_callable("operator", operator, "v (n,) -> A v (n,), such as lambda v: A @ v, or a gradlab.analysis.Hessian")
        if size is None:
            raise DTypeError("size is None; expected the number of rows n, which only a gradlab.analysis.Hessian knows itself")
        n, at_once = require_count("size", size), 1
        raw = _rows_of(operator, n, False)
    u, v = rng.normal(size=(2, n))
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    first, second = raw(u[None])[0], raw(v[None])[0]
    exponent = _exponent(first, second)
    if exponent is not None and abs(exponent) > FAR:
        raise NumericalError(f"operator maps random unit vectors to norms of 10^{exponent * math.log10(2.0):.0f}; scale it")
    checked = Operator(raw, n, exponent, at_once)
    Au, Av, together = (np.ldexp(x, -(checked.exponent or 0)) for x in (first, second, raw((u + v)[None])[0]))
    allowed = CONTRACT * float(np.linalg.norm(Au) + np.linalg.norm(Av))
    left, right, gap = float(u @ Av), float(v @ Au), float(np.linalg.norm(together - Au - Av))
    symmetric, linear = abs(left - right) <= allowed / math.sqrt(n), gap <= allowed
    if symmetric and linear:
        return checked
    change = float(np.linalg.norm(checked.apply(u[None])[0] - Au))
    if change > 0.1 * allowed / math.sqrt(n):
        fault = "does not give the same twice"
    else:
        fault = "is not symmetric" if linear else "is not linear"
    a, b, c, d, e = (x * checked.unit for x in (left, right, gap, float(np.linalg.norm(Au)), change))
    raise NumericalError(
        f"operator {fault}: for random unit vectors <u, A v> = {a:.17g} and <v, A u> = {b:.17g}; |A u| = {d:.3g}, "
        f"|A(u + v) - A u - A v| = {c:.3g}, and A u once more differs by {e:.3g}; expected a symmetric linear function "
        "without randomness"
    )


def _exponent(*products: Array) -> int | None:
    """Of the power of two next to the largest norm; None if all are exactly zero."""
    largest = max(float(log_norm(x)) for x in products)
    return None if largest == -np.inf else round(largest / LN2)


def _rows_of(operator: Matvec, n: int, many: bool) -> Callable[[Array], Array]:
    """A V for the rows of V (K, n), checked; `many`: the operator takes them all at once."""

    def product(v: Array) -> Array:
        found = as_numbers("operator(v)", operator(v), allow_complex=False)
        if found.shape != v.shape:
            raise ShapeError(f"operator returned shape {found.shape} for a vector of shape {v.shape}; expected the same shape")
        if not np.isfinite(found).all():
            bad = int((~np.isfinite(found)).sum())
            raise NumericalError(f"operator returned {bad} non-finite values for a finite vector; expected finite numbers")
        return found

    def rows(V: Array) -> Array:
        if many:
            return product(V)
        out = np.empty((len(V), n))
        for k, v in enumerate(V):
            out[k] = product(v)
        return out

    return rows


def rademacher(rng: np.random.Generator, count: int, n: int) -> Array:
    """`count` vectors of n random signs, (count, n)."""
    return 2.0 * rng.integers(0, 2, (count, n)) - 1.0


def standard_error(samples: Array) -> Array:
    """Of the mean over the first axis; NaN for one sample."""
    count = len(samples)
    if count == 1:
        return np.full(samples.shape[1:], np.nan)
    mantissa, exponent = power_of_two(samples, 0)  # squares of 1e-200 are 0
    return np.asarray(np.ldexp(mantissa.std(axis=0, ddof=1), exponent) / math.sqrt(count))


def probed(probes: int) -> Status:
    """`too-short` where the spread of the probes is unknown."""
    return OK if probes > 1 else Status("too-short", "1 probe; a standard error needs at least 2")


def tridiagonal(operator: Operator, start: Array, steps: int) -> tuple[Array, Array]:
    """Diagonal alpha (K, m) and off-diagonal beta (K, m - 1) of T_m for each of K start vectors (K, n), scaled as `apply`.

    Where a Krylov space is exhausted the rest of both is zero.
    """
    K, n = start.shape
    Q = np.zeros((K, steps, n))
    alpha, beta = np.zeros((K, steps)), np.zeros((K, steps - 1))
    Q[:, 0] = start / np.linalg.norm(start, axis=-1, keepdims=True)
    for j in range(steps):
        w = operator.apply(Q[:, j])
        alpha[:, j] = np.einsum("kn,kn->k", Q[:, j], w)
        if j == steps - 1:
            break
        before = Q[:, : j + 1]
        for _ in range(2):
            w -= np.matmul(np.matmul(before, w[..., None])[..., 0][:, None], before)[:, 0]
        size = np.linalg.norm(w, axis=-1)
        largest = np.maximum(np.abs(alpha).max(axis=-1), beta.max(axis=-1))
        alive = size > BREAKDOWN * largest
        beta[alive, j] = size[alive]
        Q[alive, j + 1] = w[alive] / size[alive, None]
    return alpha, beta


def quadrature(alpha: Array, beta: Array) -> tuple[Array, Array]:
    """Gauss nodes theta_k = eig(T_m) and weights tau_k = (first component of its k-th eigenvector)^2, (K, m) each.

    sum tau_k p(theta_k) = <v_1, p(A) v_1> for every polynomial p of degree 2m - 1 at most (Golub & Welsch 1969).
    """
    m = alpha.shape[-1]
    T = np.zeros((*alpha.shape, m))
    diagonal = np.arange(m)
    T[..., diagonal, diagonal] = alpha
    T[..., diagonal[1:], diagonal[:-1]] = T[..., diagonal[:-1], diagonal[1:]] = beta
    nodes, vectors = np.linalg.eigh(T)
    return nodes, vectors[..., 0, :] ** 2
