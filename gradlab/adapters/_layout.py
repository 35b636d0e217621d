"""How each source stacks its gates, in one table, and the way from any of them to gradlab's letters and back.

Gates have one name everywhere: i, f, g, o (ONNX and Keras write c for the block input g), r, z, n (h or a elsewhere) and
h for the one block of a simple network. Blocks lie along the first axis: (G*H, D), (G*H, H), (G*H,). Where a source has
them along the last one (Keras), its adapter transposes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.cells import Cell
from gradlab.errors import DTypeError, ShapeError, ValueRangeError

Array = npt.NDArray[Any]
Params = dict[str, Array]

KINDS = {1: "RNN", 3: "GRU", 4: "LSTM"}
"""The kind of a layer by its number of gates."""

GATES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "torch": {"RNN": ("h",), "LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n")},
    "keras": {"RNN": ("h",), "LSTM": ("i", "f", "g", "o"), "GRU": ("z", "r", "n")},
    "onnx": {"RNN": ("h",), "LSTM": ("i", "o", "f", "g"), "GRU": ("z", "r", "n")},
}
"""Gates in the order in which a source stacks them, by source and kind."""

ONNX_PEEPHOLES = ("i", "o", "f")
"""Order of the three blocks of ONNX's P; no other source has peepholes."""


def gates_of(cell: Cell) -> tuple[str, ...]:
    """The gates that W, U, b of gradlab's `cell` stack, in its order; a cell without gates has one block, h."""
    return cell.gates or ("h",)


def blocks(stacked: Array, order: Sequence[str]) -> Params:
    """The blocks of `stacked` along its first axis, by gate."""
    if stacked.shape[0] % len(order):
        raise ShapeError(f"{stacked.shape[0]} rows cannot be split into the gates {', '.join(order)}")
    return dict(zip(order, np.split(stacked, len(order)), strict=True))


def to_gradlab(
    cell: Cell,
    order: Sequence[str],
    W: Array,
    U: Array,
    b_x: Array | None = None,
    b_h: Array | None = None,
    peepholes: Mapping[str, Array] | None = None,
) -> Params:
    """The parameters of one layer in one direction in gradlab's letters: copies, in the order of `cell`.

    W (G*H, D), U (G*H, H), with gates as in `order`; `b_x` and `b_h` (G*H,) the biases beside W x and U h, None for 0.
    They are added, except where a reset gate acts between them: b_hn of `GRU(reset="after")`. `peepholes`: (H,) by gate.
    """
    by_gate = blocks(W, order), blocks(U, order)
    zero = np.zeros(U.shape[0], U.dtype)
    of_x, of_h = (blocks(zero if b is None else b, order) for b in (b_x, b_h))
    apart = "b_hn" in _own_keys(cell)
    with np.errstate(all="ignore"):  # non-finite weights are a finding, not an error
        b = {gate: of_x[gate].copy() if apart and gate == "n" else of_x[gate] + of_h[gate] for gate in order}
    own = gates_of(cell)
    params = {key: np.concatenate([value[gate] for gate in own]) for key, value in zip("WUb", (*by_gate, b), strict=True)}
    if apart:
        params["b_hn"] = of_h["n"].copy()
    return params | {f"p_{gate}": value.copy() for gate, value in (peepholes or {}).items()}


def from_gradlab(cell: Cell, order: Sequence[str], params: Mapping[str, Array]) -> tuple[Array, Array, Array, Array]:
    """W, U, b_x and b_h of one layer in one direction with gates as in `order`: the way back from `to_gradlab`.

    The bias goes to b_x; b_h is 0 but for the b_hn of a GRU. Error: ValueRangeError if the order lacks a gate of the cell,
    or the cell has more parameters than W, U, b, b_hn.
    """
    own = gates_of(cell)
    extra = sorted(set(params) - {"W", "U", "b", "b_hn"})
    if set(own) != set(order) or extra:
        more = f" and the parameters {', '.join(extra)}" if extra else ""
        raise ValueRangeError(f"{cell!r} has the gates {', '.join(own)}{more}; this layout holds {', '.join(order)} alone")
    W, U, b = (np.concatenate([blocks(params[key], own)[gate] for gate in order]) for key in "WUb")
    b_h = blocks(np.zeros_like(b), order)
    if "b_hn" in params:
        b_h["n"] = np.asarray(params["b_hn"])
    return W, U, b, np.concatenate([b_h[gate] for gate in order])


def non_finite(params: Mapping[str, Array]) -> tuple[str, ...]:
    """A note for every array that holds NaN or infinity; importing it is no error, running it is."""
    counts = {key: int(np.count_nonzero(~np.isfinite(value))) for key, value in params.items()}
    return tuple(f"{key} has {count} non-finite values" for key, count in counts.items() if count)


def require_float(name: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """`dtype` if it is float64 or float32. Error: DTypeError."""
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise DTypeError(f"{name} is {dtype!r}; expected float64 or float32") from error
    if found not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise DTypeError(f"{name} is {found}; expected float64 or float32")
    return found


def cast(value: Array, dtype: np.dtype[Any]) -> Array:
    """A copy of `value` as `dtype`; what it cannot hold becomes infinite, which `non_finite` reports."""
    with np.errstate(all="ignore"):
        return np.array(value, dtype)


def _own_keys(cell: Cell) -> set[str]:
    return set(cell.init(np.random.default_rng(0), 1, 1))
