"""The training loop, over ensemble axes: seeds and learning rates side by side, each member on its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_callable, require_count, require_generator, require_one_of, require_positive
from gradlab.backward import bptt
from gradlab.batch import Batch
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.forward_pass import checked_params
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.record import Record
from gradlab.status import OK, Status
from gradlab.training.clipping import Clip, global_norm
from gradlab.training.optimisers import SGD, Optimiser
from gradlab.training.regulariser import NormPreserving
from gradlab.training.schedules import Schedule, constant
from gradlab.training.state import Event, State
from gradlab.truncated import truncated_bptt
from gradlab.workspace import Workspace

Array = npt.NDArray[Any]
Sample = Callable[[np.random.Generator], Batch]
Rng = np.random.Generator | Sequence[np.random.Generator]


class Recorder(Protocol):
    """What the trainer tells after each update; `gradlab.training.Monitor` is one."""

    def record(self, update: int, **measured: Any) -> None:
        """`update` from 0; see `train` for what is measured."""


@dataclass(frozen=True)
class Training:
    """What a run gave. Histories have a row an update, (updates, *E); NaN where a member had stopped.

    `params`: after the last update, or, with validation, the best validated ones of each member. `loss`; `gradient_norm` before
    clipping; `clipped`: who was. `validation`: the updates after which it ran, and its values (runs, *E).
    `events`: every loss or gradient that was not finite. `path`: parameters before the first update and after each, if asked for.
    `status`: `overflow` with the first event if a member stopped for that reason.
    """

    params: dict[str, Array]
    loss: Array
    gradient_norm: Array
    clipped: Array
    updates: int
    validation: tuple[Array, Array]
    events: tuple[Event, ...]
    status: Status = OK
    path: dict[str, Array] = field(default_factory=dict)


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
    nonfinite: Literal["stop", "skip"] = "stop",
    validate: Callable[[dict[str, Array]], Array] | None = None,
    validate_every: int = 100,
    patience: int | None = None,
    target: float | None = None,
    monitor: Recorder | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    keep_path: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Training:
    """Train on `updates` batches drawn by `sample(rng)`; `params` is not modified.

    Ensemble axes in front of any parameter are members that train each on its own: own optimiser state, own clipping, and
    a parameter that they share at the start is copied for each. `rng`: one generator, whose batches all members see, or one
    for each member of a single ensemble axis, so that each has its own random stream.

    `learning_rate`: a number or one for each member (*E,), times `schedule(update)`. `clip`: `ByNorm`, `ByValue` or `ByLayer`.
    `regulariser`: `NormPreserving`, added before clipping. `truncate`: (k1, k2) of `truncated_bptt`.
    `nonfinite`: what happens to a member whose loss, gradient or update is not finite: "stop" leaves it at its last good
    parameters for good, "skip" leaves out this update; others train on undisturbed, and `events` has update, member and place.
    `validate(params) -> (*E,)` runs every `validate_every` updates; each member's best parameters are returned. A member that
    has not improved for `patience` runs stops, and so does one whose value falls below `target`.
    `checkpoint`: a .npz file written every `checkpoint_every` updates and at the end; if it exists, the run goes on from there
    and gives the same bits as one that was never interrupted. `monitor.record(update, ...)` is called after each update
    with loss, gradients, clipped gradients, norms, parameters before and after, learning rate and the record.
    `progress(updates done, updates)` after each update.

    Errors: ShapeError, DTypeError, ValueRangeError naming the argument; FormatError for a checkpoint that cannot be read.
    """
    require_callable("sample", sample, "(rng) -> Batch, such as lambda rng: adding.sample(rng, 20, 100)")
    updates = require_count("updates", updates, 0)
    require_one_of("nonfinite", nonfinite, ("stop", "skip"))
    for name, value in (("validate_every", validate_every), ("checkpoint_every", checkpoint_every)):
        require_count(name, value)
    if patience is not None:
        require_count("patience", patience)
    if validate is None and (patience is not None or target is not None):
        raise ValueRangeError(f"patience is {patience} and target {target} without validate; expected validate(params) -> values")
    chosen: Optimiser = SGD() if optimiser is None else optimiser
    plan = constant() if schedule is None else schedule
    if regulariser is not None:
        regulariser.require(net)
        if truncate is not None:
            raise ValueRangeError("regulariser is given with truncate; expected one of the two: it needs the whole sweep")
    start = checked_params(net, params)
    members = np.broadcast_shapes(*(net.ensemble_shape(key, value) for key, value in start.items()))
    generators = _generators(rng, members)
    rates = _rates(learning_rate, members)
    settings = {
        "network": repr(net),
        "optimiser": repr(chosen),
        "learning_rate": repr(rates.tolist()),
        "clip": repr(clip),
        "regulariser": repr(regulariser),
        "truncate": repr(truncate),
        "nonfinite": nonfinite,
    }
    state = State(
        update=0,
        params={key: np.array(np.broadcast_to(start[key], members + own)) for key, own in net.shapes.items()},
        slots={},
        counts=np.zeros(members, np.int64),
        training=np.ones(members, bool),
        history={"loss": [], "gradient_norm": [], "clipped": []},
    )
    state.slots = {key: {slot: np.zeros_like(value) for slot in chosen.slots} for key, value in state.params.items()}
    if checkpoint is not None and Path(checkpoint).exists():
        if keep_path:
            raise ValueRangeError("keep_path is True with a checkpoint to resume from; the path before it is not there")
        state = State.load(checkpoint, settings, generators)
        _require_fit(net, state, members, checkpoint)
        for name in ("loss", "gradient_norm", "clipped"):
            state.history.setdefault(name, [])
    workspace = Workspace()
    path = [dict(state.params)] if keep_path else []
    while state.update < updates and state.training.any():
        batch = _draw(sample, generators, members, rng)
        record = _differentiate(net, state.params, batch, loss, truncate, workspace)
        _one_update(net, state, record, chosen, rates * plan(state.update), clip, regulariser, nonfinite, monitor)
        if keep_path:
            path.append(dict(state.params))
        if validate is not None and (state.update % validate_every == 0 or state.update == updates):
            _validate(state, validate, patience, target)
        if checkpoint is not None and (state.update % checkpoint_every == 0 or state.update == updates):
            state.save(checkpoint, settings, generators)
        if progress is not None:
            progress(state.update, updates)
    if checkpoint is not None:
        state.save(checkpoint, settings, generators)
    return _result(state, members, path)


def _generators(rng: Rng, members: tuple[int, ...]) -> list[np.random.Generator]:
    if isinstance(rng, np.random.Generator):
        return [rng]
    if isinstance(rng, (str, bytes)) or not isinstance(rng, Sequence):
        return [require_generator("rng", rng)]
    found = [require_generator(f"rng[{k}]", one) for k, one in enumerate(rng)]
    if (len(found),) != members:
        raise ShapeError(f"rng has {len(found)} generators; expected one for each member of the ensemble axes {members}")
    return found


def _draw(sample: Sample, generators: list[np.random.Generator], members: tuple[int, ...], rng: Rng) -> Batch:
    """One batch; with a generator for each member, theirs side by side."""
    if isinstance(rng, np.random.Generator):
        batch = sample(generators[0])
        if not isinstance(batch, Batch):
            raise DTypeError(f"sample(rng) gave {type(batch).__name__}; expected a gradlab.Batch")
        own = np.shape(batch.inputs)[1:-2]
        if len(own) > len(members) or any(n not in (1, m) for n, m in zip(own[::-1], members[::-1], strict=False)):
            raise ShapeError(f"inputs have ensemble axes {own}, the parameters {members}; expected parameters for each member")
        return batch
    drawn = [sample(generator) for generator in generators]
    for batch in drawn:
        if not isinstance(batch, Batch):
            raise DTypeError(f"sample(rng) gave {type(batch).__name__}; expected a gradlab.Batch")
    if any(batch.lengths is not None for batch in drawn):
        raise ValueRangeError(
            "sample(rng) gave ragged batches (lengths); expected one length where members have their own batches"
        )
    if len({np.shape(batch.inputs) for batch in drawn}) > 1:
        raise ValueRangeError("sample(rng) gave members sequences of unequal sizes; draw a common length outside of sample")
    first = drawn[0]
    every = first.targets.ndim >= 2 and first.targets.shape[:2] == first.inputs.shape[:2]
    axis = 1 if every else 0

    def joined(values: list[Array]) -> Array:
        return np.stack(values, axis=axis)

    mask = None if first.mask is None else joined([np.asarray(batch.mask) for batch in drawn])
    return Batch(np.stack([batch.inputs for batch in drawn], axis=1), joined([batch.targets for batch in drawn]), mask)


def _differentiate(
    net: Network, params: dict[str, Array], batch: Batch, loss: Loss, truncate: tuple[int, int] | None, workspace: Workspace
) -> Record:
    if truncate is not None:
        return truncated_bptt(net, params, batch, loss, *truncate, workspace=workspace)
    return bptt(net, params, batch, loss, keep=("states", "adjoints", "gates"), workspace=workspace)


def _one_update(
    net: Network,
    state: State,
    record: Record,
    optimiser: Optimiser,
    rates: Array,
    clip: Clip | None,
    regulariser: NormPreserving | None,
    nonfinite: str,
    monitor: Recorder | None,
) -> None:
    """One step of every member that trains, and what is to be remembered of it."""
    members = state.training.shape
    before, gradients = state.params, dict(record.gradients)
    with np.errstate(all="ignore"):  # what leaves the range of floats is found on the results
        if regulariser is not None:
            _, extra = regulariser(net, before, record)
            for key, gradient in extra.items():
                gradients[key] = gradients[key] + regulariser.weight * gradient
        norm = global_norm(net, gradients)
        clipped, touched = (gradients, np.zeros(members, bool)) if clip is None else clip(net, gradients)
        good = np.isfinite(record.loss) & np.isfinite(norm)
        moves = state.training & good
        after, slots = _moved(net, state, clipped, optimiser, rates, moves)
        for key, own in net.shapes.items():
            fits = np.isfinite(after[key]).all(axis=tuple(range(-len(own), 0)))
            moves = moves & fits
    bad = state.training & ~moves
    for member in map(tuple, np.argwhere(bad).tolist()):
        what = _what(net, record, gradients, after, member, good)
        state.events.append(Event(state.update, member, what, nonfinite == "stop"))
    state.params = _where(moves, after, before, net)
    state.slots = {
        key: {slot: _pick(moves, new, state.slots[key][slot], len(net.shapes[key])) for slot, new in own.items()}
        for key, own in slots.items()
    }
    state.counts = state.counts + moves
    seen = state.training
    for name, value in (("loss", record.loss), ("gradient_norm", norm), ("clipped", touched.astype(float))):
        state.history[name].append(np.where(seen, value, np.nan))
    if nonfinite == "stop":
        state.training = state.training & ~bad
    if monitor is not None:
        monitor.record(
            state.update,
            loss=record.loss,
            gradients=gradients,
            clipped=clipped,
            gradient_norm=norm,
            params=before,
            new_params=state.params,
            learning_rate=rates,
            record=record,
        )
    state.update += 1


def _moved(
    net: Network, state: State, gradients: Mapping[str, Array], optimiser: Optimiser, rates: Array, moves: Array
) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """Parameters and slots if every member made its step."""
    after, slots = {}, {}
    for key, value in state.params.items():
        own = len(net.shapes[key])
        slots[key] = {slot: old.copy() for slot, old in state.slots[key].items()}
        count = (state.counts + moves).reshape(*moves.shape, *(1,) * own)
        change = optimiser.change(gradients[key], slots[key], np.maximum(count, 1))
        rate = rates.reshape(*rates.shape, *(1,) * own).astype(value.dtype)
        after[key] = np.asarray(value - rate * change)
    return after, slots


def _where(moves: Array, after: Mapping[str, Array], before: Mapping[str, Array], net: Network) -> dict[str, Array]:
    return {key: _pick(moves, after[key], before[key], len(own)) for key, own in net.shapes.items()}


def _pick(moves: Array, new: Array, old: Array, own_axes: int) -> Array:
    return new if moves.all() else np.where(moves.reshape(*moves.shape, *(1,) * own_axes), new, old)


def _what(
    net: Network, record: Record, gradients: Mapping[str, Array], after: Mapping[str, Array], member: tuple[int, ...], good: Array
) -> str:
    """What was not finite for one member, and at which step it was seen first."""
    for name, layer in record.layers.items():
        for series, words in (("states", "state"), ("adjoints", "adjoint")):
            value = getattr(layer, series)
            if value is None:
                continue
            whole = np.broadcast_to(value, (value.shape[0], *good.shape, *value.shape[-2:]))
            bad = ~np.isfinite(np.moveaxis(whole, 0, -3)[member]).all(axis=(-2, -1))
            if bad.any():
                at = int(np.argmax(bad)) if words == "state" else int(np.flatnonzero(bad)[-1])
                way = "from t = {} on" if words == "state" else "from t = {} down"
                return f"{words} of layer {name} is not finite {way.format(at)}"
    if not np.isfinite(np.broadcast_to(record.loss, good.shape)[member]):
        return "the loss is not finite"
    for key, shape in net.shapes.items():
        if not np.isfinite(np.broadcast_to(gradients[key], good.shape + shape)[member]).all():
            return f"the gradient of {key} is not finite"
    for key in net.shapes:
        if not np.isfinite(after[key][member]).all():
            return f"{key} leaves the range of floats"
    return "the norm of the gradient is not finite"


def _validate(state: State, validate: Callable[[dict[str, Array]], Array], patience: int | None, target: float | None) -> None:
    """Measure, keep each member's best parameters, and stop who is done."""
    value = np.asarray(validate(dict(state.params)), float)
    members = state.training.shape
    if value.shape != members:
        raise ShapeError(f"validate(params) gave shape {value.shape}; expected {members}, one value for each member")
    if state.best_value is None or state.waiting is None:
        state.best_value, state.waiting = np.full(members, np.inf), np.zeros(members, np.int64)
        state.best = {key: array.copy() for key, array in state.params.items()}
    better = state.training & (value < state.best_value)
    own = {key: array.ndim - len(members) for key, array in state.params.items()}
    state.best = {key: _pick(better, state.params[key], old, own[key]) for key, old in state.best.items()}
    state.best_value = np.where(better, value, state.best_value)
    state.waiting = np.where(better, 0, state.waiting + state.training)
    state.validation.append((state.update, np.where(state.training, value, np.nan)))
    if target is not None:
        state.training = state.training & ~(value < target)
    if patience is not None:
        state.training = state.training & (state.waiting < patience)


def _rates(learning_rate: float | Array, members: tuple[int, ...]) -> Array:
    """One learning rate for each member, checked."""
    if not isinstance(learning_rate, np.ndarray):
        return np.full(members, require_positive("learning_rate", learning_rate))
    if learning_rate.shape != members:
        raise ShapeError(f"learning_rate has shape {learning_rate.shape}; expected the ensemble axes {members}, or one number")
    for value in learning_rate.flat:
        require_positive("learning_rate", value)
    return learning_rate


def _require_fit(net: Network, state: State, members: tuple[int, ...], path: str | os.PathLike[str]) -> None:
    for key, own in net.shapes.items():
        found = state.params[key].shape if key in state.params else None
        if found != members + own:
            raise ShapeError(f"{path}: {key} has shape {found}; expected {members + own}; give another file")


def _result(state: State, members: tuple[int, ...], path: list[dict[str, Array]]) -> Training:
    empty = np.zeros((0, *members))
    rows = {name: np.stack(values) if values else empty for name, values in state.history.items()}
    stopped = [event for event in state.events if event.stopped]
    status = OK
    if stopped:
        first = stopped[0]
        who = f", member {first.member}" if first.member else ""
        advice = "try a smaller learning_rate or clip=ByNorm(1.0)"
        status = Status("overflow", f"update {first.update}{who}: {first.what}; {len(stopped)} stopped; {advice}")
    values = np.stack([value for _, value in state.validation]) if state.validation else empty
    validated = (np.array([update for update, _ in state.validation], np.int64), values)
    return Training(
        params=dict(state.best) if state.best else dict(state.params),
        loss=rows["loss"],
        gradient_norm=rows["gradient_norm"],
        clipped=rows["clipped"],
        updates=state.update,
        validation=validated,
        events=tuple(state.events),
        status=status,
        path={key: np.stack([one[key] for one in path]) for key in state.params} if path else {},
    )
