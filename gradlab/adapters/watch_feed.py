"""From what `watch` saw to a monitor: rows of the same names and sizes in every update, as a bounded history needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab.adapters.watch_result import Watched
from gradlab.record import LayerRecord

Array = npt.NDArray[Any]


class Feed:
    """Calls `monitor.record(update, gradients=..., params=..., adjoint_norms=..., **shares)` for each update looked at.

    Names are "lstm.0.W", "lstm.0"; of a module called several times the gradients are summed and the longest call is shown.
    `adjoint_norms`: the norm of dL/ds_t, root mean square over the rows, (steps,), counted from the end: where later
    updates have fewer steps than the first, NaN stands in front; where more, the earliest are left out. `shares`:
    "saturated/lstm.0/i", the share of gate values within 0.1 of a bound.
    The first update fixes the names; what a later one lacks is NaN, what it has more is left out.
    """

    def __init__(self, monitor: Any) -> None:
        self.monitor = monitor
        self._form: dict[str, dict[str, tuple[int, ...]]] = {}

    def __call__(self, update: int, watched: Sequence[Watched]) -> None:
        rows: dict[str, dict[str, Array]] = {"gradients": {}, "params": {}, "adjoint_norms": {}, "shares": {}}
        for one in sorted(watched, key=lambda one: len(one.record.inputs)):
            for key, value in one.record.gradients.items():
                known = rows["gradients"].get(f"{one.name}.{key}")
                rows["gradients"][f"{one.name}.{key}"] = value if known is None else known + value
            rows["params"] |= {f"{one.name}.{key}": value for key, value in one.params.items()}
            for name, layer in one.record.layers.items():
                rows["adjoint_norms"][f"{one.name}.{name}"] = _mean_square(layer)
                rows["shares"] |= {
                    f"saturated/{one.name}.{name}/{gate}": _saturated(value) for gate, value in layer.gates.items()
                }
        if not self._form:
            self._form = {kind: {key: np.shape(value) for key, value in row.items()} for kind, row in rows.items()}
        form = {kind: {key: _fitted(rows[kind].get(key), own) for key, own in row.items()} for kind, row in self._form.items()}
        shares = form.pop("shares")
        self.monitor.record(update, **form, **shares)


def _mean_square(layer: LayerRecord) -> Array:
    """The root mean square over the rows of |dL/ds_t|, (T+1,); squares neither under- nor overflow."""
    logs = log_norm(layer.series("adjoints"))  # (T+1, B)
    with np.errstate(all="ignore"):
        top = logs.max(axis=-1, keepdims=True)
        safe = np.where(np.isfinite(top), top, 0.0)
        return np.asarray(np.exp(safe[:, 0]) * np.sqrt(np.exp(2.0 * (logs - safe)).mean(axis=-1)))


def _saturated(gate: Array) -> Array:
    low = 0.1 if gate.min() >= 0.0 else -0.9  # a logistic gate, or a tanh
    return np.asarray(((gate <= low) | (gate >= 0.9)).mean())


def _fitted(value: Array | None, shape: tuple[int, ...]) -> Array:
    if value is not None and np.shape(value) == shape:
        return value
    found = np.full(shape, np.nan)
    if value is not None and len(shape) == 1 and value.ndim == 1:
        shared = min(len(value), len(found))
        found[len(found) - shared :] = value[len(value) - shared :]
    return found
