"""Pseudospectra: where the resolvent of a matrix is large, which eigenvalues alone do not tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._validate import require_count
from gradlab.analysis._matrices import frobenius, matrices_in_range
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]

DIRECT = 12
"""Up to this size a singular value decomposition of every point is faster than inverse iteration."""
BLOCK = 16
"""Rows of a triangular solve between two matrix products."""
CACHE = 2**19
"""Bytes of right-hand sides that are solved for together."""
MOST = 40
"""Lanczos iterations before a point is decomposed instead."""


@dataclass(frozen=True)
class Pseudospectrum:
    """Smallest singular value of z I - A at z = x + i y: `smallest` (*L, len(y), len(x)).

    The eps-pseudospectrum is where it is below eps: there z is an eigenvalue of some A + E with norm(E) < eps (Trefethen & Embree
    2005, sec. 2). `eigenvalues` (*L, S), largest modulus first. `floor` (*L,): the rounding of A; values below it mean nothing
    and are set to it. `status`: `rank-deficient` if any were.
    """

    x: Array
    y: Array
    smallest: Array
    eigenvalues: Array
    floor: Array
    status: Status


def pseudospectrum(
    matrix: Array,
    extent: tuple[float, float, float, float] | None = None,
    points: int = 80,
    *,
    max_memory: int | None = None,
) -> Pseudospectrum:
    """Pseudospectrum of `matrix` (*L, S, S), real or complex, on a grid of `points` x `points`.

    `extent`: (left, right, bottom, top) of the grid in the complex plane; by default a tenth more than what holds the numerical
    ranges of all matrices. One Schur decomposition of each; then inverse Lanczos iteration with the triangular factor at all
    points at once (Lui 1997; Trefethen 1999), to a relative 1e-6 or, where it is not one of a cluster, far better.
    Errors: ShapeError, DTypeError, ValueRangeError for no finite square matrices or an empty extent; ResourceRefused.
    """
    from scipy.linalg import schur

    matrix = matrices_in_range("matrix", matrix)
    points = require_count("points", points, 2)
    if extent is not None and np.shape(extent) != (4,):
        raise ShapeError(f"extent is {extent!r}; expected (left, right, bottom, top)")
    left, right, bottom, top = _extent(matrix) if extent is None else extent
    if not (np.isfinite([left, right, bottom, top]).all() and left < right and bottom < top):
        raise ValueRangeError(f"extent is {extent}; expected (left, right, bottom, top) with left < right and bottom < top")
    x, y = np.linspace(left, right, points), np.linspace(bottom, top, points)
    lead, S = matrix.shape[:-2], matrix.shape[-1]
    members = int(np.prod(lead, dtype=np.int64))
    refuse_above(members * points**2 * 24 + 8 * CACHE, max_memory, f"{members} grids of {points} x {points} points", "use fewer")
    z = (x + 1j * y[:, None]).ravel()
    smallest, eigenvalues = np.empty((members, points**2)), np.empty((members, S), np.complex128)
    floor = np.empty(members)
    for k, one in enumerate(matrix.reshape(-1, S, S)):
        triangle = schur(one, output="complex")[0]
        floor[k] = np.finfo(np.float64).eps * frobenius(one)
        smallest[k] = np.maximum(smallest_singular_values(triangle, z), floor[k])
        values = np.diagonal(triangle)
        eigenvalues[k] = values[np.argsort(-np.abs(values), kind="stable")]
    lost = int((smallest == floor[:, None]).sum())
    status = Status("rank-deficient", f"{lost} values are at the floor of rounding") if lost else OK
    shape = (*lead, points, points)
    return Pseudospectrum(x, y, smallest.reshape(shape), eigenvalues.reshape(*lead, S), floor.reshape(lead), status)


def _extent(matrix: Array) -> tuple[float, float, float, float]:
    """A box around the numerical ranges, which hold the eigenvalues, a tenth wider."""
    adjoint = np.swapaxes(matrix, -1, -2).conj()
    real, imaginary = np.linalg.eigvalsh(0.5 * (matrix + adjoint)), np.linalg.eigvalsh(-0.5j * (matrix - adjoint))
    left, right, bottom, top = (float(v) for v in (real.min(), real.max(), imaginary.min(), imaginary.max()))
    margin = 0.1 * (max(right - left, top - bottom, 0.1 * max(map(abs, (left, right, bottom, top)))) or 1.0)
    return left - margin, right + margin, bottom - margin, top + margin


def smallest_singular_values(triangle: Array, z: Array, tolerance: float = 1e-6) -> Array:
    """Smallest singular value of z I - T for an upper triangular T (S, S) at all points z (n,): (n,).

    Its relative error is at most about `tolerance`, and of the order of its square where the next singular value is not near.
    """
    size, found = frobenius(triangle), np.abs(z)
    near = np.flatnonzero(found < size / np.finfo(np.float64).eps ** 2)  # farther out it is |z| to the last digit
    if not len(near):
        return found
    T, z = triangle / size, z[near] / size  # so that neither the inverse nor its square leaves the range of floats too early
    S, own = len(T), np.empty(len(near))
    few = max(8, CACHE // (16 * S))
    for first in range(0, len(z), few):
        at = slice(first, first + few)
        own[at] = decomposed(T, z[at]) if S <= DIRECT else _iterated(T, z[at], tolerance)
    found[near] = own * size
    return found


def decomposed(T: Array, z: Array) -> Array:
    """By a singular value decomposition at each point."""
    shifted = z[:, None, None] * np.eye(len(T)) - T
    return np.asarray(np.linalg.svd(shifted, compute_uv=False)[:, -1])


def _iterated(T: Array, z: Array, tolerance: float) -> Array:
    """By Lanczos iteration with (z I - T)^-1 (z I - T)^-H, whose largest eigenvalue is 1/s_min^2, at all points together."""
    S, found = len(T), np.zeros(len(z))
    conjugate = T.conj().T.copy()
    rng = np.random.default_rng(0)  # a start that is not orthogonal to what is looked for; the result does not depend on it
    start = rng.normal(size=(S, 1)) + 1j * rng.normal(size=(S, 1))
    active = np.arange(len(z))
    q = np.repeat(start / np.linalg.norm(start), len(z), axis=1)
    before, beta = np.zeros_like(q), np.zeros(len(z))
    alphas, betas = np.zeros((MOST, len(z))), np.zeros((MOST, len(z)))
    with np.errstate(all="ignore"):
        for m in range(MOST):
            w = _solve_upper(T, z[active], _solve_lower(conjugate, z[active], q))
            w -= beta * before
            alpha = (q.conj() * w).real.sum(axis=0)
            w -= alpha * q
            beta = np.sqrt((w.real**2 + w.imag**2).sum(axis=0))
            alphas[m, active], betas[m, active] = alpha, beta
            lost = ~(np.isfinite(alpha) & np.isfinite(beta))  # beyond the range of floats: s_min is 0 to any accuracy
            done = lost | (beta == 0.0)
            good = np.flatnonzero(~lost)
            if len(good):
                theta, residual = _largest(alphas[: m + 1, active[good]], betas[: m + 1, active[good]])
                found[active[good]] = 1.0 / np.sqrt(theta)
                done[good] |= residual <= tolerance * theta  # theta is off by at most that, or by its square over the gap
            if done.all():
                return found
            keep = ~done
            before, q, beta = q[:, keep], w[:, keep] / beta[keep], beta[keep]
            active = active[keep]
    found[active] = decomposed(T, z[active])
    return found


def _largest(alphas: Array, betas: Array) -> tuple[Array, Array]:
    """Largest eigenvalue of each tridiagonal matrix of m steps, and the residual of its Ritz vector."""
    m, n = alphas.shape
    tridiagonal = np.zeros((n, m, m))
    index = np.arange(m)
    tridiagonal[:, index, index] = alphas.T
    tridiagonal[:, index[1:], index[:-1]] = betas[:-1].T  # eigh reads the lower triangle
    values, vectors = np.linalg.eigh(tridiagonal)
    return values[:, -1], betas[-1] * np.abs(vectors[:, -1, -1])


def _solve_upper(T: Array, z: Array, x: Array) -> Array:
    """(z I - T)^-1 x by back substitution, (S, n) for each point its own column."""
    y, S = x.copy(), len(T)
    for stop in range(S, 0, -BLOCK):
        first = max(stop - BLOCK, 0)
        if stop < S:
            y[first:stop] += T[first:stop, stop:] @ y[stop:]
        for i in range(stop - 1, first - 1, -1):
            if i + 1 < stop:
                y[i] += T[i, i + 1 : stop] @ y[i + 1 : stop]
            y[i] /= _pivot(z - T[i, i])
    return y


def _solve_lower(conjugate: Array, z: Array, x: Array) -> Array:
    """(z I - T)^-H x by forward substitution; `conjugate` is T^H."""
    y, S, zc = x.copy(), len(conjugate), z.conj()
    for first in range(0, S, BLOCK):
        stop = min(first + BLOCK, S)
        if first:
            y[first:stop] += conjugate[first:stop, :first] @ y[:first]
        for i in range(first, stop):
            if i > first:
                y[i] += conjugate[i, first:i] @ y[first:i]
            y[i] /= _pivot(zc - conjugate[i, i])
    return y


def _pivot(difference: Array) -> Array:
    """A point on an eigenvalue is moved off it by the rounding of a matrix of norm 1."""
    eps = np.finfo(np.float64).eps
    return np.where(np.abs(difference) < eps, eps, difference)
