"""Losses of many networks at once from the forward pass alone: nothing is kept for a backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.batch import Batch
from gradlab.cells import ALL, LSTM
from gradlab.cells.base import Cell, transpose
from gradlab.errors import ShapeError
from gradlab.forward_pass import forward
from gradlab.losses import Loss
from gradlab.network import Network, Params
from gradlab.objective import cotangent
from gradlab.workspace import Workspace

Array = npt.NDArray[Any]


def is_plain_lstm(cell: Cell) -> bool:
    """Whether `LSTMKernel` computes the step of `cell`."""
    return type(cell) is LSTM and cell.forget_gate and not cell.coupled and not cell.peepholes


class StepKernel:
    """The step as the paper prints it."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def prepare(self, params: Params, rows: tuple[int, ...]) -> dict[str, Any]:
        own_axes = {key: value.ndim - len(rows) + 1 for key, value in params.items()}
        # `step` multiplies by transposes: as contiguous memory they go through BLAS almost twice as fast
        turned = {key: transpose(np.ascontiguousarray(transpose(v))) if own_axes[key] == 2 else v for key, v in params.items()}
        return {"params": turned}

    def step_into(self, p: dict[str, Any], x_t: Array, s_prev: Array, s_out: Array, t: int) -> None:
        s_out[...] = self.cell.step(p["params"], x_t, s_prev, t)


class LSTMKernel:
    """The step of a plain LSTM in one product and as few passes over memory as there are functions to evaluate.

    (h, x, 1) times the stacked (-U, -W, -b) gives minus the pre-activations of i, f and o; with e = exp of that, a product
    with a gate is a division by 1 + e. Where e overflows the gate is 0, as it should be. The block input g keeps its sign.
    """

    def prepare(self, params: Params, rows: tuple[int, ...]) -> dict[str, Any]:
        W, U, b = params["W"], params["U"], params["b"]
        H, D, dtype = U.shape[-1], W.shape[-1], U.dtype
        lead = np.broadcast_shapes(U.shape[:-2], W.shape[:-2], b.shape[:-1])
        stacked = np.empty((*lead, H + D + 1, 4 * H), dtype)
        for place, source, sign in ((0, 0, -1.0), (1, 1, -1.0), (2, 3, -1.0), (3, 2, 1.0)):  # i, f, g, o as i, f, o, g
            to, of = slice(place * H, (place + 1) * H), slice(source * H, (source + 1) * H)
            np.multiply(transpose(U[..., of, :]), sign, out=stacked[..., :H, to])
            np.multiply(transpose(W[..., of, :]), sign, out=stacked[..., H:-1, to])
            np.multiply(b[..., of], sign, out=stacked[..., -1, to])
        seen = np.ones((*rows, H + D + 1), dtype)  # (h_{t-1}, x_t, 1)
        pre, gates = np.empty((*rows, 4 * H), dtype), np.empty((3, *rows, H), dtype)
        by_gate = np.moveaxis(pre[..., : 3 * H].reshape(*rows, 3, H), -2, 0)
        return {
            "H": H,
            "stacked": stacked,
            "seen": seen,
            "pre": pre,
            "by_gate": by_gate,
            "gates": gates,
            "g": np.empty((*rows, H), dtype),
        }

    def step_into(self, p: dict[str, Any], x_t: Array, s_prev: Array, s_out: Array, t: int) -> None:
        H, seen, pre, gates, g = p["H"], p["seen"], p["pre"], p["gates"], p["g"]
        seen[..., :H] = s_prev[..., H:]
        seen[..., H:-1] = x_t
        np.matmul(seen, p["stacked"], out=pre)
        np.exp(p["by_gate"], out=gates)
        gates += 1.0
        i, f, o = gates  # one over each gate
        np.tanh(pre[..., 3 * H :], out=g)
        g /= i
        c = np.divide(s_prev[..., :H], f, out=f)
        c += g
        s_out[..., :H] = c
        np.tanh(c, out=c)
        np.divide(c, o, out=s_out[..., H:])


class ForwardOnly(Cell):
    """`cell` for passes that nothing goes back through: no slopes, and a tape that holds x_t alone."""

    def __init__(self, cell: Cell) -> None:
        self.cell, self.gates = cell, cell.gates
        self.kernel: StepKernel | LSTMKernel = LSTMKernel() if is_plain_lstm(cell) else StepKernel(cell)

    def __repr__(self) -> str:
        return repr(self.cell)

    def init(self, rng: np.random.Generator, input_size: int, hidden_size: int, **options: Any) -> Params:
        return self.cell.init(rng, input_size, hidden_size, **options)

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        return self.cell.step(params, x_t, s_prev, t)

    def state_size(self, hidden_size: int) -> int:
        return self.cell.state_size(hidden_size)

    def parts(self, hidden_size: int) -> dict[str, int]:
        return self.cell.parts(hidden_size)

    def output(self, s: Array, s_prev: Array) -> Array:
        return self.cell.output(s, s_prev)

    def tape_shape(self, input_size: int, hidden_size: int) -> tuple[int, int]:
        return 1, input_size

    def pre_size(self, input_size: int, hidden_size: int) -> int:
        return input_size

    def prepare(self, params: Params, rows: tuple[int, ...]) -> dict[str, Any]:
        return self.kernel.prepare(params, rows)

    def project(self, p: dict[str, Any], x: Array, a: Array) -> None:
        a[:, 0] = x

    def step_into(self, p: dict[str, Any], a_t: Array, s_prev: Array, s_out: Array, t: int) -> None:
        self.kernel.step_into(p, a_t[0], s_prev, s_out, t)

    def step_vjp(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("this pass keeps nothing for a backward one")

    def input_grad(self, *args: Any, **kwargs: Any) -> Array:
        raise NotImplementedError("this pass keeps nothing for a backward one")

    def param_grads(self, *args: Any, **kwargs: Any) -> Params:
        raise NotImplementedError("this pass keeps nothing for a backward one")


BUILT_IN = frozenset(type(cell) for cell in ALL)
"""Cells whose `step` is known to take ensemble axes; a user's cell runs as it does everywhere else."""


def forward_only(net: Network) -> Network:
    """The same function as `net`, of the same parameters; it may round differently in the last digit."""
    cells = [level[0].cell for level in net.levels]
    chosen = tuple(ForwardOnly(cell) if type(cell) in BUILT_IN else cell for cell in cells)
    return replace(net, cell=chosen, num_layers=len(chosen))


def member_losses(
    net: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    shape: tuple[int, ...],
    initial_states: Mapping[str, Array] | None,
    first_step: int,
    workspace: Workspace,
) -> Array:
    """The loss of every ensemble member, `shape`; infinite or NaN where numbers left the range of floats.

    Error: ShapeError if the loss does not return one value for each member.
    """
    run = forward(net, params, batch.inputs, initial_states, lengths=batch.lengths, first_step=first_step, workspace=workspace)
    with np.errstate(all="ignore"):  # what left the range of floats is counted on the results
        value, _ = cotangent(net, run, batch, loss)
    if value.shape != shape:
        raise ShapeError(f"loss returned a value of shape {value.shape} for outputs with ensemble axes {shape}; expected {shape}")
    return value
