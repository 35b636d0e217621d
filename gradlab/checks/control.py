"""The negative control: a check that cannot fail proves nothing.

What the backward pass returned is altered, one block at a time, and judged again against the same oracle. Every alteration
must be rejected, in its own block and nowhere else; one that changes nothing is void.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.checks.judgement import FAILED, PASSED, Quantity

Array = npt.NDArray[Any]

VISIBLE = 4e-9
NUDGE = 1e-6
"""The smallest alteration: one part in a million of one block."""


@dataclass(frozen=True)
class Control:
    """`tried`: alterations made; `rejected`: FAIL, with the right label; `void`: changed nothing; `missed`: not rejected."""

    tried: int
    rejected: int
    void: int
    missed: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """True if nothing was missed."""
        return not self.missed

    def __str__(self) -> str:
        text = f"{self.tried} alterations of the backward pass: {self.rejected} rejected in their own block, {self.void} void"
        return f"{text}; NOT rejected: {'; '.join(self.missed[:6])}" if self.missed else text


def negative_control(quantities: list[Quantity]) -> Control:
    """Alter every block of every quantity that has passed."""
    tried = rejected = void = 0
    missed = []
    for quantity in quantities:
        if quantity.verdict.any() or quantity.kinks.any():
            continue
        for name, altered, touched in _alterations(quantity):
            tried += 1
            # What changes no entry by more than VISIBLE of S is hidden by cancellation, or changes zeros: it is void.
            # That does not depend on the tolerance of the check: one that is too wide has no power, and that is said.
            with np.errstate(all="ignore"):
                visible = np.abs(altered - quantity.value) > VISIBLE * quantity.scale + 16.0 * quantity.estimate
            if not visible.any():
                void += 1
                continue
            again = quantity.restored(altered)
            failed = again.verdict == FAILED
            if failed.any() and not (failed & ~touched).any() and (again.verdict[~touched] == PASSED).all():
                rejected += 1
            else:
                missed.append(f"d{quantity.name} {name}")
    return Control(tried, rejected, void, tuple(missed))


def _alterations(quantity: Quantity) -> Iterator[tuple[str, Array, Array]]:
    """(name, altered value, entries that it may have touched)."""
    value = quantity.value

    def one(name: str, at: tuple[Any, ...], new: Array) -> tuple[str, Array, Array]:
        altered, touched = value.copy(), np.zeros(value.shape, bool)
        altered[at], touched[at] = new, True
        return name, altered, touched

    everything = (slice(None), slice(None))
    blocks = list(quantity.blocks())
    nudge = max(NUDGE, 10.0 * quantity.rtol)  # a tolerance that was asked for is no lack of power
    for gate, block in blocks:
        at = (*everything, *block)
        label = f"[{gate}]" if gate else ""
        yield one(f"{label} times 1 + {nudge:g}", at, value[at] * (1.0 + nudge))
        yield one(f"{label} zeroed", at, np.zeros_like(value[at]))
        yield one(f"{label} negated", at, -value[at])
        if value[at].ndim == 4 and value[at].shape[-1] == value[at].shape[-2] > 1:
            yield one(f"{label} transposed", at, np.swapaxes(value[at], -1, -2))
    if len(value) > 1:
        yield one("without its middle step", (len(value) // 2,), np.zeros_like(value[0]))
    if value.shape[1] > 1:
        yield one("with its rows swapped", everything, value[:, ::-1])
    if len(blocks) > 1:
        (first, a), (second, b) = blocks[0], blocks[1]
        if value[(*everything, *a)].shape == value[(*everything, *b)].shape:
            _, altered, touched = one("", (*everything, *a), value[(*everything, *b)])
            altered[(*everything, *b)], touched[(*everything, *b)] = value[(*everything, *a)], True
            yield f"gates {first} and {second} swapped", altered, touched
