"""From whatever the user points at to looks: passes with total gradients, and what was assumed to make them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._validate import as_numbers, require_lengths
from gradlab.adapters.imported import Imported
from gradlab.adapters.live import from_model
from gradlab.adapters.replay import passes_by_layer
from gradlab.adapters.watch_result import Watched
from gradlab.adapters.watching import Watch
from gradlab.backward import KEEP, bptt
from gradlab.batch import Batch
from gradlab.diagnosis.evidence import Look
from gradlab.diagnosis.fed import Fed
from gradlab.diagnosis.files import history_of, read
from gradlab.diagnosis.history import History
from gradlab.diagnosis.unit_loss import unit_gradient
from gradlab.directions import flip
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.record import Record

Array = npt.NDArray[Any]

STEPS, SEQUENCES = 100, 16
"""T and B of the noise that is read where no data are given."""

MEASURED = tuple(name for name in KEEP if name != "jacobians")

Found = tuple[str, tuple[Look, ...], History | None, tuple[str, ...]]


def looks_of(
    subject: Any,
    params: Mapping[str, Array] | None,
    data: Batch | Array | None,
    loss: Loss | None,
    lengths: Array | None,
    history: Any,
    seed: int,
    max_memory: int | None,
) -> Found:
    """(name, looks, history, assumptions) of what `diagnose` was given. Errors: as `diagnose`."""
    past = history_of(history)
    if isinstance(subject, (str, os.PathLike)):
        name, subject = os.path.basename(os.fspath(subject)), read(subject, max_memory)
    else:
        name = ""
    if not isinstance(subject, Network) and params is not None and not isinstance(subject, Record):
        raise DTypeError(f"params were given with a {type(subject).__name__}; expected them with a gradlab.Network only")
    if isinstance(subject, Watch):
        subject = subject.results
        if not subject:
            raise ValueRangeError("the watch saw no backward pass of a recurrent layer; see its .notes")
    if isinstance(subject, Watched):
        subject = (subject,)
    if isinstance(subject, Sequence) and subject and all(isinstance(one, Watched) for one in subject):
        _nothing_else(data, loss, lengths, "what watch saw holds its own inputs and gradients")
        return name or "watched model", tuple(_watched(one) for one in subject), past, ()
    if isinstance(subject, Record):
        _nothing_else(data, loss, lengths, "a record holds its own inputs and gradients")
        return name or "record", (Look(subject),), past, ()
    if isinstance(subject, Sequence) and subject and all(isinstance(one, Fed) for one in subject):
        return _fed(name, subject, data, loss, lengths, past, seed, max_memory)
    if isinstance(subject, Network):
        if params is None:
            raise ValueRangeError("params is None; expected the parameters of the network, as net.init(rng) returns them")
        made = {"": Imported(subject, params, repr(subject))}
    elif isinstance(subject, Imported):
        made = {"": subject}
    elif isinstance(subject, Sequence) and subject and all(isinstance(one, Imported) for one in subject):
        made = {str(k) if len(subject) > 1 else "": one for k, one in enumerate(subject)}
    elif hasattr(subject, "series") and hasattr(subject, "names"):
        return name or "training history", (), History.of(subject), ()
    else:
        made = from_model(subject)
    looks, assumptions = [], dict[str, None]()
    for path, one in made.items():
        look, assumed = _run(one, path, data, loss, lengths, seed, max_memory)
        looks.append(look)
        assumptions |= dict.fromkeys((*one.notes, *assumed))
    return name or ", ".join(dict.fromkeys(one.source for one in made.values())), tuple(looks), past, tuple(assumptions)


def _nothing_else(data: Any, loss: Any, lengths: Any, why: str) -> None:
    given = [name for name, value in (("data", data), ("loss", loss), ("lengths", lengths)) if value is not None]
    if given:
        raise ValueRangeError(f"{' and '.join(given)} cannot be used here: {why}")


def _watched(one: Watched) -> Look:
    passes = None if one.replayed is None else passes_by_layer(one.replayed)
    ill = str(one.proof).splitlines()[0] if one.proof.verdict == "ill-conditioned" else ""
    return Look(one.record, one.name, one.net, one.params, passes, ill_conditioned=ill)


def _fed(
    name: str,
    nodes: Sequence[Fed],
    data: Any,
    loss: Loss | None,
    lengths: Array | None,
    past: History | None,
    seed: int,
    max_memory: int | None,
) -> Found:
    """Nodes of an ONNX file, which bring their own inputs; `data`: a Batch, of which the targets alone are read, or None."""
    if lengths is not None or not isinstance(data, (Batch, type(None))) or (data is not None and len(nodes) > 1):
        raise ValueRangeError("data and lengths cannot be used here: the nodes bring their own; expected a Batch for its targets")
    looks, assumptions = [], dict[str, None]()
    for one in nodes:
        targets, mask = (None, None) if data is None else (data.targets, data.mask)
        batch = Batch(one.x, targets, mask, one.lengths)
        look, assumed = _look(one.imported, one.name, batch, loss, seed, max_memory, one.initial_states)
        looks.append(look)
        assumptions |= dict.fromkeys((*one.imported.notes, *assumed))
    return name or ", ".join(one.imported.source for one in nodes), tuple(looks), past, tuple(assumptions)


def _run(
    one: Imported,
    name: str,
    data: Batch | Array | None,
    loss: Loss | None,
    lengths: Array | None,
    seed: int,
    max_memory: int | None,
) -> tuple[Look, list[str]]:
    """A pass of one network over the data, or over noise, and what was assumed."""
    assumed = []
    if data is None:
        lengths = lengths if lengths is None else _lengths(lengths)
        T, B = (STEPS, SEQUENCES) if lengths is None else (int(lengths.max()), len(lengths))
        noise = np.random.default_rng(seed).standard_normal((T, B, one.net.input_size))
        batch = Batch(noise, None, lengths=lengths)
        assumed.append(f"no data were given: standard normal noise of {T} steps, {B} sequences was read instead")
    elif isinstance(data, Batch):
        if lengths is not None:
            raise ValueRangeError("lengths were given beside a Batch; expected them in the batch")
        batch = data
    else:
        batch = Batch(data, None, lengths=lengths)
    if data is not None:
        x = as_numbers("data", batch.inputs, allow_complex=False)
        if x.ndim < 3 or x.shape[-1] != one.net.input_size:
            raise ShapeError(f"data has shape {x.shape}; expected (T, B, {one.net.input_size}), time first")
        checked = require_lengths("lengths", batch.lengths, x.shape[0], x.shape[-2])
        batch = Batch(x, batch.targets, batch.mask, checked)
    if one.reverse:
        batch = Batch(flip(batch.inputs, batch.lengths), batch.targets, batch.mask, batch.lengths)
    look, more = _look(one, name, batch, loss, seed, max_memory, None)
    return replace(look, assumed_inputs=data is None), assumed + more


def _lengths(lengths: Any) -> Array:
    """Lengths that stand alone: the longest is T."""
    if not isinstance(lengths, np.ndarray) or lengths.ndim != 1 or lengths.size == 0 or lengths.dtype.kind not in "iu":
        raise DTypeError(f"lengths is {str(lengths)[:60]!r}; expected an array of integers (B,)")
    require_lengths("lengths", lengths, int(lengths.max()), len(lengths))
    return lengths


def _look(
    one: Imported,
    name: str,
    batch: Batch,
    loss: Loss | None,
    seed: int,
    max_memory: int | None,
    initial_states: Mapping[str, Array] | None,
) -> tuple[Look, list[str]]:
    """A pass forward and back."""
    assumed = []
    if one.reverse:
        assumed.append("the layer reads each sequence from its end; steps are counted as it reads them")
    given = loss
    if given is None:
        given = unit_gradient(batch, seed)
        assumed.append("no loss was given: a unit gradient is carried back from the last step of each sequence")
    elif batch.targets is None:
        raise ValueRangeError("a loss was given without targets; expected data=gradlab.Batch(inputs, targets, ...)")
    broken = _not_finite({**one.params, "the data": batch.inputs})
    if broken:
        bare = Record(np.asarray(np.nan), np.empty(0), {}, {}, np.asarray(batch.inputs), lengths=batch.lengths)
        assumed.append(f"the network was not run: {broken}")
        return Look(bare, name, one.net, one.params, assumed_loss=loss is None), assumed
    T, B = len(batch.inputs), batch.inputs.shape[-2]
    numbers = sum(
        4 * layer.state_size + 4 * layer.cell.pre_size(layer.input_size, layer.hidden_size) + layer.input_size
        for layer in one.net.layers
    )
    size = 8 * numbers * (batch.inputs.size // batch.inputs.shape[-1])
    refuse_above(size, max_memory, f"a pass forward and back over {T} steps of {B} sequences", "give fewer sequences")
    record = bptt(one.net, one.params, batch, given, keep=MEASURED, initial_states=initial_states, max_memory=max_memory)
    kept = None if loss is None else given
    return Look(record, name, one.net, one.params, batch=batch, loss=kept, assumed_loss=loss is None), assumed


def _not_finite(arrays: Mapping[str, Array]) -> str:
    """Which arrays hold numbers that are not finite, and how many; "" if none does."""
    bad = {name: int((~np.isfinite(value)).sum()) for name, value in arrays.items()}
    found = [f"{name} has {count} of {np.size(arrays[name])} numbers that are not finite" for name, count in bad.items() if count]
    return ", ".join(found[:6]) + (f", and {len(found) - 6} more arrays" if len(found) > 6 else "")
