"""Exact derivatives to hold hand-written ones against, and which of them is to be trusted.

Complex step first: exact to rounding, if the function carries complex numbers. Richardson extrapolation, with an error
estimate, where it does not. Which one was used, and why, is the first line of every report; it is never swapped in silence.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab._derivatives import LARGE_STEP, STEP, complex_step, richardson
from gradlab.checks.noise import hidden_noise
from gradlab.errors import ValueRangeError

Array = npt.NDArray[Any]
Choice = Literal["auto", "complex", "richardson"]
CHOICES: tuple[Choice, ...] = ("auto", "complex", "richardson")

AGREE = 1e-10
"""Complex step and Richardson agree if they differ by no more than this, relative, or 100 times Richardson's own estimate."""


@dataclass(frozen=True)
class Oracle:
    """`kind`: "complex" or "richardson"; `why`: the reason in words; `trusted`: False if it failed its pre-flight."""

    kind: Literal["complex", "richardson"]
    why: str
    trusted: bool = True

    def __str__(self) -> str:
        name = f"complex step, h={STEP:g}" if self.kind == "complex" else "Richardson extrapolation with an error estimate"
        return f"{name} ({self.why})"


def require_choice(oracle: str) -> None:
    """Refuse anything but a known name."""
    if oracle not in CHOICES:
        raise ValueRangeError(f"oracle is {oracle!r}; expected one of {', '.join(CHOICES)}")


def choose(functions: list[Callable[[Any], Array]], wanted: Choice, forward_only: bool = False) -> Oracle:
    """The oracle for `functions` of one real variable at 0, one each for the pieces that will be differentiated.

    The pre-flight compares one complex-step derivative of each with one Richardson derivative. `forward_only`: the
    gradients to be checked are complex steps themselves, so that only Richardson is independent of them.
    """
    if wanted == "richardson":
        return Oracle("richardson", "asked for")
    if forward_only and wanted == "auto":
        return Oracle("richardson", "the cell has no backward pass of its own: its gradients are complex steps of its step")
    problem = next((found for f in functions if (found := complex_problem(f)) is not None), None)
    if problem is None:
        return Oracle(
            "complex", "asked for; pre-flight: Richardson agrees" if wanted == "complex" else "pre-flight: Richardson agrees"
        )
    if wanted == "complex":
        return Oracle("complex", f"asked for, but {problem}", trusted=False)
    return Oracle("richardson", problem)


REACHES = (1e-2, 1e-4, 1e-6, 1e-9)
"""First steps of Richardson extrapolations: a kink nearby, or a fast oscillation, needs a smaller one."""
UNRESOLVED = 1e-3
"""A Richardson estimate less certain than this share of it confirms nothing."""


def complex_problem(f: Callable[[Any], Array]) -> str | None:
    """Why a complex step of `f` at 0 cannot be trusted; None if Richardson, where it resolves it, agrees."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        warnings.filterwarnings("error", "Casting complex values")  # torch's words for the same
        try:
            exact = complex_step(lambda shift: np.array(f(shift)), np.zeros(()), np.ones(()))
        except Exception as error:  # a user's function may refuse complex numbers in any way; with real ones it has just run
            text = str(error).strip().splitlines()
            return f"complex step refused: {text[0] if text else type(error).__name__}"
    if exact.dtype != np.float64 or not np.isfinite(exact).all():
        return f"complex step gave {exact.dtype} numbers that are not all finite"
    estimate, bound = np.full(exact.shape, np.nan), np.full(exact.shape, np.inf)
    agreed = np.zeros(exact.shape, bool)
    for reach in REACHES:
        with np.errstate(all="ignore"):
            try:
                value, unsure = richardson(lambda shift: np.array(f(shift)), np.zeros(()), np.ones(()), reach)
            except Exception:  # beyond the end of the function's domain: nearer then
                continue
            size = np.maximum(np.abs(exact), np.abs(value))
            # A derivative far below the largest one is lost in the rounding of the differences; the others confirm it.
            floor = 1e-6 * np.max(size, initial=0.0, where=np.isfinite(size))
            confirmed = unsure <= np.maximum(UNRESOLVED * np.maximum(size, floor), 1e-9)
            agreed |= (np.abs(exact - value) <= 100.0 * unsure + AGREE * np.abs(value)) & confirmed
            better = (unsure < bound) & np.isfinite(value)
            estimate, bound = np.where(better, value, estimate), np.where(better, unsure, bound)
        if agreed.all():
            return None
    gap = np.nan_to_num(np.abs(exact - estimate), nan=np.inf)
    worst = np.unravel_index(int(np.argmax(np.where(agreed, -1.0, gap))), gap.shape)
    return (
        f"complex step disagrees in the pre-flight: {exact[worst]:.6g}, Richardson {estimate[worst]:.6g} +- {bound[worst]:.1g} "
        "(np.abs, np.linalg.norm and np.sign drop the imaginary part)"
    )


def derivative(f: Callable[[Any], Array], oracle: Oracle) -> tuple[Array, Array]:
    """(f'(0), error estimate) of a function of one real variable, values of any shape; the estimate of a complex step is 0."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        if oracle.kind == "richardson" or not oracle.trusted:  # what is not trusted is not run: it may raise
            return _differences(f)
        first = np.imag(f(1j * STEP)) / STEP
    return np.asarray(first), np.zeros(())


def _differences(f: Callable[[Any], Array]) -> tuple[Array, Array]:
    """Richardson at the reach that resolves each entry best; where reaches contradict each other, their distance is the error.

    Across a kink that lies nearer than its smallest step, one reach alone may be sure of a wrong number.
    """

    def values_of(shift: Any) -> Array:
        return np.array(f(shift))

    zero, one = np.zeros(()), np.ones(())
    noise = hidden_noise(values_of)
    found = [richardson(values_of, zero, one, reach, noise=noise) for reach in REACHES]
    values, errors = np.stack([one for one, _ in found]), np.stack([np.where(np.isnan(one), np.inf, one) for _, one in found])
    best = np.argmin(errors, axis=0)[None]
    value, error = (np.take_along_axis(side, best, axis=0)[0] for side in (values, errors))
    gap = np.abs(values - value)
    contradicts = (gap > 100.0 * (errors + error)) & (errors <= UNRESOLVED * np.abs(values))
    return value, np.maximum(error, np.max(gap, axis=0, where=contradicts, initial=0.0))


def rescued(f: Callable[[Any], Array], first: Array) -> Array:
    """The derivative again with a larger complex step, where `first`, with the smallest one, is lost to underflow.

    Exactly zero stays zero: what a larger step leaves there changes with its size.
    """
    with np.errstate(all="ignore"):
        lost = np.abs(first) * STEP < np.finfo(float).tiny
        large = np.imag(f(1j * LARGE_STEP)) / LARGE_STEP
        if not (large * lost).any():
            return first
        other = np.imag(f(1j * LARGE_STEP / 8.0)) / (LARGE_STEP / 8.0)
        return np.where(lost & (np.abs(large - other) <= 1e-6 * np.abs(large)), large, first)
