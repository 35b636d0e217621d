"""Rule of use: a layer, or a direction, that the loss does not see, and a layer that does not see its input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence, Look, Seen
from gradlab.diagnosis.finding import Finding, Number, Place, Severity
from gradlab.diagnosis.gain import times

Array = npt.NDArray[Any]

UNSEEN = Threshold(float(np.log(1e-4)), "nats", "calibrated: figures/diagnosis_accuracy (healthy layers 6e-3 and more)")
EARLY = Threshold(0.1, "of the steps", "a direction that is read only within its first tenth has seen next to nothing")


def unused_statistic(evidence: Evidence, seen: Seen) -> float:
    """Logarithm of the gradient that enters this layer over that of the level above, or of its sibling direction if that is
    smaller; NaN where there is neither, or where nothing was recorded.
    """
    above, sibling = _shares(evidence, seen)
    found = [one for one in (above, sibling) if not np.isnan(one)]
    return min(found, default=float("nan"))


def blindness_statistic(seen: Seen) -> float:
    """Logarithm of how much the states of a layer differ between sequences, over their size; NaN for a single sequence, or for
    inputs that are the same. -inf where they do not differ at all.
    """
    states, lengths = seen.layer.states, seen.look.record.lengths
    if states is None or states.ndim != 3 or states.shape[1] < 2 or not np.isfinite(states).all():
        return float("nan")
    few = seen.steps if lengths is None else int(lengths.min())
    inputs = seen.look.record.inputs[:few]
    if np.ptp(inputs, axis=-2).max(initial=0.0) == 0.0:
        return float("nan")
    later = states[1 : few + 1].astype(np.float64)
    if not later.any():
        return float("-inf")
    scaled = later / np.abs(later).max()
    with np.errstate(all="ignore"):
        return float(0.5 * np.log(np.square(scaled - scaled.mean(axis=1, keepdims=True)).sum() / np.square(scaled).sum()))


def unused(evidence: Evidence) -> Iterator[Finding]:
    """A layer or direction through which next to no gradient reaches the weights, or whose output is the same whatever it reads.

    Error where it is exactly nothing. A top layer has no level above: there only siblings are compared, and exact zeros found.
    """
    for seen in evidence.layers:
        above, sibling = _shares(evidence, seen)
        if sibling < UNSEEN.value and not above - sibling < UNSEEN.value:  # the sibling itself is seen
            yield _finding("unused-direction", seen, sibling, "of the gradient that enters the other direction enters this one")
        elif above < UNSEEN.value:
            yield _finding("unused-layer", seen, above, "of the gradient of the level above reaches this layer")
        elif _nothing_arrives(seen.look) and seen.level == _top(seen.look):
            yield _finding("unused-layer", seen, float("-inf"), "is the gradient that arrives at its outputs")
        elif (steps := _read_early(evidence, seen)) is not None:
            share = steps / seen.steps
            text = f"the loss reads this direction only after its first {steps} of {seen.steps} steps: use its final state"
            numbers = {"share": Number(share, "of the steps", None, EARLY.value)}
            yield Finding("unused-direction", "warning", Place(seen.name, seen.direction), text, numbers)
        spread = blindness_statistic(seen)
        if spread < UNSEEN.value:
            yield _finding("unused-layer", seen, spread, "of its states depends on which sequence it reads", "spread")


def _finding(code: str, seen: Seen, share: float, text: str, name: str = "share") -> Finding:
    severity: Severity = "error" if np.isneginf(share) else "warning"
    numbers = {name: Number(share, "nats", None, UNSEEN.value)}
    return Finding(code, severity, Place(seen.name, seen.direction), f"{times(share)} {text}", numbers)


def _shares(evidence: Evidence, seen: Seen) -> tuple[float, float]:
    """Logarithms of the immediate gradient over the adjoints of the level above, and over its sibling's."""
    own = _size(seen, "immediate")
    same = [one for one in evidence.layers if one.look is seen.look and one.level == seen.level and one is not seen]
    higher = [one for one in evidence.layers if one.look is seen.look and one.level == seen.level + 1]
    above = float(np.logaddexp.reduce([2.0 * _size(one, "adjoints") for one in higher])) / 2.0 if higher else float("nan")
    sibling = max((_size(one, "immediate") for one in same), default=float("nan"))
    with np.errstate(all="ignore"):
        return tuple(float("nan") if np.isneginf(one) else own - one for one in (above, sibling))  # type: ignore[return-value]


def _size(seen: Seen, name: str) -> float:
    """Logarithm of the norm over all steps and sequences; NaN if it is not there or not finite."""
    value: Array | None = getattr(seen.layer, name)
    if value is None or not np.isfinite(value).all():
        return float("nan")
    return float(log_norm(value.reshape(-1)))


def _top(look: Look) -> int:
    return max(int(key.partition(".")[0]) for key in look.record.layers)


def _nothing_arrives(look: Look) -> bool:
    """Exactly no gradient at any layer, while the read-out has one, or belongs to a framework's model that was watched."""
    known = [layer.adjoints for layer in look.record.layers.values()]
    if not known or any(one is None or one.any() or np.isnan(one).any() for one in known):
        return False
    readout = [value for key, value in look.record.gradients.items() if key.startswith("readout.")]
    return not readout or any(bool(value.any()) for value in readout)


def _read_early(evidence: Evidence, seen: Seen) -> int | None:
    """The last of its own steps at which a direction is read, if that is among its first and its sibling is read later."""
    if not seen.direction or seen.steps < 10:
        return None
    last = _last_read(seen)
    others = [_last_read(one) for one in evidence.layers if one.look is seen.look and one.level == seen.level and one is not seen]
    if last is None or not others or None in others:
        return None
    near = max(1, int(EARLY.value * seen.steps))
    return last if 0 < last <= near and min(one for one in others if one is not None) > near else None


def _last_read(seen: Seen) -> int | None:
    immediate = seen.layer.immediate
    if immediate is None or not np.isfinite(immediate).all():
        return None
    used = (immediate != 0.0).reshape(len(immediate), -1).any(axis=1)
    return int(np.flatnonzero(used)[-1]) if used.any() else None
