"""What Keras says about its recurrent layers, in configs that are only read: no class is looked up, no code is run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gradlab.adapters._general_cell import Function, cell_for
from gradlab.cells import Cell
from gradlab.errors import FormatError

MODELS = ("Sequential", "Functional", "Model")
KINDS = {"SimpleRNN": "RNN", "LSTM": "LSTM", "GRU": "GRU"}
RECURRENT = (*KINDS, "RNN", "Bidirectional")
REFUSED = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "StackedRNNCells")
MAX_DEPTH = 32

FUNCTIONS: Mapping[str, Function] = {
    "elu": Function("elu", 1.0),
    "hard_sigmoid": Function("hard_sigmoid", 1.0 / 6.0, 0.5),
    "hard_tanh": Function("hard_tanh"),
    "leaky_relu": Function("leaky_relu", 0.2),
    "linear": Function("affine", 1.0, 0.0),
    "relu": Function("relu"),
    "sigmoid": Function("sigmoid"),
    "softplus": Function("softplus"),
    "softsign": Function("softsign"),
    "tanh": Function("tanh"),
}
"""Activations as Keras 3 defines them; its hard_sigmoid is not that of ONNX or of Keras 2."""


@dataclass(frozen=True)
class Place:
    """Where the variables of one cell are: the attributes that lead to it, and the group of a file."""

    steps: tuple[str | int, ...]
    group: str


@dataclass(frozen=True)
class Described:
    """One recurrent layer: `cells` of its levels from the bottom up, and `places[level][direction]` of their variables."""

    name: str
    class_name: str
    path: str
    cells: tuple[Cell, ...]
    units: tuple[int, ...]
    places: tuple[tuple[Place, ...], ...]
    use_bias: tuple[bool, ...]
    reverse: bool
    every: bool
    notes: tuple[str, ...]

    @property
    def bidirectional(self) -> bool:
        """Whether there are two directions."""
        return len(self.places[0]) == 2


@dataclass(frozen=True)
class Entry:
    """A layer as its model lists it: class, config, and the group of its state in a file."""

    class_name: str
    config: Mapping[str, Any]
    path: str
    own: bool = True

    @property
    def name(self) -> str:
        """The name that the user gave, or Keras."""
        return str(self.config.get("name", self.class_name))


def snake_case(class_name: str) -> str:
    """The name under which Keras stores an object of the class."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def groups(class_names: list[str]) -> list[str]:
    """Names of the members of a list in a file: those of their classes, numbered from the second on."""
    seen: dict[str, int] = {}
    found = []
    for class_name in class_names:
        name = snake_case(class_name)
        seen[name] = seen.get(name, -1) + 1
        found.append(f"{name}_{seen[name]}" if seen[name] else name)
    return found


def recurrent_layers(label: str, config: Any, path: str = "", depth: int = 0) -> Iterator[Entry]:
    """The recurrent layers of a model's config {"class_name": ..., "config": ...}, in its order, nested models included."""
    if depth > MAX_DEPTH:
        raise FormatError(f"{label}: models nested more than {MAX_DEPTH} deep")
    entry = _entry(label, config, path)
    if entry.class_name in (*RECURRENT, *REFUSED):
        yield entry
    elif entry.class_name in MODELS or isinstance(entry.config.get("layers"), list):
        inner = entry.config.get("layers")
        if not isinstance(inner, list):
            raise FormatError(f"{label}: the config of the {entry.class_name} {entry.name!r} lists no layers")
        names = groups([_entry(label, one, "").class_name for one in inner])
        for one, group in zip(inner, names, strict=True):
            yield from recurrent_layers(label, one, f"{path}/layers/{group}" if path else f"layers/{group}", depth + 1)
    elif isinstance(entry.config.get("layer"), Mapping):  # a wrapper
        yield from recurrent_layers(label, entry.config["layer"], f"{path}/layer", depth + 1)
    elif depth == 0:
        raise FormatError(
            f"{label}: the config of {entry.class_name!r} lists no layers; expected a Sequential or Functional model"
        )


def _entry(label: str, config: Any, path: str) -> Entry:
    if (
        not isinstance(config, Mapping)
        or not isinstance(config.get("class_name"), str)
        or not isinstance(config.get("config"), Mapping)
    ):
        raise FormatError(f"{label}: a layer without class_name and config; expected the JSON of model.to_json() of Keras 3")
    own = config.get("registered_name") is None and str(config.get("module", "keras")).split(".")[0] == "keras"
    return Entry(config["class_name"], config["config"], path, own)


def describe(label: str, entry: Entry) -> Described:
    """What `entry` computes. Error: FormatError that names layer, option and value for all that is not supported."""
    label = f"{label}: layer {entry.name!r} ({entry.class_name})"
    if entry.class_name in REFUSED or not entry.own:
        what = "is no layer of vectors" if entry.own else "is a class of its own, whose code gradlab does not run"
        raise FormatError(f"{label} {what}; expected SimpleRNN, LSTM, GRU, RNN of their cells, or Bidirectional")
    if entry.class_name == "Bidirectional":
        return _bidirectional(label, entry)
    config = entry.config
    cells, places = _cells(label, entry)
    reverse = _flag(label, config, "go_backwards")
    notes = [note for _, one in cells for note in _training(one)]
    notes += ["stateful: Keras carries the state from batch to batch"] * _flag(label, config, "stateful")
    notes += ["go_backwards: run the network on each row turned round; Keras leaves the outputs in that order"] * reverse
    built = [_cell(label, kind, one) for kind, one in cells]
    return Described(
        name=entry.name,
        class_name=entry.class_name,
        path=entry.path,
        cells=tuple(built),
        units=tuple(_units(label, one) for _, one in cells),
        places=tuple((place,) for place in places),
        use_bias=tuple(_flag(label, one, "use_bias", True) for _, one in cells),
        reverse=reverse,
        every=_flag(label, config, "return_sequences"),
        notes=tuple(dict.fromkeys(notes)),
    )


def _cells(label: str, entry: Entry) -> tuple[list[tuple[str, Mapping[str, Any]]], list[Place]]:
    """Kind and config of the cells of a layer, from the bottom up, and where they are."""
    if entry.class_name != "RNN":
        return [(KINDS[entry.class_name], entry.config)], [Place(("cell",), "cell")]
    inner = _entry(label, entry.config.get("cell"), "")
    stacked = inner.class_name == "StackedRNNCells"
    listed = inner.config.get("cells") if stacked else [entry.config["cell"]]
    if not isinstance(listed, list) or not listed:
        raise FormatError(f"{label}: StackedRNNCells without cells")
    members = [_entry(label, one, "") for one in listed]
    for member in members:
        if member.class_name.removesuffix("Cell") not in KINDS or not member.own or not inner.own:
            raise FormatError(f"{label}: its cell is a {member.class_name}; expected SimpleRNNCell, LSTMCell or GRUCell of Keras")
    names = groups([member.class_name for member in members])
    places = [Place(("cell", "cells", k), f"cell/cells/{name}") for k, name in enumerate(names)]
    return [(KINDS[m.class_name.removesuffix("Cell")], m.config) for m in members], places if stacked else [
        Place(("cell",), "cell")
    ]


def _bidirectional(label: str, entry: Entry) -> Described:
    mode = entry.config.get("merge_mode", "concat")
    if mode not in ("concat", None):
        raise FormatError(
            f"{label}: merge_mode is {mode!r}; expected 'concat': gradlab's layers emit both directions side by side"
        )
    halves = []
    for key in ("layer", "backward_layer"):
        inner = _entry(label, entry.config.get(key), "")
        if inner.class_name not in (*KINDS, "RNN"):
            raise FormatError(f"{label}: wraps a {inner.class_name}; expected SimpleRNN, LSTM, GRU or RNN of one cell")
        halves.append(describe(label, inner))
    forward, backward = halves
    if len(forward.cells) > 1:
        raise FormatError(f"{label}: wraps StackedRNNCells, whose upper cells see one direction only; gradlab's see both")
    if forward.reverse or not backward.reverse:
        raise FormatError(
            f"{label}: go_backwards is {forward.reverse} forward and {backward.reverse} backward; expected False, True"
        )
    same = [(repr(h.cells), h.units, h.use_bias, h.every) for h in halves]
    if same[0] != same[1]:
        raise FormatError(f"{label}: the two directions differ: {same[0]} and {same[1]}; gradlab's layers have one cell for both")
    places = [
        Place((f"{side}_layer", *half.places[0][0].steps), f"{side}_layer/{half.places[0][0].group}")
        for side, half in (("forward", forward), ("backward", backward))
    ]
    notes = [note for note in (*forward.notes, *backward.notes) if not note.startswith("go_backwards")]
    notes += ["merge_mode None: Keras emits the two halves of the outputs apart"] * (mode is None)
    return Described(
        name=entry.name,
        class_name=f"Bidirectional {forward.class_name}",
        path=entry.path,
        cells=forward.cells,
        units=forward.units,
        places=(tuple(places),),
        use_bias=forward.use_bias,
        reverse=False,
        every=forward.every,
        notes=tuple(dict.fromkeys(notes)),
    )


def _cell(label: str, kind: str, config: Mapping[str, Any]) -> Cell:
    own = _function(label, "activation", config.get("activation", "tanh"))
    if kind == "RNN":
        return cell_for("RNN", (own,))
    gate = _function(label, "recurrent_activation", config.get("recurrent_activation", "sigmoid"))
    if kind == "LSTM":
        return cell_for("LSTM", (gate, own, own))
    return cell_for("GRU", (gate, own), reset="after" if _flag(label, config, "reset_after", True) else "before")


def _function(label: str, key: str, value: Any) -> Function:
    name = "linear" if value is None else value
    if isinstance(name, str) and name in FUNCTIONS:
        return FUNCTIONS[name]
    raise FormatError(f"{label}: {key} is {str(value)[:200]!r}; expected one of {', '.join(FUNCTIONS)}")


def _flag(label: str, config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise FormatError(f"{label}: {key} is {str(value)[:200]!r}; expected true or false")
    return value


def _units(label: str, config: Mapping[str, Any]) -> int:
    units = config.get("units")
    if isinstance(units, bool) or not isinstance(units, int) or not 0 < units < 2**31:
        raise FormatError(f"{label}: units is {str(units)[:200]!r}; expected a whole number > 0")
    return units


def _training(config: Mapping[str, Any]) -> list[str]:
    rates = [f"{key} {config[key]}" for key in ("dropout", "recurrent_dropout") if config.get(key)]
    return [f"{' and '.join(rates)}: acts in training only and is not part of the network"] if rates else []
