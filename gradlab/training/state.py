"""All that a training run carries from update to update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gradlab.training.nonfinite import Event
from gradlab.training.settings import Settings

Array = npt.NDArray[Any]

HISTORY = ("loss", "gradient_norm", "clipped")
MOST_EVENTS = 1000
"""Events that are kept: with skipping there may be one for every update. All are counted."""


@dataclass
class State:
    """`params` and the optimiser's `slots` by parameter, `counts` (*E,) of updates made, `training` (*E,) who still trains.

    `history`: (updates, *E) each, of which the first `update` rows are filled. `best`: the parameters that validation liked most
    so far, their values `best_value` (*E,), and for how many validations they have stood, `waiting`. `skipped` (*E,): how many
    updates were left out; `events`: the first of them.
    """

    update: int
    params: dict[str, Array]
    slots: dict[str, dict[str, Array]]
    counts: Array
    training: Array
    skipped: Array
    history: dict[str, Array]
    validation: list[tuple[int, Array]] = field(default_factory=list)
    best: dict[str, Array] = field(default_factory=dict)
    best_value: Array | None = None
    waiting: Array | None = None
    events: list[Event] = field(default_factory=list)

    @classmethod
    def start(cls, settings: Settings, params: dict[str, Array], updates: int) -> Self:
        """Before the first update: each member has its own copy of every parameter."""
        members, shapes = settings.members, settings.net.shapes
        own = {key: np.array(np.broadcast_to(params[key], members + shape)) for key, shape in shapes.items()}
        return cls(
            update=0,
            params=own,
            slots={key: {slot: np.zeros_like(value) for slot in settings.optimiser.slots} for key, value in own.items()},
            counts=np.zeros(members, np.int64),
            training=np.ones(members, bool),
            skipped=np.zeros(members, np.int64),
            history={name: np.full((updates, *members), np.nan) for name in HISTORY},
        )

    def note(self, happened: Event) -> None:
        """Count an event, and keep it if there is room."""
        self.skipped[happened.member] += 1
        if len(self.events) < MOST_EVENTS:
            self.events.append(happened)


def pick(which: Array, new: Array, old: Array) -> Array:
    """`new` for the members that `which` (*E,) names, `old` for the others."""
    return new if which.all() else np.where(which.reshape(which.shape + (1,) * (new.ndim - which.ndim)), new, old)
