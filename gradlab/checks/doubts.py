"""What may excuse an entry that does not agree: nothing turns it into PASS but a kink's own interval.

In this order: numbers that are not finite, a backward pass that does not repeat, a kink, digits lost in saturation or
underflow (floor), a sequence that amplifies rounding (ill-conditioned). Each is looked for only when something disagrees.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab.checks.along import Along, own_parameters
from gradlab.checks.claims import Claims, claimed, replay
from gradlab.checks.judgement import FAILED, PASSED, Quantity
from gradlab.checks.one_step import step_slopes
from gradlab.checks.untied import Untied

Array = npt.NDArray[Any]
Kinks = Literal["interval", "unresolved", "fail"]
KINKS: tuple[Kinks, ...] = ("interval", "unresolved", "fail")

SIDE = 1e-7
"""Step of the one-sided differences: a kink counts only if it lies this near."""
JUMP = 1e-5
"""One-sided derivatives that differ by more than this share of S make a kink; the differences are good to about 1e-7."""
ULPS = 16.0
"""Roundings that a backward pass may make in one step."""


def nonfinite(check: Untied, quantities: list[Quantity]) -> str | None:
    """Withhold everything if the forward pass left the range of floats; where it did, in words."""
    for name, run in check.run.runs.items():
        bad = ~np.isfinite(run.states).all(axis=(1, 2))
        if bad.any():
            for quantity in quantities:
                quantity.withhold(np.ones(quantity.value.shape, bool), "nonfinite")
            return f"forward pass: the state of layer {name} is not finite from step {int(np.argmax(bad))} on"
    return None


def nondeterministic(check: Untied, quantities: list[Quantity], cotangent: Array, claims: Claims) -> str | None:
    """Withhold what failed if the same call gives other bits."""
    again = claimed(check.example, replay(check.example), cotangent)
    moved = [name for name, value in claims.items() if not np.array_equal(value, again[name], equal_nan=True)]
    if not moved:
        return None
    for quantity in quantities:
        quantity.withhold(quantity.verdict == FAILED, "nondeterministic")
    return f"two identical calls differ in {', '.join(f'd{name}' for name in moved)}; freeze every generator that the cell uses"


def kinks(check: Untied, quantities: list[Quantity], cotangent: Array, policy: Kinks) -> None:
    """Accept what lies between the one-sided derivatives of a kink at the example's own point, and count it.

    A jump that the differences cannot tell from rounding is none.
    """
    left, right, noise = check.one_sided(SIDE, cotangent)
    for quantity in quantities:
        a, b = left[quantity.name], right[quantity.name]
        slack = JUMP * np.maximum(np.maximum(np.abs(a), np.abs(b)), quantity.scale)
        kink = (np.abs(a - b) > slack + noise) & (quantity.verdict == FAILED)
        inside = kink & (quantity.value >= np.minimum(a, b) - slack) & (quantity.value <= np.maximum(a, b) + slack)
        if policy == "interval":
            quantity.verdict[inside] = PASSED
            quantity.kinks |= inside
        elif policy == "unresolved":
            quantity.withhold(inside, "kink")


def floor(check: Untied, quantities: list[Quantity]) -> None:
    """Withhold errors no larger than what rounding does to a backward pass whose slopes lost their digits in saturation.

    A slope computed as 1 - tanh^2 is wrong by a rounding of 1, however small it is. That error at step t, as large as the
    adjoint that arrives there, is carried back by the exact Jacobians.
    """
    by_name = {quantity.name: quantity for quantity in quantities}
    e = check.example
    for quantity in quantities:
        _withhold(quantity, np.asarray(e.subnormal))
    above = 0.0
    for level in reversed(e.net.levels):
        emitted = 0.0
        for layer in level:
            run = check.run.runs[layer.name]
            own = own_parameters(e.params, layer.name)
            slopes = step_slopes(run, own, check.oracle)
            G = np.abs(slopes["x"][0])  # (T, from, B, to)
            arrives = by_name[f"s {layer.name}"].scale.max(axis=-1)  # (T+1, B)
            size = max([1.0, *(float(np.abs(v).max(initial=0.0)) for v in own.values())])
            size = max(size, float(np.abs(run.x).max(initial=0.0)), float(np.abs(run.states).max()))
            fresh = ULPS * np.finfo(float).eps * size * arrives + above + e.subnormal
            carried = np.array(np.broadcast_to(fresh[:, :, None], (*fresh.shape, run.states.shape[-1])))
            product = np.zeros((0, *slopes["s"][0].shape[2:], run.states.shape[-1]))  # Phi(t, k)^T of every later t
            for k in reversed(range(len(run.t))):
                unit = np.broadcast_to(np.eye(product.shape[-1]), (1, *product.shape[1:]))
                product = np.concatenate([product, unit])
                step = np.moveaxis(slopes["s"][0][k], 1, 0)  # (B, from, to) = J^T
                product = np.matmul(step, product)
                later = fresh[k + 1 :][::-1]  # in the order of `product`
                carried[k] += (np.abs(product).sum(axis=-1) * later[..., None]).sum(axis=0)
            local = size * (carried[1:].max(axis=-1) + fresh[1:])  # (T, B)
            emitted = max(
                emitted, float((G.sum(axis=(1, 3)) * carried[1:].max(axis=-1)).max(initial=0.0)), float(local.max(initial=0.0))
            )
            _withhold(by_name[f"s {layer.name}"], carried)
            for key, value in own.items():
                _withhold(by_name[f"{layer.name}.{key}"], local.reshape(*local.shape, *(1,) * value.ndim))
        above = emitted
    _withhold(by_name["x"], np.asarray(above))


def _withhold(quantity: Quantity, bound: Array) -> None:
    with np.errstate(all="ignore"):
        quantity.withhold((quantity.verdict == FAILED) & (np.abs(quantity.value - quantity.oracle) <= bound), "floor")


def conditioning(check: Untied) -> float:
    """How far two equivalent forward passes, the engine's and the oracle's, lie apart, relative to the outputs."""
    with np.errstate(all="ignore"):
        shift = np.zeros((), complex if check.oracle.kind == "complex" else float)
        e = check.example
        plain = Along(e.net, e.params, e.x, e.states, e.lengths, [])(shift)[0].real
    ours = check.run.outputs if check.example.net.readout == "every" else check.run.outputs[None]
    return float(np.abs(plain - ours).max() / max(float(np.abs(plain).max()), np.finfo(float).tiny))
