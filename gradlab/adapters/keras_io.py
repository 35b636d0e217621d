"""Recurrent layers of Keras 3 as gradlab networks: from live objects and from files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.adapters._general_cell import GeneralCell
from gradlab.adapters._layout import GATES, cast, non_finite, require_float, to_gradlab
from gradlab.adapters._library import load_library
from gradlab.adapters.imported import Imported
from gradlab.adapters.keras_io_config import Described, Entry, Place, describe, recurrent_layers
from gradlab.adapters.keras_io_file import open_keras
from gradlab.cells import GRU, LSTM, Cell
from gradlab.errors import DTypeError, FormatError, ValueRangeError
from gradlab.network import Network

Array = npt.NDArray[Any]
Read = Callable[[Place], list[Array]]


def from_keras(
    model: Any,
    layer: str | None = None,
    *,
    config: Any = None,
    dtype: npt.DTypeLike = np.float64,
    max_memory: int | None = None,
) -> list[Imported]:
    """Every recurrent layer of a Keras 3 `model` in its order, nested models included; with `layer`, those of that name.

    `model`: a live layer or model, or the path of a .keras or .weights.h5 file. A file is read with h5py, never by Keras, and
    nothing of it is run. `config`: for .weights.h5, the model's JSON (`model.to_json()`), as text, dict or path: the file
    does not say which layers it holds. `dtype`: of the parameters, float64 or float32. `max_memory`: bytes that reading may
    take.

    Supported: SimpleRNN, LSTM, GRU (reset_after or not), RNN of their cells (StackedRNNCells with equal units: one network of
    several layers), Bidirectional (merge_mode concat or None), go_backwards (`reverse=True`). return_sequences=False gives a
    network with readout="last". Behind the end of a masked row Keras repeats its last output where gradlab emits 0.

    Errors: FormatError that names layer and option for what is not supported; UnsafeFileError for links out of the file;
    ResourceRefused, MissingLibrary, DTypeError, ValueRangeError (layer).
    """
    dtype = require_float("dtype", dtype)
    if isinstance(model, (str, os.PathLike)):
        found = list(_from_file(model, config, max_memory))
        label = repr(os.fspath(model))
    else:
        label = f"the Keras {type(model).__name__} {str(getattr(model, 'name', ''))!r}"
        found = list(_live(label, model))
    if not found:
        raise FormatError(f"{label}: no recurrent layer; expected SimpleRNN, LSTM, GRU, RNN or Bidirectional")
    chosen = [pair for pair in found if layer is None or pair[0].name == layer]
    if not chosen:
        known = ", ".join(repr(entry.name) for entry, _ in found)
        raise ValueRangeError(f"{label}: layer {layer!r} is not there; recurrent layers: {known}")
    return [_imported(label, describe(label, entry), read, dtype) for entry, read in chosen]


def _from_file(path: str | os.PathLike[str], config: Any, max_memory: int | None) -> Iterator[tuple[Entry, Read]]:
    own, weights = open_keras(path, config, max_memory)
    label = repr(os.fspath(path))
    entries = list(recurrent_layers(label, own))
    strange = [cell for cell in weights.cells() if not any(cell.startswith(f"{entry.path}/") for entry in entries)]
    if strange:
        raise FormatError(f"{label}: holds the cells {', '.join(map(repr, strange[:8]))}, which the config does not name")
    for entry in entries:
        stored = weights.layer_name(entry.path)
        if stored not in (None, entry.name):
            raise FormatError(f"{label}: {entry.path!r} holds the layer {stored!r}, the config says {entry.name!r}")

        def read(place: Place, path: str = entry.path) -> list[Array]:
            return weights.variables(f"{path}/{place.group}/vars")

        yield entry, read


def _live(label: str, model: Any) -> Iterator[tuple[Entry, Read]]:
    keras = load_library("keras", "keras", "reading a Keras layer")
    if not str(keras.__version__).startswith("3."):
        raise FormatError(f"{label}: Keras {keras.__version__}; expected 3")
    if not isinstance(model, keras.Layer):
        raise DTypeError(f"{label} is no Keras layer; expected a layer, a model, or the path of a .keras or .weights.h5 file")
    seen: set[int] = set()

    def walk(layer: Any) -> Iterator[Any]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        if isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional)):
            yield layer
            return
        for inner in layer._flatten_layers(include_self=False, recursive=False):
            yield from walk(inner)

    for layer in walk(model):
        yield Entry(type(layer).__name__, layer.get_config(), layer.name, _is_own(layer)), _reader(keras, label, layer)


def _is_own(layer: Any) -> bool:
    """Whether `layer` and all that it wraps are classes of Keras itself: a subclass may compute anything."""
    inner = [getattr(layer, name) for name in ("forward_layer", "backward_layer") if hasattr(layer, name)]
    inner += [layer.cell, *getattr(layer.cell, "cells", ())] if hasattr(layer, "cell") else []
    return type(layer).__module__.split(".")[0] == "keras" and all(_is_own(one) for one in inner if one is not layer)


def _reader(keras: Any, label: str, layer: Any) -> Read:
    def read(place: Place) -> list[Array]:
        cell = layer
        for step in place.steps:
            cell = cell[step] if isinstance(step, int) else getattr(cell, step)
        variables = [getattr(cell, name, None) for name in ("kernel", "recurrent_kernel", "bias")]
        if variables[0] is None:
            raise FormatError(f"{label}: layer {layer.name!r} has no weights yet; call it once, or layer.build(input_shape)")
        arrays = [np.asarray(keras.ops.convert_to_numpy(value)) for value in variables if value is not None]
        return [array if array.dtype in (np.float32, np.float64) else array.astype(np.float32) for array in arrays]

    return read


def _imported(label: str, layer: Described, read: Read, dtype: np.dtype[Any]) -> Imported:
    label = f"{label}: layer {layer.name!r} ({layer.class_name})"
    if len(set(layer.units)) != 1:
        raise FormatError(f"{label}: its cells have {layer.units} units; gradlab's layers have one hidden_size for all")
    H, sides = layer.units[0], 2 if layer.bidirectional else 1
    params: dict[str, Array] = {}
    source_dtype, size = np.dtype(np.float64), 0
    for k, (cell, places, use_bias) in enumerate(zip(layer.cells, layer.places, layer.use_bias, strict=True)):
        for direction, place in zip(("forward", "backward") if sides == 2 else ("",), places, strict=True):
            arrays = read(place)
            wanted = params[f"{k}.forward.W"].shape[1] if direction == "backward" else H if k else None
            _check(label, cell, arrays, H, use_bias, wanted)
            source_dtype = arrays[0].dtype
            size = size or arrays[0].shape[0]
            own = _converted(cell, [cast(array, dtype) for array in arrays])
            params |= {".".join(filter(None, (str(k), direction, key))): value for key, value in own.items()}
    cells: Any = layer.cells[0] if len(layer.cells) == 1 else layer.cells
    net = Network(cells, size, H, bidirectional=layer.bidirectional, readout="every" if layer.every else "last")
    notes = [*layer.notes, *_reset_notes(layer.cells), *non_finite(params)]
    source = f"Keras {layer.class_name} layer {layer.name!r}"
    return Imported(net, params, source, tuple(notes), source_dtype, batch_first=True, reverse=layer.reverse)


def _kind(cell: Cell) -> str:
    if isinstance(cell, GeneralCell):
        return cell.kind
    return "LSTM" if isinstance(cell, LSTM) else "GRU" if isinstance(cell, GRU) else "RNN"


def _after(cell: Cell) -> bool:
    return isinstance(cell, (GRU, GeneralCell)) and _kind(cell) == "GRU" and cell.reset == "after"


def _reset_notes(cells: tuple[Cell, ...]) -> list[str]:
    if _kind(cells[0]) != "GRU":
        return []
    return [f"reset_after={_after(cells[0])}" + (": the recurrent bias of n stays apart" if _after(cells[0]) else "")]


def _check(label: str, cell: Cell, arrays: list[Array], H: int, use_bias: bool, input_size: int | None) -> None:
    G = len(GATES["keras"][_kind(cell)])
    shapes = [array.shape for array in arrays]
    if not shapes or len(shapes[0]) != 2 or 0 in shapes[0] or (input_size is not None and shapes[0][0] != input_size):
        raise FormatError(f"{label}: kernel has shape {shapes[:1]}; expected ({input_size or 'inputs'}, {G * H})")
    bias = [(2, G * H) if _after(cell) else (G * H,)] if use_bias else []
    wanted = [(shapes[0][0], G * H), (H, G * H), *bias]
    if shapes != wanted:
        raise FormatError(f"{label}: kernel, recurrent_kernel and bias have shapes {shapes}; expected {wanted}")


def _converted(cell: Cell, arrays: list[Array]) -> Mapping[str, Array]:
    """Keras has gates along the last axis; one bias, or two rows of it where a reset gate acts between them."""
    kernel, recurrent = arrays[:2]
    biases = list(np.atleast_2d(arrays[2])) if len(arrays) == 3 else []
    return to_gradlab(cell, GATES["keras"][_kind(cell)], kernel.T, recurrent.T, *biases)
