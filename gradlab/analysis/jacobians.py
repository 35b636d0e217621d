"""The Jacobians of a recorded pass, one step at a time: for sequences whose Jacobians do not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.errors import ValueRangeError
from gradlab.network import LayerPass, Network, forward
from gradlab.record import Record

Array = npt.NDArray[Any]


def jacobians(net: Network, params: Mapping[str, Array], record: Record, layer: str = "0") -> Iterator[Array]:
    """J_1, ..., J_T of `layer`, (*E, B, S, S) each, the full state; one step is in memory at a time.

    `record` must hold "states"; its inputs are run forward once more, so `params` must be those it was made with.
    Errors: ValueRangeError if there is no such layer, or if the replay does not give the recorded states.
    """
    if layer not in record.layers:
        raise ValueRangeError(f"layer is {layer!r}; expected one of {', '.join(record.layers)}")
    states = record.layers[layer].series("states")
    initial = {name: entry.series("states")[0] for name, entry in record.layers.items()}
    run = next(run for run in forward(net, params, record.inputs, initial).layers if run.layer.name == layer)
    if not np.allclose(run.states, states, rtol=1e-6, atol=0.0, equal_nan=True):
        raise ValueRangeError(
            "params do not reproduce the recorded states; expected the parameters that the record was made with"
        )
    return _each(run)


def _each(run: LayerPass) -> Iterator[Array]:
    for k in range(len(run.t)):
        at = slice(k, k + 1)
        yield run.layer.cell.jacobian(run.p, run.tape[at], run.states[at], run.states[k + 1 : k + 2], run.t[at])[0]
