"""The adding and multiplication problems as Hochreiter & Schmidhuber (1997, sections 5.4 and 5.5) pose them.

Input: pairs (value, marker). Values are U[-1, 1] for adding, U[0, 1] for the product. The length of each sequence is
uniform over T..T + T/10. One of the first ten pairs is marked, X1; then one of the first T/2 - 1 pairs that are still
unmarked, X2. Marked pairs have marker 1, the first and the last pair -1, all others 0. If the mark falls on the first pair,
its number does not count: it is 0 in the sum, 1 in the product. So the target is a function of the inputs:

    adding: 0.5 + (sum of the values whose marker is 1)/4        product: product of the values whose marker is 1

The paper writes the rule for X1 alone. X2 too can fall on the first pair, with probability 0.9/(T/2 - 1), and its -1 hides
that mark as well; here the rule then holds for X2, since no net could know the number otherwise. Baselines count both.
"""

from __future__ import annotations

import numpy as np

from gradlab.batch import Batch
from gradlab.tasks.base import Array, Task, closer_than

FIRST = 10
"""X1 is one of so many first pairs."""


def hidden_mark_probability(length: int) -> float:
    """The probability that one of the two marks falls on the first pair: 1/10 + (9/10)/(T/2 - 1), with T/2 rounded down."""
    return 1.0 / FIRST + (1.0 - 1.0 / FIRST) / (length // 2 - 1)


def adding_baseline(probability: float) -> float:
    """Variance of 0.5 + (X1 + X2)/4 where one number is 0 with this probability: (2 - P)/48; 19/480 at P = 1/10."""
    return (2.0 - probability) / 48.0


def multiplication_baseline(probability: float) -> float:
    """Variance of X1 X2 where one number is 1 with this probability: (1 + 2 P)/9 - (1 + P)^2/16; 0.057708 at P = 1/10."""
    return (1.0 + 2.0 * probability) / 9.0 - (1.0 + probability) ** 2 / 16.0


def _pairs(rng: np.random.Generator, B: int, T: int, low: float, neutral: float) -> tuple[Array, Array, Array, Array]:
    """Inputs (T + T//10, B, 2), lengths and the two numbers that count."""
    steps, columns = T + T // 10, np.arange(B)
    lengths = rng.integers(T, steps + 1, B)
    values = rng.uniform(low, 1.0, (steps, B))
    first = rng.integers(0, FIRST, B)
    second = rng.integers(0, T // 2 - 1, B)
    second += second >= first  # the place among the pairs that are still unmarked
    inputs = np.zeros((steps, B, 2))
    inputs[:, :, 0] = np.where(np.arange(steps)[:, None] < lengths, values, 0.0)
    inputs[first, columns, 1] = 1.0
    inputs[second, columns, 1] = 1.0
    inputs[0, :, 1] = -1.0
    inputs[lengths - 1, columns, 1] = -1.0
    numbers = [np.where(place == 0, neutral, values[place, columns]) for place in (first, second)]
    return inputs, lengths, numbers[0], numbers[1]


def _adding(rng: np.random.Generator, B: int, T: int) -> Batch:
    inputs, lengths, x1, x2 = _pairs(rng, B, T, -1.0, 0.0)
    return Batch(inputs, (0.5 + (x1 + x2) / 4.0)[:, None], lengths=lengths)


def _multiplication(rng: np.random.Generator, B: int, T: int) -> Batch:
    inputs, lengths, x1, x2 = _pairs(rng, B, T, 0.0, 1.0)
    return Batch(inputs, (x1 * x2)[:, None], lengths=lengths)


ADDING = Task(
    name="adding_hochreiter",
    source="Hochreiter & Schmidhuber (1997), experiment 4 (section 5.4)",
    input_size=2,
    output_size=1,
    readout="last",
    loss="mean_squared_error",
    criterion="absolute error < 0.04",
    law=_adding,
    chance=lambda length: adding_baseline(hidden_mark_probability(length)),
    correct=closer_than(0.04),
    minimum=FIRST + 1,  # the last pair is never marked
)

MULTIPLICATION = Task(
    name="multiplication_hochreiter",
    source="Hochreiter & Schmidhuber (1997), experiment 5 (section 5.5)",
    input_size=2,
    output_size=1,
    readout="last",
    loss="mean_squared_error",
    criterion="absolute error < 0.04",
    law=_multiplication,
    chance=lambda length: multiplication_baseline(hidden_mark_probability(length)),
    correct=closer_than(0.04),
    minimum=FIRST + 1,
)
