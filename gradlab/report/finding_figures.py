"""The figure that shows what one finding is about, if there is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab.diagnosis import Diagnosis, Finding
from gradlab.diagnosis.evidence import Look, Seen
from gradlab.diagnosis.history import History
from gradlab.diagnosis.maps import layer_flow, layer_spectra
from gradlab.directions import live
from gradlab.errors import GradlabError
from gradlab.forward_pass import forward
from gradlab.report import drawings, drawn_history
from gradlab.report.drawings import Mark
from gradlab.report.figures import Picture, gate_values, look_of, panel, picture

Array = npt.NDArray[Any]
Draw = Callable[[Any], None]

FLOW = ("vanishing", "exploding", "transient-growth", "short-horizon", "initial-state", "truncation-short")
SPECTRA = ("ill-conditioned", "sensitive")
POINTS, ROWS = 25, 32
"""Points of the line along the gradient, and sequences it is evaluated on."""


def figure_of(diagnosis: Diagnosis, number: int) -> Picture | None:
    """The figure of the finding `number`, from 1; None if there is none for its code, or what it needs is not there."""
    one = diagnosis.findings[number - 1]
    name = f"finding-{number}-figure"
    seen = next((seen for seen in diagnosis.evidence.layers if seen.name == one.place.layer), None)
    made: Picture | None = None
    if one.place.update is not None or one.code.startswith(("loss-", "clipping-", "update-")):
        made = _of_history(diagnosis, one, name, str(number))
    elif one.code in FLOW and seen is not None:
        made = _carried(diagnosis, one, seen, name, str(number))
    elif one.code in ("saturated", "forget-closed") and seen is not None:
        made = _gate(one, seen, name, str(number))
    elif one.code == "dead-relu" and seen is not None:
        made = _units(one, seen, name)
    elif one.code == "nonfinite" and seen is not None:
        made = _size(one, seen, name, str(number))
    elif one.code in SPECTRA and seen is not None:
        made = _spectrum(seen, name)
    elif one.code == "cliff":
        look = look_of(diagnosis, one.place.layer)
        made = None if look is None else _line(look, diagnosis.evidence.circumstances.learning_rate, name)
    elif one.code in ("input-scale", "padding-counted"):
        look = look_of(diagnosis, one.place.layer)
        made = None if look is None else _inputs(one, look, name)
    return made


def _mark(at: float | None, label: str, one: Finding) -> list[Mark]:
    return [] if at is None else [(at, label, one.severity, one.place.layer)]


def _carried(diagnosis: Diagnosis, one: Finding, seen: Seen, name: str, label: str) -> Picture | None:
    carried = diagnosis.evidence.carried(seen)
    if carried is None:
        flow = layer_flow(seen)
        if flow is None:
            return None
        text = f"ln |dL/ds| of layer {seen.name} at each step."
        return picture(
            name,
            "The gradient at every step",
            text,
            panel(drawings.draw_gradients, [flow], _mark(one.place.timestep, label, one)),
        )
    lag = one.place.lag
    if one.code in ("short-horizon",) and diagnosis.evidence.circumstances.dependency is not None:
        lag = diagnosis.evidence.circumstances.dependency
    limit = next((n.threshold for n in one.numbers.values() if n.unit == "nats" and n.threshold is not None), None)
    with np.errstate(all="ignore"):
        ends = np.nanmedian(np.where(np.isfinite(carried.log_gain), carried.log_gain, np.nan), axis=1)
    there = np.flatnonzero(np.isfinite(ends))
    told = f"{ends[there[-1]]:.3g} nats after {there[-1]} steps" if len(there) else "nothing arrives"
    text = f"ln of what a unit gradient at the end of layer {seen.name} becomes on its way back, against the lag: {told}."
    caption = f"A unit gradient at the end, carried back: {told}."
    usable = limit if limit is not None and math.isfinite(limit) else None
    return picture(name, "On its way back", text, panel(drawings.draw_carried, carried, _mark(lag, label, one), usable), caption)


def _gate(one: Finding, seen: Seen, name: str, label: str) -> Picture | None:
    gate = one.place.gate or next((g for g in ("f", "z", "h") if g in seen.layer.gates or g in seen.layer.parts), "")
    values = gate_values(seen, gate)
    if values is None:
        return None
    what = "gate" if gate in seen.layer.gates else "state"
    middle = float(np.nanmedian(values))
    text = f"The {what} {gate} of layer {seen.name} at each step, over units and sequences; median {middle:.3g}."
    marks = _mark(one.place.timestep, label, one)
    return picture(name, f"The {what} {gate} over the steps", text, panel(drawings.draw_gate, values, gate, marks, what))


def _units(one: Finding, seen: Seen, name: str) -> Picture | None:
    states = seen.layer.states
    if states is None or "h" not in seen.layer.parts:
        return None
    values = np.abs(seen.layer.series("states", "h")[1:])
    largest = values.reshape(-1, values.shape[-1]).max(axis=0)
    text = f"The largest output of each unit of layer {seen.name}: {int((largest == 0).sum())} of {len(largest)} are exactly 0."
    return picture(name, "Largest output of each unit", text, panel(drawings.draw_units, largest, "largest output"))


def _size(one: Finding, seen: Seen, name: str, label: str) -> Picture | None:
    backward = one.place.phase == "backward"
    values = seen.layer.adjoints if backward else seen.layer.states
    if values is None:
        return None
    with np.errstate(all="ignore"):
        sizes = np.asarray(log_norm(values[1:])).reshape(len(values) - 1, -1) / np.log(10.0)
    sizes[~np.isfinite(values[1:]).all(axis=-1).reshape(sizes.shape)] = np.nan
    there = np.isfinite(sizes).any(axis=1)
    top = np.full(len(sizes), np.nan)
    top[there] = np.nanmax(np.where(np.isfinite(sizes), sizes, np.nan)[there], axis=1)
    if seen.direction == "backward":
        top = top[::-1]
    what = r"$\log_{10}\, \|dL/ds_t\|$" if backward else r"$\log_{10}\, \|s_t\|$"
    last = np.flatnonzero(np.isfinite(top))
    told = f"10^{top[last[-1]]:.3g} at step {last[-1]}, the last finite one" if len(last) else "no step is finite"
    text = f"The size of the {'gradient' if backward else 'state'} of layer {seen.name} at each step: {told}."
    marks = _mark(one.place.timestep, label, one)
    return picture(name, "The way to overflow", text, panel(drawings.draw_level, top, what, marks), f"{told}.")


def _spectrum(seen: Seen, name: str) -> Picture | None:
    result = layer_spectra(seen)
    if result.spectra is None:
        return None
    values = result.spectra.singular_values
    text = f"Singular values of the Jacobians of layer {seen.name}: {np.nanmax(values):.3g} to {np.nanmin(values):.3g}."
    return picture(name, "Singular values of J", text, panel(drawings.draw_singular_values, result))


def _inputs(one: Finding, look: Look, name: str) -> Picture | None:
    x = np.asarray(look.record.inputs, float)
    if x.ndim != 3 or not np.isfinite(x).all():
        return None
    mask = live(len(x), look.record.lengths)
    if one.code == "input-scale":
        kept = x.reshape(-1, x.shape[-1]) if mask is None else x[mask]
        sizes = np.abs(kept).max(axis=0)
        with np.errstate(all="ignore"):  # scaled first: squares would overflow
            sizes = sizes * np.sqrt(np.nan_to_num((kept / np.where(sizes > 0.0, sizes, 1.0)) ** 2).mean(axis=0))
        text = f"Root mean square of each of {len(sizes)} input features: {sizes.min():.3g} to {sizes.max():.3g}."
        return picture(name, "Size of the inputs", text, panel(drawings.draw_features, sizes), "The dashed line is 1.")
    same = (x[:-1] == x[-1]).all(axis=-1)  # (T - 1, B): equal to the last
    tail = np.flip(np.logical_and.accumulate(np.flip(same, 0), 0), 0)
    constant = np.concatenate([tail, tail[-1:]])
    text = f"Steps that repeat each sequence's last vector up to its end: {100 * constant.mean():.0f} % of all."
    caption = f"Bright: the last vector, repeated to the end; {100 * constant.mean():.0f} % of all steps."
    return picture(name, "What looks like padding", text, panel(drawings.draw_padding, constant), caption)


def _line(look: Look, rate: float | None, name: str) -> Picture | None:
    """The loss along the negative gradient, up to twice one update; the parameters are not touched."""
    if look.net is None or look.params is None or look.batch is None or look.loss is None or rate is None:
        return None
    batch, gradients = look.batch, look.record.gradients
    if (
        any(key not in gradients or gradients[key].shape != value.shape for key, value in look.params.items())
        or batch.inputs.ndim != 3
    ):
        return None
    if batch.inputs.shape[1] > ROWS:
        return None  # another batch would have another gradient
    x = np.linspace(0.0, 2.0, POINTS)
    losses = np.full(POINTS, np.nan)
    for k, step in enumerate(x):
        with np.errstate(all="ignore"):
            moved = {key: value - step * rate * gradients[key] for key, value in look.params.items()}
            try:
                run = forward(look.net, moved, batch.inputs, lengths=batch.lengths)
                losses[k] = float(np.asarray(look.loss(run.outputs, batch.targets, batch.mask)[0]))
            except GradlabError:
                continue
    there = losses[np.isfinite(losses)]
    if not len(there):
        return None
    text = f"The loss along the negative gradient, from 0 to 2 updates: {losses[0]:.3g} at 0, at most {there.max():.3g}."
    return picture(
        name,
        "The loss ahead",
        text,
        panel(drawings.draw_line, x, losses, 1.0),
        f"{len(there)} of {POINTS} points are finite.",
    )


def _of_history(diagnosis: Diagnosis, one: Finding, name: str, label: str) -> Picture | None:
    history = diagnosis.evidence.history
    if history is None:
        return None
    marks = _mark(one.place.update, label, one)
    limits = [n.threshold for n in one.numbers.values() if n.threshold is not None and math.isfinite(n.threshold)]
    draw: Draw
    if one.code.startswith("clipping-") and history.global_norm("gradient") is not None:
        limit = diagnosis.evidence.circumstances.clip_norm
        draw = panel(drawn_history.draw_norms, history, limit, marks)
        return picture(name, "Gradient norm", "The norm of the gradient of each update, before and after clipping.", draw)
    if one.code == "update-ratio" and history.group("ratio"):
        only = one.place.parameter
        draw = panel(drawn_history.draw_ratios, history, only, limits[:1])
        return picture(name, "Size of updates", f"The size of each update of {only or 'all parameters'} relative to it.", draw)
    layer = _adjoint_layer(history, one.place.layer)
    if one.code in FLOW and layer:
        draw = panel(drawn_history.draw_adjoint_map, history, layer, marks)
        return picture(
            name, f"Gradient by update, layer {layer}", f"Map of ln |dL/ds| of layer {layer} by step and update.", draw
        )
    if "loss" in history.series and history.series["loss"][1].ndim == 1:
        draw = panel(drawn_history.draw_loss, history, marks)
        return picture(name, "Loss", f"The loss of {len(history.series['loss'][0])} updates.", draw)
    return None


def _adjoint_layer(history: History, layer: str) -> str:
    known = {key: value for key, value in history.group("adjoint").items() if value[1].ndim == 2}
    return layer if layer in known else next(iter(known), "")
