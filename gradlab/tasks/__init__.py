"""Tasks: each a `Task` with `sample(rng, batch, length)`, its exact chance level and its own test of success.

`ALL` has them by name. Variants of one task share no numbers, so none is "the" adding problem. `adding` and `characters`
are modules with a `sample` of their own: adding is then Le's variant.
"""

from __future__ import annotations

from gradlab.tasks import (
    adding,
    characters,
    copying,
    digits,
    hochreiter_pairs,
    latch,
    pascanu_pairs,
    permutation,
    python_syntax,
    temporal_order,
    timing,
    two_sequence,
)
from gradlab.tasks.base import Task

ALL: dict[str, Task] = {
    task.name: task
    for task in (
        adding.LE,
        adding.ARJOVSKY,
        hochreiter_pairs.ADDING,
        pascanu_pairs.ADDING,
        hochreiter_pairs.MULTIPLICATION,
        pascanu_pairs.MULTIPLICATION,
        temporal_order.HOCHREITER_TWO,
        temporal_order.HOCHREITER_THREE,
        temporal_order.PASCANU,
        temporal_order.PASCANU_THREE,
        copying.ARJOVSKY,
        copying.PASCANU,
        copying.PASCANU_TWO,
        permutation.PASCANU,
        two_sequence.PLAIN,
        two_sequence.NOISY_TARGETS,
        latch.BENGIO,
        timing.GERS,
        characters.TASK,
        python_syntax.TASK,
        digits.TASK,
    )
}
"""Every task by its name; `digits` alone needs an optional library, and only when it is sampled."""

__all__ = [
    "ALL",
    "Task",
    "adding",
    "characters",
    "copying",
    "digits",
    "hochreiter_pairs",
    "latch",
    "pascanu_pairs",
    "permutation",
    "python_syntax",
    "temporal_order",
    "timing",
    "two_sequence",
]
