"""Tangent vectors carried through a product of Jacobians, and how many of their digits rounding has eaten.

    Z = J_n ... J_1 Q;   Q', R = qr(Z);   the j-th vector has grown by ln |R_jj|

Between two factorisations the vectors turn towards each other, and what tells them apart sinks into rounding. How
far it has sunk cannot be read off Z afterwards: a step that expands what the one before had lost makes noise look
like a vector. So one more vector is carried along, to which every step adds a random direction as large as the
vectors are: it grows as their rounding errors do. With W its length at the end, ln R_jj is off by about
eps W norm(R^-1 e_j) (first-order perturbation of the QR factorisation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gradlab._math import LN2
from gradlab.analysis._lyapunov_care import UNIT, Array, diagonal, step_with_care, tilts

Push = Callable[[Array], Array]
"""One step of the cocycle: Z (*L, S, n) -> J_t Z, for any n."""

ROUGH = 1e-9
"""Nats of rounding error of a single step that call for a closer look."""
SMALL, LARGE, SHIFT = 1e-280, 1e290, 600
"""Products outside this range are computed again with vectors 2^600 times as long, or as short."""
POOL = 31
"""Random directions that stand for rounding errors."""


class Growth(NamedTuple):
    """What `steps` steps did: `log` (*L, k) the logarithms of R's diagonal, `error` (*L,) their estimated rounding error.

    `Q` (*L, S, k): the new vectors. `order` (*L, k): where they stood before, None if they did not move; vectors that a
    singular Jacobian maps into the span of those before them move to the end, with `log` -inf.
    """

    steps: int
    log: Array
    error: Array
    Q: Array
    order: Array | None = None


class Frame:
    """k orthonormal vectors for each of the products in *L, random at the start."""

    def __init__(self, lead: tuple[int, ...], size: int, k: int, rng: np.random.Generator) -> None:
        self.Q = np.linalg.qr(rng.standard_normal((*lead, size, k)))[0]
        self._noise = rng.standard_normal((POOL, size, 1)) / np.sqrt(size)
        self._turn = 0
        self.lost = np.zeros(lead, dtype=bool)  # members that left the range of floats

    def try_block(self, block: Sequence[Push]) -> Growth:
        """The growth over all steps of `block` with one factorisation at its end; `error` is inf where nothing is left."""
        k = self.Q.shape[-1]
        Z = np.zeros((*self.Q.shape[:-1], -(-(k + 1) // 4) * 4), self.Q.dtype)  # BLAS takes columns by fours
        Z[..., :k] = self.Q
        for push in block:
            vectors = Z[..., :k]
            conjugate = vectors.conj() if np.iscomplexobj(Z) else vectors  # of real numbers it would be a copy
            length = np.sqrt(np.einsum("...ij,...ij->...", vectors, conjugate).real)
            Z[..., k : k + 1] += length[..., None, None] * self._noise[self._turn]
            self._turn = (self._turn + 1) % POOL
            Z = push(Z)
        Q, R = np.linalg.qr(Z[..., :k])
        error = UNIT * np.sqrt(np.abs(Z[..., k] ** 2).sum(axis=-1)) * tilts(R).max(axis=-1)
        return self._marked(Growth(len(block), np.log(diagonal(R)), np.where(np.isfinite(error), error, np.inf), Q))

    def step(self, push: Push) -> Growth:
        """The growth over one step, as exact as the Jacobian allows; members with non-finite growth are `lost`."""
        Z, exponent = _within_range(push, self.Q)
        broken: Array = np.asarray(~np.isfinite(Z).all(axis=(-2, -1)))
        if broken.any():
            self.lost = self.lost | broken
            Z = np.where(broken[..., None, None], self.Q, Z)
        Q, R = np.linalg.qr(Z)
        error, order = UNIT * np.abs(R).max(axis=(-2, -1)) * tilts(R).max(axis=-1), None
        log = np.log(diagonal(R)) + exponent[..., None] * LN2
        if not (error <= ROUGH).all():
            eye = np.broadcast_to(np.eye(Z.shape[-2]), (*Z.shape[:-1], Z.shape[-2]))
            J = np.where(self.lost[..., None, None], eye, push(eye))
            log, error, Q, order = step_with_care(J, self.Q)
        return self._marked(Growth(1, log, error, Q, order))

    def _marked(self, found: Growth) -> Growth:
        """`found` with NaN for the members that are lost; they neither hold up the others nor come back."""
        if not self.lost.any():
            return found
        Q = np.where(self.lost[..., None, None], self.Q, found.Q)
        log, error = np.where(self.lost[..., None], np.nan, found.log), np.where(self.lost, 0.0, found.error)
        return found._replace(log=log, error=error, Q=Q)


def _within_range(push: Push, Q: Array) -> tuple[Array, Array]:
    """J Q = Z 2^exponent for Jacobians at either end of the range of floats."""
    Z = push(Q)
    size = np.abs(Z).max(axis=(-2, -1))
    large, small = ~(size < LARGE), size < SMALL
    if large.any():
        Z = np.where(large[..., None, None], push(np.ldexp(1.0, -SHIFT) * Q), Z)
    if small.any():
        Z = np.where(small[..., None, None], push(np.ldexp(1.0, SHIFT) * Q), Z)
    return Z, SHIFT * (large.astype(np.int64) - small)
