"""gradlab: why a recurrent network does or does not train.

The main path:

    >>> import numpy as np, gradlab
    >>> rng = np.random.default_rng(0)
    >>> net = gradlab.Network(gradlab.LSTM(), input_size=2, hidden_size=16, output_size=1, readout="last")
    >>> params = net.init(rng)
    >>> batch = gradlab.tasks.adding.sample(rng, batch=32, length=100)
    >>> record = gradlab.bptt(net, params, batch, gradlab.mean_squared_error)
    >>> flow = gradlab.analysis.gradient_flow(record)
    >>> flow.log_total["0/c"].shape  # ln |dL/dc_t| for t = 0..T and every sequence
    (101, 32)

Notation, everywhere the same:

    T, B, D, H   steps, batch size, inputs, hidden units; arrays are time-major, (T, B, features)
    E            ensemble axes, any number, in front of a parameter's own axes: U (E, H, H) is E networks
    s_t, S       the WHOLE recurrent state of a layer and its size: h (Elman), (c, h) (LSTM); s_0 initial
    W, U, b      input weights (G*H, D), recurrent weights (G*H, H), bias (G*H,); G gates stacked by rows
    V, b_y       read-out weights (p, outputs of the top layer) and bias (p,)
    i, f, g, o   gates of the LSTM: input, forget, block input, output
    J_t          ds_t/ds_{t-1} (S, S), entry [a, b] = ds_t[a]/ds_{t-1}[b]
    L, e_t       loss; immediate partial of L with respect to s_t, through the outputs at step t only
    delta_t      TOTAL derivative dL/ds_t = e_t + J_{t+1}^T delta_{t+1}: the adjoint
    ln           logarithms are natural; exponents are in nats per step
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gradlab._version import __version__

if TYPE_CHECKING:
    from gradlab import (
        adapters,
        analysis,
        cells,
        checks,
        diagnosis,
        errors,
        inits,
        losses,
        plotting,
        report,
        runs,
        tasks,
        training,
    )
    from gradlab.backward import bptt
    from gradlab.batch import Batch
    from gradlab.cells import GRU, LSTM, SCRN, Cell, Clockwork, Elman, Jordan, irnn, parameter_count
    from gradlab.diagnosis.diagnose import diagnose
    from gradlab.errors import GradlabError
    from gradlab.forward_pass import forward
    from gradlab.losses import mean_squared_error, softmax_cross_entropy
    from gradlab.network import Network
    from gradlab.record import LayerRecord, Record
    from gradlab.truncated import truncated_bptt
    from gradlab.workspace import Workspace

_HOME = {
    "Batch": "gradlab.batch",
    "Cell": "gradlab.cells",
    "Clockwork": "gradlab.cells",
    "Elman": "gradlab.cells",
    "GRU": "gradlab.cells",
    "GradlabError": "gradlab.errors",
    "Jordan": "gradlab.cells",
    "LSTM": "gradlab.cells",
    "LayerRecord": "gradlab.record",
    "Network": "gradlab.network",
    "Record": "gradlab.record",
    "SCRN": "gradlab.cells",
    "Workspace": "gradlab.workspace",
    "bptt": "gradlab.backward",
    "diagnose": "gradlab.diagnosis.diagnose",
    "forward": "gradlab.forward_pass",
    "irnn": "gradlab.cells",
    "mean_squared_error": "gradlab.losses",
    "parameter_count": "gradlab.cells",
    "softmax_cross_entropy": "gradlab.losses",
    "truncated_bptt": "gradlab.truncated",
}
_ROOMS = (
    "adapters",
    "analysis",
    "cells",
    "checks",
    "diagnosis",
    "errors",
    "inits",
    "losses",
    "plotting",
    "report",
    "runs",
    "tasks",
    "training",
)

__all__ = [
    "GRU",
    "LSTM",
    "SCRN",
    "Batch",
    "Cell",
    "Clockwork",
    "Elman",
    "GradlabError",
    "Jordan",
    "LayerRecord",
    "Network",
    "Record",
    "Workspace",
    "__version__",
    "adapters",
    "analysis",
    "bptt",
    "cells",
    "checks",
    "diagnose",
    "diagnosis",
    "errors",
    "forward",
    "inits",
    "irnn",
    "losses",
    "mean_squared_error",
    "parameter_count",
    "plotting",
    "report",
    "runs",
    "softmax_cross_entropy",
    "tasks",
    "training",
    "truncated_bptt",
]


def __getattr__(name: str) -> Any:
    """Load public names on first use (PEP 562), so that `import gradlab` stays light."""
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"gradlab.{name}")
    else:
        raise AttributeError(f"module 'gradlab' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
