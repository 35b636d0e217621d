"""Label every character of real Python source with its syntactic class.

The text is a fixed list of modules of the standard library, which are read and never executed; the classes are those of
the standard `tokenize` module. What a character is often depends on what stands far before it (is this a string, a
comment?) and sometimes on what follows (`in` or `index`?), so two directions see more than one. The text changes with the
version of Python, so a result names its SHA-256. The split is by whole files. The alphabet is that of `characters`.
"""

from __future__ import annotations

import hashlib
import io
import keyword
import sysconfig
import token
import tokenize
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_count, require_generator, require_one_of
from gradlab.batch import Batch
from gradlab.errors import FormatError, ValueRangeError
from gradlab.tasks import characters
from gradlab.tasks.base import Task, largest_output

Array = npt.NDArray[Any]

CLASSES = ("whitespace", "keyword", "name", "number", "string", "comment", "operator")
"""Whitespace is all that belongs to no token: blanks, newlines, indentation, and the backslash that continues a line."""
WHITESPACE, KEYWORD, NAME, NUMBER, STRING, COMMENT, OPERATOR = range(len(CLASSES))
INPUT_SIZE, OUTPUT_SIZE = characters.SYMBOLS, len(CLASSES)

TRAINING_FILES = (
    "argparse.py",
    "configparser.py",
    "contextlib.py",
    "csv.py",
    "dataclasses.py",
    "difflib.py",
    "enum.py",
    "fractions.py",
    "functools.py",
    "random.py",
    "shutil.py",
    "subprocess.py",
    "traceback.py",
)
VALIDATION_FILES = ("calendar.py", "tempfile.py", "weakref.py")

_PLAIN = {token.NUMBER: NUMBER, token.STRING: STRING, token.COMMENT: COMMENT, token.OP: OPERATOR}
_OPENS = {getattr(token, name) for name in ("FSTRING_START", "TSTRING_START") if hasattr(token, name)}
_CLOSES = {getattr(token, name) for name in ("FSTRING_END", "TSTRING_END") if hasattr(token, name)}


def label(text: str) -> Array:
    """The class of each character of a Python source, integers (len(text),): places in `CLASSES`.

    Soft keywords are names. A formatted string is a string as a whole, whatever the version of Python makes of its inside.
    Error: FormatError for a text that `tokenize` cannot read.
    """
    lines = text.split("\n")
    start = np.concatenate([[0], np.cumsum([len(line) + 1 for line in lines])])  # of each line, counted from 0
    classes = np.full(len(text), WHITESPACE)
    depth, opened = 0, 0
    try:
        for kind, string, begin, end, _ in tokenize.generate_tokens(io.StringIO(text).readline):
            first, last = start[begin[0] - 1] + begin[1], start[min(end[0], len(lines)) - 1] + end[1]
            if kind in _OPENS:
                opened = first if depth == 0 else opened
                depth += 1
            elif kind in _CLOSES:
                depth -= 1
                if depth == 0:
                    classes[opened:last] = STRING
            elif depth:
                continue
            elif kind == token.NAME:
                classes[first:last] = KEYWORD if keyword.iskeyword(string) else NAME
            elif kind in _PLAIN:
                classes[first:last] = _PLAIN[kind]
    except (tokenize.TokenError, SyntaxError) as error:
        raise FormatError(f"the text is no Python source: {error}; expected what tokenize reads") from error
    return classes


@dataclass(frozen=True)
class SyntaxCorpus:
    """Symbols 0..96 (see `characters`) with the class of each, and the SHA-256 of the whole text."""

    training: Array
    training_classes: Array
    validation: Array
    validation_classes: Array
    sha256: str

    def sample(
        self, rng: np.random.Generator, batch: int, length: int, split: Literal["training", "validation"] = "training"
    ) -> Batch:
        """`batch` windows at random places: inputs (T, B, 97) one-hot, targets (T, B) the classes of the same characters."""
        require_generator("rng", rng)
        B, T = require_count("batch", batch), require_count("length", length)
        training = require_one_of("split", split, ("training", "validation")) == "training"
        text, classes = (self.training, self.training_classes) if training else (self.validation, self.validation_classes)
        if len(text) < T:
            raise ValueRangeError(f"length is {T}; expected at most the {len(text)} characters of the {split} text")
        window = rng.integers(0, len(text) - T + 1, B) + np.arange(T)[:, None]  # (T, B)
        return Batch(characters.one_hot(text[window]), classes[window])

    @cached_property
    def baseline(self) -> float:
        """Cross-entropy in nats of giving each class of the validation text its share in the training text, one added to
        each count.
        """
        shares = (np.bincount(self.training_classes, minlength=OUTPUT_SIZE) + 1.0) / (len(self.training) + OUTPUT_SIZE)
        return float(-np.log(shares[self.validation_classes]).mean())

    @cached_property
    def majority(self) -> float:
        """The share of validation characters that have the commonest class of the training text."""
        commonest = np.bincount(self.training_classes, minlength=OUTPUT_SIZE).argmax()
        return float((self.validation_classes == commonest).mean())

    @cached_property
    def memoryless_baseline(self) -> float:
        """The same cross-entropy where the character itself is known, and none of its neighbours."""
        shares = self._by_character / self._by_character.sum(axis=1, keepdims=True)
        return float(-np.log(shares[self.validation, self.validation_classes]).mean())

    @cached_property
    def memoryless_majority(self) -> float:
        """The share of validation characters that have the class which their character has most often in the training text."""
        return float((self._by_character.argmax(axis=1)[self.validation] == self.validation_classes).mean())

    @cached_property
    def _by_character(self) -> Array:
        counts = np.ones((INPUT_SIZE, OUTPUT_SIZE))
        np.add.at(counts, (self.training, self.training_classes), 1.0)
        return counts


def _read(names: tuple[str, ...]) -> list[str]:
    library = Path(sysconfig.get_path("stdlib"))
    texts = []
    for name in names:
        try:
            with tokenize.open(library / name) as stream:
                texts.append(stream.read())
        except (OSError, SyntaxError) as error:
            raise FormatError(
                f"{library / name} cannot be read ({error}); expected the source of the standard library; "
                "install it in full (some distributions leave sources out)"
            ) from error
    return texts


@cache
def load() -> SyntaxCorpus:
    """The corpus of the running Python. Errors: FormatError where a source file is missing or unreadable."""
    parts, digest = [], hashlib.sha256()
    for names in (TRAINING_FILES, VALIDATION_FILES):
        texts = _read(names)
        digest.update("".join(texts).encode())
        parts += [characters.encode("".join(texts)), np.concatenate([label(text) for text in texts])]
    for part in parts:
        part.flags.writeable = False
    return SyntaxCorpus(parts[0], parts[1], parts[2], parts[3], digest.hexdigest())


def sample(rng: np.random.Generator, batch: int, length: int) -> Batch:
    """`batch` training windows of `length` steps: see `SyntaxCorpus.sample`."""
    return load().sample(rng, batch, length)


TASK = Task(
    name="python_syntax",
    source="gradlab: sources of the standard library of the running Python, classes of its tokenize module",
    input_size=INPUT_SIZE,
    output_size=OUTPUT_SIZE,
    readout="every",
    loss="softmax_cross_entropy",
    criterion="at every step the largest output is the target's (gradlab's choice; report the share of characters too)",
    law=sample,
    chance=lambda length: load().baseline,
    correct=largest_output,
)
