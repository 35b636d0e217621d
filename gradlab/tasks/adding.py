"""The adding problem, in the variant of Le, Jaitly & Hinton (2015).

Two inputs a step: a value from U[0, 1] and a marker that is 1 at exactly two steps and 0 elsewhere. The target,
at the last step, is the sum of the two marked values; the loss is the squared error. The original of
Hochreiter & Schmidhuber (1997) has other values, markers and lengths: do not compare numbers across variants.
"""

from __future__ import annotations

import numpy as np

from gradlab._validate import require_count, require_generator
from gradlab.batch import Batch

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
    columns = np.arange(B)
    first = rng.integers(0, T, B)
    second = (first + rng.integers(1, T, B)) % T  # uniform over the other T - 1 steps
    inputs[first, columns, 1] = 1.0
    inputs[second, columns, 1] = 1.0
    targets = inputs[first, columns, 0] + inputs[second, columns, 0]
    return Batch(inputs, targets[:, None])
