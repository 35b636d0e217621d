"""What a training run gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.status import OK, Status
from gradlab.training.nonfinite import Event
from gradlab.training.state import State

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Training:
    """What a run gave. Histories have a row an update, (updates, *E); NaN where a member had stopped.

    `params`: after the last update, or, with validation, the best validated ones of each member. `loss`; `gradient_norm` before
    clipping; `clipped`: who was. `updates`: how many were made. `validation`: the updates after which it ran, and its values
    (runs, *E). `events`: losses, gradients and updates that were not finite, the first 1000; `skipped` (*E,): how many each
    member had.
    `path`: parameters before the first update and after each, if asked for.
    `status`: `overflow` with the first event if a member stopped for that reason.
    """

    params: dict[str, Array]
    loss: Array
    gradient_norm: Array
    clipped: Array
    updates: int
    validation: tuple[Array, Array]
    events: tuple[Event, ...]
    skipped: Array
    status: Status = OK
    path: dict[str, Array] = field(default_factory=dict)


def result_of(state: State, path: list[dict[str, Array]]) -> Training:
    """The result of a run in its last state."""
    rows = {name: values[: state.update].copy() for name, values in state.history.items()}
    stopped = [happened for happened in state.events if happened.stopped]
    status = OK
    if stopped:
        advice = "try a smaller learning_rate or clip=ByNorm(1.0)"
        status = Status("overflow", f"{stopped[0]}; {len(stopped)} stopped; {advice}")
    empty = np.zeros((0, *state.counts.shape))
    values = np.stack([value for _, value in state.validation]) if state.validation else empty
    return Training(
        params=dict(state.best) if state.best else dict(state.params),
        loss=rows["loss"],
        gradient_norm=rows["gradient_norm"],
        clipped=rows["clipped"],
        updates=state.update,
        validation=(np.array([update for update, _ in state.validation], np.int64), values),
        events=tuple(state.events),
        skipped=state.skipped.copy(),
        status=status,
        path={key: np.stack([one[key] for one in path]) for key in state.params} if path else {},
    )
