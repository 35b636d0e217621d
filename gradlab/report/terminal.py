"""Reports of checks on the terminal: tables where there is one, plain text in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradlab.report.gates import gate_map, place
from gradlab.report.text import number, printable, size

if TYPE_CHECKING:
    from gradlab.checks import CellReport, GradientReport

STYLES = {"PASS": "bold green", "FAIL": "bold red", "UNRESOLVED": "bold yellow"}
SHOWN = 12
"""Rows of a table of findings; the map below it has all of them."""


def print_report(console: Console, report: CellReport | GradientReport, again: str | None = None) -> None:
    """Print a report: as tables on a terminal, else as its own text. Control characters are escaped.

    `again`: a line that runs it again, printed below a report that does not pass.
    """
    if console.is_terminal:
        _tables(console, report.as_json())
    else:
        _lines(console, str(report).splitlines())
    _lines(console, [f"replay     {again}"] * bool(again and report.verdict != "PASS"))


def _tables(console: Console, data: Mapping[str, Any]) -> None:
    if "gradients" not in data:
        _gradients(console, data)
        return
    console.print(_headline(data))
    table = Table("check", "verdict", "what was found", box=SIMPLE_HEAD)
    for one in data["gradients"]:
        table.add_row(_text(f"gradients, {one['size']}"), _word(one["verdict"]), _text(_counted(one["counts"])))
    for one in data["results"]:
        table.add_row(_text(one["name"]), _word(one["verdict"]), _text(one["detail"]))
    console.print(table)
    _lines(console, [f"without {text}" for text in data["without"]])
    for one in data["gradients"]:
        console.print()
        _gradients(console, one)
    if data["shrunk"]:
        console.print()
        _lines(console, f"shrunk to  {data['shrunk']}".splitlines())


def _gradients(console: Console, data: Mapping[str, Any]) -> None:
    console.print(_headline(data))
    _lines(console, [f"oracle     {data['oracle']}    rtol {data['rtol']:.0e} of S", f"entries    {_counted(data['counts'])}"])
    if data["findings"]:
        console.print(_findings(data["findings"][:SHOWN]))
        if len(data["findings"]) > SHOWN:
            _lines(console, [f"... and {len(data['findings']) - SHOWN} more; by gradient and step, error/S of the worst row:"])
            console.print(_map(data))
        _lines(console, [f"clean      {', '.join(f'd{name}' for name in data['clean'])}"] * bool(data["clean"]))
    _lines(console, [f"worst      error/S {size(data['counts']['worst'])} of what passes"])
    _lines(console, [f"one step   {line}" for line in data["one_step"]])
    for name in ("reading", "note"):
        _lines(console, [f"{name:10} {data[name]}"] * bool(data[name]))
    control = data["control"]
    if control and control["tried"]:
        text = f"{control['tried']} alterations: {control['rejected']} rejected in their own block, {control['void']} void"
        _lines(console, [f"control    {text}" + "".join(f"; NOT rejected: {one}" for one in control["missed"][:6])])
    if data["replay"] and data["verdict"] != "PASS":
        _lines(console, [f"replay     {data['replay']}"])


def _headline(data: Mapping[str, Any]) -> Text:
    return Text.assemble("gradlab ", _word(data["verdict"]), "   ", _text(data["subject"]), "   ", data.get("size", ""))


def _findings(findings: Iterable[Mapping[str, Any]]) -> Table:
    table = Table("gradient", box=None, padding=(0, 1, 0, 0))  # narrow: 80 columns have to do
    for name in ("step", "row", "entries", "backward", "oracle", "error/S"):
        table.add_column(name, no_wrap=True)
    table.add_column("verdict")
    for one in findings:
        numbers = (number(one[side]) for side in ("backward", "oracle"))
        word = _word(one["verdict"]) + Text(f" ({one['reason']})" if one["reason"] else "")
        where = (str(one["step"]), str(one["row"]), f"{one['bad']} of {one['entries']}")
        table.add_row(_text(place(one)), *where, *numbers, size(one["error"]), word)
    return table


def _map(data: Mapping[str, Any]) -> Table:
    rows = gate_map(data)
    steps = max(len(marks) for marks in rows.values())
    if steps > 12:  # does not fit: the text of the report has a sign for each step instead of a number
        table = Table("gradient", f"step 0 to {steps - 1}: ✗ FAIL, ? UNRESOLVED, . clean", box=SIMPLE_HEAD)
        for name, marks in rows.items():
            table.add_row(_text(name), "".join({"FAIL": "✗", "UNRESOLVED": "?"}.get(mark.verdict, ".") for mark in marks))
        return table
    table = Table("gradient", *(f"step {t}" for t in range(steps)), box=SIMPLE_HEAD)
    for name, marks in rows.items():
        table.add_row(_text(name), *(Text(mark.text, STYLES.get(mark.verdict, "") if mark.rows else "dim") for mark in marks))
    return table


def _counted(counts: Mapping[str, Any]) -> str:
    """As the report's own text has it."""
    from gradlab.checks.judgement import Counts

    return str(Counts(**{**counts, "worst": float(counts["worst"])}))


def _word(verdict: str) -> Text:
    return Text(verdict, STYLES.get(verdict, ""))


def _text(text: str) -> Text:
    """Text from outside: no markup, and no control character reaches the terminal."""
    return Text(printable(text))


def _lines(console: Console, lines: Iterable[str]) -> None:
    """Lines that wrap where the terminal wraps them, so that a long one can be copied whole."""
    for line in lines:
        console.print(_text(line), soft_wrap=True)
