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
from gradlab.errors import ValueRangeError

Array = npt.NDArray[Any]
Choice = Literal["auto", "complex", "richardson"]
CHOICES: tuple[Choice, ...] = ("auto", "complex", "richardson")

AGREE = 1e-7
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


def complex_problem(f: Callable[[Any], Array]) -> str | None:
    """Why a complex step of `f` at 0 cannot be trusted; None if Richardson agrees with it."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        warnings.filterwarnings("error", "Casting complex values")  # torch's words for the same
        try:
            exact = complex_step(f, np.zeros(()), np.ones(()))
        except Exception as error:  # a user's function may refuse complex numbers in any way; with real ones it has just run
            text = str(error).strip().splitlines()
            return f"complex step refused: {text[0] if text else type(error).__name__}"
        estimate, bound = richardson(f, np.zeros(()), np.ones(()))
    gap = np.abs(exact - estimate)
    agreed = (gap <= 100.0 * bound + AGREE * np.abs(estimate)) | ~np.isfinite(estimate)
    if agreed.all():
        return None
    worst = np.unravel_index(int(np.argmax(np.where(agreed, 0.0, gap))), gap.shape)
    return (
        f"complex step disagrees in the pre-flight: {exact[worst]:.6g}, Richardson {estimate[worst]:.6g} "
        "(np.abs, np.linalg.norm and np.sign drop the imaginary part)"
    )


def derivative(f: Callable[[Any], Array], oracle: Oracle) -> tuple[Array, Array]:
    """(f'(0), error estimate) of a function of one real variable, values of any shape; the estimate of a complex step is 0."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        if oracle.kind == "richardson":
            return richardson(f, np.zeros(()), np.ones(()))
        first = np.imag(f(1j * STEP)) / STEP
    return np.asarray(first), np.zeros(())


def rescued(f: Callable[[Any], Array], first: Array) -> Array:
    """The derivative again with a larger complex step, where `first`, with the smallest one, is lost to underflow.

    Exactly zero stays zero: what a larger step leaves there changes with its size.
    """
    with np.errstate(all="ignore"):
        large, other = (np.imag(f(1j * h)) / h for h in (LARGE_STEP, LARGE_STEP / 8.0))
        lost = np.abs(first) * STEP < np.finfo(float).tiny
        return np.where(lost & (np.abs(large - other) <= 1e-6 * np.abs(large)), large, first)
