"""What a monitor reads off a network's gradients, parameters and records; also of torch and Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab.directions import broadcast_mask, live
from gradlab.errors import DTypeError
from gradlab.record import LayerRecord, Record
from gradlab.training.norms import own_norm

Array = npt.NDArray[Any]

SIGNED = ("g", "n")
"""Gates between -1 and 1, the candidates of LSTM and GRU; all others are between 0 and 1."""


def numbers(name: str, value: Any) -> Array:
    """`value` as an array of real numbers; a torch tensor is detached and fetched. Error: DTypeError naming it."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except Exception as error:  # a foreign library's own conversion: it raises what it likes
        raise DTypeError(
            f"{name} is a {type(value).__name__}, which numpy.asarray does not take; expected real numbers"
        ) from error
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"{name} is a {type(value).__name__} of dtype {array.dtype}; expected real numbers")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def norms(kind: str, arrays: Mapping[str, Any], lead: int) -> dict[str, Array]:
    """{"kind/key": 2-norm over a parameter's own axes}; the first `lead` axes are ensemble axes."""
    found = {}
    for key, value in arrays.items():
        array = numbers(f"{kind}[{key!r}]", value)
        found[f"{kind}/{key}"] = own_norm(array, array.ndim - lead) if array.ndim > lead else np.abs(array)
    return found


def update_ratios(before: Mapping[str, Array], after: Mapping[str, Array], lead: int) -> dict[str, Array]:
    """{"ratio/key": |change|/|parameter before|}; 0 where nothing changed, inf where it started from zero."""
    with np.errstate(all="ignore"):
        changes = norms("ratio", {key: value - before[key] for key, value in after.items()}, lead)
        sizes = norms("ratio", {key: before[key] for key in after}, lead)
        return {name: np.where(change == 0.0, 0.0, change / sizes[name]) for name, change in changes.items()}


def looks(record: Record) -> dict[str, Array]:
    """What a record shows: "adjoint/layer" (*E, T+1), ln of the root mean square over the batch of |dL/ds_t|, -inf where it is
    0; and "saturated/layer/gate" (*E,), the share of gate values in the outer tenths of their range.

    Without gates the states themselves are looked at; NaN where one leaves [-1, 1], as in a ReLU net: a history needs the
    same names at every update. Steps that do not exist do not count.
    """
    found: dict[str, Array] = {}
    mask = live(len(record.inputs), record.lengths)
    for name, layer in record.layers.items():
        if layer.adjoints is not None:
            found[f"adjoint/{name}"] = _adjoint_norms(layer.adjoints, mask)
        for gate, value in layer.gates.items():
            low, high = (-0.8, 0.8) if gate in SIGNED else (0.1, 0.9)
            found[f"saturated/{name}/{gate}"] = _share((value <= low) | (value >= high), mask)
        if not layer.gates and layer.states is not None:
            share = _share(np.abs(layer.states[1:]) >= 0.9, mask)
            found[f"saturated/{name}/h"] = share if _squashed(layer) else np.full_like(share, np.nan)
    return found


def _squashed(layer: LayerRecord) -> bool:
    """Whether a state could be that of a squashing unit: then it never leaves [-1, 1]."""
    return layer.states is not None and bool((np.abs(layer.states[1:]) <= 1.0).all())


def _share(hits: Array, mask: Array | None) -> Array:
    """Share of True over steps, sequences and units, (*E,)."""
    if mask is None:
        return np.asarray(hits.mean(axis=(0, -2, -1)))
    return np.asarray((hits & broadcast_mask(mask, hits)).sum(axis=(0, -2, -1)) / (mask.sum() * hits.shape[-1]))


def _adjoint_norms(adjoints: Array, mask: Array | None) -> Array:
    """(T+1, *E, B, S) -> (*E, T+1)."""
    T1, B, S = adjoints.shape[0], adjoints.shape[-2], adjoints.shape[-1]
    rows = np.moveaxis(adjoints, 0, -3)  # (*E, T+1, B, S)
    logs = log_norm(rows.reshape(*rows.shape[:-2], B * S))
    there = np.full(T1, float(B))
    if mask is not None:  # row b is there at t = 0 and at its own steps; behind its end the adjoint is 0
        there[1:] = np.maximum(mask.sum(axis=1), 1)
    return np.asarray(logs - 0.5 * np.log(there))
