"""The training loop, over ensemble axes: seeds and learning rates side by side, each member on its own."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._validate import require_callable, require_count, require_flag
from gradlab.batch import Batch
from gradlab.errors import DTypeError, ResourceRefused, ValueRangeError
from gradlab.forward_pass import checked_params
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.training import checkpoint as checkpoints
from gradlab.training.clipping import Clip
from gradlab.training.early_stopping import Validation
from gradlab.training.optimisers import Optimiser
from gradlab.training.regulariser import NormPreserving
from gradlab.training.result import Training, result_of
from gradlab.training.schedules import Schedule
from gradlab.training.settings import Settings, checked_settings
from gradlab.training.state import State
from gradlab.training.step import Made, make_update
from gradlab.training.streams import Rng, Sample, draw, generators_of
from gradlab.workspace import Workspace

Array = npt.NDArray[Any]


class Recorder(Protocol):
    """What the trainer tells after each update; `gradlab.training.Monitor` is one. If it has `flush()`, that is called before
    each checkpoint, so that what it wrote covers all that a resumed run will not repeat.
    """

    def record(self, update: int, **measured: Any) -> None:
        """`update` from 0; see `train` for what is measured."""


def train(
    net: Network,
    params: Mapping[str, Array],
    sample: Sample,
    loss: Loss,
    updates: int,
    rng: Rng,
    *,
    optimiser: Optimiser | None = None,
    learning_rate: float | Array = 0.01,
    schedule: Schedule | None = None,
    clip: Clip | None = None,
    regulariser: NormPreserving | None = None,
    truncate: tuple[int, int] | None = None,
    initial_states: Mapping[str, Array] | None = None,
    nonfinite: Literal["stop", "skip"] = "stop",
    validate: Callable[[dict[str, Array]], Array] | None = None,
    validate_every: int = 100,
    patience: int | None = None,
    target: float | None = None,
    monitor: Recorder | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    keep_path: bool = False,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Training:
    """Train on `updates` batches drawn by `sample(rng)`; `params` is not modified.

    Ensemble axes in front of any parameter are members that train each on its own: own optimiser state, own clipping, and
    a parameter that they share at the start is copied for each. `rng`: one generator, whose batches all members see, or one
    for each member of a single ensemble axis, so that each has its own random stream. They are advanced.

    `learning_rate`: a number or one for each member (*E,), times `schedule(update)`. `clip`: `ByNorm`, `ByValue` or `ByLayer`.
    `regulariser`: `NormPreserving`, added before clipping. `truncate`: (k1, k2) of `truncated_bptt`. `initial_states`: as in
    `bptt`.
    `nonfinite`: what happens to a member whose loss, gradient or update is not finite: "stop" leaves it at its last good
    parameters for good, "skip" leaves out this update and counts it; others train on undisturbed, and `events` names update,
    member, parameter and time step.
    `validate(params) -> (*E,)` runs every `validate_every` updates; each member's best parameters are returned. A member that
    has not improved for `patience` runs stops, and so does one whose value falls below `target`.
    `checkpoint`: a .npz file written every `checkpoint_every` updates and at the end; if it exists, the run goes on from there
    and gives the same bits as one that was never interrupted (same machine, versions and number of BLAS threads).
    `monitor.record(update, ...)` is called after each update
    with loss, gradients, clipped gradients, norms, parameters before and after, learning rate and the record.
    `threads`: members of the first ensemble axis are shared among so many, with the same bits (truncated updates use one).
    `progress(updates done, updates)` after each update.

    Errors: ShapeError, DTypeError, ValueRangeError naming the argument; FormatError for a checkpoint that cannot be read.
    """
    if isinstance(sample, Batch):
        raise DTypeError("sample is one Batch; expected a function of a generator; try lambda rng: batch")
    require_callable("sample", sample, "(rng) -> Batch, such as lambda rng: adding.sample(rng, 20, 100)")
    updates = require_count("updates", updates, 0)
    checkpoint_every = require_count("checkpoint_every", checkpoint_every)
    keep_path = require_flag("keep_path", keep_path)
    validation = Validation(validate, validate_every, patience, target)
    if monitor is not None and (isinstance(monitor, type) or not callable(getattr(monitor, "record", None))):
        raise DTypeError(f"monitor is {monitor!r}; expected an object with record(update, ...), such as a Monitor()")
    if progress is not None:
        require_callable("progress", progress, "(updates done, updates)")
    file = None if checkpoint is None else _writable(checkpoint)
    if not isinstance(net, Network):
        raise DTypeError(f"net is {net!r}; expected a gradlab.Network")
    given = checked_params(net, params)
    members = np.broadcast_shapes(*(net.ensemble_shape(key, value) for key, value in given.items()))
    settings = checked_settings(
        net, members, loss, optimiser, learning_rate, schedule, clip, regulariser, truncate, nonfinite, initial_states
    )
    settings = replace(settings, threads=require_count("threads", threads))
    generators = generators_of(rng, members)
    if keep_path:
        needed = (updates + 1) * sum(math.prod(members + own) for own in net.shapes.values()) * 8
        refuse_above(needed, None, f"keep_path=True over {updates} updates", "train in parts, or use a monitor")
    state = State.start(settings, given, updates)
    if file is not None and file.exists():
        if keep_path:
            raise ValueRangeError("keep_path is True with a checkpoint to resume from; the path before it is not there")
        state = checkpoints.load(file, state, settings, generators)
    workspace = Workspace()
    path = [dict(state.params)] if keep_path else []
    saved = -1
    while state.update < updates and state.training.any():
        before = state.params
        made = make_update(settings, state, draw(sample, rng, members), workspace)
        if monitor is not None:
            _tell(monitor, state, made, before)
        if keep_path:
            path.append(dict(state.params))
        validation.run(state, updates)
        if file is not None and (state.update % checkpoint_every == 0 or state.update == updates or not state.training.any()):
            _save(file, state, settings, generators, monitor)
            saved = state.update
        if progress is not None:
            progress(state.update, updates)
    if file is not None and saved != state.update and not file.exists():
        _save(file, state, settings, generators, monitor)
    return result_of(state, path)


def _tell(monitor: Recorder, state: State, made: Made, before: dict[str, Array]) -> None:
    monitor.record(
        state.update - 1,
        loss=made.record.loss,
        gradients=made.gradients,
        clipped=made.clipped,
        gradient_norm=made.norm,
        params=before,
        new_params=state.params,
        learning_rate=made.rates,
        record=made.record,
    )


def _save(file: Path, state: State, settings: Settings, generators: list[np.random.Generator], monitor: Recorder | None) -> None:
    """The monitor's file first: it may reach beyond the checkpoint, never fall behind it."""
    flush = getattr(monitor, "flush", None)
    if callable(flush):
        flush()
    checkpoints.save(file, state, settings, generators)


def _writable(checkpoint: Any) -> Path:
    """The path of a checkpoint, refused before anything is computed if it can never be written."""
    if not isinstance(checkpoint, (str, os.PathLike)):
        raise DTypeError(f"checkpoint is {checkpoint!r}; expected the path of a .npz file")
    file = Path(checkpoint)
    if file.is_dir():
        raise ValueRangeError(f"checkpoint is {str(file)!r}, a folder; expected the path of a .npz file")
    if not file.parent.is_dir():
        raise ResourceRefused(f"checkpoint is {str(file)!r}; its folder does not exist; make it, or choose another")
    return file
