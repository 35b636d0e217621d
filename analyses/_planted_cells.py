"""Planted defects in the other cells, built-in ones and a user's; see `analyses._planted_defects`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from analyses._planting import CARRIED, H, copied, defect, grads, in_vjp, put, step
from gradlab._math import sigmoid_slope
from gradlab.cells import GRU, SCRN, Clockwork, Elman, Jordan
from gradlab.cells.base import outer_rows, sum_rows

Array = npt.NDArray[Any]
Params = dict[str, Array]

FIRST, SECOND, THIRD = (slice(k * H, (k + 1) * H) for k in range(3))  # the gates r, z, n
AFTER, BEFORE = GRU(reset="after"), GRU(reset="before")
LAST_CLEAN = "W,U,b[r,z,n] ####.; x ####.; s #####."  # a wrong carry leaves the last step's own gradients alone

IN_GRU = (
    # The tape holds r, z, n and the factors of r, z, n; the adjoints are those of n, r, z and, after, of q = U_n h + b_hn.
    defect(
        "reset path lacks r (reset after)",
        AFTER,
        step(lambda v: v.again(a=put(v.a, 0, 1.0))),
        "U[n] #####; b_hn #####; U[r,z] ####.; W,b[r,z,n] ####.; x ####.; s #####.",
        "U[n] #####; b_hn #####; s_prev #####",
    ),
    defect(
        "b_hn is given b_n's gradient",
        AFTER,
        grads(lambda v: {"b_hn": sum_rows(v.da[..., FIRST])}),
        "b_hn #####",
    ),
    defect(
        "sign of the update gate: n - h_(t-1)",
        AFTER,
        step(lambda v: v.again(a=put(v.a, 4, -v.a[4]))),
        "W,U,b[z] #####; W,U,b[r,n] ####.; b_hn ####.; x #####; s #####.",
        "W,U,b[z] #####; x #####; s_prev #####",
    ),
    defect(
        "path through z * h_(t-1) missing",
        AFTER,
        step(lambda v: {"ds": v.ds - v.delta * v.a[1]}),
        f"{LAST_CLEAN}; b_hn ####.",
        "s_prev #####",
        reading="carried back wrongly",
    ),
    defect(
        "slope of the candidate's tanh missing",
        AFTER,
        step(lambda v: v.again(a=put(v.a, 5, 1.0 - v.a[1]))),
        "W,U,b[n] #####; b_hn #####; W,U,b[r,z] ####.; x #####; s #####.",
        "W,U,b[n] #####; b_hn #####; x #####; s_prev #####",
    ),
    defect(
        "dU_n lacks r (reset before)",
        BEFORE,
        grads(lambda v: {"U": put(v.right["U"], THIRD, outer_rows(v.da[..., FIRST], v.s[:-1]))}),
        "U[n] #####",
    ),
    defect(
        "carry through r * h_(t-1) lacks r",
        BEFORE,
        step(lambda v: {"ds": v.ds + (v.da[..., FIRST] @ v.p["U_n"]) * (1.0 - v.a[0])}),
        LAST_CLEAN,
        "s_prev #####",
        reading="carried back wrongly",
    ),
    defect(
        "stale h: r's adjoint is built on h_t",
        BEFORE,
        step(lambda v: v.again(a=put(v.a, 3, v.a[3] * v.s / v.s_prev))),
        "W,U,b[r] #####; W,U,b[z,n] ####.; x #####; s #####.",
        "W,U,b[r] #####; x #####; s_prev #####",
    ),
    defect(
        "gates r and z swapped in dU",
        BEFORE,
        grads(lambda v: {"U": np.concatenate([v.right["U"][gate] for gate in (SECOND, FIRST, THIRD)])}),
        "U[r,z] #####",
        reading="gates r and z are swapped",
    ),
)

TANH = Elman("tanh")
IN_ELMAN = (
    defect(
        "slope of tanh missing",
        TANH,
        step(lambda v: v.again(a=np.ones_like(v.a))),
        "W,U,b,x #####; s #####.",
        "W,U,b,x #####; s_prev #####",
    ),
    defect(
        "stale h: slope 1 - h_(t-1)^2",
        TANH,
        step(lambda v: v.again(a=1.0 - v.s_prev[None] ** 2)),
        "W,U,b,x #####; s #####.",
        "W,U,b,x #####; s_prev #####",
    ),
    defect(
        "carried back by U in place of its transpose",
        TANH,
        step(lambda v: {"ds": v.da @ v.p["U"].T}),
        "W,U,b,x ####.; s #####.",
        "s_prev #####",
        reading="carried back wrongly",
    ),
)


@contextmanager
def _without_decay(cell: Any, size: float) -> Iterator[Any]:
    def output_vjp(s: Array, s_prev: Array, dy: Array, ds: Array, ds_prev: Array) -> None:
        cell.output_vjp(s, s_prev, dy, ds, ds_prev)
        ds_prev += size * cell.mu * dy

    yield copied(cell, "output_vjp", output_vjp)


def _hidden_before(v: Any) -> Array:
    """h_(t-1) of a Jordan net, as many columns as are fed back; 0 before the first step."""
    h = v.a[:, 0, ..., H : H + v.p["U"].shape[-1]]
    return np.concatenate([np.zeros_like(h[:1]), h[:-1]])


DECAYING = Jordan(2, mu=0.5, output_activation="tanh")
IN_JORDAN = (
    defect(
        "dU is built on h, not on the y fed back",
        Jordan(2),
        grads(lambda v: {"U": outer_rows(v.da[..., FIRST], _hidden_before(v))}),
        "U #####",
    ),
    defect(
        "decay mu missing in the carry",
        DECAYING,
        step(lambda v: {"ds": v.ds - 0.5 * v.delta}),
        "W,U,b,V,b_y,x ####.; s #####.",
        "s_prev #####",
        reading="carried back wrongly",
    ),
    # y_t = s_t - mu s_(t-1): the loss reaches two states, and no single step is wrong.
    defect("loss reaches s_t only, not s_(t-1)", DECAYING, _without_decay, "W,U,b,V,b_y,x ####.; s #####.", CARRIED),
    defect(
        "slope of the output units missing",
        DECAYING,
        step(lambda v: v.again(a=put(v.a, (..., slice(2 * H, None)), 1.0))),
        "W,U,b,V,b_y,x #####; s #####.",
        "W,U,b,V,b_y,x #####; s_prev #####",
    ),
)

# Three modules of one unit: all are active at t = 0 and 4, the first at 1 and 3, the first two at 2.
CLOCK = Clockwork((1, 2, 4))


def _resting(v: Any) -> Array:
    return np.asarray(~CLOCK.active(v.t, H))


IN_CLOCKWORK = (
    defect(
        "resting modules are updated",
        CLOCK,
        step(lambda v: {"da": v.da + v.delta * _resting(v)}),
        "W,U,b,x .###.",
        "W,U,b,x .###.",
    ),
    # Nothing slow is fed by what is fast: the fast unit, alone active at 1 and 3, never hears of it.
    defect(
        "resting modules do not carry their adjoint",
        CLOCK,
        step(lambda v: {"ds": v.ds - v.delta * _resting(v)}),
        "W,U,b,x #.#..; s ####..",
        "s_prev .###.",
    ),
    defect(
        "clock of the backward pass one step ahead",
        CLOCK,
        step(lambda v: v.again(t=v.t + 1)),
        "W,U,b,x #.#..; s #####.",
        "s_prev #####",
    ),
    defect(
        "dU of connections that do not exist",
        CLOCK,
        grads(lambda v: {"U": outer_rows(v.da, v.s[:-1])}),
        "U #.#.#",
    ),
)

Q, REST = (..., slice(0, 2)), (..., slice(2, None))  # context and hidden units of an SCRN, in its state and in da
FIXED, LEARNED = SCRN(2), SCRN(2, learned=True)
IN_SCRN = (
    defect(
        "dB lacks 1 - alpha",
        FIXED,
        grads(lambda v: {"B": outer_rows(v.da[Q], v.x)}),
        "B #####",
        reading="off by the factor 20",
    ),
    # The hidden units do not feed the context: their own gradients stay right.
    defect(
        "context is carried back without alpha",
        FIXED,
        step(lambda v: {"ds": put(v.ds, Q, v.da[Q])}),
        "B,x ####.; s[q] #####.",
        "s_prev[q] #####",
        reading="carried back wrongly",
    ),
    defect(
        "path from h_t to q_t missing",
        FIXED,
        step(lambda v: {"da": put(v.da, Q, v.delta[Q]), "ds": put(v.ds, Q, 0.95 * v.delta[Q])}),
        "B,x #####; s[q] #####.",
        "B,x #####; s_prev[q] #####",
    ),
    defect(
        "stale q: dP is built on q_(t-1)",
        FIXED,
        grads(lambda v: {"P": outer_rows(v.da[REST], v.s[:-1][Q])}),
        "P #####",
    ),
    defect(
        "dbeta lacks -B x_t",
        LEARNED,
        grads(lambda v: {"beta": sum_rows(v.da[Q] * v.s[:-1][Q] * sigmoid_slope(v.p["beta"]))}),
        "beta #####",
    ),
    defect(
        "dbeta lacks the sigmoid's slope",
        LEARNED,
        grads(lambda v: {"beta": v.right["beta"] / sigmoid_slope(v.p["beta"])}),
        "beta #####",
    ),
)


class Leaky:
    """A user's cell: s_t = 0.9 s_(t-1) + 0.1 tanh(W x_t + U s_(t-1)), with the adjoint of a step by hand."""

    def __repr__(self) -> str:
        return "Leaky()"

    def init(self, rng: np.random.Generator, input_size: int, hidden_size: int) -> Params:
        return {"W": rng.normal(size=(hidden_size, input_size)), "U": rng.normal(size=(hidden_size, hidden_size))}

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        return np.asarray(0.9 * s_prev + 0.1 * np.tanh(x_t @ params["W"].T + s_prev @ params["U"].T))

    def vjp(self, params: Params, x_t: Array, s_prev: Array, delta: Array, t: int) -> tuple[Params, Array, Array]:
        y = np.tanh(x_t @ params["W"].T + s_prev @ params["U"].T)
        da = 0.1 * delta * (1.0 - y * y)
        return {"W": da.T @ x_t, "U": da.T @ s_prev}, da @ params["W"], 0.9 * delta + da @ params["U"]


def _without_slope(v: Any) -> dict[str, Array]:
    da = 0.1 * v.delta
    return {"W": da.T @ v.x_t, "U": da.T @ v.s_prev, "x": da @ v.params["W"], "s": 0.9 * v.delta + da @ v.params["U"]}


def _on_the_new_state(v: Any) -> dict[str, Array]:
    s = LEAKY.step(v.params, v.x_t, v.s_prev, v.t)
    y = 10.0 * (s - 0.9 * v.s_prev)
    return {"U": (0.1 * v.delta * (1.0 - y * y)).T @ s}


LEAKY = Leaky()
IN_USER_CELL = (
    defect(
        "a user's vjp lacks the slope of tanh",
        LEAKY,
        in_vjp(_without_slope),
        "W,U,x #####; s #####.",
        "W,U,x #####; s_prev #####",
    ),
    defect(
        "a user's vjp lacks the leak",
        LEAKY,
        in_vjp(lambda v: {"s": v.right["s"] - 0.9 * v.delta}),
        "W,U,x ####.; s #####.",
        "s_prev #####",
        reading="carried back wrongly",
    ),
    defect("a user's dU is built on s_t", LEAKY, in_vjp(_on_the_new_state), "U #####", reading="stale state"),
)
