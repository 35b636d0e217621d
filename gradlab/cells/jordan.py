"""The network of Jordan (1986): what is fed back is the output."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlab._validate import require_count, require_number, require_one_of
from gradlab.cells import activations
from gradlab.cells.base import (
    Array,
    Cell,
    Init,
    Params,
    affine_rows,
    default_init,
    draw,
    outer_rows,
    row,
    rows,
    sum_rows,
    transpose,
    turned,
    unrows,
)
from gradlab.errors import ValueRangeError


class Jordan(Cell):
    """h_t = f(W x_t + U s_{t-1} + b);  y_t = g(V h_t + b_y);  s_t = mu s_{t-1} + y_t;
    J_t = mu I + diag(g') V diag(f') U.

    Jordan (1986), "Serial order": state units fed by the outputs, which decay onto themselves at the rate `mu`. mu = 0 is
    the textbook form, where the state IS the output. All memory goes through the `output_size` p outputs: with mu = 0
    the Jacobian of the hidden units, diag(f') U diag(g') V, has rank at most p.

    State: y (p) for mu = 0, else s (p); the layer emits y_t = s_t - mu s_{t-1}. `activation` f and `output_activation`
    g: as for Elman. Parameters: W (H, D), U (H, p), b (H,), V (p, H), b_y (p,).
    """

    def __init__(self, output_size: int, *, mu: float = 0.0, activation: str = "tanh", output_activation: str = "linear") -> None:
        self.output_size = require_count("output_size", output_size)
        if not 0.0 <= require_number("mu", mu) < 1.0:
            raise ValueRangeError(f"mu is {mu}; expected a decay from 0 to below 1")
        self.activation = activations.ALL[require_one_of("activation", activation, activations.ALL)]
        self.output_activation = activations.ALL[require_one_of("output_activation", output_activation, activations.ALL)]
        self.mu = float(mu)

    def __repr__(self) -> str:
        return f"Jordan({self.output_size}, mu={self.mu:g}, {self.activation.name!r}, {self.output_activation.name!r})"

    def init(
        self, rng: np.random.Generator, input_size: int, hidden_size: int, *, W: Init | None = None, U: Init | None = None
    ) -> Params:
        """W and V by the init `W`, U by `U` (default: uniform in +-1/sqrt(H)); biases 0."""
        p = self.output_size
        V = default_init(rng, (p, hidden_size), hidden_size) if W is None else W(rng, (p, hidden_size))
        return {
            "W": draw(rng, W, 1, hidden_size, input_size),
            "U": draw(rng, U, 1, hidden_size, p),
            "b": np.zeros(hidden_size),
            "V": V,
            "b_y": np.zeros(p),
        }

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        h = self.activation.value(x_t @ transpose(params["W"]) + s_prev @ transpose(params["U"]) + row(params["b"]))
        y = self.output_activation.value(h @ transpose(params["V"]) + row(params["b_y"]))
        return self.mu * s_prev + y

    def state_size(self, hidden_size: int) -> int:
        return self.output_size

    def parts(self, hidden_size: int) -> dict[str, int]:
        return {"s" if self.mu else "y": self.output_size}

    def output(self, s: Array, s_prev: Array) -> Array:
        return s - self.mu * s_prev if self.mu else s

    def output_vjp(self, s: Array, s_prev: Array, dy: Array, ds: Array, ds_prev: Array) -> None:
        ds += dy
        if self.mu:
            ds_prev -= self.mu * dy

    # The tape is (pre-activation, -, -) until the step turns it into (f', h_t, g'), with n, n and p columns.

    def tape_shape(self, input_size: int, hidden_size: int) -> tuple[int, int]:
        return 1, 2 * hidden_size + self.output_size

    def pre_size(self, input_size: int, hidden_size: int) -> int:
        return hidden_size + self.output_size

    def pre_spans(self, hidden_size: int) -> dict[str, tuple[int, int]]:
        return {"a": (0, hidden_size), "a_y": (hidden_size, self.pre_size(0, hidden_size))}

    def prepare(self, params: Params, rows: tuple[int, ...]) -> dict[str, Any]:
        H, dtype = params["V"].shape[-1], params["V"].dtype
        return dict(
            params,
            H=H,
            U_T=turned(params["U"]),
            V_T=turned(params["V"]),
            hidden=np.empty((*rows, H), dtype),
            out=np.empty((*rows, self.output_size), dtype),
        )

    def project(self, p: dict[str, Any], x: Array, a: Array) -> None:
        affine_rows(x, p["W"], p["b"], out=a[:, 0, ..., : p["H"]])

    def step_into(self, p: dict[str, Any], a_t: Array, s_prev: Array, s_out: Array, t: int) -> None:
        H, hidden, out = p["H"], p["hidden"], p["out"]
        slope_h, h, slope_y = a_t[0, ..., :H], a_t[0, ..., H : 2 * H], a_t[0, ..., 2 * H :]
        np.matmul(s_prev, p["U_T"], out=hidden)
        hidden += slope_h
        self.activation.value_and_slope(hidden, h, slope_h)
        np.matmul(h, p["V_T"], out=out)
        out += row(p["b_y"])
        self.output_activation.value_and_slope(out, s_out, slope_y)
        if self.mu:
            s_out += np.multiply(self.mu, s_prev, out=out)

    def step_vjp(
        self, p: dict[str, Any], a_t: Array, s_prev: Array, s_t: Array, delta: Array, da_out: Array, ds_out: Array, t: int
    ) -> None:
        H = p["H"]
        da_h, da_y = da_out[..., :H], da_out[..., H:]
        np.multiply(delta, a_t[0, ..., 2 * H :], out=da_y)
        np.multiply(np.matmul(da_y, p["V"], out=p["hidden"]), a_t[0, ..., :H], out=da_h)
        np.matmul(da_h, p["U"], out=ds_out)
        if self.mu:
            ds_out += np.multiply(self.mu, delta, out=p["out"])

    def input_grad(self, p: dict[str, Any], da: Array) -> Array:
        return unrows(np.matmul(rows(da)[..., : p["H"]], p["W"]), da)

    def param_grads(self, p: dict[str, Any], x: Array, a: Array, s: Array, da: Array, delta: Array, t: Array) -> Params:
        H = p["H"]
        da_h, da_y = da[..., :H], da[..., H:]
        return {
            "W": outer_rows(da_h, x),
            "U": outer_rows(da_h, s[:-1]),
            "b": sum_rows(da_h),
            "V": outer_rows(da_y, a[:, 0, ..., H : 2 * H]),
            "b_y": sum_rows(da_y),
        }

    def _through(self, p: dict[str, Any], a: Array, M: Array) -> Array:
        """diag(g') V diag(f') M at every step, with M (H, columns)."""
        H = p["H"]
        inner = a[:, 0, ..., :H, None] * M[..., None, :, :]
        return np.asarray(a[:, 0, ..., 2 * H :, None] * np.matmul(p["V"][..., None, :, :], inner))

    def jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        J = self._through(p, a, p["U"])
        diagonal = np.arange(self.output_size)
        J[..., diagonal, diagonal] += self.mu
        return J

    def input_jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        return self._through(p, a, p["W"])

    def hidden_jacobian(self, p: dict[str, Any], a: Array) -> Array:
        """dh_t/dh_{t-1} = diag(f'_t) U diag(g'_{t-1}) V for t = 2..T: (T-1, *E, B, H, H), rank at most p.

        Error: ValueRangeError for mu > 0, where the hidden units are no state: s_{t-1} is not a function of h_{t-1}.
        """
        if self.mu:
            raise ValueRangeError(f"mu is {self.mu:g}; expected 0: with decay h_t depends on more than h_(t-1)")
        H = p["H"]
        back = a[:-1, 0, ..., 2 * H :, None] * p["V"][..., None, :, :]
        return np.asarray(a[1:, 0, ..., :H, None] * np.matmul(p["U"][..., None, :, :], back))
