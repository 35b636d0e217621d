"""Parameters as one vector, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_shape
from gradlab.errors import ShapeError, ValueRangeError

Array = npt.NDArray[Any]


class ParameterVector:
    """The arrays `shapes` side by side in one vector of `size` n, row by row, in the order of the keys.

    `slices`: where each key's entries stand. Axes in front of an array's own are ensemble axes, and the vector's too.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.slices: dict[str, slice] = {}
        self.size = 0
        for key, shape in self.shapes.items():
            self.slices[key] = slice(self.size, self.size + math.prod(shape))
            self.size += math.prod(shape)

    def pack(self, params: Mapping[str, Array]) -> Array:
        """The vector (*E, n) of those of `params` that are in `shapes`; a copy. Ensemble axes broadcast.

        Errors: ValueRangeError for a missing key, ShapeError for other shapes.
        """
        missing = [key for key in self.shapes if key not in params]
        if missing:
            raise ValueRangeError(f"params lacks {missing}; expected {list(self.shapes)}")
        for key, shape in self.shapes.items():
            require_shape(f'params["{key}"]', params[key], shape, "its own axes")
        leads = {key: params[key].shape[: params[key].ndim - len(shape)] for key, shape in self.shapes.items()}
        try:
            common = np.broadcast_shapes(*leads.values())
        except ValueError as error:
            raise ShapeError(f"ensemble axes of params do not broadcast: {leads}; expected equal sizes, or 1") from error
        vector = np.empty((*common, self.size), np.result_type(*(params[key] for key in self.shapes)))
        for key, own in self.slices.items():
            vector[..., own] = params[key].reshape(*leads[key], own.stop - own.start)
        return vector

    def unpack(self, vector: Array) -> dict[str, Array]:
        """The arrays in `vector` (*E, n), (*E, ...) each; views where the memory allows.

        Error: ShapeError if its last axis is not n.
        """
        require_shape("vector", vector, (self.size,), "(n,), the number of parameters")
        lead = vector.shape[:-1]
        return {key: vector[..., own].reshape((*lead, *self.shapes[key])) for key, own in self.slices.items()}
