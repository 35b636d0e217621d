"""Rules about a training history: jumps of the loss. Sizes of the updates and gradients over time stand beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding, Number, Place, Severity
from gradlab.diagnosis.history import before_each
from gradlab.diagnosis.rules_flow_history import flow_history
from gradlab.diagnosis.rules_updates import update_ratio
from gradlab.training.jumps import jumps

Array = npt.NDArray[np.float64]

__all__ = ["flow_history", "jumps_of", "loss_jumps", "loss_jumps_statistic", "update_ratio"]

NOISE = Threshold(
    3.0,
    "robust standard deviations of ln L",
    "the loss of one sequence, chi-squared with one degree of freedom, lies above that in 0.3 % of all updates at most",
)
JUMPS = Threshold(
    1.5,
    "jumps per 100 updates",
    "315 runs that learn, with batches of 2 sequences, have 1.1 at most; calibrated: figures/diagnosis_accuracy",
)
LASTING = Threshold(
    0.5,
    "of the loss before the jump",
    "and 3 robust deviations of ln L, that the median of the next 5 losses lies higher: noise is gone after one update, a step "
    "over a cliff is not; calibrated: figures/diagnosis_accuracy",
)
GRAVE = Threshold(
    8.5,
    NOISE.unit,
    "315 runs that learn, with batches of 2 sequences, stay below 8.0; calibrated: figures/diagnosis_accuracy",
)
HUGE = Threshold(
    50.0,
    "times the loss before",
    "one in 500 000 losses of a single sequence, chi-squared with one degree of freedom, is so far above their median",
)
UNDONE = Threshold(0.1, "of what was learned", "a spike of a tiny loss, which undoes less, is no reason to change anything")

WINDOW = 20
"""Losses before a jump that it is compared with; as `gradlab.training.jumps`."""
AFTER = 5
"""Losses behind a jump that tell whether it stays; jumps no more rows apart are one."""
FEWEST = 20
"""Later updates that the rule needs."""


@dataclass(frozen=True)
class Jumps:
    """Jumps of a finite loss beyond the noise of single sequences. `rows`: where, in the series; `updates`: of training.

    `size`: rise over the median of the WINDOW losses before, relative to it; `deviations`: of ln L, in robust standard
    deviations (of L itself where losses are not all positive); `undone`: the rise as a share of what had been learned by then.
    `left`: as `size`, of the median of the AFTER losses behind it, and `stays`: whether that too is beyond the noise.
    Rows no more than AFTER apart are one jump: `begins`, the first of each; `per_100`: their number per 100 updates.
    """

    rows: npt.NDArray[np.intp]
    updates: npt.NDArray[np.int64]
    size: Array
    deviations: Array
    undone: Array
    left: Array
    stays: npt.NDArray[np.bool_]
    begins: npt.NDArray[np.bool_]
    per_100: float

    @property
    def count(self) -> int:
        """How many jumps there are."""
        return int(self.begins.sum())

    @property
    def worst(self) -> int:
        """Which of them is the largest."""
        return int(np.argmax(self.size))

    @property
    def onset(self) -> int:
        """The update at which the worst begins."""
        return int(self.updates[: self.worst + 1][self.begins[: self.worst + 1]][-1])

    @property
    def serious(self) -> bool:
        """More than the noise of small batches makes, in number, in size, or for longer than one update."""
        grave = ((self.deviations > GRAVE.value) | (self.size > HUGE.value)) & (self.undone > UNDONE.value)
        return self.per_100 > JUMPS.value or bool((grave | self.stays).any())


def loss_jumps(evidence: Evidence) -> Iterator[Finding]:
    """The loss jumps: how often, how far, and whether clipping caught it: the gradient was cut and the loss came back.

    A loss that is no number is another rule's.
    """
    found = jumps_of(evidence)
    if found is None or not len(found.rows):
        return
    k = found.worst
    numbers = {
        "jumps per 100 updates": Number(found.per_100, JUMPS.unit, threshold=JUMPS.value),
        "jumps": Number(float(found.count)),
        "largest": Number(1.0 + found.size[k], HUGE.unit, threshold=HUGE.value),
        "deviations": Number(found.deviations[k], GRAVE.unit, threshold=GRAVE.value),
        "after": Number(1.0 + found.left[k], HUGE.unit, threshold=1.0 + LASTING.value),
    }
    upto = "" if found.count == 1 else "up "
    told = [f"the loss jumps {_times(found.count)}, {upto}to {numbers['largest'].value:.3g} times what it was"]
    caught = _caught(evidence, found)
    if caught is not None:
        clipped, spike = caught
        numbers["clipped"] = Number(clipped, "of the jumps")
        numbers["gradient norm"] = Number(spike, "of its median before the largest jump")
        came_back = not found.stays.any()
        word = "clipping caught them" if clipped > 0.9 and came_back else "clipping did not catch them"
        told.append(f"{word}: {clipped:.0%} were clipped, the gradient was {spike:.3g} times its median")
    severity: Severity = "warning" if found.serious else "info"
    yield Finding("loss-jumps", severity, Place(update=found.onset), "; ".join(told), numbers)


def loss_jumps_statistic(evidence: Evidence) -> dict[str, float]:
    """{"per 100 updates", "deviations" of the largest that undoes more than UNDONE, "left" of the largest that stays}."""
    found = jumps_of(evidence)
    if found is None:
        return {"per 100 updates": float("nan"), "deviations": float("nan"), "left": float("nan")}
    undo, stay = found.deviations[found.undone > UNDONE.value], found.left[found.stays]
    return {
        "per 100 updates": found.per_100,
        "deviations": float(undo.max(initial=0.0)),
        "left": float(stay.max(initial=0.0)),
    }


def jumps_of(evidence: Evidence) -> Jumps | None:
    """The jumps of the loss; None without a history, or with one too short to tell."""
    series = None if evidence.history is None else evidence.history.numbers("loss")
    if series is None or len(series[1]) < WINDOW + FEWEST:
        return None
    updates, losses = series
    rows = np.flatnonzero(jumps(losses, WINDOW) & np.isfinite(losses))
    before = before_each(losses, WINDOW)[rows - WINDOW]  # (jumps, WINDOW)
    padded = np.append(losses, np.full(AFTER, np.nan))  # a jump at the very end has nothing behind it
    with np.errstate(all="ignore"):
        later = np.median(np.lib.stride_tricks.sliding_window_view(padded[1:], AFTER)[rows], axis=-1)
        deviations = _deviations(before, losses[rows])
        beyond = deviations > NOISE.value
        rows, before, later, deviations = rows[beyond], before[beyond], later[beyond], deviations[beyond]
        level = np.median(before, axis=-1)
        scale = np.abs(level) + np.finfo(float).tiny
        size, left, learned = (losses[rows] - level) / scale, (later - level) / scale, np.median(losses[:AFTER]) - level
        undone = np.where(learned > 0.0, size * scale / np.maximum(learned, np.finfo(float).tiny), np.inf)
        stays = (_deviations(before, later) > NOISE.value) & (left > LASTING.value)
    begins = np.diff(rows, prepend=-AFTER - 1) > AFTER
    per_100 = 100.0 * float(begins.sum()) / (len(losses) - WINDOW)
    return Jumps(rows, updates[rows], size, deviations, undone, left, stays, begins, per_100)


def _deviations(before: Array, now: Array) -> Array:
    """How far `now` (n,) lies above the median of `before` (n, WINDOW), in robust standard deviations, of the logarithms where
    all are positive: these have no long upper tail. 1e9 at most: a loss that stood still has no spread.
    """
    positive = (before > 0.0).all(axis=-1) & (now > 0.0)
    past = np.where(positive[:, None], np.log(np.abs(before)), before)
    middle = np.median(past, axis=-1)
    spread = 1.4826 * np.median(np.abs(past - middle[:, None]), axis=-1)
    rise = np.where(positive, np.log(np.abs(now)), now) - middle
    return np.asarray(np.minimum(rise / np.maximum(spread, 1e-9 * np.abs(rise)), 1e9))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _caught(evidence: Evidence, found: Jumps) -> tuple[float, float] | None:
    """Share of the jumps at which the gradient was clipped, and its norm at the largest over the median before; or None."""
    history = evidence.history
    clipped = None if history is None else history.numbers("was_clipped")
    norms = None if history is None else history.global_norm("gradient")
    if clipped is None or norms is None:
        return None
    at = np.isin(clipped[0], found.updates)
    k = np.flatnonzero(norms[0] == found.updates[found.worst])
    if not at.any() or not len(k) or k[0] == 0:
        return None
    usual = float(np.median(norms[1][max(0, k[0] - WINDOW) : k[0]]))
    with np.errstate(all="ignore"):
        return float(clipped[1][at].mean()), float(norms[1][k[0]] / np.float64(usual))
