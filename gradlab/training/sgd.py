"""Plain stochastic gradient descent, over ensemble axes: each member has its own batches' gradient and its own clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_positive
from gradlab.backward import bptt
from gradlab.batch import Batch
from gradlab.errors import DTypeError, NumericalError, ShapeError
from gradlab.forward_pass import checked_params
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.training.clipping import clip_by_norm, global_norm
from gradlab.workspace import Workspace

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class History:
    """What a training run measured, one row an update: `loss` (updates, *E) and `gradient_norm` (updates, *E) before clipping.

    `path`: the parameters before the first update and after each, (updates + 1, ...) by key; empty unless asked for.
    """

    params: dict[str, Array]
    loss: Array
    gradient_norm: Array
    path: dict[str, Array] = field(default_factory=dict)


def sgd(
    net: Network,
    params: Mapping[str, Array],
    batches: Iterable[Batch],
    loss: Loss,
    learning_rate: float | Array,
    *,
    clip_norm: float | None = None,
    initial_states: Mapping[str, Array] | None = None,
    keep_path: bool = False,
    progress: Callable[[int], None] | None = None,
) -> History:
    """One step `theta -= learning_rate * gradient` for each batch; `params` is not modified.

    Members of an ensemble (axes in front of any parameter) are trained each on its own: a parameter that they
    share at the start is copied for each. `learning_rate`: one number, or one for each member (*E,).
    `clip_norm`: rescale each member's gradient of all parameters jointly to at most this norm.
    `progress(updates done)` is called after each update.

    Errors: NumericalError with the update and the place if a loss, a gradient or a parameter is not finite.
    """
    if clip_norm is not None:
        clip_norm = require_positive("clip_norm", clip_norm)
    if isinstance(batches, Batch):
        raise DTypeError("batches is one Batch; expected an iterable of them; try [batch] * updates")
    start = checked_params(net, params)
    members = np.broadcast_shapes(*(net.ensemble_shape(key, value) for key, value in start.items()))
    current = {key: np.array(np.broadcast_to(start[key], members + own)) for key, own in net.shapes.items()}
    rates = _rates(learning_rate, members)
    workspace = Workspace()
    losses, norms, path = [], [], [dict(current)] if keep_path else []
    for update, batch in enumerate(batches):
        own = batch.inputs.shape[1:-2] if isinstance(batch, Batch) and isinstance(batch.inputs, np.ndarray) else ()
        if len(own) > len(members) or any(n not in (1, m) for n, m in zip(own[::-1], members[::-1], strict=False)):
            raise ShapeError(
                f"inputs have ensemble axes {own}, the parameters {members}; expected parameters for each member; "
                "stack one net.init for each"
            )
        record = bptt(net, current, batch, loss, keep=("adjoints",), initial_states=initial_states, workspace=workspace)
        if not record.status.ok:
            raise NumericalError(f"update {update}: {record.status}; {_advice(rates, clip_norm)}")
        if clip_norm is None:
            gradients, norm = dict(record.gradients), global_norm(net, record.gradients)
        else:
            gradients, norm = clip_by_norm(net, record.gradients, clip_norm)
        current = {key: _step(value, rates, gradients[key], len(net.shapes[key])) for key, value in current.items()}
        for key, value in current.items():
            if not np.isfinite(value).all():
                raise NumericalError(f"update {update}: {key} left the range of floats; {_advice(rates, clip_norm)}")
        losses.append(np.array(record.loss))
        norms.append(norm)
        if keep_path:
            path.append(dict(current))
        if progress is not None:
            progress(update + 1)
    stacked = {key: np.stack([p[key] for p in path]) for key in current} if keep_path else {}
    return History(current, np.array(losses), np.array(norms), stacked)


def _rates(learning_rate: float | Array, members: tuple[int, ...]) -> Array:
    """One learning rate for each member, checked."""
    if not isinstance(learning_rate, np.ndarray):
        return np.full(members, require_positive("learning_rate", learning_rate))
    if learning_rate.shape != members:
        raise ShapeError(f"learning_rate has shape {learning_rate.shape}; expected the ensemble axes {members}, or one number")
    for value in learning_rate.flat:
        require_positive("learning_rate", value)
    return learning_rate


def _step(value: Array, rates: Array, gradient: Array, own_axes: int) -> Array:
    """One parameter after the update, in its own dtype."""
    with np.errstate(all="ignore"):  # what leaves the range of floats is found on the result
        rate = rates.reshape(rates.shape + (1,) * own_axes).astype(gradient.real.dtype)
        return np.asarray(value - rate * gradient)


def _advice(rates: Array, clip_norm: float | None) -> str:
    other = "clip_norm" if clip_norm is None else f"a smaller clip_norm than {clip_norm:g}"
    return f"try a smaller learning_rate than {rates.max():g} or {other}"
