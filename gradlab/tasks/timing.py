"""Timing: measure the interval between spikes and say when it ends again, to the very step.

After the timing tasks of Gers, Schraudolph & Schmidhuber (2002), whose nets measure the delay between spikes or make spikes of
their own. One input line: spikes of 1 every I steps, from step `phase` on, and 0 between. I is drawn for each sequence, uniform
over T//5..T//3, the phase uniform over 0..T//5 - 1. The label is 1 at the last step of an interval, just before the spike that
ends it, from the second interval on: the first one is there to be measured. The second ends within every sequence.
The laws of I and of the phase, the label and the criterion are gradlab's choice: the paper's own numbers do not compare.
"""

from __future__ import annotations

import numpy as np

from gradlab.batch import Batch
from gradlab.tasks.base import Array, Task, largest_output


def intervals(length: int) -> Array:
    """The intervals I that occur at this length T, each as often as any other."""
    return np.arange(length // 5, length // 3 + 1)


def _trains(I: Array, phase: Array, T: int) -> tuple[Array, Array]:  # noqa: E741 - the letter of the paper
    """Spikes and labels (T, n), integers, for intervals and phases (n,)."""
    since = np.arange(T)[:, None] - phase
    spikes = (since >= 0) & (since % I == 0)
    labels = (since + 1 >= 2 * I) & ((since + 1) % I == 0)
    return spikes.astype(np.int64), labels.astype(np.int64)


def _law(rng: np.random.Generator, B: int, T: int) -> Batch:
    drawn = intervals(T)
    spikes, labels = _trains(rng.integers(drawn[0], drawn[-1] + 1, B), rng.integers(0, T // 5, B), T)
    return Batch(spikes[..., None].astype(np.float64), labels)


def every_train(length: int) -> tuple[Array, Array]:
    """Spikes and labels, integers (T, n), of each pair of interval and phase once: the whole law, for exact means."""
    I, phase = (side.ravel() for side in np.meshgrid(intervals(length), np.arange(length // 5), indexing="ij"))  # noqa: E741
    return _trains(I, phase, length)


def _entropy(share: Array) -> Array:
    """Of a label that is 1 with probability `share`, in nats."""
    from scipy.special import entr

    return np.asarray(entr(share) + entr(1.0 - share))


def _chance(length: int) -> float:
    return float(_entropy(every_train(length)[1].mean(axis=1)).mean())


def unmeasured(length: int) -> float:
    """The loss of the best answer that sees every spike, counts the steps since the last one, and forgets the interval: in nats.

    It knows the step, and whether an interval has been there to measure. What is below has measured it.
    """
    spikes, labels = every_train(length)
    t = np.arange(length)[:, None]
    last = np.maximum.accumulate(np.where(spikes == 1, t, -1), axis=0)
    seen = np.minimum(spikes.cumsum(axis=0), 2)
    total = 0.0
    for now in range(length):
        _, group = np.unique(np.stack([last[now], seen[now]]), axis=1, return_inverse=True)
        count = np.bincount(group.ravel())
        total += float((count * _entropy(np.bincount(group.ravel(), labels[now]) / count)).sum())
    return total / labels.size


GERS = Task(
    name="timing_gers",
    source="after Gers, Schraudolph & Schmidhuber (2002); laws of interval and phase, label and criterion are gradlab's choice",
    input_size=1,
    output_size=2,
    readout="every",
    loss="softmax_cross_entropy",
    criterion="at every step the largest output is the target's",
    law=_law,
    chance=_chance,
    correct=largest_output,
    minimum=10,  # below, an interval would be a single step
)
