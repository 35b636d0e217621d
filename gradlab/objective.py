"""From the loss to the top of the network: where the backward pass starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_array
from gradlab.batch import Batch
from gradlab.cells.base import outer_rows, rows, sum_rows, unrows
from gradlab.directions import broadcast_mask, flip, place_last
from gradlab.errors import DTypeError, ShapeError
from gradlab.forward_pass import Pass
from gradlab.losses import Loss
from gradlab.network import Layer, Network
from gradlab.workspace import Workspace, time_major

Array = npt.NDArray[Any]


def cotangent(net: Network, run: Pass, batch: Batch, loss: Loss) -> tuple[Array, Array]:
    """The loss and its derivative, of the shape of the outputs.

    The loss sees ensemble axes in front of (T, B, p). Where members read their own sequences (the inputs have
    ensemble axes) it is called once for each sequence set, on the members that read it.
    """
    every = net.readout == "every"
    outputs = np.moveaxis(run.outputs, 0, -3) if every else run.outputs
    own = batch.inputs.shape[1:-2]
    given = None if batch.mask is None else require_array("batch.mask", batch.mask)
    targets = batch.targets
    if every and run.mask is not None:  # positions behind a row's end never count, whatever stands there
        T, B = run.mask.shape
        exists = np.broadcast_to(run.mask.reshape(T, *(1,) * len(own), B), (T, *own, B))
        if given is not None and given.shape != exists.shape:
            raise ShapeError(f"mask has shape {given.shape}; expected {exists.shape}, one entry for each target")
        given = exists if given is None else given * exists
        if isinstance(targets, np.ndarray) and targets.shape[: exists.ndim] == exists.shape and targets.dtype.kind in "biufc":
            trailing = exists.reshape(exists.shape + (1,) * (targets.ndim - exists.ndim))
            targets = np.where(trailing, targets, np.zeros((), targets.dtype))
    if not own:
        _require_positions(targets, outputs, every)
        value, d_outputs = _pair(loss(outputs, targets, given))
        _require_cotangent(d_outputs, outputs)
    else:
        targets, mask = _ensemble_major("targets", targets, own, every), _ensemble_major("mask", given, own, every)
        tail = (slice(None),) * (3 if every else 2)
        value = np.empty(outputs.shape[: outputs.ndim - len(tail)], outputs.dtype)
        d_outputs = np.empty_like(outputs)
        for index in np.ndindex(own):
            members = (..., *(slice(None) if n == 1 else k for n, k in zip(own, index, strict=True)))
            part = outputs[(*members, *tail)]
            value[members], d_part = _pair(loss(part, targets[index], None if mask is None else mask[index]))
            _require_cotangent(d_part, part)
            d_outputs[(*members, *tail)] = d_part
    d_outputs = np.asarray(d_outputs, outputs.dtype)
    if every:
        d_outputs = np.moveaxis(d_outputs, -3, 0)
        if run.mask is not None:
            d_outputs = d_outputs * broadcast_mask(run.mask, d_outputs)
    return np.asarray(value), d_outputs


def _ensemble_major(name: str, value: Array | None, own: tuple[int, ...], every: bool) -> Any:
    """Targets or mask (T, *E, B, ...) as (*E, T, B, ...)."""
    if value is None and name == "mask":
        return None
    value = require_array(f"batch.{name}", value)
    first = 1 if every else 0
    if value.shape[first : first + len(own)] != own:
        want = "(T, *E, B, ...)" if every else "(*E, B, ...)"
        raise ShapeError(f"batch.{name} has shape {value.shape}; expected {want} with E = {own}, as the inputs have")
    return np.moveaxis(value, 0, len(own)) if every else value


def _require_positions(targets: Any, outputs: Array, every: bool) -> None:
    """Targets that are arrays must have one entry for each position, or they would be taken for an ensemble's.

    A user's loss may take targets of any other kind.
    """
    positions = outputs.shape[-3:-1] if every else outputs.shape[-2:-1]
    if isinstance(targets, np.ndarray) and targets.shape[: len(positions)] != positions:
        hint = "" if every else '; a network with readout="last" takes targets without a time axis'
        raise ShapeError(
            f"targets have shape {targets.shape}, outputs {outputs.shape}; expected equal axes in front of the features{hint}"
        )


def _pair(found: Any) -> tuple[Array, Array]:
    """What a loss returned, if it is a pair."""
    if not isinstance(found, tuple) or len(found) != 2:
        raise DTypeError(f"loss returned {type(found).__name__}; expected the tuple (value, d_outputs)")
    return found


def _require_cotangent(d_outputs: Array, outputs: Array) -> None:
    if np.shape(d_outputs) != outputs.shape:
        raise ShapeError(f"loss returned d_outputs of shape {np.shape(d_outputs)}; expected that of its outputs, {outputs.shape}")


def read_out_vjp(
    net: Network, run: Pass, d_outputs: Array, workspace: Workspace | None = None, *, short: bool = False
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Adjoint of the read-out: the gradients of V and b_y, and dL/d(outputs) of each layer of the top level.

    `short`: where all rows are read at the last step alone, only that step, (1, *E, B, outputs): the others are zero.
    """
    gradients: dict[str, Array] = {}
    d_seen = d_outputs[None] if net.readout == "last" else d_outputs
    if net.output_size is not None:
        gradients["readout.V"] = outer_rows(d_seen, run.seen)
        gradients["readout.b_y"] = sum_rows(d_seen)
        d_seen = unrows(np.matmul(rows(d_seen), run.params["readout.V"]), d_seen)
    if net.readout == "every":
        return gradients, split_outputs(net.levels[-1], d_seen, run.lengths)
    found, start = {}, 0
    for layer in net.levels[-1]:
        y = run.runs[layer.name].outputs()
        steps = 1 if short and run.lengths is None else y.shape[0]
        found[layer.name] = time_major(workspace, f"{layer.name}.dy", (*y.shape[1:-2], steps, *y.shape[-2:]), y.dtype)
        place_last(d_seen[0, ..., start : start + layer.output_size], found[layer.name], run.lengths)
        start += layer.output_size
    return gradients, found


def split_outputs(level: tuple[Layer, ...], dx: Array, lengths: Array | None) -> dict[str, Array]:
    """The adjoint of the concatenation of a level's outputs, for each layer in its processing order."""
    found, start = {}, 0
    for layer in level:
        own = dx[..., start : start + layer.output_size]
        found[layer.name] = flip(own, lengths) if layer.reverse else own
        start += layer.output_size
    return found
