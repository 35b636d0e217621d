"""The criterion: a derivative passes only relative to the size of the terms that it sums.

With S the sum of the absolute values of the terms that add up to the exact value n, a value a passes if
|a - n| <= rtol * S. A gradient that is small because large terms cancel is judged fairly; one that is small
because it vanished is judged on its own scale. There is no absolute tolerance: with one, a checker passes
a zero for a gradient of 1e-11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_number
from gradlab.errors import GradientMismatch, ShapeError, ValueRangeError

Array = npt.NDArray[Any]

RTOL = 1e-9


def checked_rtol(rtol: float) -> float:
    """`rtol` if it is a tolerance: ValueRangeError unless 0 <= rtol <= 0.1, since at 1 a zero passes for anything."""
    if not 0.0 <= require_number("rtol", rtol) <= 0.1:
        raise ValueRangeError(f"rtol is {rtol}; expected a number from 0 to 0.1, such as 1e-9")
    return float(rtol)


@dataclass(frozen=True)
class Comparison:
    """One array of derivatives held against the oracle. `error`: largest |a - n|/S; `where`: its index."""

    name: str
    entries: int
    failed: int
    error: float
    where: tuple[int, ...]
    value: float
    oracle: float
    rtol: float

    @property
    def passed(self) -> bool:
        """True if every entry is within rtol * S."""
        return self.failed == 0

    def raise_for_failure(self) -> None:
        """Raise GradientMismatch with the worst entry, unless all passed."""
        if not self.passed:
            raise GradientMismatch(
                f"{self.name}: {self.failed} of {self.entries} entries differ; worst at {self.where}: backward {self.value:.9e}, "
                f"oracle {self.oracle:.9e}, error/S {self.error:.1e}; expected at most {self.rtol:.0e}"
            )


def compare(name: str, value: Array, oracle: Array, scale: Array, rtol: float = RTOL) -> Comparison:
    """Hold `value` against `oracle` with the scale S of each entry, all of one shape.

    An entry with S = 0 passes only if it is exactly 0. Non-finite numbers never pass.
    Error: ShapeError for unequal or empty arrays.
    """
    if value.shape != oracle.shape or scale.shape != oracle.shape or value.size == 0:
        raise ShapeError(f"{name}: value {value.shape}, oracle {oracle.shape}, scale {scale.shape}; expected equal, not empty")
    with np.errstate(all="ignore"):
        gap = np.abs(value - oracle)
        error = np.where(gap == 0.0, 0.0, gap / scale)
    judged = np.isfinite(value) & np.isfinite(oracle) & np.isfinite(scale) & (scale >= 0) & ~np.isnan(error)
    error = np.where(judged, error, np.inf)
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    return Comparison(
        name=name,
        entries=value.size,
        failed=int((error > rtol).sum()),
        error=float(error[worst]),
        where=tuple(int(i) for i in worst),
        value=float(np.real(value[worst])),
        oracle=float(np.real(oracle[worst])),
        rtol=rtol,
    )
