"""Copying: repeat ten symbols after a delay. Two tasks that are often taken for one.

Arjovsky, Shah & Bengio (2016), their program: symbols 0 (blank), 1..8 and 9 (marker) as 10 inputs. Ten symbols of 1..8,
T - 1 blanks, the marker, ten blanks; the output has no marker, so 9 classes: T + 10 blanks, then the ten symbols.

Pascanu, Mikolov & Bengio (2013), "noiseless memorisation", their program: v values, a blank and a trigger as v + 2
inputs. n values, T blanks, the trigger, n - 1 blanks; v + 1 outputs: T + n blanks (class v), then the n values. Either n = 10
of v = 5 values or n = 5 of v = 2.

Both ask for an output at each of the T + 2 n steps, and the cross-entropy is the mean over all of them. The baseline
n ln v/(T + 2 n) is that of a net which knows when to answer and not what.
"""

from __future__ import annotations

import numpy as np

from gradlab.batch import Batch
from gradlab.tasks.base import Array, Task, largest_output, one_hot


def _batch(symbols: Array, T: int, size: int, *, blank: int, marker: int, marked: int, silence: int) -> Batch:
    """`symbols` (n, B) are read first and answered last; `marker` stands at step `marked`."""
    n, B = symbols.shape
    inputs, targets = np.full((T + 2 * n, B), blank), np.full((T + 2 * n, B), silence)
    inputs[:n] = targets[-n:] = symbols
    inputs[marked] = marker
    return Batch(one_hot(inputs, size), targets)


def _arjovsky(rng: np.random.Generator, B: int, T: int) -> Batch:
    return _batch(rng.integers(1, 9, (10, B)), T, 10, blank=0, marker=9, marked=T + 9, silence=0)


def _memorisation(name: str, values: int, count: int) -> Task:
    def law(rng: np.random.Generator, B: int, T: int) -> Batch:
        symbols = rng.integers(0, values, (count, B))
        return _batch(symbols, T, values + 2, blank=values, marker=values + 1, marked=T + count, silence=values)

    return Task(
        name=name,
        source=f"Pascanu, Mikolov & Bengio (2013), their program: {count} symbols of {values} values",
        input_size=values + 2,
        output_size=values + 1,
        readout="every",
        loss="softmax_cross_entropy",
        criterion="at every step the largest output is the target's",
        law=law,
        chance=lambda length: float(count * np.log(values) / (length + 2 * count)),
        correct=largest_output,
    )


ARJOVSKY = Task(
    name="copy_arjovsky",
    source="Arjovsky, Shah & Bengio (2016), and their program; the criterion for one sequence is gradlab's, the paper has none",
    input_size=10,
    output_size=9,
    readout="every",
    loss="softmax_cross_entropy",
    criterion="at every step the largest output is the target's",
    law=_arjovsky,
    chance=lambda length: float(10.0 * np.log(8.0) / (length + 20)),
    correct=largest_output,
)

PASCANU = _memorisation("memorisation_pascanu", 5, 10)
PASCANU_TWO = _memorisation("memorisation_pascanu_two", 2, 5)
