"""The gradient taken apart by time: by the step of the loss, the step at which the weights were used, and the lag between.

    dL/dtheta = sum_{t >= k} (d+ s_k/d theta)^T Phi(t, k)^T e_t
is a sum over pairs (t of the loss, k of the use), the temporal components of Pascanu, Mikolov & Bengio (2013), eq. 4. L_t is
the part of L that enters through the output at step t. The backward sweep is linear in the e_t, so that of each L_t alone is
one more member of an ensemble; members run together in chunks that fit a memory limit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab._memory import memory_limit, refuse_above
from gradlab.backward import checked_inputs, sum_back
from gradlab.batch import Batch
from gradlab.errors import ValueRangeError
from gradlab.forward_pass import LayerPass, Pass, forward
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.objective import cotangent, read_out_vjp
from gradlab.status import OK, Status
from gradlab.workspace import time_major

Array = npt.NDArray[Any]
Visit = Callable[[str, int, dict[str, Array]], None]

CHUNK = 2**28
"""Bytes of adjoints that are held at a time, unless the memory limit is lower."""


@dataclass(frozen=True)
class TemporalComponents:
    """The gradient of each parameter of the recurrent layers, in parts that add up to it. Row t - 1, k - 1 for step t, k.

    `by_step` (T, *own shape): through the use of the parameter at step k, by the losses of that and all later steps.
    `by_lag` (T, *own shape): row l through uses l steps before the loss.
    `log_pairs` (T, T, *ensemble axes of the parameter): ln norm of the component of (t of the loss, k of the use), all
    sequences together; -inf for k > t. A read-out has no part in this: it acts at lag 0 only.
    """

    by_step: Mapping[str, Array]
    by_lag: Mapping[str, Array]
    log_pairs: Mapping[str, Array]
    status: Status


@dataclass(frozen=True)
class FlowMap:
    """ln norm of dL_t/ds_k, the gradient of the loss of step t alone: (T, T+1, *E, B), row t - 1 and column k; -inf for k > t.

    Keys are "layer/part", e.g. "0/h", and "layer" for the whole state. `log_total` (T+1, *E, B): of the sum over t, the
    gradient that training follows; where it is far below the largest entry of its column, losses cancel each other.
    """

    log_norm: Mapping[str, Array]
    log_total: Mapping[str, Array]
    status: Status


def temporal_components(
    net: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    *,
    parameters: Collection[str] | None = None,
    initial_states: Mapping[str, Array] | None = None,
    first_step: int = 0,
    max_memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TemporalComponents:
    """Split the gradient of one batch by the step of the use, by lag, and by pairs of steps.

    `parameters`: those to split, by default all of the recurrent layers. The work is that of T/2 backward passes.
    `max_memory`: bytes it may take; by default a share of what the machine has free. `progress(done, T)`: losses so far.
    Errors: ValueRangeError for a bidirectional network, whose lags have no one direction, and for an unknown parameter;
    ResourceRefused if T copies of the gradients would not fit; otherwise as `bptt`.
    """
    known = [key for key in net.shapes if not key.startswith("readout.")]
    chosen = known if parameters is None else [parameters] if isinstance(parameters, str) else list(parameters)
    if unknown := [key for key in chosen if key not in known]:
        raise ValueRangeError(f"parameters are {unknown}; expected some of {', '.join(known)}")
    run, dy = _start(net, params, batch, loss, initial_states, first_step)
    T, dtype = len(dy), dy.dtype
    shapes = {key: np.shape(params[key]) for key in chosen}
    needed = 2 * T * sum(int(np.prod(shape)) for shape in shapes.values()) * dtype.itemsize
    refuse_above(needed, max_memory, f"the split of {len(chosen)} gradients into T = {T} steps and lags", "name fewer parameters")
    by_step, by_lag = ({key: np.zeros((T, *shape), dtype) for key, shape in shapes.items()} for _ in range(2))
    ensembles = {key: net.ensemble_shape(key, np.asarray(params[key])) for key in chosen}
    log_pairs = {key: np.full((T, T, *ensembles[key]), -np.inf) for key in chosen}

    for first, stop, sweep in _chunks(net, run, dy, sum(map(_size, shapes.values())), max_memory):

        def collect(layer: str, k: int, gradients: dict[str, Array], first: int = first, stop: int = stop) -> None:
            start = max(first, k)  # a loss says nothing about later uses
            for name, gradient in gradients.items():
                key = f"{layer}.{name}"
                if key in shapes:
                    own = sum_back(gradient[start - first :], (stop - start, *shapes[key]), time_axis=True)
                    by_step[key][k] += own.sum(axis=0)
                    by_lag[key][start - k : stop - k] += own
                    axes = tuple(range(1 + len(ensembles[key]), own.ndim))
                    log_pairs[key][start:stop, k] = log_norm(own, axes)

        with np.errstate(all="ignore"):  # what leaves the range of floats is found on the results
            for _ in sweep(collect):
                pass
        if progress is not None:
            progress(stop, T)
    return TemporalComponents(by_step, by_lag, log_pairs, _status([*by_step.values(), *by_lag.values()]))


def flow_map(
    net: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    *,
    initial_states: Mapping[str, Array] | None = None,
    first_step: int = 0,
    max_memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FlowMap:
    """How large the gradient of each step's loss is at each earlier step: the map of norm(dL_t/ds_k).

    Arguments and errors as for `temporal_components`, without parameters; ResourceRefused if the map itself would not fit.
    """
    run, dy = _start(net, params, batch, loss, initial_states, first_step)
    T = len(dy)
    keys = [(layer.name, layer.name, (0, layer.state_size)) for layer in net.layers]
    keys += [(layer.name, f"{layer.name}/{part}", span) for layer in net.layers for part, span in layer.parts.items()]
    lead = next(iter(run.runs.values())).states.shape[1:-1]
    refuse_above(
        T * (T + 1) * _size(lead) * 8 * len(keys), max_memory, f"the map of T = {T} losses and steps", "use fewer sequences"
    )
    norms = {key: np.full((T, T + 1, *lead), -np.inf) for _, key, _ in keys}
    totals = {name: np.zeros_like(one.states) for name, one in run.runs.items()}
    for first, stop, sweep in _chunks(net, run, dy, 0, max_memory):
        with np.errstate(all="ignore"):
            for name, delta in sweep(None):
                totals[name][: stop + 1] += delta.sum(axis=1)
                for layer, key, (start, end) in keys:
                    if layer == name:
                        norms[key][first:stop, : stop + 1] = np.moveaxis(log_norm(delta[..., start:end]), 1, 0)
        if progress is not None:
            progress(stop, T)
    log_total = {key: log_norm(totals[layer][..., start:end]) for layer, key, (start, end) in keys}
    return FlowMap(norms, log_total, _status(list(totals.values())))


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _start(
    net: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    initial_states: Mapping[str, Array] | None,
    first_step: int,
) -> tuple[Pass, Array]:
    """The forward pass, and dL/d(outputs of the top layer), (T, *E, B, outputs): its row t - 1 is that of L_t."""
    if net.bidirectional:
        raise ValueRangeError("net is bidirectional; a lag needs one direction of time; split each direction as a net of its own")
    inputs = checked_inputs(net, batch, loss)
    run = forward(net, params, inputs, initial_states, lengths=batch.lengths, first_step=first_step)
    with np.errstate(all="ignore"):
        _, d_outputs = cotangent(net, run, batch, loss)
        return run, read_out_vjp(net, run, d_outputs)[1][net.levels[-1][0].name]


def _chunks(
    net: Network, run: Pass, dy: Array, gradients: int, max_memory: int | None
) -> Iterator[tuple[int, int, Callable[[Visit | None], Iterator[tuple[str, Array]]]]]:
    """(first loss, stop, sweep) of each chunk of losses; `sweep(visit)` yields the adjoints of every layer."""
    lead = run.runs[net.layers[0].name].states.shape[1:-1]
    columns = sum(
        2 * one.state_size + one.cell.pre_size(one.input_size, one.hidden_size) + one.output_size + one.input_size
        for one in net.layers
    )
    each = (len(dy) + 1) * columns * _size(lead) * dy.itemsize + 4 * gradients * dy.itemsize
    refuse_above(each, max_memory, "the backward sweep of one loss", "use fewer sequences")
    few = max(1, min(CHUNK, memory_limit(max_memory)) // each)
    for first in range(0, len(dy), few):
        stop = min(first + few, len(dy))
        if dy[first:stop].any():

            def sweep(visit: Visit | None, first: int = first, stop: int = stop) -> Iterator[tuple[str, Array]]:
                seeds = time_major(None, "", (stop - first, *lead[:-1], stop, lead[-1], dy.shape[-1]), dy.dtype)
                seeds[...] = 0.0
                for m in range(stop - first):
                    seeds[first + m, m] = dy[first + m]
                return _sweep_layers(net, run, seeds, visit)

            yield first, stop, sweep


def _sweep_layers(net: Network, run: Pass, dy: Array, visit: Visit | None) -> Iterator[tuple[str, Array]]:
    """Name and adjoints (T'+1, M, *E, B, S) of every layer from the top down, given dL/d(outputs) (T', M, *E, B, outputs)."""
    for layer in reversed(net.layers):
        prefix = f"{layer.name}."
        own = {key.removeprefix(prefix): value[None] for key, value in run.params.items() if key.startswith(prefix)}
        delta, da, p = _sweep(run.runs[layer.name].window(0, len(dy)), own, dy, visit)
        yield layer.name, delta
        if layer is not net.layers[0]:
            dy = layer.cell.input_grad(p, da)


def _sweep(run: LayerPass, own: dict[str, Array], dy: Array, visit: Visit | None) -> tuple[Array, Array, dict[str, Any]]:
    """The backward sweep of one layer for M losses at once: adjoints, those of the pre-activations, prepared parameters.

    `visit(layer, k, gradients)` is called at each step with the gradients (M, *E, ...) of its use of the parameters.
    """
    cell, T, M = run.layer.cell, len(run.t), dy.shape[1]
    x, s, a = run.x[:, None], run.states[:, None], run.tape[:, :, None]  # one for all losses
    p = cell.prepare(own, (M, *s.shape[2:-1]))
    lead, B, dtype = (M, *s.shape[2:-2]), s.shape[-2], dy.dtype
    delta = time_major(None, "", (*lead, T + 1, B, s.shape[-1]), dtype)
    da = time_major(None, "", (*lead, T, B, cell.pre_size(run.layer.input_size, run.layer.hidden_size)), dtype)
    delta[...] = 0.0
    cell.output_vjp(s[1:], s[:-1], dy, delta[1:], delta[:-1])
    carried = np.empty(delta.shape[1:], dtype)
    for k in reversed(range(T)):
        cell.step_vjp(p, a[k], s[k], s[k + 1], delta[k + 1], da[k], carried, int(run.t[k]))
        if run.mask is not None:
            absent = ~run.mask[k][:, None]
            np.copyto(da[k], 0.0, where=absent)
            np.copyto(carried, delta[k + 1], where=absent)
        delta[k] += carried
        if visit is not None:
            at, ends = slice(k, k + 1), slice(k, k + 2)
            visit(run.layer.name, k, cell.param_grads(p, x[at], a[at], s[ends], da[at], delta[ends], run.t[at]))
    return delta, da, p


def _status(results: list[Array]) -> Status:
    if all(np.isfinite(array).all() for array in results):
        return OK
    return Status("overflow", "some gradients are not finite; see the status of a record made by bptt")
