"""Rule: gates, and units of nets without gates, that are stuck where their function is flat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence, Seen
from gradlab.diagnosis.finding import Finding, Number, Place, Severity
from gradlab.diagnosis.gain import interval, median
from gradlab.diagnosis.rules_dead import FEWEST, dead_relu
from gradlab.diagnosis.rules_forgetting import forget_closed
from gradlab.diagnosis.squashed import Squashed, squashed

__all__ = ["dead_relu", "forget_closed", "saturated"]

Array = npt.NDArray[Any]

FLAT = Threshold(0.05, "share of the largest slope", "below it a gradient loses 3 nats at each pass: tanh beyond +-0.975")
STILL = Threshold(0.25, "of the range", "calibrated: figures/diagnosis_accuracy; what moves further decides something")
STUCK = Threshold(0.5, "of the values", "calibrated: figures/diagnosis_accuracy; half of the gate is lost")
STRETCH = Threshold(0.05, "of the sequence", "calibrated: figures/diagnosis_accuracy; shorter ones are single symbols")
ALL_ALIKE = Threshold(0.95, "of the values", "calibrated: trained nets hold half of their units still for a while, never all")
WHOLE = Threshold(0.9, "of the sequence", "a state that starts from 0 takes some steps to where it stays")
SWITCHING = Threshold(0.9, "of the values", "calibrated: figures/diagnosis_accuracy")
WORTH_SAYING = Threshold(0.1, "of the values", "one unit in ten")
WRITES = Threshold(
    0.1, "gain", "i/(1 - f) is what a constant input adds up to; 1 with chrono gates (Tallec & Ollivier 2018, sec. 2)"
)


def saturated(evidence: Evidence) -> Iterator[Finding]:
    """Gates, or the units of a net without gates, that stay where their function is flat: they get no gradient.

    Not an open f or z, which is memory, nor the closed i of a unit whose f is open as far. A unit that switches between both
    ends computes; a layer of such units is worth an info.
    """
    for seen in evidence.layers:
        gates = {one.gate: one for one in squashed(seen)}
        for one in gates.values():
            found = _saturation(seen, one, _flat(seen, one, gates))
            if found is not None:
                yield found


def saturated_statistic(seen: Seen) -> dict[str, float]:
    """{gate: the share of its values, over steps and units that hardly move, that are flat}, of the median sequence."""
    gates = {one.gate: one for one in squashed(seen)}
    return {gate: median(_shares(one, _flat(seen, one, gates))) for gate, one in gates.items()}


def _saturation(seen: Seen, one: Squashed, flat: Array) -> Finding | None:
    T = len(one.values)
    rows = _shares(one, flat)  # (B,)
    if median(rows) >= STUCK.value:
        return _stuck(seen, one, flat, rows, "info" if one.exists[..., 0].sum() < FEWEST.value else "warning", (0, T))
    first, stop = _stretch(one, flat)
    if stop - first >= max(3.0, STRETCH.value * T):
        part = Squashed(one.gate, one.function, one.values[first:stop], one.exists[first:stop], one.rows)
        within = _shares(part, flat[first:stop])
        if median(within) >= STUCK.value:
            # half of a trained net's units may hold still for a while, as those of the copying task: that is their business
            severity: Severity = "warning" if median(within) >= ALL_ALIKE.value else "info"
            return _stuck(seen, part, flat[first:stop], within, severity, (first, stop))
    if median(rows) >= WORTH_SAYING.value:
        return _stuck(seen, one, flat, rows, "info", (0, T))
    moving = _over_units(_by_row(flat, one.exists))
    if median(moving) >= SWITCHING.value:
        number = Number(median(moving), "of the values", interval(moving), SWITCHING.value)
        text = f"{number.value:.0%} of its values are where the slope is below {FLAT.value:.0%}, switching between both ends"
        return Finding("saturated", "info", Place(seen.name, seen.direction, one.gate), text, {"saturated share": number})
    return None


def _stuck(seen: Seen, one: Squashed, flat: Array, rows: Array, severity: Severity, span: tuple[int, int]) -> Finding:
    first, stop = span
    numbers = {"saturated share": Number(median(rows), "of the values", interval(rows), STUCK.value)}
    upper = float((flat & one.upper()).sum() / max(1, flat.sum()))
    end = "at the upper end" if upper > 0.9 else "at the lower end" if upper < 0.1 else "at one end or the other"
    text = f"{median(rows):.0%} of its values stay {end}, where the slope is below {FLAT.value:.0%} of its maximum"
    place = Place(seen.name, seen.direction, one.gate)
    if stop - first < WHOLE.value * seen.steps:
        place = Place(seen.name, seen.direction, one.gate, timestep=first)
        text += f", from step {first} to {stop - 1}"
        numbers["steps"] = Number(float(stop - first), "steps")
    return Finding("saturated", severity, place, text, numbers)


def _flat(seen: Seen, one: Squashed, gates: Mapping[str, Squashed]) -> Array:
    """(T, B, H): values that exist, where the slope is small and not on purpose."""
    flat = (one.slopes() < FLAT.value) & one.exists
    if one.gate in ("f", "z"):
        flat &= ~one.upper()
    other = gates.get("f") if one.gate == "i" else None
    if other is not None or (one.gate == "i" and seen.cell is not None and "f" not in seen.cell.gates):
        kept = np.ones(()) if other is None else _over(other.values, other.exists)
        longest = 10.0 * len(one.values)  # a cell may be meant for longer sequences than these
        written = _over(one.values, one.exists) * np.minimum(1.0 / np.maximum(1.0 - kept, 1e-300), longest)
        flat &= ~((written >= WRITES.value) & ~one.upper())
    return np.asarray(flat)


def _over(values: Array, exists: Array) -> Array:
    """Mean over steps and sequences, (H,)."""
    return np.asarray(np.where(exists, values, 0.0).sum(axis=(0, 1)) / np.maximum(exists.sum(axis=(0, 1)), 1))


def _by_row(hits: Array, exists: Array) -> Array:
    """Share of True over the steps, (B, H); NaN where no step exists."""
    count = exists.sum(axis=0)
    return np.asarray(np.where(count > 0, hits.sum(axis=0) / np.maximum(count, 1), np.nan))


def _over_units(shares: Array) -> Array:
    """Means over the units, of each row that has any: (B, H) -> (up to B,)."""
    known = np.isfinite(shares)
    count = known.sum(axis=1)
    return np.asarray(np.where(known, shares, 0.0).sum(axis=1)[count > 0] / count[count > 0])


def _shares(one: Squashed, flat: Array) -> Array:
    """(up to B,) of each row the share of the steps at which a unit is flat, 0 for units that move anywhere in the batch."""
    most = np.max(one.values, axis=(0, 1), where=one.exists, initial=-np.inf)
    least = np.min(one.values, axis=(0, 1), where=one.exists, initial=np.inf)
    still = most - least <= STILL.value * one.width  # (H,)
    shares = _by_row(flat, one.exists)
    return _over_units(np.where(still | np.isnan(shares), shares, 0.0))


def _stretch(one: Squashed, flat: Array) -> tuple[int, int]:
    """The longest run of steps at which half of the units are flat, each at the same end in all sequences: (first, behind)."""
    here = np.maximum(one.exists.sum(axis=1), 1)  # (T, H)
    upper = one.upper()
    alike = np.maximum((flat & upper).sum(axis=1), (flat & ~upper).sum(axis=1)) / here
    known = one.exists.any(axis=1)
    hit = np.where(known, alike, 0.0).sum(axis=-1) >= STUCK.value * np.maximum(known.sum(axis=-1), 1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hit.astype(int), [0]])))
    starts, stops = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    k = int(np.argmax(stops - starts))
    return int(starts[k]), int(stops[k])
