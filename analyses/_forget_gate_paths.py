"""What `forget_gate` measures on networks as they start: the path along c, its time constants and horizons, and the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from analyses import _members

Array = npt.NDArray[Any]
STEP = 1e-30
"""Of the complex step: exact to rounding, far above the smallest number even after a hundred gates of 0.1."""


def with_biases(net: gradlab.Network, seeds: Sequence[Any], biases: Array) -> dict[str, Array]:
    """Initial parameters with axes (bias, seed), the same draws for every bias."""
    each = [_members.initial(net, seeds, 1, np.float64, forget_bias=float(bias)) for bias in biases]
    return {key: np.concatenate([own[key] for own in each]) for key in each[0]}


def whole_path(net: gradlab.Network, params: dict[str, Array], x: Array) -> tuple[Array, Array, Array]:
    """The whole path: ln dc_T/dc_0 by a complex step through the pass, ln of the product of the gates, what else c_T sees of c_0.

    With U = 0 nothing leaves the path. Each row of the batch x (T, H, D) perturbs one unit: (*E, H) on the path, and the largest
    derivative off it (*E,).
    """
    H = net.hidden_size
    alone = {key: np.zeros_like(value) if key.endswith(".U") else value for key, value in params.items()}
    start = np.zeros((H, 2 * H), complex)
    start[:, :H] = 1j * STEP * np.eye(H)
    run = gradlab.forward(net, alone, x, {"0": start}).runs["0"]
    d = run.states[-1][..., :H].imag / STEP  # (*E, B, H), row b: of the perturbed unit b
    f = run.layer.cell.gate_values(run.tape)["f"].real  # (T, *E, B, H)
    on, gates = np.diagonal(d, axis1=-2, axis2=-1), np.diagonal(np.log(f).sum(axis=0), axis1=-2, axis2=-1)
    with np.errstate(divide="ignore"):
        return np.log(on), gates, np.abs(d - on[..., None] * np.eye(H)).max(axis=(-2, -1))


def step_paths(net: gradlab.Network, params: dict[str, Array], x: Array) -> tuple[Array, Array]:
    """Sums over the steps of ln dc_t/dc_{t-1} at fixed h_{t-1}, by complex steps, and of ln f_t, (*E, B, H): any U."""
    H = net.hidden_size
    run = gradlab.forward(net, params, x).runs["0"]
    cell, own = run.layer.cell, {key.removeprefix("0."): value for key, value in params.items()}
    total = np.zeros((*run.states.shape[1:-1], H))
    for t in range(len(x)):
        s = run.states[t].astype(complex)
        s[..., :H] += 1j * STEP
        total += np.log(cell.step(own, x[t], s, t)[..., :H].imag / STEP)
    return total, np.log(cell.gate_values(run.tape)["f"]).sum(axis=0)


def no_forget_gate(rng: np.random.Generator, hidden_size: int, x: Array) -> float:
    """The largest |ln dc_T/dc_0| over the units of the network of 1997, which has no forget gate, with U = 0."""
    net = gradlab.Network(gradlab.LSTM(forget_gate=False), x.shape[-1], hidden_size)
    params = net.init(rng) | {"0.U": np.zeros((3 * hidden_size, hidden_size))}
    start = np.zeros((x.shape[1], 2 * hidden_size), complex)
    start[:, :hidden_size] = 1j * STEP
    d = gradlab.forward(net, params, x, {"0": start}).runs["0"].states[-1][:, :hidden_size].imag / STEP
    return float(np.abs(np.log(d)).max())


def at_start(net: gradlab.Network, params: dict[str, Array], batch: gradlab.Batch) -> dict[str, Array]:
    """Time constants and horizons of a loss at the last step: by bias and seed.

    "rate": -mean ln f, nats a step, (bias, seed, H). "horizon" (bias, seed): the median lag at which |dL/dc_t| is 1/e for
    good, inf beyond the sequence. "flow": ln |dL/dc_t| by lag from 1 on, relative to lag 1, (T, bias, seed), mean over
    sequences: the loss sees c_T through h_T alone, which is another part of the state, so there is none at lag 0.
    """
    record = gradlab.bptt(net, params, batch, gradlab.softmax_cross_entropy, keep=("gates", "states", "immediate", "adjoints"))
    total = gradlab.analysis.gradient_flow(record).log_total["0/c"]
    lags = gradlab.analysis.memory_horizon(total).lags
    by_lag = (total[-2::-1] - total[-2]).mean(axis=-1)
    return {
        "rate": gradlab.analysis.gate_time_constants(record).rates["0/f"],
        "horizon": np.median(lags, axis=-1),
        "flow": by_lag,
    }


def exponents(rng: np.random.Generator, p: dict[str, Any]) -> Array:
    """Growth of a perturbation of the full (c, h) in nats a step, (gain, bias, seed): U is `gain` times a Gaussian matrix.

    The first half of the steps turns the perturbation into the direction that grows most, the second is measured.
    """
    H, T, seeds = p["hidden_size"], p["steps"], p["seeds"]
    gains, biases = np.array(p["gains"]), np.array(p["grown_biases"])
    net = gradlab.Network(gradlab.LSTM(), 1, H)
    each = [net.init(own, recurrent_init=gradlab.inits.gaussian()) for own in rng.spawn(seeds)]
    U = gains[:, None, None, None, None] * np.stack([own["0.U"] for own in each])  # (gain, 1, seed, 4H, H)
    b = np.zeros((len(biases), seeds, 4 * H))
    b[..., H : 2 * H] = biases[:, None, None]
    W = np.stack([own["0.W"] for own in each])
    drives = [own.standard_normal((T, 1, 1)) for own in rng.spawn(seeds)]
    x = np.stack(drives, axis=1)[:, None, None]  # (T, 1, 1, seed, 1, 1)
    run = gradlab.forward(net, {"0.W": W, "0.U": U, "0.b": b}, x).runs["0"]
    v = np.broadcast_to(rng.standard_normal((2 * H, 1)), (*run.states.shape[1:], 1))
    grown = np.zeros(run.states.shape[1:-1])
    for t in range(T):
        v = np.matmul(run.window(t, t + 1).jacobians()[0], v)
        size = np.linalg.norm(v, axis=(-2, -1), keepdims=True)
        v = v / size
        if t >= T // 2:
            grown += np.log(size[..., 0, 0])
    return np.asarray(grown[..., 0] / (T - T // 2))
