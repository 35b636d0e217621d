"""Z -> J_t Z for the steps of a forward pass, as cheaply as the cell allows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from gradlab.analysis._forward_only import ForwardOnly, is_plain_lstm
from gradlab.analysis._lyapunov_qr import Push
from gradlab.cells import LSTM, Elman
from gradlab.cells.base import Cell, rows
from gradlab.forward_pass import LayerPass
from gradlab.network import Network, Params
from gradlab.workspace import time_major

Array = npt.NDArray[Any]

FEW = 2**18
"""Bytes of Jacobians computed at a time: what stays in the cache is several times faster."""
FEW_TAPES = 2**19
"""The same of tapes, where one call costs more than the work on a few of them."""


def leaner(net: Network) -> Network:
    """`net` with the plain LSTMs keeping no tape: `pushes` makes it for many steps at a time. The last digits may differ."""
    cells = tuple(level[0].cell for level in net.levels)
    lean = tuple(ForwardOnly(cell) if is_plain_lstm(cell) else cell for cell in cells)
    return replace(net, cell=lean, num_layers=len(lean))


def bytes_per_step(run: LayerPass) -> int:
    """What one step keeps alive until its block is done."""
    lead, S, cell = run.states.shape[1:-1], run.states.shape[-1], _cell(run)
    entries = math.prod(cell.tape_shape(run.layer.input_size, run.layer.hidden_size)) if _matrix_free(cell) else S * S
    return int(run.states.itemsize * math.prod(lead) * entries)


def pushes(run: LayerPass, params: Params) -> Iterator[Push]:
    """Z -> J_t Z for every step of the pass; `params` of its network."""
    cell = _cell(run)
    if _matrix_free(cell):
        for p, tape in _tapes(run, cell, params):
            U = p["U"]  # tangent vectors have double precision, whatever the network has
            yield from cell.jacobian_products(dict(p, U=U.astype(np.result_type(U, np.float64), copy=False)), tape)
        return
    T = len(run.t)
    few = max(1, FEW // (run.states[0].nbytes * run.states.shape[-1]))
    for first in range(0, T, few):
        for J in run.window(first, min(first + few, T)).jacobians():
            yield partial(np.matmul, J)


def _cell(run: LayerPass) -> Cell:
    cell = run.layer.cell
    return cell.cell if isinstance(cell, ForwardOnly) else cell


def _matrix_free(cell: Cell) -> TypeGuard[Elman | LSTM]:
    return type(cell) in (Elman, LSTM)


def _tapes(run: LayerPass, cell: Cell, params: Params) -> Iterator[tuple[dict[str, Any], Array]]:
    """Prepared parameters and tapes (t, blocks, *E, B, H) of consecutive steps.

    Where the pass kept none: once the states are known no step waits for the one before, and they are so many rows of one step.
    """
    if cell is run.layer.cell:
        yield run.p, run.tape
        return
    prefix = f"{run.layer.name}."
    own = {key.removeprefix(prefix): value for key, value in params.items() if key.startswith(prefix)}
    lead, B = run.states.shape[1:-2], run.states.shape[-2]
    blocks, columns = cell.tape_shape(run.layer.input_size, run.layer.hidden_size)
    few = max(1, FEW_TAPES // bytes_per_step(run))
    prepared, p = 0, {}
    for first in range(0, len(run.t), few):
        part = run.window(first, min(first + few, len(run.t)))
        n, before = len(part.t), rows(part.states[:-1])
        if n != prepared:
            prepared, p = n, cell.prepare(own, (*lead, n * B))
        tape = time_major(None, "tape", (blocks, *lead, n, B, columns), run.states.dtype)
        cell.project(p, part.x, tape)
        cell.step_into(p, rows(tape), before, np.empty_like(before), int(part.t[0]))
        yield p, tape
