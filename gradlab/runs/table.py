"""Claims and verdicts as a table: on the terminal, and in Markdown for the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gradlab._files import write_bytes
from gradlab.runs.course import Outcome
from gradlab.runs.store import load_summary
from gradlab.runs.text import one_line
from gradlab.runs.verdict import Analysis

BEGIN, END = "<!-- figures: begin, written by python -m analyses -->", "<!-- figures: end -->"


def print_outcomes(console: Console, analyses: Mapping[str, Analysis], outcomes: Sequence[Outcome]) -> None:
    """One row an analysis: its claim, its verdict with the numbers, its time."""
    table = Table(show_lines=True, expand=False)
    table.add_column("analysis", no_wrap=True)
    table.add_column("claim", ratio=2)
    table.add_column("verdict", ratio=3)
    table.add_column("time", justify="right", no_wrap=True)
    for outcome in outcomes:
        text = outcome.state
        if outcome.verdict is not None:
            text = f"[bold]{outcome.verdict.word}[/bold]: {escape(outcome.verdict.sentence)}"
        if outcome.state in ("broken", "crashed", "skipped", "unreadable"):
            text = f"[bold]{outcome.state}[/bold]: {escape(one_line(outcome.detail))}"
        table.add_row(outcome.stem, escape(analyses[outcome.stem].CLAIM), text, f"{outcome.seconds:.1f} s")
    console.print(table)


def markdown(analyses: Mapping[str, Analysis], folder: Path, link: str) -> str:
    """The figure table of the README, from the stored summaries; `link` is the folder's path as the README sees it."""
    lines = ["| Figure | Claim | Measured | Verdict |", "|---|---|---|---|"]
    for stem, analysis in analyses.items():
        summary = load_summary(folder, stem)
        claim = _cell(analysis.CLAIM)
        if summary is None:
            lines.append(f"| `{stem}` | {claim} | not run yet | |")
            continue
        verdict = summary["verdict"]
        holds = all(truth["holds"] for truth in summary["ground_truths"])
        lines.append(
            f"| [`{stem}`]({link}/{stem}.png) ([script](analyses/{stem}.py), [numbers]({link}/{stem}.json)) | {claim} "
            f"| {_cell(verdict['sentence'])} | **{verdict['word'] if holds else 'broken: a ground truth fails'}** |"
        )
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def refresh_readme(readme: Path, analyses: Mapping[str, Analysis], folder: Path) -> bool:
    """Write the table between the README's two marks; False if the file or the marks are not there."""
    if not readme.is_file():
        return False
    text = readme.read_bytes()  # bytes: what stands outside the marks stays as it is
    before, begin, rest = text.partition(BEGIN.encode())
    _, end, after = rest.partition(END.encode())
    if not begin or not end:
        return False
    new = before + begin + f"\n{markdown(analyses, folder, folder.name)}\n".encode() + end + after
    if new != text:
        write_bytes(readme, new)
    return True
