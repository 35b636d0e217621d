"""Temporal order: which of two symbols stood at each of two or three far places?

Hochreiter & Schmidhuber (1997, section 5.6): 8 one-hot symbols E, B, a, b, c, d, X, Y; E starts, B ends, the length is
uniform over T..T + T/10; X or Y at a place uniform over each window, and a to d elsewhere. Their T is 100 with windows
10..20 and 50..60 (6a), or 10..20, 33..43 and 66..76 (6b), counted from 0 = E; another T scales the windows. Targets are
one-hot and the loss is the squared error; class 2 v1 + v2 (6a) or 4 v1 + 2 v2 + v3 (6b) with v = 0 for X, 1 for Y.

Pascanu, Mikolov & Bengio (2013), their program: 6 one-hot symbols A, B, c, d, e, f, no start, no end, a fixed length l;
A or B at a place in [l/10, 2 l/10), and in [5 l/10, 6 l/10); with three, the later windows start at 3 l/10 and 6 l/10. All
windows have l/10 places. Target: the label v0 + 2 v1 (+ 4 v2). (The text above their program gives other places.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gradlab.batch import Batch
from gradlab.tasks.base import Task, closer_than, largest_output, one_hot

Law = Callable[[np.random.Generator, int, int], Batch]


def _hochreiter(windows: Sequence[tuple[int, int]]) -> Law:
    """The law for these windows, first and last place in hundredths of T."""

    def law(rng: np.random.Generator, B: int, T: int) -> Batch:
        steps, columns = T + T // 10, np.arange(B)
        lengths = rng.integers(T, steps + 1, B)
        symbols = rng.integers(2, 6, (steps, B))
        classes = np.zeros(B, dtype=np.int64)
        for low, high in windows:
            value = rng.integers(0, 2, B)
            symbols[rng.integers(low * T // 100, high * T // 100 + 1, B), columns] = 6 + value
            classes = 2 * classes + value
        symbols[0] = 0
        symbols[lengths - 1, columns] = 1
        inputs = one_hot(symbols, 8)
        inputs[np.arange(steps)[:, None] >= lengths] = 0.0
        return Batch(inputs, one_hot(classes, 2 ** len(windows)), lengths=lengths)

    return law


def _pascanu(starts: Sequence[int]) -> Law:
    """The law for windows that start at these tenths of l."""

    def law(rng: np.random.Generator, B: int, T: int) -> Batch:
        symbols = rng.integers(2, 6, (T, B))
        classes = np.zeros(B, dtype=np.int64)
        for k, start in enumerate(starts):
            value = rng.integers(0, 2, B)
            symbols[start * T // 10 + rng.integers(0, T // 10, B), np.arange(B)] = value
            classes += value << k
        return Batch(one_hot(symbols, 6), classes)

    return law


def _hochreiter_task(name: str, windows: Sequence[tuple[int, int]]) -> Task:
    share = 0.5 ** len(windows)
    return Task(
        name=name,
        source=f"Hochreiter & Schmidhuber (1997), experiment 6{'ab'[len(windows) - 2]} (section 5.6); their T is 100",
        input_size=8,
        output_size=2 ** len(windows),
        readout="last",
        loss="mean_squared_error",
        criterion="absolute error of every output < 0.3",
        law=_hochreiter(windows),
        chance=lambda length: share * (1.0 - share),  # the variance of each one-hot target
        correct=closer_than(0.3),
        minimum=10,
    )


def _pascanu_task(name: str, starts: Sequence[int]) -> Task:
    return Task(
        name=name,
        source="Pascanu, Mikolov & Bengio (2013), their program",
        input_size=6,
        output_size=2 ** len(starts),
        readout="last",
        loss="softmax_cross_entropy",
        criterion="the largest output is the target's",
        law=_pascanu(starts),
        chance=lambda length: float(len(starts) * np.log(2.0)),
        correct=largest_output,
        minimum=10,
    )


HOCHREITER_TWO = _hochreiter_task("temporal_order_hochreiter_two", ((10, 20), (50, 60)))
HOCHREITER_THREE = _hochreiter_task("temporal_order_hochreiter_three", ((10, 20), (33, 43), (66, 76)))
PASCANU = _pascanu_task("temporal_order_pascanu", (1, 5))
PASCANU_THREE = _pascanu_task("temporal_order_pascanu_three", (1, 3, 6))
