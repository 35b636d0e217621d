"""The engine: backpropagation through time with its instruments switched on.

For each layer from the top down, with e_t the immediate partial of the loss with respect to s_t,

    delta_T = e_T,     delta_t = e_t + J_{t+1}^T delta_{t+1}                (adjoints)
    dL/dtheta = sum_t (d+ s_t / d theta)^T delta_t                           (one contraction, after the sweep)

(Werbos 1990, "Backpropagation through time: what it does and how to do it").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._validate import as_numbers
from gradlab.batch import Batch
from gradlab.cells.base import outer_rows, rows, sum_rows, unrows
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.losses import Loss
from gradlab.network import LayerPass, Network, Pass, forward
from gradlab.record import LayerRecord, Record, versions
from gradlab.status import OK, Status
from gradlab.workspace import Workspace, time_major

Array = npt.NDArray[Any]

DEFAULT_KEEP = ("states", "gates", "immediate", "adjoints")
KEEP = (*DEFAULT_KEEP, "jacobians", "input_gradient")
"""What a record can hold."""


def bptt(
    net: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    keep: Sequence[str] = DEFAULT_KEEP,
    *,
    initial_states: Mapping[str, Array] | None = None,
    max_memory: int | None = None,
    workspace: Workspace | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Loss, gradients and what `keep` names, of one batch; inputs and parameters are not modified.

    `loss(outputs, targets, mask) -> (value, d_outputs)`: see `gradlab.losses`.
    `max_memory`: bytes that Jacobians may take; by default a share of what the machine has free.
    `workspace`: memory to reuse from call to call; the record then lasts until the next call with it.
    `provenance`: what the caller knows, e.g. {"seed": 7}; versions are added.
    `progress(done, total)` is called after each layer.

    If numbers leave the range of floats the record says so in `status` (which layer, which step).
    Errors: ShapeError, DTypeError, ValueRangeError for bad input; ResourceRefused if the Jacobians would not fit.
    """
    unknown = [name for name in keep if name not in KEEP]
    if isinstance(keep, str) or unknown:
        raise ValueRangeError(f"keep is {keep!r}; expected a sequence of names out of {', '.join(KEEP)}")
    if not isinstance(batch, Batch):
        raise DTypeError(f"batch is a {type(batch).__name__}; expected gradlab.Batch(inputs, targets, mask)")
    inputs = as_numbers("batch.inputs", batch.inputs)
    if "jacobians" in keep:
        _require_room(net, params, inputs, max_memory)
    run = forward(net, params, inputs, initial_states, workspace=workspace)
    with np.errstate(all="ignore"):  # what leaves the range of floats is found on the results
        value, d_outputs = _loss(net, run, batch, loss)
        gradients: dict[str, Array] = {}
        layers: dict[str, LayerRecord] = {}
        dy = _read_out_vjp(net, run, d_outputs, gradients, workspace)
        for done, layer in enumerate(reversed(run.layers), start=1):
            layers[layer.layer.name], da = _sweep(layer, dy, keep, gradients, workspace)
            if layer is not run.layers[0] or "input_gradient" in keep:
                dy = layer.layer.cell.input_grad(layer.p, da)
            if progress is not None:
                progress(done, len(run.layers))
    read = inputs.view()
    read.flags.writeable = False
    record = Record(
        loss=value,
        outputs=run.outputs,
        gradients={key: _sum_back(gradients[key], np.shape(params[key])) for key in net.shapes},
        layers={layer.layer.name: layers[layer.layer.name] for layer in run.layers},
        inputs=read,
        input_gradient=_sum_back(dy, inputs.shape, time_axis=True) if "input_gradient" in keep else None,
        provenance={**versions(), "cell": repr(net.cell), **(provenance or {})},
        status=_status(run, value, gradients, layers),
    )
    return record


def _sweep(
    run: LayerPass, dy: Array, keep: Sequence[str], gradients: dict[str, Array], workspace: Workspace | None
) -> tuple[LayerRecord, Array]:
    """One layer, backward through time: its record, and the adjoints of its pre-activations."""
    cell, p, s, a, T = run.layer.cell, run.p, run.states, run.tape, len(run.t)

    def sequence(name: str, steps: int, columns: int) -> Array:
        return time_major(workspace, f"{run.layer.name}.{name}", (*s.shape[1:-2], steps, s.shape[-2], columns), s.dtype)

    e = sequence("immediate", T + 1, s.shape[-1])  # immediate partial of L with respect to s_t
    delta = sequence("adjoints", T + 1, s.shape[-1])  # total dL/ds_t
    da = sequence("da", T, cell.pre_size(run.layer.input_size, run.layer.hidden_size))  # dL/d(pre-activations)
    e[...] = 0.0
    cell.output_vjp(s[1:], s[:-1], dy, e[1:], e[:-1])
    delta[T] = e[T]
    for k in reversed(range(T)):
        cell.step_vjp(p, a[k], s[k], s[k + 1], delta[k + 1], da[k], delta[k], int(run.t[k]))
        delta[k] += e[k]
    own = cell.param_grads(p, run.x, a, s, da, delta, run.t)
    gradients.update({f"{run.layer.name}.{key}": value for key, value in own.items()})
    record = LayerRecord(
        parts=run.layer.parts,
        states=s if "states" in keep else None,
        gates=cell.gate_values(a) if "gates" in keep else {},
        immediate=e if "immediate" in keep else None,
        adjoints=delta if "adjoints" in keep else None,
        jacobians=cell.jacobian(p, a, s[:-1], s[1:], run.t) if "jacobians" in keep else None,
    )
    return record, da


def _loss(net: Network, run: Pass, batch: Batch, loss: Loss) -> tuple[Array, Array]:
    """The loss and its derivative, of the shape of the outputs.

    The loss sees ensemble axes in front of (T, B, p). Where members read their own sequences (the inputs have
    ensemble axes) it is called once for each sequence set, on the members that read it.
    """
    every = net.readout == "every"
    outputs = np.moveaxis(run.outputs, 0, -3) if every else run.outputs
    own = batch.inputs.shape[1:-2]
    if not own:
        value, d_outputs = loss(outputs, batch.targets, batch.mask)
        _require_cotangent(d_outputs, outputs)
    else:
        targets, mask = (_ensemble_major(name, getattr(batch, name), own, every) for name in ("targets", "mask"))
        tail = (slice(None),) * (3 if every else 2)
        value = np.empty(outputs.shape[: outputs.ndim - len(tail)], outputs.dtype)
        d_outputs = np.empty_like(outputs)
        for index in np.ndindex(own):
            members = (..., *(slice(None) if n == 1 else k for n, k in zip(own, index, strict=True)))
            part = outputs[(*members, *tail)]
            value[members], d_part = loss(part, targets[index], None if mask is None else mask[index])
            _require_cotangent(d_part, part)
            d_outputs[(*members, *tail)] = d_part
    d_outputs = np.asarray(d_outputs, outputs.dtype)
    return np.asarray(value), np.moveaxis(d_outputs, -3, 0) if every else d_outputs


def _ensemble_major(name: str, value: Array | None, own: tuple[int, ...], every: bool) -> Any:
    """Targets or mask (T, *E, B, ...) as (*E, T, B, ...)."""
    if value is None:
        return None
    first = 1 if every else 0
    if value.shape[first : first + len(own)] != own:
        want = "(T, *E, B, ...)" if every else "(*E, B, ...)"
        raise ShapeError(f"batch.{name} has shape {value.shape}; expected {want} with E = {own}, as the inputs have")
    return np.moveaxis(value, 0, len(own)) if every else value


def _require_cotangent(d_outputs: Array, outputs: Array) -> None:
    if np.shape(d_outputs) != outputs.shape:
        raise ShapeError(f"loss returned d_outputs of shape {np.shape(d_outputs)}; expected that of its outputs, {outputs.shape}")


def _read_out_vjp(net: Network, run: Pass, d_outputs: Array, gradients: dict[str, Array], workspace: Workspace | None) -> Array:
    """Adjoint of the read-out: fills the gradients of V and b_y, returns dL/d(outputs of the top layer)."""
    y = run.layers[-1].outputs()
    at = y[-1:] if net.readout == "last" else y
    d_at = d_outputs[None] if net.readout == "last" else d_outputs
    if net.output_size is not None:
        gradients["readout.V"] = outer_rows(d_at, at)
        gradients["readout.b_y"] = sum_rows(d_at)
        d_at = unrows(np.matmul(rows(d_at), run.params["readout.V"]), d_at)
    if net.readout == "every":
        return d_at
    dy = time_major(workspace, "dy", (*y.shape[1:-2], y.shape[0], *y.shape[-2:]), y.dtype)
    dy[...] = 0.0
    dy[-1] = d_at[0]
    return dy


def _sum_back(gradient: Array, shape: tuple[int, ...], time_axis: bool = False) -> Array:
    """Sum a gradient over the ensemble axes along which its variable was broadcast."""
    if gradient.shape == shape:
        return gradient
    first = 1 if time_axis else 0
    extra = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(first, first + extra)))
    stretched = tuple(k for k, (n, m) in enumerate(zip(gradient.shape, shape, strict=True)) if n != m)
    return np.asarray(gradient.sum(axis=stretched, keepdims=True)) if stretched else gradient


def _require_room(net: Network, params: Mapping[str, Array], inputs: Array, max_memory: int | None) -> None:
    """Refuse Jacobians that would not fit, before anything is allocated."""
    ensemble = [net.ensemble_shape(k, v) for k, v in params.items() if k in net.shapes and isinstance(v, np.ndarray)]
    members = int(np.prod(np.broadcast_shapes(inputs.shape[1:-2], *ensemble)))
    T, B = inputs.shape[0], inputs.shape[-2]
    itemsize = np.result_type(inputs, *(v for v in params.values() if isinstance(v, np.ndarray))).itemsize
    entries = sum(T * B * members * layer.state_size**2 for layer in net.layers)
    sizes = ", ".join(f"S = {layer.state_size}" for layer in net.layers)
    refuse_above(
        entries * itemsize,
        max_memory,
        f'keep=(..., "jacobians") of T = {T}, B = {B}, {sizes}',
        "use gradlab.analysis.jacobians(net, params, record), which computes them one step at a time",
    )


def _status(run: Pass, value: Array, gradients: dict[str, Array], layers: dict[str, LayerRecord]) -> Status:
    """`ok`, or where numbers first left the range of floats."""
    if np.isfinite(value).all() and all(np.isfinite(g).all() for g in gradients.values()):
        return OK
    for layer in run.layers:
        bad = ~np.isfinite(layer.states).all(axis=tuple(range(1, layer.states.ndim)))
        if bad.any():
            return Status("overflow", f"forward: state of layer {layer.layer.name} non-finite from t = {int(np.argmax(bad))} on")
    for layer in reversed(run.layers):
        adjoints = layers[layer.layer.name].adjoints
        if adjoints is not None:
            bad = np.asarray(~np.isfinite(adjoints).all(axis=tuple(range(1, adjoints.ndim))))
            if bad.any():
                last = len(bad) - 1 - int(np.argmax(bad[::-1]))
                return Status("overflow", f"backward: adjoint of layer {layer.layer.name} non-finite from t = {last} down")
    return Status("overflow", "loss or a gradient is non-finite, states and adjoints are finite")
