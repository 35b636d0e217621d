"""A diagnosis as one page of HTML: figures inside, nothing loaded or run, foreign text escaped."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from gradlab._files import write_bytes
from gradlab._version import __version__
from gradlab.diagnosis import CATALOGUE, Diagnosis, Finding, Number
from gradlab.diagnosis.maps import layer_flows
from gradlab.errors import DTypeError
from gradlab.report import figures
from gradlab.report.drawings import Mark
from gradlab.report.figures import Picture
from gradlab.report.finding_figures import figure_of
from gradlab.report.html import environment
from gradlab.report.text import printable

FIGURES = 12
"""Findings that get a figure, the gravest."""
GATES = (
    "A gate at an end of its range passes hardly any gradient to its weights. A forget gate near one is memory; how long it "
    "lasts is its time constant."
)
STATES = "What the units hold over the steps. Where a squashing function is at its ends it passes hardly any gradient back."


@dataclass(frozen=True)
class Shown:
    """One finding as the page has it."""

    code: str
    severity: str
    title: str
    message: str
    places: tuple[str, ...]
    numbers: tuple[tuple[str, str, str, str], ...]
    remedy: str
    meaning: str
    reference: str
    has_code: bool
    first: int
    picture: Picture | None


@dataclass(frozen=True)
class Remedy:
    """What to try for one code, and for which findings."""

    code: str
    title: str
    numbers: tuple[int, ...]
    remedy: str
    pytorch: Markup
    keras: Markup


def write_diagnosis(path: str | os.PathLike[str], diagnosis: Diagnosis, command: str = "") -> None:
    """Write `diagnosis` to `path` as one self-contained page; equal diagnoses give equal bytes.

    `command`: what made it, for the provenance. Errors: DTypeError for anything else, ResourceRefused if the file cannot be
    written.
    """
    write_bytes(path, diagnosis_page(diagnosis, command).encode("utf-8", "backslashreplace"))


def diagnosis_page(diagnosis: Diagnosis, command: str = "") -> str:
    """The page that `write_diagnosis` writes."""
    if not isinstance(diagnosis, Diagnosis):
        raise DTypeError(f"diagnosis is a {type(diagnosis).__name__}; expected what gradlab.diagnose returns")
    overview = figures.overview(diagnosis)
    gates, gate_notes = figures.gates(diagnosis)
    spectra, spectra_notes = figures.spectra(diagnosis)
    exponents, exponent_rows, exponent_notes = figures.leading_exponents(diagnosis)
    history = figures.history_pictures(diagnosis, _updates(diagnosis))
    if not overview:
        overview, history = history[:1], history[1:]
    remedies = _remedies(diagnosis)
    has_gates = any(seen.layer.gates for seen in diagnosis.evidence.layers)
    headline, where, lead, tone = _verdict(diagnosis)
    parts = {
        "gradient": ("Overview", overview),
        "findings": ("Findings", True),
        "try": ("What to try", remedies),
        "history": ("Training", history),
        "gates": ("Gates" if has_gates else "States", gates or gate_notes),
        "spectra": ("Spectra", spectra or spectra_notes),
        "exponents": ("Exponents", exponents or exponent_notes),
        "basis": ("Basis", True),
    }
    counted = Counter(one.severity for one in diagnosis.findings)
    return (
        environment()
        .get_template("diagnosis.html")
        .render(
            d=diagnosis,
            headline=headline,
            where=where,
            lead=lead,
            tone=tone,
            first_remedy="" if diagnosis.healthy or not remedies else remedies[0].remedy,
            counts=[(word, counted[word]) for word in ("error", "warning", "info") if counted[word]],
            sections=[(anchor, text) for anchor, (text, there) in parts.items() if there],
            overview=overview,
            findings=[_shown(diagnosis, one, k) for k, one in enumerate(diagnosis.findings, 1)],
            remedies=remedies,
            history=history,
            gates=gates,
            gates_title="Gates and memory" if has_gates else "States",
            gates_intro=GATES if has_gates else STATES,
            gate_notes=gate_notes if gates else [],
            spectra=spectra,
            spectra_notes=spectra_notes,
            exponents=exponents,
            exponent_rows=exponent_rows,
            exponent_notes=exponent_notes,
            measured=_measured(diagnosis, exponent_rows),
            looked=_looked(diagnosis),
            provenance=_provenance(diagnosis, command),
            version=__version__,
        )
    )


def _verdict(diagnosis: Diagnosis) -> tuple[str, str, str, str]:
    """Headline, place, sentence, and the tone of the page."""
    if diagnosis.healthy:
        return "Healthy", "", "Nothing that keeps it from training was found.", "ok"
    first = diagnosis.findings[0]
    more = sum(one.severity != "info" for one in diagnosis.findings) - 1
    lead = _sentence(first.message) + (f" {more} more {'finding' if more == 1 else 'findings'} below." if more else "")
    return _title(first), str(first.place), lead, first.severity


def _title(one: Finding) -> str:
    entry = CATALOGUE.get(one.code)
    title = entry.title if entry else one.code.replace("-", " ")
    return title[:1].upper() + title[1:]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _shown(diagnosis: Diagnosis, one: Finding, number: int) -> Shown:
    entry = CATALOGUE.get(one.code)
    place = str(one.place)
    return Shown(
        code=one.code,
        severity=one.severity,
        title=_title(one),
        message=_sentence(one.message)[:-1],
        places=tuple(place.split(", ")),
        numbers=tuple((name, *_number(value)) for name, value in one.numbers.items()),
        remedy=entry.remedy if entry else "",
        meaning=entry.meaning if entry else "",
        reference=entry.reference if entry else "",
        has_code=bool(entry and (entry.pytorch or entry.keras)),
        first=next(k for k, other in enumerate(diagnosis.findings, 1) if other.code == one.code),
        picture=figure_of(diagnosis, number) if number <= FIGURES else None,
    )


def _number(one: Number) -> tuple[str, str, str]:
    """Value with its unit, interval, limit."""
    whole = float(one.value).is_integer() and abs(one.value) < 1e6
    value = (f"{one.value:.0f}" if whole else f"{one.value:.4g}") + (f" {one.unit}" if one.unit else "")
    interval = "" if one.interval is None else f"{one.interval[0]:.3g} to {one.interval[1]:.3g}"
    return value, interval, "" if one.threshold is None else f"{one.threshold:.4g}"


def _remedies(diagnosis: Diagnosis) -> list[Remedy]:
    found = []
    for code in dict.fromkeys(one.code for one in diagnosis.findings):
        entry = CATALOGUE.get(code)
        if entry is not None:
            numbers = tuple(k for k, one in enumerate(diagnosis.findings, 1) if one.code == code)
            title = entry.title[:1].upper() + entry.title[1:]
            found.append(Remedy(code, title, numbers, entry.remedy, _code(entry.pytorch), _code(entry.keras)))
    return found


def _code(text: str) -> Markup:
    """Lines of code, each escaped, with their ends."""
    return Markup("\n").join(escape(printable(line)) for line in text.strip("\n").split("\n")) if text else Markup("")


def _updates(diagnosis: Diagnosis) -> list[Mark]:
    found: list[Mark] = []
    for k, one in enumerate(diagnosis.findings, 1):
        if one.place.update is not None:
            found.append((one.place.update, str(k), one.severity, ""))
    return found[:8]


def _measured(diagnosis: Diagnosis, exponents: list[tuple[str, str, str, str]]) -> list[tuple[str, str, str]]:
    """For the head of the page: layer, its gradient at both ends, its largest exponent."""
    largest = {row[0]: row[1] for row in exponents}
    rows = []
    for flow in layer_flows(diagnosis.evidence):
        there = flow.median[np.isfinite(flow.median)]
        ends = f"{there[0]:.3g} to {there[-1]:.3g}" if len(there) else "zero or not finite"
        rows.append((flow.name, ends, largest.get(flow.name, "")))
    return rows[:8]


def _looked(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    """Layer, cell, inputs, state, steps, sequences."""
    rows: list[tuple[str, ...]] = []
    for seen in diagnosis.evidence.layers:
        inputs = seen.look.record.inputs
        layer = next((one for one in (seen.look.net.layers if seen.look.net else ()) if one.name == seen.key), None)
        states = seen.layer.states
        parts = ", ".join(f"{name} {stop - start}" for name, (start, stop) in seen.layer.parts.items())
        rows.append(
            (
                seen.name,
                repr(layer.cell) if layer else "unknown",
                str(layer.input_size) if layer else "",
                parts if states is not None or parts else "",
                str(len(inputs)),
                str(int(np.prod(inputs.shape[1:-1]))),
            )
        )
    return rows


def _provenance(diagnosis: Diagnosis, command: str) -> list[tuple[str, str]]:
    told = diagnosis.evidence.circumstances
    given = {name.replace("_", " "): value for name, value in vars(told).items() if value is not None}
    rows = [("command", command)] * bool(command)
    rows += [("seed", str(diagnosis.evidence.seed)), *((name, f"{value:g}") for name, value in given.items())]
    return rows + [(name, str(value)) for name, value in diagnosis.provenance.items()]
