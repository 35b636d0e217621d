"""The command line over a set of analyses: `python -m analyses`."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gradlab.errors import GradlabError, ResourceRefused
from gradlab.runs.runner import Options, Outcome, missing, run
from gradlab.runs.runner import Report as StartReport
from gradlab.runs.table import one_line, print_outcomes, refresh_readme
from gradlab.runs.verdict import WORDS, Analysis
from gradlab.runs.verdict import Progress as ProgressCall

DONE, USAGE, INPUT, RESOURCE, PARTIAL, INTERRUPTED, TERMINATED, PIPE = 0, 2, 3, 5, 6, 130, 143, 141


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _parser(program: str, default: Path) -> argparse.ArgumentParser:
    words = "\n".join(f"  {word:14}{meaning}" for word, meaning in WORDS.items())
    parser = argparse.ArgumentParser(
        prog=program,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compute every analysis, check its claim, and draw its figure.",
        epilog=f"""examples:
  {program}                         all analyses, the figures of the paper
  {program} --quick                 all of them, small, in a minute or two
  {program} error_surface --seed 7  one of them, with other random numbers
  {program} --redraw                new pictures from stored numbers, nothing computed

verdicts:
{words}

exit status: 0 done, 2 usage, 3 a stored result cannot be read, 5 the folder cannot be written,
6 an analysis crashed or a ground truth fails (the others are kept), 130 or 143 interrupted (what was finished is kept)""",
    )
    parser.add_argument("stems", metavar="STEM", nargs="*", help="analyses to run; all of them if none is named")
    parser.add_argument("--list", action="store_true", help="list the analyses and their claims, and stop")
    parser.add_argument("--quick", action="store_true", help=f"small runs, written to {default.name}/quick and stamped")
    parser.add_argument("--redraw", action="store_true", help="draw again from stored results; computes nothing")
    parser.add_argument("--out", metavar="DIR", type=Path, help=f"folder for the results (default: {default.name})")
    parser.add_argument(
        "--seed", metavar="N", type=_seed, help=f"random seed (default: {Options.seed}); others go to {default.name}/seed-N"
    )
    parser.add_argument("--debug", action="store_true", help="print the traceback of an analysis that crashes")
    return parser


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to 2^63 - 1")
    return int(text)


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
        options = _parser(program, folder).parse_args(argv)
        try:
            return _main(analyses, options, folder, readme, program)
        except GradlabError as error:
            _say(program, str(error))
            return RESOURCE if isinstance(error, ResourceRefused) else INPUT
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader is gone; so is what is buffered
            return PIPE
        except KeyboardInterrupt:
            return INTERRUPTED
        except _Terminated:
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


def _main(analyses: Mapping[str, Analysis], options: argparse.Namespace, folder: Path, readme: Path | None, program: str) -> int:
    unknown = [stem for stem in options.stems if stem not in analyses]
    if unknown:
        near = difflib.get_close_matches(unknown[0], analyses, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(analyses)}"
        _say(program, f"unknown analysis {unknown[0][:60]!r}; {hint}")
        return USAGE
    if options.list:
        for stem, analysis in analyses.items():
            lacking = f"  [needs {', '.join(missing(analysis))}]" if missing(analysis) else ""
            print(f"{stem:18}{analysis.CLAIM}{lacking}")
        sys.stdout.flush()
        return DONE
    if options.redraw and options.seed is not None:
        _say(program, "--seed has no meaning beside --redraw, which computes nothing; drop one of the two")
        return USAGE
    seed = Options.seed if options.seed is None else options.seed
    out = options.out or (folder / "quick" if options.quick else folder)
    if options.out is None and seed != Options.seed:  # what is published comes from one seed
        out = out / f"seed-{seed}"
    settings = Options(out, "quick" if options.quick else "full", seed, options.redraw, options.debug)
    stems = list(dict.fromkeys(options.stems)) or list(analyses)
    outcomes: list[Outcome] = []
    refused: ResourceRefused | None = None
    try:
        status = _run_with_bar(analyses, stems, settings, outcomes)
    except ResourceRefused as error:
        refused, status = error, RESOURCE
        if not outcomes:
            raise
    terminal = _Console(highlight=False)
    if options.quick:
        print("quick: small runs to see that all works; the verdicts are those of the full runs")
    print_outcomes(terminal if terminal.is_terminal else _Console(highlight=False, width=120), analyses, outcomes)
    sys.stdout.flush()
    if refused is not None:
        raise refused
    if status:
        left = [stem for stem in stems if stem not in {outcome.stem for outcome in outcomes}]
        print(f"{program}: interrupted; finished results are kept in {out}, not done: {', '.join(left)}", file=sys.stderr)
        return status
    if readme is not None and out == folder and not options.quick and seed == Options.seed:
        refresh_readme(readme, analyses, folder)
    bad = [outcome for outcome in outcomes if outcome.state in ("crashed", "broken", "unreadable")]
    for outcome in bad:
        _say(program, f"{outcome.stem} {outcome.state}: {outcome.detail}")
    if bad and all(outcome.state == "unreadable" for outcome in bad):
        return INPUT
    return PARTIAL if bad else DONE


def _run_with_bar(analyses: Mapping[str, Analysis], stems: Sequence[str], options: Options, outcomes: list[Outcome]) -> int:
    """Run behind a progress bar on stderr; the exit status if a signal ended the run, else 0."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (SpinnerColumn(), TextColumn("{task.description:18}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    bar = Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)
    try:
        with _termination(), bar:
            rows = {stem: bar.add_task(stem, total=1.0, start=False) for stem in stems}

            def started(stem: str) -> ProgressCall:
                bar.start_task(rows[stem])
                return lambda done, total: bar.update(rows[stem], completed=done / total)

            def finished(outcome: Outcome) -> None:
                outcomes.append(outcome)
                bar.update(rows[outcome.stem], completed=1.0)
                bar.stop_task(rows[outcome.stem])

            report: StartReport = started
            run(analyses, stems, options, report, finished)
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except _Terminated:
        return TERMINATED


@contextmanager
def _termination() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, so that what was finished is told; the handlers come back afterwards."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return
    before = {number: signal.signal(number, terminate) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
