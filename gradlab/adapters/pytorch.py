"""PyTorch's recurrent layers as gradlab networks: nn.RNN, nn.LSTM, nn.GRU and their cells, from live modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.adapters._layout import GATES, to_gradlab
from gradlab.adapters._library import load_library
from gradlab.adapters.imported import Imported
from gradlab.cells import GRU, LSTM, Cell, Elman
from gradlab.errors import DTypeError, ValueRangeError
from gradlab.network import Network

Array = npt.NDArray[Any]

KINDS = ("RNN", "LSTM", "GRU")


@dataclass(frozen=True)
class Spec:
    """What a recurrent module is, apart from its weights.

    `kind` RNN, LSTM or GRU; `net` its network; `suffixes` {"0.backward": "_l0_reverse", ...}, empty for a cell's one layer;
    `single` whether it is a cell, one step a call; `dropout` between layers.
    """

    kind: str
    net: Network
    suffixes: Mapping[str, str]
    single: bool
    bias: bool
    batch_first: bool
    dropout: float
    source: str

    def params(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Parameters in gradlab's letters from arrays under torch's names; biases added where that is allowed."""
        found: dict[str, Array] = {}
        for layer in self.net.layers:
            end = self.suffixes[layer.name]
            biases = (weights["bias_ih" + end], weights["bias_hh" + end]) if self.bias else (None, None)
            W, U = weights["weight_ih" + end], weights["weight_hh" + end]
            own = to_gradlab(layer.cell, GATES["torch"][self.kind], W, U, *biases)
            found |= {f"{layer.name}.{key}": value for key, value in own.items()}
        return found

    def torch_gradients(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """Gradients under torch's names from those in gradlab's letters: a merged bias gives both of theirs its own."""
        found: dict[str, Array] = {}
        for name, end in self.suffixes.items():
            found["weight_ih" + end], found["weight_hh" + end] = gradients[f"{name}.W"], gradients[f"{name}.U"]
            if self.bias:
                found["bias_ih" + end] = second = gradients[f"{name}.b"]
                if self.kind == "GRU":  # the candidate's second bias stands inside r * (...)
                    H = self.net.hidden_size
                    second = np.concatenate([second[: 2 * H], gradients[f"{name}.b_hn"]])
                found["bias_hh" + end] = second
        return found


def from_module(module: Any, *, dtype: npt.DTypeLike = np.float64) -> Imported:
    """A live torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell as a `gradlab.Network` with its parameters.

    All layers and directions, with or without biases; the tensors may be on any device, the parameters are copies of type
    `dtype`. The two biases are added, except in the candidate of a GRU, whose second one is b_hn: torch's GRU is
    `gradlab.GRU(reset="after")`. Dropout between layers is no part of the network; a note says so.

    Errors: MissingLibrary without torch; DTypeError for any other object; ValueRangeError for proj_size > 0.
    """
    torch = load_library("torch", "torch", "from_module")
    spec = spec_of(torch, module)
    tensors = weights_of(module, spec)
    source = {name: tensor.dtype for name, tensor in tensors.items()}
    kind = next(iter(source.values()))
    known = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float16}
    notes = []
    if len(set(source.values())) > 1:
        notes.append(f"weights of several types: {', '.join(sorted({str(value) for value in source.values()}))}")
    if kind not in known and kind != torch.bfloat16:
        raise DTypeError(f"module has weights of type {kind}; expected float32, float64, float16 or bfloat16")
    if kind == torch.bfloat16:
        notes.append("bfloat16 weights, which NumPy lacks; dtype says float32")
    if spec.bias:
        inner = " but for the candidate's: bias_hh is b_hn" if spec.kind == "GRU" else ""
        notes.append(f"bias_ih + bias_hh are one bias b{inner}")
    if spec.kind == "GRU":
        notes.append('reset="after", the only form torch has')
    if spec.dropout:
        notes.append(f"dropout {spec.dropout} between layers is left out, as in eval mode")
    weights = {name: _plain(torch, tensor).astype(dtype) for name, tensor in tensors.items()}
    return Imported(
        spec.net, spec.params(weights), spec.source, tuple(notes), np.dtype(known.get(kind, np.float32)), spec.batch_first
    )


def is_recurrent(torch: Any, module: Any) -> bool:
    """Whether `module` is one of the layers that torch calls recurrent; also where gradlab refuses its options."""
    bases = (torch.nn.RNNBase, torch.nn.RNNCell, torch.nn.LSTMCell, torch.nn.GRUCell)
    return isinstance(module, bases)


def spec_of(torch: Any, module: Any) -> Spec:
    """What `module` is. Errors: DTypeError if it is no recurrent layer, ValueRangeError if it has an option that is refused."""
    for kind in KINDS:
        for single in (False, True):
            name = kind + "Cell" * single
            if isinstance(module, getattr(torch.nn, name)):
                own = type(module)
                source = f"torch.nn.{name}" if own is getattr(torch.nn, name) else f"{own.__qualname__}, a torch.nn.{name}"
                return _spec(module, kind, single, source)
    raise DTypeError(
        f"module is a {type(module).__module__}.{type(module).__qualname__}; expected torch.nn.RNN, LSTM, GRU or one of their "
        "cells; try gradlab.adapters.watch(model) for a model that contains some"
    )


def _spec(module: Any, kind: str, single: bool, source: str) -> Spec:
    projected = getattr(module, "proj_size", 0)
    if projected:
        raise ValueRangeError(f"module is a {source} with proj_size={projected}; expected 0: gradlab has no projected LSTM")
    cell: Cell = LSTM() if kind == "LSTM" else GRU() if kind == "GRU" else _elman(module)
    layers, both = (1, False) if single else (module.num_layers, module.bidirectional)
    net = Network(cell, module.input_size, module.hidden_size, num_layers=layers, bidirectional=both)
    ends = ("", "_reverse")
    suffixes = {
        layer.name: "" if single else f"_l{k}{ends[layer.reverse]}" for k, level in enumerate(net.levels) for layer in level
    }
    options = (
        {"batch_first": False, "dropout": 0.0} if single else {key: getattr(module, key) for key in ("batch_first", "dropout")}
    )
    dropout = float(options["dropout"]) if layers > 1 else 0.0
    return Spec(kind, net, suffixes, single, bool(module.bias), bool(options["batch_first"]), dropout, source)


def _elman(module: Any) -> Cell:
    if module.nonlinearity not in ("tanh", "relu"):
        raise ValueRangeError(f"module has nonlinearity={module.nonlinearity!r}; expected 'tanh' or 'relu'")
    return Elman(module.nonlinearity)


def weights_of(module: Any, spec: Spec) -> dict[str, Any]:
    """The tensors that the module's forward reads, under torch's names ("weight_ih_l0", ...; without "_l0" for a cell).

    A fused layer reads its flat list, which is what counts where the attributes were replaced.
    """
    arrays = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if spec.bias else ()))
    names = [kind + end for end in spec.suffixes.values() for kind in arrays]
    if spec.single:
        return {name: getattr(module, name) for name in names}
    flat = dict(zip(module._flat_weights_names, module._flat_weights, strict=True))
    return {name: flat[name] for name in names}


def _plain(torch: Any, tensor: Any) -> Array:
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return np.array(tensor.detach().to("cpu", wide).numpy())
