"""How large the gradient is at each time step, and how far back it reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab._validate import as_numbers
from gradlab.analysis.slopes import FlowSlope, flow_slope, require_share
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.record import Record, require_layers
from gradlab.status import OK, Status

Array = npt.NDArray[Any]
Measured = TypeVar("Measured", FlowSlope, "MemoryHorizon")


@dataclass(frozen=True)
class GradientFlow:
    """Natural logarithms of gradient norms, row t for step t; -inf where a gradient is exactly zero.

    Keys are "layer/part", e.g. "0/c" and "0/h", and "layer" for the whole state. Each array (T+1, *E, B).
    `log_total`: ln norm of delta_t, the TOTAL derivative dL/ds_t through all later steps.
    `log_immediate`: ln norm of e_t, the direct partial at step t alone.
    """

    log_total: Mapping[str, Array]
    log_immediate: Mapping[str, Array]
    status: Status = OK

    def slope(self, key: str, lags: tuple[int, int] | None = None, confidence: float = 0.95) -> FlowSlope:
        """Nats per step that the gradient of the LAST step's loss gains, or loses, in `key`: see `flow_slope`.

        Its status is `many-origins` under the same condition as that of `memory_horizon`. Error: ValueRangeError for an
        unknown key.
        """
        return self._qualified(key, flow_slope(self._of(key), lags, confidence))

    def memory_horizon(self, key: str, level: float = float(np.exp(-1.0)), confidence: float = 0.95) -> MemoryHorizon:
        """How far the gradient of the LAST step's loss reaches back in `key`, e.g. "0/c": see `memory_horizon`.

        Its status is `many-origins` if the loss (or, below the top layer, the layer above) reaches this part of the state
        directly at earlier steps too: then what is at a step came from many lags, and a horizon means nothing.
        Error: ValueRangeError for an unknown key.
        """
        return self._qualified(key, memory_horizon(self._of(key), level, confidence))

    def _of(self, key: str) -> Array:
        if key not in self.log_total:
            raise ValueRangeError(f"key is {key!r}; expected one of {', '.join(self.log_total)}")
        return self.log_total[key]

    def _qualified(self, key: str, found: Measured) -> Measured:
        """`found` with the status `many-origins` if that applies; numbers that are none come before it."""
        if found.status.code == "overflow":
            return found
        return replace(found, status=self._origins(key) or found.status)

    def _origins(self, key: str) -> Status | None:
        """The status `many-origins`, or None if the loss of the last step is all that reaches the state directly."""
        state = self.log_immediate[key.partition("/")[0]]
        origins = int((state[:-1] > -np.inf).any(axis=tuple(range(1, state.ndim))).sum())
        if not origins:
            return None
        detail = f"the state has a gradient of its own at {origins} steps before the last; measure the loss of the last step"
        return Status("many-origins", f"{detail}, at the top layer")


def gradient_flow(record: Record) -> GradientFlow:
    """Norms of total and immediate gradients of every layer and part of the state, at every step, for every sequence.

    Needs a record made with keep=("adjoints", "immediate", ...). Norms are log-scaled: 1e-200 is not 0.
    """
    require_layers(record)
    total: dict[str, Array] = {}
    immediate: dict[str, Array] = {}
    for name, layer in record.layers.items():
        for part in (None, *layer.parts):
            key = name if part is None else f"{name}/{part}"
            total[key] = log_norm(layer.series("adjoints", part))
            immediate[key] = log_norm(layer.series("immediate", part))
    return GradientFlow(total, immediate, record.status)


@dataclass(frozen=True)
class MemoryHorizon:
    """The number of steps in which the gradient falls below `level` of its reference, and stays below.

    The reference is its value at the first lag where it is not exactly zero, and the steps count from there: lag 0,
    or lag 1 for the cell of an LSTM, which the loss at the last step reads only through h.
    `lags` (*E, B): one for each sequence, interpolated in ln norm; inf where it never falls so far within the
    sequence, NaN where the gradient is zero at every lag.
    `median`, `low`, `high`: over the sequences, with the quartiles.
    `interval`: where the median of all sequences like these lies, with at least the probability `confidence`, from order
    statistics (any distribution; Conover 1999, sec. 3.2); (0, inf) where there are too few sequences for that, 5 or fewer
    for 0.95. The sequences are taken for independent draws: of an ensemble, look at each member by itself.
    `status`: `beyond-range` if the median is inf, `too-short` if there are fewer than 3 steps,
    `no-gradient` if it is zero throughout; from `GradientFlow.memory_horizon` also `many-origins`.
    """

    lags: Array
    median: float
    low: float
    high: float
    level: float
    status: Status
    interval: tuple[float, float] = (0.0, float("inf"))
    confidence: float = 0.95


def memory_horizon(log_total: Array, level: float = float(np.exp(-1.0)), confidence: float = 0.95) -> MemoryHorizon:
    """Horizon of a flow ln norm(dL/ds_t), (T+1, *E, B), of a loss at the last step only: lag 0 is row T.

    Errors: ValueRangeError unless 0 < level < 1 and 0 < confidence < 1; ShapeError for fewer than 2 rows.
    """
    require_share("confidence", confidence)
    level = require_share("level", level)
    log_total = as_numbers("log_total", log_total, allow_complex=False)
    if log_total.ndim < 1 or log_total.shape[0] < 2 or log_total.size == 0:
        raise ShapeError(f"log_total has shape {log_total.shape}; expected (T+1, ...) with T >= 1 and at least one sequence")
    by_lag = log_total[::-1].reshape(log_total.shape[0], -1)
    lags = np.array([_last_crossing(by_lag[:, k], float(np.log(level))) for k in range(by_lag.shape[1])])
    low, median, high = (float(np.quantile(lags, q, method="inverted_cdf")) for q in (0.25, 0.5, 0.75))
    steps = log_total.shape[0] - 1
    status = OK
    if np.isnan(by_lag).any() or np.isposinf(by_lag).any():
        status = Status("overflow", "the flow holds numbers beyond the range of floats")
    elif steps < 3:
        status = Status("too-short", f"{steps} step(s); a horizon needs at least 3")
    elif np.isnan(lags).any():
        status = Status(
            "no-gradient", f"the gradient is zero, or not a number, at every lag for {int(np.isnan(lags).sum())} sequences"
        )
    elif np.isinf(median):
        status = Status("beyond-range", f"the gradient is still above {level:.3g} of its reference after {steps} steps")
    interval = median_interval(lags, confidence)
    return MemoryHorizon(lags.reshape(log_total.shape[1:]), median, low, high, level, status, interval, confidence)


def median_interval(values: Array, confidence: float) -> tuple[float, float]:
    """Distribution-free interval of the median of what `values` (n,), at least 0, are a sample of: order statistics r and
    n+1-r with the largest r for which P(Binomial(n, 1/2) < r) <= (1 - confidence)/2; (0, inf) if there is none, or a NaN.
    """
    from scipy.special import bdtr

    n = len(values)
    ranks = np.arange(1, n // 2 + 1)
    r = int(np.sum(bdtr(ranks - 1.0, n, 0.5) <= 0.5 * (1.0 - confidence)))
    if r == 0 or np.isnan(values).any():
        return 0.0, float("inf")
    ordered = np.sort(values)
    return float(ordered[r - 1]), float(ordered[n - r])


def _last_crossing(by_lag: Array, log_level: float) -> float:
    """Steps from the reference to where the curve falls below it by `log_level` for good, interpolated."""
    present = np.flatnonzero(np.isfinite(by_lag))
    if not len(present):
        return float("nan")
    threshold = by_lag[present[0]] + log_level
    last = int(np.flatnonzero(by_lag >= threshold)[-1])
    if last == len(by_lag) - 1:
        return float("inf")
    drop = by_lag[last] - by_lag[last + 1]
    return float(last - present[0] + ((by_lag[last] - threshold) / drop if np.isfinite(drop) else 0.0))
