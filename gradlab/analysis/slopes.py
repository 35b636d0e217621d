"""The rate at which the gradient vanishes or explodes: the slope of its logarithm against the lag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import as_numbers, require_count, require_number
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FlowSlope:
    """Least-squares slope of ln norm(dL/ds_t) against the lag T - t, in nats per step: below 0 the gradient vanishes.

    `slopes` (*E, B): of each sequence; NaN where fewer than 3 lags have a gradient. `errors` (*E, B): standard error of
    each; the slope is a weighted mean of the steps' own increments of ln norm, which are taken for uncorrelated (the points
    themselves are not: they are running sums, and the textbook error of a fit would be too small).
    `slope`: the mean over the sequences. `interval`: it lies there with the probability `confidence`, by Student's t from
    the spread of the sequences; of a single sequence, from its own standard error, and Student's t for its increments.
    `half_life`: ln 2/-slope steps, inf if the slope is not negative; `half_life_interval`: from the ends of `interval`.
    `lags`: first and last lag of the fit. `status`: `overflow`; `too-short` if some sequence has fewer than 3 lags with a
    gradient; `underflow` if the gradient of some is exactly zero at further lags, which the fit leaves out.
    """

    slopes: Array
    errors: Array
    slope: float
    interval: tuple[float, float]
    confidence: float
    half_life: float
    half_life_interval: tuple[float, float]
    lags: tuple[int, int]
    status: Status


def flow_slope(log_total: Array, lags: tuple[int, int] | None = None, confidence: float = 0.95) -> FlowSlope:
    """Slope of a flow ln norm(dL/ds_t), (T+1, *E, B), of a loss at the last step only: lag 0 is row T.

    `lags`: the first and last one to use, (0, T) by default. Lags at which the gradient is exactly zero are left out.
    The sequences are taken for independent draws: of an ensemble, look at each member by itself.
    Errors: ShapeError for fewer than 3 rows; ValueRangeError for lags that are not there or a confidence outside (0, 1).
    """
    confidence = require_share("confidence", confidence)
    log_total = as_numbers("log_total", log_total, allow_complex=False)
    if log_total.ndim < 1 or log_total.shape[0] < 3 or log_total.size == 0:
        raise ShapeError(f"log_total has shape {log_total.shape}; expected (T+1, ...) with T >= 2 and at least one sequence")
    T = log_total.shape[0] - 1
    if lags is not None and len(lags) != 2:
        raise ValueRangeError(f"lags is {lags}; expected the first and the last one")
    first, last = (0, T) if lags is None else (require_count("lags[0]", lags[0], 0), require_count("lags[1]", lags[1], 0))
    if not (last <= T and last - first >= 2):
        raise ValueRangeError(f"lags are ({first}, {last}); expected at least 3 of them, from 0 to T = {T}")
    by_lag = log_total[::-1].reshape(T + 1, -1)[first : last + 1].astype(np.float64)
    slopes, errors, points = _fits(by_lag)
    known = np.isfinite(slopes)
    slope, interval = float("nan"), (float("nan"), float("nan"))
    if known.all():
        slope = float(slopes.mean())
        spread = float(slopes.std(ddof=1) / np.sqrt(len(slopes))) if len(slopes) > 1 else float(errors[0])
        freedom = len(slopes) - 1 if len(slopes) > 1 else int(points[0]) - 2
        half_width = _student(freedom, confidence) * spread
        interval = (slope - half_width, slope + half_width)
    shape = log_total.shape[1:]
    return FlowSlope(
        slopes.reshape(shape),
        errors.reshape(shape),
        slope,
        interval,
        confidence,
        _half_life(slope),
        (_half_life(interval[0]), _half_life(interval[1])),
        (first, last),
        _status(by_lag, points),
    )


def _fits(by_lag: Array) -> tuple[Array, Array, Array]:
    """Slope, its standard error and the number of points of each column, over the rows that are finite."""
    here = np.isfinite(by_lag)
    points = here.sum(axis=0)
    lag = np.arange(len(by_lag), dtype=np.float64)[:, None]
    y = np.where(here, by_lag, 0.0)
    usable = (points >= 3) & ~(np.isnan(by_lag) | (by_lag == np.inf)).any(axis=0)
    count = np.maximum(points, 1)
    centred = np.where(here, lag - (lag * here).sum(axis=0) / count, 0.0)
    size = np.where(usable, (centred**2).sum(axis=0), 1.0)
    offset = y.sum(axis=0) / count  # first, for digits: ln norm may be large and its slope small
    slopes = (centred * np.where(here, y - offset, 0.0)).sum(axis=0) / size
    # slope = sum_i w_i y_i = sum over gaps of (tail sum of w) (increment of y): weights of a parabola. If increments have the
    # variance s^2 per step and are uncorrelated, the variance of the slope is s^2 sum (gap length) (tail sum)^2.
    tail = np.cumsum((centred / size)[::-1], axis=0)[::-1]
    index = np.where(here, np.arange(len(here))[:, None], -1)
    before = np.vstack([np.full((1, here.shape[1]), -1), np.maximum.accumulate(index, axis=0)[:-1]])  # the last point so far
    step = here & (before >= 0)
    gap = np.where(step, index - before, 1)
    rest = np.where(step, y - np.take_along_axis(y, np.maximum(before, 0), axis=0) - slopes * gap, 0.0)
    variance = (rest**2 / gap).sum(axis=0) / np.maximum(points - 2, 1)
    errors = np.sqrt(variance * np.where(step, gap * tail**2, 0.0).sum(axis=0))
    return np.where(usable, slopes, np.nan), np.where(usable, errors, np.nan), points


def _half_life(slope: float) -> float:
    if np.isnan(slope):
        return float("nan")
    with np.errstate(over="ignore"):  # a slope of 1e-320 has a half-life of inf
        return float(np.log(2.0) / np.float64(-slope)) if slope < 0.0 else float("inf")


def _student(freedom: int, confidence: float) -> float:
    """The quantile of Student's t that holds the share `confidence` between -t and t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + 0.5 * confidence))


def _status(by_lag: Array, points: Array) -> Status:
    if np.isnan(by_lag).any() or np.isposinf(by_lag).any():
        return Status("overflow", "the flow holds numbers beyond the range of floats")
    if (points < 3).any():
        return Status("too-short", f"{int((points < 3).sum())} sequences have a gradient at fewer than 3 lags")
    present = np.isfinite(by_lag)
    lost = np.flatnonzero(~present[-1])
    if len(lost):
        first = int(np.argmin(present[:, lost[0]] | (np.cumsum(present[:, lost[0]]) == 0)))
        return Status("underflow", f"the gradient is exactly zero further back in {len(lost)} sequences, e.g. at lag {first}")
    return OK


def require_share(name: str, value: object) -> float:
    """`value` as a number between 0 and 1, both excluded."""
    number = require_number(name, value, "a share between 0 and 1")
    if not 0.0 < number < 1.0:
        raise ValueRangeError(f"{name} is {value}; expected a share between 0 and 1")
    return number
