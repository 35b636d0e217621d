"""What the gates do: how often they are saturated, how long they remember, and which units do nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_number
from gradlab.analysis.slopes import require_share
from gradlab.directions import broadcast_mask, live
from gradlab.errors import ValueRangeError
from gradlab.record import Record, require_layers
from gradlab.status import OK, Status

Array = npt.NDArray[Any]

SIGNED = ("g", "n")
"""Gates between -1 and 1, the candidates of LSTM and GRU; all others are between 0 and 1."""


@dataclass(frozen=True)
class GateSaturation:
    """Share of steps and sequences at which each unit of each gate is saturated; keys "layer/gate", arrays (*E, H).

    `left`: at most `low` of the way from the gate's lower end to its upper, closed; `right`: at least `high` of it, open.
    `left_share`, `right_share` (*E,): the means over the units. `samples`: steps times sequences behind each number.
    """

    left: Mapping[str, Array]
    right: Mapping[str, Array]
    left_share: Mapping[str, Array]
    right_share: Mapping[str, Array]
    low: float
    high: float
    samples: int
    status: Status


def gate_saturation(record: Record, low: float = 0.1, high: float = 0.9, *, signed: Collection[str] = SIGNED) -> GateSaturation:
    """How often each gate of each unit is left- and right-saturated (Karpathy, Johnson & Fei-Fei 2015).

    The thresholds of the paper, 0.1 and 0.9, are for gates from 0 to 1; those in `signed` run from -1 to 1 and have theirs
    at the same share of the range, -0.8 and 0.8. Steps that do not exist do not count.
    Errors: ValueRangeError for a record without gates, or unless 0 < low < high < 1.
    """
    if not 0.0 < require_number("low", low) < require_number("high", high) < 1.0:
        raise ValueRangeError(f"low is {low} and high is {high}; expected 0 < low < high < 1")
    values = _gates(record)
    left, right = {}, {}
    mask = live(len(record.inputs), record.lengths)
    for key, gate in values.items():
        if key.rpartition("/")[2] in signed:
            gate = 0.5 * (gate + 1.0)
        left[key], right[key] = _mean(gate <= low, mask), _mean(gate >= high, mask)
    left_share, right_share = [{key: share.mean(axis=-1) for key, share in side.items()} for side in (left, right)]
    T, B = record.inputs.shape[0], record.inputs.shape[-2]
    samples = T * B if mask is None else int(mask.sum())
    return GateSaturation(left, right, left_share, right_share, float(low), float(high), samples, _finite(values))


@dataclass(frozen=True)
class GateTimeConstants:
    """The steps in which the memory of each unit falls to 1/e if it is multiplied by its forget gate at each: -1/mean ln f.

    Keys are "layer/gate", arrays (*E, H). `rates`: -mean of ln f over steps and sequences, in nats per step; `errors`: its
    standard error over the sequences, NaN for a single one. `time_constants` = 1/rates: inf where f = 1 throughout, 0
    where f was 0. `steps`: T, for comparison; `beyond` (*E,): the share of units that remember for longer than that.
    """

    time_constants: Mapping[str, Array]
    rates: Mapping[str, Array]
    errors: Mapping[str, Array]
    beyond: Mapping[str, Array]
    steps: int
    status: Status


def gate_time_constants(record: Record, gate: str | None = None) -> GateTimeConstants:
    """Time constants of the gate that keeps, unit by unit: f of an LSTM, z of a GRU (`gate`: another one).

    The geometric mean of f over the steps is what the product of the f_t, the derivative along the cell path (Gers,
    Schmidhuber & Cummins 2000), really decays by. Steps that do not exist do not count.
    Error: ValueRangeError if no layer has such a gate.
    """
    kept = _gates(record)
    names = ("f", "z") if gate is None else (gate,)
    values = {key: value for key, value in kept.items() if key.rpartition("/")[2] in names}
    if not values:
        raise ValueRangeError(f"gate is {gate!r}; expected one of those in the record, {', '.join(kept)}")
    mask = live(len(record.inputs), record.lengths)
    T, B = record.inputs.shape[0], record.inputs.shape[-2]
    steps = np.full((B, 1), T) if record.lengths is None else record.lengths[:, None]
    rates, errors, constants, beyond = {}, {}, {}, {}
    for key, value in values.items():
        with np.errstate(all="ignore"):  # f = 0 forgets at once: ln f = -inf, a time constant of 0
            nats = -np.log(value)
            total = (nats if mask is None else np.where(broadcast_mask(mask, nats), nats, 0.0)).sum(axis=0)  # (*E, B, H)
            rates[key] = total.sum(axis=-2) / steps.sum()
            each = total / steps  # mean rate of each sequence
            errors[key] = each.std(axis=-2, ddof=1) / np.sqrt(B) if B > 1 else np.full(rates[key].shape, np.nan)
            constants[key] = 1.0 / np.abs(rates[key])  # abs: -ln 1 = -0.0
        beyond[key] = (constants[key] > T).mean(axis=-1)
    return GateTimeConstants(constants, rates, errors, beyond, T, _finite(values))


@dataclass(frozen=True)
class UnitActivity:
    """Which units do nothing. Keys "layer/part" for the state and "layer/gate" for gates, arrays (*E, units).

    `dead`: exactly 0 at every step of every sequence, as a ReLU that is never active. `stuck`: its range over all steps and
    sequences is at most `threshold` times what it could be: the widest range among the units of that part, or the range of the
    gate, 1 or 2. A dead unit is stuck too. `ranges`: largest minus smallest value.
    """

    dead: Mapping[str, Array]
    stuck: Mapping[str, Array]
    ranges: Mapping[str, Array]
    threshold: float
    status: Status


def unit_activity(record: Record, threshold: float = 0.01, *, signed: Collection[str] = SIGNED) -> UnitActivity:
    """Dead and stuck units of every part of the state and of every gate, over a whole batch.

    The initial state does not count, nor do steps that do not exist. Dead ReLU units: Maas, Hannun & Ng (2013).
    Errors: ValueRangeError unless 0 < threshold < 1, or for a record without states.
    """
    threshold = require_share("threshold", threshold)
    require_layers(record)
    mask = live(len(record.inputs), record.lengths)
    dead, stuck, ranges = {}, {}, {}
    seen: dict[str, Array] = {}
    for name, layer in record.layers.items():
        for part in layer.parts:
            seen[f"{name}/{part}"] = layer.series("states", part)[1:]
    gates = _gates(record) if any(layer.gates for layer in record.layers.values()) else {}
    for key, value in [*seen.items(), *gates.items()]:
        exists = np.ones((), bool) if mask is None else broadcast_mask(mask, value)
        axes = (0, -2)
        largest = np.max(value, axis=axes, where=exists, initial=-np.inf)
        smallest = np.min(value, axis=axes, where=exists, initial=np.inf)
        ranges[key] = largest - smallest
        dead[key] = (largest == 0.0) & (smallest == 0.0)
        if key in gates:
            width: Any = 2.0 if key.rpartition("/")[2] in signed else 1.0
        else:
            width = ranges[key].max(axis=-1, keepdims=True)
        stuck[key] = ranges[key] <= threshold * width
    return UnitActivity(dead, stuck, ranges, threshold, _finite({**seen, **gates}))


def _gates(record: Record) -> dict[str, Array]:
    """Gate values (T, *E, B, H) by "layer/gate"."""
    require_layers(record)
    found = {f"{name}/{gate}": value for name, layer in record.layers.items() for gate, value in layer.gates.items()}
    if not found:
        raise ValueRangeError('record has no gates; expected one of a gated cell, made with keep=(..., "gates")')
    return found


def _mean(hits: Array, mask: Array | None) -> Array:
    """Share of True over steps and sequences, (*E, H)."""
    if mask is None:
        return np.asarray(hits.mean(axis=(0, -2)))
    return np.asarray((hits & broadcast_mask(mask, hits)).sum(axis=(0, -2)) / mask.sum())


def _finite(values: Mapping[str, Array]) -> Status:
    for key, value in values.items():
        if not np.isfinite(value).all():
            return Status("overflow", f"{key} holds numbers that are not finite")
    return OK
