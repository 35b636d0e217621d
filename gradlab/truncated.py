"""Truncated backpropagation through time, with frozen weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_count
from gradlab.backward import assemble, checked_inputs, sweep_levels
from gradlab.batch import Batch
from gradlab.errors import ValueRangeError
from gradlab.forward_pass import forward
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.objective import cotangent, read_out_vjp
from gradlab.record import Record
from gradlab.workspace import Workspace

Array = npt.NDArray[Any]


def truncated_bptt(
    net: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    k1: int,
    k2: int,
    *,
    initial_states: Mapping[str, Array] | None = None,
    first_step: int = 0,
    workspace: Workspace | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Record:
    """The gradient that TBPTT(k1, k2) follows: every `k1` steps, the losses of the newest k1 steps go back at most `k2` steps.

    Of the full gradient, a sum over pairs (t of the loss, k of the parameter's use), these are the pairs
    within reach (Williams & Peng 1990). k1 = k2 = T gives the full gradient; so does k1 = 1 with k2 >= T; k1 = k2 keeps
    exactly the pairs inside one chunk. The weights stay as they are throughout.
    Returns a `Record` with loss, outputs and gradients, and no layers: its adjoints differ from block to block.

    Errors: ValueRangeError for k2 < k1 (some losses would reach nothing) or a bidirectional network, whose reverse
    direction has no past to cut off; otherwise as `bptt`.
    """
    k1, k2 = require_count("k1", k1), require_count("k2", k2)
    if k2 < k1:
        raise ValueRangeError(f"k2 is {k2} and k1 is {k1}; expected k2 >= k1, or the loss of some steps would reach nothing")
    if net.bidirectional:
        raise ValueRangeError("net is bidirectional; truncation needs one direction of time; use bptt")
    inputs = checked_inputs(net, batch, loss)
    run = forward(net, params, inputs, initial_states, lengths=batch.lengths, first_step=first_step, workspace=workspace)
    with np.errstate(all="ignore"):
        value, d_outputs = cotangent(net, run, batch, loss)
        gradients, dy = read_out_vjp(net, run, d_outputs, workspace)
        top = net.levels[-1][0].name
        for key in net.shapes.keys() - gradients.keys():
            gradients[key] = np.zeros_like(run.params[key])
        blocks = list(_blocks(len(dy[top]), k1, k2))
        for done, (start, newest, stop) in enumerate(blocks, start=1):
            if dy[top][newest:stop].any():  # the losses of these steps are all there are here
                window = replace(run, runs={name: one.window(start, stop) for name, one in run.runs.items()})
                own = dy[top][start:stop].copy()
                own[: newest - start] = 0.0
                found: dict[str, Array] = {}
                sweep_levels(net, window, {top: own}, (), found)
                for key, gradient in found.items():
                    gradients[key] = gradients[key] + gradient
            if progress is not None:
                progress(done, len(blocks))
        return assemble(net, params, inputs, run, value, gradients, {}, None, {"k1": k1, "k2": k2, **(provenance or {})})


def _blocks(steps: int, k1: int, k2: int) -> Iterator[tuple[int, int, int]]:
    """(first step reached, first step whose loss counts, stop) of each update."""
    for newest in range(0, steps, k1):
        stop = min(newest + k1, steps)
        yield max(0, stop - k2), newest, stop
