"""The gated recurrent unit, in its two forms."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from gradlab._math import one_minus_sigmoid, sigmoid, sigmoid_and_slope, tanh, tanh_and_slope
from gradlab._validate import require_one_of
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
    turned,
    unrows,
)


class GRU(Cell):
    """r, z = sigmoid(W x_t + U h_{t-1} + b);  h_t = z * h_{t-1} + (1 - z) * n, with the candidate

    reset="after":   n = tanh(W_n x_t + b_n + r * (U_n h_{t-1} + b_hn))   (PyTorch, cuDNN, Keras' default)
    reset="before":  n = tanh(W_n x_t + b_n + U_n (r * h_{t-1}))          (Cho et al. 2014)

    z = 1 keeps. Chung et al. (2014) write 1 - z for this z. State: h (H). With q = U_n h_{t-1} + b_hn,
    M = diag(r)U_n + diag(q r')U_r (after) or U_n (diag(r) + diag(h_{t-1} r')U_r) (before):
    J_t = diag(z) + diag((h_{t-1} - n) z')U_z + diag((1 - z) n') M.

    The two are different functions, not two layouts. Parameters: W (3H, D), U (3H, H), b (3H,), gates stacked
    r, z, n; reset="after" also b_hn (H,), which no merging with b_n can replace.
    """

    gates = ("r", "z", "n")

    def __init__(self, *, reset: Literal["after", "before"] = "after") -> None:
        self.reset = require_one_of("reset", reset, ("after", "before"))

    def __repr__(self) -> str:
        return f"GRU(reset={self.reset!r})"

    def init(
        self, rng: np.random.Generator, input_size: int, hidden_size: int, *, W: Init | None = None, U: Init | None = None
    ) -> Params:
        """Matrices by the inits `W` and `U`, gate by gate (default: uniform in +-1/sqrt(H)); biases 0."""
        H = hidden_size
        params = {"W": draw(rng, W, 3, H, input_size), "U": draw(rng, U, 3, H, H), "b": np.zeros(3 * H)}
        return params | ({"b_hn": np.zeros(H)} if self.reset == "after" else {})

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        H = s_prev.shape[-1]
        a_r, a_z, a_n = np.split(x_t @ transpose(params["W"]) + row(params["b"]), 3, axis=-1)
        U_r, U_z, U_n = (transpose(params["U"][..., k * H : (k + 1) * H, :]) for k in range(3))
        r = sigmoid(a_r + s_prev @ U_r)
        a_z = a_z + s_prev @ U_z
        if self.reset == "after":
            n = tanh(a_n + r * (s_prev @ U_n + row(params["b_hn"])))
        else:
            n = tanh(a_n + (r * s_prev) @ U_n)
        return np.asarray(sigmoid(a_z) * s_prev + sigmoid(-a_z) * n)

    # Blocks of H columns on the tape: the pre-activations in the first 3, where a step leaves
    #   r  z  n | (1 - z) n' q r' (after) or h_{t-1} r' (before)   (h_{t-1} - n) z'   (1 - z) n'
    # The adjoints da hold n, r, z, and for reset="after" the adjoint of q behind: their last 3 blocks go to U.

    def tape_shape(self, input_size: int, hidden_size: int) -> tuple[int, int]:
        return 6, hidden_size

    def pre_size(self, input_size: int, hidden_size: int) -> int:
        return (4 if self.reset == "after" else 3) * hidden_size

    def pre_spans(self, hidden_size: int) -> dict[str, tuple[int, int]]:
        return {name: (k * hidden_size, (k + 1) * hidden_size) for k, name in enumerate(("n", "r", "z"))}

    def prepare(self, params: Params, rows: tuple[int, ...]) -> dict[str, Any]:
        U, W = params["U"], params["W"]
        H, dtype = U.shape[-1], U.dtype
        stacked = np.empty((*rows, 3 * H), dtype)
        return dict(
            params,
            H=H,
            W_nrz=np.concatenate([W[..., 2 * H :, :], W[..., : 2 * H, :]], axis=-2),
            U_T=turned(U),
            U_rz_T=turned(U[..., : 2 * H, :]),
            U_n_T=turned(U[..., 2 * H :, :]),
            U_rz=U[..., : 2 * H, :],
            U_n=U[..., 2 * H :, :],
            recurrent=stacked,
            recurrent_by_gate=split_gates(stacked, 3, -1),
            recurrent_rz=np.empty((*rows, 2 * H), dtype),
            pre=np.empty((3, *rows, H), dtype),
            work=np.empty((*rows, H), dtype),
            spare=np.empty((*rows, H), dtype),
        )

    def project(self, p: dict[str, Any], x: Array, a: Array) -> None:
        affine_rows(x[:, None], split_gates(p["W"], 3, -2), split_gates(p["b"], 3, -1), out=a[:, :3])

    def step_into(self, p: dict[str, Any], a_t: Array, s_prev: Array, s_out: Array, t: int) -> None:
        pre, keep, spare = p["pre"], p["work"], p["spare"]
        r, z, n, to_r, to_z, to_n = a_t
        if self.reset == "after":
            np.matmul(s_prev, p["U_T"], out=p["recurrent"])
            np.add(p["recurrent_by_gate"][:2], a_t[:2], out=pre[:2])
            sigmoid_and_slope(pre[:2], a_t[:2], a_t[3:5])
            q = np.add(p["recurrent_by_gate"][2], row(p["b_hn"]), out=pre[2])
            to_r *= q
            np.multiply(q, r, out=spare)
        else:
            np.matmul(s_prev, p["U_rz_T"], out=p["recurrent_rz"])
            np.add(split_gates(p["recurrent_rz"], 2, -1), a_t[:2], out=pre[:2])
            sigmoid_and_slope(pre[:2], a_t[:2], a_t[3:5])
            to_r *= s_prev
            np.matmul(np.multiply(r, s_prev, out=keep), p["U_n_T"], out=spare)
        spare += n
        tanh_and_slope(spare, n, to_n)
        one_minus_sigmoid(pre[1], z, to_z, out=keep)
        to_n *= keep
        if self.reset == "after":
            to_r *= to_n
        np.subtract(s_prev, n, out=spare)
        to_z *= spare
        np.multiply(z, s_prev, out=s_out)
        keep *= n
        s_out += keep

    def step_vjp(
        self, p: dict[str, Any], a_t: Array, s_prev: Array, s_t: Array, delta: Array, da_out: Array, ds_out: Array, t: int
    ) -> None:
        H, spare = p["H"], p["spare"]
        r, z, _, to_r, to_z, to_n = a_t
        da = split_gates(da_out, da_out.shape[-1] // H, -1)
        np.multiply(delta, to_n, out=da[0])
        np.multiply(delta, to_z, out=da[2])
        if self.reset == "after":
            np.multiply(delta, to_r, out=da[1])
            np.multiply(da[0], r, out=da[3])
            np.matmul(da_out[..., H:], p["U"], out=ds_out)
        else:
            through = np.matmul(da_out[..., :H], p["U_n"], out=p["work"])  # dL/d(r * h_{t-1})
            np.multiply(through, to_r, out=da[1])
            np.matmul(da_out[..., H:], p["U_rz"], out=ds_out)
            ds_out += np.multiply(through, r, out=spare)
        ds_out += np.multiply(delta, z, out=spare)

    def input_grad(self, p: dict[str, Any], da: Array) -> Array:
        return unrows(np.matmul(rows(da)[..., : 3 * p["H"]], p["W_nrz"]), da)

    def param_grads(self, p: dict[str, Any], x: Array, a: Array, s: Array, da: Array, delta: Array, t: Array) -> Params:
        H, h_prev = p["H"], s[:-1]
        to_x = da[..., : 3 * H]
        W, b = outer_rows(to_x, x), sum_rows(to_x)
        found = {
            "W": np.concatenate([W[..., H:, :], W[..., :H, :]], axis=-2),
            "b": np.concatenate([b[..., H:], b[..., :H]], axis=-1),
        }
        if self.reset == "after":
            return found | {"U": outer_rows(da[..., H:], h_prev), "b_hn": sum_rows(da[..., 3 * H :])}
        rz, n = outer_rows(da[..., H:], h_prev), outer_rows(da[..., :H], a[:, 0] * h_prev)
        return found | {"U": np.concatenate([rz, n], axis=-2)}

    def jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        r, z, _, to_r, to_z, to_n = np.moveaxis(a, 1, 0)[..., None]
        U_r, U_z, U_n = split_gates(p["U"], 3, -2)[..., None, :, :]
        if self.reset == "after":
            J = to_r * U_r + to_n * r * U_n
        else:
            inner = to_r * U_r
            diagonal = np.arange(p["H"])
            inner[..., diagonal, diagonal] += r[..., 0]
            J = to_n * np.matmul(U_n, inner)
        J += to_z * U_z
        diagonal = np.arange(p["H"])
        J[..., diagonal, diagonal] += z[..., 0]
        return np.asarray(J)

    def input_jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        _, _, _, to_r, to_z, to_n = np.moveaxis(a, 1, 0)[..., None]
        W_r, W_z, W_n = split_gates(p["W"], 3, -2)[..., None, :, :]
        if self.reset == "after":
            return np.asarray(to_r * W_r + to_z * W_z + to_n * W_n)
        U_n = split_gates(p["U"], 3, -2)[2][..., None, :, :]
        return np.asarray(to_n * (W_n + np.matmul(U_n, to_r * W_r)) + to_z * W_z)

    def gate_values(self, a: Array) -> dict[str, Array]:
        return {name: a[:, k] for k, name in enumerate(self.gates)}
