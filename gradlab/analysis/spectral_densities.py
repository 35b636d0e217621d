"""The density of the eigenvalues of a Hessian, without the eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._validate import as_numbers, require_count, require_finite, require_generator, require_positive
from gradlab.analysis.hessian import Hessian
from gradlab.analysis.lanczos import Matvec, checked_operator, probed, quadrature, rademacher, standard_error, tridiagonal
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.status import Status

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

KRYLOV = 2**28
"""Bytes of Lanczos vectors of all probes that run together."""


@dataclass(frozen=True)
class SpectralDensity:
    """The density of the eigenvalues, whose integral is 1.

    `nodes`, `weights` (K, m): the quadrature of each of K probes; weights are >= 0 and sum to 1.
    `density` (N,) on `grid` (N,): the mean over the probes of sum_k weight_k N(grid; node_k, `width`^2), per unit of
    curvature; `standard_error` (N,) over the probes. `size`: number of eigenvalues n. `status`: `too-short` for one
    probe, whose error is unknown (NaN); `coarse` if points of the grid are more than two widths apart.
    """

    nodes: Array
    weights: Array
    grid: Array
    density: Array
    standard_error: Array
    width: float
    size: int
    status: Status

    def moment(self, degree: int) -> tuple[float, float]:
        """Estimate of (1/n) trace(A^degree) and its standard error.

        For each probe it is <z, A^degree z>/n exactly for degrees up to 2m - 1. Error: ValueRangeError above.
        """
        most = 2 * self.nodes.shape[1] - 1
        degree = require_count("degree", degree, 0)
        if degree > most and self.nodes.shape[1] < self.size:
            raise ValueRangeError(f"degree is {degree}; expected at most {most}, twice the Lanczos steps less one")
        each = (self.weights * self.nodes**degree).sum(axis=-1)
        return float(each.mean()), float(standard_error(each))


def spectral_density(
    operator: Hessian | Matvec,
    *,
    rng: np.random.Generator,
    probes: int = 8,
    steps: int = 64,
    size: int | None = None,
    width: float | None = None,
    grid: Array | None = None,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> SpectralDensity:
    """Density of the spectrum by stochastic Lanczos quadrature, with full re-orthogonalisation.

    `steps` of Lanczos from each of `probes` vectors of random signs; n steps at most. `width`: standard deviation of the
    Gaussians, by default 1 % of the range of the nodes. `grid`: where the density is wanted, by default 1001 points over
    the whole spectrum. `max_memory`: bytes that the Lanczos vectors may take. `progress(done, total)` counts probes.

    Errors as for `extreme_eigenvalues`, and ResourceRefused. Source: Ubaru, Chen & Saad (2017), SIAM J. Matrix Anal. 38;
    for Hessians Ghorbani, Krishnan & Xiao (2019).
    """
    rng = require_generator("rng", rng)
    probes, steps = require_count("probes", probes), require_count("steps", steps)
    if width is not None:
        width = require_positive("width", width)
    if grid is not None:
        grid = as_numbers("grid", grid, allow_complex=False)
        require_finite("grid", grid)
        if grid.ndim != 1 or not grid.size:
            raise ShapeError(f"grid has shape {grid.shape}; expected (N,) with N >= 1")
    checked = checked_operator(operator, size, rng)
    n, m = checked.size, min(steps, checked.size)
    refuse_above(
        8 * n * m, max_memory, f"{m} Lanczos vectors of size n = {n}", "take fewer steps, or restrict the Hessian by keys"
    )
    few = max(1, min(checked.at_once, KRYLOV // (8 * n * m)))
    nodes, weights = np.empty((2, probes, m))
    for first in range(0, probes, few):
        Z = rademacher(rng, min(few, probes - first), n)
        own = slice(first, first + len(Z))
        nodes[own], weights[own] = quadrature(*tridiagonal(checked, Z, m))
        if progress is not None:
            progress(first + len(Z), probes)
    nodes *= checked.unit
    low, high = float(nodes.min()), float(nodes.max())
    if width is None:
        width = 0.01 * (high - low) or 0.01 * abs(high) or 1.0
    if grid is None:
        grid = np.linspace(low - 5.0 * width, high + 5.0 * width, 1001)
    each, status = np.empty((probes, len(grid))), probed(probes)
    with np.errstate(over="ignore"):  # far from a narrow peak the density is 0
        for k in range(probes):
            bells = np.exp(-0.5 * ((grid - nodes[k][:, None]) / width) ** 2)  # (m, N)
            each[k] = weights[k] @ bells / (width * math.sqrt(2.0 * math.pi))
    spacing = float(np.abs(np.diff(grid)).max(initial=0.0))
    if spacing > 2.0 * width:
        detail = f"the grid's points are up to {spacing:.3g} apart, peaks of the width {width:.3g} may stand between them"
        status = Status("coarse", detail)
    return SpectralDensity(nodes, weights, grid, each.mean(axis=0), standard_error(each), width, n, status)
