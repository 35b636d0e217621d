"""Losses: `loss(outputs, targets, mask) -> (value, d_outputs)`.

Outputs have the shape of the targets' positions, (T, B) or (B,), with the output features behind and any
ensemble axes in front: (*E, T, B, p). The value is a mean over all positions that count, one for each
ensemble member, (*E,); `d_outputs` is its derivative, of the shape of the outputs. A user's own loss
follows the same signature. Both run unchanged in complex128.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gradlab._validate import as_numbers, require_array
from gradlab.errors import DTypeError, ShapeError, ValueRangeError

Array = npt.NDArray[Any]


class Loss(Protocol):
    """A loss with its derivative."""

    def __call__(self, outputs: Array, targets: Array, mask: Array | None, /) -> tuple[Array, Array]:
        """(value (*E,), d_outputs (*E, ..., p))."""
        ...


def mean_squared_error(outputs: Array, targets: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """Mean of (y - target)^2 over positions and features; targets (T, B, p) or (B, p)."""
    targets = as_numbers("targets", targets, allow_complex=False)
    _require_targets(outputs, targets, targets.shape)
    if not np.isfinite(targets).all():
        raise ValueRangeError(f"targets hold {int((~np.isfinite(targets)).sum())} non-finite values; expected finite numbers")
    error = outputs - targets
    flat = error.reshape(*error.shape[: error.ndim - targets.ndim], 1, targets.size)
    if mask is None:
        share = 1.0 / targets.size
        value = share * np.matmul(flat, np.swapaxes(flat, -1, -2))
        error *= 2.0 * share
    else:
        weights = np.broadcast_to(_weights(mask, targets.shape[:-1])[..., None] / targets.shape[-1], targets.shape)
        weight = weights.astype(error.real.dtype)
        value = np.matmul(flat * weight.ravel(), np.swapaxes(flat, -1, -2))
        error *= 2.0 * weight
    return value[..., 0, 0], error


def softmax_cross_entropy(outputs: Array, targets: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """Mean of -ln softmax(y)[target] in nats; targets are labels 0..p-1 of an integer dtype, (T, B) or (B,).

    Stable for logits of any size: the largest is subtracted before the exponential.
    """
    targets = require_array("targets", targets)
    if targets.ndim and targets.shape == outputs.shape[outputs.ndim - targets.ndim :] and targets.ndim > 1:
        want = targets.shape[:-1]
        raise ShapeError(f"targets have shape {targets.shape}, one value a class; expected labels {want}; try targets.argmax(-1)")
    if targets.dtype.kind not in "iu":
        raise DTypeError(f"targets have dtype {targets.dtype}; expected integer labels; try targets.astype(int)")
    classes = outputs.shape[-1]
    if targets.size and (targets.min() < 0 or targets.max() >= classes):
        bad = targets.max() if targets.max() >= classes else targets.min()
        raise ValueRangeError(f"targets hold the label {bad}; expected 0 to {classes - 1}, the network has {classes} outputs")
    _require_targets(outputs, targets, (*targets.shape, classes))
    weight = _weights(mask, targets.shape)
    shifted = outputs - outputs.real.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    index = np.broadcast_to(targets, outputs.shape[:-1])[..., None]
    own = np.take_along_axis(exponentials, index, axis=-1)
    at_target = np.take_along_axis(shifted, index, axis=-1)[..., 0]
    np.put_along_axis(exponentials, index, 0.0, axis=-1)
    rest = exponentials.sum(axis=-1, keepdims=True)  # without the target: p - 1 would lose all digits of a confident answer
    total = rest + own
    with np.errstate(all="ignore"):
        confident = np.log1p((rest / own)[..., 0])
        nats = np.where(at_target.real > -1.0, confident, np.log(total[..., 0]) - at_target)
    d_outputs = exponentials / total
    np.put_along_axis(d_outputs, index, -rest / total, axis=-1)
    d_outputs *= weight[..., None]
    return np.sum(weight.astype(outputs.real.dtype) * nats, axis=tuple(range(-targets.ndim, 0))), d_outputs


def _require_targets(outputs: Array, targets: Array, want: tuple[int, ...]) -> None:
    if outputs.shape[outputs.ndim - len(want) :] == want:
        return
    told = f"targets have shape {targets.shape}, outputs {outputs.shape}"
    if len(want) <= outputs.ndim and outputs.shape[outputs.ndim - len(want) : -1] == want[:-1]:
        raise ShapeError(f"{told}; expected {outputs.shape[-1]} features, as the network emits, not {want[-1]}")
    raise ShapeError(
        f"{told}; expected equal axes in front of the features (time comes first, then the batch); "
        'a network with readout="last" takes targets without a time axis'
    )


def _weights(mask: Array | None, positions: tuple[int, ...]) -> Array:
    """Weight of each position in the mean: they sum to 1."""
    if mask is None:
        mask = np.ones(positions)
    if require_array("mask", mask).dtype.kind not in "biuf":
        raise DTypeError(f"mask has dtype {mask.dtype}; expected booleans or real numbers")
    if mask.shape != positions:
        raise ShapeError(f"mask has shape {mask.shape}; expected {positions}, one entry for each target")
    weight = mask.astype(np.float64)
    total = weight.sum()
    if not (np.isfinite(total) and total > 0 and weight.min() >= 0):
        raise ValueRangeError(f"mask sums to {total}; expected entries >= 0, not all of them 0")
    return np.asarray(weight / total)
