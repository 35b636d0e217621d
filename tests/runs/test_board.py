"""What a run tells while it goes: a table on a terminal, lines elsewhere; shares and times that add up."""

import io
import time

import pytest
from rich.console import Console
from runs.toys import verdict

from gradlab.runs import board as module
from gradlab.runs.board import Board, span
from gradlab.runs.course import Outcome


@pytest.fixture
def board(monkeypatch):
    """A board on a terminal of 100 columns, at a clock that a test sets."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    made = Board("prog", ["alpha", "beta"])
    made.clock = clock
    return made


def lines(board):
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    console.print(board._table())
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip()]


def test_a_row_tells_share_tasks_time_and_what_is_left(board):
    board.planned("alpha", 8, 4)
    share = {"alpha": 0.0, "beta": 0.0}
    board.running(lambda: share)
    assert lines(board)[1:] == [["alpha", "waiting", "4", "of", "8", "4"], ["beta", "waiting"]]
    share["alpha"] = 1e-9
    lines(board)  # begun
    board.clock[0] += 60.0
    board.task_ended("alpha", True)
    share["alpha"] = 0.25
    # four tasks were there and one of four is done: 5 of 8, and three more of a minute each
    assert lines(board)[1][-8:] == ["62", "%", "5", "of", "8", "4", "1:00", "3:00"]
    assert board.tasks() == "tasks: 1 computed, 4 from the cache"


def test_a_failed_task_is_not_counted_as_computed(board):
    board.planned("alpha", 2, 0)
    board.task_ended("alpha", True)
    board.task_ended("alpha", False)
    assert board.tasks() == "tasks: 1 computed, 0 from the cache"


def test_where_there_is_no_terminal_every_analysis_gets_one_line_when_it_ends(board, capsys):
    outcome = Outcome("alpha", "done", 1.25, verdict()({}), computed=2, cached=3)
    with board.shown():
        board.finished(outcome)
        board.finished(Outcome("beta", "crashed", 0.0, detail="no"))
    assert capsys.readouterr().out == "alpha: done, confirmed, 1.2 s, 2 computed, 3 from the cache\nbeta: crashed\n"


def test_a_long_run_tells_every_minute_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(module, "MINUTE", 0.02)
    board = Board("prog", ["alpha", "beta"])
    board.planned("alpha", 4, 2)
    board.running(lambda: {"alpha": 0.5})
    with board.shown():
        time.sleep(0.1)
    assert "alpha: 75 %, 2 of 4 tasks, 0:00 left" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("seconds", "told"), [(None, "?"), (0.2, "0:00"), (59.6, "1:00"), (754, "12:34"), (3660, "1 h 01 min")])
def test_durations_are_told_in_minutes_and_seconds_or_hours(seconds, told):
    assert span(seconds) == told
