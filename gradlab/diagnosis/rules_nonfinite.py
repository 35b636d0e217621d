"""Rule: numbers that are not finite, and where they were first seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.evidence import Evidence, Look, Seen
from gradlab.diagnosis.finding import Finding, Number, Place
from gradlab.diagnosis.history import History
from gradlab.directions import broadcast_mask, live

Array = npt.NDArray[Any]


def nonfinite(evidence: Evidence) -> Iterator[Finding]:
    """NaN or infinity in a pass (inputs, else parameters, else states, else loss, else adjoints, else gradients) or a history.

    What is finite is never meant, however large; nor what only left the range of floats inside a function.
    """
    for look in evidence.looks:
        layers = [seen for seen in evidence.layers if seen.look is look]
        for stage in (_inputs(look), _parameters(look), _states(layers), _loss(look), _adjoints(layers), _gradients(look)):
            found = list(stage)
            yield from found
            if found:  # the rest follows from it
                break
    if evidence.history is not None:
        yield from _history(evidence.history)


def nonfinite_statistic(evidence: Evidence) -> float:
    """How many sources of non-finite numbers there are."""
    return float(len(list(nonfinite(evidence))))


def _finding(place: Place, count: int, text: str) -> Finding:
    return Finding("nonfinite", "error", place, text, {"not finite": Number(float(count), "numbers", None, 0.0)})


def _name(look: Look, key: str) -> str:
    return f"{look.name}.{key}" if look.name and key else key or look.name


# ---- a pass -----------------------------------------------------------------------------------------------------------------


def _inputs(look: Look) -> Iterator[Finding]:
    x = look.record.inputs
    if x.dtype.kind not in "fc":
        return
    mask = live(len(x), look.record.lengths)
    bad = ~np.isfinite(x) if mask is None else ~np.isfinite(x) & broadcast_mask(mask, x)
    if bad.any():
        t = int(np.argmax(bad.reshape(len(x), -1).any(axis=1)))
        features = np.flatnonzero(bad.reshape(-1, x.shape[-1]).any(axis=0))
        text = f"{int(bad.sum())} inputs are not finite, first at step {t}, in {_list('feature', features)}"
        yield _finding(Place(look.name, timestep=t, phase="forward"), int(bad.sum()), text)


def _parameters(look: Look) -> Iterator[Finding]:
    for key, value in (look.params or {}).items():
        array = np.asarray(value)
        bad = ~np.isfinite(array) if array.dtype.kind in "fc" else np.zeros(1, bool)
        if bad.any():
            layer, _, letter = key.rpartition(".")
            gate = _gate(look, layer, letter, bad)
            place = Place(_name(look, layer), _direction(layer), gate, parameter=_name(look, key), phase="forward")
            yield _finding(place, int(bad.sum()), f"{int(bad.sum())} of {bad.size} entries are not finite")
            return


def _gate(look: Look, layer: str, letter: str, bad: Array) -> str:
    """The gate that the rows of a stacked parameter belong to, "" if they belong to several."""
    own = next((one for one in look.net.layers if one.name == layer), None) if look.net is not None else None
    if own is None or letter not in ("W", "U", "b") or not own.cell.gates:
        return ""
    rows = bad if letter == "b" else bad.any(axis=-1)
    if rows.shape[-1] != len(own.cell.gates) * own.hidden_size:
        return ""
    gates = set((np.flatnonzero(rows.reshape(-1, rows.shape[-1]).any(axis=0)) // own.hidden_size).tolist())
    return own.cell.gates[gates.pop()] if len(gates) == 1 else ""


def _states(layers: list[Seen]) -> Iterator[Finding]:
    """The lowest level at which a state is not finite: what stands above reads it."""
    worst: int | None = None
    for seen in layers:
        states = seen.layer.states
        if states is None or np.isfinite(states).all() or (worst is not None and seen.level > worst):
            continue
        worst = seen.level
        bad = _rows(states)  # (T+1, B)
        if not bad.any():
            continue
        t = int(np.argmax(bad.any(axis=1)))
        row = int(np.argmax(bad[t]))
        gate = "" if t == 0 else _left_first(seen, t)
        where = "the initial state" if t == 0 else "the state"
        of = f", through {gate}," if gate else ""
        text = f"{where}{of} is not finite in {int(bad[t].sum())} of {bad.shape[1]} sequences, from here to the end"
        place = Place(seen.name, seen.direction, gate, _position(seen, t, row), phase="forward")
        yield _finding(place, int((~np.isfinite(states)).sum()), text)


def _rows(series: Array) -> Array:
    """(T+1, *E, B, S) -> (T+1, B): where some number is not finite."""
    return np.asarray(~np.isfinite(np.moveaxis(series, -2, 1).reshape(len(series), series.shape[-2], -1)).all(axis=-1))


def _left_first(seen: Seen, t: int) -> str:
    """The gate that is not finite at step t although the state before it is; else the part of the state, if it has several."""
    layer, alive = seen.layer, seen.live
    before = np.isfinite(layer.series("states")[t - 1]).all(axis=-1)  # (*E, B)
    if alive is not None:
        before = before & alive[t - 1]
    names = seen.cell.gates if seen.cell is not None and seen.cell.gates else tuple(layer.gates)
    for gate in names:
        if gate in layer.gates and (~np.isfinite(layer.gates[gate][t - 1]).all(axis=-1) & before).any():
            return gate
    if len(layer.parts) > 1:
        for part in layer.parts:
            if (~np.isfinite(layer.series("states", part)[t]).all(axis=-1) & before).any():
                return part
    return ""


def _loss(look: Look) -> Iterator[Finding]:
    """The loss, if the states are finite. That of a watched model is not known, and NaN."""
    record = look.record
    bad = ~np.isfinite(np.asarray(record.loss))
    if not bad.any() or (look.loss is None and record.status.ok and bool(np.isnan(record.loss)[bad].all())):
        return
    outputs = np.asarray(record.outputs)
    out = ~np.isfinite(outputs)
    if out.any():
        every = outputs.ndim >= 3 and len(outputs) == len(record.inputs)
        t = int(np.argmax(out.reshape(len(out), -1).any(axis=1))) if every else None
        parameter = "readout.V" if look.net is not None and look.net.output_size is not None else ""
        text = f"{int(out.sum())} outputs, and so the loss, are not finite although all states are"
        yield _finding(Place(look.name, timestep=t, parameter=_name(look, parameter), phase="forward"), int(out.sum()), text)
        return
    text = "the loss is not finite although all states and outputs are"
    yield _finding(Place(look.name, phase="forward"), int(bad.sum()), text)


def _adjoints(layers: list[Seen]) -> Iterator[Finding]:
    """The highest level at which an adjoint is not finite, at its last such step: from there it spreads down and back in time."""
    worst: int | None = None
    for seen in reversed(layers):
        adjoints = seen.layer.adjoints
        if adjoints is None or np.isfinite(adjoints).all() or (worst is not None and seen.level < worst):
            continue
        worst = seen.level
        bad = _rows(adjoints)  # (T+1, B)
        t = int(np.flatnonzero(bad.any(axis=1))[-1])
        row, own = int(np.argmax(bad[t])), seen.layer.immediate
        source = "the loss's own gradient" if own is not None and not np.isfinite(own[t]).all() else "the gradient dL/ds_t"
        text = f"{source} is not finite in {int(bad[t].sum())} of {bad.shape[1]} sequences, from here back; all states are finite"
        place = Place(seen.name, seen.direction, "", _position(seen, t, row), phase="backward")
        yield _finding(place, int((~np.isfinite(adjoints)).sum()), text)


def _gradients(look: Look) -> Iterator[Finding]:
    bad = {key: int((~np.isfinite(np.asarray(value))).sum()) for key, value in look.record.gradients.items()}
    keys = [key for key in _from_the_top(bad) if bad[key]]
    if keys:
        text = f"{bad[keys[0]]} entries of its gradient are not finite although all adjoints are"
        layer = keys[0].rpartition(".")[0]
        place = Place(_name(look, layer), _direction(layer), parameter=_name(look, keys[0]), phase="backward")
        yield _finding(place, sum(bad.values()), text)


def _position(seen: Seen, t: int, row: int) -> int | None:
    """The input read at the layer's own step t in that row of the batch; None for the initial state."""
    lengths = seen.look.record.lengths
    return None if t == 0 else seen.position(t, None if lengths is None else int(lengths[row]))


def _direction(layer: str) -> str:
    return layer.partition(".")[2]


def _from_the_top(keys: Mapping[str, Any]) -> list[str]:
    """Parameters in the order in which a backward pass reaches them: the read-out, then the layers from the top down."""

    def level(key: str) -> float:
        first = key.partition(".")[0]
        return -float(first) if first.isdecimal() else -np.inf

    return sorted(keys, key=level)


def _list(word: str, items: Array) -> str:
    some = ", ".join(map(str, items[:6])) + (", ..." if len(items) > 6 else "")
    return f"{word}{'s' * (len(items) > 1)} {some}"


# ---- a history --------------------------------------------------------------------------------------------------------------


def _history(history: History) -> Iterator[Finding]:
    """The first update at which a series is not finite; of several at that update, loss, gradient, then parameter."""
    first: dict[str, int] = {}
    for name, (updates, values) in history.series.items():
        kind = name.partition("/")[0]
        if kind not in ("loss", "gradient_norm", "gradient", "clipped", "adjoint", "ratio") or not len(updates):
            continue
        bad = np.isnan(values) if kind == "ratio" else ~np.isfinite(values)  # inf: the parameter started from zero
        if kind == "adjoint":
            bad &= ~np.isneginf(values)  # ln 0
        hit = bad.reshape(len(bad), -1).any(axis=1)
        if hit.any():
            first[name] = int(updates[int(np.argmax(hit))])
    if not first:
        return
    update = min(first.values())
    names = [name for name, at in first.items() if at == update]
    total = sum(int((~np.isfinite(history.series[name][1])).sum()) for name in names)
    if "loss" in names:
        yield _finding(Place(update=update), total, f"the loss is not finite at update {update}")
        return
    for kind, what in (("adjoint", "the gradient dL/ds_t"), ("gradient", "the gradient"), ("clipped", "the clipped gradient")):
        own = {name.partition("/")[2]: name for name in names if name.startswith(f"{kind}/")}
        if own:
            key = _from_the_top(own)[0]
            layer = key if kind == "adjoint" else key.rpartition(".")[0]
            place = Place(layer, _direction(layer), update=update, parameter="" if kind == "adjoint" else key, phase="backward")
            more = f", and of {len(own) - 1} more" if len(own) > 1 else ""
            yield _finding(place, total, f"{what} of {key}{more} is not finite at update {update}; the loss is finite")
            return
    what = "the norm of the gradient" if "gradient_norm" in names else "a parameter"
    parameter = "" if "gradient_norm" in names else names[0].partition("/")[2]
    layer = parameter.rpartition(".")[0]
    place = Place(layer, _direction(layer), update=update, parameter=parameter)
    yield _finding(place, total, f"{what} is not finite at update {update}; the loss is finite")
