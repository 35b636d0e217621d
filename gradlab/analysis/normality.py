"""How far a matrix is from normal: what its eigenvalues do not say about one step, or about many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import power_of_two
from gradlab._validate import require_count
from gradlab.analysis._matrices import frobenius, matrices_in_range, square_matrices, stacked
from gradlab.analysis.pseudospectra import decomposed, smallest_singular_values
from gradlab.status import OK, Status

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class NonNormality:
    """Of each matrix (...): its distance from normal matrices, 0 for all of them.

    `departure`: Henrici's, sqrt(norm_F(A)^2 - sum |lambda_i|^2), the Frobenius norm of the strict upper triangle of the Schur
    factor (Henrici 1962). `ratio`: over norm_F(A), from 0 to 1; sqrt(1/2) for large Gaussian matrices.
    `numerical_abscissa`: the largest eigenvalue of (A + A^H)/2, the growth of norm(exp(tA)) at t = 0. Entries of
    a matrix that is not finite are NaN, and `status` is `overflow`.
    """

    departure: Array
    ratio: Array
    numerical_abscissa: Array
    status: Status


def non_normality(matrices: Array) -> NonNormality:
    """Henrici departure and numerical abscissa of matrices (..., S, S), such as Jacobians or W. Error: ShapeError."""
    from scipy.linalg import schur

    matrices = square_matrices("matrices", matrices)
    flat, finite, status = stacked(matrices, "matrices")
    departure, ratio, abscissa = (np.full(len(flat), np.nan) for _ in range(3))
    scaled, exponent = power_of_two(flat[finite].astype(np.result_type(flat.dtype, np.float64)), (-2, -1))
    triangles = [np.triu(schur(one, output="complex")[0], 1) for one in scaled]  # more digits than a difference of squares
    own = np.array([np.linalg.norm(one) for one in triangles])
    whole = np.linalg.norm(scaled, axis=(-2, -1))
    symmetric = 0.5 * (scaled + np.swapaxes(scaled, -1, -2).conj())
    with np.errstate(over="ignore"):  # found below
        departure[finite] = np.ldexp(own, exponent)
        abscissa[finite] = np.ldexp(np.linalg.eigvalsh(symmetric)[:, -1], exponent)
    ratio[finite] = own / np.where(whole == 0.0, 1.0, whole)
    beyond = int((np.isinf(departure) | np.isinf(abscissa)).sum())
    if beyond and status.ok:
        detail = f"{beyond} of {len(flat)} matrices have a departure or an abscissa beyond the range of floats"
        status = Status("overflow", detail)
    shape = matrices.shape[:-2]
    return NonNormality(departure.reshape(shape), ratio.reshape(shape), abscissa.reshape(shape), status)


@dataclass(frozen=True)
class NumericalRange:
    """The field of values {x^H A x, |x| = 1}, a convex set that holds the eigenvalues.

    `boundary` (*L, angles): points on it, complex, in counter-clockwise order; `abscissa` (*L,): its largest real part.
    `radius` (*L,): its largest modulus w, which bounds powers, norm(A^t) <= 2 w^t (Berger 1965); it is the value at a point
    found, so that the true one lies from `radius` to `upper`, proved by the half-planes at the angles. `status`:
    `nonconverged` if the refinement of some radius still found larger values at its end.
    """

    boundary: Array
    abscissa: Array
    radius: Array
    upper: Array
    status: Status


def numerical_range(matrix: Array, angles: int = 64) -> NumericalRange:
    """Boundary, abscissa and radius of the numerical range of `matrix` (*L, S, S) (Johnson 1978).

    `angles`: directions in which its support is found, at least 8; the radius is refined from the best of them.
    Errors: ShapeError, ValueRangeError for no finite square matrices.
    """
    matrix = matrices_in_range("matrix", matrix)
    angles = require_count("angles", angles, 8)
    turn = np.exp(-2j * np.pi * np.arange(angles) / angles)
    support, boundary = (np.empty((*matrix.shape[:-2], angles), kind) for kind in (np.float64, np.complex128))
    for k in range(angles):  # one direction at a time: eigenvectors of all matrices
        support[..., k], boundary[..., k] = _support(matrix, turn[k])
    best = boundary[(*np.indices(matrix.shape[:-2]), np.abs(boundary).argmax(axis=-1))]
    for _ in range(100):  # the point of support in the direction of the farthest point is at least as far
        _, point = _support(matrix, np.exp(-1j * np.angle(best)))
        gain = np.abs(point) - np.abs(best)
        best = np.where(gain > 0.0, point, best)
        if not (gain > 1e-15 * np.abs(best)).any():
            break
    status = OK
    if (gain > 1e-9 * np.abs(best)).any():
        status = Status("nonconverged", f"{int((gain > 1e-9 * np.abs(best)).sum())} of {gain.size} radii still grow; see `upper`")
    upper = np.maximum(support.max(axis=-1), 0.0) / np.cos(np.pi / angles)
    return NumericalRange(boundary, support[..., 0], np.abs(best), np.maximum(upper, np.abs(best)), status)


def _support(matrix: Array, turn: Array) -> tuple[Array, Array]:
    """Largest Re(turn x^H A x) over unit vectors x, and x^H A x where it is reached; `turn` (*L,) of modulus 1."""
    turned = np.asarray(turn)[..., None, None] * matrix
    values, vectors = np.linalg.eigh(0.5 * (turned + np.swapaxes(turned, -1, -2).conj()))
    x = vectors[..., -1]
    return values[..., -1], np.einsum("...i,...ij,...j->...", x.conj(), matrix, x)


@dataclass(frozen=True)
class KreissBound:
    """A LOWER bound of the Kreiss constant sup_{|z| > 1} (|z| - 1) norm((z I - A)^-1), found by a search.

    `value` (*L,): at least 1; inf if an eigenvalue lies outside of the unit circle. `where` (*L,): the z of the largest value
    found, NaN if that is the limit 1 at infinity. The powers of A reach at least `value` and at most e S times the true
    constant (Kreiss 1962; Spijker 1991). `status`: `beyond-range` if some value is inf.
    """

    value: Array
    where: Array
    status: Status


def kreiss_bound(matrix: Array, angles: int = 64) -> KreissBound:
    """Lower bound of the Kreiss constant of `matrix` (*L, S, S): a grid over |z| > 1, then refinement of its best points.

    The grid has 24 distances from the circle, in equal ratios, at `angles` angles and at those of the largest eigenvalues; the 6
    largest local maxima are refined, to a relative 1e-9 of each. Errors: ShapeError, ValueRangeError for no finite square
    matrices.
    """
    from scipy.linalg import schur

    matrix = matrices_in_range("matrix", matrix)
    angles = require_count("angles", angles, 8)
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    value, where = np.ones(len(flat)), np.full(len(flat), np.nan, np.complex128)
    for k, one in enumerate(flat):
        triangle = schur(one, output="complex")[0]
        eigenvalues = np.diagonal(triangle)
        gap = 1.0 - float(np.abs(eigenvalues).max())
        if gap < -100.0 * len(one) * np.finfo(float).eps * max(1.0, frobenius(one)):
            value[k] = np.inf
            continue
        found, z = _search(triangle, gap, angles, not np.iscomplexobj(one))
        if found > 1.0:
            value[k], where[k] = found, z
    status, unbounded = OK, int(np.isinf(value).sum())
    if unbounded:
        detail = f"{unbounded} of {len(flat)} matrices have an eigenvalue outside of the unit circle: no bound of all powers"
        status = Status("beyond-range", detail)
    return KreissBound(value.reshape(matrix.shape[:-2]), where.reshape(matrix.shape[:-2]), status)


def _search(triangle: Array, gap: float, angles: int, real: bool) -> tuple[float, complex]:
    """The largest value found of (|z| - 1)/s_min(z I - T), and its z; rounding lowers it, never raises it."""
    norm = float(np.linalg.norm(triangle, 2))
    rounding = len(triangle) * np.finfo(float).eps * max(norm, 1.0)

    def height(u: Array, angle: Array, tolerance: float) -> Array:
        """At |z| = 1 + exp(u)."""
        z = (1.0 + np.exp(u)) * np.exp(1j * angle)
        smallest = smallest_singular_values(triangle, z.ravel(), tolerance).reshape(z.shape)
        return np.asarray(np.exp(u) / (smallest + rounding))

    u = np.linspace(np.log(0.1 * max(gap, 1e-8)), np.log(3.0 * (1.0 + norm)), 24)
    eigenvalues = np.diagonal(triangle)
    own = np.angle(eigenvalues[np.argsort(-np.abs(eigenvalues), kind="stable")][:angles])
    angle = np.unique(np.concatenate([2.0 * np.pi * np.arange(angles) / angles - np.pi, own]))
    if real:  # the same above and below the real axis
        angle = angle[angle >= 0.0]
    grid_u, grid_angle = np.meshgrid(u, angle, indexing="ij")
    grid = height(grid_u, grid_angle, 0.03)
    if grid.max() < 0.99:  # nothing above the limit 1 at infinity
        return 1.0, complex(np.nan)
    around = np.pad(grid, 1, constant_values=-np.inf)
    neighbours = [around[1 + i : 1 + i + len(u), 1 + j : 1 + j + len(angle)] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    peaks = np.flatnonzero(grid >= np.max(neighbours, axis=0))
    peaks = peaks[np.argsort(-grid.ravel()[peaks], kind="stable")][:6]
    rows, columns = np.unravel_index(peaks, grid.shape)
    at, best = np.stack([u[rows], angle[columns]]), grid[rows, columns]
    reach = np.array([u[1] - u[0], 2.0 * np.pi / angles])
    pattern = np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, 5)] * 2, indexing="ij")).reshape(2, -1)
    for _ in range(20):  # the pattern shrinks by 2 each time and follows its best point: 1e-6 of the grid, squared in height
        trial = at[:, :, None] + reach[:, None, None] * pattern[:, None, :]
        found = height(trial[0], trial[1], 1e-5)
        pick = found.argmax(axis=1)
        better = found.max(axis=1) > best
        at = np.where(better, trial[:, np.arange(len(best)), pick], at)
        best = np.maximum(best, found.max(axis=1))
        reach = reach / 2.0
    z = (1.0 + np.exp(at[0])) * np.exp(1j * at[1])
    final = np.exp(at[0]) / (decomposed(triangle, z) + rounding)
    top = int(final.argmax())
    return float(final[top]), complex(z[top])
