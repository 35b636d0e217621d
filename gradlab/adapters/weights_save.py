"""Weights files, written: the way back from `gradlab.adapters.load`."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab._files import LARGE, _member, atomic_write, write_bytes
from gradlab._validate import require_one_of
from gradlab.adapters._layout import GATES, from_gradlab
from gradlab.adapters.imported import Imported
from gradlab.adapters.weights_names import LAYOUTS
from gradlab.cells import GRU, LSTM, Cell, Elman
from gradlab.errors import DTypeError, ValueRangeError
from gradlab.forward_pass import checked_params
from gradlab.network import Layer, Network

Array = npt.NDArray[Any]


def save(
    path: str | os.PathLike[str],
    imported: Imported,
    *,
    layout: Literal["torch", "keras", "gradlab"] = "gradlab",
    prefix: str = "",
) -> None:
    """Write the parameters of `imported` to `path`, a .safetensors or .npz file, whole or not at all.

    `layout`: torch's names ("weight_ih_l0"), Keras' ("kernel"; "layer_1/forward_layer/kernel" where there are several) or
    gradlab's ("0.W"). `prefix`: put in front of every name, with a "." (Keras: "/") between. gradlab's own network is
    `Imported(net, params, "gradlab")`. `load` gives back equal parameters, told again what no file holds.

    Errors: ValueRangeError if the layout cannot express the network; ResourceRefused if the file cannot be written.
    """
    require_one_of("layout", layout, LAYOUTS)
    if not isinstance(imported, Imported):
        raise DTypeError(f"imported is a {type(imported).__name__}; expected an Imported; try Imported(net, params, 'gradlab')")
    suffix = require_one_of("the ending of path", Path(path).suffix.lower(), (".safetensors", ".npz"))
    net, params = imported.net, checked_params(imported.net, imported.params)
    separator = "/" if layout == "keras" else "."
    lead = f"{prefix.rstrip('./')}{separator}" if prefix.rstrip("./") else ""
    named = params if layout == "gradlab" else _framework(layout, net, params)
    arrays = {lead + key: np.array(value, order="C") for key, value in named.items()}
    if suffix == ".npz":
        _write_npz(path, arrays)
        return
    from safetensors.numpy import save as to_bytes

    write_bytes(path, to_bytes(arrays))


def _write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """What numpy.savez_compressed writes, without today's date: equal arrays give equal bytes."""
    with atomic_write(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            info = _member(f"{name}.npy")
            if array.nbytes > LARGE:
                info.compress_type = zipfile.ZIP_STORED
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _framework(layout: str, net: Network, params: Mapping[str, Array]) -> dict[str, Array]:
    if net.output_size is not None:
        raise ValueRangeError(f"{layout} naming has no place for the read-out of {net!r}; try layout='gradlab'")
    found: dict[str, Array] = {}
    for layer in net.layers:
        own = {k.removeprefix(f"{layer.name}."): v for k, v in params.items() if k.startswith(f"{layer.name}.")}
        if any(value.ndim > len(net.shapes[f"{layer.name}.{key}"]) for key, value in own.items()):
            raise ValueRangeError(
                f"the parameters have ensemble axes, which {layout} naming cannot express; try layout='gradlab'"
            )
        kind = _kind(layout, layer.cell)
        W, U, b_x, b_h = from_gradlab(layer.cell, GATES[layout][kind], own)
        level, _, side = layer.name.partition(".")
        if layout == "torch":
            end = f"_l{level}" + ("_reverse" if side == "backward" else "")
            named = {"weight_ih": W, "weight_hh": U, "bias_ih": b_x, "bias_hh": b_h}
            found |= {f"{key}{end}": value for key, value in named.items()}
        else:
            place = _keras_place(net, layer, level, side)
            bias = np.stack([b_x, b_h]) if "b_hn" in own else b_x
            found |= {f"{place}kernel": W.T, f"{place}recurrent_kernel": U.T, f"{place}bias": bias}
    return found


def _keras_place(net: Network, layer: Layer, level: str, side: str) -> str:
    return (f"layer_{level}/" if net.num_layers > 1 else "") + (f"{side}_layer/" if side else "")


def _kind(layout: str, cell: Cell) -> str:
    """RNN, LSTM or GRU, if the framework has this very function. Error: ValueRangeError."""
    if type(cell) is Elman and (layout == "keras" or cell.activation.name in ("tanh", "relu")):
        return "RNN"
    if type(cell) is LSTM and not cell.peepholes and not cell.coupled and cell.forget_gate:
        return "LSTM"
    if type(cell) is GRU and (layout == "keras" or cell.reset == "after"):
        return "GRU"
    raise ValueRangeError(f"{layout} has no layer that computes {cell!r}; try layout='gradlab'")
