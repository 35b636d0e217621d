"""The Clockwork RNN: modules that tick at different rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlab._validate import require_count, require_one_of
from gradlab.cells import activations
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
    sum_rows,
    transpose,
    turned,
    unrows,
)
from gradlab.errors import ValueRangeError


class Clockwork(Cell):
    """h_t = D_t f(W x_t + U h_{t-1} + b) + (I - D_t) h_{t-1};  J_t = D_t diag(f') U + I - D_t.

    Koutnik, Greff, Gomez & Schmidhuber (2014). The units form one module for each of the `periods`
    T_1 <= T_2 <= ..., ordered fast to slow and as equal in size as can be (with fewer units than periods the
    slowest modules are empty); D_t selects the units of the modules with
    t mod T_k = 0, the others keep their value. The clock starts at t = 0, when all are active. U is
    block-upper-triangular: slow feeds fast, never the reverse. Entries below are ignored and have gradient 0.

    `activation`: tanh, sigmoid, relu, ... as for Elman. State: h (H). Parameters: W (H, D), U (H, H), b (H,).
    """

    def __init__(self, periods: Sequence[int] = (1, 2, 4, 8), activation: str = "tanh") -> None:
        if not isinstance(periods, Sequence) or len(periods) == 0:
            raise ValueRangeError(f"periods is {periods!r}; expected a sequence of at least one, e.g. (1, 2, 4, 8)")
        self.periods = tuple(require_count(f"periods[{k}]", period) for k, period in enumerate(periods))
        if any(later < earlier for earlier, later in zip(self.periods, self.periods[1:], strict=False)):
            raise ValueRangeError(f"periods is {self.periods}; expected ascending ones: modules are ordered fast to slow")
        self.activation = activations.ALL[require_one_of("activation", activation, activations.ALL)]

    def __repr__(self) -> str:
        return f"Clockwork({self.periods}, {self.activation.name!r})"

    def module_ends(self, hidden_size: int) -> list[int]:
        """The first column behind each module."""
        sizes = [len(part) for part in np.array_split(np.arange(hidden_size), len(self.periods))]
        return [int(end) for end in np.cumsum(sizes)]

    def connections(self, hidden_size: int) -> Array:
        """(H, H) booleans: which entries of U exist. Row a, column b: from b to a."""
        module = np.repeat(np.arange(len(self.periods)), np.diff([0, *self.module_ends(hidden_size)]))
        return np.asarray(module[:, None] <= module[None, :])

    def active(self, t: Array | int, hidden_size: int) -> Array:
        """D_t as booleans: (H,), or (T, H) for an array of steps."""
        sizes = np.diff([0, *self.module_ends(hidden_size)])
        return np.asarray(np.asarray(t)[..., None] % np.repeat(self.periods, sizes) == 0)

    def init(
        self, rng: np.random.Generator, input_size: int, hidden_size: int, *, W: Init | None = None, U: Init | None = None
    ) -> Params:
        """Matrices by the inits `W` and `U` (default: uniform in +-1/sqrt(H)), U cut to its blocks; bias 0."""
        recurrent = draw(rng, U, 1, hidden_size, hidden_size) * self.connections(hidden_size)
        return {"W": draw(rng, W, 1, hidden_size, input_size), "U": recurrent, "b": np.zeros(hidden_size)}

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        H = s_prev.shape[-1]
        U = params["U"] * self.connections(H)
        new = self.activation.value(x_t @ transpose(params["W"]) + s_prev @ transpose(U) + row(params["b"]))
        return np.where(self.active(t, H), new, s_prev)

    # The tape is the pre-activation until the step turns it into D_t f': 0 for the units that rest.
    # With periods that divide each other the active units are the first columns, and only those are computed.

    def tape_shape(self, input_size: int, hidden_size: int) -> tuple[int, int]:
        return 1, hidden_size

    def pre_size(self, input_size: int, hidden_size: int) -> int:
        return hidden_size

    def prepare(self, params: Params, rows: tuple[int, ...]) -> dict[str, Any]:
        H = params["U"].shape[-1]
        connections = self.connections(H)
        U = params["U"] * connections
        return dict(params, U=U, U_T=turned(U), connections=connections, spare=np.empty((*rows, H), U.dtype))

    def _reach(self, t: int, hidden_size: int) -> tuple[int, Array]:
        """The first column behind the slowest active module, and the units up to there that rest."""
        active = self.active(t, hidden_size)
        end = int(np.flatnonzero(active)[-1]) + 1 if active.any() else 0
        return end, ~active[:end]

    def project(self, p: dict[str, Any], x: Array, a: Array) -> None:
        affine_rows(x, p["W"], p["b"], out=a[:, 0])

    def step_into(self, p: dict[str, Any], a_t: Array, s_prev: Array, s_out: Array, t: int) -> None:
        end, rest = self._reach(t, s_prev.shape[-1])
        s_out[..., end:] = s_prev[..., end:]
        a_t[0, ..., end:] = 0.0
        if end:
            new, slope = s_out[..., :end], a_t[0, ..., :end]
            np.matmul(s_prev, p["U_T"][..., :end], out=new)
            new += slope
            self.activation.value_and_slope(new, new, slope)
            if rest.any():
                np.copyto(new, s_prev[..., :end], where=rest)
                slope *= ~rest

    def step_vjp(
        self, p: dict[str, Any], a_t: Array, s_prev: Array, s_t: Array, delta: Array, da_out: Array, ds_out: Array, t: int
    ) -> None:
        end, rest = self._reach(t, s_prev.shape[-1])
        np.multiply(delta, a_t[0], out=da_out)
        if end:
            np.matmul(da_out[..., :end], p["U"][..., :end, :], out=ds_out)
        else:
            ds_out[...] = 0.0
        ds_out[..., end:] += delta[..., end:]
        if rest.any():
            ds_out[..., :end] += np.multiply(delta[..., :end], rest, out=p["spare"][..., :end])

    def input_grad(self, p: dict[str, Any], da: Array) -> Array:
        return unrows(np.matmul(rows(da), p["W"]), da)

    def param_grads(self, p: dict[str, Any], x: Array, a: Array, s: Array, da: Array, delta: Array, t: Array) -> Params:
        return {"W": outer_rows(da, x), "U": outer_rows(da, s[:-1]) * p["connections"], "b": sum_rows(da)}

    def jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        H = a.shape[-1]
        J = np.asarray(a[:, 0, ..., :, None] * p["U"][..., None, :, :])
        diagonal = np.arange(H)
        rest = ~self.active(t, H)
        J[..., diagonal, diagonal] += rest.reshape(len(rest), *(1,) * (J.ndim - 3), H)
        return J

    def input_jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        return np.asarray(a[:, 0, ..., :, None] * p["W"][..., None, :, :])
