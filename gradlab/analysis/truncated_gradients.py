"""What truncated backpropagation through time leaves of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm, power_of_two
from gradlab._memory import refuse_above
from gradlab._validate import as_numbers, require_array, require_count, require_flag
from gradlab.backward import bptt
from gradlab.batch import Batch
from gradlab.errors import DTypeError, ValueRangeError
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.record import Record
from gradlab.status import OK, Status
from gradlab.truncated import truncated_bptt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Truncation:
    """The gradient of TBPTT(k1, k2) beside the full one, for each k2 in `reach` (n,).

    Keys: every parameter, "layers" for all of the recurrent layers together, "all" with the read-out, which truncation leaves
    as it is. `cosine` (n, *E'): of the angle between the two, 1 where they are equal, NaN where one of them is 0;
    `norm_ratio` (n, *E'): norm of the truncated one over norm of the full one. E' are the ensemble axes of the parameter, for
    "layers" and "all" those of all; what an ensemble shares counts in each member with the gradient of the sum.
    `sequence_cosine`, `sequence_norm_ratio` (n, B, *E): the same of each sequence by itself, empty unless asked for: their
    spread is that of training with single sequences; the gradient of a batch is more even.
    """

    reach: tuple[int, ...]
    cosine: Mapping[str, Array]
    norm_ratio: Mapping[str, Array]
    sequence_cosine: Mapping[str, Array]
    sequence_norm_ratio: Mapping[str, Array]
    status: Status


def truncation(
    net: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    reach: Iterable[int],
    *,
    k1: int | None = None,
    by_sequence: bool = False,
    initial_states: Mapping[str, Array] | None = None,
    max_memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Truncation:
    """Cosine and norm ratio of truncated gradients to the full one, by how many steps back they reach.

    `reach`: the k2, each from 1 to T. `k1`: how often a truncated sweep starts; None means k1 = k2, the chunks of ordinary
    training, which keep the pairs (loss, use) inside one chunk; 1 keeps every pair less than k2 steps apart (Williams & Peng
    1990). k2 = T gives exactly 1 and 1 for either.
    `by_sequence`: also each sequence by itself, as an ensemble of B networks: B times the parameters and the work of them.
    Errors: ValueRangeError for an empty `reach`, entries outside of 1 to T or below k1, a bidirectional network, or `by_sequence`
    with sequences of unequal lengths; ResourceRefused; otherwise as `bptt`.
    """
    T = require_array("batch.inputs", batch.inputs).shape[0]
    if not isinstance(reach, Iterable):
        raise DTypeError(f"reach is {reach!r}; expected numbers of steps; try [{reach!r}]")
    chosen = tuple(require_count(f"reach[{n}]", k) for n, k in enumerate(reach))
    if not chosen or max(chosen) > T:
        raise ValueRangeError(f"reach is {chosen}; expected at least one number of steps, each from 1 to T = {T}")
    if k1 is not None and require_count("k1", k1) > min(chosen):
        raise ValueRangeError(f"k1 is {k1}; expected at most the smallest reach, {min(chosen)}")
    cosine, ratio, status = _compare(net, params, batch, loss, chosen, k1, initial_states, progress)
    own_cosine: dict[str, Array] = {}
    own_ratio: dict[str, Array] = {}
    if require_flag("by_sequence", by_sequence):
        apart = _apart(net, params, batch, initial_states, max_memory)
        own_cosine, own_ratio, _ = _compare(net, apart[0], apart[1], loss, chosen, k1, apart[2], progress)
    return Truncation(chosen, cosine, ratio, own_cosine, own_ratio, status)


def _compare(
    net: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    reach: tuple[int, ...],
    k1: int | None,
    initial: Mapping[str, Array] | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, Array], dict[str, Array], Status]:
    T = batch.inputs.shape[0]
    full = bptt(net, params, batch, loss, (), initial_states=initial)
    # at k2 = T the truncated gradient is the full one: the same sum, which need not be rounded twice
    found = []
    for k in reach:
        found.append(full if k == T else truncated_bptt(net, params, batch, loss, k1 or k, k, initial_states=initial))
        if progress is not None:
            progress(len(found), len(reach))
    bad = [k for k, record in zip(reach, found, strict=True) if not record.status.ok]
    status = OK if full.status.ok and not bad else Status("overflow", f"gradients of reach {bad or 'T'} are not finite")
    groups = {key: [key] for key in net.shapes}
    groups |= {"layers": [key for key in net.shapes if not key.startswith("readout.")], "all": list(net.shapes)}
    cosine, ratio = {}, {}
    for name, keys in groups.items():
        reference = _joined(net, params, full, keys)
        rows = [_angle(_joined(net, params, record, keys), reference) for record in found]
        cosine[name], ratio[name] = (np.stack(column) for column in zip(*rows, strict=True))
    return cosine, ratio, status


def _joined(net: Network, params: Mapping[str, Array], record: Record, keys: list[str]) -> Array:
    """The gradients of `keys` as one vector for each ensemble member, (*E', n)."""
    lead = np.broadcast_shapes(*(net.ensemble_shape(key, np.asarray(params[key])) for key in keys))
    parts = []
    for key in keys:
        own = net.ensemble_shape(key, np.asarray(params[key]))
        flat = record.gradients[key].reshape(*own, -1)
        parts.append(np.broadcast_to(flat, (*lead, flat.shape[-1])))
    return np.concatenate(parts, axis=-1)


def _angle(one: Array, other: Array) -> tuple[Array, Array]:
    """Cosine and ratio of norms. 1 - cos = |u - v|^2/2 of the unit vectors: exactly 0 for equal ones, and exact for near ones."""
    log_ratio = log_norm(one)
    with np.errstate(all="ignore"):
        log_ratio = np.where((one == other).all(axis=-1), 0.0, log_ratio - log_norm(other))
        u, v = (scaled / np.sqrt((np.abs(scaled) ** 2).sum(axis=-1, keepdims=True)) for scaled in map(_scaled, (one, other)))
        cosine = 1.0 - 0.5 * (np.abs(u - v) ** 2).sum(axis=-1)
        return np.clip(cosine, -1.0, 1.0), np.exp(log_ratio)


def _scaled(vector: Array) -> Array:
    """With the largest entry in [1/2, 1): squares of what is 1e-200 throughout would be 0."""
    return power_of_two(vector, -1)[0]


def _apart(
    net: Network, params: Mapping[str, Array], batch: Batch, initial: Mapping[str, Array] | None, max_memory: int | None
) -> tuple[dict[str, Array], Batch, dict[str, Array] | None]:
    """The same batch as an ensemble of B networks, first ensemble axis, that read one sequence each."""
    if batch.lengths is not None and len(set(batch.lengths.tolist())) > 1:
        raise ValueRangeError(
            "by_sequence is True and the lengths differ; expected sequences of one length; group them by length"
        )
    B = batch.inputs.shape[-2]
    values = {key: as_numbers(f'params["{key}"]', value) for key, value in params.items()}
    starts = {name: require_array(f'initial_states["{name}"]', value) for name, value in (initial or {}).items()}
    needed = 3 * B * sum(value.nbytes for value in values.values())
    refuse_above(needed, max_memory, f"gradients of B = {B} sequences", "use fewer of them, or by_sequence=False")
    own = batch.inputs.ndim - 3
    depth = max([own, *(len(net.ensemble_shape(k, v)) for k, v in values.items()), *(v.ndim - 2 for v in starts.values())])

    def ahead(value: Array, first: int, axes: int) -> Array:
        """The batch axis moved to `first`, in front of `depth` ensemble axes; an axis of size 1 stays in its place."""
        moved = np.moveaxis(value, first + axes, first)
        lead, members, rest = moved.shape[: first + 1], moved.shape[first + 1 : first + 1 + axes], moved.shape[first + 1 + axes :]
        return moved.reshape(*lead, *(1,) * (depth - axes), *members, 1, *rest)

    apart = {}
    for key, value in values.items():
        padded = (1,) * (depth - len(net.ensemble_shape(key, value))) + value.shape
        apart[key] = np.broadcast_to(value.reshape(padded), (B, *padded))
    first = 1 if net.readout == "every" else 0
    return (
        apart,
        Batch(
            ahead(batch.inputs, 1, own),
            ahead(require_array("batch.targets", batch.targets), first, own),
            None if batch.mask is None else ahead(require_array("batch.mask", batch.mask), first, own),
            None if batch.lengths is None else batch.lengths[:1],
        ),
        {name: ahead(value, 0, value.ndim - 2) for name, value in starts.items()},
    )
