"""Truncated backpropagation through time, with frozen weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_count
from gradlab.backward import status_of, sum_back, sweep_levels
from gradlab.batch import Batch
from gradlab.errors import ValueRangeError
from gradlab.forward_pass import forward
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.objective import cotangent, read_out_vjp
from gradlab.record import Record, versions
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
    workspace: Workspace | None = None,
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
    run = forward(net, params, batch.inputs, initial_states, lengths=batch.lengths, workspace=workspace)
    with np.errstate(all="ignore"):
        value, d_outputs = cotangent(net, run, batch, loss)
        gradients, dy = read_out_vjp(net, run, d_outputs, workspace)
        top = net.levels[-1][0].name
        blocks = list(_blocks(len(dy[top]), k1, k2))
        for done, (start, newest, stop) in enumerate(blocks, start=1):
            window = replace(run, runs={name: one.window(start, stop) for name, one in run.runs.items()})
            own = dy[top][start:stop].copy()
            own[: newest - start] = 0.0
            found: dict[str, Array] = {}
            sweep_levels(net, window, {top: own}, (), found)
            for key, gradient in found.items():
                gradients[key] = gradients[key] + gradient if key in gradients else gradient
            if progress is not None:
                progress(done, len(blocks))
        total = {key: sum_back(gradients[key], np.shape(params[key])) for key in net.shapes}
    read = batch.inputs.view()
    read.flags.writeable = False
    return Record(
        loss=value,
        outputs=run.outputs,
        gradients=total,
        layers={},
        inputs=read,
        provenance={**versions(), "cell": repr(net.cell), "k1": k1, "k2": k2},
        status=status_of(run, value, list(total.values()), {}),
        lengths=run.lengths,
    )


def _blocks(steps: int, k1: int, k2: int) -> Iterator[tuple[int, int, int]]:
    """(first step reached, first step whose loss counts, stop) of each update."""
    for newest in range(0, steps, k1):
        stop = min(newest + k1, steps)
        yield max(0, stop - k2), newest, stop
