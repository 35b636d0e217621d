"""Learning-rate schedules: the factor on the learning rate at update 0, 1, 2, ..."""

from __future__ import annotations

import math
from collections.abc import Callable

from gradlab._validate import require_count, require_number, require_positive
from gradlab.errors import ValueRangeError

Schedule = Callable[[int], float]


def constant() -> Schedule:
    """1 throughout."""
    return lambda update: 1.0


def inverse_time(half: float) -> Schedule:
    """1/(1 + update/half): one half after `half` updates (Robbins & Monro 1951: sum diverges, sum of squares does not)."""
    half = require_positive("half", half)
    return lambda update: 1.0 / (1.0 + update / half)


def exponential(half: float) -> Schedule:
    """Halves every `half` updates."""
    half = require_positive("half", half)
    return lambda update: float(0.5 ** (update / half))


def steps(every: int, factor: float) -> Schedule:
    """Times `factor` after every `every` updates."""
    every = require_count("every", every)
    require_number("factor", factor)
    if not 0.0 < factor <= 1.0:
        raise ValueRangeError(f"factor is {factor}; expected a number in (0, 1]")
    return lambda update: float(factor ** (update // every))


def cosine(updates: int, last: float = 0.0) -> Schedule:
    """From 1 to `last` along half a cosine over `updates`, then `last` (Loshchilov & Hutter 2017, without restarts)."""
    updates = require_count("updates", updates)
    require_number("last", last)
    return lambda update: last + (1.0 - last) * 0.5 * (1.0 + math.cos(math.pi * min(update / updates, 1.0)))


def warm_up(updates: int, then: Schedule | None = None) -> Schedule:
    """Rises linearly to 1 over `updates`, then goes on as `then` from its start."""
    updates = require_count("updates", updates)
    rest = constant() if then is None else then
    return lambda update: (update + 1) / updates if update < updates else rest(update - updates)
