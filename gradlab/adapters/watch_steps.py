"""Single steps held against torch's own cell: the proof that is left where whole sequences amplify every rounding error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.adapters.watch_call import Call
from gradlab.adapters.watch_job import Job
from gradlab.adapters.watch_proof import LIMITS
from gradlab.forward_pass import LayerPass
from gradlab.objective import split_outputs
from gradlab.record import Record

Array = npt.NDArray[Any]

FUNCTIONS = {"tanh": "rnn_tanh_cell", "relu": "rnn_relu_cell", "LSTM": "lstm_cell", "GRU": "gru_cell"}
"""torch's functions of one step; they draw no numbers, as making a module would."""


def single_steps(
    torch: Any, job: Job, record: Record, passes: Mapping[str, LayerPass]
) -> tuple[dict[str, float], dict[str, float]]:
    """Deviations of single steps, and what each may be. `passes`: the forward pass of the record.

    "0 state": each recorded state against one step of torch's own cell, in float64, from the recorded state before.
    "0 adjoint": each recorded adjoint against e_t + J_{t+1}^T delta_{t+1} with torch's own derivative of that step.
    "0 seen": of a network of one level, what the layer emitted at each step, against gradlab's step from what it emitted
    before; c of an LSTM, which is not emitted, follows from the emitted h by its own contracting recursion.
    Each step is measured on its own scale; it may deviate by the limit, or by four roundings of its largest sum.
    """
    call = job.first
    found: dict[str, float] = {}
    allowed: dict[str, float] = {}
    if call.spec.single:  # the replay of a cell's calls is one of single steps already
        return found, allowed
    emitted = split_outputs(call.spec.net.levels[-1], call.y.astype(np.float64), call.lengths)
    for name, one in passes.items():
        layer = record.layers[name]
        s, delta, e = (layer.series(kind).astype(np.float64) for kind in ("states", "adjoints", "immediate"))
        after, carried = _torch_steps(torch, call, one, s, delta[1:])
        size = np.maximum(np.abs(delta[:-1]), np.abs(delta[1:]))
        found[f"{name} state"] = _by_step(s[1:], after, np.abs(after), one.mask)
        found[f"{name} adjoint"] = _by_step(delta[:-1], e[:-1] + carried, size, one.mask)
        if name in emitted and call.spec.net.num_layers == 1:
            found[f"{name} seen"] = _by_step(_from_emitted(one, emitted[name]), emitted[name], np.abs(emitted[name]), one.mask)
        limit = _rounding(call, one)
        allowed |= {key: limit for key in found if key.startswith(f"{name} ")}
    return found, allowed


def _torch_steps(torch: Any, call: Call, one: LayerPass, s: Array, delta: Array) -> tuple[Array, Array]:
    """Torch's state after each step and J^T delta before it, (T, B, S) each, all steps as one batch in float64."""
    end, H, kind = call.spec.suffixes[one.layer.name], one.layer.hidden_size, call.spec.kind
    names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if call.spec.bias else ()))
    weights = [_tensor(torch, call.weights[name + end][1]) for name in names]
    cell = getattr(torch, FUNCTIONS[kind if kind != "RNN" else one.layer.cell.activation.name])  # type: ignore[attr-defined]
    x = _tensor(torch, one.x.reshape(-1, one.x.shape[-1]))
    rows = s[:-1].reshape(-1, s.shape[-1])
    parts = [_tensor(torch, rows[:, k : k + H]).requires_grad_() for k in range(0, rows.shape[1], H)][::-1]  # h, c
    with torch.enable_grad():
        out = cell(x, parts if kind == "LSTM" else parts[0], *weights)
        out = out if isinstance(out, tuple) else (out,)
        back = delta.reshape(-1, s.shape[-1])
        sent = [_tensor(torch, back[:, k : k + H]) for k in range(0, back.shape[1], H)][::-1]
        carried = torch.autograd.grad(out, parts, sent)

    def joined(tensors: Any) -> Array:
        return np.concatenate([tensor.detach().numpy() for tensor in reversed(tensors)], axis=-1).reshape(s[1:].shape)

    return joined(out), joined(carried)


def _from_emitted(one: LayerPass, y: Array) -> Array:
    """What gradlab's step emits at every t from what the layer emitted before, (T, B, H), in float64."""
    cell, H = one.layer.cell, one.layer.hidden_size
    letters = {key: np.asarray(value, np.float64) for key, value in one.p.items() if key in ("W", "U", "b", "b_hn")}
    s_0, x = one.states[0].astype(np.float64), one.x.astype(np.float64)
    h_prev = np.concatenate([s_0[None, :, -H:], y[:-1]])
    found, c = np.empty_like(y), s_0[:, :-H]
    for k in range(len(y)):
        s = cell.step(letters, x[k], np.concatenate([c, h_prev[k]], axis=-1), k)
        found[k], c = s[:, -H:], s[:, :-H]
    return found


def _by_step(a: Array, b: Array, size: Array, mask: Array | None) -> float:
    """The largest over t of max|a-b| / max(size); rows that exist and are finite count."""
    with np.errstate(all="ignore"):
        gap = np.abs(a - b)
    there = np.asarray(
        np.isfinite(a).all(axis=-1) & np.isfinite(size).all(axis=-1)
    )  # what left the range of floats proves nothing
    if mask is not None:
        there = there & mask
    gap, size = np.where(there[:, :, None], gap, 0.0), np.where(there[:, :, None], size, 0.0)
    # next to the smallest normal number every digit is lost
    floor = float(np.finfo(np.float32).tiny / np.finfo(np.float32).eps)
    return float((gap.max(axis=(1, 2)) / np.maximum(size.max(axis=(1, 2)), floor)).max())


def _rounding(call: Call, one: LayerPass) -> float:
    """The limit of the precision, or four roundings of the largest sum of absolute terms in a pre-activation."""
    end, dtype = call.spec.suffixes[one.layer.name], call.x.dtype
    W, U = (np.abs(call.weights[name + end][1]) for name in ("weight_ih", "weight_hh"))
    terms = np.abs(one.x) @ W.T + np.abs(one.states[:-1, :, -one.layer.hidden_size :]) @ U.T
    return max(LIMITS[dtype], 4.0 * float(np.finfo(dtype).eps) * float(terms.max()))


def _tensor(torch: Any, array: Array) -> Any:
    return torch.from_numpy(np.ascontiguousarray(array, np.float64))
