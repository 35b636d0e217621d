"""Validation: each member keeps its best parameters, and stops when it is done or gets no better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_callable, require_count, require_number
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.training.state import State, pick

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Validation:
    """`measure(params) -> (*E,)`, smaller is better, after every `every` updates and after the last one.

    A member stops once its value is below `target`, or has not improved for `patience` runs.
    """

    measure: Callable[[dict[str, Array]], Array] | None
    every: int
    patience: int | None
    target: float | None

    def __post_init__(self) -> None:
        require_count("validate_every", self.every)
        if self.measure is not None:
            require_callable("validate", self.measure, "(params) -> values (*E,), smaller is better")
        if self.patience is not None:
            require_count("patience", self.patience)
        if self.target is not None:
            require_number("target", self.target)
        if self.measure is None and (self.patience is not None or self.target is not None):
            name, value = ("patience", self.patience) if self.patience is not None else ("target", self.target)
            raise ValueRangeError(f"{name} is {value} without validate; expected validate(params) -> values, or {name} None")

    def run(self, state: State, last: int) -> None:
        """Measure if it is time to, and write down who is best and who stops. NaN is never best.

        Errors: DTypeError, ShapeError unless `measure` gives one real number for each member.
        """
        if self.measure is None or (state.update % self.every and state.update != last):
            return
        members = state.training.shape
        given = self.measure({key: value.copy() for key, value in state.params.items()})
        value = np.asarray(given)
        if value.dtype.kind not in "iuf":
            raise DTypeError(f"validate(params) gave {given!r}; expected numbers of shape {members}")
        if value.shape != members:
            raise ShapeError(f"validate(params) gave shape {value.shape}; expected {members}, one value for each member")
        value = value.astype(np.float64)
        if state.best_value is None or state.waiting is None:
            state.best_value, state.waiting = np.full(members, np.inf), np.zeros(members, np.int64)
            state.best = {key: array.copy() for key, array in state.params.items()}
        better = state.training & (value < state.best_value)
        state.best = {key: pick(better, state.params[key], old) for key, old in state.best.items()}
        state.best_value = np.where(better, value, state.best_value)
        state.waiting = np.where(better, 0, state.waiting + state.training)
        state.validation.append((state.update, np.where(state.training, value, np.nan)))
        if self.target is not None:
            state.training = state.training & ~(value < self.target)
        if self.patience is not None:
            state.training = state.training & (state.waiting < self.patience)
