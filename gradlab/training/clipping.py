"""Clipping of gradients by their global norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab._validate import require_positive
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
    logs = np.stack([log_norm(gradients[key], tuple(range(-len(own), 0))) for key, own in net.shapes.items()])
    return np.asarray(np.exp(log_norm_of_logs(logs)))


def log_norm_of_logs(logs: Array) -> Array:
    """Ln of the 2-norm of vectors whose ln norms are given along the first axis; -inf if all are zero."""
    with np.errstate(all="ignore"):
        top = logs.max(axis=0)
        joint = top + 0.5 * np.log(np.exp(2.0 * (logs - top)).sum(axis=0))
    return np.asarray(np.where(np.isinf(top), top, joint))


def clip_by_norm(net: Network, gradients: Mapping[str, Array], threshold: float) -> tuple[dict[str, Array], Array]:
    """(clipped gradients, norm before): each ensemble member's gradient is scaled to `threshold` if its norm is larger.

    Pascanu, Mikolov & Bengio (2013), algorithm 1. The norm is taken over ALL parameters jointly, so the
    direction stays. A gradient with a non-finite norm has no direction; it is returned as it is, for the caller to see.
    Errors: ValueRangeError unless threshold > 0; ShapeError as `global_norm`.
    """
    threshold = require_positive("threshold", threshold)
    norm = global_norm(net, gradients)
    with np.errstate(all="ignore"):
        scale = np.where(np.isfinite(norm) & (norm > threshold), threshold / norm, 1.0)
    clipped = {}
    for key, own in net.shapes.items():
        value = gradients[key]
        clipped[key] = np.asarray(value * scale.reshape(scale.shape + (1,) * len(own)).astype(value.real.dtype))
    return clipped, norm
