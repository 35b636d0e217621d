"""Which numbers of a layer come out of a squashing function, and how flat it is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.cells import SCRN, Clockwork, Jordan
from gradlab.diagnosis.evidence import Seen
from gradlab.directions import flip
from gradlab.errors import GradlabError
from gradlab.forward_pass import LayerPass

Array = npt.NDArray[Any]

SIGNED = ("g", "n")
"""Gates between -1 and 1, the candidates of LSTM and GRU; all others are between 0 and 1."""
RANGES = {
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
}
"""Both ends of each squashing function."""


@dataclass(frozen=True, eq=False)
class Squashed:
    """The values of one gate, or of a layer's units: (T, B, H) in the order of the data; `exists` of the same shape.

    `gate`: its letter, "h" for the units of a net without gates. `function`: a key of `RANGES`. `rows`: which of the batch.
    """

    gate: str
    function: str
    values: Array
    exists: Array
    rows: Array

    @property
    def width(self) -> float:
        """From one end to the other."""
        low, high = RANGES[self.function]
        return high - low

    def slopes(self) -> Array:
        """The slope at each value, as a share of the largest: 1 - h^2 of tanh, 4 g (1 - g) of the sigmoid."""
        low, high = RANGES[self.function]
        v = self.values
        if self.function.startswith("hard"):
            return np.asarray(np.where((v > low) & (v < high), 1.0, 0.0))
        if self.function == "softsign":
            return np.asarray((1.0 - np.abs(v)) ** 2)
        return np.asarray(4.0 * (v - low) * (high - v) / (high - low) ** 2)

    def upper(self) -> Array:
        """Whether each value is nearer to the upper end."""
        low, high = RANGES[self.function]
        return np.asarray(self.values > 0.5 * (low + high))


def squashed(seen: Seen) -> Iterator[Squashed]:
    """Every gate of a layer; of one without gates its units, if their function squashes. Nothing of an ensemble, or of
    numbers that are not finite.
    """
    gates = seen.layer.gates
    if gates:
        own = seen.cell.gates if seen.cell is not None else ()
        for gate, value in gates.items():
            if own and gate not in own:  # it follows from another one: i = 1 - f
                continue
            yield from _made(seen, gate, _of_gate(gate, value), value)
    elif isinstance(seen.cell, Jordan):
        run = run_of(seen)
        if run is not None:  # the hidden units stand on the tape, as (f', h_t, g')
            H = run.layer.hidden_size
            yield from _made(seen, "h", activation(seen), run.tape[:, 0, ..., H : 2 * H], rows_of(seen, run))
    else:
        units = states(seen)
        if units is not None:
            yield from _made(seen, "h", activation(seen), units)


def run_of(seen: Seen) -> LayerPass | None:
    """The forward pass, None where there is none: no network, or numbers that are not finite."""
    try:
        return seen.run
    except GradlabError:
        return None


def rows_of(seen: Seen, run: LayerPass) -> Array:
    """Which sequences of the record `run` has: a few of a replay, all of what was watched."""
    rows = seen.look.rows
    return rows if run.states.shape[-2] == len(rows) else np.arange(run.states.shape[-2])


def states(seen: Seen) -> Array | None:
    """What the units of a layer without gates emit, (T, *E, B, H), in its own order; None for what has gates or no states."""
    layer = seen.layer
    if layer.states is None or layer.gates:
        return None
    if isinstance(seen.cell, SCRN):
        return layer.series("states", "h")[1:]
    return layer.states[1:] if len(layer.parts) <= 1 else None


def activation(seen: Seen) -> str:
    """The function of the units of a layer without gates, by gradlab's name; "" if it cannot be told."""
    cell: Any = getattr(seen.cell, "user_cell", seen.cell)
    if isinstance(cell, SCRN):
        return "sigmoid"
    if (named := getattr(getattr(cell, "activation", None), "name", None)) is not None:
        return str(named)
    if getattr(cell, "kind", "") == "RNN":  # of an ONNX or Keras model, with a function of its own
        return str(cell.functions[0].name)
    written = "" if cell is not None else str(seen.look.record.provenance.get("cell", ""))
    told = re.match(r"(?:Elman|Clockwork)\(.*?'(\w+)'\)$", written)
    return told.group(1) if told else "" if written.startswith("Jordan") else _guess(states(seen))


def _guess(value: Array | None) -> str:
    """From the values alone: what never leaves [-1, 1] and is negative too counts as tanh; what is never negative, and 0 at
    some steps of units that are not 0 at others, as ReLU.
    """
    if value is None or not value.size or not np.isfinite(value).all():
        return ""
    least, most = float(value.min()), float(value.max())
    if least < 0.0:
        return "tanh" if least >= -1.0 and most <= 1.0 else ""
    zero = (value == 0.0).reshape(-1, value.shape[-1])
    return "relu" if bool((zero.any(axis=0) & ~zero.all(axis=0)).any()) else ""


def _of_gate(gate: str, value: Array) -> str:
    if gate in SIGNED:
        return "tanh"
    low, high = float(np.min(value, initial=0.0)), float(np.max(value, initial=0.0))
    return "sigmoid" if low >= 0.0 and high <= 1.0 else "tanh" if low >= -1.0 and high <= 1.0 else ""


def _made(seen: Seen, gate: str, function: str, value: Array, rows: Array | None = None) -> Iterator[Squashed]:
    if function not in RANGES or value.ndim != 3 or not value.size:
        return
    rows = np.arange(value.shape[1]) if rows is None else rows
    alive = seen.live
    there = np.ones(value.shape[:2], bool) if alive is None else alive[:, rows]
    exists = np.broadcast_to(there[:, :, None], value.shape)
    if isinstance(seen.cell, Clockwork):
        t = seen.look.record.first_step + np.arange(len(value))
        exists = exists & seen.cell.active(t, value.shape[-1])[:, None, :]  # a unit whose clock stands still only keeps
    if not np.isfinite(np.where(exists, value, 0.0)).all():
        return
    if seen.direction == "backward":
        lengths = seen.look.record.lengths
        lengths = None if lengths is None else lengths[rows]
        value, exists = flip(value, lengths), flip(exists, lengths)
    yield Squashed(gate, function, value, exists, rows)
