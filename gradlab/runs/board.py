"""How a run goes: a live table on a terminal, lines where the output is none."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from gradlab.runs.course import Outcome
from gradlab.runs.text import one_line

MINUTE = 60.0


@dataclass
class _Row:
    tasks: int = 0
    cached: int = 0
    ended: int = 0
    computed: int = 0
    since: float | None = None
    share: float = 0.0
    state: str = "waiting"
    took: float = 0.0

    def total(self) -> float:
        """The share of all its tasks, stored ones among them."""
        missing = self.tasks - self.cached
        return (self.cached + missing * self.share) / self.tasks if self.tasks else 0.0

    def elapsed(self) -> float:
        return self.took if self.state != "running" or self.since is None else time.monotonic() - self.since

    def left(self) -> float | None:
        """Seconds, as far as those that have passed tell; None in the first moments."""
        if self.state != "running" or self.since is None or self.share < 0.005:
            return None
        return self.elapsed() * (1.0 - self.share) / self.share


class Board:
    """Keeps what it is told, one row for each analysis, and shows it. A reader who is gone stops nothing."""

    def __init__(self, program: str, stems: Sequence[str]) -> None:
        self.outcomes: list[Outcome] = []
        self._rows = {stem: _Row() for stem in stems}
        self._program = program
        self._shares: Callable[[], Mapping[str, float]] = dict
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it inside."""
        if self._live:
            with Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True):
                yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._every_minute, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()

    def planned(self, stem: str, tasks: int, cached: int) -> None:
        row = self._rows[stem]
        row.tasks, row.cached = tasks, cached

    def running(self, shares: Callable[[], Mapping[str, float]]) -> None:
        self._shares = shares

    def task_ended(self, stem: str, well: bool) -> None:
        self._rows[stem].ended += 1
        self._rows[stem].computed += well

    def finished(self, outcome: Outcome) -> None:
        row = self._rows[outcome.stem]
        row.state, row.took, row.share = outcome.state, outcome.seconds, 1.0
        self.outcomes.append(outcome)
        word = outcome.verdict.word if outcome.verdict is not None and outcome.state != "broken" else ""
        tasks = counted(outcome)
        parts = [outcome.state, word, f"{outcome.seconds:.1f} s" if tasks else "", tasks]
        self._line(f"{outcome.stem}: {', '.join(part for part in parts if part)}")

    def note(self, text: str) -> None:
        line = f"{self._program}: note: {one_line(text)}"
        if self._live:
            self._console.print(escape(line))
        else:
            print(line, file=sys.stderr)

    def tasks(self) -> str:
        """How many tasks were computed and how many were there, of all analyses: those that were interrupted, too."""
        computed, cached = (sum(getattr(row, name) for row in self._rows.values()) for name in ("computed", "cached"))
        return f"tasks: {computed} computed, {cached} from the cache"

    def _line(self, text: str) -> None:
        if not self._live:
            with suppress(BrokenPipeError):  # who prints the last table finds out, and says so by the exit status
                print(text, flush=True)

    def _measure(self) -> None:
        for stem, share in self._shares().items():
            row = self._rows[stem]
            if row.state in ("waiting", "running") and share > 0.0:
                row.share = share
                if row.since is None:
                    row.since, row.state = time.monotonic(), "running"

    def _every_minute(self, ended: threading.Event) -> None:
        while not ended.wait(MINUTE):
            self._measure()
            for stem, row in self._rows.items():
                if row.state == "running" and not ended.is_set():
                    self._line(f"{stem}: {100 * row.total():.0f} %, {self._tasks(row)} tasks, {span(row.left())} left")

    def _tasks(self, row: _Row) -> str:
        return f"{row.cached + row.ended} of {row.tasks}" if row.tasks else ""

    def _table(self) -> Table:
        self._measure()
        table = Table(box=None, pad_edge=False)
        for heading in ("analysis", "", "", "tasks", "stored", "time", "left"):
            table.add_column(heading, justify="left" if heading in ("analysis", "") else "right", no_wrap=True)
        for stem, row in self._rows.items():
            bar = ProgressBar(1.0, row.total(), width=24) if row.state == "running" else row.state
            share = f"{100 * row.total():.0f} %" if row.state == "running" else ""
            stored = str(row.cached) if row.cached else ""
            time_ = span(row.elapsed()) if row.state != "waiting" else ""
            table.add_row(stem, bar, share, self._tasks(row), stored, time_, span(row.left()) if row.state == "running" else "")
        return table


def counted(outcome: Outcome) -> str:
    """How many tasks were computed and how many were there; empty if it came to none."""
    parts = [f"{outcome.computed} computed"] if outcome.computed else []
    parts += [f"{outcome.cached} from the cache"] if outcome.cached else []
    return ", ".join(parts)


def span(seconds: float | None) -> str:
    """A duration in words."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes}:{rest:02d}"
