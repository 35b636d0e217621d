"""The Jacobian of a whole stack of layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab.analysis.jacobian_stream import replay
from gradlab.errors import ValueRangeError
from gradlab.forward_pass import LayerPass
from gradlab.network import Network
from gradlab.record import Record

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class NetworkJacobian:
    """J_t = ds_t/ds_{t-1} of s_t = (s^0_t, s^1_t, ...), all layers concatenated: block-lower-triangular, (T, *E, B, S, S).

    A layer reads what the layer below emits at the SAME step, so that it depends on the lower states one step back. `spans`:
    first and last column of each layer; `diagonal`: each layer's own Jacobian (its exponents are those of the stack);
    `inputs`: G_t = ds_t/dx_t of each layer with respect to what it reads, (T, *E, B, S_l, D_l).
    """

    matrix: Array
    spans: Mapping[str, tuple[int, int]]
    diagonal: Mapping[str, Array]
    inputs: Mapping[str, Array]


def network_jacobian(net: Network, params: Mapping[str, Array], record: Record, max_memory: int | None = None) -> NetworkJacobian:
    """Assemble the stack's Jacobians at every step of a record made with keep=("states", ...).

    `max_memory`: bytes it may take; by default a share of what the machine has free.
    Errors: ResourceRefused if it would not fit; ValueRangeError if `params` are not those of the record, or if `net` is
    bidirectional (above its first layer no single state is causal: take each layer's own Jacobians).
    """
    if net.bidirectional:
        raise ValueRangeError(
            "net is bidirectional; its layers have no common forward product; use gradlab.analysis.jacobians for each of them"
        )
    runs = replay(net, params, record)
    total = sum(layer.state_size for layer in net.layers)
    parts = sum(layer.state_size * (layer.state_size + layer.input_size) for layer in net.layers)
    states = next(iter(runs.values())).states
    needed = (total * total + parts) * states[1:, ..., 0].size * states.itemsize
    refuse_above(needed, max_memory, f"the Jacobian of a stack of S = {total}", "take gradlab.analysis.jacobians layer by layer")
    spans, start = {}, 0
    for name, run in runs.items():
        spans[name] = (start, start + run.states.shape[-1])
        start += run.states.shape[-1]
    diagonal = {name: run.jacobians() for name, run in runs.items()}
    inputs = {name: run.input_jacobians() for name, run in runs.items()}
    first = next(iter(diagonal.values()))
    matrix = np.zeros((*first.shape[:-2], start, start), first.dtype)
    names = list(runs)
    for level, name in enumerate(names):
        own = slice(*spans[name])
        matrix[..., own, own] = diagonal[name]
        if level:
            below = names[level - 1]
            now, before = _output_jacobians(runs[below])
            # ds^l/ds_{t-1} = G (d y/d s^{l-1}_t  d s^{l-1}_t/d s_{t-1} + d y/d s^{l-1}_{t-1})
            emitted = np.matmul(now, matrix[..., slice(*spans[below]), : spans[below][1]])
            emitted[..., spans[below][0] :] += before
            matrix[..., own, : spans[below][1]] = np.matmul(inputs[name], emitted)
    return NetworkJacobian(matrix, spans, diagonal, inputs)


def _output_jacobians(run: LayerPass) -> tuple[Array, Array]:
    """Derivatives dy_t/ds_t and dy_t/ds_{t-1} of a layer's output, (T, *E, B, outputs, S) each."""
    s, s_prev = run.states[1:], run.states[:-1]
    y = run.outputs()
    now, before = (np.zeros((*y.shape, s.shape[-1]), y.dtype) for _ in range(2))
    for k in range(y.shape[-1]):
        unit = np.zeros_like(y)
        unit[..., k] = 1.0
        run.layer.cell.output_vjp(s, s_prev, unit, now[..., k, :], before[..., k, :])
    return now, before
