"""Long short-term memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlab._math import sigmoid, sigmoid_and_slope, tanh_and_slope
from gradlab.cells.base import (
    Array,
    Cell,
    Init,
    Params,
    affine_rows,
    draw,
    outer_rows,
    row,
    rows,
    split_gates,
    sum_rows,
    transpose,
    unrows,
)


class LSTM(Cell):
    """i, f, o = sigmoid(W x_t + U h_{t-1} + b);  g = tanh(W_g x_t + U_g h_{t-1} + b_g);
    c_t = f * c_{t-1} + i * g;  h_t = o * tanh(c_t).

    Hochreiter & Schmidhuber (1997) with the forget gate of Gers, Schmidhuber & Cummins (2000), no peepholes:
    the "vanilla" network of Greff et al. (2015), sec. II. State: (c, h), 2H. f = 1 keeps.

    With A = diag(f), B = diag(i g')U_g + diag(g i')U_i + diag(c_{t-1} f')U_f, G = diag(o (1 - tanh(c_t)^2)),
    K = diag(tanh(c_t) o')U_o:   J_t = [[A, B], [G A, G B + K]].   The block dh_t/dh_{t-1} alone is not
    the Jacobian: the path that carries the gradient runs through c.

    Parameters: W (4H, D), U (4H, H), b (4H,), gates stacked i, f, g, o.
    """

    gates = ("i", "f", "g", "o")

    def __repr__(self) -> str:
        return "LSTM()"

    def init(
        self,
        rng: np.random.Generator,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float = 1.0,
        W: Init | None = None,
        U: Init | None = None,
    ) -> Params:
        """Matrices by the inits `W` and `U`, gate by gate (default: uniform in +-1/sqrt(H)); biases 0, but b_f = `forget_bias`.

        A forget bias of 1 after Jozefowicz, Zaremba & Sutskever (2015); at 0 the memory halves every step.
        """
        b = np.zeros(4 * hidden_size)
        b[hidden_size : 2 * hidden_size] = forget_bias
        return {"W": draw(rng, W, 4, hidden_size, input_size), "U": draw(rng, U, 4, hidden_size, hidden_size), "b": b}

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        c_prev, h_prev = np.split(s_prev, 2, axis=-1)
        pre = x_t @ transpose(params["W"]) + h_prev @ transpose(params["U"]) + row(params["b"])
        a_i, a_f, a_g, a_o = np.split(pre, 4, axis=-1)
        c = sigmoid(a_f) * c_prev + sigmoid(a_i) * np.tanh(a_g)
        h = sigmoid(a_o) * np.tanh(c)
        return np.concatenate([c, h], axis=-1)

    def state_size(self, hidden_size: int) -> int:
        return 2 * hidden_size

    def parts(self, hidden_size: int) -> dict[str, int]:
        return {"c": hidden_size, "h": hidden_size}

    def output(self, s: Array, s_prev: Array) -> Array:
        return s[..., s.shape[-1] // 2 :]

    def output_vjp(self, s: Array, s_prev: Array, dy: Array, ds: Array, ds_prev: Array) -> None:
        ds[..., ds.shape[-1] // 2 :] += dy

    # The tape has 9 blocks of H columns. The first 4 hold the pre-activations; a step leaves there
    #   i  f  g  o | g i'  c_{t-1} f'  i g' | tanh(c_t) o' | o (1 - tanh(c_t)^2)
    # that is the gates, and all the factors that the adjoint and the Jacobian need.

    def tape_shape(self, input_size: int, hidden_size: int) -> tuple[int, int]:
        return 9, hidden_size

    def pre_size(self, input_size: int, hidden_size: int) -> int:
        return 4 * hidden_size

    def prepare(self, params: Params, rows: tuple[int, ...]) -> dict[str, Any]:
        H, dtype = params["U"].shape[-1], params["U"].dtype
        stacked = np.empty((*rows, 4 * H), dtype)
        return dict(
            params,
            H=H,
            recurrent=stacked,
            recurrent_by_gate=split_gates(stacked, 4, -1),
            pre=np.empty((4, *rows, H), dtype),
            work=np.empty((*rows, H), dtype),
        )

    def project(self, p: dict[str, Any], x: Array, a: Array) -> None:
        affine_rows(x[:, None], split_gates(p["W"], 4, -2), split_gates(p["b"], 4, -1), out=a[:, :4])

    def step_into(self, p: dict[str, Any], a_t: Array, s_prev: Array, s_out: Array, t: int) -> None:
        H, z, c = p["H"], p["pre"], p["work"]
        c_prev, h_prev, h = s_prev[..., :H], s_prev[..., H:], s_out[..., H:]
        np.matmul(h_prev, transpose(p["U"]), out=p["recurrent"])
        np.add(p["recurrent_by_gate"], a_t[:4], out=z)
        i, f, g, o, to_i, to_f, to_g, to_o, to_c = a_t
        sigmoid_and_slope(z[:2], a_t[:2], a_t[4:6])
        tanh_and_slope(z[2], g, to_g)
        sigmoid_and_slope(z[3], o, to_o)
        np.multiply(f, c_prev, out=c)
        to_f *= c_prev
        np.multiply(i, g, out=to_c)
        c += to_c
        s_out[..., :H] = c
        tanh_and_slope(c, c, to_c)  # the work space now holds tanh(c_t)
        to_i *= g
        to_g *= i
        to_o *= c
        to_c *= o
        np.multiply(o, c, out=h)

    def step_vjp(
        self, p: dict[str, Any], a_t: Array, s_prev: Array, s_t: Array, delta: Array, da_out: Array, ds_out: Array, t: int
    ) -> None:
        H, dc = p["H"], p["work"]
        dh, by_gate = delta[..., H:], split_gates(da_out, 4, -1)
        np.multiply(dh, a_t[8], out=dc)
        dc += delta[..., :H]
        np.multiply(dc, a_t[4:7], out=by_gate[:3])
        np.multiply(dh, a_t[7], out=by_gate[3])
        np.multiply(dc, a_t[1], out=ds_out[..., :H])
        np.matmul(da_out, p["U"], out=ds_out[..., H:])

    def input_grad(self, p: dict[str, Any], da: Array) -> Array:
        return unrows(np.matmul(rows(da), p["W"]), da)

    def param_grads(self, p: dict[str, Any], x: Array, a: Array, s: Array, da: Array, delta: Array, t: Array) -> Params:
        return {"W": outer_rows(da, x), "U": outer_rows(da, s[:-1, ..., p["H"] :]), "b": sum_rows(da)}

    def jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        H = p["H"]
        _, f, _, _, to_i, to_f, to_g, to_o, to_c = np.moveaxis(a, 1, 0)[..., None]
        U_i, U_f, U_g, U_o = split_gates(p["U"], 4, -2)[..., None, :, :]
        J = np.zeros((*f.shape[:-2], 2 * H, 2 * H), a.dtype)
        diagonal = np.arange(H)
        J[..., diagonal, diagonal] = f[..., 0]  # A
        B = J[..., :H, H:]
        np.multiply(to_i, U_i, out=B)
        B += to_f * U_f
        B += to_g * U_g
        J[..., H + diagonal, diagonal] = (to_c * f)[..., 0]  # G A
        np.multiply(to_c, B, out=J[..., H:, H:])  # G B + K
        J[..., H:, H:] += to_o * U_o
        return J

    def gate_values(self, a: Array) -> dict[str, Array]:
        return {name: a[:, k] for k, name in enumerate(self.gates)}
