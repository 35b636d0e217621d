"""What may excuse an entry that does not agree: nothing turns it into PASS but a kink's own interval.

In this order: numbers that are not finite, a backward pass that does not repeat, a kink, digits lost in saturation or
underflow (floor), a sequence that amplifies rounding (ill-conditioned). Each is looked for only when something disagrees.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab.checks.along import Along, own_parameters
from gradlab.checks.claims import SUMMED, Claims, claimed, replay
from gradlab.checks.judgement import FAILED, PASSED, Quantity
from gradlab.checks.kink import COARSE, FINE, between, rounding
from gradlab.checks.one_step import step_slopes
from gradlab.checks.oracle import AGREE, Oracle, derivative
from gradlab.checks.untied import Untied
from gradlab.forward_pass import forward

Array = npt.NDArray[Any]
Kinks = Literal["interval", "unresolved", "fail"]
KINKS: tuple[Kinks, ...] = ("interval", "unresolved", "fail")

AMPLIFICATION = 1e3
"""Two passes that lie further apart than so many times what a rounding of the parameters does are not the same function."""
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
        quantity.withhold(quantity.verdict != PASSED, "nondeterministic")
    return f"two identical calls differ in {', '.join(f'd{name}' for name in moved)}; freeze every generator that the cell uses"


def kinks(check: Untied, quantities: list[Quantity], cotangent: Array, policy: Kinks) -> None:
    """Accept what lies between the one-sided derivatives of a kink at the example's own point, and count it.

    A jump that the differences cannot tell from rounding is none.
    """
    fine, terms = check.one_sided(FINE, cotangent)
    coarse, _ = check.one_sided(COARSE, cotangent)
    noise = rounding(terms)
    for quantity in quantities:
        at = [tuple(side[quantity.name] for side in sides) for sides in (coarse, fine)]
        inside = between(quantity.value, (at[0][0], at[0][1]), (at[1][0], at[1][1]), quantity.scale, noise)
        inside &= quantity.verdict == FAILED
        if policy == "interval":
            quantity.verdict[inside] = PASSED
            quantity.kinks |= inside
        elif policy == "unresolved":
            quantity.withhold(inside, "kink")


def second_opinion(check: Untied, quantities: list[Quantity], cotangent: Array) -> None:
    """Withhold what a complex step accuses and Richardson, which disagrees with it, does not.

    The pre-flight tries random points; a step may drop the imaginary part at others.
    """
    if check.oracle.kind != "complex":
        return
    slopes, errors = derivative(check.along, Oracle("richardson", "second opinion"))
    exact, scale, unsure = check.sides(slopes[1:], errors[1:], cotangent)
    for quantity in quantities:
        r, bound = exact[quantity.name], 100.0 * unsure[quantity.name] + AGREE * scale[quantity.name]
        with np.errstate(all="ignore"):
            excused = (np.abs(quantity.value - r) <= bound) & (np.abs(quantity.oracle - r) > bound)
            quantity.withhold(excused & (quantity.verdict == FAILED), "oracle-disagrees")


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
            # The digits that da lost at step t reach the state before through U, not through the vanished Jacobian.
            direct = carried.copy()
            direct[:-1] += size * run.states.shape[-1] * fresh[1:, :, None]
            _withhold(by_name[f"s {layer.name}"], direct)
            for key, value in own.items():
                _withhold(by_name[f"{layer.name}.{key}"], local.reshape(*local.shape, *(1,) * value.ndim))
                _withhold(by_name[f"{layer.name}.{key}{SUMMED}"], np.asarray(local.sum()))
        above = emitted
    _withhold(by_name["x"], np.asarray(above))


def _withhold(quantity: Quantity, bound: Array) -> None:
    with np.errstate(all="ignore"):
        quantity.withhold((quantity.verdict == FAILED) & (np.abs(quantity.value - quantity.oracle) <= bound), "floor")


def conditioning(check: Untied) -> float:
    """How far two equivalent forward passes, the engine's and the oracle's, lie apart, relative to the outputs.

    0 if rounding cannot explain it.
    """
    with np.errstate(all="ignore"):
        shift = np.zeros((), complex if check.oracle.kind == "complex" else float)
        e = check.example
        plain = Along(e.net, e.params, e.x, e.states, e.lengths, [])(shift)[0].real
        every = e.net.readout == "every"
        ours = check.run.outputs if every else check.run.outputs[None]
        size = max(float(np.abs(plain).max()), np.finfo(float).tiny)
        apart = float(np.abs(plain - ours).max()) / size
        # What rounding of the parameters does to the engine itself. A gap far above it is another function, not chaos.
        moved = {key: value * (1.0 + 8.0 * np.finfo(float).eps) for key, value in e.params.items()}
        nudged = forward(e.net, moved, e.x, e.initial, lengths=e.lengths).outputs
        explained = float(np.abs((nudged if every else nudged[None]) - ours).max()) / size
    return apart if apart <= AMPLIFICATION * explained else 0.0
