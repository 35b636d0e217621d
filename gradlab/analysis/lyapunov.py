"""Lyapunov exponents: how fast neighbouring trajectories part, direction by direction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._validate import as_numbers, require_count, require_generator
from gradlab.analysis._lyapunov_meter import Meter, Progress
from gradlab.analysis._lyapunov_qr import Frame
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LyapunovSpectrum:
    """The first k Lyapunov exponents, natural logarithms per step (or per unit of time: see `unit`), descending.

    `exponents` (*L, k): -inf for directions that a singular Jacobian has removed, NaN for members with a non-finite one.
    `standard_error` (*L, k): of the mean over consecutive blocks of time; too small if motions last longer than a block.
    `mean`, `mean_error` (..., k): over the last of the axes *L, the batch; None if there is none, the error NaN for one row.
    `finite_time` (n, *L, k): the exponents of each block alone, of `block_steps` (n,) steps each.
    `history` (n, *L, k): the estimate after the first 1, ..., n blocks; its last row is `exponents`.
    `kaplan_yorke` (*L,): the dimension j + (lambda_1 + ... + lambda_j)/|lambda_{j+1}|, j the largest index with a sum that is
    not negative (Kaplan & Yorke 1979); NaN if that needs more than k exponents.
    `entropy` (*L,): the sum of the positive exponents, an upper bound of the entropy rate (Ruelle 1978) if k reaches the
    first that is not positive.
    `steps` counted, after `transient` steps that were left out; `interval`: the longest without re-orthonormalisation;
    `rounding` (*L,): estimated error that rounding between factorisations makes, mostly far below `standard_error`. Where growth
    fluctuates so much that directions overtake each other, exponents over a finite time depend on the last digits of
    the Jacobians by more than that, as much as on the first tangent vectors: within `standard_error`.
    `status`: `overflow` with the first bad step; `rank-deficient` if a Jacobian is singular to working precision;
    `too-short` for a single block, which has no standard error.
    """

    exponents: Array
    standard_error: Array
    mean: Array | None
    mean_error: Array | None
    finite_time: Array
    block_steps: Array
    history: Array
    kaplan_yorke: Array
    entropy: Array
    steps: int
    transient: int
    interval: int
    rounding: Array
    unit: str
    status: Status


def lyapunov_spectrum(
    jacobians: Iterable[Array],
    k: int | None = None,
    *,
    rng: np.random.Generator,
    transient: int | None = None,
    interval: int | None = None,
    blocks: int = 20,
    progress: Progress | None = None,
) -> LyapunovSpectrum:
    """The first `k` exponents (default: all S) of J_1, J_2, ..., given in the order of time, (*L, S, S) each.

    By QR factorisation (Benettin et al. 1980; Shimada & Nagashima 1979; Geist, Parlitz & Lauterborn 1990). All products in *L
    run at once; the Jacobians may come from a generator, of any length. Nats per step.

    `rng` draws the first tangent vectors. `transient`: steps that turn them but do not count (default: at most a tenth).
    `interval`: steps between factorisations; by default as long as rounding allows, which is measured as it goes.
    `blocks`: of time for the standard errors; up to twice as many are kept. `progress(done, total)`, total None if unknown.
    Errors: ShapeError, DTypeError, ValueRangeError for bad input; NumericalError if `interval` is too long for the
    smallest exponent, with the largest that is safe; ResourceRefused if it asks to hold too many Jacobians.
    """
    total = len(jacobians) if isinstance(jacobians, Sized) else None
    held = isinstance(jacobians, (np.ndarray, Sequence))  # a generator may write to the same array again
    if not isinstance(jacobians, Iterable):
        raise DTypeError(f"jacobians is a {type(jacobians).__name__}; expected an iterable of arrays (..., S, S)")
    meter: Meter | None = None
    shape: tuple[int, ...] = ()
    for t, given in enumerate(jacobians):
        J = as_numbers(f"jacobians[{t}]", given)
        if meter is None:
            if J.ndim < 2 or J.shape[-1] != J.shape[-2] or J.size == 0:
                raise ShapeError(f"jacobians[{t}] has shape {J.shape}; expected (..., S, S) with S >= 1")
            shape = J.shape
            meter = start_meter(
                shape[:-1], k, rng, transient, interval, blocks, held=0 if held else J.nbytes, total=total, progress=progress
            )
        elif J.shape != shape:
            raise ShapeError(f"jacobians[{t}] has shape {J.shape}; expected {shape} as the first")
        meter.feed(partial(np.matmul, J if held else J.copy()))
    if meter is None:
        raise ShapeError("jacobians is empty; expected at least one matrix (S, S)")
    return read_meter(meter)


def start_meter(
    vectors: tuple[int, ...],
    k: int | None,
    rng: np.random.Generator,
    transient: int | None,
    interval: int | None,
    blocks: int,
    *,
    held: int,
    total: int | None,
    progress: Progress | None,
    planned: int | None = None,
) -> Meter:
    """A meter for tangent vectors of shape `vectors` (*L, S), all arguments checked; `held`: bytes per step that wait.

    `planned`: see `Meter`. A stream leaves it out, for the same bits whether its length is known or not.
    """
    require_generator("rng", rng)
    size = vectors[-1]
    count = size if k is None else require_count("k", k)
    if count > size:
        raise ValueRangeError(f"k is {count}; expected at most S = {size}, or None for all")
    if transient is not None and require_count("transient", transient, 0) >= (total or np.inf):
        raise ValueRangeError(f"transient is {transient} of {total} steps; expected fewer, so that some are left to count")
    if interval is not None:
        refuse_above(held * require_count("interval", interval), None, f"interval = {interval}", "shorten it, or leave it None")
    frame = Frame(vectors[:-1], size, count, rng)
    return Meter(
        frame,
        transient=transient,
        interval=interval,
        blocks=require_count("blocks", blocks, 2),
        held=held,
        planned=planned,
        total=total,
        progress=progress,
    )


def read_meter(meter: Meter, pace: float = 1.0, unit: str = "nats per step") -> LyapunovSpectrum:
    """What the meter has measured, with `pace` units of time per step."""
    block_steps, sums, transient = meter.counted()
    weight = block_steps.reshape(-1, *(1,) * (sums.ndim - 1)).astype(float)
    with np.errstate(all="ignore"):  # -inf minus -inf has no standard error
        finite_time = sums / (weight * pace)
        history = np.cumsum(sums, axis=0) / (np.cumsum(weight, axis=0) * pace)
        order = np.argsort(-history[-1], axis=-1, kind="stable")
        finite_time, history = (np.take_along_axis(own, order[None], axis=-1) for own in (finite_time, history))
        exponents, n, steps = history[-1], len(sums), int(block_steps.sum())
        # the weighted variance of the mean of n blocks; with equal blocks, the variance over them divided by n
        spread = np.sqrt(((weight / steps * (finite_time - exponents)) ** 2).sum(axis=0) * n / max(n - 1, 1))
        error = np.where(np.isfinite(exponents), spread if n > 1 else np.nan, np.nan)
        mean = mean_error = None
        if exponents.ndim > 1:
            rows = exponents.shape[-2]
            mean = exponents.mean(axis=-2)
            scatter = exponents.std(axis=-2, ddof=1) / np.sqrt(rows) if rows > 1 else np.full_like(mean, np.nan)
            mean_error = np.where(np.isfinite(mean), scatter, np.nan)
    return LyapunovSpectrum(
        exponents=exponents,
        standard_error=error,
        mean=mean,
        mean_error=mean_error,
        finite_time=finite_time,
        block_steps=block_steps,
        history=history,
        kaplan_yorke=_kaplan_yorke(exponents, meter.frame.Q.shape[-2]),
        entropy=np.asarray(np.where(np.isnan(exponents), np.nan, np.maximum(exponents, 0.0)).sum(axis=-1)),
        steps=steps,
        transient=transient,
        interval=meter.longest,
        rounding=np.where(meter.frame.lost, np.nan, meter.error / (steps * pace)),
        unit=unit,
        status=_status(meter, exponents, sums.reshape(n, -1).min(axis=-1) == -np.inf, transient + np.cumsum(block_steps)),
    )


def _kaplan_yorke(exponents: Array, size: int) -> Array:
    """The dimension from descending exponents (*L, k) of a state of `size` S."""
    with np.errstate(all="ignore"):
        partial_sums = np.cumsum(exponents, axis=-1)
        j = np.cumprod(partial_sums >= 0.0, axis=-1).sum(axis=-1)
        padded = np.concatenate([np.zeros_like(partial_sums[..., :1]), partial_sums], axis=-1)
        reached = np.take_along_axis(padded, j[..., None], axis=-1)[..., 0]
        following = np.take_along_axis(exponents, np.minimum(j, exponents.shape[-1] - 1)[..., None], axis=-1)[..., 0]
        inside = j + reached / np.abs(following)
    k = exponents.shape[-1]
    found = np.where(j < k, inside, float(size) if k == size else np.nan)
    return np.asarray(np.where(np.isnan(exponents).any(axis=-1), np.nan, found))


def _status(meter: Meter, exponents: Array, singular: Array, ends: Array) -> Status:
    """`singular` (n,): the blocks with a singular Jacobian; `ends` (n,): the last step of each block."""
    if meter.lost_at:
        lost = f"{int(meter.frame.lost.sum())} of {meter.frame.lost.size} products; their exponents are NaN"
        return Status("overflow", f"a Jacobian is not finite at step {meter.lost_at}, in {lost}")
    if singular.any():
        where = f"a Jacobian is singular to working precision at or before step {ends[int(np.argmax(singular))]}"
        return Status("rank-deficient", f"{where}; {int(np.isneginf(exponents).sum())} of {exponents.size} exponents are -inf")
    if len(ends) < 2:
        return Status("too-short", "one block of steps, which has no standard error; give more steps")
    return OK
