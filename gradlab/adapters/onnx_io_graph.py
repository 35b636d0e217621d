"""The recurrent nodes of an ONNX graph and its constant tensors."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._files import MAX_RANK
from gradlab.errors import FormatError, ValueRangeError

Array = npt.NDArray[Any]

RECURRENT = ("RNN", "LSTM", "GRU")
RELATIVES = ("DynamicQuantizeLSTM", "AttnLSTM")
"""Recurrent operators of onnxruntime's own domain; never read."""
MAX_NODES = 20_000
FLOAT, INT32, INT64, FLOAT16, DOUBLE, BFLOAT16 = 1, 6, 7, 10, 11, 16
"""Numbers of onnx.TensorProto.DataType."""
STORED: Mapping[int, tuple[str, str]] = {
    FLOAT: ("<f4", "float_data"),
    DOUBLE: ("<f8", "double_data"),
    INT32: ("<i4", "int32_data"),
    INT64: ("<i8", "int64_data"),
    FLOAT16: ("<u2", "int32_data"),
    BFLOAT16: ("<u2", "int32_data"),
}
"""Bytes of one entry, and the field that may hold it instead of raw_data."""


def recurrent_nodes(name: str, model: Any) -> tuple[list[Any], list[str]]:
    """The RNN, LSTM and GRU nodes of the main graph, and in words those that cannot be read, with the reason."""
    found, refused = [], []
    for path, node in _nodes(model):
        label = f"{node.op_type} node {label_of(node)!r}"
        if node.op_type in RELATIVES or (node.op_type in RECURRENT and node.domain not in ("", "ai.onnx")):
            refused.append(f"{label} of the domain {node.domain!r}, not of ONNX itself")
        elif node.op_type in RECURRENT and path:
            refused.append(f"{label} inside {path}")
        elif node.op_type in RECURRENT:
            found.append(node)
    if len(found) + len(refused) > MAX_NODES:
        raise FormatError(f"{name}: {len(found) + len(refused)} recurrent nodes; expected at most {MAX_NODES}")
    return found, refused


def label_of(node: Any) -> str:
    """A node's name; without one, its first output's."""
    return str(node.name) or next((str(output) for output in node.output if output), "without name")


def _nodes(model: Any) -> Iterator[tuple[str, Any]]:
    """Every node with where it is: "" in the main graph, else the subgraph or function around it."""
    waiting = deque(("", node) for node in model.graph.node)
    waiting += [(f"the function {f.name!r}", node) for f in model.functions for node in f.node]
    while waiting:
        path, node = waiting.popleft()
        yield path, node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                inside = f"a subgraph of the {node.op_type} node {label_of(node)!r}"
                waiting += [(inside, inner) for inner in graph.node]


def constants(name: str, model: Any) -> dict[str, Any]:
    """Values of the main graph that are stored in the file: TensorProto by name."""
    stored: dict[str, Any] = {}
    for tensor in model.graph.initializer:
        if tensor.name in stored:
            raise FormatError(f"{name}: two initializers are called {tensor.name!r}")
        stored[tensor.name] = tensor
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.output:
            stored.update((node.output[0], a.t) for a in node.attribute if a.name == "value" and a.HasField("t"))
        elif node.op_type == "Identity" and len(node.input) == 1 and node.input[0] in stored and node.output:
            stored[node.output[0]] = stored[node.input[0]]
    return stored


def decoded(name: str, tensor: Any) -> Array:
    """The numbers of a TensorProto, half precisions as float32; sizes are checked against the bytes that are there.

    Error: FormatError that names file and tensor.
    """
    label = f"{name}: tensor {tensor.name!r}"
    if tensor.external_data or tensor.data_location or tensor.HasField("segment"):
        raise FormatError(f"{label}: its data is elsewhere; expected it in the file")
    if tensor.data_type not in STORED:
        raise FormatError(f"{label}: data type {tensor.data_type}; expected float, double, float16, bfloat16 or int32")
    dtype, field = STORED[tensor.data_type]
    shape = tuple(int(n) for n in tensor.dims)
    if len(shape) > MAX_RANK or any(n < 0 for n in shape):
        raise FormatError(f"{label}: shape {shape}; expected at most {MAX_RANK} axes, none negative")
    size = math.prod(shape)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != size * np.dtype(dtype).itemsize:
            raise FormatError(f"{label}: shape {shape} and {len(tensor.raw_data)} bytes of data do not go together")
        flat = np.frombuffer(tensor.raw_data, dtype)
    else:
        entries = getattr(tensor, field)
        if len(entries) != size:
            raise FormatError(f"{label}: shape {shape} and {len(entries)} entries do not go together")
        flat = np.asarray(entries, np.int64 if "i" in dtype or "u" in dtype else dtype).astype(dtype)
    if tensor.data_type == FLOAT16:
        with np.errstate(all="ignore"):
            flat = flat.view("<f2").astype(np.float32)
    elif tensor.data_type == BFLOAT16:
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(shape).astype(flat.dtype.newbyteorder("="))


def pick(name: str, nodes: list[Any], refused: list[str], wanted: str) -> Any:
    """The one node with the name `wanted`, or with an output of that name. Error: ValueRangeError that lists all."""
    chosen = [node for node in nodes if node.name == wanted] or [node for node in nodes if wanted in node.output and wanted]
    if len(chosen) != 1:
        known = ", ".join(repr(label_of(node)) for node in nodes) or "none"
        more = f"; not readable: {'; '.join(refused)}" if refused else ""
        said = "is not there" if not chosen else f"is the name of {len(chosen)} nodes; give the name of an output"
        raise ValueRangeError(f"{name}: node {wanted!r} {said}; recurrent nodes: {known}{more}")
    return chosen[0]
