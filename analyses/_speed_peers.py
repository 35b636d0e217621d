"""The LSTM of the comparison, written for torch and for JAX as their users would: one step, and a mean squared error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab

Array = npt.NDArray[Any]
Step = Callable[..., Any]
KEYS = ("0.W", "0.U", "0.b")


def torch_step(cell: str, params: Mapping[str, Array]) -> Step:
    """step(s, x_t) of one sequence, s = (c, h) of an LSTM or h of an Elman net."""
    import torch

    W, U, b = (torch.from_numpy(params[key]) for key in KEYS)
    H = U.shape[1]

    def lstm(s: Any, x: Any) -> Any:
        c, h = s[:H], s[H:]
        i, f, g, o = (W @ x + U @ h + b).split(H)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([c, torch.sigmoid(o) * torch.tanh(c)])

    def elman(s: Any, x: Any) -> Any:
        return torch.tanh(W @ x + U @ s + b)

    return {"LSTM": lstm, "Elman": elman}[cell]


def torch_lstm(params: Mapping[str, Array]) -> Any:
    """torch.nn.LSTM in float64 with the parameters of a gradlab net; its second bias is zero."""
    import torch

    module = torch.nn.LSTM(params["0.W"].shape[1], params["0.U"].shape[1]).double()
    with torch.no_grad():
        for name, key in (("weight_ih_l0", "0.W"), ("weight_hh_l0", "0.U"), ("bias_ih_l0", "0.b")):
            getattr(module, name).copy_(torch.from_numpy(params[key]))
        module.bias_hh_l0.zero_()
    return module


def jax_step(W: Any, U: Any, b: Any, s: Any, x: Any) -> Any:
    """One step of the LSTM with the sequences of a batch in front: s (..., 2H), x (..., D)."""
    import jax

    H = U.shape[1]
    i, f, g, o = jax.numpy.split(x @ W.T + s[..., H:] @ U.T + b, 4, axis=-1)
    c = jax.nn.sigmoid(f) * s[..., :H] + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
    return jax.numpy.concatenate([c, jax.nn.sigmoid(o) * jax.numpy.tanh(c)], axis=-1)


def jax_states(W: Any, U: Any, b: Any, x: Any) -> Any:
    """States (T+1, B, 2H) from zero, x (T, B, D)."""
    import jax

    start = jax.numpy.zeros((x.shape[1], 2 * U.shape[1]))

    def scanned(s: Any, x_t: Any) -> Any:
        new = jax_step(W, U, b, s, x_t)
        return new, new

    _, states = jax.lax.scan(scanned, start, x)
    return jax.numpy.concatenate([start[None], states])


def jax_loss(weights: Any, x: Any, targets: Any) -> Any:
    """Mean squared error of h_t."""
    W, U, b = weights
    return ((jax_states(W, U, b, x)[1:, :, U.shape[1] :] - targets) ** 2).mean()


def random_lstm(rng: np.random.Generator, sizes: Mapping[str, int]) -> tuple[gradlab.Network, dict[str, Array], gradlab.Batch]:
    """An LSTM, its parameters and a batch of these sizes."""
    net = gradlab.Network(gradlab.LSTM(), sizes["D"], sizes["H"])
    x, targets = (rng.normal(size=(sizes["T"], sizes["B"], n)) for n in (sizes["D"], sizes["H"]))
    return net, net.init(rng), gradlab.Batch(x, targets)
