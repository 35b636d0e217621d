"""Which figures a diagnosis gets, each with its alternative text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from gradlab.analysis.gates import SIGNED, gate_time_constants
from gradlab.analysis.lyapunov import LyapunovSpectrum
from gradlab.diagnosis import Diagnosis
from gradlab.diagnosis.evidence import Look, Seen
from gradlab.diagnosis.maps import LayerFlow, exponents, layer_flows, layer_spectra
from gradlab.directions import flip
from gradlab.plotting import COLOURS, plot_time_constants
from gradlab.report import drawings
from gradlab.report.drawings import Mark
from gradlab.report.svg import drawn, inline

Array = npt.NDArray[Any]

LAYERS = 4
"""Layers that get figures of their own, those with findings first; the map has all."""
LINES = len(drawings.LINES)


@dataclass(frozen=True)
class Picture:
    """A figure: its heading, the <svg>, and a sentence below it."""

    title: str
    svg: Markup
    caption: str = ""


def panel(draw: Callable[..., None], *given: Any, **options: Any) -> Callable[[Any], None]:
    """`draw(ax, *given, **options)`, which waits for its axes."""
    return lambda ax: draw(ax, *given, **options)


def picture(name: str, title: str, text: str, draw: Callable[[Any], None], caption: str = "", height: float = 2.3) -> Picture:
    """Draw, and put into a page; `text` is the alternative text."""
    return Picture(title, inline(drawn(draw, height), name, text), caption)


def overview(diagnosis: Diagnosis) -> list[Picture]:
    """The gradient by step, and its map by layer and step."""
    flows = layer_flows(diagnosis.evidence)
    if not flows:
        return []
    marks = flow_marks(diagnosis)
    shown = sorted(flows, key=lambda flow: not any(mark[3] == flow.name for mark in marks))[:LINES]
    shown = [flow for flow in flows if flow in shown]
    text = "Line plot of ln |dL/ds_t| against the step of the input. " + " ".join(_told(flow) for flow in shown)
    rest = f" The map has all {len(flows)} layers." if len(flows) > LINES else ""
    caption = "Total derivative of the loss with respect to the state at each step, in natural logarithms (2.3 are a factor of "
    caption += f"ten): median over the sequences, quartiles shaded; a gap is exactly zero or no number.{rest}"
    if any(flow.direction == "backward" for flow in shown):
        caption += " The backward direction is drawn in the order of the data."
    found = [picture("gradients", "The gradient at every step", text, panel(drawings.draw_gradients, shown, marks), caption)]
    text = f"Map of ln |dL/ds|, {len(flows)} layers by {len(flows[0].median)} steps. " + " ".join(_told(flow) for flow in flows)
    caption = "Bright is large, dark small; grey is exactly zero, or no number."
    numbered = [mark for mark in marks if mark[3]]
    if numbered:
        caption += " Numbers are those of the findings."
    height = 0.95 + 0.24 * max(len(flows), 2)
    draw_map = panel(drawings.draw_map, flows, numbered)
    return [*found, picture("map", "By layer and step", text, draw_map, caption, height)]


def flow_marks(diagnosis: Diagnosis, layer: str | None = None) -> list[Mark]:
    """Findings that have a step, of all layers or one, with their numbers on the page."""
    found: list[Mark] = []
    for k, one in enumerate(diagnosis.findings, 1):
        if one.place.timestep is not None and (layer is None or one.place.layer in ("", layer)):
            found.append((one.place.timestep, str(k), one.severity, one.place.layer))
    return found[:12]


def _told(flow: LayerFlow) -> str:
    """A layer in words: both ends, and the smallest value."""
    finite = np.flatnonzero(np.isfinite(flow.median))
    if not len(finite):
        return f"Layer {flow.name}: zero or not finite at every step."
    first, last = finite[0], finite[-1]
    lowest = finite[np.argmin(flow.median[finite])]
    words = f"Layer {flow.name}: {flow.median[first]:.3g} at step {first}, {flow.median[last]:.3g} at step {last}"
    if lowest not in (first, last):
        words += f", least {flow.median[lowest]:.3g} at step {lowest}"
    gone = len(flow.median) - len(finite)
    return words + (f"; zero or not finite at {gone} steps." if gone else ".")


def chosen(diagnosis: Diagnosis) -> list[Seen]:
    """Layers that get figures of their own."""
    blamed = [one.place.layer for one in diagnosis.findings]
    layers = diagnosis.evidence.layers
    first = [seen for name in dict.fromkeys(blamed) for seen in layers if seen.name == name]
    return [seen for seen in layers if seen in [*first, *(seen for seen in layers if seen not in first)][:LAYERS]]


def spectra(diagnosis: Diagnosis) -> tuple[list[Picture], list[str]]:
    """Eigenvalues and singular values of J_t, and notes on layers that have none."""
    found, notes = [], []
    for k, seen in enumerate(chosen(diagnosis)):
        result = layer_spectra(seen)
        if result.spectra is None:
            notes.append(f"layer {seen.name}: {result.reason}")
            continue
        radius = result.spectra.spectral_radius
        top, bottom = result.spectra.singular_values[..., 0], result.spectra.singular_values[..., -1]
        at = ", ".join(map(str, result.steps))
        about = f"layer {seen.name}, {_part(seen)} at steps {at} of its own order"
        text = f"Eigenvalues of the Jacobians of {about}, with the unit circle; spectral radius {_range(radius)}."
        caption = f"At steps {at}; spectral radius {_range(radius)}."
        if not result.spectra.status.ok:
            caption += f" {result.spectra.status}."
        eigen = panel(drawings.draw_eigenvalues, result)
        found.append(picture(f"eigenvalues-{k}", f"Eigenvalues of J, layer {seen.name}", text, eigen, caption, 2.7))
        text = f"Singular values of the Jacobians of {about}: largest {_range(top)}, smallest {_range(bottom)}."
        caption = f"Largest {_range(top)}, smallest {_range(bottom)}: what one step can do at most and at least."
        singular = panel(drawings.draw_singular_values, result)
        found.append(picture(f"singular-{k}", f"Singular values of J, layer {seen.name}", text, singular, caption, 2.7))
    return found, notes + _left_out(diagnosis)


def _part(seen: Seen) -> str:
    return "state (" + ", ".join(seen.layer.parts) + ")"


def _left_out(diagnosis: Diagnosis) -> list[str]:
    rest = len(diagnosis.evidence.layers) - len(chosen(diagnosis))
    return [f"{rest} more layers have no figures of their own here; the map has them"] if rest > 0 else []


def leading_exponents(diagnosis: Diagnosis) -> tuple[list[Picture], list[tuple[str, str, str, str]], list[str]]:
    """The figure, rows (layer, largest exponent, its two standard errors, in words), and notes."""
    measured: dict[str, LyapunovSpectrum] = {}
    notes = []
    for look in diagnosis.evidence.looks:
        for key, result in exponents(look, diagnosis.evidence.seed).items():
            name = f"{look.name}.{key}" if look.name else key
            if isinstance(result, str):
                notes.append(f"layer {name}: {result}")
            else:
                measured[name] = result
    rows = [_exponent_row(name, result) for name, result in measured.items()]
    if not measured:
        return [], [], notes
    shown = dict(list(measured.items())[:LINES])
    steps = next(iter(measured.values())).steps
    text = "Leading Lyapunov exponents by rank. " + " ".join(f"Layer {row[0]}: {row[1]} nats per step." for row in rows)
    caption = f"Along the data, {steps} steps; bars are two standard errors over the sequences."
    drawn_ = picture("exponents-figure", "Leading exponents", text, panel(drawings.draw_exponents, shown), caption)
    return [drawn_], rows, notes


def _exponent_row(name: str, result: LyapunovSpectrum) -> tuple[str, str, str, str]:
    values, errors = (
        np.asarray(one).reshape(-1, result.exponents.shape[-1])[:, 0] for one in (result.exponents, result.standard_error)
    )
    mean = float(values.mean())
    with np.errstate(all="ignore"):
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float(errors[0])
    two = f"{2.0 * error:.2g}" if np.isfinite(error) else "unknown"
    if np.isneginf(mean):
        words = "every gradient is lost: a Jacobian is singular"
    elif not np.isfinite(mean):
        words = "no number"
    elif abs(mean) <= 2.0 * error:
        words = "near the edge: neither grows nor shrinks, within the error"
    else:
        words = f"a gradient {'shrinks' if mean < 0 else 'grows'} by a factor e every {abs(1.0 / mean):.3g} steps"
    return name, f"{mean:.3g}", two, words


def gates(diagnosis: Diagnosis) -> tuple[list[Picture], list[str]]:
    """Saturated shares and time constants of gates; of a layer without gates its states."""
    found: list[Picture] = []
    for k, seen in enumerate(chosen(diagnosis)):
        if not seen.layer.gates:
            values = gate_values(seen, "h") if seen.layer.states is not None else None
            if values is not None:
                text = f"States of layer {seen.name} over the steps: {_quantiles(values)}."
                band = panel(drawings.draw_gate, values, "h", what="state")
                found.append(picture(f"state-{k}", f"States, layer {seen.name}", text, band, f"{_quantiles(values)}."))
            continue
        quantiles, ends = _gate_quantiles(seen)
        if not quantiles:
            continue
        told = "; ".join(f"{gate}: {100 * low:.0f} % low, {100 * high:.0f} % high" for gate, (low, high) in ends.items())
        text = f"Where the values of each gate of layer {seen.name} lie between its ends. In the outer tenths, {told}."
        bars = panel(drawings.draw_gates, quantiles)
        caption = f"Median, half and 90 % of the values. In the outer tenths (shaded), {told}."
        found.append(picture(f"gates-{k}", f"Gates, layer {seen.name}", text, bars, caption))
        found += _time_constants(seen, k)
    return found, _left_out(diagnosis)


def _gate_quantiles(seen: Seen) -> tuple[dict[str, Array], dict[str, tuple[float, float]]]:
    """Five quantiles of each gate between its ends, and the shares in the outer tenths."""
    quantiles, ends = {}, {}
    for gate in seen.layer.gates:
        values = gate_values(seen, gate)
        if values is None or not np.isfinite(values).any():
            continue
        there = values[np.isfinite(values)]
        there = 0.5 * (there + 1.0) if gate in SIGNED else there
        quantiles[gate] = np.quantile(there, [0.05, 0.25, 0.5, 0.75, 0.95])
        ends[gate] = float((there <= 0.1).mean()), float((there >= 0.9).mean())
    return quantiles, ends


def _time_constants(seen: Seen, k: int) -> list[Picture]:
    key = next((f"{seen.key}/{gate}" for gate in ("f", "z") if gate in seen.layer.gates), None)
    if key is None:
        return []
    result = gate_time_constants(seen.look.record)
    values = result.time_constants[key].ravel()
    if not np.isfinite(values).any():
        return []
    middle = float(np.median(values))
    text = f"Histogram of the time constants of gate {key.rpartition('/')[2]} of layer {seen.name}: median {middle:.3g} steps"
    caption = f"Median {middle:.3g} steps; T = {result.steps}."
    draw = panel(plot_time_constants, result, key, color=COLOURS["blue"], alpha=0.85)
    title = f"How long units remember, layer {seen.name}"
    return [picture(f"constants-{k}", title, f"{text}; the sequences have {result.steps}.", draw, caption)]


def gate_values(seen: Seen, gate: str) -> Array | None:
    """(T, sequences x units) of a gate, or of a part of the state, in the order of the data, NaN where there is no step."""
    layer = seen.layer
    if gate in layer.gates:
        values = layer.gates[gate]
    elif gate in layer.parts and layer.states is not None:
        values = layer.series("states", gate)[1:]
    else:
        return None
    values = np.array(values, float)
    if seen.live is not None:
        values[~np.broadcast_to(seen.live.reshape(len(values), *(1,) * (values.ndim - 3), -1), values.shape[:-1])] = np.nan
    if seen.direction == "backward":
        values = flip(values, seen.look.record.lengths)
    flat = values.reshape(len(values), -1)
    few = max(1, int(4e6 / max(len(flat), 1)))  # entries of a step that quantiles are taken of
    return flat[:, :: -(-flat.shape[1] // few)]


def _quantiles(values: Array) -> str:
    with np.errstate(all="ignore"):
        low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95])
    return f"median {middle:.3g}, 90 % from {low:.3g} to {high:.3g}"


def _range(values: Array) -> str:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"


def look_of(diagnosis: Diagnosis, layer: str) -> Look | None:
    """The pass that a layer's name belongs to; the first if there is none of that name."""
    for seen in diagnosis.evidence.layers:
        if seen.name == layer:
            return seen.look
    return diagnosis.evidence.looks[0] if diagnosis.evidence.looks else None


def history_pictures(diagnosis: Diagnosis, marks: Sequence[Mark]) -> list[Picture]:
    """A training history: loss, norms, update ratios and the gradient by update."""
    from gradlab.report import drawn_history

    history = diagnosis.evidence.history
    if history is None:
        return []
    told = diagnosis.evidence.circumstances
    found = []
    if "loss" in history.series:
        text = f"The loss of {len(history.series['loss'][0])} updates."
        found.append(picture("loss", "Loss", text, panel(drawn_history.draw_loss, history, marks)))
    if history.global_norm("gradient") is not None:
        text = "The norm of the gradient of each update, before and after clipping."
        limit = told.clip_norm
        found.append(picture("norms", "Gradient norm", text, panel(drawn_history.draw_norms, history, limit, marks)))
    if history.group("ratio"):
        text = "The size of each update relative to its parameter."
        found.append(picture("ratios", "Size of updates", text, panel(drawn_history.draw_ratios, history)))
    for k, layer in enumerate(list(history.group("adjoint"))[:LAYERS]):
        if history.series[f"adjoint/{layer}"][1].ndim == 2:
            text = f"Map of ln |dL/ds| of layer {layer}, by step and update."
            draw = panel(drawn_history.draw_adjoint_map, history, layer, marks)
            found.append(picture(f"updates-{k}", f"Gradient by update, layer {layer}", text, draw))
    return found
