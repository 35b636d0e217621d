"""Planted defects in the LSTM and its variants; see `analyses._planted_defects`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from analyses._planting import B, H, Plant, defect, grads, inputs, put, step
from gradlab.cells import LSTM
from gradlab.cells.base import outer_rows, sum_rows

Array = npt.NDArray[Any]

FIRST, SECOND, THIRD, FOURTH = (slice(k * H, (k + 1) * H) for k in range(4))  # the gates i, f, g, o where all are there
C, HIDDEN = (..., FIRST), (..., SECOND)  # the parts of the state
TO_I, TO_F, TO_G, TO_O, TO_C = 4, 5, 6, 7, -1  # factors on the tape, behind the four gates
PLAIN, PEEPHOLES, COUPLED, NO_FORGET = LSTM(), LSTM(peepholes=True), LSTM(coupled=True), LSTM(forget_gate=False)


def factor(block: int, wrong: Callable[[Any], Any], at: int | None = None) -> Plant:
    """In one of the factors that a step keeps for its adjoint; at all steps, or at one."""
    return step(lambda v: v.again(a=put(v.a, block, wrong(v))) if at in (None, int(v.t)) else {})


def dc(v: Any) -> Array:
    """The total adjoint of c_t."""
    return np.asarray(v.delta[C] + v.delta[HIDDEN] * v.a[-1])


IN_LSTM = (
    defect(
        "P1: dU is built on h_t in place of h_(t-1)",
        PLAIN,
        grads(lambda v: {"U": outer_rows(v.da, v.s[1:][HIDDEN])}),
        "U[i,f,g,o] #####",
        reading="stale state",
    ),
    defect(
        "P2: dc is carried back without f",
        PLAIN,
        step(lambda v: {"ds": put(v.ds, C, dc(v))}),
        "W,U,b[i,f,g] ####.; W,U,b[o] ###..; x ####.; s[c] #####.; s[h] ####..",
        "s_prev[c] #####",
        reading="carried back wrongly",
    ),
    defect(
        "P3: forget gate missing in dU at one step",
        PLAIN,
        grads(lambda v: {"U": v.again(da=put(v.da, (2, ..., SECOND), 0.0))["U"]}),
        "U[f] ..#..",
        reading="d0.U[f], step 2, every row: it adds nothing",
    ),
    defect(
        "P4: forget gate counted twice in dU at one step",
        PLAIN,
        grads(lambda v: {"U": v.again(da=put(v.da, (2, ..., SECOND), 2.0 * v.da[2][..., SECOND]))["U"]}),
        "U[f] ..#..",
        reading="d0.U[f], step 2, every row: it is off by the factor 2",
    ),
    defect(
        "P5: dx has the wrong sign at the last step",
        PLAIN,
        inputs(lambda v: {"dx": put(v.right["dx"], -1, -v.right["dx"][-1])}),
        "x ....#",
        reading="step 4, every row: it has the wrong sign",
    ),
    defect(
        "P7: db sums over batch row 0 only",
        PLAIN,
        grads(lambda v: {"b": v.da[:, 0].sum(axis=0)}),
        "b[i,f,g,o] #####@1",
        reading="wrong row: what row 1 contributes is missing",
    ),
    defect(
        "output gate missing in dW",
        PLAIN,
        grads(lambda v: {"W": put(v.right["W"], FOURTH, 0.0)}),
        "W[o] #####",
        reading="d0.W[o], every step, every row: it adds nothing",
    ),
    defect(
        "forget gate of db has the wrong sign",
        PLAIN,
        grads(lambda v: {"b": put(v.right["b"], SECOND, -v.right["b"][SECOND])}),
        "b[f] #####",
        reading="d0.b[f], every step, every row: it has the wrong sign",
    ),
    defect(
        "gates i and f swapped in dW",
        PLAIN,
        grads(lambda v: {"W": np.concatenate([v.right["W"][gate] for gate in (SECOND, FIRST, THIRD, FOURTH)])}),
        "W[i,f] #####",
        reading="gates i and f are swapped",
    ),
    defect(
        "candidate's block of dU transposed",
        PLAIN,
        grads(lambda v: {"U": put(v.right["U"], THIRD, v.right["U"][THIRD].T)}),
        "U[g] #####",
        reading="it is transposed",
    ),
    defect("dW is built on x_(t-1)", PLAIN, grads(lambda v: {"W": v.again(x=np.roll(v.x, 1, 0))["W"]}), "W[i,f,g,o] #####"),
    defect(
        "dW of all rows is built on row 0's input",
        PLAIN,
        grads(lambda v: {"W": v.again(x=np.repeat(v.x[:, :1], B, 1))["W"]}),
        "W[i,f,g,o] #####@1",
    ),
    defect(
        "dx comes out one step late",
        PLAIN,
        inputs(lambda v: {"dx": np.roll(v.right["dx"], 1, 0)}),
        "x #####",
        reading="shifted by one step",
    ),
    defect(
        "gradient of the initial state forgotten",
        PLAIN,
        step(lambda v: {"ds": 0.0 * v.ds} if v.t == 0 else {}),
        "s[c,h] #.....",
        "s_prev[c,h] #....",
        reading="ds 0, step 0, every row: it adds nothing",
    ),
    defect(
        "wrong gate: g's adjoint has i's factor",
        PLAIN,
        factor(TO_G, lambda v: v.a[TO_I]),
        "W,U,b[g] #####; W,U,b[i,f,o] ####.; x #####; s[h] #####.; s[c] ####..",
        "W,U,b[g] #####; x #####; s_prev[h] #####",
    ),
    defect(
        "stale c: f's adjoint is built on c_t",
        PLAIN,
        factor(TO_F, lambda v: v.a[TO_F] * v.s[C] / v.s_prev[C]),
        "W,U,b[f] #####; W,U,b[i,g,o] ####.; x #####; s[h] #####.; s[c] ####..",
        "W,U,b[f] #####; x #####; s_prev[h] #####",
    ),
    defect(
        "o's adjoint lacks tanh(c_t)",
        PLAIN,
        factor(TO_O, lambda v: v.a[TO_O] / np.tanh(v.s[C])),
        "W,U,b[o] #####; W,U,b[i,f,g] ####.; x #####; s[h] #####.; s[c] ####..",
        "W,U,b[o] #####; x #####; s_prev[h] #####",
    ),
    defect(
        "slope of tanh(c_t) missing between h and c",
        PLAIN,
        factor(TO_C, lambda v: v.a[3]),
        "W,U,b[i,f,g] #####; W,U,b[o] ####.; x #####; s[c,h] #####.",
        "W,U,b[i,f,g] #####; x #####; s_prev[c,h] #####",
    ),
    defect(
        "path from h to c missing at one step",
        PLAIN,
        factor(TO_C, lambda v: 0.0, at=2),
        "W,U,b[i,f,g] ###..; W,U,b[o] ##...; x ###..; s[c,h] ###...",
        "W,U,b[i,f,g] ..#..; x ..#..; s_prev[c,h] ..#..",
    ),
    defect(
        "peepholes missing in the carry of c",
        PEEPHOLES,
        step(lambda v: {"ds": put(v.ds, C, dc(v) * v.a[1])}),
        "W,U,b[i,f,g] ####.; p_i,p_f ####.; W,U,b[o] ###..; p_o ###..; x ####.; s[c] #####.; s[h] ####..",
        "s_prev[c] #####",
        reading="carried back wrongly",
    ),
    defect(
        "peephole of o missing between c_t and o",
        PEEPHOLES,
        factor(TO_C, lambda v: v.a[TO_C] - v.p["p_o"] * v.a[TO_O]),
        "W,U,b[i,f,g] #####; p_i,p_f #####; W,U,b[o] ####.; p_o ####.; x #####; s[c,h] #####.",
        "W,U,b[i,f,g] #####; p_i,p_f #####; x #####; s_prev[c,h] #####",
    ),
    defect(
        "stale c: dp_o is built on c_(t-1)",
        PEEPHOLES,
        grads(lambda v: {"p_o": sum_rows(v.da[..., FOURTH] * v.s[:-1][C])}),
        "p_o #####",
    ),
    defect(
        "dp_f forgotten",
        PEEPHOLES,
        grads(lambda v: {"p_f": 0.0 * v.right["p_f"]}),
        "p_f #####",
        reading="d0.p_f, every step, every row: it adds nothing",
    ),
    # Coupled: the tape holds f, g, o, i and the factors of f, g, o.
    defect(
        "sign of the coupled gate: c_(t-1) + g",
        COUPLED,
        factor(4, lambda v: v.a[4] * (v.s_prev[C] + v.a[1]) / (v.s_prev[C] - v.a[1])),
        "W,U,b[f] #####; W,U,b[g,o] ####.; x #####; s[h] #####.; s[c] ####..",
        "W,U,b[f] #####; x #####; s_prev[h] #####",
    ),
    defect(
        "coupled gates: g's adjoint has f for 1 - f",
        COUPLED,
        factor(5, lambda v: v.a[5] * v.a[0] / v.a[3]),
        "W,U,b[g] #####; W,U,b[f,o] ####.; x #####; s[h] #####.; s[c] ####..",
        "W,U,b[g] #####; x #####; s_prev[h] #####",
    ),
    # Without forget gate: the tape holds i, g, o, f.
    defect(
        "no forget gate, but i is on the carousel",
        NO_FORGET,
        step(lambda v: {"ds": put(v.ds, C, dc(v) * v.a[0])}),
        "W,U,b[i,g] ####.; W,U,b[o] ###..; x ####.; s[c] #####.; s[h] ####..",
        "s_prev[c] #####",
        reading="carried back wrongly",
    ),
)
