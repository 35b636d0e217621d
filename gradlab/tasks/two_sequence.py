"""The two-sequence problem as Hochreiter & Schmidhuber (1997, section 5.3) pose it, after Bengio, Simard & Frasconi (1994).

One input line. The first N = 3 elements are all +1 or all -1, by class; the rest is N(0, 0.2), 0.2 the variance. The length
is uniform over T..T + T/10. Target at the end: 1 for +1, 0 for -1. Random weight guessing solves it: alone it is no evidence
of long memory.

Variant 3c has the targets 0.8 and 0.2 and adds noise of variance 0.1 to them, so a net has to learn their expectation; the
best possible loss is 0.1. Which class has which target does not matter: change the sign of the input.
"""

from __future__ import annotations

import numpy as np

from gradlab.batch import Batch
from gradlab.tasks.base import Array, Task, closer_than

INFORMATIVE = 3
INPUT_VARIANCE = 0.2
TARGET_VARIANCE = 0.1


def _sequences(rng: np.random.Generator, B: int, T: int) -> tuple[Array, Array]:
    """Inputs (T + T//10, B, 1) and lengths."""
    steps = T + T // 10
    lengths = rng.integers(T, steps + 1, B)
    inputs = rng.normal(0.0, np.sqrt(INPUT_VARIANCE), (steps, B, 1))
    inputs[:INFORMATIVE] = 2.0 * rng.integers(0, 2, (B, 1)) - 1.0
    inputs[np.arange(steps)[:, None] >= lengths] = 0.0
    return inputs, lengths


def _plain(rng: np.random.Generator, B: int, T: int) -> Batch:
    inputs, lengths = _sequences(rng, B, T)
    return Batch(inputs, 0.5 + 0.5 * inputs[0], lengths=lengths)


def _expected(batch: Batch) -> Array:
    """The targets of 3c without their noise: 0.8 after +1, 0.2 after -1."""
    return np.where(batch.inputs[0] > 0.0, 0.8, 0.2)


def _noisy(rng: np.random.Generator, B: int, T: int) -> Batch:
    inputs, lengths = _sequences(rng, B, T)
    noise = rng.normal(0.0, np.sqrt(TARGET_VARIANCE), (B, 1))
    return Batch(inputs, _expected(Batch(inputs, inputs[0])) + noise, lengths=lengths)


PLAIN = Task(
    name="two_sequence_hochreiter",
    source="Hochreiter & Schmidhuber (1997), experiment 3a (section 5.3), N = 3",
    input_size=1,
    output_size=1,
    readout="last",
    loss="mean_squared_error",
    criterion="absolute error < 0.2",
    law=_plain,
    chance=lambda length: 0.25,
    correct=closer_than(0.2),
    minimum=INFORMATIVE + 1,
)

NOISY_TARGETS = Task(
    name="two_sequence_hochreiter_3c",
    source="Hochreiter & Schmidhuber (1997), experiment 3c (section 5.3), N = 3; the bound of the criterion is not confirmed",
    input_size=1,
    output_size=1,
    readout="last",
    loss="mean_squared_error",
    criterion="absolute error < 0.1 against the target without its noise",
    law=_noisy,
    chance=lambda length: 0.3**2 + TARGET_VARIANCE,
    correct=closer_than(0.1),
    minimum=INFORMATIVE + 1,
    truth=_expected,
)
