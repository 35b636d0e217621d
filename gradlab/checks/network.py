"""One network on one set of numbers: every gradient, located."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradlab.checks.claims import SUMMED, Claims
from gradlab.checks.comparison import checked_rtol
from gradlab.checks.control import negative_control
from gradlab.checks.doubts import KINKS, Kinks, conditioning, floor, kinks, nondeterministic, nonfinite, second_opinion
from gradlab.checks.example import Example
from gradlab.checks.judgement import FAILED, UNRESOLVED, Quantity, Word, block_errors, count, findings, resolution
from gradlab.checks.one_step import one_step_quantities, value_gap
from gradlab.checks.oracle import Choice, require_choice
from gradlab.checks.reading import read
from gradlab.checks.replaying import reproducer
from gradlab.checks.report import GradientReport
from gradlab.checks.untied import Untied, differentiates_itself, judged, untied
from gradlab.errors import DTypeError, ValueRangeError

Array = npt.NDArray[np.float64]

CHAOS = 1e-12
"""Two equivalent forward passes further apart than this amplify rounding."""
AMPLIFIED = 1e3
"""Gradients of a chaotic sequence differ by up to about this many times what its outputs do."""
VALUE_RTOL = 1e-11
"""Largest relative difference of one step of the engine from `step`: a sum of some tens of terms in another order."""


def check_example(
    example: Example, *, oracle: Choice = "auto", kink: Kinks = "interval", control: bool = False, replay: bool = True
) -> GradientReport:
    """Hold every contribution to every gradient of `example` against exact differentiation of its cells' `step`.

    `oracle`: "auto" takes complex steps if Richardson agrees in a pre-flight, else Richardson; a demanded one that fails
    its pre-flight makes everything UNRESOLVED. `kink`: whether what lies between the one-sided derivatives of a kink at
    the example's own point is accepted ("interval"), withheld ("unresolved") or rejected ("fail").
    `control`: alter the backward pass's results afterwards and demand that each alteration is rejected.
    Errors: DTypeError, ValueRangeError; ResourceRefused for a network too large (gradients do not depend on the size).
    """
    if not isinstance(example, Example):
        raise DTypeError(f"example is a {type(example).__name__}; expected a gradlab.checks.Example")
    require_choice(oracle)
    checked_rtol(example.rtol)
    if kink not in KINKS:
        raise ValueRangeError(f"kink is {kink!r}; expected one of {', '.join(KINKS)}")
    check = untied(example, oracle)
    quantities, cotangent, claims = judged(check, np.random.default_rng(0))
    note: str | None = None
    local: list[Quantity] = []
    if not check.oracle.trusted:
        for quantity in quantities:
            quantity.oracle = np.full(quantity.value.shape, np.nan)  # it was not asked
            quantity.withhold(np.ones(quantity.value.shape, bool), "oracle-disagrees")
    else:
        note = nonfinite(check, quantities)
        if note is None and any(quantity.verdict.any() for quantity in quantities):
            note, local = _doubt(check, quantities, cotangent, claims, kink)
    if note is None and all(differentiates_itself(layer.cell) for layer in example.net.layers):
        note = "the cell has no derivative written by hand; gradlab's complex steps of its step were held against Richardson"
    if not np.any(example.cotangent):
        for quantity in quantities:
            quantity.withhold(np.ones(quantity.value.shape, bool), "floor")
        note = "the cotangent is zero: there is no loss, and nothing to check"
    # A sum is reported on its own only where its parts agree and it does not.
    wrong = {quantity.name for quantity in quantities if quantity.verdict.any()}
    kinked = {quantity.name for quantity in quantities if quantity.kinks.any()}  # parts that differ, and are right
    parts = [one for one in quantities if not one.name.endswith(SUMMED)]
    sums = [one for one in quantities if one.name.endswith(SUMMED) and one.name in wrong]
    quantities = parts + [one for one in sums if one.name.removesuffix(SUMMED) not in wrong | kinked]
    states = {name: run.states for name, run in check.run.runs.items()}
    found = findings(quantities)
    return GradientReport(
        subject=repr(example.net.cell),
        verdict=_word([*quantities, *local]),
        oracle=f"{check.oracle}{resolution(quantities)}",
        size=f"{check.run.outputs.dtype} {example.size}",
        rtol=example.rtol,
        counts=count(quantities),
        findings=tuple(found),
        clean=tuple(quantity.name for quantity in quantities if not quantity.verdict.any()),
        one_step=_faults(local, _fails(quantities)),
        reading=read(quantities, states),
        note=note,
        control=negative_control(quantities) if control else None,
        replay=reproducer(example, oracle, kink) if replay and found else None,
        steps=len(example.x),
        blocks=block_errors(quantities),
    ).with_control_counted()


def _fails(quantities: list[Quantity]) -> bool:
    return any((quantity.verdict == FAILED).any() for quantity in quantities)


def _word(quantities: list[Quantity]) -> Word:
    codes = {int(code) for quantity in quantities for code in np.unique(quantity.verdict)}
    return "FAIL" if FAILED in codes else "UNRESOLVED" if UNRESOLVED in codes else "PASS"


def _doubt(
    check: Untied, quantities: list[Quantity], cotangent: Array, claims: Claims, kink: Kinks
) -> tuple[str | None, list[Quantity]]:
    """Look for what excuses a mismatch, and for the single steps where it is made."""
    note = nondeterministic(check, quantities, cotangent, claims)
    if note is not None:
        return note, []
    if not _fails(quantities):
        return None, []
    apart = conditioning(check)
    if kink != "fail" and apart <= CHAOS:  # differences across a chaotic sequence would look like kinks
        kinks(check, quantities, cotangent, kink)
    if _fails(quantities):
        floor(check, quantities)
    if _fails(quantities):
        second_opinion(check, quantities, cotangent)
    if not _fails(quantities):
        return None, []
    example, rng = check.example, np.random.default_rng(1)
    local = [q for run in check.run.runs.values() for q in one_step_quantities(example, run, check.oracle, rng)]
    for name, run in check.run.runs.items():
        gap, at = value_gap(example, run)
        if not gap <= VALUE_RTOL:
            return f"the fast path's step of layer {name} differs from `step` by {gap:.1e} at step {at}: mend that first", local
    if apart > CHAOS:
        for quantity in quantities:
            quantity.withhold((quantity.verdict == FAILED) & (quantity.error <= AMPLIFIED * apart), "ill-conditioned")
        note = f"two equivalent forward passes end {apart:.1e} apart: rounding is amplified; single steps were checked instead"
    # In saturation digits are lost as for the whole sequence; the adjoints of single steps are of size 1.
    lost = 64.0 * np.finfo(float).eps * example.largest + example.subnormal
    for quantity in local:
        small = np.abs(quantity.value - quantity.oracle) <= lost
        quantity.withhold((quantity.verdict == FAILED) & small, "floor")
    # A kink of the sequence is one of its steps too: where the sequence agrees, single steps accuse nobody.
    return note, local if _fails(quantities) or apart > CHAOS else []


def _faults(local: list[Quantity], failing: bool) -> tuple[str, ...]:
    """What is wrong in single steps, a line for each quantity."""
    lines = []
    for quantity in local:
        failed = quantity.verdict == FAILED
        if not failed.any():
            continue
        names = []
        for gate, block in quantity.blocks():
            if failed[(slice(None), slice(None), *block)].any():
                names.append(gate)
        steps = np.flatnonzero(failed.reshape(len(failed), -1).any(axis=1))
        where = "every step" if len(steps) == len(failed) else f"step {', '.join(map(str, steps[:8]))}{'...' * (len(steps) > 8)}"
        gates = f"[{', '.join(names)}]" if names and names != [""] else ""
        lines.append(f"wrong where it is made: d{quantity.name}{gates}, {where}")
    if local and not lines:
        lines.append("each single step is right" + ("; what is wrong is how steps are put together" if failing else ""))
    return tuple(lines)
