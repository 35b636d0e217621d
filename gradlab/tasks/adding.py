"""The adding problem, in the variant of Le, Jaitly & Hinton (2015); and in that of Arjovsky, Shah & Bengio (2016).

Two inputs a step: a value from U[0, 1] and a marker that is 1 at exactly two steps and 0 elsewhere. The target,
at the last step, is the sum of the two marked values; the loss is the squared error. Le's markers stand anywhere,
Arjovsky's one in each half. The original of Hochreiter & Schmidhuber (1997) has other values, markers and lengths, and
so has Pascanu's: do not compare numbers across variants.
"""

from __future__ import annotations

import numpy as np

from gradlab._validate import require_count, require_generator
from gradlab.batch import Batch
from gradlab.tasks.base import Array, Task, squared_error_up_to

INPUT_SIZE = 2
OUTPUT_SIZE = 1

BASELINE = 1.0 / 6.0
"""Mean squared error of the best constant answer, 1: the variance of the sum of two U[0, 1]. (The paper prints 0.1767.)"""


def sample(rng: np.random.Generator, batch: int, length: int) -> Batch:
    """`batch` sequences of `length` >= 2 steps: inputs (T, B, 2), targets (B, 1) for a network with readout="last"."""
    require_generator("rng", rng)
    B, T = require_count("batch", batch), require_count("length", length, 2)
    inputs = np.zeros((T, B, 2))
    inputs[:, :, 0] = rng.random((T, B))
    first = rng.integers(0, T, B)
    second = (first + rng.integers(1, T, B)) % T  # uniform over the other T - 1 steps
    return _marked(inputs, first, second)


def _arjovsky(rng: np.random.Generator, B: int, T: int) -> Batch:
    """One marker in each half; where T is odd, the last step belongs to neither, as in the authors' program."""
    inputs = np.zeros((T, B, 2))
    inputs[:, :, 0] = rng.random((T, B))
    half = T // 2
    return _marked(inputs, rng.integers(0, half, B), half + rng.integers(0, half, B))


def _marked(inputs: Array, first: Array, second: Array) -> Batch:
    columns = np.arange(inputs.shape[1])
    inputs[first, columns, 1] = 1.0
    inputs[second, columns, 1] = 1.0
    targets = inputs[first, columns, 0] + inputs[second, columns, 0]
    return Batch(inputs, targets[:, None])


def _baseline(length: int) -> float:
    return BASELINE


LE = Task(
    name="adding_le",
    source="Le, Jaitly & Hinton (2015), adding two numbers; the criterion for one sequence is gradlab's, the paper has none",
    input_size=INPUT_SIZE,
    output_size=OUTPUT_SIZE,
    readout="last",
    loss="mean_squared_error",
    criterion="squared error <= 0.01",
    law=sample,
    chance=_baseline,
    correct=squared_error_up_to(0.01),
    minimum=2,
)

ARJOVSKY = Task(
    name="adding_arjovsky",
    source="Arjovsky, Shah & Bengio (2016), and their program; the criterion for one sequence is gradlab's, the paper has none",
    input_size=INPUT_SIZE,
    output_size=OUTPUT_SIZE,
    readout="last",
    loss="mean_squared_error",
    criterion="squared error <= 0.01",
    law=_arjovsky,
    chance=_baseline,
    correct=squared_error_up_to(0.01),
    minimum=2,
)
