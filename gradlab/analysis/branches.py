"""Fixed points along a one-parameter family of networks: branches, and the folds where they meet and end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import memory_limit
from gradlab._validate import as_numbers, require_count, require_finite, require_positive
from gradlab.analysis._fixed_point_solver import minimise, polish, polished_points, search
from gradlab.analysis._state_map import StateMap, state_map
from gradlab.analysis.fixed_point_search import chosen_starts, eigenvalues_of
from gradlab.analysis.surface_directions import checked_direction
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.forward_pass import checked_params
from gradlab.network import Network, Params
from gradlab.status import OK, Status

Array = npt.NDArray[Any]

AT_ONCE = 2**24
"""Bytes of Jacobians, and what is made of them, of all starts that run together: few values at a time end together."""
CARRY = 50
SWEEPS = 4
"""How often the points of one value are carried on to its neighbours."""


@dataclass(frozen=True)
class Bifurcation:
    """Fixed points of M networks of a family, at most K each; NaN, -1 or 0 where a network has fewer.

    `values` (M,): the parameter. `counts` (M,): how many fixed points were found. `points` (M, K, S); `spectral_radius`
    (M, K) of the Jacobian there, and `unstable` (M, K): how many of its eigenvalues lie outside the unit circle.
    `branch` (M, K): points of one number belong together: Newton's method leads from each to the next and back, and as many
    directions are unstable. `branches`: how many there are.
    `changes` (n,): the indices i where counts[i] and counts[i + 1] differ: points are born or die in between.
    `residual` (M, K): |F(s) - s| / max(1, |s|). `nonconverged` (M,): starts that ended at no fixed point.
    `status`: `nonconverged` if that happened anywhere.
    """

    values: Array
    counts: Array
    points: Array
    spectral_radius: Array
    unstable: Array
    branch: Array
    branches: int
    changes: Array
    residual: Array
    nonconverged: Array
    status: Status


def along(net: Network, params: Mapping[str, Array], direction: Mapping[str, Array], values: Array) -> Params:
    """The family params + v direction, with the axis (M,) of `values` in front of what `direction` moves.

    Errors: ShapeError, DTypeError, ValueRangeError.
    """
    values = _values(values)
    theta, found = checked_params(net, params), {}
    for key, d in checked_direction("direction", net, direction).items():
        if theta[key].shape != net.shapes[key] or d.shape != net.shapes[key]:
            raise ShapeError(f'params["{key}"] or its direction has ensemble axes; expected the shape {net.shapes[key]}')
        found[key] = theta[key] + values.reshape(-1, *(1,) * d.ndim) * d
    return theta | found


def bifurcation(
    net: Network,
    params: Mapping[str, Array],
    values: Array,
    x: Array,
    *,
    starts: Array | None = None,
    rng: np.random.Generator | None = None,
    count: int = 32,
    spread: float = 1.0,
    layer: str = "0",
    period: int | None = None,
    tol: float = 1e-12,
    distance: float = 1e-6,
    margin: float = 1e-6,
    max_iterations: int = 200,
    max_memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Bifurcation:
    """Fixed points of every network of a family: `params` and the constant input `x` may carry the axis (M,) in front.

    `along(net, params, direction, values)` makes a family; `values` (M,) are its labels, ascending or descending: neighbours
    must be near each other. Starts and tolerances as for `fixed_points`; all starts of many values run at once. What was found
    at one value is then carried on to its neighbours by Newton's method, which finds what the starts missed and
    joins points to branches. `progress(done, total)` is called after each group of values.

    Errors: ShapeError, DTypeError, ValueRangeError for bad input; ResourceRefused if one value does not fit in memory.
    """
    values = _values(values)
    steps = np.diff(values)
    if len(values) < 2 or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueRangeError(f"values has {len(values)} entries; expected at least 2, all ascending or all descending")
    for name, value in (("tol", tol), ("distance", distance), ("margin", margin)):
        require_positive(name, value)
    max_iterations = require_count("max_iterations", max_iterations)
    F = state_map(net, params, x, layer, period, ensemble=True)
    if F.members != len(values):
        raise ShapeError(f"params and x are a family of {F.members}; expected {len(values)}, one network for each of `values`")
    begin = chosen_starts(F.part(slice(0, 1)), starts, rng, count, spread, max_memory)[0]
    few = max(1, min(memory_limit(max_memory), AT_ONCE) // (8 * len(begin) * 12 * F.state_size**2))
    groups, lost = [], np.zeros(len(values), np.int64)
    for first in range(0, len(values), few):
        own = F.part(slice(first, first + few))
        found = search(own, np.repeat(begin[None], own.members, axis=0), tol, distance, 0.0, max_iterations)
        lost[first : first + few] = (~found.fixed(tol, distance)).sum(axis=-1)
        groups.append(polished_points(own, found.s, found.residual, found.fixed(tol, distance), distance)[0])
        if progress is not None:
            progress(min(first + few, len(values)), len(values))
    points = _stacked(groups)
    points = _ordered(_completed(F, points, tol, distance, max_iterations))
    return _result(F, points, values, lost, len(begin), tol, distance, margin)


def _values(values: Array) -> Array:
    values = as_numbers("values", values, allow_complex=False).astype(np.float64)
    if values.ndim != 1 or not values.size:
        raise ShapeError(f"values has shape {values.shape}; expected (M,)")
    require_finite("values", values)
    return values


def _stacked(groups: list[Array]) -> Array:
    """Points (m, k, S) of several groups as one array (M, K, S), NaN where a network has fewer."""
    width = max(group.shape[1] for group in groups)
    return np.concatenate([np.pad(g, ((0, 0), (0, width - g.shape[1]), (0, 0)), constant_values=np.nan) for g in groups])


def _completed(F: StateMap, points: Array, tol: float, distance: float, max_iterations: int) -> Array:
    """The points (M, K, S) of each network, and those that its neighbours' points lead to."""
    for _ in range(SWEEPS):
        before = (~np.isnan(points[..., 0])).sum()
        empty = np.full_like(points[:1], np.nan)
        every = np.concatenate([points, np.concatenate([empty, points[:-1]]), np.concatenate([points[1:], empty])], axis=1)
        there = ~np.isnan(every[..., 0])
        if not there.any():
            break
        found = minimise(F, np.where(there[..., None], every, 0.0), tol, 0.0, max_iterations)
        points, _ = polished_points(F, found.s, found.residual, there & found.fixed(tol, distance), distance)
        if (~np.isnan(points[..., 0])).sum() == before:
            break
    return points


def _ordered(points: Array) -> Array:
    """The points of each network by their first coordinates; NaN behind."""
    for coordinate in reversed(range(points.shape[-1])):
        order = np.argsort(points[..., coordinate], axis=-1, kind="stable")
        points = np.take_along_axis(points, order[..., None], axis=1)
    return points


def _carried(F: StateMap, points: Array, tol: float) -> Array:
    """Where `points` (M, K, S) of neighbours lead; NaN stays NaN."""
    if not points.size:
        return points
    there = ~np.isnan(points[..., 0])
    found = minimise(F, np.where(there[..., None], points, 0.0), tol, 0.0, CARRY)
    return np.where(there[..., None], polish(F, found.s)[0], np.nan)


def _nearest(found: Array, points: Array, distance: float) -> Array:
    """(M, K): which of `points` (M, K, S) each of `found` (M, K, S) is; -1 for none."""
    gap = np.linalg.norm(found[:, :, None] - points[:, None], axis=-1)
    gap = np.where(np.isnan(gap), np.inf, gap)
    if not gap.shape[-1]:
        return np.empty(gap.shape[:2], np.int64)
    index = np.argmin(gap, axis=-1)
    near = np.min(gap, axis=-1) <= 10.0 * distance * (1.0 + np.linalg.norm(found, axis=-1))
    return np.where(near, index, -1)


def _result(
    F: StateMap, points: Array, values: Array, lost: Array, starts: int, tol: float, distance: float, margin: float
) -> Bifurcation:
    M, K, S = points.shape
    there = ~np.isnan(points[..., 0])
    after, J = F.with_jacobian(np.where(there[..., None], points, 0.0)) if K else (points, np.empty((M, 0, S, S)))
    modulus = np.where(there[..., None], np.abs(eigenvalues_of(J)), np.nan)
    unstable = np.where(there, (modulus > 1.0 + margin).sum(axis=-1), -1)
    speed = np.linalg.norm(after - points, axis=-1)
    forward = _nearest(_carried(F.part(slice(1, None)), points[:-1], tol), points[1:], distance)
    backward = _nearest(_carried(F.part(slice(0, -1)), points[1:], tol), points[:-1], distance)
    branch = np.where(there, 0, -1)
    branches = 0
    for i in range(M):
        for k in np.flatnonzero(there[i]):
            j = backward[i - 1, k] if i else -1
            joined = j >= 0 and forward[i - 1, j] == k and unstable[i - 1, j] == unstable[i, k]
            branch[i, k] = branch[i - 1, j] if joined else branches
            branches += not joined
    counts = there.sum(axis=-1)
    status = OK
    if lost.any():
        detail = f"{int(lost.sum())} of {M * starts} starts ended at no fixed point, at {int((lost > 0).sum())} of {M} values"
        status = Status("nonconverged", detail)
    return Bifurcation(
        values=values,
        counts=counts,
        points=points,
        spectral_radius=modulus[..., 0] if K else np.empty((M, 0)),
        unstable=unstable,
        branch=branch,
        branches=branches,
        changes=np.flatnonzero(np.diff(counts)),
        residual=speed / np.maximum(1.0, np.linalg.norm(points, axis=-1)),
        nonconverged=lost,
        status=status,
    )
