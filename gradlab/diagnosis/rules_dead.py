"""Rule: ReLU units that are dead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.cells import Jordan
from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence, Seen
from gradlab.diagnosis.finding import Finding, Number, Place, Severity
from gradlab.diagnosis.squashed import activation, rows_of, run_of, states

Array = npt.NDArray[Any]

DEAD = Threshold(0.5, "of the units", "with one input >= 0 and no bias half of an IRNN is dead, and trains (Le et al. 2015)")
FEWEST = Threshold(30.0, "values", "fewer steps times sequences may all be 0 by chance")


def dead_relu(evidence: Evidence) -> Iterator[Finding]:
    """ReLU units that are 0 at every step of every sequence: their gradient is exactly 0, nothing can wake them."""
    for seen in evidence.layers:
        judged = _dead(seen)
        if judged is None or not judged[0].any():
            continue
        dead, samples = judged
        share, H = float(dead.mean()), len(dead)
        few = samples < FEWEST.value
        severity: Severity = "info" if few or share <= DEAD.value else "error" if share == 1.0 else "warning"
        units = ", ".join(map(str, np.flatnonzero(dead)[:8])) + (", ..." if dead.sum() > 8 else "")
        text = f"{dead.sum()} of {H} ReLU units are 0 at every step of every sequence and get no gradient (units {units})"
        number = Number(share, "of the units", None, DEAD.value)
        numbers = {"dead share": number, "dead units": Number(float(dead.sum()), "units"), "samples": Number(float(samples))}
        yield Finding("dead-relu", severity, Place(seen.name, seen.direction), text, numbers)


def dead_relu_statistic(seen: Seen) -> float:
    """The share of ReLU units that are dead; 0 for a layer of another function."""
    judged = _dead(seen)
    return 0.0 if judged is None else float(judged[0].mean())


def _dead(seen: Seen) -> tuple[Array, int] | None:
    """(H,) booleans, and the steps times sequences that were looked at; None if these are no ReLU units."""
    if activation(seen) not in ("relu", "thresholded_relu"):
        return None
    alive = seen.live
    if isinstance(seen.cell, Jordan):
        run = run_of(seen)
        if run is None:
            return None
        H = run.layer.hidden_size
        value = run.tape[:, 0, ..., H : 2 * H]
        alive = None if alive is None else alive[:, rows_of(seen, run)]
    else:
        found = states(seen)
        if found is None:
            return None
        value = found
    if value.ndim != 3 or not value.size:
        return None
    if alive is not None:
        value = np.where(alive[:, :, None], value, 0.0)
    if not np.isfinite(value).all():
        return None
    samples = value.shape[0] * value.shape[1] if alive is None else int(alive.sum())
    return np.asarray((value == 0.0).all(axis=(0, 1))), samples
