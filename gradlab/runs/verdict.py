"""What an analysis is, and what it may conclude."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """A module of `analyses/`: one claim, one computation, one figure. This is what all of them have.

    `PARAMETERS[scale]` holds all settings. `NEEDS` names optional libraries. `ALONE`: run last and with all threads, and
    exempt from reproducibility (timings). Optional: `MINUTES`, roughly what the full run takes; the longest start first.

    It computes either in one piece (`Whole`: one function, `compute`) or in independent tasks (`Split`), which are stored one
    by one as they finish, so that a killed run loses little, and which run side by side.
    """

    CLAIM: str
    SOURCE: str
    CONTRADICTED_IF: str
    PARAMETERS: Mapping[str, Mapping[str, Any]]
    NEEDS: tuple[str, ...]
    ALONE: bool

    def check(self, result: Mapping[str, Array]) -> Verdict:
        """What the arrays say about the claim."""
        ...

    def draw(self, result: Mapping[str, Array]) -> Any:
        """A matplotlib Figure of the arrays."""
        ...


class Whole(Analysis, Protocol):
    """An analysis in one piece."""

    def compute(self, rng: np.random.Generator, scale: Scale, progress: Progress | None = None) -> dict[str, Array]:
        """All that costs time: plain arrays. It reads no settings but `PARAMETERS[scale]`."""
        ...


class Split(Analysis, Protocol):
    """An analysis in tasks that do not need each other.

    The generator of a task follows from the seed, the analysis and the task's parameters: not from its place in the list, nor
    from who runs it. With `COMMON_RANDOM_NUMBERS = True` every task gets the generator of the whole analysis instead, from its
    beginning: then all draw the same, as where one condition is compared with another on the same networks and data.
    """

    def tasks(self, scale: Scale) -> Sequence[Mapping[str, Any]]:
        """The parameters of every task, such as {"length": 100, "updates": 3000}: what JSON has a form for, no two alike."""
        ...

    def run_task(
        self, rng: np.random.Generator, parameters: Mapping[str, Any], progress: Progress | None = None
    ) -> dict[str, Array]:
        """One task: plain arrays. It reads no settings but `parameters`, as JSON gives them back (tuples come as lists)."""
        ...

    def collect(self, results: Sequence[Mapping[str, Array]], scale: Scale) -> dict[str, Array]:
        """The arrays of the analysis out of those of its tasks, in the order of `tasks`; it takes no time."""
        ...
