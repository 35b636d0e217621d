"""The form of a catalogue entry and of a threshold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A code in words.

    `remedy`: what to try first, in one or two sentences; `pytorch`, `keras`: the same as code, a few lines that can be pasted,
    with `model`, `optimizer`, `loss` and the like as names, "" where there is none. `reference`: author, year, where.
    """

    title: str
    meaning: str
    remedy: str
    pytorch: str
    keras: str
    reference: str


@dataclass(frozen=True)
class Threshold:
    """A limit that a rule compares with. `why`: the source, or the calibration that fixed it."""

    value: float
    unit: str
    why: str
