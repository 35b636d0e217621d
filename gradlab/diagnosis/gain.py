"""How a gradient is carried back through one layer: the curve that the rules of flow read, row by row, and places on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab.analysis.flow import median_interval
from gradlab.diagnosis.evidence import Evidence, Look, Seen

Array = npt.NDArray[Any]

UNDERFLOW = 60.0
"""Nats: what is 0 after a smaller loss did not get there by underflow (float32: smallest number e^-103, gradients from e^-40)."""

END_SHARE = 0.1
"""Of its steps, from a row's end: a loss that reads only these reads the end."""


@dataclass(frozen=True)
class Gain:
    """ln of what a gradient that enters at each row's end is multiplied by, `log` (lags, B): row k is the state k steps before.

    `parts` {part: (lags, B)}: what arrives in each part of the state. `ends` (B,): steps of each row, so that the first input
    acts on the state at lag ends - 1. NaN where a row has no such lag.
    """

    log: Array
    parts: Mapping[str, Array]
    ends: Array

    def reach(self, dependency: int | None = None) -> Array:
        """(B,) the lag at which a row is judged: its first input, or the dependency if that is nearer."""
        first = self.ends - 1
        return np.asarray(first if dependency is None else np.minimum(first, dependency))

    def at(self, lags: Array) -> Array:
        """(B,) the gain of each row at its own lag."""
        return np.asarray(self.log[lags, np.arange(len(lags))])

    def rows(self) -> list[Array]:
        """The curve of each row, from lag 0 to its first input's."""
        return [self.log[:n, b] for b, n in enumerate(self.ends)]

    def curves(self) -> Array:
        """(lags, B) up to the first input of the longest row; inf where a Jacobian was not finite, NaN where there is no lag."""
        found = self.log[: int(self.ends.max())]
        lost = np.isnan(found) & (np.arange(len(found))[:, None] < self.ends)
        return np.where(lost, np.inf, found)

    def typical(self) -> Array:
        """(lags,) the median row at each lag, of those that have it."""
        with np.errstate(all="ignore"):
            return np.asarray(np.nanmedian(self.curves(), axis=1))

    def batch(self) -> Array:
        """(lags,) root mean square over the rows that have the lag: what a batch's gradient sees; the largest rows lead."""
        return np.array([mean_square(row[~np.isnan(row)]) for row in self.curves()])


def gain_of(evidence: Evidence, seen: Seen) -> Gain | None:
    """The curve of a layer: a unit gradient carried back through it, or, of a bare record, its adjoints if the loss reads each
    row's last step alone. None where neither is to be had.
    """
    carried = evidence.carried(seen)
    run = seen.run
    if carried is not None and run is not None:
        T, B = run.x.shape[:2]
        ends = np.full(B, T) if run.mask is None else run.mask.sum(axis=0)
        return _usable(carried.log_gain, carried.log_parts, ends)
    return _recorded(seen)


def _recorded(seen: Seen) -> Gain | None:
    layer, record = seen.layer, seen.look.record
    adjoints, immediate = layer.adjoints, layer.immediate
    if adjoints is None or immediate is None or len(adjoints) < 2:
        return None
    T1, B, S = adjoints.shape[0], adjoints.shape[-2], adjoints.shape[-1]
    members = int(np.prod(adjoints.shape[1:-2]))
    ends = np.tile(np.full(B, T1 - 1) if record.lengths is None else record.lengths, members)
    flat, own = adjoints.reshape(T1, -1, S), immediate.reshape(T1, -1, S)
    steps = np.arange(T1)[:, None]
    if (np.where((steps < ends)[..., None], own, 0.0) != 0.0).any():
        return None  # what is at a step came from many lags
    logs = {"": log_norm(flat)} | {name: log_norm(flat[..., a:b]) for name, (a, b) in layer.parts.items()}
    by_lag = {}
    for name, log in logs.items():
        turned = np.full(log.shape, np.nan)
        for b, n in enumerate(ends):
            turned[: n + 1, b] = log[: n + 1, b][::-1]
        by_lag[name] = turned
    start = by_lag[""][0].copy()
    if not np.isfinite(start).any():
        return None
    start[~np.isfinite(start)] = np.nan  # a row whose loss is already 0 says nothing
    return _usable(by_lag[""] - start, {name: by_lag[name] - start for name in layer.parts}, ends)


def _usable(log: Array, parts: Mapping[str, Array], ends: Array) -> Gain | None:
    """Rows that have a gradient at their end."""
    here = ~np.isnan(log[0]) & (ends >= 1)
    if not here.any():
        return None
    return Gain(log[:, here], {name: value[:, here] for name, value in parts.items()}, ends[here])


def reads_the_end(look: Look) -> bool:
    """Whether the loss reads the last steps alone: then nothing nearer than the whole sequence can teach its beginning."""
    if look.assumed_loss:
        return True
    record = look.record
    top = max((int(key.partition(".")[0]) for key in record.layers), default=0)
    found = [layer.immediate for key, layer in record.layers.items() if int(key.partition(".")[0]) == top]
    for immediate in found:
        if immediate is None:
            return look.net is not None and look.net.readout == "last"
        used = (immediate != 0.0).any(axis=-1)  # (T+1, *E, B)
        T = len(used) - 1
        if used.sum(axis=0).max(initial=0) > max(1, END_SHARE * T):
            return False
    return True


def collapse(curve: Array, share: float = 0.5) -> int | None:
    """The lag k whose step from k to k + 1 takes, with a neighbour, at least `share` of all that a curve loses (rises: give
    -curve); None if the loss is spread over more steps. Needs 6 lags.
    """
    if len(curve) < 6:
        return None
    lost = curve[0] - curve[-1]
    if not lost > 0.0:
        return None
    with np.errstate(all="ignore"):
        single = np.where(np.isneginf(curve[1:]), np.inf, curve[:-1] - curve[1:])
        single = np.where(np.isneginf(curve[:-1]), 0.0, single)  # nothing can be lost of nothing
    if np.isnan(single).any():
        return None
    if np.isposinf(single).any():
        k = int(np.argmax(single))
        if curve[0] - curve[k] <= UNDERFLOW:
            return k
        return collapse(curve[: k + 1], share)  # it vanished before, and the last of it went below the smallest float
    pairs = single[1:] + single[:-1]
    k = int(np.argmax(pairs))
    if max(pairs[k], single.max()) < share * lost:
        return None
    return int(np.argmax(single))


def interval(values: Array, confidence: float = 0.95) -> tuple[float, float] | None:
    """Of the median over the rows; None for 5 rows or fewer."""
    if len(values) < 6 or np.isnan(values).any():
        return None
    return median_interval(values, confidence)


def rates(gain: Gain, lags: Array) -> Array:
    """(B,) mean change of each row's ln gain per step, from lag 1 to `lags` or to the last lag where something arrives."""
    found = np.full(len(lags), np.nan)
    for b, last in enumerate(lags):
        curve = gain.log[1 : last + 1, b]
        known = np.flatnonzero(np.isfinite(curve))
        if len(known) >= 2:
            found[b] = (curve[known[-1]] - curve[known[0]]) / (known[-1] - known[0])
    return found


def mean_square(logs: Array) -> float:
    """Logarithm of the root mean square of numbers whose logarithms are given."""
    with np.errstate(all="ignore"):
        return float(0.5 * (np.logaddexp.reduce(2.0 * logs) - np.log(len(logs))))


def median(values: Array) -> float:
    """The lower median: a value that is there, also among infinite ones; NaN of none."""
    return float(np.quantile(values, 0.5, method="inverted_cdf")) if len(values) else float("nan")


def times(log: float) -> str:
    """e^log as a number to read, also far beyond the range of floats."""
    if np.isneginf(log):
        return "0"
    if not np.isfinite(log):
        return "inf"
    if -7.0 < log < 12.0:
        return f"{np.exp(log):.3g}"
    digits = log / np.log(10.0)
    return f"{10.0 ** (digits - np.floor(digits)):.1f}e{int(np.floor(digits)):+d}"
