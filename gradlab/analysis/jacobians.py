"""The Jacobians of a recorded pass, one step at a time: for sequences whose Jacobians do not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.errors import ValueRangeError
from gradlab.forward_pass import LayerPass, forward
from gradlab.network import Network
from gradlab.record import Record

Array = npt.NDArray[Any]


def jacobians(net: Network, params: Mapping[str, Array], record: Record, layer: str = "0") -> Iterator[Array]:
    """J_1, ..., J_T of `layer`, (*E, B, S, S) each, the full state; one step is in memory at a time.

    In the layer's own processing order. `record` must hold "states"; its inputs are run forward once more, so `params` must
    be those it was made with. Errors: ValueRangeError if there is no such layer, or the replay gives other states.
    """
    if layer not in record.layers:
        raise ValueRangeError(f"layer is {layer!r}; expected one of {', '.join(record.layers)}")
    run = replay(net, params, record)[layer]
    return (run.window(k, k + 1).jacobians()[0] for k in range(len(run.t)))


def replay(net: Network, params: Mapping[str, Array], record: Record) -> Mapping[str, LayerPass]:
    """The forward pass of a record once more, by layer. Error: ValueRangeError if it gives other states than the recorded."""
    initial = {name: entry.series("states")[0] for name, entry in record.layers.items()}
    runs = forward(net, params, record.inputs, initial, lengths=record.lengths).runs
    for name, run in runs.items():
        if not np.allclose(run.states, record.layers[name].series("states"), rtol=1e-6, atol=0.0, equal_nan=True):
            raise ValueRangeError(
                f"params do not reproduce the recorded states of layer {name}; expected those that the record was made with"
            )
    return runs
