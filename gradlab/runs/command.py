"""The command line over a set of analyses: `python -m analyses`."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from gradlab.errors import FormatError, GradlabError, ResourceRefused
from gradlab.runs.arguments import COMPUTING, parser
from gradlab.runs.board import Board
from gradlab.runs.look import PAPER, Look
from gradlab.runs.runner import Options, missing, run
from gradlab.runs.signals import Terminated, one_interruption
from gradlab.runs.table import print_outcomes, refresh_readme
from gradlab.runs.text import one_line
from gradlab.runs.verdict import Analysis

DONE, USAGE, INPUT, RESOURCE, PARTIAL, INTERRUPTED, TERMINATED, PIPE = 0, 2, 3, 5, 6, 130, 143, 141


def main(
    analyses: Mapping[str, Analysis],
    argv: Sequence[str] | None = None,
    *,
    folder: Path,
    readme: Path | None = None,
    program: str = "python -m analyses",
) -> int:
    """Run the command line and return its exit status.

    `folder`: where full runs write by default. `readme`: its figure table is kept up to date by full runs there.
    """
    with _any_character(sys.stdout), _any_character(sys.stderr):
        options = parser(program, folder).parse_args(argv)
        try:
            with one_interruption():
                return _main(analyses, options, folder, readme, program)
        except GradlabError as error:
            _say(program, str(error))
            return RESOURCE if isinstance(error, ResourceRefused) else INPUT
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader is gone; so is what is buffered
            return PIPE
        except KeyboardInterrupt:
            return INTERRUPTED
        except Terminated:
            return TERMINATED


class _Console(Console):
    """Rich's console, which leaves a closed pipe to the caller."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@contextmanager
def _any_character(stream: Any) -> Iterator[None]:
    """Escape what the terminal's encoding lacks, instead of failing on it."""
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    before = stream.errors
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors=before)


def _say(program: str, message: str) -> None:
    """One line of error."""
    print(f"{program}: error: {one_line(message)}", file=sys.stderr)


def _main(analyses: Mapping[str, Analysis], given: argparse.Namespace, folder: Path, readme: Path | None, program: str) -> int:
    wrong = _unknown(analyses, given.stems) or _contradiction(given)
    if wrong:
        _say(program, wrong)
        return USAGE
    if given.list:
        for stem, analysis in analyses.items():
            lacking = f"  [needs {', '.join(missing(analysis))}]" if missing(analysis) else ""
            print(f"{stem:18}{analysis.CLAIM}{lacking}")
        sys.stdout.flush()
        return DONE
    options = _options(given, folder)
    _require_style(options.look)
    stems = list(dict.fromkeys(given.stems)) or list(analyses)
    board = Board(program, stems)
    refused: ResourceRefused | None = None
    status = DONE
    try:
        with board.shown():
            run(analyses, stems, options, board)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Terminated:
        status = TERMINATED
    except ResourceRefused as error:
        refused = error
        if not board.outcomes:
            raise
    _print(board, analyses, stems, given.quick)
    if refused is not None:
        raise refused
    if status:
        left = [stem for stem in stems if stem not in {outcome.stem for outcome in board.outcomes}]
        said = f"{program}: interrupted; finished results and tasks are kept in {options.folder}, not done: {', '.join(left)}"
        print(said, file=sys.stderr)
        return status
    if readme is not None and options.folder == folder and not given.quick and options.seed == Options.seed:
        refresh_readme(readme, analyses, folder)
    bad = [outcome for outcome in board.outcomes if outcome.state in ("crashed", "broken", "unreadable")]
    for outcome in bad:
        _say(program, f"{outcome.stem} {outcome.state}: {outcome.detail}")
    if bad and all(outcome.state == "unreadable" for outcome in bad):
        return INPUT
    return PARTIAL if bad else DONE


def _unknown(analyses: Mapping[str, Analysis], stems: Sequence[str]) -> str:
    """What is wrong with the names, if anything is."""
    unknown = [stem for stem in stems if stem not in analyses]
    if not unknown:
        return ""
    near = difflib.get_close_matches(unknown[0], analyses, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(analyses)}"
    return f"unknown analysis {unknown[0][:60]!r}; {hint}"


def _contradiction(given: argparse.Namespace) -> str:
    """What is wrong with the arguments together, if anything is."""
    computing = [name for name in COMPUTING if getattr(given, name) not in (None, False)]
    if given.redraw and computing:
        flag = computing[0].replace("_", "-")
        return f"--{flag} has no meaning beside --redraw, which computes nothing; drop one of the two"
    beside = [name for name in ("jobs", "max_memory") if getattr(given, name) is not None]
    if given.dask is not None and beside:
        flag = beside[0].replace("_", "-")
        return f"--{flag} has no meaning beside --dask, whose workers have their own number and limits; drop one of the two"
    return ""


def _options(given: argparse.Namespace, folder: Path) -> Options:
    seed = Options.seed if given.seed is None else given.seed
    out = given.out or (folder / "quick" if given.quick else folder)
    if given.out is None and seed != Options.seed:  # what is published comes from one seed,
        out = out / f"seed-{seed}"
    look = Look(given.style, given.width, given.format or PAPER, given.mplstyle)
    pictures = out / look.name if given.out is None and look.name else None  # and has one look
    return Options(
        out,
        "quick" if given.quick else "full",
        seed,
        given.redraw,
        given.debug,
        given.jobs or 1,
        given.dask,
        given.force,
        given.keep_going,
        given.task_timeout,
        given.max_memory,
        look,
        pictures,
    )


def _require_style(look: Look) -> None:
    """Error: FormatError, before anything is computed, if a style file cannot be read."""
    if look.mplstyle is None:
        return
    if not look.mplstyle.is_file():
        raise FormatError(f"{look.mplstyle}: no such file; expected a matplotlib style file")
    with look.settings():
        pass


def _print(board: Board, analyses: Mapping[str, Analysis], stems: Sequence[str], quick: bool) -> None:
    """What came out, in the order in which it was asked for."""
    terminal = _Console(highlight=False)
    if quick:
        print("quick: small runs to see that all works; the verdicts are those of the full runs")
    outcomes = sorted(board.outcomes, key=lambda outcome: stems.index(outcome.stem))
    if outcomes:
        print_outcomes(terminal if terminal.is_terminal else _Console(highlight=False, width=120), analyses, outcomes)
    print(board.tasks())
    sys.stdout.flush()
