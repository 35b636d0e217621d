"""A history that never grows beyond its bounds: when it is full every second row goes, and from then on every second comes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.errors import ShapeError, ValueRangeError

Array = npt.NDArray[Any]

FEWEST = 4


class Rows:
    """At most `capacity` rows and about `max_bytes` bytes, each row some named arrays at one update.

    All rows have the same names and shapes. `gap`: how far apart rows must be to be kept; 0 at the start keeps all. What is kept
    depends on the updates alone, so that a run taken up again from a checkpoint keeps what an undisturbed one keeps.
    """

    def __init__(self, capacity: int, max_bytes: int) -> None:
        self.capacity, self.max_bytes, self.gap = capacity, max_bytes, 0.0
        self.size = 0
        self._updates: Array = np.zeros(0, np.int64)
        self._values: dict[str, Array] = {}

    @property
    def names(self) -> list[str]:
        return list(self._values)

    @property
    def updates(self) -> Array:
        """(n,) the updates of the rows."""
        return self._updates[: self.size].copy()

    def values(self, name: str) -> Array:
        """(n, ...) of one name; a copy."""
        return self._values[name][: self.size].copy()

    @property
    def last(self) -> int | None:
        """The update of the last row."""
        return int(self._updates[self.size - 1]) if self.size else None

    def forget_from(self, update: int) -> None:
        """Drop the rows of `update` and later."""
        self.size = int(np.searchsorted(self._updates[: self.size], update))
        if not self.size:
            self.gap, self._values, self._updates = 0.0, {}, np.zeros(0, np.int64)

    def wants(self, update: int) -> bool:
        """Whether a row of `update` would be kept."""
        last = self.last
        return last is None or update >= last + self.gap

    def add(self, update: int, row: Mapping[str, Array]) -> None:
        """Keep a row. Error: ShapeError unless its names and shapes are those of the rows before."""
        if not self.size:
            self._reserve(row)
        changed = sorted(set(row) ^ set(self._values))
        changed += [name for name in row if not changed and np.shape(row[name]) != self._values[name].shape[1:]]
        if changed:
            raise ShapeError(f"update {update}: {', '.join(changed)} differ from the updates before; record the same each time")
        self._updates[self.size] = update
        for name, value in row.items():
            self._values[name][self.size] = value
        self.size += 1
        if self.size >= len(self._updates):
            self._thin()

    def fill(self, updates: Array, values: Mapping[str, Array], gap: float) -> None:
        """Take over rows from a file. Error: ValueRangeError unless updates rise and each name has a row for each of them."""
        if (
            updates.ndim != 1
            or updates.dtype.kind not in "iu"
            or (np.diff(updates) <= 0).any()
            or not math.isfinite(gap)
            or gap < 0
        ):
            raise ValueRangeError(f"updates are {updates!r} with gap {gap}; expected rising integers, and a gap >= 0")
        if any(value.ndim < 1 or len(value) != len(updates) for value in values.values()):
            raise ValueRangeError(f"rows are {[len(v) for v in values.values() if v.ndim]}; expected {len(updates)} of each")
        if not len(updates):
            return
        self._reserve({name: value[0] for name, value in values.items()}, len(updates) + 1)
        self.size, self.gap = len(updates), gap
        self._updates[: self.size] = updates
        for name, value in values.items():
            self._values[name][: self.size] = value

    def _reserve(self, row: Mapping[str, Array], atleast: int = FEWEST) -> None:
        """Memory for all rows at once; the system gives it page by page as they are filled."""
        each = 8 * (1 + sum(np.size(value) for value in row.values()))
        room = max(atleast, min(self.capacity, self.max_bytes // each))
        self._updates = np.empty(room, np.int64)
        self._values = {name: np.empty((room, *np.shape(value))) for name, value in row.items()}

    def _thin(self) -> None:
        kept = (self.size + 1) // 2
        for memory in (self._updates, *self._values.values()):
            memory[:kept] = memory[: self.size : 2].copy()
        self.size = kept
        self.gap = float(self._updates[kept - 1] - self._updates[0]) / (kept - 1)
