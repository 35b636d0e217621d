"""Memory that one call of `forward` or `bptt` leaves to the next."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Workspace:
    """Buffers reused from call to call, for loops over batches.

    Fresh memory is handed out page by page, which can cost as much as the arithmetic. With a workspace the
    sequences of a pass (states, tapes, adjoints) live in the same buffers every time: what a call returned
    is OVERWRITTEN by the next call with the same workspace. Copy what must last. Not for use by two threads.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An uninitialised array in the buffer `name`, which grows as needed."""
        kind = np.dtype(dtype)
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.dtype != kind or buffer.size < size:
            buffer = self._buffers[name] = np.empty(size, kind)
        return buffer[:size].reshape(shape)


def time_major(workspace: Workspace | None, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An uninitialised array (T, ..., B, K) on memory in the order `shape` = (..., T, B, K); new if `workspace` is None."""
    memory = np.empty(shape, dtype) if workspace is None else workspace.empty(name, shape, dtype)
    return np.moveaxis(memory, -3, 0)
