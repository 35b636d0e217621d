"""What `watch` gives for each call: the record, the network it belongs to, and the proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.adapters.replay import Replayable, passes_by_layer
from gradlab.adapters.watch_proof import Proof
from gradlab.errors import ValueRangeError
from gradlab.network import Network
from gradlab.record import Record

Array = npt.NDArray[Any]


@dataclass(frozen=True, repr=False)
class Watched:
    """One call of a recurrent module in one backward pass; of a cell, the calls that follow each other.

    `name`: the module's path in the model ("model" if it is the model itself). `update`: the number of the backward pass, from
    0. `call`: which call of this module it was since the backward pass before, from 0 (of a cell's sequence, its first).
    `record`: layers "0", "1", ... or "0.forward", ..., rows in the caller's order; `record.loss` is NaN, for only the loss's
    gradient at the outputs is known; its gradients are this call's own share. `net`, `params`: as they were.
    """

    name: str
    update: int
    call: int
    record: Record
    net: Network
    params: Mapping[str, Array]
    proof: Proof
    replayed: Replayable | None = field(default=None)

    def jacobians(self, layer: str = "0") -> Iterator[Array]:
        """J_1, ..., J_T of `layer`, (B, S, S) each, one in memory at a time; also where dropout masks stand between levels.

        Error: ValueRangeError if there is no such layer.
        """
        if layer not in self.record.layers:
            raise ValueRangeError(f"layer is {layer!r}; expected one of {', '.join(self.record.layers)}")
        if self.replayed is None:
            from gradlab.analysis import jacobians

            return jacobians(self.net, self.params, self.record, layer)
        run = passes_by_layer(self.replayed)[layer]
        return (run.window(k, k + 1).jacobians()[0] for k in range(len(run.t)))

    def __repr__(self) -> str:
        return f"Watched({self.name!r}, update {self.update}, call {self.call}: {self.proof.verdict})"

    def __str__(self) -> str:
        T, B = np.shape(self.record.inputs)[0], np.shape(self.record.inputs)[-2]
        layers = ", ".join(self.record.layers)
        head = f"{self.name} (update {self.update}, call {self.call}; {self.net.cell!r}, layers {layers}, T = {T}, B = {B}): "
        return head + str(self.proof)
