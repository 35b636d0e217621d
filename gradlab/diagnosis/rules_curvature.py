"""Rule: a cliff ahead. The loss is too steep for the step that is to be taken, or a wall stands in its way."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlab.diagnosis.ahead import Ahead, Steepness, ahead_of, steepness_of
from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence, Look
from gradlab.diagnosis.finding import Finding, Number, Place, Severity
from gradlab.diagnosis.history import layer_of

EDGE = Threshold(
    1.0, "of 2/learning rate", "exact: gradient descent on a quadratic loss diverges above it (Cohen et al. 2021, sec. 2)"
)
SHARP = Threshold(
    2.0,
    "of 2/learning rate",
    "full-batch gradient descent settles just above 1 by itself (Cohen et al. 2021, fig. 1); calibrated: "
    "figures/diagnosis_accuracy (recurrent nets up to 1.9)",
)
WALL = Threshold(
    1.0,
    "of the promised decrease",
    "below 1 the step loses no more than it was to gain; calibrated: figures/diagnosis_accuracy",
)
BURST = Threshold(1e6, "times the loss", "no later update brings such parameters back")
RISE = Threshold(0.01, "of the loss", "a smaller rise hurts nobody, and near the end of training it may be rounding")


def cliff(evidence: Evidence) -> Iterator[Finding]:
    """Sharpness above 2/learning rate, or a wall within the next step of plain gradient descent.

    While clipping shortens the step, the learning rate is that much less. At most 32 sequences are read, fewer for the
    sharpness where the network is large; where it is too large, the curvature along the step stands for it, which is less.
    A sharpness between one and two times the limit is an info: training itself settles there. One finding for each network.
    """
    for look in evidence.looks:
        wall, steep = _measured(evidence, look)
        walled = wall is not None and wall.wall > WALL.value and wall.rise > RISE.value
        ratio = steep.ratio if steep is not None else wall.along if wall is not None else math.nan
        if not walled and not ratio > EDGE.value:
            continue
        severity: Severity = "warning" if ratio > SHARP.value else "info"
        parts, numbers = [], {}
        if walled and wall is not None:
            severity = "error" if wall.rise > BURST.value else "warning"
            parts.append(_walled(wall))
            numbers["wall"] = Number(wall.wall, WALL.unit, threshold=WALL.value)
            numbers["rise"] = Number(wall.rise, RISE.unit, threshold=RISE.value)
        if ratio > EDGE.value:
            limit = SHARP if ratio > SHARP.value else EDGE
            between = None if steep is None else (ratio - steep.residual, ratio + steep.residual)
            numbers["sharpness"] = Number(ratio, EDGE.unit, between, limit.value)
            many = "at least " * (steep is None) + f"{ratio:.3g}"
            parts.append(f"the sharpness is {many} times 2/learning rate{_read(wall, steep)}")
        yield Finding("cliff", severity, _place(look, steep), "; ".join(parts), numbers)


def cliff_statistic(evidence: Evidence) -> dict[str, float]:
    """{"sharpness": of 2/learning rate, "wall": of the promised decrease}, largest over all networks, NaN where unknown."""
    sharp, walls = [], []
    for look in evidence.looks:
        wall, steep = _measured(evidence, look)
        sharp += [steep.ratio] if steep is not None else [wall.along] if wall is not None else []
        walls += [] if wall is None else [wall.wall if wall.rise > RISE.value else min(wall.wall, 0.0)]
    return {"sharpness": max(sharp, default=math.nan), "wall": max(walls, default=math.nan)}


def _measured(evidence: Evidence, look: Look) -> tuple[Ahead | None, Steepness | None]:
    told = evidence.circumstances
    if told.learning_rate is None:
        return None, None
    wall = ahead_of(look, told)
    return wall, steepness_of(look, told.learning_rate if wall is None else wall.rate, evidence.seed)


def _read(wall: Ahead | None, steep: Steepness | None) -> str:
    one = steep or wall
    return "" if one is None else f", on {one.sequences} sequences"


def _walled(wall: Ahead) -> str:
    part = "the next gradient step" if wall.at == 1.0 else f"{wall.at:.3g} of the next gradient step"
    if not math.isfinite(wall.wall):
        return f"{part} makes the loss overflow, on {wall.sequences} sequences"
    return f"{part} raises the loss by {wall.rise:.2g} times its size, through a wall, on {wall.sequences} sequences"


def _place(look: Look, steep: Steepness | None) -> Place:
    """The parameter that most of the sharpest direction lies in; the read-out belongs to no layer."""
    if steep is None or steep.share <= 0.5:
        return Place(look.name)
    inside = [look.name] * bool(look.name)
    layer = [layer_of(steep.parameter)] * bool(layer_of(steep.parameter))
    return Place(".".join([*inside, *layer]), parameter=".".join([*inside, steep.parameter]))
