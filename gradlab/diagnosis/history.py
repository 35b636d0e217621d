"""A training history as the rules read it: series of numbers over updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.errors import DTypeError, ShapeError

Array = npt.NDArray[Any]
Series = tuple[Array, Array]

AXES = dict.fromkeys(("loss", "gradient_norm", "learning_rate", "was_clipped", "gradient", "clipped", "ratio"), 1) | {
    "adjoint": 2
}
"""Axes of the monitor's own series for one network: updates, and steps of an adjoint."""


@dataclass(frozen=True)
class History:
    """Series by name, each (updates, values): values (n, ...) as the monitor recorded them, updates (n,) integers from 0.

    Names are the monitor's: "loss", "gradient_norm", "learning_rate", "was_clipped", "gradient/0.U", "clipped/0.U", "ratio/0.U",
    "adjoint/0" (n, T+1) as ln |dL/ds_t|, "saturated/0/f".
    """

    series: Mapping[str, Series]

    @classmethod
    def of(cls, monitor: Any) -> History:
        """From a `gradlab.training.Monitor`, or any object with `names` and `series(name)`.

        Errors: DTypeError for another object; ShapeError for the history of an ensemble: diagnose its members one by one.
        """
        names, read = getattr(monitor, "names", None), getattr(monitor, "series", None)
        if names is None or not callable(read):
            raise DTypeError(
                f"history is a {type(monitor).__name__}; expected a gradlab.training.Monitor, or the path of its file"
            )
        found = {name: read(name) for name in names}
        for name, (_, values) in found.items():
            axes = AXES.get(name.partition("/")[0])
            if axes is not None and values.ndim != axes:
                raise ShapeError(
                    f'history has "{name}" of shape {values.shape}, as of an ensemble; expected the history of one network; '
                    "record each member in a Monitor of its own"
                )
        return cls(found)

    def get(self, name: str) -> Series | None:
        """(updates, values) or None."""
        return self.series.get(name)

    def numbers(self, name: str) -> Series | None:
        """(updates, values) of a series of one number for each update, (n,) both; None if it is not there, or something else."""
        return _plain(self.series.get(name))

    def group(self, kind: str) -> dict[str, Series]:
        """Of all series "kind/...", what stands behind the kind: ratio -> {"0.U": (updates, values)}."""
        return {name.partition("/")[2]: value for name, value in self.series.items() if name.startswith(f"{kind}/")}

    def norms(self, kind: str) -> dict[str, Series]:
        """`group` of series of one number for each update: "gradient", "clipped", "ratio" by parameter."""
        plain = {name: _plain(value) for name, value in self.group(kind).items()}
        return {name: value for name, value in plain.items() if value is not None}

    def global_norm(self, kind: str) -> Series | None:
        """The joint norm of "gradient" or "clipped" over all parameters, (n,); None if there is none."""
        own = self.norms(kind)
        if not own:
            return self.numbers("gradient_norm") if kind == "gradient" else None
        updates, values = together(*own.values())
        with np.errstate(all="ignore"):
            logs = np.log(np.stack(values))  # squares would under- or overflow
            top = logs.max(axis=0)
            safe = np.where(np.isfinite(top), top, 0.0)
            return updates, np.exp(safe) * np.sqrt(np.exp(2.0 * (logs - safe)).sum(axis=0))


def layer_of(parameter: str) -> str:
    """The layer that a parameter belongs to, "0" of "0.U"; "" for the read-out, which is none."""
    layer = parameter.rpartition(".")[0]
    return "" if layer == "readout" else layer


def together(*series: Series) -> tuple[Array, list[Array]]:
    """The updates that all series have, and the values of each at them."""
    updates = series[0][0]
    for other, _ in series[1:]:
        updates = np.intersect1d(updates, other)
    return updates, [values[np.isin(own, updates)] for own, values in series]


def before_each(values: Array, window: int) -> Array:
    """(n - window, window): what stood in the `window` rows before each row from the one numbered `window` on; n > window."""
    return np.lib.stride_tricks.sliding_window_view(values, window)[:-1]


def _plain(series: Series | None) -> Series | None:
    if series is None:
        return None
    updates, values = (np.asarray(one) for one in series)
    if values.ndim != 1 or updates.shape != values.shape or not len(values) or values.dtype.kind not in "biuf":
        return None
    return updates, values.astype(float)
