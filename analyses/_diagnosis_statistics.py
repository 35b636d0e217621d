"""The number that decides in each rule, of the layer, gate or parameter where it is worst: for the figure of the thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis import growth
from gradlab.diagnosis import rules_clipping as clipping
from gradlab.diagnosis import rules_clipping_inactive as inactive
from gradlab.diagnosis import rules_curvature as curvature
from gradlab.diagnosis import rules_data as data
from gradlab.diagnosis import rules_dead as dead
from gradlab.diagnosis import rules_flow as flow
from gradlab.diagnosis import rules_forgetting as forgetting
from gradlab.diagnosis import rules_gates as gates
from gradlab.diagnosis import rules_history as history
from gradlab.diagnosis import rules_initial as initial
from gradlab.diagnosis import rules_memory as memory
from gradlab.diagnosis import rules_nonfinite as nonfinite
from gradlab.diagnosis import rules_padding as padding
from gradlab.diagnosis import rules_structure as structure
from gradlab.diagnosis import rules_unused as unused
from gradlab.diagnosis import rules_updates as updates
from gradlab.diagnosis.evidence import Evidence, Seen

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Statistic:
    """`code`: of the rule that decides by it, `name`: what it is; `below`: whether small values are the bad ones.

    `read(evidence)`: one value or more, of which the worst counts; NaN where there is nothing to judge.
    """

    code: str
    name: str
    threshold: float
    below: bool
    read: Callable[[Evidence], Iterable[float]]

    def worst(self, evidence: Evidence) -> float:
        """The value furthest on the bad side; NaN if there is none."""
        with np.errstate(all="ignore"):
            values = [float(value) for value in self.read(evidence)]
        known = [value for value in values if not np.isnan(value)]
        return (min if self.below else max)(known, default=float("nan"))

    def margin(self, value: Array) -> Array:
        """How many times beyond its threshold a value lies: above 1 on the bad side, 0 where it has the other sign."""
        with np.errstate(all="ignore"):
            ratio = value / self.threshold if self.threshold else np.where(value > 0.0, np.inf, 0.0)
            ratio = 1.0 / ratio if self.below and self.threshold > 0.0 else ratio
            return np.where(np.isnan(value), np.nan, np.maximum(ratio, 0.0))


def measured(evidence: Evidence) -> Array:
    """(statistics,)"""
    return np.array([one.worst(evidence) for one in STATISTICS])


def _each(read: Callable[[Evidence, Seen], Any]) -> Callable[[Evidence], Iterable[float]]:
    """One value a layer."""
    return lambda evidence: [read(evidence, seen) for seen in evidence.layers]


def _gates(evidence: Evidence) -> Iterable[float]:
    return [value for seen in evidence.layers for value in gates.saturated_statistic(seen).values()]


def _truncation(evidence: Evidence) -> Iterable[float]:
    return [structure.truncation_statistic(evidence, look)[0] for look in evidence.looks]


def _longest(evidence: Evidence) -> Iterable[float]:
    """Of all layers of a network the one that remembers longest."""
    if evidence.circumstances.dependency is None:
        return ()
    own = [memory.horizon_statistic(evidence, seen) for seen in evidence.layers]
    return [max((one for one in own if not np.isnan(one)), default=float("nan"))]


def _lowest(read: Callable[[Evidence, Seen], float]) -> Callable[[Evidence], Iterable[float]]:
    """Of the layers that read the inputs themselves, where these are the user's."""
    return lambda evidence: [read(evidence, s) for s in evidence.layers if s.level == 0 and not s.look.assumed_inputs]


def _padding(evidence: Evidence) -> Iterable[float]:
    looks = [look for look in evidence.looks if not look.assumed_inputs]
    return [padding.padding_counted_statistic(evidence, look) for look in looks]


def _whole(read: Callable[[Evidence], float]) -> Callable[[Evidence], Iterable[float]]:
    """One value for all that was seen."""
    return lambda evidence: [read(evidence)]


def _ratios(name: str) -> Callable[[Evidence], Iterable[float]]:
    """Of each weight matrix that moves."""
    return lambda evidence: [getattr(one, name) for one in updates.ratios_of(evidence) if one.high > 0.0]


STATISTICS: tuple[Statistic, ...] = (
    Statistic("vanishing", "gain at the first input, nats", memory.LOST.value, True, _each(memory.vanishing_statistic)),
    Statistic("exploding", "largest gain, nats", flow.EXPLODED.value, False, _each(flow.exploding_statistic)),
    Statistic(
        "transient-growth", "largest gain at radius < 1, nats", growth.TRANSIENT.value, False, _each(flow.transient_statistic)
    ),
    Statistic("short-horizon", "horizon / dependency", 1.0, True, _longest),
    Statistic("truncation-short", "cosine to the full gradient", structure.COSINE.value, True, _truncation),
    Statistic("saturated", "share of values stuck at an end", gates.STUCK.value, False, _gates),
    Statistic(
        "forget-closed", "nats lost through the gate", forgetting.LOST.value, False, _each(forgetting.forget_closed_statistic)
    ),
    Statistic("dead-relu", "share of units dead", dead.DEAD.value, False, _each(lambda e, s: dead.dead_relu_statistic(s))),
    Statistic("unused", "gradient that enters over the rest, nats", unused.UNSEEN.value, True, _each(unused.unused_statistic)),
    Statistic(
        "initial-state",
        "share of the initial state",
        initial.RULED.value,
        False,
        _each(lambda e, s: initial.initial_statistic(e, s)[0]),
    ),
    Statistic(
        "ill-conditioned", "effective rank / size", structure.RANK.value, True, _each(lambda e, s: structure.rank_statistic(s)[0])
    ),
    Statistic(
        "cliff", "sharpness x rate / 2", curvature.SHARP.value, False, _whole(lambda e: curvature.cliff_statistic(e)["sharpness"])
    ),
    Statistic(
        "cliff", "rise within the step", curvature.WALL.value, False, _whole(lambda e: curvature.cliff_statistic(e)["wall"])
    ),
    Statistic("input-scale", "W x / linear range", data.LARGE.value, False, _lowest(data.input_scale_statistic)),
    Statistic("input-scale", "W x / linear range, small", data.SMALL.value, True, _lowest(data.input_scale_statistic)),
    Statistic("input-scale", "largest / smallest feature", data.UNEVEN.value, False, _lowest(data.uneven_statistic)),
    Statistic("padding-counted", "share of steps that are padding", 0.0, False, _padding),
    Statistic("nonfinite", "sources of non-finite numbers", 0.0, False, _whole(nonfinite.nonfinite_statistic)),
    Statistic(
        "loss-jumps",
        "largest jump, deviations",
        history.GRAVE.value,
        False,
        _whole(lambda e: history.loss_jumps_statistic(e)["deviations"]),
    ),
    Statistic(
        "clipping-always", "share of updates clipped", clipping.ALWAYS.value, False, _whole(clipping.clipping_always_statistic)
    ),
    Statistic(
        "clipping-never", "largest spike of the norm", clipping.SPIKE.value, False, _whole(clipping.clipping_never_statistic)
    ),
    Statistic(
        "clipping-inactive", "norm after / threshold", inactive.ABOVE.value, False, _whole(inactive.clipping_inactive_statistic)
    ),
    Statistic("update-ratio", "median |update| / |parameter|", updates.LARGE.value, False, _ratios("median")),
    Statistic("update-ratio", "largest of the first", updates.FIRST.value, False, _ratios("first")),
    Statistic("update-ratio", "ninth decile, small", updates.SMALL.value, True, _ratios("high")),
)
