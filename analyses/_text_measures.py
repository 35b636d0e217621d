"""What is measured on held-out text: a net's cross-entropy and confusions, and the table of pairs that it must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab.tasks import characters, python_syntax

Array = npt.NDArray[Any]
AT_ONCE = 50  # windows in one forward pass: bounds the memory


def character_net(hidden_size: int) -> gradlab.Network:
    return gradlab.Network(gradlab.LSTM(), characters.INPUT_SIZE, hidden_size, output_size=characters.OUTPUT_SIZE)


def syntax_net(direction: str, hidden_size: int) -> gradlab.Network:
    return gradlab.Network(
        gradlab.LSTM(),
        python_syntax.INPUT_SIZE,
        hidden_size,
        output_size=python_syntax.OUTPUT_SIZE,
        bidirectional=direction == "two",
    )


def tiled(text: Array, targets: Array, window: int) -> tuple[Array, Array]:
    """Text and targets cut into windows side by side, (window, number): every position but the last few counts once."""
    number = len(targets) // window
    cut = slice(0, number * window)
    return text[cut].reshape(number, window).T, targets[cut].reshape(number, window).T


def measured(net: gradlab.Network, params: Mapping[str, Array], text: Array, targets: Array, classes: int) -> tuple[Array, Array]:
    """Of each member: cross-entropy in nats, and how often class i was taken for class j, (*E, classes, classes)."""
    nats, taken = [], []
    dtype = next(iter(params.values())).dtype
    for first in range(0, text.shape[1], AT_ONCE):
        part = slice(first, first + AT_ONCE)
        outputs = gradlab.forward(net, params, characters.one_hot(text[:, part]).astype(dtype)).outputs  # (T, *E, B, p)
        outputs = np.moveaxis(outputs, 0, -3).astype(np.float64)
        own = targets[:, part]
        nats.append(gradlab.softmax_cross_entropy(outputs, own)[0] * own.size)
        found = outputs.argmax(axis=-1)
        pairs = (own * classes + found).reshape(-1, own.size)
        taken.append(np.stack([np.bincount(row, minlength=classes * classes) for row in pairs]))
    members = nats[0].shape
    return np.asarray(sum(nats)) / targets.size, np.asarray(sum(taken)).reshape(*members, classes, classes)


def bigram(training: Array, text: Array, targets: Array, smoothing: float) -> float:
    """Cross-entropy in nats of the pair counts of `training`, `smoothing` added to each, at the positions (text, targets)."""
    counts = np.full((characters.SYMBOLS, characters.SYMBOLS), smoothing)
    np.add.at(counts, (training[:-1], training[1:]), 1.0)
    return float((np.log(counts.sum(axis=1))[text] - np.log(counts[text, targets])).mean())


def identities(training: Array) -> dict[str, Array]:
    """Exact facts: a net of zeros costs ln p; a table of pairs costs the text that it counts H(pair) - H(first)."""
    rng = np.random.default_rng(0)  # the numbers below do not depend on it
    found = {}
    for name, net, task in (("characters", character_net(3), characters), ("syntax", syntax_net("two", 3), python_syntax)):
        zero = {key: np.zeros(shape) for key, shape in net.shapes.items()}
        batch = task.sample(rng, 2, 20)
        found[f"zero_{name}"] = np.asarray(gradlab.bptt(net, zero, batch, gradlab.softmax_cross_entropy, keep=()).loss)
    pairs = np.bincount(training[:-1] * characters.SYMBOLS + training[1:])
    first = np.bincount(training[:-1])
    entropies = []
    for counts in (pairs, first):
        shares = counts[counts > 0] / counts.sum()
        entropies.append(-(shares * np.log(shares)).sum())
    found["entropy_difference"] = np.asarray(entropies[0] - entropies[1])
    found["own_bigram"] = np.asarray(bigram(training, training[:-1], training[1:], 1e-300))
    return found
