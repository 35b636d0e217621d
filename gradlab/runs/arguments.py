"""The arguments of `python -m analyses`."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from gradlab.runs.look import FORMATS, STYLES
from gradlab.runs.memory import size
from gradlab.runs.runner import Options
from gradlab.runs.verdict import WORDS

COMPUTING = ("seed", "force", "jobs", "dask", "keep_going", "task_timeout", "max_memory")
"""What has no meaning beside --redraw, which computes nothing."""


def parser(program: str, default: Path) -> argparse.ArgumentParser:
    """The parser, whose --help teaches."""
    words = "\n".join(f"  {word:14}{meaning}" for word, meaning in WORDS.items())
    made = argparse.ArgumentParser(
        prog=program,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compute every analysis, check its claim, and draw its figure.",
        epilog=f"""examples:
  {program}                         all analyses, the figures of the paper
  {program} --jobs 2                the same, two tasks at a time; the numbers do not depend on it
  {program} --quick                 all of them, small, in a few minutes
  {program} error_surface --seed 7  one of them, with other random numbers
  {program} --redraw                new pictures from stored numbers, nothing computed
  {program} adding --redraw --mplstyle mine.mplstyle   one figure in a style of your own

what is kept: every finished task lies in .cache in the folder of results from the moment it ends. A run that was killed,
at any moment, goes on where it was; a run with nothing new computes nothing. A task is computed again when its parameters,
its seed or its code change: that is the part of the analysis' file that computes, what it imports beside it, gradlab
(but what draws and prints), and the versions of the libraries. What was damaged on disk is set aside and computed again.
  gradlab cache verify {default.name}    reads all that is stored, and says what is damaged
  gradlab cache clear {default.name}     removes it

a cluster: dask scheduler; dask worker ADDRESS --nthreads 1, in this folder, on each machine; then {program} --dask ADDRESS

other looks (--style, --width, --mplstyle) go to {default.name}/<their name>, beside what is published, or to DIR with --out

verdicts:
{words}

exit status: 0 done, 2 usage, 3 a stored result or a style file cannot be read, 5 the folder cannot be written, memory or
disk do not suffice, another run works there, or no cluster answers, 6 an analysis crashed or a ground truth fails (the
others are kept), 130 or 143 interrupted (what was finished is kept), 141 the reader of the output is gone""",
    )
    made.add_argument("stems", metavar="STEM", nargs="*", help="analyses to run; all of them if none is named")
    made.add_argument("--list", action="store_true", help="list the analyses and their claims, and stop")
    what = made.add_argument_group("what is computed")
    what.add_argument("--quick", action="store_true", help=f"small runs, written to {default.name}/quick and stamped")
    what.add_argument("--redraw", action="store_true", help="draw again from stored results; computes nothing")
    what.add_argument("--out", metavar="DIR", type=Path, help=f"folder for the results (default: {default.name})")
    what.add_argument(
        "--seed", metavar="N", type=_seed, help=f"random seed (default: {Options.seed}); others go to {default.name}/seed-N"
    )
    what.add_argument("--force", action="store_true", help="compute what is stored, too")
    how = made.add_argument_group("how it is computed")
    how.add_argument(
        "--jobs",
        metavar="N",
        type=_jobs,
        help="tasks at a time, each in a process; auto: one for each CPU (default: 1, in this one)",
    )
    how.add_argument("--dask", metavar="ADDRESS", help="tasks on the cluster of this Dask scheduler, such as tcp://host:8786")
    how.add_argument("--keep-going", action="store_true", help="run the other tasks of an analysis that has failed, too")
    how.add_argument("--task-timeout", metavar="S", type=_seconds, help="end a task after S seconds, which then has failed")
    how.add_argument("--max-memory", metavar="SIZE", type=_size, help="such as 4G: what all processes together may allocate")
    how.add_argument("--debug", action="store_true", help="print the traceback of what crashes, and what workers print")
    look = made.add_argument_group("how figures look")
    look.add_argument("--style", choices=STYLES, default="paper", help="slides: bolder lines, PNG 1920 pixels wide")
    look.add_argument("--width", metavar="INCHES", type=_width, help="of every figure, height in proportion; text keeps its size")
    look.add_argument("--format", metavar="F[,F...]", type=_formats, help=f"out of {', '.join(FORMATS)} (default: pdf,png)")
    look.add_argument("--mplstyle", metavar="FILE", type=Path, help="a matplotlib style file of your own, over gradlab's")
    return made


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an integer from 0 to 2^63 - 1")
    return int(text)


def cpus() -> int:
    """Those that this process may use: of its affinity and its control group."""
    import loky

    return int(loky.cpu_count())


def _jobs(text: str) -> int:
    if text == "auto":
        return cpus()
    most = 4 * max(cpus(), os.cpu_count() or 1)
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not auto, nor an integer from 1 to {most}, four for each CPU")
    return int(text)


def _number(text: str, least: float, most: float, what: str) -> float:
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {what} from {least:g} to {most:g}")
    return value


def _seconds(text: str) -> float:
    return _number(text, 0.1, 1e7, "a number of seconds")


def _width(text: str) -> float:
    return _number(text, 1.0, 40.0, "a number of inches")


def _size(text: str) -> int:
    try:
        return size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _formats(text: str) -> tuple[str, ...]:
    given = tuple(dict.fromkeys(text.split(",")))
    if not set(given) <= set(FORMATS):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not made of {', '.join(FORMATS)}, with commas between")
    return given
