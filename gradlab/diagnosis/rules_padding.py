"""Rule: padding that is read as if it were data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence, Look, Seen
from gradlab.diagnosis.finding import Finding, Number, Place
from gradlab.diagnosis.gain import interval

Array = npt.NDArray[Any]

RARE = Threshold(1e-3, "probability", "of a run so long in any of the sequences, from how often the data repeat a step elsewhere")
SHORTEST = Threshold(3.0, "steps", "a symbol that occurs twice in a row at the end is none")
LONGER = Threshold(2.0, "times the longest such run elsewhere", "calibrated: indented program text, whose spaces come in runs")
MANY = Threshold(0.2, "of the sequences", "calibrated: figures/diagnosis_accuracy; of sorted batches still one sequence in five")
MOSTLY = Threshold(0.5, "of the sequence", "a shorter constant end, equal in all sequences, belongs to tasks such as copying")


def padding_counted(evidence: Evidence) -> Iterator[Finding]:
    """Sequences that end in one constant vector, unequally long, without lengths, while the loss reads those steps."""
    for look in evidence.looks:
        runs = None if look.assumed_inputs else _runs(look, [seen for seen in evidence.layers if seen.look is look])
        if runs is None:
            continue
        T, padded = len(look.record.inputs), runs[runs > 0]
        first = T - int(padded.max())
        share = Number(float(runs.mean() / T), "of the steps", interval(runs / T), 0.0)
        numbers = {"padding": share, "sequences": Number(float(len(padded)), f"of {len(runs)} sequences")}
        equal = len(padded) == len(runs) and len(np.unique(padded)) == 1
        text = f"{len(padded)} of {len(runs)} sequences end in one constant vector, {share.value:.0%} of all steps, the "
        text += f"earliest from step {first}; no lengths are given and the loss reads those steps"
        place = Place(look.name, timestep=first)
        yield Finding("padding-counted", "info" if equal else "warning", place, text, numbers)


def padding_counted_statistic(evidence: Evidence, look: Look) -> float:
    """The share of all steps that are padding which the loss reads."""
    runs = _runs(look, [seen for seen in evidence.layers if seen.look is look])
    return 0.0 if runs is None else float(runs.mean() / len(look.record.inputs))


def _runs(look: Look, layers: list[Seen]) -> Array | None:
    """(B,) how many steps at the end of each sequence are padding; None if there is none, or the loss does not read it."""
    x = look.record.inputs
    if look.record.lengths is not None or x.ndim != 3 or x.shape[1] < 2 or len(x) < SHORTEST.value or not x.size:
        return None
    same = (x[1:] == x[:-1]).all(axis=-1)  # (T-1, B): the step repeats the one before
    T, B = x.shape[:2]
    runs = 1 + np.where(same.all(axis=0), T - 1, np.argmin(same[::-1], axis=0))  # (B,) equal steps at the end
    ends, which = np.unique(x[-1][runs >= SHORTEST.value], axis=0, return_inverse=True)
    if not len(ends):
        return None
    pad = ends[np.argmax(np.bincount(which.ravel()))]
    is_pad = (x == pad).all(axis=-1)  # (T, B)
    runs = np.where(is_pad[-1], runs, 0)
    inside = np.arange(1, T)[:, None] <= T - 1 - np.maximum(runs, 1)  # pairs of steps in front of the end
    repeats = max(_rate(same, inside), _rate(same, inside & is_pad[:-1]))
    longest = max(SHORTEST.value, 1.0 + np.log(RARE.value / B) / np.log(repeats)) if repeats < 1.0 else np.inf
    longest = max(longest, LONGER.value * _longest(is_pad & (np.arange(T)[:, None] < T - runs)))
    runs = np.where(runs >= longest, runs, 0)
    if (runs > 0).mean() < MANY.value or (runs == T).all() or not _reads(look, layers, runs):
        return None
    equal = bool((runs == runs[0]).all())
    return None if equal and (runs[0] <= MOSTLY.value * T or _answers(look, runs)) else runs


def _longest(hits: Array) -> int:
    """The longest run of True along the first axis, in any row."""
    best, current = 0, np.zeros(hits.shape[1], int)
    for step in hits:
        current = (current + 1) * step
        best = max(best, int(current.max()))
    return best


def _rate(same: Array, where: Array) -> float:
    """How often a step repeats the one before; with few to count, rather more."""
    return float(((same & where).sum() + 0.5) / (where.sum() + 1.0)) if where.any() else 1e-3


def _reads(look: Look, layers: list[Seen], runs: Array) -> bool:
    """Whether the loss's own gradient enters the top level at a step of padding."""
    top = max((seen.level for seen in layers), default=0)
    T, B = len(look.record.inputs), len(runs)
    for seen in layers:
        own = seen.layer.immediate if seen.layer.immediate is not None else seen.layer.adjoints
        if seen.level != top or own is None or own.ndim != 3 or own.shape[:2] != (T + 1, B):
            continue
        entered = (own[1:] != 0.0).any(axis=-1)  # (T, B), in the layer's own order
        if seen.direction == "backward":
            entered = entered[::-1]
        if (entered & (np.arange(T)[:, None] >= T - runs)).any():
            return True
    return False


def _answers(look: Look, runs: Array) -> bool:
    """Whether targets at the constant end differ from each other: then something is asked there, as in copying."""
    targets = None if look.batch is None else look.batch.targets
    if look.loss is None or not isinstance(targets, np.ndarray) or targets.shape[:2] != look.record.inputs.shape[:2]:
        return False
    T = len(targets)
    ends = [targets[T - int(n) :, b] for b, n in enumerate(runs) if n]
    return any(bool((end[1:] != end[:-1]).any()) for end in ends)
