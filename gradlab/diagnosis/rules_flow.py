"""Rules of gradient flow: a gradient that grows on its way back through a layer, whatever the loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence, Seen
from gradlab.diagnosis.finding import Finding, Number, Place, Severity
from gradlab.diagnosis.gain import Gain, collapse, gain_of, interval, median, rates, times
from gradlab.diagnosis.growth import Growth, growth_of
from gradlab.diagnosis.rules_memory import LOST, short_horizon, vanishing

Array = npt.NDArray[Any]

__all__ = ["exploding", "short_horizon", "transient_growth", "vanishing"]

EXPLODED = Threshold(
    float(np.log(100.0)), "nats", "a hundredfold gradient; calibrated: figures/diagnosis_accuracy (healthy nets up to 3)"
)
OUTLIERS = Threshold(float(np.log(1e4)), "nats", "its square; calibrated: figures/diagnosis_accuracy (healthy nets up to 7.5)")
DIGITS = Threshold(-LOST.value, "nats", "2^23: a rounding error of float32 grows to the size of the number itself")


def exploding_statistic(evidence: Evidence, seen: Seen) -> float:
    """Logarithm of the largest growth of a gradient on its way back, in the median row; NaN if unknown."""
    gain = gain_of(evidence, seen)
    return float("nan") if gain is None else _peak(gain.typical())


def exploding(evidence: Evidence) -> Iterator[Finding]:
    """A gradient grows more than a hundredfold, and not for want of normality alone: the Jacobians' radius is 1 or more, or it
    cannot be known (Pascanu, Mikolov & Bengio 2013, sec. 2.1). Error where rounding errors grow to the size of the numbers.

    So it is judged in the median row. Where that is quiet, a few rows that lead the gradient of the batch (root mean square)
    are a warning if they multiply it by ten thousand.
    """
    for seen in evidence.layers:
        gain = gain_of(evidence, seen)
        if gain is None:
            found = _overflowed(seen)
            if found is not None:
                yield found
            continue
        growth = growth_of(seen, gain, EXPLODED.value)
        worst = _peak(gain.batch())
        if growth.transient:
            continue
        if growth.peak > EXPLODED.value:
            yield _exploded(seen, gain, growth, growth.peak)
        elif worst > OUTLIERS.value:
            yield _exploded(seen, gain, growth, worst)


def _peak(curve: Array) -> float:
    return float(np.nan_to_num(curve, nan=np.inf, posinf=np.inf, neginf=-np.inf).max())


def _exploded(seen: Seen, gain: Gain, growth: Growth, peak: float) -> Finding:
    rows = [np.nan_to_num(one, nan=np.inf) for one in gain.rows()]
    tops = np.array([one.max() for one in rows])
    chosen = np.flatnonzero(tops > EXPLODED.value)
    peaks = [int(one.argmax()) for one in rows]
    sudden = {b: k for b in chosen if (k := collapse(-rows[b][: peaks[b] + 1])) is not None}
    speed = rates(gain, np.array(peaks))[chosen]
    numbers = {
        "gain": Number(peak, "nats", interval(tops), EXPLODED.value),
        "slope": Number(median(speed), "nats per step", interval(speed)),
    }
    if growth.radius is not None:
        numbers["radius"] = Number(growth.radius, "", None, 1.0)
    text = f"a gradient grows to {times(peak)} times itself over {max(peaks[b] for b in chosen)} steps ({numbers['slope']})"
    if len(sudden) >= 0.5 * len(chosen):
        lags = np.array([k + 1 for k in sudden.values()])
        places = [seen.position(int(gain.ends[b]) - k, int(gain.ends[b])) for b, k in sudden.items()]
        text = f"a gradient grows to {times(peak)} times itself, most of it in one step"
    else:
        lags = np.array([int(np.flatnonzero(rows[b] > EXPLODED.value)[0]) for b in chosen])
        places = [seen.position(int(gain.ends[b] - n), int(gain.ends[b])) for b, n in zip(chosen, lags, strict=True)]
        numbers["lag"] = Number(median(lags), "steps", interval(lags.astype(float)))
        text += f" and is a hundredfold {round(median(lags))} steps back"
    text += f"; in {len(chosen)} of {len(tops)} sequences" * (len(chosen) < len(tops))
    where = min(max(round(median(np.array(places))), 0), seen.steps - 1)
    severity: Severity = "error" if peak > DIGITS.value else "warning"
    place = Place(seen.name, seen.direction, timestep=where, lag=round(median(lags)))
    return Finding("exploding", severity, place, text, numbers)


def _overflowed(seen: Seen) -> Finding | None:
    """Adjoints beyond the range of floats where states and what comes from the loss are not: of a bare record."""
    layer, lengths = seen.layer, seen.look.record.lengths
    if layer.adjoints is None or layer.immediate is None or not np.isfinite(layer.immediate).all():
        return None
    if layer.states is not None and not np.isfinite(layer.states).all():
        return None
    lost = ~np.isfinite(layer.adjoints).all(axis=-1)  # (T+1, *E, B)
    if not lost.any():
        return None
    share = float(lost.mean())
    last = np.argwhere(lost)[-1]
    t, n = int(last[0]), seen.steps if lengths is None else int(lengths[last[-1]])
    text = f"the gradient leaves the range of floats on its way back and is not finite at {share:.0%} of the steps"
    place = Place(
        seen.name, seen.direction, timestep=min(max(seen.position(t, n), 0), seen.steps - 1), lag=n - t, phase="backward"
    )
    return Finding("exploding", "error", place, text, {"share": Number(share, "of the steps", None, 0.0)})


def transient_statistic(evidence: Evidence, seen: Seen) -> float:
    """Logarithm of the largest growth of a gradient, as `exploding_statistic`, in a layer whose Jacobians have radius below 1.

    NaN where they have not, or it cannot be known. Above `TRANSIENT` of `gradlab.diagnosis.growth` it is transient growth.
    """
    gain = gain_of(evidence, seen)
    if gain is None:
        return float("nan")
    growth = growth_of(seen, gain, -np.inf)
    return growth.peak if growth.radius is not None and growth.radius < 1.0 else float("nan")


def transient_growth(evidence: Evidence) -> Iterator[Finding]:
    """A gradient grows, then decays, although every Jacobian has a spectral radius below 1 (Trefethen & Embree 2005, sec. 14)."""
    for seen in evidence.layers:
        gain = gain_of(evidence, seen)
        if gain is None:
            continue
        growth = growth_of(seen, gain)
        if not growth.transient or growth.radius is None:
            continue
        tops = np.array([one.max() for one in gain.rows()])
        numbers = {
            "gain": Number(growth.peak, "nats", interval(tops), growth.limit),
            "radius": Number(growth.radius, "", None, 1.0),
            "henrici": Number(growth.henrici or 0.0, "of the norm"),
        }
        text = (
            f"a gradient grows to {times(growth.peak)} times itself within {growth.lag} steps although the Jacobians' spectral "
            f"radius is {growth.radius:.2g}: they are non-normal (Henrici ratio {growth.henrici:.2f})"
        )
        place = Place(seen.name, seen.direction, lag=growth.lag)
        yield Finding("transient-growth", "warning", place, text, numbers)
