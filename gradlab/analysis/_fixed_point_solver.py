"""Minimising q(s) = |F(s) - s|^2 / 2 from many starts of many maps at once.

With r = F(s) - s and A = J - I, the gradient of q is A^T r. Levenberg (1944) and Marquardt (1963): s moves by the solution of
(A^T A + mu I) d = -A^T r, where mu falls after a step that lowers q and grows after one that does not. With mu
proportional to |r| it is Newton's method near a fixed point (Fan & Yuan 2005), and it finds minima of q that are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.analysis._state_map import StateMap

Array = npt.NDArray[Any]

STATIONARY = 0.05
"""Relative change of the speed |F(s) - s| per unit of distance below which a point counts as a minimum of it."""
POLISH = 6
WALK = 40
PATIENCE = 15
FAR = 1e100


@dataclass(frozen=True)
class Descent:
    """Where starts ended: `s` (M, N, S), `residual` (M, N) = |F(s) - s| / max(1, |s|), `speed` (M, N) = |F(s) - s|, and
    `slope` (M, N): the norm of the gradient of the speed.
    """

    s: Array
    residual: Array
    speed: Array
    slope: Array

    def fixed(self, tol: float, distance: float) -> Array:
        """Which rows are at a fixed point: the speed is zero to `tol`, and falls to zero within `distance`.

        Far out, where its gates saturate, a cell is arbitrarily slow without a fixed point anywhere near.
        """
        near = (self.speed <= distance * _size(self.s) * self.slope) | (self.residual <= 4.0 * np.finfo(float).eps)
        return np.asarray((self.residual <= tol) & near)

    def slow(self, tol: float, limit: float) -> Array:
        """Which rows are at another minimum of the speed, of at most `limit`."""
        return np.asarray((self.residual > tol) & (self.speed <= limit) & (self.slope <= STATIONARY * self.speed))


def search(F: StateMap, starts: Array, tol: float, distance: float, slow: float, max_iterations: int) -> Descent:
    """`minimise`, and for starts that end in a minimum that is neither fixed nor slow two more ways to begin.

    Newton's method may leave a valley that a descent cannot; the map itself leads to whatever attracts.
    """
    found = minimise(F, starts, tol, slow, max_iterations)
    for attempt in range(3):
        lost = ~found.fixed(tol, distance) & ~found.slow(tol, slow)
        if attempt == 0:  # an almost marginal point is still some way off when its residual is down to the tolerance
            lost &= found.residual <= tol
        columns = np.flatnonzero(lost.any(axis=0))
        if not len(columns):
            continue
        begin = found.s[:, columns] if attempt == 0 else starts[:, columns]
        again = minimise(F, (_polished, _newton_walk, _iterate)[attempt](F, begin), tol, slow, max_iterations)
        better = lost[:, columns] & again.fixed(tol, distance)
        if attempt == 0:  # a little way off
            moved = np.linalg.norm(again.s - found.s[:, columns], axis=-1)
            better &= moved <= np.sqrt(distance) * _size(again.s)
        for name in ("s", "residual", "speed", "slope"):
            old, new = getattr(found, name), getattr(again, name)
            part = old[:, columns]
            part[better] = new[better]
            old[:, columns] = part
    return found


def _polished(F: StateMap, s: Array) -> Array:
    return polish(F, s)[0]


def _newton_walk(F: StateMap, s: Array) -> Array:
    """Newton steps whether or not they lower the speed, of a length of at most 2, or |s| if that is more."""
    for _ in range(WALK):
        r, A = _residual(F, s)
        with np.errstate(all="ignore"):
            transposed = np.swapaxes(A, -1, -2)
            normal = np.matmul(transposed, A)
            normal += (1e-12 * np.trace(normal, axis1=-2, axis2=-1) + np.finfo(float).tiny)[..., None, None] * np.eye(s.shape[-1])
            step = _solve(normal, -np.matmul(transposed, r[..., None])[..., 0])
            length = np.linalg.norm(step, axis=-1)
            step *= np.minimum(1.0, np.maximum(2.0, np.linalg.norm(s, axis=-1)) / length)[..., None]
            moved = s + step
        s = np.where(np.isfinite(moved), moved, s)
    return s


def _iterate(F: StateMap, s: Array) -> Array:
    """Where the map itself leads, unless it leads out of the range of floats."""
    for _ in range(WALK):
        after = F(s)
        s = np.where(np.isfinite(after).all(axis=-1, keepdims=True) & (np.abs(after) < FAR).all(axis=-1, keepdims=True), after, s)
    return s


def minimise(F: StateMap, starts: Array, tol: float, slow: float, max_iterations: int) -> Descent:
    """Levenberg-Marquardt from `starts` (M, N, S), all at once, each with its own damping.

    A row that is faster than `slow`, and has hardly become slower over the last few steps, is given up.
    """
    S = starts.shape[-1]
    s, damping = starts.copy(), np.full(starts.shape[:-1], 1e-2)
    identity = np.eye(S)
    r, A = _residual(F, s)
    with np.errstate(all="ignore"):
        s[~np.isfinite(r).all(axis=-1)] = 0.0  # starts that the map throws out of the range of floats
    r, A = _residual(F, s)
    given_up, before = np.zeros(starts.shape[:-1], bool), np.full(starts.shape[:-1], np.inf)
    for iteration in range(max_iterations):
        speed, slope = _speed(r, A)
        if iteration % PATIENCE == 0:
            given_up |= (speed > 0.95 * before) & (speed > slow)
            before = speed
        done = (speed <= tol * _size(s)) | (slope <= 1e-3 * STATIONARY * speed) | ~np.isfinite(speed) | given_up
        columns = np.flatnonzero(~done.all(axis=0))  # rows that are done in all networks need not be carried along
        if not len(columns):
            break
        at = np.s_[:, columns]
        with np.errstate(all="ignore"):
            transposed = np.swapaxes(A[at], -1, -2)
            mu = damping[at] * speed[at] + np.finfo(float).tiny
            normal = np.matmul(transposed, A[at])
            scale = np.trace(normal, axis1=-2, axis2=-1) * np.finfo(float).eps
            normal += (mu + scale)[..., None, None] * identity
            step = _solve(normal, -np.matmul(transposed, r[at][..., None])[..., 0])
        step[done[at]] = 0.0
        trial = s[at] + step
        trial[~np.isfinite(trial).all(axis=-1)] = 0.0
        r_trial, A_trial = _residual(F, trial)
        with np.errstate(all="ignore"):
            better = _speed(r_trial, A_trial)[0] < speed[at]
        better &= ~done[at]
        for old, new in ((s, trial), (r, r_trial), (A, A_trial)):
            kept = old[at]
            kept[better] = new[better]
            old[at] = kept
        damping[at] = np.clip(np.where(better, damping[at] / 5.0, damping[at] * 3.0), 1e-12, 1e12)
    speed, slope = _speed(r, A)
    return Descent(s, speed / _size(s), speed, slope)


def polish(F: StateMap, s: Array) -> tuple[Array, Array, Array]:
    """Newton's method from points (M, K, S) near fixed ones: s, F(s) - s and J, at the smallest residual found.

    The step is the shortest least-squares one, so that on a line of fixed points the way is straight to it.
    """
    best, r, A = s.copy(), *_residual(F, s)
    point = s
    for _ in range(POLISH):
        with np.errstate(all="ignore"):
            step = -np.matmul(np.linalg.pinv(A, rcond=1e-12), r[..., None])[..., 0]
        point = best + np.where(np.isfinite(step), step, 0.0)
        r_new, A_new = _residual(F, point)
        better = np.linalg.norm(r_new, axis=-1) < np.linalg.norm(r, axis=-1)
        if not better.any():
            break
        best[better], r[better], A[better] = point[better], r_new[better], A_new[better]
    return best, r, A + np.eye(s.shape[-1])


def distinct(s: Array, error: Array, eligible: Array, distance: float) -> tuple[Array, Array]:
    """Of the rows (M, N, S) that are `eligible` (M, N) those that differ: points (M, K, S) and how many rows fell to each.

    Points of smaller `error` come first. Where a network has fewer than K, NaN and 0. Rows within `distance` times
    (1 + the norm) of a point belong to it.
    """
    M, _, S = s.shape
    rest, points, hits = eligible.copy(), [], []
    while rest.any():
        found = np.asarray(rest.any(axis=-1))
        index = np.argmin(np.where(rest, error, np.inf), axis=-1)
        point = s[np.arange(M), index]
        near = rest & (np.linalg.norm(s - point[:, None], axis=-1) <= distance * (1.0 + np.linalg.norm(point, axis=-1))[:, None])
        near[np.arange(M), index] |= found
        points.append(np.where(found[:, None], point, np.nan))
        hits.append(near.sum(axis=-1))
        rest &= ~near
    if not points:
        return np.empty((M, 0, S)), np.empty((M, 0), np.int64)
    return np.stack(points, axis=1), np.stack(hits, axis=1)


def _residual(F: StateMap, s: Array) -> tuple[Array, Array]:
    """The residual r = F(s) - s and A = J - I."""
    after, J = F.with_jacobian(s)
    with np.errstate(all="ignore"):
        r = after - s
    J = J.copy()
    diagonal = np.arange(s.shape[-1])
    J[..., diagonal, diagonal] -= 1.0
    return r, J


def _speed(r: Array, A: Array) -> tuple[Array, Array]:
    """|r|, and the norm of its gradient A^T r / |r|."""
    with np.errstate(all="ignore"):
        speed = np.linalg.norm(r, axis=-1)
        gradient = np.matmul(np.swapaxes(A, -1, -2), (r / speed[..., None])[..., None])[..., 0]
        return speed, np.where(speed > 0.0, np.linalg.norm(gradient, axis=-1), 0.0)


def _size(s: Array) -> Array:
    size: Array = np.maximum(1.0, np.linalg.norm(s, axis=-1))
    return size


def _solve(matrix: Array, right: Array) -> Array:
    """Solutions of symmetric positive definite systems; NaN where one is not finite."""
    finite = np.asarray(np.isfinite(matrix).all(axis=(-2, -1)) & np.isfinite(right).all(axis=-1))
    safe = np.where(finite[..., None, None], matrix, np.eye(matrix.shape[-1]))
    try:
        found = np.linalg.solve(safe, np.where(finite[..., None], right, 0.0)[..., None])[..., 0]
    except np.linalg.LinAlgError:  # singular to the last bit: the damping had no room beside the entries
        found = np.matmul(np.linalg.pinv(safe, hermitian=True), np.where(finite[..., None], right, 0.0)[..., None])[..., 0]
    return np.asarray(np.where(finite[..., None], found, np.nan))


def polished_points(F: StateMap, s: Array, error: Array, eligible: Array, distance: float) -> tuple[Array, Array]:
    """The distinct points among rows (M, N, S), polished, (M, K, S) with NaN behind the last, and their hits (M, K).

    What the tolerance left apart, polishing may bring together: it is told apart once more.
    """
    points, hits = distinct(s, error, eligible, distance)
    if not points.shape[1]:
        return points, hits
    there = hits > 0
    polished = polish(F, np.where(there[..., None], points, 0.0))[0]
    merged, _ = distinct(polished, -hits.astype(float), there, distance)
    gap = np.linalg.norm(polished[:, :, None] - merged[:, None], axis=-1)  # (M, rows, points)
    owner = np.argmin(np.where(np.isnan(gap), np.inf, gap), axis=-1)
    total = np.zeros(merged.shape[:2], np.int64)
    np.add.at(total, (np.arange(len(hits))[:, None], owner), hits)
    return merged, total
