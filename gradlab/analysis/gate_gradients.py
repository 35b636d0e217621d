"""How much of the gradient arrives at each gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab.analysis.jacobian_stream import replay
from gradlab.cells.completed import Completed
from gradlab.directions import broadcast_mask
from gradlab.errors import ValueRangeError
from gradlab.network import Network
from gradlab.record import Record
from gradlab.status import Status
from gradlab.workspace import time_major

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class GateFlow:
    """ln norm of dL/da_t, the adjoint of the pre-activation a_t of each gate: (T, *E, B), row t - 1 for step t.

    Keys are "layer/gate"; a cell without gates has its one block of pre-activations under "layer/a". -inf where exactly 0,
    as at steps that do not exist. A gate that is saturated passes little: its adjoint carries the slope of the gate.
    """

    log_norm: Mapping[str, Array]
    status: Status


def gate_flow(net: Network, params: Mapping[str, Array], record: Record) -> GateFlow:
    """How much of the gradient arrives at each gate, at every step, for every sequence.

    `record` must hold "states" and "adjoints"; its inputs are run forward once more, so `params` must be those it was made
    with. Errors: ValueRangeError if they are not, or for a cell that is differentiated from its `step` alone.
    """
    norms: dict[str, Array] = {}
    for name, run in replay(net, params, record).items():
        cell, s, T = run.layer.cell, run.states, len(run.t)
        if isinstance(cell, Completed):
            raise ValueRangeError(
                f"{cell!r} is differentiated from its step, which has no pre-activations of its own; expected a built-in cell, "
                "or one with the whole fast path of gradlab.Cell"
            )
        delta = record.layers[name].series("adjoints")
        columns = cell.pre_size(run.layer.input_size, run.layer.hidden_size)
        da = time_major(None, "", (*s.shape[1:-2], T, s.shape[-2], columns), s.dtype)
        unused = np.empty(s.shape[1:], s.dtype)
        with np.errstate(all="ignore"):
            for k in range(T):
                cell.step_vjp(run.p, run.tape[k], s[k], s[k + 1], delta[k + 1], da[k], unused, int(run.t[k]))
            if run.mask is not None:
                np.copyto(da, 0.0, where=~broadcast_mask(run.mask, da))
        spans = cell.pre_spans(run.layer.hidden_size)
        norms |= {f"{name}/{gate}": log_norm(da[..., first:stop]) for gate, (first, stop) in spans.items()}
    return GateFlow(norms, record.status)
