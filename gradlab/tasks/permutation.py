"""Random permutation, as the program of Pascanu, Mikolov & Bengio (2013) poses it.

100 one-hot symbols. The first of the l symbols is 0 or 1, all others are random from 2..99; the net reads them and says,
after the last one, which symbol comes next: the first one again. A constant answer of 1/2 for each has cross-entropy ln 2.
"""

from __future__ import annotations

import numpy as np

from gradlab.batch import Batch
from gradlab.tasks.base import Task, largest_output, one_hot

SYMBOLS = 100


def _law(rng: np.random.Generator, B: int, T: int) -> Batch:
    symbols = rng.integers(2, SYMBOLS, (T, B))
    symbols[0] = rng.integers(0, 2, B)
    return Batch(one_hot(symbols, SYMBOLS), symbols[0].copy())


PASCANU = Task(
    name="permutation_pascanu",
    source="Pascanu, Mikolov & Bengio (2013), their program",
    input_size=SYMBOLS,
    output_size=SYMBOLS,
    readout="last",
    loss="softmax_cross_entropy",
    criterion="the largest output is the target's",
    law=_law,
    chance=lambda length: float(np.log(2.0)),
    correct=largest_output,
    minimum=2,  # below, nothing is to be remembered
)
