"""A batch of sequences: what a task samples, a network reads and a loss is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Inputs with their targets, time-major.

    `inputs` (T, B, D).
    `targets`: what the loss expects; None for a loss that reads none.
    For a read-out at every step its leading axes are (T, B), for a read-out at the last step (B,).
    `mask`: same leading axes as the targets, 0 where a position does not count; None counts all.
    `lengths` (B,): steps of each row, None if all have T; positions behind a row's end never count.
    Where each ensemble member reads its own sequences, the first three have ensemble axes in front of B:
    (T, *E, B, D), (T, *E, B) or (*E, B).
    """

    inputs: Array
    targets: Any
    mask: Array | None = None
    lengths: Array | None = None
