"""The command line `gradlab`: one file for each command, all of them in COMMANDS."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from gradlab._version import __version__
from gradlab.cli import cache, check, compare, diagnose, scaffold
from gradlab.cli.target import Refused, Usage, place_of
from gradlab.errors import GradlabError, NumericalError, ResourceRefused

COMMANDS = (diagnose, compare, check, scaffold, cache)
"""A command has `add(commands)`, which adds its parser and sets `run`, a function from the arguments to the exit status."""

HELP = """commands tell their own story: gradlab diagnose --help

exit status: 0 all is well, 1 a check does not pass, or a finding is at or above --fail-on, 2 usage, 3 what was named cannot be
read, imported or checked, 4 no usable number, 5 a file cannot be written or memory does not suffice, 130 interrupted, 141 the
reader of the output is gone"""

NUMERICAL = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        return _main(argv)
    except KeyboardInterrupt:
        return 130


def _main(argv: Sequence[str] | None) -> int:
    try:
        options = _parser().parse_args(argv)
    except SystemExit as ended:  # argparse has said what there is to say
        return _flushed(int(ended.code or 0))
    from gradlab.runs import command  # it brings rich: nothing that --help should wait for

    with command._any_character(sys.stdout), command._any_character(sys.stderr):
        try:
            status: int = options.run(options)
            return _flushed(status)
        except BrokenPipeError:
            return _flushed(command.PIPE)
        except (Exception, SystemExit) as error:  # the user's own code may raise anything
            if options.debug:
                traceback.print_exc()
            message, status = _told(error)
            command._say("gradlab", message)
            return status


def _told(error: BaseException) -> tuple[str, int]:
    """One line on an error, and the exit status it ends with."""
    from gradlab.runs import command

    if isinstance(error, Usage):
        return str(error), command.USAGE
    if isinstance(error, ResourceRefused):
        return str(error), command.RESOURCE
    if isinstance(error, MemoryError):
        return "memory does not suffice; check smaller sizes: gradients do not depend on them", command.RESOURCE
    if isinstance(error, NumericalError):
        return str(error), NUMERICAL
    if isinstance(error, (Refused, GradlabError)):
        return str(error), command.INPUT
    return f"{place_of(error)}; --debug shows the whole traceback", command.INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradlab",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Shows why a recurrent network does or does not train.",
        epilog=HELP,
    )
    parser.add_argument("--version", action="version", version=f"gradlab {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for one in COMMANDS:
        one.add(commands)
    return parser


def _flushed(status: int) -> int:
    """`status`, once everything has been written; 141 if nobody reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so is what is left in the buffer
        return 141
    return status
