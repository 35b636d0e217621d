"""Lyapunov exponents straight from a network: the Jacobians are never stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._validate import as_numbers, require_count, require_sequences
from gradlab.analysis._lyapunov_meter import Meter, Progress
from gradlab.analysis._lyapunov_pushes import bytes_per_step, leaner, pushes
from gradlab.analysis.lyapunov import LyapunovSpectrum, read_meter, start_meter
from gradlab.forward_pass import forward
from gradlab.network import Network

Array = npt.NDArray[Any]

CHUNK = 2**23
"""Bytes of states and tapes of a chunk of the forward pass."""


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
    LSTM push the tangent vectors through their equations; of other cells the Jacobians are formed, a few at
    a time. All else as in `lyapunov_spectrum`; `initial_states` and `first_step` as in `gradlab.forward`.
    Errors: as there, and ResourceRefused if `max_memory` bytes do not suffice.
    """
    inputs = as_numbers("inputs", inputs, allow_complex=False)
    require_sequences("inputs", inputs, net.input_size)
    k = None if k is None else require_count("k", k)
    T, states = inputs.shape[0], initial_states
    meters: dict[str, Meter] = {}
    lean = leaner(net)
    first, chunk = 0, 1  # the first step shows the shapes
    while first < T:
        if net.bidirectional:
            chunk = T
        run = forward(lean, params, inputs[first : first + chunk], states, first_step=first_step + first)
        for name, one in run.runs.items():
            if name not in meters:
                lead, S = one.states.shape[1:-1], one.states.shape[-1]
                count = S if k is None else min(k, S)
                held = bytes_per_step(one)
                size = 2 * CHUNK + 3 * held + 64 * math.prod(lead) * S * count
                refuse_above(size, max_memory, f"k = {count} tangent vectors of {lead} states", "ask for a smaller k or batch")
                meters[name] = start_meter(
                    (*lead, S), count, rng, transient, interval, blocks, held=held, planned=T, total=T, progress=progress
                )
            for push in pushes(one, run.params):
                meters[name].feed(push)
        states = run.final_states
        first += chunk
        chunk = max(1, CHUNK // sum(one.states[0].nbytes + one.tape[0].nbytes + one.x[0].nbytes for one in run.runs.values()))
    return {name: read_meter(meter) for name, meter in meters.items()}
