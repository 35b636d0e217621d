"""Verdicts, entry by entry, and the cells (quantity, gate, step, row) in which they fall.

PASS needs |a - n| <= rtol * S, with S the sum of the absolute terms that add up to n. What cannot be decided is
UNRESOLVED, with a reason; no absolute tolerance ever turns a FAIL into a PASS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Word = Literal["PASS", "FAIL", "UNRESOLVED"]

REASONS = ("kink", "floor", "nonfinite", "nondeterministic", "oracle-disagrees", "ill-conditioned")
"""Why a verdict may be UNRESOLVED."""
PASSED, FAILED, UNRESOLVED = 0, 1, 2

SAFETY = 4.0
"""Error estimates of Richardson are taken this many times."""
RESOLUTION = 1e-4
"""An oracle whose error estimate exceeds this share of S decides nothing."""


@dataclass
class Quantity:
    """Derivatives (steps, B, *own): what the backward pass says, the oracle, the scale S, the oracle's error estimate.

    `parts`: names of equal or given blocks along the first own axis, with their spans: gates of a parameter, parts of a state.
    """

    name: str
    value: Array
    oracle: Array
    scale: Array
    estimate: Array
    rtol: float
    parts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    verdict: Array = field(init=False)
    reason: Array = field(init=False)
    kinks: Array = field(init=False)

    def __post_init__(self) -> None:
        self.kinks = np.zeros(self.value.shape, bool)
        self.reason = np.full(self.value.shape, -1, np.int8)
        with np.errstate(all="ignore"):
            gap = np.abs(self.value - self.oracle)
            blurred = SAFETY * self.estimate
            passed = gap <= self.rtol * self.scale + blurred
            vague = (blurred > RESOLUTION * self.scale) & (gap <= blurred + self.rtol * self.scale) & (gap != 0.0)
        self.verdict = np.where(passed, PASSED, FAILED).astype(np.int8)
        self.withhold(vague, "floor")
        lost = ~(np.isfinite(self.oracle) & np.isfinite(self.scale))
        self.verdict[lost] = FAILED
        self.withhold(lost, "nonfinite")

    def withhold(self, where: Array, reason: str) -> None:
        """Make these entries UNRESOLVED."""
        self.verdict[where] = UNRESOLVED
        self.reason[where] = REASONS.index(reason)

    @property
    def error(self) -> Array:
        """|a - n| / S; 0 where both are exactly 0, infinite where S = 0 and a is not."""
        with np.errstate(all="ignore"):
            gap = np.abs(self.value - self.oracle)
            found = np.where(gap == 0.0, 0.0, gap / self.scale)
        return np.where(np.isnan(found), np.inf, found)

    def blocks(self) -> Iterator[tuple[str, tuple[slice, ...]]]:
        """Name and index (behind step and row) of each gate or part; one block "" if there are none."""
        if not self.parts:
            yield "", ()
        for name, (first, last) in self.parts.items():
            yield name, (slice(first, last),)

    def restored(self, value: Array) -> Quantity:
        """The same oracle, another claim."""
        return Quantity(self.name, value, self.oracle, self.scale, self.estimate, self.rtol, self.parts)


@dataclass(frozen=True)
class Finding:
    """A cell (quantity, gate, step, row) with entries that did not pass: how many, and the worst, at `index` of its own axes."""

    quantity: str
    gate: str
    step: int
    row: int
    verdict: Word
    reason: str
    entries: int
    bad: int
    backward: float
    oracle: float
    error: float
    index: tuple[int, ...] = ()

    @property
    def place(self) -> str:
        """Quantity and gate in words: dU[f]."""
        return f"d{self.quantity}[{self.gate}]" if self.gate else f"d{self.quantity}"


def findings(quantities: list[Quantity]) -> list[Finding]:
    """All cells that did not pass, FAIL before UNRESOLVED, the worst first."""
    found = []
    for quantity in quantities:
        if not quantity.verdict.any():
            continue
        error = quantity.error
        for gate, block in quantity.blocks():
            verdict = quantity.verdict[(slice(None), slice(None), *block)]
            for t, n in np.argwhere(verdict.reshape(*verdict.shape[:2], -1).any(axis=-1)):
                at = (t, n, *block)
                codes, errors = quantity.verdict[at].ravel(), error[at].ravel()
                code = FAILED if (codes == FAILED).any() else UNRESOLVED
                worst = int(np.argmax(np.where(codes == code, errors, -1.0)))
                found.append(
                    Finding(
                        quantity=quantity.name,
                        gate=gate,
                        step=int(t),
                        row=int(n),
                        verdict="FAIL" if code == FAILED else "UNRESOLVED",
                        reason="" if code == FAILED else REASONS[quantity.reason[at].ravel()[worst]],
                        entries=codes.size,
                        bad=int((codes != PASSED).sum()),
                        backward=float(quantity.value[at].ravel()[worst]),
                        oracle=float(quantity.oracle[at].ravel()[worst]),
                        error=float(errors[worst]),
                        index=_index(worst, quantity.verdict[at].shape, block),
                    )
                )
    return sorted(found, key=lambda one: (one.verdict != "FAIL", -one.error, one.quantity, one.gate, one.step, one.row))


def resolution(quantities: list[Quantity]) -> str:
    """What an oracle with an error estimate could resolve, in words; nothing for an exact one."""
    worst = 0.0
    for quantity in quantities:
        with np.errstate(all="ignore"):
            share = SAFETY * quantity.estimate / quantity.scale
        worst = max(worst, float(np.max(share, where=(quantity.verdict == PASSED) & (quantity.scale > 0), initial=0.0)))
    return f"; resolved to {worst:.0e} of S" if worst else ""


def block_errors(quantities: list[Quantity]) -> dict[str, tuple[float, ...]]:
    """By gate of each gradient, "d0.U[f]", the largest error/S of every step."""
    found = {}
    for quantity in quantities:
        error = quantity.error
        for gate, block in quantity.blocks():
            part = error[(slice(None), slice(None), *block)].reshape(len(error), -1)
            found[f"d{quantity.name}[{gate}]" if gate else f"d{quantity.name}"] = tuple(float(one) for one in part.max(axis=1))
    return found


def _index(flat: int, shape: tuple[int, ...], block: tuple[slice, ...]) -> tuple[int, ...]:
    """Index of an entry in the quantity's own axes, from its flat one within a block."""
    index = [int(i) for i in np.unravel_index(flat, shape)]
    if block:
        index[0] += block[0].start
    return tuple(index)


@dataclass(frozen=True)
class Counts:
    """Entries compared, and what became of them. `exact_zeros`: both sides exactly 0; `worst`: largest error/S that passed."""

    entries: int
    passed: int
    failed: int
    unresolved: Mapping[str, int]
    kinks: int
    exact_zeros: int
    worst: float

    def __str__(self) -> str:
        undecided = sum(self.unresolved.values())
        why = ", ".join(f"{reason} {number}" for reason, number in self.unresolved.items())
        text = f"{self.entries} compared: {self.passed} PASS, {self.failed} FAIL, {undecided} UNRESOLVED"
        extra = [f"({why})"] * bool(why)
        extra += [f"{self.kinks} of the PASS at a kink, between its one-sided derivatives"] * bool(self.kinks)
        extra += [f"{self.exact_zeros} exact zeros"] * bool(self.exact_zeros)
        return "; ".join([" ".join([text, *extra[:1]]) if why else text, *extra[bool(why) :]])


def count(quantities: list[Quantity]) -> Counts:
    """Add up the entries of all quantities."""
    unresolved = {
        reason: number
        for code, reason in enumerate(REASONS)
        if (number := sum(int(((q.verdict == UNRESOLVED) & (q.reason == code)).sum()) for q in quantities))
    }
    passed = [q.verdict == PASSED for q in quantities]
    return Counts(
        entries=sum(q.value.size for q in quantities),
        passed=sum(int(p.sum()) for p in passed),
        failed=sum(int((q.verdict == FAILED).sum()) for q in quantities),
        unresolved=unresolved,
        kinks=sum(int((q.kinks & p).sum()) for q, p in zip(quantities, passed, strict=True)),
        exact_zeros=sum(int(((q.scale == 0) & (q.value == 0)).sum()) for q in quantities),
        worst=max(
            (float(np.max(q.error, where=p & ~q.kinks, initial=0.0)) for q, p in zip(quantities, passed, strict=True)),
            default=0.0,
        ),
    )
