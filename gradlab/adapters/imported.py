"""What every adapter returns: a network in gradlab's own terms, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.network import Network

Array = npt.NDArray[Any]
FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True)
class Imported:
    """A network read from elsewhere, with its parameters under gradlab's letters ("0.W", "0.forward.U", ...).

    `source`: what it was, in words, e.g. "torch.nn.LSTM". `notes`: what was decided on the way (biases added, reset kind).
    `dtype`: of the source; the parameters are float64 copies unless another type was asked for.
    `batch_first`: whether the source reads (B, T, D); gradlab reads (T, B, D).
    `reverse`: the source reads its sequence from the end; run the network on each row turned round.
    """

    net: Network
    params: Mapping[str, Array]
    source: str
    notes: tuple[str, ...] = ()
    dtype: np.dtype[Any] = FLOAT64
    batch_first: bool = False
    reverse: bool = False

    def __repr__(self) -> str:
        return f"Imported({self.source}: {self.net!r})"
