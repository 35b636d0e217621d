"""What a training run is asked to do, checked once, and its fingerprint for checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_callable, require_count, require_number, require_one_of, require_positive
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.training.clipping import Clip
from gradlab.training.optimisers import SGD, Optimiser
from gradlab.training.regulariser import NormPreserving
from gradlab.training.schedules import Schedule, constant

Array = npt.NDArray[Any]

PROBED = (0, 1, 10, 100, 1000, 10_000)
"""Updates at which the schedule is part of the fingerprint: a function has no name that could be compared."""


@dataclass(frozen=True)
class Settings:
    """How every update is made. `members`: the ensemble axes *E; `rates` (*E,)."""

    net: Network
    members: tuple[int, ...]
    loss: Loss
    optimiser: Optimiser
    rates: Array
    schedule: Schedule
    clip: Clip | None
    regulariser: NormPreserving | None
    truncate: tuple[int, int] | None
    nonfinite: str
    initial_states: Mapping[str, Array] | None
    threads: int = 1

    def rates_at(self, update: int) -> Array:
        """The learning rates (*E,) of one update. Error: ValueRangeError if the schedule gives no factor >= 0."""
        factor = require_number(f"schedule({update})", self.schedule(update), "a finite factor >= 0")
        if factor < 0.0:
            raise ValueRangeError(f"schedule({update}) is {factor}; expected a finite factor >= 0")
        return self.rates * factor

    def fingerprint(self) -> dict[str, str]:
        """What a checkpoint must agree with."""
        states = "none"
        if self.initial_states:
            hashed = hashlib.sha256()
            for name, value in sorted(self.initial_states.items()):
                hashed.update(f"{name}{value.shape}{value.dtype}".encode() + np.ascontiguousarray(value).tobytes())
            states = hashed.hexdigest()
        with np.printoptions(precision=17, threshold=10**9):
            return {
                "network": repr(self.net),
                "loss": getattr(self.loss, "__qualname__", type(self.loss).__qualname__),
                "optimiser": repr(self.optimiser),
                "learning_rate": repr(self.rates.tolist()),
                "schedule": repr([float(self.schedule(update)) for update in PROBED]),
                "clip": repr(self.clip),
                "regulariser": repr(self.regulariser),
                "truncate": repr(self.truncate),
                "nonfinite": self.nonfinite,
                "initial_states": states,
            }


def checked_settings(
    net: Network,
    members: tuple[int, ...],
    loss: Any,
    optimiser: Any,
    learning_rate: Any,
    schedule: Any,
    clip: Any,
    regulariser: Any,
    truncate: Any,
    nonfinite: Any,
    initial_states: Any,
) -> Settings:
    """The settings, each checked. Errors: DTypeError, ValueRangeError, ShapeError naming the argument."""
    require_callable("loss", loss, "loss(outputs, targets, mask), such as gradlab.mean_squared_error")
    require_one_of("nonfinite", nonfinite, ("stop", "skip"))
    if optimiser is not None and (isinstance(optimiser, type) or not hasattr(optimiser, "change")):
        raise DTypeError(f"optimiser is {optimiser!r}; expected SGD(), RMSProp() or Adam() of gradlab.training")
    if clip is not None and (isinstance(clip, type) or not callable(clip)):
        raise DTypeError(f"clip is {clip!r}; expected ByNorm(1.0), ByLayer(1.0) or ByValue(1.0) of gradlab.training")
    if schedule is not None:
        require_callable("schedule", schedule, "update -> factor, such as gradlab.training.schedules.cosine(1000)")
    if regulariser is not None:
        if not isinstance(regulariser, NormPreserving):
            raise DTypeError(f"regulariser is {regulariser!r}; expected gradlab.training.NormPreserving(weight)")
        regulariser.require(net)
    if truncate is not None:
        truncate = _reach(truncate, net, regulariser)
    return Settings(
        net,
        members,
        loss,
        SGD() if optimiser is None else optimiser,
        _rates(learning_rate, members),
        constant() if schedule is None else schedule,
        clip,
        regulariser,
        truncate,
        nonfinite,
        initial_states,
    )


def _reach(truncate: Any, net: Network, regulariser: Any) -> tuple[int, int]:
    """(k1, k2) of truncated backpropagation."""
    if not isinstance(truncate, (tuple, list)) or len(truncate) != 2:
        raise DTypeError(f"truncate is {truncate!r}; expected a pair (k1, k2), such as (5, 20)")
    k1, k2 = (require_count(f"truncate[{k}]", value) for k, value in enumerate(truncate))
    if k2 < k1:
        raise ValueRangeError(f"truncate is ({k1}, {k2}); expected k2 >= k1, or the loss of some steps would reach nothing")
    if regulariser is not None:
        raise ValueRangeError("truncate is given with a regulariser, which needs the whole sweep; expected one of the two")
    if net.bidirectional:
        raise ValueRangeError(f"truncate is ({k1}, {k2}) for a bidirectional net; expected None: its past has no end to cut off")
    return k1, k2


def _rates(learning_rate: Any, members: tuple[int, ...]) -> Array:
    """One learning rate for each member, checked."""
    if not isinstance(learning_rate, np.ndarray):
        return np.full(members, require_positive("learning_rate", learning_rate))
    if learning_rate.shape != members:
        raise ShapeError(f"learning_rate has shape {learning_rate.shape}; expected the ensemble axes {members}, or one number")
    for value in learning_rate.flat:
        require_positive("learning_rate", value)
    return learning_rate.astype(np.float64)
