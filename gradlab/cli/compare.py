"""`gradlab compare`: two models or two histories, finding by finding."""

from __future__ import annotations

import argparse

from gradlab.cli import models
from gradlab.cli.diagnose import add_fail_on, fails, progress_bar, require_levels, require_outputs, write_json
from gradlab.cli.options import add_options

HELP = """examples:
  gradlab compare before.safetensors after.safetensors
  gradlab compare a.onnx b.onnx --data batch.npy --layout BTD --json comparison.json
  gradlab compare run1.npz run2.npz --clip-norm 1 --fail-on warning

Both are read with the same options, see gradlab diagnose --help. Findings are matched by code and place; steps, lags and updates
may move. A finding is changed if its severity, its place in time or one of its numbers differs: two intervals that do not meet,
or, where there are none, by more than 1 %.

exit status: 0 done, 1 a finding at or above --fail-on that B has and A has not, or has less gravely; 2 usage, 3 a file is
malformed, unsafe or unsupported, 4 no usable number, 5 memory does not suffice, or a file cannot be written, 130 interrupted,
141 the reader of the output is gone"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "compare",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="compare two models or two histories, finding by finding",
        description="Diagnose two models, records or training histories: which findings are gone, new, changed, the same?",
        epilog=HELP,
    )
    parser.add_argument("before", metavar="A", help="a file, as for gradlab diagnose")
    parser.add_argument("after", metavar="B", help="another one")
    add_options(parser)
    out = parser.add_argument_group("what is written")
    out.add_argument("--json", metavar="FILE", help="schema gradlab-comparison-1; - for standard output, in place of the report")
    out.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_fail_on(out, "findings in B that are new, or graver than in A,")
    parser.add_argument("--debug", action="store_true", help="on an error, show the whole traceback")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Diagnose both, write, print; 1 if --fail-on concerns a finding that is new or graver, else 0."""
    require_levels(options.fail_on)
    require_outputs(options.json)
    from gradlab.diagnosis.compare import compare

    with progress_bar() as progress:
        before = models.diagnosed(options.before, options, progress)
        after = models.diagnosed(options.after, options, progress)
    found = compare(before, after)
    status = int(any(row.worse and fails(row.finding, options.fail_on) for row in found.rows))
    if options.json is not None:
        again = models.typed("compare", [options.before, options.after], options)
        write_json(options.json, {**found.as_json(), "command": again, "fail_on": options.fail_on, "exit_status": status})
    if not options.quiet and options.json != "-":
        from gradlab.report import print_comparison
        from gradlab.runs.command import _Console

        print_comparison(_Console(highlight=False), found)
    return status
