"""Lyapunov exponents straight from a network: the Jacobians are never stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import tanh_slope
from gradlab._memory import refuse_above
from gradlab._validate import as_numbers, require_count, require_sequences
from gradlab.analysis._lyapunov_meter import Meter, Progress
from gradlab.analysis._lyapunov_qr import Push
from gradlab.analysis.lyapunov import LyapunovSpectrum, read_meter, start_meter
from gradlab.cells import LSTM, Elman
from gradlab.cells.base import Cell
from gradlab.forward_pass import LayerPass, forward
from gradlab.network import Network

Array = npt.NDArray[Any]

CHUNK = 2**23
"""Bytes of states and tapes of a chunk of the forward pass."""
FEW = 2**18
"""Bytes of Jacobians computed at a time: what stays in the cache is several times faster."""


def network_lyapunov(
    net: Network,
    params: Mapping[str, Array],
    inputs: Array,
    k: int | None = None,
    *,
    rng: np.random.Generator,
    initial_states: Mapping[str, Array] | None = None,
    first_step: int = 0,
    transient: int | None = None,
    interval: int | None = None,
    blocks: int = 20,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> dict[str, LyapunovSpectrum]:
    """The first `k` exponents of each layer, along the trajectory that `inputs` (T, *E, B, D) drive; nats per step.

    The spectra are keyed by layer ("0", "1", ...; "0.forward", ... if bidirectional) with leading axes (*E, B), of each
    layer's full state: c and h of an LSTM. A stack of layers is block-triangular, so its exponents are those of its layers
    together, each along its own driven trajectory: np.sort(np.concatenate(...)) of them is the spectrum of
    `network_jacobian`. Layers with fewer than `k` state variables give all they have.

    The forward pass runs in chunks, in bounded memory for any T (a bidirectional net needs all of it at once). Elman and
    LSTM without peepholes push the tangent vectors through their equations; of other cells the Jacobians are formed, a few at
    a time. All else as in `lyapunov_spectrum`; `initial_states` and `first_step` as in `gradlab.forward`.
    Errors: as there, and ResourceRefused if `max_memory` bytes do not suffice.
    """
    inputs = as_numbers("inputs", inputs, allow_complex=False)
    require_sequences("inputs", inputs, net.input_size)
    k = None if k is None else require_count("k", k)
    T, states = inputs.shape[0], initial_states
    meters: dict[str, Meter] = {}
    first, chunk = 0, 1  # the first step shows the shapes
    while first < T:
        if net.bidirectional:
            chunk = T
        run = forward(net, params, inputs[first : first + chunk], states, first_step=first_step + first)
        for name, one in run.runs.items():
            if name not in meters:
                lead, S = one.states.shape[1:-1], one.states.shape[-1]
                count = S if k is None else min(k, S)
                held = _bytes_per_step(one)
                size = 2 * CHUNK + 3 * held + 64 * math.prod(lead) * S * count
                refuse_above(size, max_memory, f"k = {count} tangent vectors of {lead} states", "ask for a smaller k or batch")
                meters[name] = start_meter(
                    (*lead, S), count, rng, transient, interval, blocks, held=held, total=T, progress=progress
                )
            for push in _pushes(one):
                meters[name].feed(push)
        states = run.final_states
        first += chunk
        chunk = max(1, CHUNK // sum(one.states[0].nbytes + one.tape[0].nbytes + one.x[0].nbytes for one in run.runs.values()))
    return {name: read_meter(meter) for name, meter in meters.items()}


def _matrix_free(cell: Cell) -> bool:
    return type(cell) is Elman or (type(cell) is LSTM and not cell.peepholes)


def _bytes_per_step(run: LayerPass) -> int:
    """What one step keeps alive until its block is done."""
    lead, S = run.states.shape[1:-1], run.states.shape[-1]
    return int(run.tape[0].nbytes if _matrix_free(run.layer.cell) else run.states.itemsize * math.prod(lead) * S * S)


def _pushes(run: LayerPass) -> Iterator[Push]:
    """Z -> J_t Z for every step of the pass."""
    if _matrix_free(run.layer.cell):
        yield from _through_equations(run)
        return
    S, T = run.states.shape[-1], len(run.t)
    few = max(1, FEW // (run.states[0].nbytes * S))
    for first in range(0, T, few):
        for J in run.window(first, min(first + few, T)).jacobians():
            yield partial(np.matmul, J)


def _through_equations(run: LayerPass) -> Iterator[Push]:
    """The same without S x S matrices: ds_t = (ds_t/da_t) U dh_{t-1}, and for an LSTM the path from c to c beside it.

    Each pre-activation a of a unit reaches that unit alone, so ds_t/da_t is one factor for each gate, unit and part of the state.
    `input_jacobian` is what a layer makes of W x_t: with a column of ones for each gate in the place of W it gives them all.
    """
    cell, H = run.layer.cell, run.layer.hidden_size
    U = run.p["U"]
    gates, parts, lead = U.shape[-2] // H, run.states.shape[-1] // H, run.states.shape[1:-1]
    ones = np.kron(np.eye(gates, dtype=U.dtype), np.ones((H, 1), U.dtype)).reshape(*(1,) * (U.ndim - 2), gates * H, gates)
    factors = cell.input_jacobian(dict(run.p, W=ones), run.tape, run.states[:-1], run.states[1:], run.t)
    factors = factors.reshape(-1, *lead, parts, H, gates).swapaxes(-1, -2)[..., None]  # (T, *E, B, parts, gates, H, 1)
    factors = np.ascontiguousarray(factors, dtype=np.result_type(U, np.float64))
    f = to_h = None
    if isinstance(cell, LSTM):  # dc_t = f dc_{t-1} + ... without o,  dh_t = o (1 - tanh(c_t)^2) dc_t + ... of o alone
        gate = cell.gate_values(run.tape)
        f, to_h = gate["f"][..., None], (gate["o"] * tanh_slope(run.states[1:, ..., :H]))[..., None]  # (T, *E, B, H, 1)
    U = U[..., None, :, :].astype(factors.dtype, copy=False)  # (*E, 1, gates * H, H)
    for t, factor in enumerate(factors):

        def push(Z: Array, t: int = t, factor: Array = factor) -> Array:
            da = np.matmul(U, Z[..., -H:, :]).reshape(*lead, gates, H, -1)
            if f is None or to_h is None:
                return np.asarray((factor[..., 0, :, :, :] * da).sum(axis=-3))
            dc = (factor[..., 0, :-1, :, :] * da[..., :-1, :, :]).sum(axis=-3)
            dc += f[t] * Z[..., :H, :]
            dh = factor[..., 1, -1, :, :] * da[..., -1, :, :]
            dh += to_h[t] * dc
            return np.concatenate([dc, dh], axis=-2)

        yield push
