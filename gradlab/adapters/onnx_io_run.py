"""What a recurrent node of an ONNX graph reads, and what a run of its import means in the node's own outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._validate import as_numbers, require_array, require_lengths
from gradlab.adapters._layout import cast, require_float
from gradlab.adapters._library import load_library
from gradlab.adapters.imported import Imported
from gradlab.adapters.onnx_io import RUNNING
from gradlab.adapters.onnx_io_attributes import read_options, require_version
from gradlab.adapters.onnx_io_file import load_model
from gradlab.adapters.onnx_io_graph import constants, decoded, label_of, pick, recurrent_nodes
from gradlab.directions import flip
from gradlab.errors import DTypeError, FormatError, ShapeError, ValueRangeError
from gradlab.forward_pass import Pass

Array = npt.NDArray[Any]

READ = {"X": 0, **RUNNING}


@dataclass(frozen=True)
class NodeInputs:
    """What one node reads, ready for gradlab.forward(net, params, x, initial_states, lengths=lengths).

    `x` (T, B, D), of a reverse node with each row turned round; `initial_states` (B, S) by layer; `lengths` (B,) or None.
    """

    x: Array
    initial_states: dict[str, Array]
    lengths: Array | None


def node_inputs(
    model: Any,
    feeds: Mapping[str, Array],
    node: str | None = None,
    *,
    dtype: npt.DTypeLike = np.float64,
    max_memory: int | None = None,
) -> NodeInputs:
    """What the recurrent `node` of `model` reads when the graph is fed with `feeds`.

    `feeds`: arrays by name, either the node's own inputs, or the inputs of the whole graph; onnxruntime then computes the
    rest, running only the nodes in front. Initial states and lengths stored in the file are read from it. `node`: as in
    `from_onnx`; may be left out where there is one.

    Errors: those of `from_onnx`; ValueRangeError for what is missing from `feeds`; ShapeError; FormatError if onnxruntime
    cannot run the graph.
    """
    dtype = require_float("dtype", dtype)
    name, proto = load_model(model, max_memory)
    version = require_version(name, proto)
    nodes, refused = recurrent_nodes(name, proto)
    if node is None and len(nodes) != 1:
        known = ", ".join(repr(label_of(found)) for found in nodes) or "none"
        raise ValueRangeError(f"node is None; expected one of the recurrent nodes of {name}: {known}")
    chosen = nodes[0] if node is None else pick(name, nodes, refused, node)
    options = read_options(name, chosen, version)
    wanted = {key: chosen.input[at] for key, at in READ.items() if len(chosen.input) > at and chosen.input[at]}
    stored = constants(name, proto)
    fed = {key: require_array(f'feeds["{key}"]', value) for key, value in feeds.items()}
    found = {
        key: fed[value] if value in fed else decoded(name, stored[value])
        for key, value in wanted.items()
        if value in fed or value in stored
    }
    missing = [value for key, value in wanted.items() if key not in found]
    if missing:
        computed = _computed(name, proto, missing, fed, max_memory)
        found |= {key: computed[value] for key, value in wanted.items() if key not in found}
    lengths = found.pop("sequence_lens", None)
    arrays = {key: cast(as_numbers(key, value, allow_complex=False), dtype) for key, value in found.items()}
    if any(value.ndim != 3 for value in arrays.values()) or "X" not in arrays:
        raise ShapeError(f"{name}: {', '.join(f'{k} has shape {v.shape}' for k, v in arrays.items())}; expected 3 axes each")
    if options.batch_first:
        arrays = {key: np.swapaxes(value, 0, 1) for key, value in arrays.items()}
    x = arrays.pop("X")
    lengths = None if lengths is None else require_lengths("sequence_lens", lengths, x.shape[0], x.shape[1])
    layers = ("0.forward", "0.backward") if options.bidirectional else ("0",)
    states = _states(name, layers, arrays, options.kind == "LSTM")
    return NodeInputs(flip(x, lengths) if options.reverse else x, states, lengths)


def _states(name: str, layers: tuple[str, ...], arrays: Mapping[str, Array], has_cell: bool) -> dict[str, Array]:
    if not arrays:
        return {}
    like = next(iter(arrays.values()))
    zero = np.zeros_like(like)
    h, c = arrays.get("initial_h", zero), arrays.get("initial_c", zero)
    if h.shape != c.shape or len(h) != len(layers):
        raise ShapeError(
            f"{name}: initial_h and initial_c have shapes {h.shape} and {c.shape}; expected {len(layers)} directions"
        )
    return {layer: np.concatenate([c[k], h[k]], axis=-1) if has_cell else h[k] for k, layer in enumerate(layers)}


def node_outputs(imported: Imported, ran: Pass) -> dict[str, Array]:
    """What the node emits, Y, Y_h and for an LSTM Y_c in ONNX's shapes, from a run of its import.

    `ran`: gradlab.forward of `imported.net` on what `node_inputs` gave. To be compared with the node's own outputs.
    """
    layers = imported.net.layers
    H = imported.net.hidden_size
    steps = flip(ran.outputs, ran.lengths) if imported.reverse else ran.outputs
    Y = np.stack(np.split(steps, len(layers), axis=-1), axis=1)  # (T, D, B, H)
    final = np.stack([ran.final_states[layer.name] for layer in layers])  # (D, B, S)
    found = {"Y": Y, "Y_h": final[..., -H:]}
    if final.shape[-1] == 2 * H:
        found["Y_c"] = final[..., :H]
    if imported.batch_first:
        found = {key: np.moveaxis(value, -2, 0) for key, value in found.items()}
    return {key: np.ascontiguousarray(value) for key, value in found.items()}


def _computed(name: str, proto: Any, missing: list[str], feeds: Mapping[str, Array], max_memory: int | None) -> dict[str, Array]:
    """Values in front of the node, by onnxruntime on the part of the graph that leads to them."""
    runtime = load_library("onnxruntime", "onnx", f"computing {', '.join(map(repr, missing))} of the graph")
    onnx = load_library("onnx", "onnx", "reading an ONNX model")
    refuse_above(3 * proto.ByteSize(), max_memory, f"{name}: running it", "give a larger max_memory")
    part, needed = _ancestors(onnx, proto, missing)
    inputs = {entry.name: entry for entry in part.graph.input}
    lacking = [value for value in sorted(needed) if value in inputs and value not in feeds]
    lacking = [value for value in lacking if value not in {tensor.name for tensor in part.graph.initializer}]
    if lacking:
        raise ValueRangeError(f"feeds lacks {', '.join(map(repr, lacking))}; expected these inputs of the graph, or {missing}")
    try:
        types = {key: onnx.helper.tensor_dtype_to_np_dtype(inputs[key].type.tensor_type.elem_type) for key in inputs}
        ready = {key: np.asarray(feeds[key]).astype(types[key]) for key in inputs if key in feeds and key in needed}
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 4
        session = runtime.InferenceSession(part.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        values = session.run(missing, ready)
    except Exception as error:  # onnxruntime has its own hierarchy, compiled in
        raise FormatError(f"{name}: onnxruntime cannot compute {missing} ({error})") from error
    for value, array in zip(missing, values, strict=True):
        if not isinstance(array, np.ndarray):
            raise DTypeError(f"{name}: the value {value!r} is a {type(array).__name__}; expected a tensor")
    return dict(zip(missing, values, strict=True))


def _ancestors(onnx: Any, proto: Any, wanted: list[str]) -> tuple[Any, set[str]]:
    """The model cut to the nodes that lead to `wanted`, and the names of all values on the way."""
    part = onnx.ModelProto()
    part.CopyFrom(proto)
    needed, kept = set(wanted), []
    for node in reversed(proto.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= _read_by(node)
    for field in ("node", "output"):
        part.graph.ClearField(field)
    part.graph.node.extend(reversed(kept))
    part.graph.output.extend(onnx.ValueInfoProto(name=value) for value in wanted)
    inputs = [entry for entry in proto.graph.input if entry.name in needed]
    part.graph.ClearField("input")
    part.graph.input.extend(inputs)
    return part, needed


def _read_by(node: Any) -> set[str]:
    """Names that a node reads, those captured by its subgraphs included."""
    names = {value for value in node.input if value}
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            names |= {value.name for value in graph.output}
            for inner in graph.node:
                names |= _read_by(inner)
    return names
