"""One update of every member: gradient, regulariser, clipping, optimiser, and what happens where a number is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.backward import bptt
from gradlab.batch import Batch
from gradlab.record import Record
from gradlab.training.nonfinite import event
from gradlab.training.norms import global_norm
from gradlab.training.settings import Settings
from gradlab.training.state import State, pick
from gradlab.truncated import truncated_bptt
from gradlab.workspace import Workspace

Array = npt.NDArray[Any]

KEPT = ("states", "adjoints", "gates")


@dataclass(frozen=True)
class Made:
    """What one update measured: gradients before and after clipping, the joint norm before, the rates, the record."""

    record: Record
    gradients: Mapping[str, Array]
    clipped: Mapping[str, Array]
    norm: Array
    rates: Array


def make_update(settings: Settings, state: State, batch: Batch, workspace: Workspace) -> Made:
    """Replace the parameters and slots in `state` by those after the update, and note what is to be remembered.

    Order: gradient, plus regulariser, then clipping, then the optimiser. A member whose loss, gradient, norm or new parameters
    are not finite stays as it is, and is noted.
    """
    net, members = settings.net, settings.members
    rates = settings.rates_at(state.update)
    record = _differentiate(settings, state.params, batch, workspace)
    gradients = dict(record.gradients)
    with np.errstate(all="ignore"):  # what leaves the range of floats is found on the results
        if settings.regulariser is not None:
            _, extra = settings.regulariser(net, state.params, record)
            for key, gradient in extra.items():
                gradients[key] = gradients[key] + settings.regulariser.weight * gradient
        norm = global_norm(net, gradients)
        clipped, touched = (gradients, np.zeros(members, bool)) if settings.clip is None else settings.clip(net, gradients)
        moves = state.training & np.isfinite(record.loss) & np.isfinite(norm)
        after, slots = _moved(settings, state, clipped, rates, moves)
        for key, own in net.shapes.items():
            moves = moves & np.isfinite(after[key]).all(axis=tuple(range(-len(own), 0)))
    bad, stops = state.training & ~moves, settings.nonfinite == "stop"
    if bad.any():
        seen = (
            record
            if record.layers
            else bptt(net, state.params, batch, settings.loss, KEPT, initial_states=settings.initial_states)
        )
        for member in map(tuple, np.argwhere(bad).tolist()):
            state.note(event(net, state.update, member, members, seen, gradients, after, stops))
    for name, value in (("loss", record.loss), ("gradient_norm", norm), ("clipped", touched)):
        state.history[name][state.update] = np.where(state.training, value, np.nan)
    state.params = {key: pick(moves, value, state.params[key]) for key, value in after.items()}
    state.slots = {
        key: {slot: pick(moves, new, state.slots[key][slot]) for slot, new in own.items()} for key, own in slots.items()
    }
    state.counts = state.counts + moves
    if stops:
        state.training = state.training & ~bad
    state.update += 1
    return Made(record, gradients, clipped, norm, rates)


def _differentiate(settings: Settings, params: dict[str, Array], batch: Batch, workspace: Workspace) -> Record:
    net, loss, initial = settings.net, settings.loss, settings.initial_states
    if settings.truncate is not None:
        return truncated_bptt(net, params, batch, loss, *settings.truncate, initial_states=initial, workspace=workspace)
    return bptt(net, params, batch, loss, KEPT, initial_states=initial, workspace=workspace, threads=settings.threads)


def _moved(
    settings: Settings, state: State, gradients: Mapping[str, Array], rates: Array, moves: Array
) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """Parameters and slots if every member made its step."""
    after, slots = {}, {}
    count = np.maximum(state.counts + moves, 1)
    for key, value in state.params.items():
        own = (1,) * len(settings.net.shapes[key])
        slots[key] = {slot: old.copy() for slot, old in state.slots[key].items()}
        change = settings.optimiser.change(gradients[key], slots[key], count.reshape(count.shape + own))
        rate = rates.reshape(rates.shape + own).astype(value.dtype)
        after[key] = np.asarray(value - rate * change)
    return after, slots
