"""The regulariser of Pascanu, Mikolov & Bengio (2013), which asks that errors keep their norm on the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_number, require_one_of
from gradlab.cells.base import outer_rows
from gradlab.cells.elman import Elman
from gradlab.errors import ValueRangeError
from gradlab.network import Network
from gradlab.record import Record

Array = npt.NDArray[Any]

SMALLEST = 1e-20
"""Steps whose squared norm of delta is below this do not count, as in the code released with the paper."""


@dataclass(frozen=True)
class NormPreserving:
    """Omega = mean over k and rows of (r_k - 1)^2 (`form` "A", eq. 9) or (r_k^2 - 1)^2 ("B", eq. 10 and the released code),
    r_k = |v_k|/|delta_{k+1}|, v_k = J_{k+1}^T delta_{k+1} = U^T (f'_{k+1} * delta_{k+1}).

    `weight` times its gradient is added to that of U BEFORE clipping. As in the paper only the immediate partial with respect to
    U counts: states, adjoints and f' are constants; with a = f'_{k+1} * delta_{k+1} and q = U^T a, form A gives
    2 (r - 1)/(|q| |delta|) a q^T and form B 4 (r^2 - 1)/|delta|^2 a q^T. The state is h, so that f' depends on U too; that
    share is left out. For Elman layers only: other cells have no single recurrent matrix; they are refused.
    """

    weight: float
    form: Literal["A", "B"] = "B"

    def __post_init__(self) -> None:
        if require_number("weight", self.weight) < 0.0:
            raise ValueRangeError(f"weight is {self.weight}; expected a number >= 0")
        require_one_of("form", self.form, ("A", "B"))

    def require(self, net: Network) -> None:
        """Error: ValueRangeError unless every layer of `net` is an Elman layer."""
        for layer in net.layers:
            if not isinstance(layer.cell, Elman):
                raise ValueRangeError(
                    f"regulariser is for Elman layers; layer {layer.name} is {layer.cell!r}; train it with clipping alone"
                )

    def __call__(self, net: Network, params: Mapping[str, Array], record: Record) -> tuple[Array, dict[str, Array]]:
        """(Omega (*E,), its gradient by parameter) from a record with states and adjoints; rows that have ended do not count."""
        total: Array = np.zeros(())
        gradients: dict[str, Array] = {}
        for layer in net.layers:
            U = params[f"{layer.name}.U"]
            one = record.layers[layer.name]
            delta = one.series("adjoints")[1:]
            a = _slopes(layer.cell, one.series("states")) * delta
            q = np.matmul(a, U)  # (T, *E, B, H): U^T a for each row
            size, back = (np.einsum("...i,...i->...", v, v) for v in (delta, q))
            counts = size > SMALLEST
            safe = np.where(counts, size, 1.0)
            r2 = back / safe
            if self.form == "A":
                r = np.sqrt(r2)
                omega = (r - 1.0) ** 2
                # 2 (r - 1)/(|q| |delta|) = 2 (r - 1)/(r |delta|^2); where q = 0 the direction is 0 too.
                factor = 2.0 * (r - 1.0) / (np.where(r > 0.0, r, 1.0) * safe)
            else:
                omega, factor = (r2 - 1.0) ** 2, 4.0 * (r2 - 1.0) / safe
            number = np.maximum(counts.sum(axis=(0, -1)), 1)  # (*E,)
            total = total + np.where(counts, omega, 0.0).sum(axis=(0, -1)) / number
            weighted = a * np.where(counts, factor, 0.0)[..., None]
            gradients[f"{layer.name}.U"] = outer_rows(weighted, q) / number[..., None, None].astype(q.real.dtype)
        return total, gradients


def _slopes(cell: Any, states: Array) -> Array:
    """Slopes f' at every step from the states: tanh' = 1 - h^2 and so on; (T, *E, B, H)."""
    h, name = states[1:], cell.activation.name
    if name == "tanh":
        return np.asarray((1.0 - h) * (1.0 + h))
    if name == "sigmoid":
        return np.asarray(h * (1.0 - h))
    if name == "relu":
        return (h > 0.0).astype(h.dtype)
    if name == "leaky_relu":
        return np.where(h > 0.0, 1.0, 0.01).astype(h.dtype)
    if name == "hard_tanh":
        return (np.abs(h) < 1.0).astype(h.dtype)
    return np.ones_like(h)
