"""The adding and multiplication problems as the program of Pascanu, Mikolov & Bengio (2013) poses them.

Two inputs a step: a value from U[0, 1] and a marker. The whole batch has one length, l = T + an integer from 0..T/10 - 1.
The first marker stands in [0, l/10), the second in [l/10, l/2); target: the mean, or the product, of the marked values.
Channel 0 is the value, as in the other variants; their program has the marker first.

Their test of success is lax: a constant answer passes it on 64 % (adding, 1/2) and 61 % (product, 1/4) of the sequences.
"""

from __future__ import annotations

import numpy as np

from gradlab.batch import Batch
from gradlab.tasks.base import Array, Task, squared_error_up_to


def _pairs(rng: np.random.Generator, B: int, T: int) -> tuple[Array, Array, Array]:
    """Inputs (l, B, 2) and the two marked values."""
    steps, columns = T + int(rng.integers(0, T // 10)), np.arange(B)
    inputs = np.zeros((steps, B, 2))
    inputs[:, :, 0] = rng.random((steps, B))
    first = rng.integers(0, steps // 10, B)
    second = steps // 10 + rng.integers(0, 4 * steps // 10, B)
    inputs[first, columns, 1] = 1.0
    inputs[second, columns, 1] = 1.0
    return inputs, inputs[first, columns, 0], inputs[second, columns, 0]


def _adding(rng: np.random.Generator, B: int, T: int) -> Batch:
    inputs, x1, x2 = _pairs(rng, B, T)
    return Batch(inputs, ((x1 + x2) / 2.0)[:, None])


def _multiplication(rng: np.random.Generator, B: int, T: int) -> Batch:
    inputs, x1, x2 = _pairs(rng, B, T)
    return Batch(inputs, (x1 * x2)[:, None])


ADDING = Task(
    name="adding_pascanu",
    source="Pascanu, Mikolov & Bengio (2013), their program",
    input_size=2,
    output_size=1,
    readout="last",
    loss="mean_squared_error",
    criterion="squared error <= 0.04",
    law=_adding,
    chance=lambda length: 1.0 / 24.0,
    correct=squared_error_up_to(0.04),
    minimum=10,
)

MULTIPLICATION = Task(
    name="multiplication_pascanu",
    source="Pascanu, Mikolov & Bengio (2013), their program",
    input_size=2,
    output_size=1,
    readout="last",
    loss="mean_squared_error",
    criterion="squared error <= 0.04",
    law=_multiplication,
    chance=lambda length: 7.0 / 144.0,
    correct=squared_error_up_to(0.04),
    minimum=10,
)
