"""Next-character prediction on real English text that every Python installation has.

The text is the language reference as `pydoc_data.topics` of the standard library holds it for `help()`: about
half a megabyte of prose, tables and code. It changes with the version of Python, so a result names the text's
SHA-256. The alphabet does not change: newline, the 95 printable ASCII characters, and one symbol for the rest.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_count, require_generator
from gradlab.batch import Batch
from gradlab.errors import FormatError, ValueRangeError
from gradlab.tasks.base import Task, largest_output

Array = npt.NDArray[Any]

ALPHABET = "\n" + "".join(chr(code) for code in range(32, 127))
SYMBOLS = len(ALPHABET) + 1
"""Inputs and outputs of a network for this task: 97. The last symbol stands for every other character."""
VALIDATION_SHARE = 0.1
INPUT_SIZE = OUTPUT_SIZE = SYMBOLS


@dataclass(frozen=True)
class Corpus:
    """The text as symbols 0..96, its last tenth kept for validation.

    `baseline`: cross-entropy in nats of predicting each symbol of the validation text by its share in the training text.
    """

    training: Array
    validation: Array
    sha256: str
    baseline: float

    def sample(
        self, rng: np.random.Generator, batch: int, length: int, split: Literal["training", "validation"] = "training"
    ) -> Batch:
        """`batch` windows at random places: inputs (T, B, 97) one-hot, targets (T, B) the symbols that follow."""
        require_generator("rng", rng)
        B, T = require_count("batch", batch), require_count("length", length)
        if split not in ("training", "validation"):
            raise ValueRangeError(f'split is {split!r}; expected "training" or "validation"')
        text = self.training if split == "training" else self.validation
        if len(text) <= T:
            raise ValueRangeError(f"length is {T}; expected less than the {len(text)} characters of the {split} text")
        start = rng.integers(0, len(text) - T, B)
        window = text[start + np.arange(T + 1)[:, None]]  # (T + 1, B)
        return Batch(one_hot(window[:-1]), window[1:])

    @cached_property
    def bigram_baseline(self) -> float:
        """Cross-entropy in nats of predicting each symbol from the one before it: counts of pairs in the training text, one
        added to each, measured on all pairs of the validation text. What a network beats only with memory.
        """
        counts = np.ones((SYMBOLS, SYMBOLS))
        np.add.at(counts, (self.training[:-1], self.training[1:]), 1.0)
        shares = counts / counts.sum(axis=1, keepdims=True)
        return float(-np.log(shares[self.validation[:-1], self.validation[1:]]).mean())


def one_hot(symbols: Array) -> Array:
    """(T, B) symbols -> (T, B, 97)."""
    return np.eye(SYMBOLS)[symbols]


def encode(text: str) -> Array:
    """Symbols of a text, one a character."""
    place = {character: k for k, character in enumerate(ALPHABET)}
    return np.array([place.get(character, SYMBOLS - 1) for character in text], dtype=np.int64)


@cache
def load() -> Corpus:
    """The corpus of the running Python. Errors: FormatError where the standard library lacks `pydoc_data`."""
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except (ImportError, AttributeError) as error:
        raise FormatError(
            "pydoc_data.topics is missing from this Python's standard library; expected about half a megabyte of text; "
            "install the full standard library (some distributions package it apart)"
        ) from error
    text = "\n\n".join(topics[key] for key in sorted(topics))
    symbols = encode(text)
    cut = int(len(symbols) * (1.0 - VALIDATION_SHARE))
    training, validation = symbols[:cut], symbols[cut:]
    shares = (np.bincount(training, minlength=SYMBOLS) + 1.0) / (len(training) + SYMBOLS)
    baseline = float(-np.log(shares[validation]).mean())
    for part in (training, validation):
        part.flags.writeable = False
    return Corpus(training, validation, hashlib.sha256(text.encode()).hexdigest(), baseline)


def sample(rng: np.random.Generator, batch: int, length: int) -> Batch:
    """`batch` training windows of `length` steps: see `Corpus.sample`."""
    return load().sample(rng, batch, length)


TASK = Task(
    name="characters",
    source="gradlab: pydoc_data.topics of the running Python",
    input_size=INPUT_SIZE,
    output_size=OUTPUT_SIZE,
    readout="every",
    loss="softmax_cross_entropy",
    criterion="at every step the largest output is the target's (gradlab's choice; report nats per character)",
    law=sample,
    chance=lambda length: load().baseline,
    correct=largest_output,
)
