"""Exponents of a stream of steps: when to factorise, what to leave out, and how the estimate settles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from gradlab.analysis._lyapunov_care import UNIT, Array
from gradlab.analysis._lyapunov_qr import Frame, Growth, Push
from gradlab.errors import NumericalError, ValueRangeError

TARGET = 1e-10
"""Nats of rounding error that a block may have where the interval is ours to choose."""
FIXED_TARGET = 5e-4
"""The same for an interval that was asked for: half of what would show in the third digit of an exponent."""
MARGIN = 0.1
PATIENCE = 50
"""Blocks after a failure before a longer interval is tried again."""
HELD = 2**26
"""Bytes of Jacobians held back for the case that the interval was too long."""

Progress = Callable[[int, "int | None"], None]


class Blocks:
    """Sums of ln R over consecutive blocks of time, at most 2n of them: when all are full, neighbours are merged.

    With `planned` steps they start with the width that they would end with: short blocks need more factorisations.
    """

    def __init__(self, n: int, planned: int | None = None) -> None:
        self.n, self.width = n, 1
        while planned is not None and 2 * n * self.width < planned:
            self.width *= 2
        self.steps: list[int] = []
        self.sums: list[Array] = []

    @property
    def room(self) -> int:
        """Steps that are left until the next block begins."""
        return self.width - (self.steps[-1] if self.steps and self.steps[-1] < self.width else 0)

    def add(self, growth: Growth) -> bool:
        """Take in one growth; True if it began a new block."""
        if growth.order is not None:
            self.sums = [np.take_along_axis(own, growth.order, axis=-1) for own in self.sums]
        begins = not self.steps or self.steps[-1] >= self.width
        if begins and len(self.steps) == 2 * self.n:
            self.sums = [a + b for a, b in zip(self.sums[::2], self.sums[1::2], strict=True)]
            self.steps = [a + b for a, b in zip(self.steps[::2], self.steps[1::2], strict=True)]
            self.width *= 2
        if begins:
            self.steps.append(growth.steps)
            self.sums.append(growth.log)
        else:
            self.steps[-1] += growth.steps
            self.sums[-1] = self.sums[-1] + growth.log
        return begins


class Meter:
    """Feeds steps to a `Frame` and sums what they do.

    The interval between factorisations is 1 at first. It follows the estimated rounding error of each block, and a block
    whose error is too large is done again in halves. An `interval` that was asked for is kept; NumericalError if it is too
    long. `held`: bytes that one step occupies until its block is done. `planned`: steps that will come, if known: the same
    blocks with fewer factorisations, so other last digits than without.
    """

    def __init__(
        self,
        frame: Frame,
        *,
        transient: int | None,
        interval: int | None,
        blocks: int,
        held: int = 0,
        planned: int | None = None,
        total: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.frame, self.transient, self.fixed = frame, transient, interval
        self.blocks = Blocks(blocks, None if planned is None else planned - (transient or 0))
        self.seen = self.longest = 0  # steps done, longest interval used
        self.error: Array = np.zeros(frame.lost.shape)
        self.lost_at = 0  # step of the first Jacobian that is not finite, 0 for none
        self._interval, self._most = interval or 1, max(1, HELD // max(held, 1))
        self._failed = self._rest = 0  # the interval that failed last, and for how many blocks it is not tried again
        self._pending: list[Push] = []
        self._total, self._progress = total, progress

    def feed(self, push: Push) -> None:
        """One more step."""
        self._pending.append(push)
        left = (self.transient or 0) - self.seen  # no factorisation lies across the end of the transient, or of a block
        most = left if left > 0 else self.blocks.room if self.fixed is None else self._interval
        if len(self._pending) >= min(self._interval, most):
            self.flush()

    def flush(self) -> None:
        """Do all steps that are waiting."""
        pending, self._pending = self._pending, []
        if pending:
            with np.errstate(all="ignore"):  # what leaves the range of floats is found on the results
                self._absorb(pending)

    def _absorb(self, block: Sequence[Push]) -> None:
        if len(block) == 1:
            self._commit(self.frame.step(block[0]))
            return
        found = self.frame.try_block(block)
        if float(found.error.max(initial=0.0)) <= (TARGET if self.fixed is None else FIXED_TARGET):
            self._commit(found)
            return
        if self.fixed is not None and self._sound(block):
            first, last = self.seen + 1, self.seen + len(block)
            raise NumericalError(
                f"interval is {self.fixed}; over the steps {first} to {last} rounding would take more than 1e-3 nats from "
                f"the smallest exponent asked for; the largest safe interval there is {self._largest_safe(block)}; "
                "try interval=None, which adapts"
            )
        half = len(block) // 2
        self._failed, self._rest = len(block), PATIENCE
        if self.fixed is None:
            self._interval = half
        self._absorb(block[:half])
        self._absorb(block[half:])

    def _commit(self, found: Growth) -> None:
        self.frame.Q = found.Q
        self.seen += found.steps
        self.longest = max(self.longest, found.steps)
        if self.frame.lost.any() and not self.lost_at:
            self.lost_at = self.seen
        if self.seen > (self.transient or 0):
            self.error = self.error + found.error
            if self.blocks.add(found) and self._progress is not None:
                self._progress(self.seen, self._total)
        if self.fixed is None:
            self._interval = self._next(found)

    def _next(self, found: Growth) -> int:
        """The interval at which the error, which grows exponentially, would stay below the target with a margin."""
        worst = float(found.error.max(initial=0.0))
        if np.isneginf(found.log).any():
            return 1
        rate = max(math.log(max(worst, UNIT) / UNIT) / found.steps, 1e-3)
        wanted = int(math.log(MARGIN * TARGET / UNIT) / rate)
        if self._rest:
            self._rest -= 1
            wanted = min(wanted, self._failed - 1)
        reach = max(2 * found.steps, self._interval)  # the end of a block may have cut the last one short
        return max(1, min(wanted, reach, self._most))

    def _sound(self, block: Sequence[Push]) -> bool:
        """Whether each single step is finite and not singular, so that the length of the block is to blame."""
        start, lost, sound = self.frame.Q, self.frame.lost, True
        for push in block:
            found = self.frame.step(push)
            self.frame.Q = found.Q
            sound = sound and not np.isneginf(found.log).any() and bool((self.frame.lost == lost).all())
        self.frame.Q, self.frame.lost = start, lost
        return sound

    def _largest_safe(self, block: Sequence[Push]) -> int:
        """By bisection: the longest pieces in which `block` passes; 1 always does."""
        start, good, bad = self.frame.Q, 1, len(block)
        while bad - good > 1:
            n = (good + bad) // 2
            good, bad = (n, bad) if self._passes(block, n) else (good, n)
            self.frame.Q = start
        return good

    def _passes(self, block: Sequence[Push], n: int) -> bool:
        for first in range(0, len(block), n):
            found = self.frame.try_block(block[first : first + n])
            if not float(found.error.max(initial=0.0)) <= FIXED_TARGET:
                return False
            self.frame.Q = found.Q
        return True

    def counted(self) -> tuple[Array, Array, int]:
        """(steps (n,), sums (n, *L, k), transient) of the blocks that count; without a given transient, not the first tenth."""
        self.flush()
        if self._progress is not None:
            self._progress(self.seen, self._total)
        steps, first = np.array(self.blocks.steps, dtype=np.int64), 0
        if self.transient is None:
            first = int((10 * np.cumsum(steps) <= self.seen).sum())
        if not len(steps):
            raise ValueRangeError(
                f"transient is {self.transient} of {self.seen} steps; expected fewer, so that some are left to count"
            )
        return steps[first:], np.stack(self.blocks.sums[first:]), self.seen - int(steps[first:].sum())
