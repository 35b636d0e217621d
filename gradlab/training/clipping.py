"""Clipping of gradients: by their global norm, layer by layer, or entry by entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_array, require_positive
from gradlab.errors import ShapeError
from gradlab.network import Network
from gradlab.training.norms import global_norm, joint_norm, own_norm

Array = npt.NDArray[Any]


class Clip(Protocol):
    """What the trainer needs of a way to clip."""

    def __call__(self, net: Network, gradients: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        """(clipped gradients, which members were clipped)."""


def clip_by_norm(net: Network, gradients: Mapping[str, Array], threshold: float | Array) -> tuple[dict[str, Array], Array]:
    """(clipped gradients, norm before): each ensemble member's gradient is scaled to `threshold` if its norm is larger.

    Pascanu, Mikolov & Bengio (2013), algorithm 1. The norm is taken over ALL parameters jointly, so the
    direction stays. A gradient with a non-finite norm has no direction; it is returned as it is, for the caller to see.
    `threshold`: one number, or one for each member (*E,).
    Errors: ValueRangeError unless threshold > 0; ShapeError as `global_norm`.
    """
    norm = global_norm(net, gradients)
    threshold = _thresholds(threshold, norm.shape)
    return {key: _scaled(gradients[key], _factor(norm, threshold), len(own)) for key, own in net.shapes.items()}, norm


@dataclass(frozen=True)
class ByNorm:
    """Scale the gradient of all parameters jointly to at most `threshold`: `clip_by_norm`."""

    threshold: float | Array

    def __post_init__(self) -> None:
        _require_thresholds(self.threshold)

    def __call__(self, net: Network, gradients: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        clipped, norm = clip_by_norm(net, gradients, self.threshold)
        return clipped, np.asarray(np.isfinite(norm) & (norm > self.threshold))


@dataclass(frozen=True)
class ByLayer:
    """Scale each layer's gradient, and the read-out's, to at most `threshold` on its own: the overall direction may change."""

    threshold: float | Array

    def __post_init__(self) -> None:
        _require_thresholds(self.threshold)

    def __call__(self, net: Network, gradients: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        clipped: dict[str, Array] = {}
        touched: Array | None = None
        for layer in dict.fromkeys(key.rpartition(".")[0] for key in net.shapes):
            keys = [key for key in net.shapes if key.rpartition(".")[0] == layer]
            norm = joint_norm([own_norm(gradients[key], len(net.shapes[key])) for key in keys])
            threshold = _thresholds(self.threshold, norm.shape)
            clipped |= {key: _scaled(gradients[key], _factor(norm, threshold), len(net.shapes[key])) for key in keys}
            now = np.isfinite(norm) & (norm > threshold)
            touched = now if touched is None else touched | now
        return {key: clipped[key] for key in net.shapes}, np.asarray(touched)


@dataclass(frozen=True)
class ByValue:
    """Clamp each entry to +-`threshold` (Mikolov 2012): simple, and it turns the direction."""

    threshold: float | Array

    def __post_init__(self) -> None:
        _require_thresholds(self.threshold)

    def __call__(self, net: Network, gradients: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        clipped: dict[str, Array] = {}
        touched: Array = np.zeros((), bool)
        for key, own in net.shapes.items():
            value = gradients[key]
            members = value.shape[: value.ndim - len(own)]
            bound = _thresholds(self.threshold, members).reshape(members + (1,) * len(own)).astype(value.dtype)
            clipped[key] = np.clip(value, -bound, bound)  # NaN stays NaN, for the caller to see
            touched = touched | (np.abs(value) > bound).any(axis=tuple(range(-len(own), 0)))
        return clipped, np.asarray(touched)


def _require_thresholds(threshold: float | Array) -> None:
    values = require_array("threshold", threshold).ravel() if isinstance(threshold, np.ndarray) else [threshold]
    for value in values:
        require_positive("threshold", value)


def _thresholds(threshold: float | Array, members: tuple[int, ...]) -> Array:
    _require_thresholds(threshold)
    if isinstance(threshold, np.ndarray) and threshold.shape != members:
        raise ShapeError(f"threshold has shape {threshold.shape}; expected the ensemble axes {members}, or one number")
    return np.broadcast_to(np.asarray(threshold, float), members)


def _factor(norm: Array, threshold: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(np.where(np.isfinite(norm) & (norm > threshold), threshold / norm, 1.0))


def _scaled(value: Array, factor: Array, own_axes: int) -> Array:
    return np.asarray(value * factor.reshape(factor.shape + (1,) * own_axes).astype(value.real.dtype))
