"""What the rules look at: passes of recurrent layers, a training history, circumstances; what costs is computed on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.analysis.carried import CarriedGradient, carried_gradient
from gradlab.batch import Batch
from gradlab.cells.base import Cell
from gradlab.diagnosis.circumstances import Circumstances
from gradlab.diagnosis.history import History
from gradlab.directions import live
from gradlab.forward_pass import LayerPass, forward
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.record import LayerRecord, Record

Array = npt.NDArray[Any]

ROWS = 16
"""Sequences that are looked at where every step of every sequence would cost too much; evenly spread over the batch."""


@dataclass(frozen=True, eq=False)
class Look:
    """One pass of one recurrent network. `name`: "" or the path of the module it stands for.

    `net`, `params`: None if the record is all there is. `passes`: a LayerPass by layer, None to run `net` again when needed.
    `batch`, `loss`: with them the loss can be evaluated elsewhere (curvature, truncation); None for a framework's layer.
    `ill_conditioned`: what the proof of a replay says if rounding errors grow too far.
    `assumed_inputs`, `assumed_loss`: noise was read, and a unit gradient carried from the last step, for want of the user's own.
    """

    record: Record
    name: str = ""
    net: Network | None = None
    params: Mapping[str, Array] | None = None
    passes: Mapping[str, LayerPass] | None = None
    batch: Batch | None = None
    loss: Loss | None = None
    assumed_inputs: bool = False
    assumed_loss: bool = False
    ill_conditioned: str = ""

    @cached_property
    def runs(self) -> Mapping[str, LayerPass]:
        """The forward pass of each layer, on at most ROWS of the sequences; empty without a network."""
        if self.passes is not None:
            return self.passes
        if self.net is None or self.params is None:
            return {}
        record, rows = self.record, self.rows
        initial = {name: layer.states[0][..., rows, :] for name, layer in record.layers.items() if layer.states is not None}
        lengths = None if record.lengths is None else record.lengths[rows]
        with np.errstate(all="ignore"):
            return forward(
                self.net, self.params, record.inputs[..., rows, :], initial, lengths=lengths, first_step=record.first_step
            ).runs

    @cached_property
    def rows(self) -> Array:
        """Which sequences `runs` has."""
        B = self.record.inputs.shape[-2]
        return np.unique(np.linspace(0, B - 1, min(B, ROWS)).astype(int))


@dataclass(frozen=True, eq=False)
class Seen:
    """One layer in one direction, in one pass. `name`: with the module's path in front."""

    look: Look
    key: str
    level: int
    direction: str

    @property
    def name(self) -> str:
        return f"{self.look.name}.{self.key}" if self.look.name else self.key

    @property
    def layer(self) -> LayerRecord:
        return self.look.record.layers[self.key]

    @property
    def run(self) -> LayerPass | None:
        """The forward pass, on at most ROWS sequences."""
        return self.look.runs.get(self.key)

    @property
    def cell(self) -> Cell | None:
        for layer in self.look.net.layers if self.look.net else ():
            if layer.name == self.key:
                return layer.cell
        return None

    @property
    def steps(self) -> int:
        """T."""
        return len(self.look.record.inputs)

    @property
    def live(self) -> Array | None:
        """(T, B) the steps that exist, in the layer's own order; None if all do."""
        return live(self.steps, self.look.record.lengths)

    def position(self, t: int, length: int | None = None) -> int:
        """The input (from 0, as the data count) that this layer reads at its own step t = 1..T, in a row of `length` steps."""
        return (length or self.steps) - t if self.direction == "backward" else t - 1


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything the rules see."""

    looks: tuple[Look, ...] = ()
    history: History | None = None
    circumstances: Circumstances = field(default_factory=Circumstances)
    seed: int = 0

    @cached_property
    def layers(self) -> tuple[Seen, ...]:
        """All layers of all looks, from the bottom up."""
        found = []
        for look in self.looks:
            for key in look.record.layers:
                level, _, direction = key.partition(".")
                found.append(Seen(look, key, int(level), direction))
        return tuple(found)

    @cached_property
    def _carried(self) -> dict[int, CarriedGradient]:
        return {}

    def carried(self, seen: Seen) -> CarriedGradient | None:
        """What a unit gradient at each row's end becomes on its way back; None without a network or with non-finite states."""
        at = self.layers.index(seen)
        if at not in self._carried:
            run = seen.run
            if run is None or run.states.ndim != 3 or not np.isfinite(run.states).all():
                return None
            rng = np.random.default_rng([self.seed, at])
            few = 4 if run.states.shape[1] >= 4 else 8
            self._carried[at] = carried_gradient(run, rng=rng, directions=few)
        return self._carried[at]
