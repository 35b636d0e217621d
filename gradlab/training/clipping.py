"""Clipping of gradients by their global norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab._validate import require_positive
from gradlab.network import Network

Array = npt.NDArray[Any]


def global_norm(net: Network, gradients: Mapping[str, Array]) -> Array:
    """2-norm of all gradients jointly, one for each ensemble member: (*E,). inf or NaN if one of them is."""
    logs = []
    for key, own in net.shapes.items():
        value = gradients[key]
        logs.append(log_norm(value, axis=tuple(range(value.ndim - len(own), value.ndim))))
    stacked = np.stack(np.broadcast_arrays(*logs))
    top = np.where(np.isneginf(stacked.max(axis=0)), 0.0, stacked.max(axis=0))
    with np.errstate(all="ignore"):
        return np.asarray(np.exp(top) * np.sqrt(np.exp(2.0 * (stacked - top)).sum(axis=0)))


def clip_by_norm(net: Network, gradients: Mapping[str, Array], threshold: float) -> tuple[dict[str, Array], Array]:
    """(clipped gradients, norm before): each ensemble member's gradient is scaled to `threshold` if its norm is larger.

    Pascanu, Mikolov & Bengio (2013), algorithm 1. The norm is taken over ALL parameters jointly, so the
    direction stays. A gradient with a non-finite norm has no direction; it is returned as it is, for the caller to see.
    Error: ValueRangeError unless threshold > 0.
    """
    threshold = require_positive("threshold", threshold)
    norm = global_norm(net, gradients)
    scale = np.where(np.isfinite(norm) & (norm > threshold), threshold / np.where(norm > 0, norm, 1.0), 1.0)
    clipped = {}
    for key, own in net.shapes.items():
        value = gradients[key]
        member = scale if value.ndim > len(own) else np.asarray(scale)
        clipped[key] = value * member.reshape(*member.shape, *(1,) * len(own)).astype(value.real.dtype)
    return clipped, norm
