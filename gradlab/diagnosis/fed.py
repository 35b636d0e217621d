"""Recurrent nodes of an ONNX file with what they read when the whole graph is fed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab.adapters.imported import Imported
from gradlab.errors import ShapeError, ValueRangeError

Array = npt.NDArray[Any]
Layout = Literal["TBD", "BTD", "graph"]


@dataclass(frozen=True)
class Fed:
    """An import with its own inputs: `x` (T, B, D) as its network reads it (a reverse one's rows are turned round already),
    `initial_states` (B, S) by layer, `lengths` (B,) or None. `name`: the node's, "" if it is the only one.
    """

    imported: Imported
    x: Array
    initial_states: Mapping[str, Array]
    lengths: Array | None
    name: str = ""


def fed_nodes(
    path: str | os.PathLike[str],
    data: Array | Mapping[str, Array],
    layout: Layout,
    *,
    lengths: Array | None = None,
    node: str | None = None,
    max_memory: int | None = None,
) -> tuple[Fed, ...]:
    """Every recurrent node of the ONNX file at `path`, or the one called `node`, with what it reads if the graph reads `data`.

    `layout`: "graph" feeds `data` as they are, to the graph's only input or, a dict, by name; "TBD" and "BTD" say how the
    data lie, and need a node that reads them itself. Values between the graph's input and a node are computed by onnxruntime.
    Initial states and lengths stored in the file are used; `lengths` (B,) feeds the nodes' sequence_lens where it is an input of
    the graph, and initial states that are inputs of the graph are zero unless they are given.
    Errors: those of `adapters.from_onnx` and `adapters.node_inputs`; ShapeError, ValueRangeError naming file and input.
    """
    from gradlab.adapters.onnx_io import from_onnx
    from gradlab.adapters.onnx_io_file import load_model
    from gradlab.adapters.onnx_io_graph import label_of, pick, recurrent_nodes
    from gradlab.adapters.onnx_io_run import node_inputs

    name, proto = load_model(path, max_memory)
    nodes, refused = recurrent_nodes(name, proto)
    if node is None:
        made = from_onnx(proto, max_memory=max_memory)
    else:
        made = [from_onnx(proto, node, max_memory=max_memory)]
        nodes = [pick(name, nodes, refused, node)]
    feeds = _feeds(name, proto, nodes, made, data, layout, lengths)
    found = []
    for one, own in zip(made, nodes, strict=True):
        label = label_of(own)
        read = node_inputs(proto, feeds, own.name or next(filter(None, own.output)), max_memory=max_memory)
        if read.x.shape[-1] != one.net.input_size:
            raise ShapeError(f"{name}: the node {label!r} reads {one.net.input_size} features, fed with {read.x.shape[-1]}")
        kept = tuple(note for note in one.notes if "node_inputs(" not in note)
        notes = (*kept, *("initial states are those of the graph" for _ in range(bool(read.initial_states))))
        found.append(Fed(replace(one, notes=notes), read.x, read.initial_states, read.lengths, label if len(made) > 1 else ""))
    return tuple(found)


def _feeds(
    name: str,
    proto: Any,
    nodes: list[Any],
    made: list[Imported],
    data: Array | Mapping[str, Array],
    layout: Layout,
    lengths: Array | None,
) -> dict[str, Array]:
    """What every input of the graph is fed with."""
    from gradlab.adapters.onnx_io import RUNNING
    from gradlab.adapters.onnx_io_graph import constants

    stored = constants(name, proto)
    inputs = [entry.name for entry in proto.graph.input if entry.name not in stored]
    running = {what: {n.input[at] for n in nodes if len(n.input) > at} & set(inputs) for what, at in RUNNING.items()}
    feeds: dict[str, Array] = dict(data) if isinstance(data, Mapping) else {}
    if feeds and layout != "graph":
        raise ValueRangeError(f'arrays by name are fed as they are; expected the layout "graph", not {layout!r}')
    if lengths is not None and not running["sequence_lens"]:
        raise ValueRangeError(f"{name}: lengths were given, and no input of the graph is the sequence_lens of a node")
    for entry in sorted(running["sequence_lens"] - set(feeds)):
        if lengths is None:
            raise ValueRangeError(f"{name}: the graph reads lengths as {entry!r}; give lengths")
        feeds[entry] = np.asarray(lengths, np.int32)
    states = running["initial_h"] | running["initial_c"]
    free = [entry for entry in inputs if entry not in {*feeds, *running["sequence_lens"], *states}]
    if not isinstance(data, Mapping):
        if len(free) != 1:
            known = ", ".join(map(repr, free[:6]))
            raise ValueRangeError(f"{name}: the graph has {len(free)} inputs, {known}; expected one to feed the data to")
        feeds[free[0]] = data if layout == "graph" else _turned(name, free[0], data, layout, nodes, made)
    for one, own in zip(made, nodes, strict=True):
        for at in (RUNNING["initial_h"], RUNNING["initial_c"]):
            entry = own.input[at] if len(own.input) > at else ""
            if entry in inputs and entry not in feeds and own.input[0] in feeds:
                x = feeds[own.input[0]]
                B, directions = x.shape[0 if one.batch_first else 1], len(one.net.layers)
                shape = (B, directions) if one.batch_first else (directions, B)
                feeds[entry] = np.zeros((*shape, one.net.hidden_size), np.float32)
    return feeds


def _turned(name: str, entry: str, data: Array, layout: str, nodes: list[Any], made: list[Imported]) -> Array:
    """(T, B, D) or (B, T, D) data in the layout of the node that reads the graph's input itself."""
    reading = [one for own, one in zip(nodes, made, strict=True) if own.input[0] == entry]
    if not reading:
        raise ValueRangeError(
            f"{name}: no recurrent node reads the graph's input {entry!r} itself; "
            'give the data as that input has them, with the layout "graph"'
        )
    if data.ndim != 3:
        raise ShapeError(f"data have shape {data.shape}; expected 3 axes, {layout}, for the input {entry!r} of {name}")
    if data.shape[-1] != reading[0].net.input_size:
        raise ShapeError(f"data have {data.shape[-1]} features; {name} reads {reading[0].net.input_size}")
    return data if (layout == "BTD") == reading[0].batch_first else np.swapaxes(data, 0, 1)
