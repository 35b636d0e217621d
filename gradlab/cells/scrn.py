"""The structurally constrained recurrent network: slow context units beside fast hidden ones."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from gradlab._math import sigmoid, sigmoid_and_slope, sigmoid_slope
from gradlab._validate import require_count, require_flag, require_number, require_one_of
from gradlab.cells.base import Array, Cell, Init, Params, outer_rows, row, rows, sum_rows, transpose, turned, unrows
from gradlab.errors import ValueRangeError


class SCRN(Cell):
    """q_t = (1 - alpha) B x_t + alpha q_{t-1};  h_t = sigmoid(P q_t + A x_t + R h_{t-1}).

    Mikolov, Joulin, Chopra, Mathieu & Ranzato (2014), whose slow state s is written q here: `context_size` units n_s that forget
    at a fixed rate. State: (q, h), n_s + H; the layer emits both. With q_t in h_t,
    J_t = [[alpha I, 0], [alpha diag(h') P, diag(h') R]]: the exponents contain ln alpha, n_s times.

    `alpha`: the decay, 0.95 in the paper; `learned=True` starts there and learns one for each unit, as
    alpha = sigmoid(beta). `context="previous"`: h_t reads q_{t-1}, as the released code does; then the lower
    left block is diag(h') P.

    Parameters: B (n_s, D), P (H, n_s), A (H, D), R (H, H), no biases; learned: beta (n_s,).
    """

    def __init__(
        self,
        context_size: int = 10,
        *,
        alpha: float = 0.95,
        learned: bool = False,
        context: Literal["current", "previous"] = "current",
    ) -> None:
        self.context_size = require_count("context_size", context_size)
        if not 0.0 < require_number("alpha", alpha) < 1.0:
            raise ValueRangeError(f"alpha is {alpha}; expected a decay between 0 and 1")
        # "current" is the paper, "previous" the code released with it
        self.context = require_one_of("context", context, ("current", "previous"))
        self.alpha, self.learned = float(alpha), require_flag("learned", learned)

    def __repr__(self) -> str:
        return f"SCRN({self.context_size}, alpha={self.alpha:g}, learned={self.learned}, context={self.context!r})"

    def init(
        self, rng: np.random.Generator, input_size: int, hidden_size: int, *, W: Init | None = None, U: Init | None = None
    ) -> Params:
        """B, P and A by the init `W`, R by `U` (default: N(0, 0.05^2), as released)."""
        n, H, D = self.context_size, hidden_size, input_size

        def matrix(init: Init | None, shape: tuple[int, int]) -> Array:
            return rng.normal(0.0, 0.05, shape) if init is None else init(rng, shape)

        params = {"B": matrix(W, (n, D)), "P": matrix(W, (H, n)), "A": matrix(W, (H, D)), "R": matrix(U, (H, H))}
        return params | ({"beta": np.full(n, np.log(self.alpha) - np.log1p(-self.alpha))} if self.learned else {})

    def _decay(self, params: Params) -> tuple[Any, Any]:
        """Alpha and 1 - alpha, (*E, 1, n_s) if learned; both with all their digits."""
        if not self.learned:
            return self.alpha, 1.0 - self.alpha
        return row(sigmoid(params["beta"])), row(sigmoid(-params["beta"]))

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        q_prev, h_prev = s_prev[..., : self.context_size], s_prev[..., self.context_size :]
        alpha, gain = self._decay(params)
        q = gain * (x_t @ transpose(params["B"])) + alpha * q_prev
        seen = q if self.context == "current" else q_prev
        h = sigmoid(seen @ transpose(params["P"]) + x_t @ transpose(params["A"]) + h_prev @ transpose(params["R"]))
        return np.concatenate([q, h], axis=-1)

    def state_size(self, hidden_size: int) -> int:
        return self.context_size + hidden_size

    def parts(self, hidden_size: int) -> dict[str, int]:
        return {"q": self.context_size, "h": hidden_size}

    # The tape is (B x_t, A x_t) until the step turns it into (B x_t, h'). da is (the adjoint of q_t, that of the
    # pre-activation of h_t).

    def tape_shape(self, input_size: int, hidden_size: int) -> tuple[int, int]:
        return 1, self.context_size + hidden_size

    def pre_size(self, input_size: int, hidden_size: int) -> int:
        return self.context_size + hidden_size

    def pre_spans(self, hidden_size: int) -> dict[str, tuple[int, int]]:
        return {"a": (self.context_size, self.context_size + hidden_size)}  # the context's adjoint, which is first, is no gate's

    def prepare(self, params: Params, rows: tuple[int, ...]) -> dict[str, Any]:
        n, H, dtype = self.context_size, params["R"].shape[-1], params["R"].dtype
        alpha, gain = self._decay(params)
        ensemble = rows[:-1]
        # One matrix from x to the tape, and one from the hidden pre-activation back to the state it read.
        to_tape = np.concatenate([np.broadcast_to(params[k], (*ensemble, *params[k].shape[-2:])) for k in "BA"], axis=-2)
        return dict(
            params,
            alpha=np.asarray(alpha).astype(dtype),
            gain=np.asarray(gain).astype(dtype),
            to_tape=to_tape,
            R_T=turned(params["R"]),
            P_T=turned(params["P"]),
            pre=np.empty((*rows, H), dtype),
            work=np.empty((*rows, H), dtype),
            context=np.empty((*rows, n), dtype),
        )

    def project(self, p: dict[str, Any], x: Array, a: Array) -> None:
        np.matmul(rows(x), transpose(p["to_tape"]), out=rows(a[:, 0]))

    def step_into(self, p: dict[str, Any], a_t: Array, s_prev: Array, s_out: Array, t: int) -> None:
        n = self.context_size
        q, h, slope, pre = s_out[..., :n], s_out[..., n:], a_t[0, ..., n:], p["pre"]
        np.multiply(p["alpha"], s_prev[..., :n], out=q)
        q += np.multiply(p["gain"], a_t[0, ..., :n], out=p["context"])
        np.matmul(s_prev[..., n:], p["R_T"], out=pre)
        pre += np.matmul(q if self.context == "current" else s_prev[..., :n], p["P_T"], out=p["work"])
        pre += slope
        sigmoid_and_slope(pre, h, slope)

    def step_vjp(
        self, p: dict[str, Any], a_t: Array, s_prev: Array, s_t: Array, delta: Array, da_out: Array, ds_out: Array, t: int
    ) -> None:
        n = self.context_size
        dq, da_h = da_out[..., :n], da_out[..., n:]
        np.multiply(delta[..., n:], a_t[0, ..., n:], out=da_h)
        np.matmul(da_h, p["R"], out=ds_out[..., n:])
        through = np.matmul(da_h, p["P"], out=p["context"])  # adjoint of the context that h_t read
        dq[...] = delta[..., :n]
        if self.context == "current":
            dq += through
        np.multiply(p["alpha"], dq, out=ds_out[..., :n])
        if self.context == "previous":
            ds_out[..., :n] += through

    def input_grad(self, p: dict[str, Any], da: Array) -> Array:
        n = self.context_size
        dx = np.matmul(rows(da[..., :n] * p["gain"]), p["B"]) + np.matmul(rows(da[..., n:]), p["A"])
        return unrows(dx, da)

    def param_grads(self, p: dict[str, Any], x: Array, a: Array, s: Array, da: Array, delta: Array, t: Array) -> Params:
        n = self.context_size
        dq, da_h = da[..., :n], da[..., n:]
        read = s[1:] if self.context == "current" else s[:-1]
        found = {
            "B": outer_rows(dq * p["gain"], x),
            "P": outer_rows(da_h, read[..., :n]),
            "A": outer_rows(da_h, x),
            "R": outer_rows(da_h, s[:-1, ..., n:]),
        }
        if self.learned:
            slope = row(sigmoid_slope(p["beta"])).astype(da.dtype)
            found["beta"] = sum_rows(dq * (s[:-1, ..., :n] - a[:, 0, ..., :n]) * slope)
        return found

    def jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        n, S = self.context_size, a.shape[-1]
        slope = a[:, 0, ..., n:, None]
        alpha = np.broadcast_to(p["alpha"], (*slope.shape[:-2], n))
        J = np.zeros((*slope.shape[:-2], S, S), a.dtype)
        J[..., np.arange(n), np.arange(n)] = alpha
        J[..., n:, :n] = slope * p["P"][..., None, :, :]
        if self.context == "current":
            J[..., n:, :n] *= alpha[..., None, :]
        J[..., n:, n:] = slope * p["R"][..., None, :, :]
        return J

    def input_jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        n = self.context_size
        slope = a[:, 0, ..., n:, None]
        gain = np.broadcast_to(p["gain"], (*slope.shape[:-2], n))
        dq = gain[..., None] * p["B"][..., None, :, :]
        dh = slope * p["A"][..., None, :, :]
        if self.context == "current":
            dh = dh + slope * np.matmul(p["P"][..., None, :, :], dq)
        return np.concatenate([dq, dh], axis=-2)
