"""Where fixed points are born in pairs, to rounding: an eigenvalue of the Jacobian is exactly 1 there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab.analysis._state_map import StateMap, state_map
from gradlab.analysis.branches import Bifurcation, along
from gradlab.errors import ShapeError
from gradlab.network import Network
from gradlab.status import OK, Status

Array = npt.NDArray[Any]

STEP = 1e-30
MOST = 60


@dataclass(frozen=True)
class FoldPoints:
    """n places where fixed points meet and end, in the order of `values` (n,).

    `points` (n, S): the fixed point there; `null_vectors` (n, S): the direction in which two of them meet, of norm 1.
    `residual` (n,): what is left of the equations below. `status`: `nonconverged` if no fold was found at some change of the
    number of fixed points.
    """

    values: Array
    points: Array
    null_vectors: Array
    residual: Array
    status: Status


def fold_points(
    net: Network,
    params: Mapping[str, Array],
    direction: Mapping[str, Array],
    x: Array,
    diagram: Bifurcation,
    *,
    layer: str = "0",
    period: int | None = None,
    tol: float = 1e-12,
    max_memory: int | None = None,
) -> FoldPoints:
    """The folds of the family params + v direction, from its `diagram`: `bifurcation` of `along(net, params, direction, values)`.

    Solves F(s) = s, J p = p, p.p = 1 for (s, p, v) by Newton's method, whose derivatives are complex steps, from every
    branch that ends where the number of fixed points changes (Moore & Spence 1980). At a fold this system is regular;
    where branches cross (a pitchfork) it is not, and the result has half the digits. A cell with kinks has none.

    Errors: those of `bifurcation`; ShapeError for ensemble axes, or if `diagram` belongs to another state; ResourceRefused.
    """
    wide = [key for key, value in params.items() if np.shape(value) != net.shapes.get(key, np.shape(value))]
    if wide or np.ndim(x) != 1:
        raise ShapeError(
            f"{wide or ['x']} have ensemble axes; expected one network and one input: the family is made by `direction`"
        )
    F = state_map(net, along(net, params, direction, diagram.values), x, layer, period, ensemble=True)
    S = F.state_size
    if diagram.points.shape[-1] != S:
        raise ShapeError(f"diagram has states of {diagram.points.shape[-1]}; expected S = {S}, those of layer {layer}")
    where, s = _ends(diagram)
    n = len(where)
    needed = 16 * n * (S + 1) * 6 * S * S + 8 * n * 3 * (2 * S + 1) ** 2
    refuse_above(needed, max_memory, f"{n} folds of S = {S}", "take a shorter range of values")
    if not n:
        status = Status("nonconverged", "the number of points changes where no branch ends") if len(diagram.changes) else OK
        return FoldPoints(np.empty(0), np.empty((0, S)), np.empty((0, S)), np.empty(0), status)
    prefix = f"{layer}."
    theta = {f"0.{k.removeprefix(prefix)}": np.asarray(v, float) for k, v in params.items() if k.startswith(prefix)}
    moves = {f"0.{k.removeprefix(prefix)}": np.asarray(v, float) for k, v in direction.items() if k.startswith(prefix)}
    v = diagram.values[where]
    z = np.concatenate([s, _null_vector(F, theta, moves, s, v), v[:, None]], axis=-1)
    size = np.full(n, np.inf)
    for _ in range(MOST):
        G, dG = _equations(F, theta, moves, z)
        with np.errstate(all="ignore"):
            step = np.matmul(np.linalg.pinv(np.where(np.isfinite(dG), dG, 0.0), rcond=1e-14), -G[..., None])[..., 0]
        step = np.where(np.isfinite(step), step, 0.0)
        z, size = z + step, np.linalg.norm(step, axis=-1)
        if (size <= 1e-15 * (1.0 + np.linalg.norm(z, axis=-1))).all():
            break
    residual = np.abs(_equations(F, theta, moves, z)[0]).max(axis=-1)
    low, high = _span(diagram.values, where)
    good = (residual <= tol) & (size <= 1e-7) & (z[:, -1] >= low) & (z[:, -1] <= high)
    return _told_apart(z[good], residual[good], diagram, S)


def _ends(diagram: Bifurcation) -> tuple[Array, Array]:
    """Index of the value, and the point, where a branch has an end at a change of the number of points."""
    where, points = [], []
    for i in diagram.changes:
        for here, there in ((i, i + 1), (i + 1, i)):
            ending = ~np.isin(diagram.branch[here], diagram.branch[there]) & (diagram.branch[here] >= 0)
            where += [here] * int(ending.sum())
            points.append(diagram.points[here][ending])
    return np.array(where, np.int64), np.concatenate(points) if points else np.empty((0, diagram.points.shape[-1]))


def _span(values: Array, where: Array) -> tuple[Array, Array]:
    """How far from a value a fold that starts there may lie: two steps."""
    ends = np.stack([values[np.clip(where + k, 0, len(values) - 1)] for k in (-2, 2)])
    return ends.min(axis=0), ends.max(axis=0)


def _complex_jacobian(F: StateMap, theta: Any, moves: Any, s: Array, v: Array) -> tuple[Array, Array]:
    """F(s) (m, S) and J (m, S, S) of m pairs of a state and a value, complex or not."""
    moved = {key: theta[key] + v.reshape(-1, *(1,) * d.ndim) * d for key, d in moves.items()}
    own = StateMap(F.net, theta | moved, F.x[:1], len(s), F.period)
    after, J = own.with_jacobian(s[:, None])
    return after[:, 0], J[:, 0]


def _null_vector(F: StateMap, theta: Any, moves: Any, s: Array, v: Array) -> Array:
    """The right singular vector of J - I of its smallest singular value: near a fold, almost the null vector."""
    J = _complex_jacobian(F, theta, moves, s, v)[1]
    return np.asarray(np.linalg.svd(J - np.eye(s.shape[-1]))[2][:, -1])


def _equations(F: StateMap, theta: Any, moves: Any, z: Array) -> tuple[Array, Array]:
    """G(z) = (F(s) - s, J p - p, p.p - 1), (n, 2S+1), and its derivative, for z = (s, p, v)."""
    n, S = len(z), F.state_size
    s, p, v = z[:, :S], z[:, S : 2 * S], z[:, -1]
    turn = STEP * 1j * np.eye(S + 1)  # one direction each for s_1 .. s_S and v
    many_s = (s[:, None] + turn[:, :S]).reshape(n * (S + 1), S)
    many_v = (v[:, None] + turn[:, S]).reshape(-1)
    after, J = (value.reshape(n, S + 1, *value.shape[1:]) for value in _complex_jacobian(F, theta, moves, many_s, many_v))
    through = np.matmul(J, p[:, None, :, None])[..., 0]  # J p, (n, S + 1, S)
    A = J[:, 0].real - np.eye(S)
    G = np.concatenate([after[:, 0].real - s, through[:, 0].real - p, np.sum(p * p, axis=-1, keepdims=True) - 1.0], axis=-1)
    dG = np.zeros((n, 2 * S + 1, 2 * S + 1))
    dG[:, :S, :S], dG[:, S : 2 * S, S : 2 * S] = A, A
    dG[:, :S, -1] = after[:, S].imag / STEP
    dG[:, S : 2 * S, :S] = np.swapaxes(through[:, :S].imag / STEP, -1, -2)
    dG[:, S : 2 * S, -1] = through[:, S].imag / STEP
    dG[:, -1, S : 2 * S] = 2.0 * p
    return G, dG


def _told_apart(z: Array, residual: Array, diagram: Bifurcation, S: int) -> FoldPoints:
    """Each fold once: two branches lead to it."""
    kept: list[int] = []
    for k in np.argsort(residual):
        gaps = [np.linalg.norm(z[k, :S] - z[j, :S]) + abs(z[k, -1] - z[j, -1]) for j in kept]
        if all(gap > 1e-6 * (1.0 + np.linalg.norm(z[k, :S])) for gap in gaps):
            kept.append(int(k))
    kept.sort(key=lambda k: z[k, -1])
    v = z[kept, -1]
    ends = np.sort(np.stack([diagram.values[diagram.changes], diagram.values[diagram.changes + 1]]), axis=0)
    slack = np.abs(np.diff(ends, axis=0)[0])
    missed = int((~((v >= (ends[0] - slack)[:, None]) & (v <= (ends[1] + slack)[:, None])).any(axis=-1)).sum())
    status = Status("nonconverged", f"no fold was found at {missed} of {len(diagram.changes)} changes") if missed else OK
    return FoldPoints(v, z[kept, :S], z[kept, S : 2 * S], residual[kept], status)
