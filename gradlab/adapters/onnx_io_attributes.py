"""The attributes of an ONNX RNN, LSTM or GRU node: each one supported or refused by name, none ignored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gradlab.adapters._general_cell import USUAL, Function, cell_for
from gradlab.adapters._library import load_library
from gradlab.adapters.onnx_io_graph import label_of
from gradlab.cells import Cell
from gradlab.errors import FormatError

VERSIONS = (7, 14, 22)
"""Versions of the three operators that are read here; 14 adds layout, 22 only types."""
FLOAT, INT, STRING, FLOATS, STRINGS = 1, 2, 3, 6, 8
"""Numbers of onnx.AttributeProto.AttributeType."""
TYPES = {
    "activations": STRINGS,
    "activation_alpha": FLOATS,
    "activation_beta": FLOATS,
    "clip": FLOAT,
    "direction": STRING,
    "hidden_size": INT,
    "layout": INT,
    "input_forget": INT,
    "linear_before_reset": INT,
}
OWN = {"input_forget": "LSTM", "linear_before_reset": "GRU"}
"""Attributes that one operator alone has."""

ACTIVATIONS: Mapping[str, tuple[str, float | None, float | None, bool, bool]] = {
    "affine": ("affine", None, None, True, True),
    "elu": ("elu", 1.0, 0.0, True, False),
    "hardsigmoid": ("hard_sigmoid", 0.2, 0.5, True, True),
    "leakyrelu": ("leaky_relu", 0.01, 0.0, True, False),
    "relu": ("relu", 0.0, 0.0, False, False),
    "scaledtanh": ("scaled_tanh", None, None, True, True),
    "sigmoid": ("sigmoid", 0.0, 0.0, False, False),
    "softplus": ("softplus", 0.0, 0.0, False, False),
    "softsign": ("softsign", 0.0, 0.0, False, False),
    "tanh": ("tanh", 0.0, 0.0, False, False),
    "thresholdedrelu": ("thresholded_relu", 1.0, 0.0, True, False),
}
"""gradlab's name, the defaults of alpha and beta (None: there are none), and whether the function takes them."""


@dataclass(frozen=True)
class Options:
    """What the attributes of one node say."""

    kind: str
    functions: tuple[Function, ...]
    reverse: bool = False
    bidirectional: bool = False
    batch_first: bool = False
    hidden_size: int | None = None
    clip: float | None = None
    coupled: bool = False
    reset: str = "before"

    def cell(self, peepholes: bool) -> Cell:
        """What runs the node."""
        return cell_for(self.kind, self.functions, clip=self.clip, peepholes=peepholes, coupled=self.coupled, reset=self.reset)


def require_version(name: str, model: Any) -> int:
    """The opset of `model` for the operators of ONNX itself. Error: FormatError if gradlab does not know it."""
    versions = [int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1:
        raise FormatError(f"{name}: imports {len(versions)} opsets of ONNX; expected exactly one")
    newest = int(load_library("onnx", "onnx", "reading an ONNX model").defs.onnx_opset_version())
    if not VERSIONS[0] <= versions[0] <= newest:
        raise FormatError(
            f"{name}: opset {versions[0]}; expected {VERSIONS[0]} to {newest}; try onnx.version_converter.convert_version"
        )
    return versions[0]


def read_options(name: str, node: Any, version: int) -> Options:
    """The options of `node`. Error: FormatError that names node, attribute and value for all that is not supported."""
    label = f"{name}: {node.op_type} node {label_of(node)!r}"
    values = _values(label, node, version)
    kind = str(node.op_type)
    direction = values.get("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise FormatError(f"{label}: direction is {direction!r}; expected forward, reverse or bidirectional")
    for flag in ("layout", "input_forget"):
        if values.get(flag, 0) not in (0, 1):
            raise FormatError(f"{label}: {flag} is {values[flag]}; expected 0 or 1")
    clip = values.get("clip")
    if clip is not None and not (math.isfinite(clip) and clip > 0):
        raise FormatError(f"{label}: clip is {clip}; expected a finite number > 0")
    return Options(
        kind,
        _functions(label, kind, values, 2 if direction == "bidirectional" else 1),
        reverse=direction == "reverse",
        bidirectional=direction == "bidirectional",
        batch_first=bool(values.get("layout", 0)),
        hidden_size=values.get("hidden_size"),
        clip=clip,
        coupled=bool(values.get("input_forget", 0)),
        reset="after" if values.get("linear_before_reset", 0) else "before",
    )


def _values(label: str, node: Any, version: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        key = attribute.name
        known = key in TYPES and OWN.get(key, node.op_type) == node.op_type and (key != "layout" or version >= 14)
        if not known:
            raise FormatError(f"{label}: attribute {key!r} is not known at opset {version}; nothing is read past it")
        if key in values:
            raise FormatError(f"{label}: attribute {key!r} occurs twice")
        if attribute.ref_attr_name or attribute.type != TYPES[key]:
            raise FormatError(f"{label}: attribute {key!r} has type {attribute.type}; expected {TYPES[key]}")
        if TYPES[key] in (FLOATS, STRINGS):
            entries = attribute.floats if TYPES[key] == FLOATS else attribute.strings
            values[key] = [_text(entry) if TYPES[key] == STRINGS else float(entry) for entry in entries]
        else:
            values[key] = {FLOAT: float(attribute.f), INT: int(attribute.i), STRING: _text(attribute.s)}[TYPES[key]]
    return values


def _text(value: bytes) -> str:
    return bytes(value).decode("utf-8", "backslashreplace")


def _functions(label: str, kind: str, values: Mapping[str, Any], directions: int) -> tuple[Function, ...]:
    """The functions of each direction; alpha and beta go, in order, to the functions that take one."""
    names = values.get("activations")
    lists = {key: values.get(f"activation_{key}", []) for key in ("alpha", "beta")}
    if not names:
        if any(lists.values()):
            raise FormatError(f"{label}: activation_alpha or activation_beta without activations; expected the names as well")
        return USUAL[kind]
    count = len(USUAL[kind])
    if len(names) != directions * count:
        raise FormatError(f"{label}: {len(names)} activations; expected {count} for each of {directions} directions")
    rows = []
    for given in names:
        if given.lower() not in ACTIVATIONS:
            raise FormatError(f"{label}: activation {given!r} is not known; expected one of {', '.join(ACTIVATIONS)}")
        rows.append((given, *ACTIVATIONS[given.lower()]))
    alphas = _constants(label, "alpha", lists["alpha"], [(row[0], row[2], row[4]) for row in rows])
    betas = _constants(label, "beta", lists["beta"], [(row[0], row[3], row[5]) for row in rows])
    made = tuple(Function(row[1], alpha, beta) for row, alpha, beta in zip(rows, alphas, betas, strict=True))
    if directions == 2 and made[:count] != made[count:]:
        raise FormatError(
            f"{label}: activations {', '.join(names)} differ between the two directions; gradlab's layers have one cell for both"
        )
    return made[:count]


def _constants(label: str, key: str, given: list[float], takers: list[tuple[str, float | None, bool]]) -> Iterator[float]:
    takes = [name for name, _, taking in takers if taking]
    if given and len(given) != len(takes):
        raise FormatError(
            f"{label}: activation_{key} has {len(given)} entries; expected one for each function that takes it: "
            f"{', '.join(takes) or 'none does'}"
        )
    if not all(map(math.isfinite, given)):
        raise FormatError(f"{label}: activation_{key} is {given}; expected finite numbers")
    rest = iter(given)
    for name, default, taking in takers:
        value = next(rest, default) if taking else 0.0
        if value is None:
            raise FormatError(f"{label}: {name} without activation_{key}; it has no default")
        yield value
