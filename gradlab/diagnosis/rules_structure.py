"""Rules of structure: what the loss does not see, what truncation cuts off, what the initial state decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.analysis.spectra import conditioning
from gradlab.analysis.truncated_gradients import truncation
from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence, Look, Seen
from gradlab.diagnosis.finding import Finding, Number, Place
from gradlab.diagnosis.gain import gain_of, interval, median, rates, times
from gradlab.diagnosis.growth import sampled
from gradlab.diagnosis.rules_initial import initial_state
from gradlab.diagnosis.rules_unused import unused
from gradlab.errors import GradlabError

Array = npt.NDArray[Any]

__all__ = ["ill_conditioned", "initial_state", "truncation_short", "unused"]

COSINE = Threshold(0.85, "", "32 degrees; calibrated: figures/diagnosis_accuracy (text, half of the sequence: 0.94 and more)")
RATIO = Threshold(0.5, "of the norm", "half of the gradient is cut off; calibrated: figures/diagnosis_accuracy")
RANK = Threshold(
    0.15, "of the state", "calibrated: figures/diagnosis_accuracy (planted at most 0.094, healthy cells 0.24 and more)"
)


# ---- truncation ---------------------------------------------------------------------------------------------


def truncation_statistic(evidence: Evidence, look: Look) -> tuple[float, float]:
    """(cosine, norm ratio) of the gradient of truncated BPTT to the full one, over all recurrent layers; NaN if unknown."""
    told = evidence.circumstances.truncation
    if told is None or look.net is None or look.params is None or look.batch is None or look.loss is None:
        return float("nan"), float("nan")
    T = len(look.batch.inputs)
    if look.net.bidirectional or told >= T:
        return float("nan"), float("nan")
    initial = {name: layer.states[0] for name, layer in look.record.layers.items() if layer.states is not None}
    try:
        found = truncation(look.net, look.params, look.batch, look.loss, [told], initial_states=initial)
    except GradlabError:
        return float("nan"), float("nan")
    return float(np.min(found.cosine["layers"])), float(np.min(found.norm_ratio["layers"]))


def truncation_short(evidence: Evidence) -> Iterator[Finding]:
    """Truncated BPTT follows another gradient than the full one, or cannot span the dependency (Williams & Peng 1990)."""
    told, need = evidence.circumstances.truncation, evidence.circumstances.dependency
    if told is None:
        return
    for look in evidence.looks:
        cosine, ratio = truncation_statistic(evidence, look)
        numbers = {
            "cosine": Number(cosine, "", None, COSINE.value),
            "norm_ratio": Number(ratio, "of the norm", None, RATIO.value),
            "truncation": Number(float(told), "steps", None, None if need is None else float(need)),
        }
        if cosine < COSINE.value or ratio < RATIO.value:
            text = f"back {told} steps, the gradient has cosine {cosine:.2g} to the full one and {ratio:.2g} of its norm"
        elif need is not None and told <= need:
            numbers = {"truncation": numbers["truncation"]}
            text = f"truncation reaches back {told} steps, and the dependency is {need} steps long: no gradient spans it"
        else:
            continue
        yield Finding("truncation-short", "warning", Place(look.name, lag=told), text, numbers)


# ---- conditioning --------------------------------------------------------------------------------------------


def rank_statistic(seen: Seen) -> tuple[float, float]:
    """(effective rank over the units that act, ln of the condition number) of the Jacobians, median over a few steps and rows.

    Units that are exactly off, as of a ReLU, do not count. NaN if unknown, or for fewer than 8 units that act.
    """
    found = sampled(seen)
    if found is None:
        return float("nan"), float("nan")
    ranks, conditions = [], []
    for J in found:
        off = max(int((J == 0.0).all(axis=0).sum()), int((J == 0.0).all(axis=1).sum()))
        acting = len(J) - off
        if acting < 8:
            continue
        values = np.linalg.svd(J, compute_uv=False)[:acting]
        spread = conditioning(values)
        ranks.append(float(spread.effective_rank) / acting)
        conditions.append(float(spread.log_condition))
    if len(ranks) < max(1, len(found) // 2):
        return float("nan"), float("nan")
    return median(np.array(ranks)), median(np.array(conditions))


def ill_conditioned(evidence: Evidence) -> Iterator[Finding]:
    """Jacobians through which few directions pass; and what a replay's proof says of rounding errors that grow too far."""
    for look in evidence.looks:
        if look.ill_conditioned:
            yield _sensitive(evidence, look)
    for seen in evidence.layers:
        rank, condition = rank_statistic(seen)
        digits = (
            -float(np.log(np.finfo(seen.look.record.inputs.dtype).eps)) if seen.look.record.inputs.dtype.kind == "f" else 36.0
        )
        numbers = {
            "effective_rank": Number(rank, "of the state", None, RANK.value),
            "condition": Number(condition, "nats", None, digits),
        }
        place = Place(seen.name, seen.direction)
        if rank < RANK.value:
            text = f"a step's Jacobian passes {rank:.1%} of the directions of the state (effective rank)"
            yield Finding("ill-conditioned", "warning", place, text, numbers)
        elif condition > digits and not seen.layer.gates:  # h of an LSTM is nearly a function of c: half of them are near 0
            text = f"the Jacobians' condition number {times(condition)} is beyond the digits of {seen.look.record.inputs.dtype}"
            numbers = {name: numbers[name] for name in ("condition", "effective_rank")}
            yield Finding("ill-conditioned", "info", place, text, numbers)


def _sensitive(evidence: Evidence, look: Look) -> Finding:
    """The layer that amplifies most is named."""
    best: tuple[float, Seen, Array] | None = None
    for seen in evidence.layers:
        gain = gain_of(evidence, seen) if seen.look is look else None
        if gain is not None:
            speed = rates(gain, gain.reach())
            if best is None or median(speed) > best[0]:
                best = (median(speed), seen, speed)
    text = f"rounding errors grow until the replay in another precision differs: {look.ill_conditioned}"
    if best is None or np.isnan(best[0]):
        return Finding("sensitive", "warning", Place(look.name), text, {})
    value, seen, speed = best
    numbers = {"slope": Number(value, "nats per step", interval(speed), 0.0)}
    return Finding("sensitive", "warning", Place(seen.name, seen.direction), text, numbers)
