"""Plain stochastic gradient descent, over ensemble axes: each member has its own batches' gradient and its own clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_positive
from gradlab.backward import bptt
from gradlab.batch import Batch
from gradlab.errors import NumericalError
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.training.clipping import clip_by_norm, global_norm
from gradlab.workspace import Workspace

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class History:
    """What a training run measured, one row an update: `loss` (updates, *E) and `gradient_norm` (updates, *E) before clipping.

    `path`: the parameters before the first update and after each, (updates + 1, ...) by key, if they were asked for.
    """

    params: dict[str, Array]
    loss: Array
    gradient_norm: Array
    path: dict[str, Array] | None = None


def sgd(
    net: Network,
    params: Mapping[str, Array],
    batches: Iterable[Batch],
    loss: Loss,
    learning_rate: float,
    *,
    clip_norm: float | None = None,
    initial_states: Mapping[str, Array] | None = None,
    keep_path: bool = False,
    progress: Callable[[int], None] | None = None,
) -> History:
    """One step `theta -= learning_rate * gradient` for each batch; `params` is not modified.

    `clip_norm`: rescale the gradient of all parameters jointly to at most this norm. `progress(updates done)`.
    Errors: NumericalError with the update and the place if a loss or gradient is not finite; the parameters
    are those before that update.
    """
    rate = require_positive("learning_rate", learning_rate)
    if clip_norm is not None:
        clip_norm = require_positive("clip_norm", clip_norm)
    current = {key: np.array(params[key]) for key in net.shapes}
    workspace = Workspace()
    losses, norms, path = [], [], [dict(current)]
    for update, batch in enumerate(batches):
        record = bptt(net, current, batch, loss, keep=("adjoints",), initial_states=initial_states, workspace=workspace)
        if not record.status.ok:
            raise NumericalError(
                f"update {update}: {record.status}; try a smaller learning_rate than {rate:g} or "
                f"{'clip_norm' if clip_norm is None else f'a smaller clip_norm than {clip_norm:g}'}"
            )
        if clip_norm is None:
            gradients, norm = dict(record.gradients), global_norm(net, record.gradients)
        else:
            gradients, norm = clip_by_norm(net, record.gradients, clip_norm)
        current = {key: value - rate * gradients[key] for key, value in current.items()}
        losses.append(np.array(record.loss))
        norms.append(norm)
        if keep_path:
            path.append(dict(current))
        if progress is not None:
            progress(update + 1)
    stacked = {key: np.stack([p[key] for p in path]) for key in current} if keep_path else None
    return History(current, np.array(losses), np.array(norms), stacked)
