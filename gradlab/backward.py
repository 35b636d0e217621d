"""The engine: backpropagation through time with its instruments switched on.

For each layer from the top down, with e_t the immediate partial of the loss with respect to s_t,

    delta_T = e_T,     delta_t = e_t + J_{t+1}^T delta_{t+1}                (adjoints)
    dL/dtheta = sum_t (d+ s_t / d theta)^T delta_t                           (one contraction, after the sweep)

(Werbos 1990, "Backpropagation through time: what it does and how to do it").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._threads import side_by_side
from gradlab._validate import as_numbers, require_callable, require_sequences
from gradlab.batch import Batch
from gradlab.cells.base import Cell
from gradlab.directions import flip
from gradlab.errors import DTypeError, ValueRangeError
from gradlab.forward_pass import LayerPass, Pass, checked_params, forward
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.objective import cotangent, read_out_vjp, split_outputs
from gradlab.record import SERIES, LayerRecord, Record, versions
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
    first_step: int = 0,
    max_memory: int | None = None,
    workspace: Workspace | None = None,
    threads: int = 1,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Loss, gradients and what `keep` names, of one batch; inputs and parameters are not modified.

    `loss(outputs, targets, mask) -> (value, d_outputs)`: see `gradlab.losses`.
    `initial_states`: {"0": (*E, B, S), ...} by layer, zero where absent; their gradients are row 0 of the adjoints.
    `first_step`: absolute number of the first step, for cells with a clock when a sequence goes on in chunks.
    `max_memory`: bytes that Jacobians may take; by default a share of what the machine has free.
    `workspace`: memory to reuse from call to call; the record then lasts until the next call with it.
    `threads`: members of the first ensemble axis are shared among so many, with the same bits; a user's cell is then called
    from several threads.
    `provenance`: what the caller knows, e.g. {"seed": 7}; versions are added.
    `progress(done, total)` is called after each layer.

    If numbers leave the range of floats the record says so in `status` (which layer, which step).
    Errors: ShapeError, DTypeError, ValueRangeError for bad input; ResourceRefused if the Jacobians would not fit.
    """
    unknown = [name for name in keep if name not in KEEP]
    if isinstance(keep, str) or unknown:
        raise ValueRangeError(f"keep is {keep!r}; expected a sequence of names out of {', '.join(KEEP)}")
    inputs = checked_inputs(net, batch, loss)
    if "jacobians" in keep:
        _require_room(net, checked_params(net, params), inputs, initial_states or {}, max_memory)
    run = forward(
        net, params, inputs, initial_states, lengths=batch.lengths, first_step=first_step, workspace=workspace, threads=threads
    )
    with np.errstate(all="ignore"):  # what leaves the range of floats is found on the results
        value, d_outputs = cotangent(net, run, batch, loss)
        gradients, dy = read_out_vjp(net, run, d_outputs, workspace, short=True)
        layers, dx = sweep_levels(net, run, dy, keep, gradients, workspace, progress)
        return assemble(net, params, inputs, run, value, gradients, layers, dx, provenance or {})


def checked_inputs(net: Network, batch: Batch, loss: Loss) -> Array:
    """The inputs of `batch` as numbers, once it, they and the loss are what they should be."""
    require_callable("loss", loss, "loss(outputs, targets, mask), such as gradlab.mean_squared_error")
    if not isinstance(batch, Batch):
        raise DTypeError(f"batch is a {type(batch).__name__}; expected gradlab.Batch(inputs, targets, mask)")
    inputs = as_numbers("batch.inputs", batch.inputs)
    require_sequences("batch.inputs", inputs, net.input_size)
    return inputs


def assemble(
    net: Network,
    params: Mapping[str, Array],
    inputs: Array,
    run: Pass,
    value: Array,
    gradients: Mapping[str, Array],
    layers: Mapping[str, LayerRecord],
    dx: Array | None,
    provenance: Mapping[str, Any],
) -> Record:
    """The record of a pass, with gradients in the shapes of what they belong to, and its status."""
    found = {key: sum_back(gradients[key], np.shape(params[key])) for key in net.shapes}
    input_gradient = None if dx is None else sum_back(dx, inputs.shape, time_axis=True)
    read = inputs.view()
    read.flags.writeable = False
    return Record(
        loss=value,
        outputs=run.outputs,
        gradients=found,
        layers={name: layers[name] for name in run.runs if name in layers},
        inputs=read,
        input_gradient=input_gradient,
        provenance={**versions(), "cell": repr(net.cell), **provenance},
        status=_status(run, [value, *found.values(), *([] if input_gradient is None else [input_gradient])], layers),
        lengths=run.lengths,
        first_step=int(next(iter(run.runs.values())).t[0]),
    )


def sweep_levels(
    net: Network,
    run: Pass,
    dy: Mapping[str, Array],
    keep: Sequence[str],
    gradients: dict[str, Array],
    workspace: Workspace | None = None,
    progress: Callable[[int, int], None] | None = None,
    pre_adjoints: dict[str, Array] | None = None,
    final: Mapping[str, Array] | None = None,
) -> tuple[dict[str, LayerRecord], Array | None]:
    """All levels from the top down: records by layer and dL/dx (if kept), given dL/d(outputs) `dy` of the top level's layers.

    `dy` is in each layer's processing order; with fewer steps than the pass it is of the last ones, and the others are zero.
    The layers' gradients are added to `gradients`, the adjoints of their
    pre-activations (T, *E, B, K) to `pre_adjoints` if it is given.
    `final`: {"0": (*E, B, S), ...} by layer, the derivative of a loss that also reads the final states; zero where absent.
    Rows that end earlier copy their state to the end, so it reaches each row at its own last step.
    """
    layers: dict[str, LayerRecord] = {}
    dx: Array | None = None
    for depth in reversed(range(len(net.levels))):
        parts = []
        for layer in net.levels[depth]:
            one = run.runs[layer.name]
            layers[layer.name], da = _sweep(one, dy[layer.name], keep, gradients, workspace, (final or {}).get(layer.name))
            if pre_adjoints is not None:
                pre_adjoints[layer.name] = da
            if depth or "input_gradient" in keep:
                back = layer.cell.input_grad(one.p, da)
                parts.append(flip(back, run.lengths) if layer.reverse else back)
            if progress is not None:
                progress(len(layers), len(run.runs))
        if parts:
            dx = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        if depth and dx is not None:
            dy = split_outputs(net.levels[depth - 1], dx, run.lengths)
    return layers, dx


def _sweep(
    run: LayerPass,
    dy: Array,
    keep: Sequence[str],
    gradients: dict[str, Array],
    workspace: Workspace | None,
    final: Array | None,
) -> tuple[LayerRecord, Array]:
    """One layer, backward through time: its record, and the adjoints of its pre-activations."""
    cell, s, a, T = run.layer.cell, run.states, run.tape, len(run.t)

    def sequence(name: str, steps: int, columns: int) -> Array:
        return time_major(workspace, f"{run.layer.name}.{name}", (*s.shape[1:-2], steps, s.shape[-2], columns), s.dtype)

    delta = sequence("adjoints", T + 1, s.shape[-1])  # total dL/ds_t
    da = sequence("da", T, cell.pre_size(run.layer.input_size, run.layer.hidden_size))  # dL/d(pre-activations)
    e = sequence("immediate", T + 1, s.shape[-1]) if "immediate" in keep else None
    own: Mapping[str, Array]
    if run.shares:
        found: list[Mapping[str, Array]] = [{} for _ in run.shares]
        ends = None if final is None else np.broadcast_to(final, delta.shape[1:])

        def back(k: int) -> None:
            span, share = run.shares[k]
            at = np.s_[:, span]
            own_e, end = None if e is None else e[at], None if ends is None else ends[span]
            found[k] = _steps_back(share, dy[at], delta[at], da[at], own_e, end)

        side_by_side([partial(back, k) for k in range(len(found))], len(found))
        own = {key: np.concatenate([one[key] for one in found]) for key in found[0]}
    else:
        own = _steps_back(run, dy, delta, da, e, final)
    gradients.update({f"{run.layer.name}.{key}": value for key, value in own.items()})
    record = LayerRecord(
        parts=run.layer.parts,
        states=s if "states" in keep else None,
        gates=cell.gate_values(a) if "gates" in keep else {},
        immediate=e,
        adjoints=delta if "adjoints" in keep else None,
        jacobians=run.jacobians() if "jacobians" in keep else None,
    )
    return record, da


def _steps_back(run: LayerPass, dy: Array, delta: Array, da: Array, e: Array | None, final: Array | None) -> Mapping[str, Array]:
    """Fill the adjoints `delta`, `da` and the immediate `e`; the gradients of the layer's parameters, by member."""
    cell, p, s, a = run.layer.cell, run.p, run.states, run.tape
    silent = len(run.t) - len(dy)  # rows of delta that nothing reaches but what comes back from the next step
    if getattr(cell.output, "__func__", None) is Cell.output:  # the identity: one pass over memory instead of three
        delta[silent], delta[silent + 1 :] = 0.0, dy
    else:
        delta[silent:] = 0.0
        own, before = np.s_[silent + 1 :], np.s_[silent:-1]
        cell.output_vjp(s[own], s[before], dy, delta[own], delta[before])  # it starts as e_t, the immediate partial of L
    if final is not None:
        delta[-1] += final
    if e is not None:
        e[:silent], e[silent:] = 0.0, delta[silent:]
    carried = np.empty(delta.shape[1:], s.dtype)  # J_{t+1}^T delta_{t+1}
    for k in reversed(range(len(run.t))):
        back = carried if k >= silent else delta[k]
        cell.step_vjp(p, a[k], s[k], s[k + 1], delta[k + 1], da[k], back, int(run.t[k]))
        if run.mask is not None:  # a step that does not exist copies the state
            absent = ~run.mask[k][:, None]
            np.copyto(da[k], 0.0, where=absent)
            np.copyto(back, delta[k + 1], where=absent)
        if k >= silent:
            delta[k] += carried
    return cell.param_grads(p, run.x, a, s, da, delta, run.t)


def sum_back(gradient: Array, shape: tuple[int, ...], time_axis: bool = False) -> Array:
    """Sum a gradient over the ensemble axes along which its variable was broadcast."""
    if gradient.shape == shape:
        return np.asarray(gradient)  # of a single number, a sum of arrays is a NumPy scalar
    first = 1 if time_axis else 0
    extra = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(first, first + extra)))
    stretched = tuple(k for k, (n, m) in enumerate(zip(gradient.shape, shape, strict=True)) if n != m)
    return np.asarray(gradient.sum(axis=stretched, keepdims=True) if stretched else gradient)


def _require_room(
    net: Network, params: Mapping[str, Array], inputs: Array, initial: Mapping[str, Array], max_memory: int | None
) -> None:
    """Refuse Jacobians that would not fit, before anything is allocated."""
    axes = [net.ensemble_shape(key, value) for key, value in params.items()]
    axes += [np.shape(value)[:-2] for value in initial.values()]
    try:
        members = math.prod(np.broadcast_shapes(inputs.shape[1:-2], *axes))
    except ValueError:
        return  # the forward pass says what does not fit together
    T, B = inputs.shape[0], inputs.shape[-2]
    itemsize = np.result_type(inputs, *params.values(), *initial.values()).itemsize
    entries = sum(T * B * members * layer.state_size**2 for layer in net.layers)
    sizes = ", ".join(f"S = {layer.state_size}" for layer in net.layers)
    refuse_above(
        entries * itemsize,
        max_memory,
        f'keep=(..., "jacobians") of T = {T}, B = {B}, {sizes}',
        "use gradlab.analysis.jacobians(net, params, record), which computes them one step at a time",
    )


def _status(run: Pass, results: Sequence[Array], layers: Mapping[str, LayerRecord]) -> Status:
    """`ok`, or where numbers first left the range of floats, in what is kept."""
    kept = [getattr(layer, name) for layer in layers.values() for name in SERIES]
    finite: list[bool] = []

    def look(array: Array) -> None:
        finite.append(bool(np.isfinite(array).all()))

    looks = [partial(look, array) for array in [*results, *kept] if array is not None]
    side_by_side(looks, max(1, *(len(one.shares) for one in run.runs.values())))
    if all(finite):
        return OK
    for name, one in run.runs.items():
        bad = _not_finite(one.states)
        if bad.any():
            return Status("overflow", f"forward: state of layer {name} non-finite from t = {int(np.argmax(bad))} on")
    for name, layer in reversed(list(layers.items())):
        if layer.adjoints is not None and _not_finite(layer.adjoints).any():
            last = int(np.flatnonzero(_not_finite(layer.adjoints))[-1])
            return Status("overflow", f"backward: adjoint of layer {name} non-finite from t = {last} down")
    return Status("overflow", "the loss, a gradient or a Jacobian is non-finite; states and adjoints are finite")


def _not_finite(sequence: Array) -> Array:
    """(T+1,) booleans: the steps at which some number is not finite."""
    return np.asarray(~np.isfinite(sequence).all(axis=tuple(range(1, sequence.ndim))))
