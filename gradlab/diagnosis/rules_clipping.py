"""Rules about clipping: always on, never on, or placed so that it cannot act."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradlab.diagnosis.clipped import Clipped, clipped_of
from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding, Number, Place, Severity
from gradlab.diagnosis.history import before_each
from gradlab.diagnosis.rules_clipping_inactive import clipping_inactive
from gradlab.diagnosis.rules_history import jumps_of

__all__ = ["clipping_always", "clipping_inactive", "clipping_never"]

ALWAYS = Threshold(0.9, "of the updates", "below the threshold is the exception; calibrated: figures/diagnosis_accuracy")
KEPT = Threshold(
    0.25,
    "of the norm",
    "half of the smallest threshold that works, 0.5 times the average norm (Pascanu, Mikolov & Bengio 2013, sec. 3.2)",
)
SPIKE = Threshold(
    10.0,
    "times its median before",
    "the largest threshold that works is 10 times the average norm (Pascanu, Mikolov & Bengio 2013, sec. 3.2)",
)

WINDOW = 20
"""Updates before a spike of the gradient norm that it is compared with."""
FEWEST = 20
"""Updates that a rule needs."""


def clipping_always(evidence: Evidence) -> Iterator[Finding]:
    """Almost every update is clipped: the threshold, not the gradient, sets the length of the step.

    A warning where clipping takes more than three quarters of the norm; else it is an info: the threshold is where many put it.
    """
    found = _enough(evidence)
    if found is None or found.share <= ALWAYS.value:
        return
    numbers = {"share": Number(found.share, ALWAYS.unit, _wilson(found), ALWAYS.value)}
    told = f"{found.share:.0%} of {len(found.cut)} updates are clipped"
    if math.isfinite(found.kept):
        numbers["kept"] = Number(found.kept, KEPT.unit, threshold=KEPT.value)
        told += f", to {found.kept:.2g} of their norm (median)"
    severity: Severity = "info" if found.kept >= KEPT.value else "warning"
    yield Finding("clipping-always", severity, Place(), f"{told}: the threshold has become the size of the step", numbers)


def clipping_always_statistic(evidence: Evidence) -> float:
    """Share of the updates that were clipped; NaN if unknown."""
    found = _enough(evidence)
    return math.nan if found is None else found.share


def clipping_never(evidence: Evidence) -> Iterator[Finding]:
    """A threshold is set and no update ever reached it.

    A warning where it should have acted: the loss jumps, or the gradient spikes; else an info.
    """
    told, found = evidence.circumstances, _enough(evidence)
    if found is None or found.cut.any() or (told.clip_norm is None and told.clip_value is None):
        return
    if told.clip_norm is not None and (np.fmax(found.before, 0.0) > told.clip_norm).any():
        return  # it was reached, and nothing happened: clipping_inactive
    spike, jumps = _spike(found), jumps_of(evidence)
    jumping = jumps is not None and jumps.serious
    numbers = {"share": Number(0.0, ALWAYS.unit, _wilson(found))}
    parts = [f"none of {len(found.cut)} updates reached the threshold"]
    if told.clip_norm is not None and np.isfinite(found.before).any():
        numbers["largest norm"] = Number(float(np.nanmax(found.before)) / told.clip_norm, "of the threshold", threshold=1.0)
        parts[0] += f", the nearest came to {numbers['largest norm'].value:.2g} of it"
    if math.isfinite(spike):
        numbers["spike"] = Number(spike, SPIKE.unit, threshold=SPIKE.value)
    if jumping and jumps is not None:
        parts.append(f"but the loss jumped, to {1.0 + jumps.size.max():.3g} times what it was")
    if spike > SPIKE.value:
        parts.append(f"{'and' if jumping else 'but'} the gradient norm rose to {spike:.2g} times what it was")
    severity: Severity = "warning" if len(parts) > 1 else "info"
    yield Finding("clipping-never", severity, Place(), ", ".join(parts), numbers)


def clipping_never_statistic(evidence: Evidence) -> float:
    """The largest norm of a gradient over the median of the WINDOW before; NaN if unknown."""
    found = _enough(evidence)
    return math.nan if found is None else _spike(found)


def _enough(evidence: Evidence) -> Clipped | None:
    found = clipped_of(evidence)
    return found if found is not None and len(found.cut) >= FEWEST else None


def _spike(found: Clipped) -> float:
    if len(found.before) <= WINDOW:
        return math.nan
    with np.errstate(all="ignore"):
        ratio = found.before[WINDOW:] / np.median(before_each(found.before, WINDOW), axis=-1)
    ratio = ratio[np.isfinite(ratio)]
    return float(ratio.max()) if len(ratio) else math.nan


def _wilson(found: Clipped) -> tuple[float, float]:
    """95 % interval of the share (Wilson 1927)."""
    z, n, p = 1.959964, len(found.cut), found.share
    centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n)
    half = z * math.sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n)) / (1.0 + z * z / n)
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))  # p itself lies inside, whatever the rounding
