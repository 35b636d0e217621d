"""The training step: gradlab's with its instruments on, torch's plain one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

import gradlab
from analyses._speed_rows import Row, Sides, require_equal

TOLERANCES = {"float64": 1e-12, "float32": 1e-4}
"""Two right gradients differ by rounding, which 100 steps amplify."""


def training_step(kind: str, dtype: str, rng: np.random.Generator, p: Mapping[str, Any]) -> Sides:
    """The same training step twice: forward and backward pass of one batch."""
    import torch

    T, B, D, H = p["T"], p["B"], p["D"], p["H"]
    x, target = (rng.normal(size=(T, B, n)).astype(dtype) for n in (D, H))
    cell, module = (gradlab.LSTM(), torch.nn.LSTM(D, H)) if kind == "LSTM" else (gradlab.Elman("tanh"), torch.nn.RNN(D, H))
    module = module.to(getattr(torch, dtype))
    net = gradlab.Network(cell, D, H)
    params = {
        "0.W": module.weight_ih_l0.detach().numpy(),
        "0.U": module.weight_hh_l0.detach().numpy(),
        "0.b": (module.bias_ih_l0 + module.bias_hh_l0).detach().numpy(),
    }
    batch, workspace = gradlab.Batch(x, target), gradlab.Workspace()
    x_t, target_t = torch.from_numpy(x), torch.from_numpy(target)

    def ours() -> gradlab.Record:
        return gradlab.bptt(net, params, batch, gradlab.mean_squared_error, ("states", "adjoints"), workspace=workspace)

    def theirs() -> Any:
        module.zero_grad()
        y, _ = module(x_t)
        torch.nn.functional.mse_loss(y, target_t).backward()
        return module.weight_hh_l0.grad

    require_equal(f"{kind} {dtype}", "gradients", "torch", ours().gradients["0.U"], theirs(), TOLERANCES[dtype])
    return ours, {"torch": theirs}


ROWS = tuple(
    Row(
        f"{kind} {dtype}", partial(training_step, kind, dtype), {"torch": 1.0 if dtype == "float64" else None}, dtype == "float64"
    )
    for dtype in TOLERANCES
    for kind in ("LSTM", "Elman")
)
