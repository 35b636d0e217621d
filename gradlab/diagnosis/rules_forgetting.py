"""Rule: gates that keep too little."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence, Seen
from gradlab.diagnosis.finding import Finding, Number, Place, Severity
from gradlab.diagnosis.gain import gain_of, interval, median, rates, reads_the_end
from gradlab.errors import GradlabError

Array = npt.NDArray[Any]

LOST = Threshold(
    float(-np.log(np.finfo(np.float32).eps)),
    "nats",
    "2^-23, the spacing of float32: what the gate lets through from so far back is lost beside the last steps",
)
MISSED = Threshold(
    float(np.log(100.0)),
    "nats",
    "1 % of the gradient is left; if more is, other paths than the gate's carry it, and nothing is amiss",
)
EXPLAINS = Threshold(0.5, "of the decay", "less than half of what the gradient loses is not the gate's doing")
SHORTEST = 4
"""Steps below which no rate is fitted."""


def forget_closed(evidence: Evidence) -> Iterator[Finding]:
    """Gates that keep (f of an LSTM, z of a GRU) so small that even the unit that remembers longest forgets long before the
    sequence, or the dependency, is over (Gers, Schmidhuber & Cummins 2000); only where that explains how the gradient decays.

    An info where nothing says that so much has to be remembered: no dependency is known, and the loss reads many steps, or the
    length of the sequence was assumed (unless no unit remembers for a single step); or if the gradient's decay is not known.
    """
    told = evidence.circumstances.dependency
    for seen in evidence.layers:
        found = _memory(evidence, seen)
        if found is None or not (found.explains and found.lost > LOST.value):
            continue
        tau = 1.0 / np.maximum(found.rates, 1e-300)
        numbers = {
            "loss through the gate": Number(found.lost, "nats", interval(found.rates * found.asked), LOST.value),
            "time constant": Number(median(tau), "steps", interval(tau)),
            "steps to bridge": Number(median(found.asked), "steps"),
        }
        text = f"the unit that remembers longest forgets in {median(tau):.3g} steps, and "
        text += f"{'the dependency is' if told is not None else 'a sequence has'} {median(found.asked):.0f}: "
        text += f"through the gate alone a gradient loses {found.lost:.3g} nats"
        severity: Severity = "warning"
        nobodys = seen.look.assumed_inputs and seen.look.record.lengths is None and median(tau) >= 1.0
        if found.decay is None or (told is None and (nobodys or not reads_the_end(seen.look))):
            severity = "info"
        if found.decay is not None:
            numbers["loss of the gradient"] = Number(found.decay * median(found.asked), "nats", None, MISSED.value)
        yield Finding("forget-closed", severity, Place(seen.name, seen.direction, found.gate), text, numbers)


def forget_closed_statistic(evidence: Evidence, seen: Seen) -> float:
    """Nats that the gate of the unit that remembers longest costs a gradient; 0 where something else explains its decay, NaN for
    a layer without such a gate.
    """
    found = _memory(evidence, seen)
    return float("nan") if found is None else found.lost if found.explains else 0.0


@dataclass(frozen=True, eq=False)
class _Memory:
    """`rates` (B,) nats per step through the gate of the unit that remembers longest; `asked` (B,) steps to bridge; `decay` of
    the gradient in fact, nats per step, None if it cannot be told.
    """

    gate: str
    rates: Array
    asked: Array
    decay: float | None

    @property
    def lost(self) -> float:
        return median(self.rates * self.asked)

    @property
    def explains(self) -> bool:
        """Whether the gradient decays, and not much faster than by the gate alone."""
        if self.decay is None:
            return True
        if not self.decay * median(self.asked) > MISSED.value:
            return False
        return median(self.rates) >= EXPLAINS.value * self.decay


def _memory(evidence: Evidence, seen: Seen) -> _Memory | None:
    gates, T = seen.layer.gates, seen.steps
    gate = next((name for name in ("f", "z") if name in gates), None)
    if gate is None or gates[gate].ndim != 3 or not gates[gate].size or len(gates[gate]) != T:
        return None
    kept, told, record = gates[gate], evidence.circumstances.dependency, seen.look.record
    lengths = np.full(kept.shape[1], T) if record.lengths is None else np.asarray(record.lengths)
    lags = lengths if told is None else np.minimum(lengths, told)
    steps = np.arange(T)[:, None]
    used = ((steps < lengths) & (steps >= lengths - lags))[:, :, None]  # the last `lags` steps of each row
    kept = np.where(used, kept, 1.0)
    rows = lags >= SHORTEST
    if not rows.any() or not ((kept >= 0.0) & (kept <= 1.0)).all():
        return None
    each = (-np.log(kept.astype(np.float64)).sum(axis=0) / lags[:, None])[rows]  # (B, H)
    best = each[:, int(np.argmin(each.mean(axis=0)))]
    asked = (lengths if told is None else np.full(len(lengths), told))[rows].astype(float)
    return _Memory(gate, np.maximum(best, 0.0), asked, _decay(evidence, seen))


def _decay(evidence: Evidence, seen: Seen) -> float | None:
    """Nats per step that a gradient loses on its way back; None if it cannot be known."""
    try:
        gain = gain_of(evidence, seen)
    except GradlabError:  # numbers that are not finite
        return None
    if gain is None:
        return None
    found = -median(rates(gain, gain.reach(evidence.circumstances.dependency)))
    return None if np.isnan(found) else found
