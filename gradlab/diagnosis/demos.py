"""Small networks and histories, each made to show one finding: `gradlab diagnose --demo NAME` needs no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.batch import Batch
from gradlab.cells import LSTM, Elman
from gradlab.inits import gaussian, orthogonal
from gradlab.losses import mean_squared_error
from gradlab.network import Network
from gradlab.tasks import adding
from gradlab.training.monitor import Monitor

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Demo:
    """`code`: the finding that it must show, "" for none that is grave. `what`: what was done to the network, in words.
    `arguments()`: what `gradlab.diagnose` is called with.
    """

    code: str
    what: str
    arguments: Callable[[], Mapping[str, Any]]


def _noise(T: int = 60, B: int = 16, D: int = 3, scale: float = 1.0) -> Array:
    return scale * np.random.default_rng(1).standard_normal((T, B, D))


def _elman(U: Array, *, activation: str = "tanh", data: Array | None = None, W: float = 0.3, **more: Any) -> dict[str, Any]:
    """An Elman network with recurrent weights U, read over noise."""
    net = Network(Elman(activation), 3, len(U), None)
    rng = np.random.default_rng(0)
    params = net.init(rng, input_init=gaussian(W)) | {"0.U": U}
    return {"subject": net, "params": params, "data": _noise() if data is None else data, **more}


def _turn(H: int, gain: float) -> Array:
    return gain * orthogonal()(np.random.default_rng(0), (H, H))


def _adding(length: int = 60, changes: Mapping[str, Callable[[Array], Array]] | None = None, **more: Any) -> dict[str, Any]:
    """An LSTM before its training on the adding problem, its forget gates set to remember for as long as the sequences are."""
    net = Network(LSTM(), 2, 32, 1, readout="last")
    params = net.init(np.random.default_rng(0), forget_bias=float(np.log(length)))
    for key, change in (changes or {}).items():
        params[key] = change(params[key].copy())
    batch = adding.sample(np.random.default_rng(1), 32, length)
    return {"subject": net, "params": params, "data": batch, "loss": mean_squared_error, **more}


def _gate(gate: int, bias: float) -> Callable[[Array], Array]:
    """A bias with one gate's block (i, f, g, o of 32 units) set."""

    def change(b: Array) -> Array:
        b[32 * gate : 32 * (gate + 1)] = bias
        return b

    return change


def _chain() -> dict[str, Any]:
    """Units in a row, each driving the next: every eigenvalue is 0.7, and yet a gradient grows on its way along the row."""
    U = 0.7 * np.eye(16) + 2.0 * np.eye(16, k=1)
    return _elman(U, activation="linear", W=0.1)


def _dead() -> dict[str, Any]:
    made = _elman(np.eye(24), activation="relu", W=0.1)
    made["params"]["0.b"] = np.where(np.arange(24) < 21, -20.0, 0.05)
    return made


def _scales() -> dict[str, Any]:
    x = _noise()
    x[..., 1] *= 300.0
    return _elman(_turn(24, 1.0), data=x, W=0.002)


def _padded() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 16, 3))
    for b, length in enumerate(rng.integers(12, 56, 16)):
        x[length:, b] = 0.0
    net = Network(LSTM(), 3, 24, 2)
    params = net.init(np.random.default_rng(0), forget_bias=4.0)
    targets = np.tanh(rng.standard_normal((60, 16, 2)))
    return {"subject": net, "params": params, "data": Batch(x, targets), "loss": mean_squared_error}


def _unseen_layer() -> dict[str, Any]:
    net = Network(LSTM(), 3, 24, 2, num_layers=2)
    params = net.init(np.random.default_rng(0), forget_bias=4.0)
    params["1.W"] = np.zeros_like(params["1.W"])
    targets = np.random.default_rng(2).standard_normal((60, 16, 2))
    return {"subject": net, "params": params, "data": Batch(_noise(), targets), "loss": mean_squared_error}


def _unseen_direction() -> dict[str, Any]:
    net = Network(LSTM(), 3, 24, 2, bidirectional=True)
    params = net.init(np.random.default_rng(0), forget_bias=4.0)
    params["readout.V"][:, 24:] = 0.0
    targets = np.random.default_rng(2).standard_normal((60, 16, 2))
    return {"subject": net, "params": params, "data": Batch(_noise(), targets), "loss": mean_squared_error}


def _steep() -> dict[str, Any]:
    net = Network(LSTM(), 2, 6, 1, readout="last")
    params = net.init(np.random.default_rng(0), forget_bias=2.0)
    batch = adding.sample(np.random.default_rng(1), 16, 10)
    return {"subject": net, "params": params, "data": batch, "loss": mean_squared_error, "learning_rate": 30.0}


def _run(jumps: bool = False, clip: float | None = None, inactive: bool = False, ratio: float = 1e-3) -> Monitor:
    """A training run as a loop would have told a monitor: 400 updates of a loss that falls."""
    rng = np.random.default_rng(3)
    monitor = Monitor(capacity=1000)
    theta = rng.standard_normal((24, 24))
    for n in range(400):
        loss = 0.1 + 0.9 * np.exp(-n / 120) + 0.01 * rng.standard_normal()
        norm = 0.6 * np.exp(0.25 * rng.standard_normal())
        if jumps and n in (90, 171, 236, 318, 377):
            loss, norm = loss + 4.0 + rng.random(), norm * 400.0
        gradient = rng.standard_normal((24, 24))
        gradient *= norm / np.linalg.norm(gradient)
        clipped = gradient
        if clip is not None and norm > clip and not inactive:
            clipped = gradient * (clip / norm)
        new = theta - ratio * np.linalg.norm(theta) * gradient / np.linalg.norm(gradient)
        told: dict[str, Any] = {} if clip is None else {"clipped": {"0.U": clipped}}
        monitor.record(
            n, loss=loss, gradients={"0.U": gradient}, params={"0.U": theta}, new_params={"0.U": new}, learning_rate=1e-3, **told
        )
        theta = new
    return monitor


DEMOS: dict[str, Demo] = {
    "healthy": Demo("", "an LSTM whose forget gates suit the length of the adding problem", _adding),
    "vanishing": Demo(
        "vanishing", "a tanh network with recurrent weights of half an orthogonal matrix", lambda: _elman(_turn(24, 0.5))
    ),
    "exploding": Demo(
        "exploding",
        "a tanh network with Gaussian recurrent weights of gain 2.5, chaotic",
        lambda: _elman(2.5 * np.random.default_rng(0).standard_normal((64, 64)) / 8.0, W=0.05),
    ),
    "transient-growth": Demo("transient-growth", "a linear network with a chain of units: eigenvalues 0.7, non-normal", _chain),
    "saturated": Demo(
        "saturated", "an LSTM whose input gates a bias of -12 holds shut", lambda: _adding(changes={"0.b": _gate(0, -12.0)})
    ),
    "forget-closed": Demo(
        "forget-closed",
        "an LSTM with a forget bias of 1 on 100 steps",
        lambda: _adding(100, changes={"0.b": _gate(1, 1.0)}),
    ),
    "dead-relu": Demo("dead-relu", "a ReLU network with 21 of 24 biases at -20", _dead),
    "nonfinite": Demo(
        "nonfinite",
        "a ReLU network with four times an orthogonal matrix, 800 steps",
        lambda: _elman(np.abs(_turn(8, 4.0)), activation="relu", data=_noise(800, 4)),
    ),
    "input-scale": Demo("input-scale", "one of three inputs is 300 times as large as the others", _scales),
    "padding-counted": Demo("padding-counted", "sequences of 12 to 55 steps filled up with zeros to 60, no lengths", _padded),
    "unused-layer": Demo("unused-layer", "a second layer whose input weights are zero", _unseen_layer),
    "unused-direction": Demo("unused-direction", "a read-out without weights for the backward direction", _unseen_direction),
    "short-horizon": Demo(
        "short-horizon",
        "an LSTM with a forget bias of 1, and an input that matters 50 steps later",
        lambda: _adding(60, changes={"0.b": _gate(1, 1.0)}, dependency=50),
    ),
    "truncation-short": Demo(
        "truncation-short",
        "the healthy LSTM, trained with gradients cut after 4 steps",
        lambda: _adding(truncation=4),
    ),
    "cliff": Demo("cliff", "a small LSTM with a learning rate of 30", _steep),
    "loss-jumps": Demo("loss-jumps", "a history whose loss jumps five times, not clipped", lambda: {"subject": _run(jumps=True)}),
    "clipping-always": Demo(
        "clipping-always",
        "a history with a threshold far below every gradient",
        lambda: {"subject": _run(clip=0.01), "clip_norm": 0.01},
    ),
    "clipping-inactive": Demo(
        "clipping-inactive",
        "a history whose gradients pass the threshold as they were: clipped in the wrong place",
        lambda: {"subject": _run(jumps=True, clip=1.0, inactive=True), "clip_norm": 1.0},
    ),
    "update-ratio": Demo(
        "update-ratio", "a history whose updates are as large as a fifth of the weights", lambda: {"subject": _run(ratio=0.2)}
    ),
}
"""By name, which is the code of the finding but for "healthy"."""
