"""Rule of the initial state: what the loss, or the last output, owes to where the states started."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence, Seen
from gradlab.diagnosis.finding import Finding, Number, Place, Severity
from gradlab.diagnosis.gain import interval, median
from gradlab.directions import live
from gradlab.forward_pass import LayerPass

Array = npt.NDArray[Any]
Share = tuple[float, tuple[float, float] | None]

INITIAL = Threshold(0.5, "of the variance", "more than all inputs together")
RULED = Threshold(0.9, "of the variance", "three times the change that all inputs bring; calibrated: figures/diagnosis_accuracy")
LATCHED = Threshold(
    0.99, "of the variance", "ten times the change; calibrated: figures/diagnosis_accuracy (healthy nets to 0.98)"
)


def initial_statistic(evidence: Evidence, seen: Seen) -> Share:
    """(share, interval) of the loss's first-order variance that the initial states bring, as they differ between the rows,
    against inputs that differ as each feature does; median over the rows. NaN where all start alike, or it was not recorded.
    """
    layer, record = seen.layer, seen.look.record
    states, delta = layer.states, layer.adjoints
    fed = _fed(evidence, seen)
    if states is None or delta is None or states.ndim != 3 or states.shape[1] < 2 or not fed:
        return float("nan"), None
    started = states[0].std(axis=0)
    if not started.any() or not all(np.isfinite(one).all() for one in (states, delta, *(v for pair in fed for v in pair))):
        return float("nan"), None
    exists = live(seen.steps, record.lengths)
    by_start = 2.0 * log_norm(delta[0] * started)  # (B,)
    by_inputs = np.full(by_start.shape, -np.inf)
    for values, gradients in fed:
        here = values if exists is None else values[exists]
        size = here.reshape(-1, values.shape[-1]).std(axis=0)
        each = 2.0 * log_norm(gradients * size)  # (T, B)
        by_inputs = np.logaddexp(by_inputs, np.logaddexp.reduce(each if exists is None else np.where(exists, each, -np.inf)))
    return _share(by_start, by_inputs)


def latched_statistic(seen: Seen) -> Share:
    """(share, interval) of what changes the last output: another initial state, out of those that the layer ends in, against
    another sequence of inputs; of squared differences, median over the rows.

    A half where a net keeps everything, near 1 where only the start matters. NaN for fewer than 3 rows, or equal inputs.
    """
    run = seen.run
    if run is None or run.states.ndim != 3 or run.states.shape[1] < 3 or not np.isfinite(run.states).all():
        return float("nan"), None
    if np.ptp(run.x, axis=1).max(initial=0.0) == 0.0:
        return float("nan"), None
    ends = run.states[-1]  # a row's state is copied to behind its end
    one, other = (last_output(run, np.roll(ends, k, axis=0)) for k in (1, 2))
    # Row b: its inputs from the ends of b - 1 and of b - 2; from the end of b - 1, the inputs of b and of b + 1.
    return _share(2.0 * log_norm(one - other), 2.0 * log_norm(one - np.roll(other, -1, axis=0)))


def initial_state(evidence: Evidence) -> Iterator[Finding]:
    """What the states started from matters more than what was read.

    Where the sequences start from different states (kept from the batch before, or handed over by an encoder): info above a
    half of the variance, warning above nine tenths. Where all start alike nothing is wrong today, but a net whose last
    output would follow any other start more than ten times as much as its inputs is latched: an info, for it must not be run
    on without a reset.
    """
    for seen in evidence.layers:
        share, between = initial_statistic(evidence, seen)
        place = Place(seen.name, seen.direction)
        if share > INITIAL.value and (between is None or between[0] > INITIAL.value):
            severity: Severity = "warning" if share > RULED.value else "info"
            numbers = {"share": Number(share, "of the variance", between, INITIAL.value)}
            yield Finding(
                "initial-state", severity, place, f"the initial state brings {share:.1%} of the loss's variance", numbers
            )
        elif np.isnan(share):
            share, between = latched_statistic(seen)
            if share > LATCHED.value:
                numbers = {"share": Number(share, "of the variance", between, LATCHED.value)}
                text = f"started from a state that it ends in, {share:.1%} of what changes the last output is that state"
                yield Finding("initial-state", "info", place, text, numbers)


def last_output(run: LayerPass, start: Array) -> Array:
    """(B, outputs) what the layer emits at each row's last step if it starts from `start` (B, S), all else as in `run`."""
    cell, states, tape = run.layer.cell, np.empty_like(run.states), np.empty_like(run.tape)
    states[0] = before = start
    cell.project(run.p, run.x, tape)
    for k, t in enumerate(run.t):
        cell.step_into(run.p, tape[k], states[k], states[k + 1], int(t))
        exists = None if run.mask is None else run.mask[k][:, None]
        before = states[k] if exists is None else np.where(exists, states[k], before)
        if exists is not None:
            np.copyto(states[k + 1], states[k], where=~exists)
    return np.asarray(cell.output(states[-1], before))


def _fed(evidence: Evidence, seen: Seen) -> list[tuple[Array, Array]]:
    """(values, dL/dvalues), (T, B, n) each, of what this layer reads: the inputs, or the states of the level below."""
    if seen.level == 0:
        record = seen.look.record
        return [] if record.input_gradient is None else [(record.inputs, record.input_gradient)]
    below = [one.layer for one in evidence.layers if one.look is seen.look and one.level == seen.level - 1]
    return [(one.states[1:], one.immediate[1:]) for one in below if one.states is not None and one.immediate is not None]


def _share(first: Array, second: Array) -> Share:
    """exp(first)/(exp(first) + exp(second)), median over the rows and its interval."""
    with np.errstate(all="ignore"):
        shares = 1.0 / (1.0 + np.exp(second - first))
    shares = shares[~np.isnan(shares)]
    return median(shares), interval(shares)
