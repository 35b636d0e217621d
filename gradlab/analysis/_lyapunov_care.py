"""One step of the QR method for a Jacobian that is badly scaled or singular, with all the digits there are.

Units in saturation have rows or columns many orders of magnitude below the others. A matrix J = D_1 B D_2 with diagonal D_1
and D_2 and well-conditioned B still determines its triangular factor to full relative accuracy (Higham 2000, "QR
factorization with complete pivoting and accurate computation of the SVD"), but a product J Q with dense Q does not. Hence

    D_2 Q = L U  (partial pivoting),      J Q = D_1 (B L) U,      ln |R_jj| = ln |R(D_1 B L)_jj| + ln |U_jj|

where no factor mixes sizes. What depends linearly on other columns even in B L has no digits: there J is singular.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import LN2

Array = npt.NDArray[Any]

UNIT = 10.0 * float(np.finfo(float).eps)
"""Rounding error of one step, in units of the vector's length: some operations of eps each."""
LOST = 1e3 * UNIT
"""What is this close to the span of others is known to less than 1e-3 nats: it counts as dependent on them."""


def step_with_care(J: Array, Q: Array) -> tuple[Array, Array, Array, Array]:
    """(log, error, new Q, order) of one step: see `Growth` of the QR method. J (*L, S, S), Q (*L, S, k)."""
    from scipy.linalg import lu

    rows, columns = _scales(J)
    L, U = lu(_scaled(Q, np.swapaxes(columns, -1, -2)), permute_l=True, check_finite=False)
    even = np.matmul(_scaled(J, -rows - columns), L)  # B L
    order, count, share = _independent_first(even)
    centre = (rows.max(axis=(-2, -1), keepdims=True) + rows.min(axis=(-2, -1), keepdims=True)) // 2  # both ends stay in range
    by_size = np.argsort(-rows, axis=-2, kind="stable")  # Householder then keeps the digits of each row (Cox & Higham 1998)
    graded = np.take_along_axis(_scaled(even, rows - centre), by_size, axis=-2)
    sorted_Q, R = np.linalg.qr(np.take_along_axis(graded, order[..., None, :], axis=-1))
    new_Q = np.empty_like(sorted_Q)
    np.put_along_axis(new_Q, by_size, sorted_Q, axis=-2)
    alive = np.arange(Q.shape[-1]) < count
    log = np.log(diagonal(R)) + np.take_along_axis(np.log(diagonal(U)), order, axis=-1) + centre[..., 0] * LN2
    return np.where(alive, log, -np.inf), UNIT / np.where(alive, share, 1.0).min(axis=-1), new_Q, order


def _scales(J: Array) -> tuple[Array, Array]:
    """Binary exponents (*L, S, 1) and (*L, 1, S) of the sizes of J's rows and columns, each beside the other."""
    entries = np.frexp(np.where(J == 0.0, np.finfo(float).smallest_subnormal, np.abs(J)))[1]
    rows = entries.max(axis=-1, keepdims=True)
    for _ in range(2):
        columns = (entries - rows).max(axis=-2, keepdims=True)
        rows = (entries - columns).max(axis=-1, keepdims=True)
    return rows, columns


def _scaled(M: Array, exponents: Array) -> Array:
    if np.iscomplexobj(M):
        return np.asarray(np.ldexp(M.real, exponents) + 1j * np.ldexp(M.imag, exponents))
    return np.asarray(np.ldexp(M, exponents))


def _independent_first(columns: Array) -> tuple[Array, Array, Array]:
    """(order, count, share): the columns (*L, S, k) that are independent, `count` (*L, 1) of them, before the others.

    `share` (*L, k): how far each, in the new order, is from the span of the others, the later ones left out.
    """
    first_R = np.asarray(np.linalg.qr(columns, mode="r"))
    alive, promote = diagonal(first_R) > LOST, True
    while True:
        order = np.argsort(~alive, axis=-1, kind="stable")
        count = alive.sum(axis=-1, keepdims=True)
        R: Array = np.asarray(np.linalg.qr(np.take_along_axis(columns, order[..., None, :], axis=-1), mode="r"))
        dead = np.arange(R.shape[-1]) >= count
        if promote:  # columns that were hidden by one that is nothing but rounding, and points their way
            outside = np.abs(np.where(dead[..., :, None] & dead[..., None, :], R, 0.0)).max(axis=-2)
            wrong, at = (outside > LOST).any(axis=-1, keepdims=True), outside.argmax(axis=-1)[..., None]
            promote = bool(wrong.any())
        if not promote:  # and columns whose distance is lost though no diagonal entry shows it
            share = 1.0 / tilts(np.where(dead[..., :, None] | dead[..., None, :], np.eye(R.shape[-1]), R))
            wrong, at = (share <= LOST).any(axis=-1, keepdims=True), (share <= LOST).argmax(axis=-1)[..., None]
            if not wrong.any():
                return order, count, share
        moved = np.take_along_axis(order, at, axis=-1)
        np.put_along_axis(alive, moved, np.where(wrong, promote, np.take_along_axis(alive, moved, axis=-1)), axis=-1)


def diagonal(R: Array) -> Array:
    """Absolute values of the diagonal entries, (*L, k)."""
    return np.asarray(np.abs(np.diagonal(R, axis1=-2, axis2=-1)))


def tilts(R: Array) -> Array:
    """norm(R^-1 e_j), (*L, k); inf where R is singular or not finite."""
    usable = np.asarray((diagonal(R) > 0.0).all(axis=-1) & np.isfinite(R).all(axis=(-2, -1)))[..., None]
    inverse = np.linalg.inv(R if usable.all() else np.where(usable[..., None], R, np.eye(R.shape[-1])))
    return np.asarray(np.where(usable, np.sqrt((np.abs(inverse) ** 2).sum(axis=-2)), np.inf))
