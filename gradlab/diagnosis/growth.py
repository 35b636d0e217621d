"""Whether a gradient that grows explodes or only grows for a while: what the spectral radius of the Jacobians says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from gradlab.analysis.spectra import jacobian_spectra
from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Seen
from gradlab.diagnosis.gain import Gain

Array = npt.NDArray[Any]

TRANSIENT = Threshold(
    float(np.log(4.0)),
    "nats",
    "a fourfold gradient; calibrated: figures/diagnosis_accuracy (healthy up to 0.57, planted from 5.2)",
)
DECAYED = 1.0
"""Nats below its peak at which growth is over, and nats by which the radius must have decayed where the gradient peaks."""

WORK = 2**30
"""Bound of matrices times S^3 that are decomposed: seconds. One may be twice as large."""
ROOM = 2**28
"""Bytes of Jacobians of one step."""


@dataclass(frozen=True)
class Growth:
    """`peak`: ln of the largest growth of the median row, at `lag`; `radius`: the geometric mean of the Jacobians' spectral
    radii up to there, `henrici` their median distance from normality, None where they were not looked at.
    `transient`: the radius is below 1, and the gradient has decayed by the first input, or by the radius would have.
    """

    peak: float
    lag: int
    transient: bool = False
    radius: float | None = None
    henrici: float | None = None
    limit: float = TRANSIENT.value


def growth_of(seen: Seen, gain: Gain, limit: float = TRANSIENT.value) -> Growth:
    """How the median row grows; Jacobians are decomposed only if it grows beyond `limit`."""
    curve = np.nan_to_num(gain.typical(), nan=np.inf, posinf=np.inf, neginf=-np.inf)
    lag = int(curve.argmax())
    peak = float(curve[lag])
    if not peak > limit or not np.isfinite(peak):
        return Growth(peak, lag)
    log_radius, henrici = _spectrum(seen, lag)
    if np.isnan(log_radius):
        return Growth(peak, lag)
    decayed = bool((curve[lag:] < peak - DECAYED).any()) or lag * log_radius < -DECAYED
    transient = log_radius < 0.0 and decayed and peak > TRANSIENT.value
    return Growth(peak, lag, transient, float(np.exp(log_radius)), henrici)


_SPECTRA: WeakKeyDictionary[Seen, dict[int, tuple[float, float]]] = WeakKeyDictionary()
"""What was decomposed, as long as its layer is looked at: two rules ask."""


def _spectrum(seen: Seen, lag: int) -> tuple[float, float]:
    """(mean ln spectral radius, median Henrici ratio) of a few Jacobians of the last `lag` steps; NaN if there are none."""
    kept = _SPECTRA.setdefault(seen, {})
    if lag not in kept:
        found = sampled(seen, lag)
        if found is None:
            kept[lag] = float("nan"), float("nan")
        else:
            spectra = jacobian_spectra(found)
            with np.errstate(all="ignore"):
                share = (np.abs(spectra.eigenvalues) ** 2).sum(axis=-1) / (spectra.singular_values**2).sum(axis=-1)
                radius = float(np.log(spectra.spectral_radius).mean())  # -inf for a nilpotent one
            kept[lag] = radius, float(np.median(np.sqrt(np.clip(1.0 - share, 0.0, 1.0))))  # Henrici (1962)
    return kept[lag]


def sampled(seen: Seen, lag: int | None = None, steps: int = 6, rows: int = 3) -> Array | None:
    """(n, S, S) Jacobians at a few steps of a few rows, of the last `lag` steps of each, or of all; fewer where they are large.

    None without a pass, and where a single one would take too long or is not finite.
    """
    run = seen.run
    if run is None or run.states.ndim != 3:
        return None
    (T, B), S = run.x.shape[:2], run.states.shape[-1]
    affordable = max(WORK // S**3, int(S**3 <= 2 * WORK))
    if not affordable or B * S * S * run.states.itemsize > ROOM:
        return None
    ends = np.full(B, T) if run.mask is None else run.mask.sum(axis=0)
    steps = max(1, min(steps, affordable // min(rows, B)))
    found: list[Array] = []
    long = np.argsort(-ends, kind="stable")[: min(rows, affordable)]
    for b in np.sort(long):
        n = int(ends[b])
        first = 0 if lag is None else max(0, n - max(lag, 1))
        at = np.unique(np.linspace(first, n - 1, steps).round().astype(int))
        found += [run.window(int(t), int(t) + 1).jacobians()[0, b] for t in at]
    stacked = np.stack(found) if found else np.zeros((0, S, S))
    return stacked if len(stacked) and np.isfinite(stacked).all() else None
