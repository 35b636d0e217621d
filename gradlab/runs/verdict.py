"""What an analysis is, and what it may conclude."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from gradlab.errors import ValueRangeError

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
Scale = Literal["full", "quick"]

WORDS = {
    "confirmed": "the precise statement holds under the declared settings",
    "contradicted": "it fails under the declared settings",
    "depends": "the outcome changes with a declared setting, which the verdict names",
    "inconclusive": "the spread over the seeds is larger than the effect",
    "not testable": "no run decides it",
}
"""The words of a verdict. An honest "contradicted" is a result, not a failure."""


@dataclass(frozen=True)
class GroundTruth:
    """A number that somebody else derived: `measured` must lie within `tolerance` (relative) of `expected`."""

    name: str
    measured: float
    expected: float
    tolerance: float
    source: str

    @property
    def holds(self) -> bool:
        """True if the measured value is within the tolerance; never if one of the two is not finite."""
        return bool(
            np.isfinite(self.measured)
            and np.isfinite(self.expected)
            and abs(self.measured - self.expected) <= self.tolerance * abs(self.expected)
        )


@dataclass(frozen=True)
class Verdict:
    """`word` out of WORDS, one `sentence` with the numbers first, the `numbers` by name, and the ground truths behind them."""

    word: str
    sentence: str
    numbers: Mapping[str, float | int | str]
    ground_truths: tuple[GroundTruth, ...] = ()

    def __post_init__(self) -> None:
        if self.word not in WORDS:
            raise ValueRangeError(f"word is {self.word!r}; expected one of {', '.join(WORDS)}")

    @property
    def broken(self) -> tuple[GroundTruth, ...]:
        """The ground truths that do not hold: then no verdict can be trusted."""
        return tuple(truth for truth in self.ground_truths if not truth.holds)


class Analysis(Protocol):
    """A module of `analyses/`: one claim, one computation, one figure.

    `PARAMETERS[scale]` holds all settings; `compute` reads no others. `NEEDS` names optional libraries.
    `ALONE`: run last and with all threads, and exempt from reproducibility (timings).
    """

    CLAIM: str
    SOURCE: str
    CONTRADICTED_IF: str
    PARAMETERS: Mapping[str, Mapping[str, Any]]
    NEEDS: tuple[str, ...]
    ALONE: bool

    def compute(self, rng: np.random.Generator, scale: Scale, progress: Progress | None = None) -> dict[str, Array]:
        """All that costs time: plain arrays."""
        ...

    def check(self, result: Mapping[str, Array]) -> Verdict:
        """What the arrays say about the claim."""
        ...

    def draw(self, result: Mapping[str, Array]) -> Any:
        """A matplotlib Figure of the arrays."""
        ...
