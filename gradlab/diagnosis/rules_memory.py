"""Rules of memory: a gradient that is lost on its way back through a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.analysis.flow import memory_horizon
from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence, Seen
from gradlab.diagnosis.finding import SEVERITIES, Finding, Number, Place, Severity
from gradlab.diagnosis.gain import Gain, collapse, gain_of, interval, mean_square, median, rates, reads_the_end, times

Array = npt.NDArray[Any]

LOST = Threshold(
    float(np.log(np.finfo(np.float32).eps)),
    "nats",
    "2^-23, the spacing of float32: what is smaller than this share of a sum does not change it; calibrated: "
    "figures/diagnosis_accuracy (healthy untrained nets down to -12)",
)
GONE = Threshold(float(np.log(np.finfo(np.float64).eps)), "nats", "2^-52, the same in float64")
PART = Threshold(0.25, "of the sequences", "a quarter of the batch; fewer are the exception that any trained net has")
REMAINS = Threshold(0.01, "of the gradient", "calibrated: figures/diagnosis_accuracy")


def vanishing_statistic(evidence: Evidence, seen: Seen) -> float:
    """Logarithm of what is left of a gradient at the first input, or at the dependency if that is nearer: root mean square over
    the rows, as a batch's gradient sees it. Below `LOST` it vanishes; NaN where it cannot be known.
    """
    gain = gain_of(evidence, seen)
    return float("nan") if gain is None else _left(gain, gain.reach(evidence.circumstances.dependency))


def _left(gain: Gain, lags: Array) -> float:
    """Rows shorter than the median one carry over fewer steps and say nothing of the others."""
    return mean_square(gain.at(lags)[lags >= np.median(lags)])


def vanishing(evidence: Evidence) -> Iterator[Finding]:
    """A gradient that enters at the end is lost to rounding before it reaches the first input (Bengio, Simard & Frasconi 1994).

    Severity: error below the spacing of float64, warning below that of float32. One less grave if the loss reads many steps
    and no dependency is known: nearer outputs then train the weights, and that a gated net forgets what lies far back is what
    it is for. An error is a warning while another layer of the same stack still carries. While some rows carry, the batch's
    gradient does; where it is lost in at least a quarter of them that is an info: they may hold a reset that was learned.
    """
    told = evidence.circumstances.dependency
    for seen in evidence.layers:
        gain = gain_of(evidence, seen)
        if gain is None:
            continue
        lags = gain.reach(told)
        left = gain.at(lags)
        if np.isnan(left).any():
            continue
        lost = left < LOST.value
        typical = _left(gain, lags)
        if not lost.mean() >= PART.value and not typical < LOST.value:
            continue
        severity: Severity = "info"
        if typical < LOST.value:
            severity = "error" if typical < GONE.value else "warning"
            if told is None and not reads_the_end(seen.look):
                severity = _lower(severity)
            if severity == "error" and any(
                vanishing_statistic(evidence, other) >= LOST.value for other in evidence.layers if other.look is seen.look
            ):
                severity = "warning"
        yield _vanished(seen, gain, lags, lost, severity)


def _vanished(seen: Seen, gain: Gain, lags: Array, lost: Array, severity: Severity) -> Finding:
    rows = [gain.log[: lag + 1, b] for b, lag in enumerate(lags)]
    chosen = np.flatnonzero(lost)  # at least one
    sudden = {b: k for b in chosen if (k := collapse(rows[b])) is not None}
    speed = rates(gain, lags)[chosen]
    left = gain.at(lags)
    value = median(left[chosen]) if severity == "info" else _left(gain, lags)
    numbers = {
        "gain": Number(value, "nats", interval(left[chosen]), LOST.value),
        "slope": Number(median(speed), "nats per step", interval(speed)),
    }
    path = _path(gain, lags, chosen)
    if len(sudden) >= 0.5 * len(chosen):
        at = {b: (k + 1, seen.position(int(gain.ends[b]) - k, int(gain.ends[b]))) for b, k in sudden.items()}
        lag, where = (round(median(np.array([one[i] for one in at.values()]))) for i in (0, 1))
        near = [abs(one[1] - where) <= max(2, 0.05 * seen.steps) for one in at.values()]
        text = f"a gradient falls to {times(value)} of itself, most of it in one step"
        text += "" if np.mean(near) >= 0.5 else f", which differs between sequences (from {_span(at)})"
    else:
        first = np.array([np.flatnonzero(rows[b] >= LOST.value)[-1] + 1 for b in chosen])
        lag = round(median(first))
        ends = [int(gain.ends[b]) for b in chosen]
        where = round(median(np.array([seen.position(n - lag, n) for n, lag in zip(ends, first, strict=True)])))
        numbers["lag"] = Number(float(lag), "steps", interval(first.astype(float)))
        text = f"of a gradient {times(value)} is left after {round(median(lags[chosen]))} steps ({numbers['slope']}); "
        text += f"it is lost to rounding {lag} steps back"
    text += f", and what is left is in {path}" * bool(path)
    text += f"; in {len(chosen)} of {len(left)} sequences" * (len(chosen) < len(left))
    where = min(max(where, 0), seen.steps - 1)
    return Finding("vanishing", severity, Place(seen.name, seen.direction, timestep=where, lag=lag), text, numbers)


def _path(gain: Gain, lags: Array, chosen: Array) -> str:
    """The part of the state that holds most of what is left, if there are several."""
    if len(gain.parts) < 2:
        return ""
    held = {name: median(log[lags[chosen], chosen]) for name, log in gain.parts.items()}
    best = max(held, key=lambda name: held[name])
    return best if np.isfinite(held[best]) else ""


def horizon_statistic(evidence: Evidence, seen: Seen) -> float:
    """The lag at which 1 % of a gradient is left, in the part of the state that holds it longest, over the dependency: below 1
    the memory is too short. Median over the rows; NaN without a dependency.
    """
    told, gain = evidence.circumstances.dependency, gain_of(evidence, seen)
    return float("nan") if told is None or gain is None else median(_horizons(gain)) / told


def short_horizon(evidence: Evidence) -> Iterator[Finding]:
    """The gradient's memory, down to 1 %, is shorter than the dependency in every layer; the longest one is named."""
    told = evidence.circumstances.dependency
    if told is None:
        return
    for look in evidence.looks:
        best: tuple[float, Seen, Array] | None = None
        for seen in evidence.layers:
            gain = gain_of(evidence, seen) if seen.look is look else None
            if gain is None or int(gain.ends.max()) <= 3:
                continue
            lags = _horizons(gain)
            if best is None or median(lags) > best[0]:
                best = (median(lags), seen, lags)
        if best is None:
            continue
        longest, seen, lags = best
        between = interval(lags)
        if not (longest if between is None else between[1]) < told:
            continue
        numbers = {"horizon": Number(longest, "steps", between, float(told)), "dependency": Number(float(told), "steps")}
        text = f"a gradient is below 1 % after {numbers['horizon']}, and the dependency is {told} steps back"
        yield Finding("short-horizon", "warning", Place(seen.name, seen.direction, lag=round(longest)), text, numbers)


def _horizons(gain: Gain) -> Array:
    """(B,) of each row: the longest horizon of a part that ever holds 1 % of the gradient."""
    found = np.full(len(gain.ends), np.nan)
    whole = np.log(REMAINS.value) + np.nanmax(gain.log, axis=0)
    for log in gain.parts.values():
        for b, n in enumerate(gain.ends):
            curve = log[: n + 1, b]
            if np.max(curve) >= whole[b]:
                own = float(memory_horizon(curve[::-1, None], REMAINS.value).lags[0])
                found[b] = np.fmax(found[b], own)
    return np.asarray(found[~np.isnan(found)])


def _span(at: dict[Any, tuple[int, int]]) -> str:
    steps = sorted(one[1] for one in at.values())
    return f"{steps[0]} to {steps[-1]}"


def _lower(severity: Severity) -> Severity:
    return SEVERITIES[max(0, SEVERITIES.index(severity) - 1)]
