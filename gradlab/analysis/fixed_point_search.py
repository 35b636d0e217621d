"""Where a cell under a constant input stands still, or almost: fixed points, their stability, and slow points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._validate import as_numbers, require_count, require_finite, require_generator, require_positive
from gradlab.analysis._fixed_point_solver import FAR, distinct, polished_points, search
from gradlab.analysis._state_map import StateMap, state_map
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.network import Network
from gradlab.status import OK, Status

Array = npt.NDArray[Any]

STABILITY = ("stable", "marginal", "saddle", "unstable")


@dataclass(frozen=True)
class StatePoints:
    """n points of the state space of one layer, in the order of their first coordinates.

    `points` (n, S). `speed` (n,): |F(s) - s| = sqrt(2 q), in units of the state per step (per cycle for a cell with a clock).
    `residual` (n,): the same over max(1, |s|). `eigenvalues` (n, S) of the Jacobian there, largest modulus first;
    `spectral_radius` (n,). `unstable`, `marginal` (n,): how many of them lie outside the unit circle, and on it within the
    margin. `stability` (n,): "stable" if all are inside, "unstable" if all are outside, "saddle" if some are, "marginal" if
    none is outside and some are on the circle. `hits` (n,): starts that ended there.
    `index` (n,): sign of det(I - J), +1 or -1, 0 where an eigenvalue is 1 within the margin. A continuous map of a bounded
    region into itself, as a cell of bounded activations with f < 1 is, has fixed points whose indices add up to 1 (Lefschetz):
    another sum over all fixed points proves that some were missed.
    """

    points: Array
    speed: Array
    residual: Array
    eigenvalues: Array
    spectral_radius: Array
    unstable: Array
    marginal: Array
    stability: tuple[str, ...]
    hits: Array
    index: Array

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class FixedPoints:
    """What a search from `starts` starts found. It proves what is there, never that nothing else is.

    `fixed`: fixed points, F(s) = s to the tolerance. `slow`: local minima of the speed that are no fixed points, but slower
    than asked for. `nonconverged`: starts that ended at neither. `period`: steps of the map F, 1 unless the cell has a clock.
    `status`: `nonconverged` with their number if there are any.
    """

    fixed: StatePoints
    slow: StatePoints
    starts: int
    nonconverged: int
    period: int
    status: Status


def fixed_points(
    net: Network,
    params: Mapping[str, Array],
    x: Array,
    *,
    starts: Array | None = None,
    rng: np.random.Generator | None = None,
    count: int = 64,
    spread: float = 1.0,
    layer: str = "0",
    period: int | None = None,
    tol: float = 1e-12,
    slow: float = 1e-3,
    distance: float = 1e-6,
    margin: float = 1e-6,
    max_iterations: int = 200,
    max_memory: int | None = None,
) -> FixedPoints:
    """Fixed and slow points of `layer` of `net` under the constant input `x` (D,), what that layer reads.

    From every row of `starts` (N, S), or from `count` normal ones of standard deviation `spread` drawn from `rng`,
    q = |F(s) - s|^2 / 2 is minimised by damped Newton steps (Levenberg-Marquardt), all starts at once; what gets stuck tries
    undamped ones, and the map itself. States visited on a task are good starts. Far from where the cell can go, saturated
    gates hold any state: such points come out as marginal.
    `tol`: residual |F(s) - s| / max(1, |s|) of a fixed point; the points found are then polished to rounding. `slow`: the
    largest speed of a slow point. `distance`: points nearer than this, times 1 + |s|, are one. `margin`: distance of a modulus
    from 1 that counts as marginal.
    `period`: steps of the map. A Clockwork cell has one by itself, the least common multiple of its periods: what is found is
    fixed from cycle to cycle and may move within. Other cells that depend on t are refused unless it is given.

    Errors: ShapeError, DTypeError, ValueRangeError for bad input; ResourceRefused if the Jacobians at all starts do not fit.
    Source: Sussillo & Barak (2013), "Opening the black box".
    """
    for name, value in (("tol", tol), ("slow", slow), ("distance", distance), ("margin", margin)):
        require_positive(name, value)
    max_iterations = require_count("max_iterations", max_iterations)
    F = state_map(net, params, x, layer, period, ensemble=False)
    begin = chosen_starts(F, starts, rng, count, spread, max_memory)
    found = search(F, begin, tol, distance, slow, max_iterations)
    is_fixed, is_slow = found.fixed(tol, distance), found.slow(tol, slow)
    points, hits = polished_points(F, found.s, found.residual, is_fixed, distance)
    slow_points, slow_hits = distinct(found.s, found.speed, is_slow, float(np.sqrt(distance)))  # a flat minimum is not sharp
    lost = int((~is_fixed & ~is_slow).sum())
    status = OK
    if lost:
        detail = f"{lost} of {begin.shape[1]} starts ended at neither a fixed nor a slow point within {max_iterations} steps"
        status = Status("nonconverged", detail)
    return FixedPoints(
        _points(F, points[0], hits[0], margin),
        _points(F, slow_points[0], slow_hits[0], margin),
        begin.shape[1],
        lost,
        F.period,
        status,
    )


def chosen_starts(
    F: StateMap, starts: Array | None, rng: np.random.Generator | None, count: int, spread: float, max_memory: int | None
) -> Array:
    """The starts (M, N, S) for each network of `F`: the same for all."""
    S = F.state_size
    if (starts is None) == (rng is None):
        given = "neither" if rng is None else "both"
        raise ValueRangeError(f"starts and rng: {given} given; expected one of the two; try rng=numpy.random.default_rng(0)")
    if starts is not None:
        begin = as_numbers("starts", starts, allow_complex=False).astype(np.float64)
        if begin.ndim != 2 or begin.shape[-1] != S or not len(begin):
            raise ShapeError(f"starts has shape {begin.shape}; expected (N, {S}) with N >= 1: whole states")
        require_finite("starts", begin)
    else:
        count = require_count("count", count)
        begin = require_positive("spread", spread) * require_generator("rng", rng).normal(size=(count, S))
    reach = float(np.abs(begin).max())
    if reach > FAR:
        raise ValueRangeError(f"starts reach {reach:.3g}; expected states of at most {FAR:g}; scale starts or spread")
    layer = F.net.layers[0]
    blocks, columns = layer.cell.tape_shape(layer.input_size, layer.hidden_size)
    needed = 8 * F.members * len(begin) * (6 * S * S + F.period * (blocks * columns + 2 * S + layer.input_size))
    refuse_above(needed, max_memory, f"{len(begin)} starts of {F.members} network(s) of S = {S}", "take fewer starts")
    return np.repeat(begin[None], F.members, axis=0)


def eigenvalues_of(J: Array) -> Array:
    """Eigenvalues (..., S), largest modulus first; NaN where a Jacobian is not finite."""
    found = np.full(J.shape[:-1], np.nan, np.complex128)
    finite = np.isfinite(J).all(axis=(-2, -1))
    if finite.any():
        found[finite] = np.linalg.eigvals(J[finite])
    return np.take_along_axis(found, np.argsort(-np.abs(found), axis=-1, kind="stable"), axis=-1)


def stability_of(unstable: int, marginal: int, state_size: int) -> str:
    """One of `STABILITY`, from the numbers of eigenvalues outside the unit circle and on it."""
    if unstable:
        return "unstable" if unstable == state_size else "saddle"
    return "marginal" if marginal else "stable"


def _points(F: StateMap, points: Array, hits: Array, margin: float) -> StatePoints:
    order = np.lexsort(points.T[::-1]) if len(points) else np.zeros(0, int)
    points, hits = points[order], hits[order]
    S = F.state_size
    if len(points):
        after, J = (value[0] for value in F.with_jacobian(points[None]))
    else:
        after, J = points, np.empty((0, S, S))
    with np.errstate(all="ignore"):
        speed = np.linalg.norm(after - points, axis=-1)
    values = eigenvalues_of(J)
    modulus = np.abs(values)
    unstable, marginal = (modulus > 1.0 + margin).sum(axis=-1), (np.abs(modulus - 1.0) <= margin).sum(axis=-1)
    return StatePoints(
        points=points,
        speed=speed,
        residual=speed / np.maximum(1.0, np.linalg.norm(points, axis=-1)),
        eigenvalues=values,
        spectral_radius=modulus.max(axis=-1, initial=0.0),
        unstable=unstable,
        marginal=marginal,
        stability=tuple(stability_of(int(u), int(m), S) for u, m in zip(unstable, marginal, strict=True)),
        hits=hits,
        index=np.where((np.abs(values - 1.0) <= margin).any(axis=-1), 0, np.linalg.slogdet(np.eye(S) - J)[0]).astype(np.int64),
    )
