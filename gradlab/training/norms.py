"""2-norms of gradients, one for each ensemble member: exact, cheap, and without under- or overflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import power_of_two
from gradlab.errors import ShapeError
from gradlab.network import Network

Array = npt.NDArray[Any]


def global_norm(net: Network, gradients: Mapping[str, Array]) -> Array:
    """2-norm of all gradients jointly, one for each ensemble member: (*E,). inf or NaN if one of them is.

    Error: ShapeError unless all gradients have the same ensemble axes: a shared parameter belongs to no member.
    """
    if len({net.ensemble_shape(key, gradients[key]) for key in net.shapes}) > 1:
        found = {key: gradients[key].shape for key in net.shapes}
        raise ShapeError(f"gradients have shapes {found}; expected equal ensemble axes in front of all of them")
    return joint_norm([own_norm(gradients[key], len(own)) for key, own in net.shapes.items()])


def own_norm(value: Array, axes: int) -> Array:
    """2-norm over the last `axes` axes; those in front stay.

    The plain sum of squares where it is far from under- and overflow; else the entries are scaled by a power of two first.
    Each member's bits depend on its own entries alone.
    """
    lead = value.shape[: value.ndim - axes]
    flat = value.reshape(*lead, 1, -1)
    with np.errstate(all="ignore"):
        if np.iscomplexobj(flat):
            return _scaled_norm(flat[..., 0, :])
        squares = np.asarray(np.matmul(flat, np.swapaxes(flat, -1, -2))[..., 0, 0])
        info = np.finfo(flat.dtype)
        safe = (squares > info.tiny / info.eps**2) & (squares < info.max * info.eps)
        plain = np.sqrt(squares)
        return plain if safe.all() else np.where(safe, plain, _scaled_norm(flat[..., 0, :]))


def _scaled_norm(flat: Array) -> Array:
    mantissa, exponent = power_of_two(flat, (-1,))
    return np.asarray(np.ldexp(np.sqrt((mantissa.real**2 + mantissa.imag**2).sum(axis=-1)), exponent.astype(np.int32)))


def joint_norm(norms: list[Array]) -> Array:
    """2-norm of vectors whose norms are given."""
    stacked = np.stack(norms)
    with np.errstate(all="ignore"):
        top = stacked.max(axis=0)
        scale = np.where((top > 0.0) & np.isfinite(top), top, 1.0)
        return np.asarray(scale * np.sqrt(((stacked / scale) ** 2).sum(axis=0)))
