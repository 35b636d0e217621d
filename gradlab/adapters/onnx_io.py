"""RNN, LSTM and GRU nodes of ONNX models as gradlab networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from gradlab._validate import as_numbers
from gradlab.adapters._layout import GATES, ONNX_PEEPHOLES, blocks, cast, gates_of, non_finite, require_float, to_gradlab
from gradlab.adapters.imported import Imported
from gradlab.adapters.onnx_io_attributes import Options, read_options, require_version
from gradlab.adapters.onnx_io_file import load_model
from gradlab.adapters.onnx_io_graph import constants, decoded, label_of, pick, recurrent_nodes
from gradlab.cells import LSTM, Cell
from gradlab.errors import FormatError, ValueRangeError
from gradlab.network import Network

Array = npt.NDArray[Any]

WEIGHTS = {"W": 1, "R": 2, "B": 3, "P": 7}
"""Where the constant inputs stand among the inputs of a node."""
RUNNING = {"sequence_lens": 4, "initial_h": 5, "initial_c": 6}


@overload
def from_onnx(
    model: Any,
    node: None = None,
    *,
    values: Mapping[str, Array] | None = None,
    dtype: npt.DTypeLike = np.float64,
    max_memory: int | None = None,
) -> list[Imported]: ...
@overload
def from_onnx(
    model: Any,
    node: str,
    *,
    values: Mapping[str, Array] | None = None,
    dtype: npt.DTypeLike = np.float64,
    max_memory: int | None = None,
) -> Imported: ...
def from_onnx(
    model: Any,
    node: str | None = None,
    *,
    values: Mapping[str, Array] | None = None,
    dtype: npt.DTypeLike = np.float64,
    max_memory: int | None = None,
) -> list[Imported] | Imported:
    """Every RNN, LSTM and GRU node of `model` in the order of its graph; with `node`, the one of that name.

    `model`: a path, the bytes of a file, or an onnx.ModelProto. `node`: a node's name, or that of one of its outputs.
    `values`: arrays for weights that the graph reads or computes instead of storing them, by the name of the value.
    `dtype`: of the parameters, float64 or float32. `max_memory`: bytes that reading may take.

    Supported: all directions (a reverse node has `reverse=True`), both layouts (`batch_first`), peepholes, input_forget,
    both forms of linear_before_reset, clip, and all activations with alpha and beta; activations that differ between the
    two directions are refused. What the node reads beside its weights, stored in the file or not, comes from `node_inputs`.
    Opsets from 7 on; equations of ONNX's operator specification.

    Errors: FormatError for what is not as it should be, and for nodes inside subgraphs and functions; UnsafeFileError for
    data in other files; ResourceRefused, MissingLibrary, ValueRangeError (node, values). Nothing is run.
    """
    name, proto = load_model(model, max_memory)
    version = require_version(name, proto)
    nodes, refused = recurrent_nodes(name, proto)
    stored = constants(name, proto)
    known = {value for found in nodes for value in found.input if value}
    given = _given(values, known)
    if node is not None:
        return _imported(name, pick(name, nodes, refused, node), version, stored, given, dtype)
    if refused:
        raise FormatError(f"{name}: cannot read the {'; the '.join(refused)}; name the nodes to read instead of it: node=")
    if not nodes:
        found = sorted({n.op_type for n in proto.graph.node})[:20]
        raise FormatError(f"{name}: no RNN, LSTM or GRU node; its operators: {', '.join(found) or 'none'}")
    return [_imported(name, found, version, stored, given, dtype) for found in nodes]


def _given(values: Mapping[str, Array] | None, known: set[str]) -> dict[str, Array]:
    given = {}
    for key, value in (values or {}).items():
        if key not in known:
            raise ValueRangeError(f"values has {key!r}; expected inputs of recurrent nodes: {', '.join(sorted(known))}")
        given[key] = as_numbers(f'values["{key}"]', value, allow_complex=False)
    return given


def _imported(
    name: str, node: Any, version: int, stored: Mapping[str, Any], given: Mapping[str, Array], dtype: npt.DTypeLike
) -> Imported:
    dtype = require_float("dtype", dtype)
    label = f"{name}: {node.op_type} node {label_of(node)!r}"
    options = read_options(name, node, version)
    order = GATES["onnx"][options.kind]
    arrays = {key: _weight(label, key, node, position, stored, given) for key, position in WEIGHTS.items()}
    most = 8 if options.kind == "LSTM" else 6
    if len(node.input) > most:
        raise FormatError(f"{label}: {len(node.input)} inputs; expected at most {most}")
    W, R = _check_shapes(label, options, arrays, len(order))
    cell = options.cell(arrays["P"] is not None)
    H, D = R.shape[-1], W.shape[-1]
    net = Network(cell, D, H, bidirectional=options.bidirectional)
    params: dict[str, Array] = {}
    for k, layer in enumerate(net.layers):
        own = {key: None if value is None else cast(value[k], dtype) for key, value in arrays.items()}
        peepholes = {} if own["P"] is None else blocks(own["P"], ONNX_PEEPHOLES)
        converted = _converted(cell, order, cast(W[k], dtype), cast(R[k], dtype), own["B"], peepholes)
        params |= {f"{layer.name}.{key}": value for key, value in converted.items()}
    notes = [*_notes(node, options, arrays, stored), *non_finite(params)]
    source = f"ONNX {options.kind} node {label_of(node)!r} (opset {version})"
    return Imported(net, params, source, tuple(notes), W.dtype, options.batch_first, options.reverse)


def _weight(
    label: str, key: str, node: Any, position: int, stored: Mapping[str, Any], given: Mapping[str, Array]
) -> Array | None:
    value = node.input[position] if len(node.input) > position else ""
    if not value:
        return None
    found = given[value] if value in given else decoded(label, stored[value]) if value in stored else None
    if found is None:
        raise FormatError(f"{label}: {key} is the value {value!r}, which the file does not store; give values={{{value!r}: ...}}")
    if found.dtype.kind != "f":
        raise FormatError(f"{label}: {key} has dtype {found.dtype}; expected floating-point numbers")
    return found


def _check_shapes(label: str, options: Options, arrays: Mapping[str, Array | None], gates: int) -> tuple[Array, Array]:
    W, R = arrays["W"], arrays["R"]
    directions = 2 if options.bidirectional else 1
    if W is None or R is None:
        raise FormatError(f"{label}: has no {'W' if W is None else 'R'}; both are required")
    if R.ndim != 3 or W.ndim != 3 or 0 in R.shape or 0 in W.shape:
        raise FormatError(f"{label}: W and R have shapes {W.shape} and {R.shape}; expected 3 axes, none empty")
    H = R.shape[-1]
    if options.hidden_size not in (None, H):
        raise FormatError(f"{label}: hidden_size is {options.hidden_size}, R has {H} columns")
    for key, columns in (("W", W.shape[-1:]), ("R", (H,)), ("B", ()), ("P", ())):
        value, rows = arrays[key], {"B": 2 * gates * H, "P": 3 * H}.get(key, gates * H)
        if value is not None and value.shape != (directions, rows, *columns):
            raise FormatError(f"{label}: {key} has shape {value.shape}; expected {(directions, rows, *columns)}")
    return W, R


def _converted(
    cell: Cell, order: Sequence[str], W: Array, U: Array, B: Array | None, peepholes: dict[str, Array]
) -> dict[str, Array]:
    """Parameters of one direction.

    With input_forget the input gate owns them, f = 1 - i; in gradlab's coupled LSTM the forget gate does, i = 1 - f.
    Since 1 - sigmoid(a) = sigmoid(-a), a forget gate with the negated numbers is the same function.
    """
    b_x, b_h = np.split(np.zeros(2 * len(U), U.dtype) if B is None else B, 2)
    if isinstance(cell, LSTM) and cell.coupled:
        W, U, b_x, b_h = (_negated(blocks(value, order)) for value in (W, U, b_x, b_h))
        peepholes = {"f": -peepholes["i"], "o": peepholes["o"]} if peepholes else {}
    own = {gate: value for gate, value in peepholes.items() if gate in gates_of(cell)}
    return to_gradlab(cell, order, W, U, b_x, b_h, own)


def _negated(by_gate: dict[str, Array]) -> Array:
    return np.concatenate([-by_gate["i"] if gate == "f" else value for gate, value in by_gate.items()])


def _notes(node: Any, options: Options, arrays: Mapping[str, Array | None], stored: Mapping[str, Any]) -> list[str]:
    notes = []
    if arrays["B"] is not None:
        apart = options.kind == "GRU" and options.reset == "after"
        notes.append("the two biases are added, but for that of the candidate n" if apart else "the two biases are added")
    if options.kind == "GRU":
        notes.append(f"linear_before_reset: the reset gate acts {options.reset} the product with U_n")
    if options.coupled:
        notes.append("input_forget: f = 1 - i; the weights of the forget gate are not used")
    if options.reverse:
        notes.append("direction reverse: run the network on each row turned round")
    for key, position in RUNNING.items():
        value = node.input[position] if len(node.input) > position else ""
        if value:
            kept = " is stored in the file" if value in stored else f" is the value {value!r} of the graph"
            notes.append(f"{key}{kept}; node_inputs(...) reads it")
    return notes
