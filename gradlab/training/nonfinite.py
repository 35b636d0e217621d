"""Where a member's numbers left the range of floats: the parameter, and the time step at which it was seen first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.network import Network
from gradlab.record import Record

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Event:
    """A member's loss, gradient or update was not finite.

    `update` from 0, `member` its index along the ensemble axes, `what` in words. `parameter`: the first whose gradient or new
    value is not finite, "" if none is. `step`: where a state was first, or an adjoint last in time, not finite; None if all are.
    `stopped`: it trains no more; else the update was skipped.
    """

    update: int
    member: tuple[int, ...]
    what: str
    parameter: str
    step: int | None
    stopped: bool

    def __str__(self) -> str:
        who = f", member {', '.join(map(str, self.member))}" if self.member else ""
        return f"update {self.update}{who}: {self.what}"


def event(
    net: Network,
    update: int,
    member: tuple[int, ...],
    members: tuple[int, ...],
    record: Record,
    gradients: Mapping[str, Array],
    after: Mapping[str, Array],
    stopped: bool,
) -> Event:
    """What happened to one member: from its record, its gradients, and the parameters that the update would have given."""

    def own(value: Array, axes: tuple[int, ...]) -> Array:
        return np.asarray(np.broadcast_to(value, members + axes)[member])

    where, step = "", None
    for name, layer in record.layers.items():
        for series in ("states", "adjoints"):
            value = getattr(layer, series)
            if value is None or step is not None:
                continue
            whole = np.moveaxis(np.broadcast_to(value, (value.shape[0], *members, *value.shape[-2:])), 0, -3)
            bad = np.flatnonzero(~np.isfinite(whole[member]).all(axis=(-2, -1)))
            if len(bad):
                step = int(bad[0] if series == "states" else bad[-1])
                way = f"state of layer {name} from t = {step} on" if series == "states" else ""
                where = way or f"adjoint of layer {name} from t = {step} down"
    loss = not np.isfinite(own(record.loss, ()))
    bad_gradients = [key for key, shape in net.shapes.items() if not np.isfinite(own(gradients[key], shape)).all()]
    bad_values = [key for key, shape in net.shapes.items() if not np.isfinite(own(after[key], shape)).all()]
    parts = [where] * bool(where) + ["the loss"] * loss + [f"the gradient of {key}" for key in bad_gradients[:1]]
    if parts:
        what = f"not finite: {', '.join(parts)}"
    elif bad_values:
        what = f"the update takes {bad_values[0]} out of the range of floats"
    else:
        what = "the norm of the gradient is beyond the range of floats"
    parameter = next(iter(bad_gradients or bad_values), "")
    return Event(update, member, what, parameter, step, stopped)
