"""The loss that is taken where none is given: a unit gradient at the last step of each sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.batch import Batch
from gradlab.losses import Loss

Array = npt.NDArray[Any]


def unit_gradient(batch: Batch, seed: int) -> Loss:
    """L = sum_b v_b . y_b at each row's last step, with v_b random unit vectors: dL/dy has norm 1 there and is 0 elsewhere.

    A random direction, for one that suits the network's weights by accident would hide what most directions see.
    """

    def loss(outputs: Array, targets: Any, mask: Array | None = None) -> tuple[Array, Array]:
        v = np.random.default_rng(seed).standard_normal(outputs.shape[-2:])  # (B, p)
        v = v / np.linalg.norm(v, axis=-1, keepdims=True)
        d = np.zeros_like(outputs)
        if outputs.ndim == 2:  # a read-out of the last step
            d[...] = v
        else:
            T, B = outputs.shape[-3], outputs.shape[-2]
            ends = np.full(B, T) if batch.lengths is None else np.asarray(batch.lengths)
            d[ends - 1, np.arange(B)] = v
        return np.asarray((outputs * d).sum()), d

    return loss
