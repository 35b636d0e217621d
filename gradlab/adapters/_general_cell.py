"""RNN, LSTM and GRU with any activations: for models that no built-in cell of gradlab expresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab import _math
from gradlab.cells import GRU, LSTM, Cell, Elman
from gradlab.cells.base import row, transpose

Array = npt.NDArray[Any]
Params = dict[str, Array]


def _where(condition: Array, one: Array | float, other: Array | float) -> Array:
    return np.asarray(np.where(condition, one, other))


def _hard_sigmoid(z: Array, alpha: float, beta: float) -> Array:
    y = alpha * z + beta
    return _where(y.real <= 0, 0.0, _where(y.real >= 1, 1.0, y))


def _softplus(z: Array, alpha: float, beta: float) -> Array:
    return _where(z.real > 0, z, 0.0) + np.log1p(np.exp(_where(z.real > 0, -z, z)))  # log(1 + e^z) without overflow


FORMULAS: Mapping[str, Callable[[Array, float, float], Array]] = {
    "affine": lambda z, alpha, beta: alpha * z + beta,
    "elu": lambda z, alpha, beta: _where(z.real >= 0, z, alpha * np.expm1(_where(z.real >= 0, 0.0, z))),
    "hard_sigmoid": _hard_sigmoid,
    "hard_tanh": lambda z, alpha, beta: _math.hard_tanh(z),
    "leaky_relu": lambda z, alpha, beta: _where(z.real >= 0, z, alpha * z),
    "relu": lambda z, alpha, beta: _math.relu(z),
    "scaled_tanh": lambda z, alpha, beta: alpha * _math.tanh(beta * z),
    "sigmoid": lambda z, alpha, beta: _math.sigmoid(z),
    "softplus": _softplus,
    "softsign": lambda z, alpha, beta: z / (1.0 + _where(z.real < 0, -z, z)),
    "tanh": lambda z, alpha, beta: _math.tanh(z),
    "thresholded_relu": lambda z, alpha, beta: _where(z.real >= alpha, z, 0.0),
}
"""Activations f(z; alpha, beta) by gradlab's name; real and complex, branches by the real part."""


@dataclass(frozen=True)
class Function:
    """One activation with its constants."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    def __call__(self, z: Array) -> Array:
        return np.asarray(FORMULAS[self.name](z, self.alpha, self.beta)).astype(z.dtype, copy=False)


SIGMOID, TANH = Function("sigmoid"), Function("tanh")
USUAL = {"RNN": (TANH,), "GRU": (SIGMOID, TANH), "LSTM": (SIGMOID, TANH, TANH)}
"""What RNN, GRU and LSTM have unless they say otherwise: the gates' f, the candidate's g, the cell output's h."""


ELMAN = {
    Function("tanh"): "tanh",
    Function("relu"): "relu",
    Function("sigmoid"): "sigmoid",
    Function("hard_tanh"): "hard_tanh",
    Function("leaky_relu", 0.01): "leaky_relu",
    Function("affine", 1.0, 0.0): "linear",
}
"""Functions that gradlab's simple cell has in closed form."""


def cell_for(
    kind: str,
    functions: tuple[Function, ...],
    *,
    clip: float | None = None,
    peepholes: bool = False,
    coupled: bool = False,
    reset: str = "after",
) -> Cell:
    """The built-in cell of gradlab if one is the same function, else a general one. Arguments as of `GeneralCell`.

    The built-in coupled LSTM has the parameters at its forget gate instead: see `gradlab.adapters.onnx_io`.
    """
    if clip is None and kind == "RNN" and functions[0] in ELMAN:
        return Elman(ELMAN[functions[0]])
    if clip is None and functions == USUAL[kind] and kind == "LSTM":
        return LSTM(peepholes=peepholes, coupled=coupled)
    if clip is None and functions == USUAL[kind] and kind == "GRU":
        return GRU(reset="after" if reset == "after" else "before")
    return GeneralCell(kind, functions, clip=clip, peepholes=peepholes, coupled=coupled, reset=reset)


class GeneralCell(Cell):
    """The equations of the operators RNN, LSTM and GRU of ONNX, with any f, g, h and with clipped pre-activations.

    Letters and order of gates as in gradlab's own cells: LSTM i, f, g, o with state (c, h); GRU r, z, n; RNN one block.
    `functions`: (f,) for RNN, (f, g) for GRU, (f, g, h) for LSTM. `clip`: bounds every pre-activation to +-clip after biases
    and peepholes. `coupled`: f = 1 - i, the input gate owns the parameters. It has a `step` alone, which gradlab
    differentiates by complex steps: exact, and slower than a built-in cell.
    """

    def __init__(
        self,
        kind: str,
        functions: tuple[Function, ...],
        *,
        clip: float | None = None,
        peepholes: bool = False,
        coupled: bool = False,
        reset: str = "after",
    ) -> None:
        self.kind, self.functions, self.clip, self.coupled, self.reset = kind, functions, clip, coupled, reset
        lstm = ("i", "g", "o") if coupled else ("i", "f", "g", "o")
        self.gates = {"LSTM": lstm, "GRU": ("r", "z", "n"), "RNN": ()}[kind]
        self.peepholes = tuple(gate for gate in ("i", "f", "o") if gate in self.gates) if peepholes else ()

    def __repr__(self) -> str:
        told = [repr(self.kind), ", ".join(f.name for f in self.functions)]
        told += ([] if self.clip is None else [f"clip={self.clip:g}"]) + ["coupled"] * self.coupled
        told += ["peepholes"] * bool(self.peepholes) + [f"reset={self.reset!r}"] * (self.kind == "GRU")
        return f"GeneralCell({', '.join(told)})"

    def init(self, rng: np.random.Generator, input_size: int, hidden_size: int) -> Params:
        """Uniform in +-1/sqrt(H), biases and peepholes 0."""
        G, H = max(len(self.gates), 1), hidden_size
        bound = 1.0 / np.sqrt(H)
        params = {key: rng.uniform(-bound, bound, (G * H, n)) for key, n in (("W", input_size), ("U", H))}
        params["b"] = np.zeros(G * H)
        if self.kind == "GRU" and self.reset == "after":
            params["b_hn"] = np.zeros(H)
        return params | {f"p_{gate}": np.zeros(H) for gate in self.peepholes}

    def state_size(self, hidden_size: int) -> int:
        return 2 * hidden_size if self.kind == "LSTM" else hidden_size

    def parts(self, hidden_size: int) -> dict[str, int]:
        return {"c": hidden_size, "h": hidden_size} if self.kind == "LSTM" else {"h": hidden_size}

    def output(self, s: Array, s_prev: Array) -> Array:
        return s[..., s.shape[-1] // 2 :] if self.kind == "LSTM" else s

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        a = x_t @ transpose(params["W"]) + row(params["b"])
        return {"RNN": self._rnn, "GRU": self._gru, "LSTM": self._lstm}[self.kind](params, a, s_prev)

    def _bounded(self, a: Array) -> Array:
        if self.clip is None:
            return a
        return _where(a.real > self.clip, self.clip, _where(a.real < -self.clip, -self.clip, a)).astype(a.dtype, copy=False)

    def _rnn(self, params: Params, a: Array, h: Array) -> Array:
        return self.functions[0](self._bounded(a + h @ transpose(params["U"])))

    def _gru(self, params: Params, a: Array, h: Array) -> Array:
        H = h.shape[-1]
        f, g = self.functions
        U_r, U_z, U_n = (transpose(params["U"][..., k * H : (k + 1) * H, :]) for k in range(3))
        r = f(self._bounded(a[..., :H] + h @ U_r))
        z = f(self._bounded(a[..., H : 2 * H] + h @ U_z))
        through = r * (h @ U_n + row(params["b_hn"])) if self.reset == "after" else (r * h) @ U_n
        n = g(self._bounded(a[..., 2 * H :] + through))
        return np.asarray((1.0 - z) * n + z * h)

    def _lstm(self, params: Params, a: Array, s: Array) -> Array:
        H = s.shape[-1] // 2
        c, h = s[..., :H], s[..., H:]
        f_, g_, h_ = self.functions
        a = a + h @ transpose(params["U"])
        pre = {gate: a[..., k * H : (k + 1) * H] for k, gate in enumerate(self.gates)}

        def peep(gate: str, cell_state: Array) -> Array:
            own = pre[gate]
            return self._bounded(own + row(params[f"p_{gate}"]) * cell_state if gate in self.peepholes else own)

        i = f_(peep("i", c))
        f = 1.0 - i if self.coupled else f_(peep("f", c))
        c = f * c + i * g_(self._bounded(pre["g"]))
        return np.concatenate([c, f_(peep("o", c)) * h_(c)], axis=-1)
