"""Weights files: a recurrent network from the arrays in `.safetensors` or `.npz`, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_one_of
from gradlab.adapters._layout import GATES, KINDS, cast, non_finite, require_float, to_gradlab
from gradlab.adapters.imported import Imported
from gradlab.adapters.weights_files import Tensors, open_tensors
from gradlab.adapters.weights_names import LAYOUTS, Group, Slot, check_slots, choose
from gradlab.cells import GRU, LSTM, Cell, Elman, activations, as_cell
from gradlab.errors import FormatError, GradlabError, ValueRangeError
from gradlab.network import Network

Array = npt.NDArray[Any]
Arrays = dict[Slot, dict[str, Array]]

MAX_PAIRS = 24
"""Sizes that are tried for a cell that does not say its own."""


@dataclass(frozen=True)
class Told:
    """What a weights file does not hold and its reader has to say."""

    cell: Any
    nonlinearity: str | None
    reset: str | None


def load(
    path: str | os.PathLike[str],
    layout: Literal["torch", "keras", "gradlab"] | None = None,
    *,
    prefix: str | None = None,
    nonlinearity: str | None = None,
    reset: Literal["after", "before"] | None = None,
    cell: Any = None,
    readout: Literal["every", "last"] | None = None,
    batch_first: bool = False,
    reverse: bool = False,
    dtype: npt.DTypeLike = np.float64,
    max_memory: int | None = None,
) -> Imported:
    """The recurrent network whose weights are in the `.safetensors` or `.npz` file at `path`.

    `layout`: the naming, None to recognise it: torch ("rnn.weight_ih_l0"), keras ("lstm/lstm_cell/kernel") or gradlab ("0.W").
    `prefix`: what stands before the names of one network, such as "encoder.lstm"; needed where a file holds several.
    What a file does not say is asked for and never assumed: `nonlinearity` of a simple network; `reset` of a Keras GRU
    without bias; `cell` where gradlab's letters fit several cells; `readout` where there is a read-out. An LSTM or GRU of
    Keras is taken to have its default activations, which a note says. `batch_first`, `reverse`: as the source runs.
    `dtype`: of the parameters, float64 or float32. `max_memory`: bytes that reading may take.

    Nothing is unpickled: .pt, .pth, .pkl and .joblib are refused with the two lines that convert them.
    Errors: FormatError, UnsafeFileError and ResourceRefused for the file; ValueRangeError where it is ambiguous or an
    argument is missing.
    """
    dtype = require_float("dtype", dtype)
    if layout is not None:
        require_one_of("layout", layout, LAYOUTS)
    if reset is not None:
        require_one_of("reset", reset, ("after", "before"))
    told = Told(cell, nonlinearity, reset)
    with open_tensors(path, max_memory) as tensors:
        try:
            group = choose(tensors.label, tensors.names, layout, prefix)
        except FormatError as error:
            raise FormatError(str(error) if tensors.label in str(error) else f"{tensors.label}: {error}") from error
        label = f"{tensors.label}, prefix {group.prefix!r}" if group.prefix else tensors.label
        levels, both = check_slots(label, group)
        arrays = {slot: {what: tensors.read(name) for what, name in own.items()} for slot, own in group.members.items()}
        read_out = {key: tensors.read(name) for key, name in group.readout.items()}
        notes = _file_notes(Path(path).suffix.lower(), tensors, group)
    source_dtype = next(iter(arrays[min(arrays)].values())).dtype
    if group.layout == "gradlab":
        net, params = _gradlab(label, arrays, read_out, levels, both, told, readout)
    else:
        if readout is not None:
            raise ValueRangeError(f"readout is {readout!r}; {group.layout} naming has no read-out of gradlab")
        net, params, more = _framework(label, group.layout, arrays, levels, both, told)
        notes += more
    params = {key: cast(value, dtype) for key, value in params.items()}
    source = f"{group.layout} weights of {label}"
    return Imported(net, params, source, (*notes, *non_finite(params)), source_dtype, batch_first, reverse)


def _file_notes(suffix: str, tensors: Tensors, group: Group) -> list[str]:
    notes = [] if suffix == tensors.format else [f"the file is called {suffix or 'nothing'}, its content is {tensors.format}"]
    used = sum(len(own) for own in group.members.values()) + len(group.readout)
    return notes + ([f"{len(tensors.names) - used} other tensors of the file are not read"] if len(tensors.names) > used else [])


def _framework(
    label: str, layout: str, arrays: Arrays, levels: int, both: bool, told: Told
) -> tuple[Network, dict[str, Array], list[str]]:
    """A network from torch's or Keras' names."""
    if told.cell is not None:
        raise ValueRangeError(f"cell is {told.cell!r}; {layout} naming says the cell itself, but for nonlinearity and reset")
    if layout == "keras":
        arrays = {slot: _from_keras(label, own) for slot, own in arrays.items()}
    if any("weight_hr" in own for own in arrays.values()):
        raise FormatError(f"{label}: has weight_hr_l0, an LSTM with proj_size > 0, which gradlab has no cell for")
    first = arrays[0, "forward" if both else ""]
    for what in ("weight_ih", "weight_hh"):
        shape = first[what].shape if what in first else ()
        if len(shape) != 2 or 0 in shape:
            raise FormatError(f"{label}: {what} has shape {shape}; expected 2 axes, none empty")
    (rows, H), D = first["weight_hh"].shape, first["weight_ih"].shape[1]
    if rows % H or rows // H not in KINDS:
        raise FormatError(f"{label}: weight_hh has shape {(rows, H)} with gates first; expected 1, 3 or 4 blocks of {H} rows")
    kind = KINDS[rows // H]
    cell, notes = _cell(label, layout, kind, "bias_hh" in first, "bias_ih" in first, told)
    biases: list[tuple[str, ...]] = [(), ("bias_ih", "bias_hh"), *([("bias_ih",)] if layout == "keras" else [])]
    net = Network(cell, D, H, num_layers=levels, bidirectional=both)
    params: dict[str, Array] = {}
    for layer in net.layers:
        level, _, side = layer.name.partition(".")
        own = arrays[int(level), side]
        wanted: dict[str, tuple[int, ...]] = {"weight_ih": (rows, layer.input_size), "weight_hh": (rows, H)}
        wanted |= {what: (rows,) for what in ("bias_ih", "bias_hh") if what in first}
        found = {what: value.shape for what, value in own.items()}
        if found != wanted or tuple(sorted(set(found) & {"bias_ih", "bias_hh"}, reverse=True)) not in biases:
            raise FormatError(f"{label}, layer {layer.name}: shapes are {found} with gates first; expected {wanted}")
        b_x, b_h = own.get("bias_ih"), own.get("bias_hh")
        converted = to_gradlab(cell, GATES[layout][kind], own["weight_ih"], own["weight_hh"], b_x, b_h)
        params |= {f"{layer.name}.{key}": value for key, value in converted.items()}
    return net, params, notes


def _from_keras(label: str, own: Mapping[str, Array]) -> dict[str, Array]:
    """Keras' arrays under torch's names, gates first; a bias with two rows is two biases."""
    if "kernel" not in own or any(own[key].ndim != 2 for key in ("kernel", "recurrent_kernel")):
        raise FormatError(f"{label}: has {', '.join(own)}; expected kernel and recurrent_kernel with 2 axes")
    found = {"weight_ih": own["kernel"].T, "weight_hh": own["recurrent_kernel"].T}
    if "bias" in own:
        if own["bias"].ndim not in (1, 2) or (own["bias"].ndim == 2 and len(own["bias"]) != 2):
            raise FormatError(f"{label}: bias has shape {own['bias'].shape}; expected one row of all gates, or two")
        found |= dict(zip(("bias_ih", "bias_hh"), np.atleast_2d(own["bias"]), strict=False))
    return found


def _cell(label: str, layout: str, kind: str, two: bool, one: bool, told: Told) -> tuple[Cell, list[str]]:
    """The cell, and notes; `one`, `two`: whether there is a bias, and a second one."""
    if kind == "RNN":
        known = ("tanh", "relu") if layout == "torch" else tuple(activations.ALL)
        if told.nonlinearity is None:
            raise ValueRangeError(
                f"{label}: a simple network, whose file does not hold its nonlinearity; give nonlinearity=: {known}"
            )
        _refuse(label, kind, reset=told.reset)
        return Elman(require_one_of("nonlinearity", told.nonlinearity, known)), ["the two biases are added"] * two
    _refuse(label, kind, nonlinearity=told.nonlinearity)
    default = ["activations taken as Keras' defaults, sigmoid and tanh: the file does not say"] * (layout == "keras")
    if kind == "LSTM":
        _refuse(label, kind, reset=told.reset)
        if layout == "keras" and two:
            raise FormatError(f"{label}: an LSTM with two rows of biases; Keras has one")
        return LSTM(), ["the two biases are added"] * two + default
    reset = "after" if layout == "torch" or two else "before" if one else told.reset
    if reset is None:
        raise ValueRangeError(
            f"{label}: a GRU of Keras without bias, whose file does not say reset_after; give reset='after' or 'before'"
        )
    if told.reset not in (None, reset):
        raise ValueRangeError(f"reset is {told.reset!r}; the weights of {label} are those of reset={reset!r}")
    apart = f"reset gate {reset} the product with U_n" + (": the recurrent bias of n stays apart" if two else "")
    return GRU(reset="after" if reset == "after" else "before"), [apart, *default]


def _refuse(label: str, kind: str, **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueRangeError(f"{name} is {value!r}; {label} holds a {kind}, which has none")


def _gradlab(
    label: str, arrays: Arrays, read_out: Mapping[str, Array], levels: int, both: bool, told: Told, readout: str | None
) -> tuple[Network, dict[str, Array]]:
    """A network from gradlab's own names."""
    first = arrays[0, "forward" if both else ""]
    own = told.cell if told.cell is not None else _letters(label, first, told)
    if told.cell is not None:
        _refuse(label, "network with the cell that was given", nonlinearity=told.nonlinearity, reset=told.reset)
    if read_out and (len(read_out) != 2 or readout is None or read_out["readout.V"].ndim < 2):
        raise ValueRangeError(f"{label}: has {', '.join(read_out)}; give readout='every' or 'last', which the file does not hold")
    outputs = read_out["readout.V"].shape[-2] if read_out else None
    chosen = "every" if readout is None else require_one_of("readout", readout, ("every", "last"))
    params = {".".join(filter(None, (str(k), side, key))): v for (k, side), values in arrays.items() for key, v in values.items()}
    params |= read_out
    levels_of: Sequence[Any] = own if isinstance(own, (list, tuple)) else [own] * levels
    if len(levels_of) != levels:
        raise ValueRangeError(f"cell has {len(levels_of)} entries; {label} holds {levels} layers")
    emitted: Literal["every", "last"] = "last" if chosen == "last" else "every"
    D, H = _sizes(label, levels_of[0], first)
    if (len(arrays) - 1) * H * H > 4 * sum(value.size for values in arrays.values() for value in values.values()):
        raise FormatError(f"{label}: {len(arrays)} layers of {H} units need more numbers than the file holds")
    net = Network(own, D, H, outputs, levels, both, emitted)
    wanted = net.shapes
    wrong = [key for key in {**wanted, **params} if not _fits(params.get(key), wanted.get(key))]
    if wrong:
        found = {key: params[key].shape if key in params else "missing" for key in wrong[:6]}
        raise FormatError(f"{label}: {found}; expected { ({key: wanted.get(key, 'nothing') for key in found}) } for {net!r}")
    return net, params


def _sizes(label: str, cell: Any, first: Mapping[str, Array]) -> tuple[int, int]:
    """Input and hidden size for which `cell` has parameters of the shapes in `first`. Error: FormatError if there are none."""
    cell, shapes = as_cell(cell), {key: value.shape for key, value in first.items()}
    total = sum(value.size for value in first.values())
    numbers = [n for shape in shapes.values() for n in shape if n]
    # U, R, b end with H and W, A with D in gradlab's own cells; the cell of a user may have any letters
    hidden, inputs = ([shapes[key][-1] for key in keys if shapes.get(key)] for keys in ("URb", "WA"))
    pairs = product(dict.fromkeys([*hidden, *numbers]), dict.fromkeys([*inputs, *numbers]))
    for H, D in islice(pairs, MAX_PAIRS):
        entries = H * (H + D)
        if entries > max(4 * total, 2**20):
            continue  # what is not in the file is not allocated
        try:
            own = cell.init(np.random.default_rng(0), D, H)
        except GradlabError:  # a size that the cell does not have
            continue
        if set(own) == set(first) and all(_fits(first[key], np.shape(value)) for key, value in own.items()):
            return D, H
    raise FormatError(f"{label}: shapes {str(shapes)[:300]} are not those of any size of {cell!r}")


def _fits(value: Array | None, shape: tuple[int, ...] | None) -> bool:
    """Whether `value` has `shape`, behind any ensemble axes."""
    return (
        value is not None and shape is not None and value.shape[value.ndim - len(shape) :] == shape and value.ndim >= len(shape)
    )


def _letters(label: str, first: Mapping[str, Array], told: Told) -> Cell:
    """The built-in cell that the letters of one layer spell. Error: ValueRangeError if there is more than one."""
    letters = set(first)
    rows, H = first["U"].shape[-2:] if "U" in letters and first["U"].ndim > 1 else (1, 0)
    gates = rows // H if H and rows % H == 0 else 0
    if gates == 4 and letters in ({"W", "U", "b"}, {"W", "U", "b", "p_i", "p_f", "p_o"}):
        _refuse(label, "LSTM", nonlinearity=told.nonlinearity, reset=told.reset)
        return LSTM(peepholes="p_i" in letters)
    if gates == 3 and letters == {"W", "U", "b", "b_hn"} and told.reset in (None, "after"):
        _refuse(label, "GRU", nonlinearity=told.nonlinearity)
        return GRU(reset="after")
    if gates == 3 and letters == {"W", "U", "b"} and told.reset == "before":
        _refuse(label, "GRU", nonlinearity=told.nonlinearity)
        return GRU(reset="before")
    if gates == 1 and letters == {"W", "U", "b"} and told.nonlinearity is not None:
        _refuse(label, "RNN", reset=told.reset)
        return Elman(require_one_of("nonlinearity", told.nonlinearity, activations.ALL))
    raise ValueRangeError(
        f"{label}: {gates or 'no whole number of'} gates and the letters {', '.join(sorted(letters))} fit several cells or none; "
        "give cell=, such as gradlab.LSTM(coupled=True), or reset='before' for a GRU, or nonlinearity= for a simple network"
    )
