"""Rule: the gradient over time, from update to update, where a history is all there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding, Number, Place, Severity
from gradlab.diagnosis.rules_flow import DIGITS, EXPLODED
from gradlab.diagnosis.rules_memory import GONE, LOST

Array = npt.NDArray[Any]

SHORTEST = 3
"""Steps that a gradient must have gone back for its growth to be a growth over time."""
OFTEN = 0.5
"""Of the updates looked at: what is lost in fewer was lost for a while."""
LAST = 3
"""Updates at the end that tell a loss which came with training, and stayed."""


@dataclass(frozen=True)
class Course:
    """Of one layer, for each of n updates looked at: `gain`, ln of what the gradient is multiplied by from the last step to the
    state behind the first input, NaN where there is none, and `steps` between them.
    """

    layer: str
    updates: Array
    gain: Array
    steps: Array

    def beyond_sum(self) -> Array:
        """The gain above what a loss at every step adds up to without any growth: k + 1 equal gradients k steps back."""
        return np.asarray(self.gain - np.log(self.steps + 1.0))


def flow_history(evidence: Evidence) -> Iterator[Finding]:
    """Total gradients that grow, or are lost, on their way back, at the updates that a monitor looked at.

    Limits are those of `exploding` and `vanishing`, which see more and speak instead where a pass of the layer is at hand. A
    loss at every step hides a vanishing gradient here: nearer outputs have their own.
    """
    for course in courses_of(evidence):
        direction = course.layer.rpartition(".")[2]
        direction = direction if direction in ("forward", "backward") else ""
        grown = np.flatnonzero(course.beyond_sum() > EXPLODED.value)
        lost = course.gain < LOST.value
        if len(grown):
            worst, share = float(course.gain[grown].max()), len(grown) / len(course.updates)
            severity: Severity = "error" if worst > DIGITS.value and share > OFTEN else "warning"
            at, steps = int(course.updates[grown[0]]), int(course.steps[grown].max())
            told = f"the gradient grows by up to {worst:.3g} nats over {steps} steps, at {len(grown)} of the "
            told += f"{len(course.updates)} updates looked at, from update {at} on"
            numbers = {"gain": Number(worst, "nats", None, EXPLODED.value), "share": Number(share, "of the updates looked at")}
            yield Finding("exploding", severity, Place(course.layer, direction, update=at), told, numbers)
        if lost.mean() > OFTEN or (len(lost) >= LAST and lost[-LAST:].all()):
            typical = float(np.median(course.gain[lost]))
            at = int(course.updates[np.flatnonzero(lost)[0]])
            told = f"the gradient changes by {typical:.3g} nats over {int(course.steps[lost].max())} steps (median), at "
            told += f"{int(lost.sum())} of the {len(lost)} updates looked at, from update {at} on"
            numbers = {
                "gain": Number(typical, "nats", None, LOST.value),
                "share": Number(float(lost.mean()), "of the updates looked at"),
            }
            severity = "error" if typical < GONE.value else "warning"
            yield Finding("vanishing", severity, Place(course.layer, direction, update=at), told, numbers)


def flow_history_statistic(evidence: Evidence) -> dict[str, tuple[float, float]]:
    """{layer: (largest gain beyond a sum, median gain)}, nats."""
    return {one.layer: (float(one.beyond_sum().max()), float(np.median(one.gain))) for one in courses_of(evidence)}


def courses_of(evidence: Evidence) -> list[Course]:
    """Of each layer in the history that no pass shows."""
    if evidence.history is None:
        return []
    shown, found = {seen.name for seen in evidence.layers}, []
    for layer, (updates, logs) in evidence.history.group("adjoint").items():
        if layer in shown or np.ndim(logs) != 2 or len(logs) != len(updates) or np.asarray(logs).dtype.kind != "f":
            continue
        rows = [_row(row) for row in logs]
        keep = np.array([k for k, (gain, steps) in enumerate(rows) if not np.isnan(gain) and steps >= SHORTEST], int)
        if len(keep):
            gains, steps = (np.array([rows[k][i] for k in keep]) for i in (0, 1))
            found.append(Course(layer, np.asarray(updates)[keep], gains, steps))
    return found


def _row(logs: Array) -> tuple[float, float]:
    """(gain, steps) of ln |dL/ds_t|, t = 0..T: from the last step that has a gradient to the state behind the first input.

    NaN in front stands for steps that this update did not have, and the initial state stands in front of the first input.
    """
    there = np.flatnonzero(~np.isnan(logs))
    if len(there) < 2 or not (logs[there] > -np.inf).any():
        return float("nan"), 0.0
    end = int(there[logs[there] > -np.inf][-1])
    first = int(there[1])
    with np.errstate(all="ignore"):
        return float(logs[first] - logs[end]), float(end - first)
