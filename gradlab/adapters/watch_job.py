"""What is replayed at once: one call of a fused layer, or the calls of a cell that follow each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.adapters.replay import Steps, replay, replay_steps
from gradlab.adapters.watch_call import Call
from gradlab.record import Record

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Run:
    """A replay: its record, ({name: (ours, torch's)}) of what was emitted, and gradients under torch's names."""

    record: Record
    emitted: Mapping[str, tuple[Array, Array]]
    gradients: Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Job:
    """One call, or those of a cell in the order of time; they share the weights of the first."""

    calls: tuple[Call, ...]

    @property
    def first(self) -> Call:
        return self.calls[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The precision in which the module computes."""
        return self.first.x.dtype

    def run(self, keep: Sequence[str], provenance: Mapping[str, Any], dtype: npt.DTypeLike | None = None) -> Run:
        """Replay in `dtype`, by default the module's own."""
        wanted = self.dtype if dtype is None else dtype
        record, emitted = (self._steps if self.first.spec.single else self._sequence)(keep, provenance, wanted)
        return Run(record, emitted, self.first.spec.torch_gradients(record.gradients))

    def _sequence(
        self, keep: Sequence[str], provenance: Mapping[str, Any], dtype: npt.DTypeLike
    ) -> tuple[Record, dict[str, tuple[Array, Array]]]:
        call = self.first
        record = replay(call.replayable().astype(dtype), keep, provenance)
        H = call.spec.net.hidden_size
        last = np.stack([layer.series("states")[-1] for layer in record.layers.values()])
        emitted = {"outputs": (record.outputs, call.y), "h_n": (last[..., -H:], call.h_n)}
        if call.c_n is not None:
            emitted["c_n"] = (last[..., :H], call.c_n)
        return record, emitted

    def steps(self, dtype: npt.DTypeLike) -> Steps:
        """A cell's calls as steps: states before and after each, and what arrived there."""
        calls, spec = self.calls, self.first.spec

        def stacked(rows: Iterable[Array]) -> Array:
            return np.stack(list(rows)).astype(dtype, copy=False)

        after = [call.by_layer(call.h_n, call.c_n)["0"] for call in calls]
        zero = np.zeros_like(after[0])
        delta = [call.by_layer(call.arrived.get("h_n"), call.arrived.get("c_n")).get("0", zero) for call in calls]
        params = {key: value.astype(dtype, copy=False) for key, value in self.first.params.items()}
        return Steps(
            spec.net,
            params,
            stacked(call.x[0] for call in calls),
            stacked(call.initial.get("0", zero) for call in calls),
            stacked(after),
            stacked(delta),
            self.first.through_h,
        )

    def _steps(
        self, keep: Sequence[str], provenance: Mapping[str, Any], dtype: npt.DTypeLike
    ) -> tuple[Record, dict[str, tuple[Array, Array]]]:
        steps = self.steps(dtype)
        record, after = replay_steps(steps, keep, provenance)
        H = steps.net.hidden_size
        emitted = {"outputs": (after[..., -H:], steps.after[..., -H:])}
        if self.first.c_n is not None:
            emitted["c"] = (after[..., :H], steps.after[..., :H])
        return record, emitted


def jobs_of(calls: Sequence[Call]) -> list[Job]:
    """Calls in the order in which they were made; those of a cell are joined where one reads what the one before left."""
    found: list[list[Call]] = []
    ends: dict[int, list[Call]] = {}
    for call in calls:
        before = call.previous
        chain = None if before is None else ends.pop(id(before), None)
        if chain is None:
            chain = []
            found.append(chain)
        chain.append(call)
        ends[id(call)] = chain
    return [Job(tuple(chain)) for chain in found]


def divided(record: Record, scale: float) -> Record:
    """`record` of a loss that was multiplied by `scale`, with that taken out of all that is linear in the loss."""
    if scale == 1.0:
        return record

    def down(value: Array | None) -> Array | None:
        return None if value is None else np.asarray(value / np.asarray(scale, value.dtype))

    layers = {
        name: replace(layer, immediate=down(layer.immediate), adjoints=down(layer.adjoints))
        for name, layer in record.layers.items()
    }
    gradients = {key: np.asarray(down(value)) for key, value in record.gradients.items()}
    return replace(record, layers=layers, gradients=gradients, input_gradient=down(record.input_gradient))
