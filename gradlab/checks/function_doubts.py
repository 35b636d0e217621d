"""What may excuse a function's gradient that does not agree, in the order of `gradlab.checks.doubts`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.checks.doubts import Kinks
from gradlab.checks.function_along import DIRECTIONS, FunctionAlong
from gradlab.checks.judgement import FAILED, PASSED, Quantity
from gradlab.checks.kink import COARSE, FINE, between, rounding
from gradlab.checks.oracle import AGREE, Oracle, derivative

Array = npt.NDArray[Any]


def excuse(
    again: Callable[[], tuple[Array, list[Array]]],
    cotangent: Array,
    here: Array,
    claims: list[Array],
    along: FunctionAlong,
    quantities: list[Quantity],
    oracle: Oracle,
    kink: Kinks,
) -> str | None:
    """What excuses a mismatch, in words; withheld entries are marked. `again`: f and vjp once more."""
    everything = [(quantity, np.ones(quantity.value.shape, bool)) for quantity in quantities]
    if not oracle.trusted:
        for quantity, where in everything:
            quantity.oracle = np.full(quantity.value.shape, np.nan)  # it was not asked
            quantity.withhold(where, "oracle-disagrees")
        return None
    if here.dtype == np.float32:
        for quantity in quantities:
            quantity.withhold(quantity.verdict == PASSED, "floor")
        return (
            "f computes in float32, whose differences cannot certify a gradient; let it compute in float64 "
            "(JAX: jax_enable_x64, torch: .double())"
        )
    if not np.isfinite(here).all():
        for quantity, where in everything:
            quantity.withhold(where, "nonfinite")
        return f"f is not finite at the point: {int((~np.isfinite(here)).sum())} of {here.size} outputs"
    if not any(quantity.verdict.any() for quantity in quantities):
        return None if along.single else f"too many entries to take one by one: sums along {DIRECTIONS} random directions agree"
    value, back = again()
    if not np.array_equal(value, here) or not all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(back, claims, strict=True)
    ):
        for quantity in quantities:
            quantity.withhold(quantity.verdict != PASSED, "nondeterministic")
        return "two identical calls differ; freeze every generator that f and vjp use"
    if kink != "fail" and here.dtype == np.float64:  # the rounding of float32 looks like kinks
        for k, quantity in enumerate(quantities):
            _kinks(k, quantity, cotangent, here, along, kink)
    for quantity in quantities:  # subnormal numbers have lost digits on both sides
        tiny = np.finfo(float).tiny / np.finfo(float).eps * max(1.0, float(np.abs(cotangent).max()))
        with np.errstate(all="ignore"):
            lost = np.abs(quantity.value - quantity.oracle) <= tiny
            # Where nothing depends on the entry, a number far below the rounding of f itself is no gradient and no fault.
            lost |= (quantity.scale == 0.0) & (
                np.abs(quantity.value) <= 8.0 * np.finfo(float).eps * np.abs(here * cotangent).sum()
            )
            quantity.withhold((quantity.verdict == FAILED) & lost, "floor")
    if oracle.kind == "complex":
        for k, quantity in enumerate(quantities):
            _second_opinion(k, quantity, cotangent, along)
    return None


def _second_opinion(k: int, quantity: Quantity, cotangent: Array, along: FunctionAlong) -> None:
    """Withhold what a complex step accuses and Richardson, which disagrees with it, does not."""
    for index in np.argwhere(quantity.verdict == FAILED):
        at = tuple(index)
        f, size = along.at(k, at[2:], quantity.value.shape[2:])
        slopes, errors = derivative(f, Oracle("richardson", "second opinion"))
        r = float((slopes * cotangent).sum() / size)
        bound = 4.0 * float((errors * np.abs(cotangent)).sum() / size) + AGREE * float(quantity.scale[at])
        if abs(quantity.value[at] - r) <= bound < abs(quantity.oracle[at] - r):
            one = np.zeros(quantity.value.shape, bool)
            one[at] = True
            quantity.withhold(one, "oracle-disagrees")


def _kinks(k: int, quantity: Quantity, cotangent: Array, here: Array, along: FunctionAlong, policy: Kinks) -> None:
    noise = rounding(float(np.abs(here * cotangent).sum()))
    for index in np.argwhere(quantity.verdict == FAILED):
        at = tuple(index)
        f, size = along.at(k, at[2:], quantity.value.shape[2:])
        sides = []
        for h in (COARSE, FINE):
            above, below = np.array(f(np.asarray(h))), np.array(f(np.asarray(-h)))
            left, right = (np.asarray((d * cotangent).sum() / (h * size)) for d in (here - below, above - here))
            sides.append((left, right))
        if not between(quantity.value[at], sides[0], sides[1], quantity.scale[at], noise):
            continue
        if policy == "interval":
            quantity.verdict[at], quantity.kinks[at] = PASSED, True
        else:
            one = np.zeros(quantity.value.shape, bool)
            one[at] = True
            quantity.withhold(one, "kink")
