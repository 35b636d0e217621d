"""The Jacobians of a recorded pass, one step at a time: for sequences whose Jacobians do not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.errors import ValueRangeError
from gradlab.forward_pass import LayerPass, forward
from gradlab.network import Network
from gradlab.record import Record, require_layers

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
    require_layers(record)
    initial = {name: entry.series("states")[0] for name, entry in record.layers.items()}
    runs = forward(net, params, record.inputs, initial, lengths=record.lengths, first_step=record.first_step).runs
    for name, run in runs.items():
        recorded = record.layers[name].series("states")
        # Another BLAS rounds otherwise, and steps amplify it: relative to the largest entry of each step.
        tolerance = max(1e-6, float(np.sqrt(np.finfo(recorded.dtype).eps)))
        with np.errstate(all="ignore"):  # what left the range of floats must have left it again, in the same place
            size = np.abs(recorded).max(axis=tuple(range(1, recorded.ndim)), keepdims=True)
            near = (np.abs(run.states - recorded) <= tolerance * size) | (run.states == recorded)
        if not (near | (np.isnan(run.states) & np.isnan(recorded))).all():
            raise ValueRangeError(
                f"params do not reproduce the recorded states of layer {name}; expected those that the record was made with"
            )
    return runs
