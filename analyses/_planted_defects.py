"""The catalogue of planted defects: mistakes that writers of backward passes make, each with the label that a check owes it.

The labels are derived, not observed. A wrong contribution to one parameter stays there. A wrong adjoint of a pre-activation
spoils its own gate at its own step and, carried back, all gates before. A wrong carry leaves the last step clean.
"W[o] ####." is a label: one sign for each step, # for wrong; states have one step more, the initial state first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from analyses._planted_cells import IN_CLOCKWORK, IN_ELMAN, IN_GRU, IN_JORDAN, IN_SCRN, IN_USER_CELL
from analyses._planted_lstm import IN_LSTM
from analyses._planting import CARRIED, Defect, T, altered, defect, in_engine, mixed
from gradlab import backward, objective
from gradlab.cells import GRU, LSTM, Elman

Array = npt.NDArray[Any]


def _sweep_without(steps: range) -> Callable[..., Any]:
    """The sweep of a layer that leaves out some steps: nothing is computed there and nothing is carried."""

    def wrong(right: Callable[..., Any], size: float) -> Callable[..., Any]:
        def nothing(v: Any) -> dict[str, Array]:
            return {"da": 0.0 * v.da, "ds": 0.0 * v.ds} if v.t in steps else {}

        def sweep(run: Any, *rest: Any) -> Any:
            cell = altered(run.layer.cell, "step_vjp", nothing, size)
            return right(replace(run, layer=replace(run.layer, cell=cell)), *rest)

        return sweep

    return wrong


def _instead(wrong: Callable[..., Array]) -> Callable[..., Any]:
    """`wrong(right, *args)` in place of what a function returns."""
    return lambda right, size: lambda *args: mixed(right(*args), wrong(right, *args), size)


def _at_the_end_of_all_rows(right: Callable[..., Any], size: float) -> Callable[..., Any]:
    def place_last(d: Array, out: Array, lengths: Array | None) -> None:
        right(d, out, None)
        wrong = out.copy()
        right(d, out, lengths)
        out[...] = mixed(out, wrong, size)

    return place_last


def _without_mask(right: Callable[..., Any], size: float) -> Callable[..., Any]:
    """The sweep with the adjoint of each step where the state was only copied: blended step by step, like all defects."""

    def sweep(run: Any, *rest: Any) -> Any:
        masked = run.mask

        def copied_through(v: Any) -> dict[str, Array]:
            """What the mask would have made of this step, to blend with what the step itself gives."""
            absent = ~masked[int(v.t)][:, None]
            return {"da": np.where(absent, 0.0, v.da), "ds": np.where(absent, v.delta, v.ds)}

        cell = altered(run.layer.cell, "step_vjp", copied_through, 1.0 - size)
        return right(replace(run, layer=replace(run.layer, cell=cell), mask=None), *rest)

    return sweep


@contextmanager
def _over_all_rows(cell: Any, size: float) -> Iterator[Any]:
    """The backward pass of a batch whose rows all end with the longest: neither its start nor its sweep knows `lengths`."""
    start = in_engine(objective, "place_last", _at_the_end_of_all_rows)
    sweep = in_engine(backward, "_sweep", _without_mask)
    with start(cell, size), sweep(cell, size):
        yield cell


ELMAN = Elman("tanh")
BOTH = {"bidirectional": True}
READ_OUT = {"output_size": 2}
LAST_RAGGED = {"ragged": True, "readout": "last"}
IN_ENGINE = (
    defect(
        "P6: backward stops two steps from the end",
        LSTM(),
        in_engine(backward, "_sweep", _sweep_without(range(T - 2))),
        "W,U,b[i,f,g,o] ###..; x ###..; s[c,h] ###...",
        CARRIED,
        reading="truncated: nothing arrives at steps 0..2",
    ),
    defect(
        "off by one: backward starts at T - 2",
        GRU(),
        in_engine(backward, "_sweep", _sweep_without(range(T - 1, T))),
        "W,U,b[r,z,n] #####; b_hn #####; x #####; s #####.",
        CARRIED,
    ),
    defect(
        "one step in the middle left out",
        ELMAN,
        in_engine(backward, "_sweep", _sweep_without(range(2, 3))),
        "W,U,b,x ###..; s ###...",
        CARRIED,
    ),
    # The middle of an odd number of steps is its own mirror image.
    defect(
        "direction flipped: dx of the reverse one not turned back",
        ELMAN,
        in_engine(backward, "flip", _instead(lambda right, x, lengths: x)),
        "x ##.##",
        CARRIED,
        options=BOTH,
    ),
    defect(
        "direction flipped: loss enters the reverse one forwards",
        ELMAN,
        in_engine(objective, "flip", _instead(lambda right, x, lengths: x)),
        "0.backward.W,0.backward.U,0.backward.b,x #####; s 0.backward #####.; s 0.backward .##.##",
        CARRIED,
        options=BOTH,
    ),
    defect(
        "stack: dx of the reverse direction lost",
        ELMAN,
        in_engine(backward, "flip", _instead(lambda right, x, lengths: 0.0 * x)),
        "x,0.forward.W,0.forward.U,0.forward.b,0.backward.W,0.backward.U,0.backward.b #####; s 0.forward,s 0.backward ######",
        CARRIED,
        options={"bidirectional": True, "num_layers": 2},
    ),
    defect(
        "dropped mask: backward runs over the padding",
        ELMAN,
        _over_all_rows,
        "W,U,b ###..@1; x #####@1; s ######@1",
        CARRIED,
        options=LAST_RAGGED,
    ),
    defect(
        "last step of the batch for a row's own",
        ELMAN,
        in_engine(objective, "place_last", _at_the_end_of_all_rows),
        "s ....##@1",
        CARRIED,
        options=LAST_RAGGED,
    ),
    defect(
        "readout: dV is built on y_(t-1)",
        ELMAN,
        in_engine(objective, "outer_rows", _instead(lambda right, da, x: right(da, np.roll(x, 1, 0)))),
        "readout.V #####",
        CARRIED,
        options=READ_OUT,
    ),
    defect(
        "readout: db_y sums over batch row 0 only",
        ELMAN,
        in_engine(objective, "sum_rows", _instead(lambda right, da: da[:, 0].sum(axis=0))),
        "readout.b_y #####@1",
        CARRIED,
        options=READ_OUT,
        reading="wrong row: what row 1 contributes is missing",
    ),
    defect(
        "readout: its adjoint counted twice",
        ELMAN,
        in_engine(objective, "unrows", _instead(lambda right, flat, like: 2.0 * right(flat, like))),
        "W,U,b,x #####; s ######",
        CARRIED,
        options=READ_OUT,
        reading="each is off by the factor 2",
    ),
)

DEFECTS: tuple[Defect, ...] = (
    *IN_LSTM,
    *IN_GRU,
    *IN_ELMAN,
    *IN_JORDAN,
    *IN_CLOCKWORK,
    *IN_SCRN,
    *IN_USER_CELL,
    *(replace(one, in_engine=True) for one in IN_ENGINE),
)
