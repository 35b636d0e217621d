"""`gradlab check`: hold a cell's hand-written gradients against exact ones."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gradlab._version import __version__
from gradlab.cli.files import require_writable
from gradlab.cli.target import Usage, add_target, loaded
from gradlab.errors import GradientMismatch

if TYPE_CHECKING:
    from gradlab.checks import CellReport, GradientReport

SCHEMA = 1
"""Of the JSON."""

# As in gradlab.checks, which --help should not wait for.
ORACLES = ("auto", "complex", "richardson")
KINKS = ("interval", "unresolved", "fail")
REASONS = ("kink", "floor", "nonfinite", "nondeterministic", "oracle-disagrees", "ill-conditioned")

LARGEST = 1000
"""Steps, rows, units: an untied check of more fits into no memory."""

EXAMPLE = """
  import numpy as np

  class Leaky:
      def init(self, rng, input_size, hidden_size):
          shapes = {"W": (hidden_size, input_size), "U": (hidden_size, hidden_size), "b": (hidden_size,)}
          return {key: rng.normal(size=shape) for key, shape in shapes.items()}

      def step(self, params, x_t, s_prev, t):  # (B, D), (B, S) -> (B, S)
          a = x_t @ params["W"].T + s_prev @ params["U"].T + params["b"]
          return 0.5 * s_prev + 0.5 * np.tanh(a)
"""

HELP = f"""a cell is any object with init and step; say, in cells.py:
{EXAMPLE}
  gradlab check cells:Leaky

What it has besides is checked too: vjp(params, x_t, s_prev, delta, t) -> (dtheta, dx_t, ds_prev) is the one worth adding
first. The module is looked for in the current folder, then among the installed packages. Names are imported, never
evaluated: for a cell with arguments write a function without any that returns it, and name that.

verdicts, of every entry of every gradient, by step and row:
  PASS        |backward - exact| <= rtol * S, S being the sum of the absolute terms that add up to the exact value
  FAIL        they differ; the report names gradient, gate, step and row, the worst first, and a line that runs it again
  UNRESOLVED  it cannot be decided, for one of these reasons, which --allow can accept:
              {", ".join(REASONS)}

exit status: 0 all PASS (or allowed), 1 any FAIL or UNRESOLVED, 2 usage, 3 the cell cannot be imported or its code raises,
5 a file cannot be written or memory does not suffice, 130 interrupted, 141 the reader of the output is gone"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "check",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="hold a cell's gradients against exact ones",
        description="Hold every derivative of a cell against exact differentiation of its step, and print what differs.",
        epilog=HELP,
    )
    add_target(parser)
    sizes = parser.add_argument_group("what is drawn")
    sizes.add_argument("--seed", metavar="N", type=_seed, help="of weights, inputs and initial states (default: 0)")
    for flag, name, what in (
        ("--steps", "steps", "T, steps (default: 5)"),
        ("--batch", "batch", "B, rows (default: 2)"),
        ("--inputs", "input_size", "D, inputs (default: 2)"),
        ("--hidden", "hidden_size", "H, hidden units (default: 3)"),
        ("--layers", "layers", "of the stack that is checked beside a single layer (default: 2)"),
    ):
        sizes.add_argument(flag, dest=name, metavar="N", type=_count, help=what)
    sizes.add_argument("--replay", metavar="CODE", help="check the numbers of a report's replay line instead")
    how = parser.add_argument_group("how it is judged")
    how.add_argument("--oracle", choices=ORACLES, help="what gives the exact values (default: auto, complex steps if they agree)")
    how.add_argument("--rtol", metavar="R", type=_share, help="of S, see below (default: 1e-9)")
    how.add_argument("--kink", choices=KINKS, help="values between the one-sided derivatives of a kink (default: interval, PASS)")
    how.add_argument("--allow", metavar="REASON", choices=REASONS, action="append", default=[], help="accept UNRESOLVED for it")
    how.add_argument(
        "--no-control", dest="control", action="store_const", const=False, help="do not test the check on altered gradients"
    )
    out = parser.add_argument_group("what is written")
    out.add_argument("--json", metavar="FILE", help="the whole report as JSON; - for standard output, in place of the table")
    out.add_argument("--html", metavar="FILE", help="the report as one page, with a map of gates by steps")
    out.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


DRAWN = ("seed", "steps", "batch", "input_size", "hidden_size", "layers")
JUDGED = ("oracle", "rtol", "kink", "control")
REPLAYED = ("oracle", "kink")
"""What has a meaning beside --replay."""


def run(options: argparse.Namespace) -> int:
    """Check, write, print; 0 if the report passes, else 1."""
    given = {name: value for name in DRAWN + JUDGED if (value := getattr(options, name)) is not None}
    useless = [] if options.replay is None else [name for name in given if name not in REPLAYED]
    if useless:
        flag = _flags({useless[0]: given[useless[0]]}).split()[0]
        raise Usage(f"{flag} has no meaning beside --replay, whose code holds the numbers; drop it")
    if options.json == options.html is not None:
        raise Usage(f"--json and --html name the same file, {options.json}; give each its own")
    for path in (options.json, options.html):
        if path not in (None, "-"):
            require_writable(path)
    report = _report(options, given)
    status = 0 if _accepted(report, options.allow) else 1
    again = f"gradlab check {options.target}{_flags(given)}{'' if options.replay is None else f' --replay {options.replay}'}"
    if options.json is not None:
        about = {"schema": SCHEMA, "gradlab": __version__, "target": options.target, "command": again, "allow": options.allow}
        _write_json(options.json, {**about, "exit_status": status, "report": report.as_json()})
    if options.html is not None:
        from gradlab.report import write_html

        write_html(options.html, [report.as_json()])
    if not options.quiet and options.json != "-":
        from gradlab.report import print_report
        from gradlab.runs.command import _Console

        print_report(_Console(highlight=False), report, None if " --replay " in str(report) else again)
    return status


def _flags(given: Mapping[str, Any]) -> str:
    """Arguments as they are typed, each behind a blank."""
    names = {"input_size": "inputs", "hidden_size": "hidden"}
    typed = (f" --{names.get(name, name)} {value}" if value is not False else " --no-control" for name, value in given.items())
    return "".join(typed)


def _report(options: argparse.Namespace, given: Mapping[str, Any]) -> CellReport | GradientReport:
    from gradlab.checks import check_cell, check_example, example_from
    from gradlab.runs.threads import limited

    with loaded(options.target) as cell, limited(1):  # with more threads sums come in another order, and bits differ
        if options.replay is None:
            report: CellReport | GradientReport = check_cell(cell, **given)
        else:
            report = check_example(example_from(options.replay, cell), **given)
    kept = {name: value for name, value in given.items() if name in REPLAYED}
    named: CellReport | GradientReport = _with_own_replay(report, f"gradlab check {options.target}{_flags(kept)}")
    return named


_REPLAY = re.compile(r'gradlab check \S+ --replay ([\w-]+)|print\(gradlab\.checks\.replay\("([\w-]+)", .*\)\)')


def _with_own_replay(report: Any, command: str) -> Any:
    """The report with replay lines that name the cell as the caller did, and judge as the caller asked."""

    def own(text: str | None) -> str | None:
        return text and _REPLAY.sub(lambda found: f"{command} --replay {found[1] or found[2]}", text)

    if hasattr(report, "gradients"):
        gradients = tuple(replace(one, replay=own(one.replay)) for one in report.gradients)
        return replace(report, gradients=gradients, shrunk=own(report.shrunk))
    return replace(report, replay=own(report.replay))


def _accepted(report: CellReport | GradientReport, allow: Sequence[str]) -> bool:
    try:
        report.raise_for_failure(allow)
    except GradientMismatch:
        return False
    return True


def _write_json(path: str, data: Mapping[str, Any]) -> None:
    from gradlab._files import dump_json, write_bytes

    if path == "-":
        sys.stdout.write(dump_json(data).decode())
    else:
        write_bytes(path, dump_json(data))


def _seed(text: str) -> int:
    return _integer(text, 0, 2**63 - 1)


def _count(text: str) -> int:
    return _integer(text, 1, LARGEST)


def _integer(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an integer from {least} to {most}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number above 0 and below 1")
    return value
