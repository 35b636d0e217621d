"""A diagnosis, or a comparison of two, on the terminal: tables where there is one, plain text in a pipe."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradlab.diagnosis import CATALOGUE, Diagnosis, Finding
from gradlab.diagnosis.compare import Comparison
from gradlab.diagnosis.maps import layer_flows
from gradlab.report.sparkline import BLOCKS, PLAIN, flow_lines
from gradlab.report.text import printable

STYLES = {"error": "bold red", "warning": "bold yellow", "info": "bold blue", "healthy": "bold green"}
CHANGES = {"new": "bold red", "changed": "bold yellow", "gone": "bold green", "same": "dim"}
SHOWN = 40
"""Findings on the terminal; the JSON has all."""
LAYERS = 24
"""Layers whose gradient is shown."""
WIDTH = 56
"""Signs of a sparkline."""


def print_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """Print a diagnosis: the verdict, the findings, what to try, the gradient over time, what was assumed and not judged.

    Control characters of foreign text are escaped.
    """
    grave = None if diagnosis.healthy else diagnosis.findings[0]
    style = STYLES["healthy" if grave is None else grave.severity]
    _line(console, Text.assemble((printable(diagnosis.verdict), style)))
    _line(console, _text(diagnosis.subject), "dim")
    shown = diagnosis.findings[:SHOWN]
    if shown:
        console.print()
        _findings(console, shown)
        if len(diagnosis.findings) > SHOWN:
            _line(console, f"... and {len(diagnosis.findings) - SHOWN} more, see --json or --html")
    _remedies(console, diagnosis)
    flows = layer_flows(diagnosis.evidence)
    if flows:
        console.print()
        signs = BLOCKS if _has(console, BLOCKS) else PLAIN
        lines = flow_lines(flows[:LAYERS], WIDTH, signs)
        _line(console, "ln |dL/ds| over the steps, first to last; each line from its least to its largest value")
        _lines(console, lines)
        if any(not np.isfinite(flow.median).all() or flow.bad.any() for flow in flows[:LAYERS]):
            _line(console, "0: exactly zero, x: not finite, blank: no such step")
        if len(flows) > LAYERS:
            _line(console, f"... and {len(flows) - LAYERS} more layers")
    if diagnosis.assumptions:
        console.print()
        _lines(console, [f"assumed     {text}" for text in diagnosis.assumptions])
    if diagnosis.silent:
        console.print()
        _lines(console, [f"not judged  {what}: {why}" for what, why in diagnosis.silent.items()])


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print a comparison: how many findings are gone, new, changed and the same, and each of them."""
    _line(console, Text(comparison.verdict, "bold"))
    _line(console, f"before  {comparison.before.subject}: {comparison.before.verdict}")
    _line(console, f"after   {comparison.after.subject}: {comparison.after.verdict}")
    if not comparison.rows:
        return
    console.print()
    if not console.is_terminal:
        for row in comparison.rows:
            _line(console, f"{row.change:8} {row.finding}" + (f"  [{row.what}]" if row.what else ""))
        return
    table = Table("", "severity", "finding", "place", "what changed", box=SIMPLE_HEAD)
    for row in comparison.rows:
        one = row.finding
        word = Text(row.change, CHANGES[row.change])
        said = row.what or (one.message if row.change != "same" else "")
        table.add_row(word, Text(one.severity, STYLES[one.severity]), _text(one.code), _text(str(one.place)), _text(said))
    console.print(table)


def _findings(console: Console, findings: Iterable[Finding]) -> None:
    if not console.is_terminal:
        _lines(console, [f"{one.severity:8} {one.code} at {one.place}: {one.message}" for one in findings])
        return
    table = Table("", "severity", "finding", "place", "number", "limit", box=SIMPLE_HEAD, padding=(0, 1))
    for n, one in enumerate(findings, 1):
        first = next(iter(one.numbers.items()), None)
        number = "" if first is None else f"{first[0]} {first[1]}"
        limit = "" if first is None or first[1].threshold is None else f"{first[1].threshold:.3g}"
        word = Text(one.severity, STYLES[one.severity])
        table.add_row(str(n), word, _text(one.code), _text(str(one.place)), _text(number), limit)
    console.print(table)
    _lines(console, [f"{n}  {one.message}" for n, one in enumerate(findings, 1)])


def _remedies(console: Console, diagnosis: Diagnosis) -> None:
    codes = [code for code in dict.fromkeys(one.code for one in diagnosis.findings) if code in CATALOGUE]
    if codes:
        console.print()
        _lines(console, [f"try         {code}: {CATALOGUE[code].remedy}" for code in codes])


def _has(console: Console, signs: str) -> bool:
    try:
        signs.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _text(text: str) -> Text:
    """Text from outside: no markup, and no control character reaches the terminal."""
    return Text(printable(text))


def _line(console: Console, text: str | Text, style: str = "") -> None:
    """One line that wraps where the terminal wraps it, so that it can be copied whole."""
    console.print(_text(text) if isinstance(text, str) else text, soft_wrap=True, style=style)


def _lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        _line(console, line)
