"""A training history as the rules read it: series of numbers over updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.errors import DTypeError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class History:
    """Series by name, each (updates, values): values (n, ...) as the monitor recorded them, updates (n,) integers from 0.

    Names are the monitor's: "loss", "gradient_norm", "learning_rate", "was_clipped", "gradient/0.U", "clipped/0.U", "ratio/0.U",
    "adjoint/0" (n, T+1) as ln |dL/ds_t|, "saturated/0/f".
    """

    series: Mapping[str, tuple[Array, Array]]

    @classmethod
    def of(cls, monitor: Any) -> History:
        """From a `gradlab.training.Monitor`, or any object with `names` and `series(name)`; ensembles are refused."""
        names, read = getattr(monitor, "names", None), getattr(monitor, "series", None)
        if names is None or not callable(read):
            raise DTypeError(
                f"history is a {type(monitor).__name__}; expected a gradlab.training.Monitor, or the path of its file"
            )
        return cls({name: read(name) for name in names})

    def get(self, name: str) -> tuple[Array, Array] | None:
        """(updates, values) or None."""
        return self.series.get(name)

    def group(self, kind: str) -> dict[str, tuple[Array, Array]]:
        """Of all series "kind/...", what stands behind the kind: ratio -> {"0.U": (updates, values)}."""
        return {name.partition("/")[2]: value for name, value in self.series.items() if name.startswith(f"{kind}/")}

    def global_norm(self, kind: str) -> tuple[Array, Array] | None:
        """The joint norm of "gradient" or "clipped" over all parameters, (n,); None if there is none."""
        own = self.group(kind)
        if kind == "gradient" and "gradient_norm" in self.series and not own:
            return self.series["gradient_norm"]
        if not own:
            return None
        updates = next(iter(own.values()))[0]
        with np.errstate(all="ignore"):
            logs = np.log(np.stack([value for _, value in own.values()]))  # squares would under- or overflow
            top = logs.max(axis=0)
            safe = np.where(np.isfinite(top), top, 0.0)
            return updates, np.exp(safe) * np.sqrt(np.exp(2.0 * (logs - safe)).sum(axis=0))
