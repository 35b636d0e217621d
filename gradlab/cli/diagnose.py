"""`gradlab diagnose`: why a recurrent model does or does not train, with place, number and remedy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gradlab.cli import models
from gradlab.cli.files import require_writable
from gradlab.cli.options import SEVERITIES, add_options
from gradlab.cli.target import Usage

if TYPE_CHECKING:
    from gradlab.diagnosis import Diagnosis

HELP = """examples:
  gradlab diagnose --demo exploding --html report.html      no file needed; --demo list names all of them
  gradlab diagnose model.safetensors                        noise is read, and a unit gradient enters at the last step
  gradlab diagnose model.onnx --data batch.npy --layout BTD
  gradlab diagnose model.keras --layer lstm_1 --data x.npz --layout BTD --target y.npy --loss cross_entropy
  gradlab diagnose rnn.npz --nonlinearity tanh --dependency 80 --learning-rate 0.01
  gradlab diagnose model.npz --history run.npz --clip-norm 1 --json - --fail-on warning
  gradlab diagnose record.npz                               what gradlab.bptt or gradlab.adapters.watch recorded
  gradlab diagnose run.npz --clip-norm 1                    a training history by itself

MODEL is .onnx, .keras, .weights.h5, .safetensors, .npz (weights, a gradlab record, or a monitor's history). No file is run or
unpickled: .pt and .pth are refused with the two lines that convert them.

severities: info, worth knowing; warning, training will suffer; error, it cannot learn like this

exit status: 0 done, whatever was found; 1 a finding at or above --fail-on; 2 usage; 3 a file is malformed, unsafe or
unsupported; 4 no usable number; 5 memory does not suffice, or a file cannot be written; 130 interrupted, 141 the reader of the
output is gone"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "diagnose",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="say why a recurrent model does or does not train",
        description="Look at a recurrent model, a record or a training history: where do gradients vanish or explode, which\n"
        "gates are saturated, what does clipping do; with place, number and what to try.",
        epilog=HELP,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a file, see below")
    parser.add_argument("--demo", metavar="NAME", help="a network made to show one finding, in place of MODEL; list: all names")
    add_options(parser)
    out = parser.add_argument_group("what is written")
    out.add_argument("--html", metavar="FILE", help="one page with figures, which loads nothing from elsewhere")
    out.add_argument("--json", metavar="FILE", help="schema gradlab-diagnosis-1; - for standard output, in place of the report")
    out.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_fail_on(out, "findings")
    parser.add_argument("--debug", action="store_true", help="on an error, show the whole traceback")
    parser.set_defaults(run=run)


def add_fail_on(group: Any, what: str) -> None:
    """The option that makes findings an exit status."""
    group.add_argument(
        "--fail-on",
        metavar="LEVEL",
        action="append",
        default=[],
        help=f"exit 1 for {what} of this severity or a graver one (info, warning, error), or with this code; may be repeated",
    )


def run(options: argparse.Namespace) -> int:
    """Diagnose, write, print; 1 if a finding is at or above --fail-on, else 0."""
    if options.demo == "list" and options.model is None:
        return _list()
    if (options.model is None) == (options.demo is None):
        raise Usage("give MODEL or --demo NAME, one of the two; --demo list names the demos")
    require_levels(options.fail_on)
    require_outputs(options.json, options.html)
    with progress_bar() as progress:
        found = models.diagnosed(options.model, options, progress) if options.model is not None else _demo(options, progress)
    status = int(any(fails(one, options.fail_on) for one in found.findings))
    paths = [options.model] if options.model is not None else ["--demo", options.demo]
    again = models.typed("diagnose", paths, options)
    if options.json is not None:
        write_json(options.json, {**found.as_json(), "command": again, "fail_on": options.fail_on, "exit_status": status})
    if options.html is not None:
        from gradlab.report import write_diagnosis

        write_diagnosis(options.html, found, again)
    if not options.quiet and options.json != "-":
        from gradlab.report import print_diagnosis
        from gradlab.runs.command import _Console

        print_diagnosis(_Console(highlight=False), found)
    return status


def _list() -> int:
    from gradlab.diagnosis.demos import DEMOS

    for name, demo in DEMOS.items():
        print(f"{name:18}{demo.what}")
    return 0


def _demo(options: argparse.Namespace, progress: Callable[[int, int], None] | None) -> Diagnosis:
    """A demo, with nothing else to read."""
    import difflib

    from gradlab.diagnosis.demos import DEMOS
    from gradlab.diagnosis.diagnose import diagnose
    from gradlab.runs.threads import limited

    if options.demo not in DEMOS:
        near = difflib.get_close_matches(options.demo, DEMOS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(DEMOS)}"
        raise Usage(f"--demo {options.demo[:60]!r} is not there; {hint}")
    beside = ("data", "layout", "lengths", "target", "loss", "history", *models.READING)
    useless = [name for name in beside if getattr(options, name) is not None]
    if useless:
        raise Usage(f"--{useless[0]} has no meaning beside --demo, which brings its own; drop it")
    given = dict(DEMOS[options.demo].arguments())
    told = ("learning_rate", "clip_norm", "clip_value", "dependency", "truncation")
    given |= {name: getattr(options, name) for name in told if getattr(options, name) is not None}
    with limited(1):
        found = diagnose(given.pop("subject"), **given, seed=options.seed, max_memory=options.max_memory, progress=progress)
    return models.in_flags(found)


def require_levels(levels: Sequence[str]) -> None:
    """Error: Usage for a level that is neither a severity nor a code."""
    if any(level not in SEVERITIES for level in levels):
        from gradlab.diagnosis import CATALOGUE

        for level in levels:
            if level not in (*SEVERITIES, *CATALOGUE):
                known = ", ".join((*SEVERITIES, *CATALOGUE))
                raise Usage(f"--fail-on {level[:60]!r}; expected one of {known}")


def require_outputs(*paths: str | None) -> None:
    """Errors: Usage if two outputs are one file, ResourceRefused where none can be written; before anything is computed."""
    given = [path for path in paths if path not in (None, "-")]
    if len(set(given)) < len(given):
        raise Usage(f"two outputs name the same file, {given[0]}; give each its own")
    for path in given:
        require_writable(str(path))


def fails(one: Any, levels: Sequence[str]) -> bool:
    """Whether a finding is at or above one of `levels`, or has it as its code."""
    rank = SEVERITIES.index(one.severity)
    return any(one.code == level or (level in SEVERITIES and rank >= SEVERITIES.index(level)) for level in levels)


def write_json(path: str, data: Mapping[str, Any]) -> None:
    """To a file, whole or not at all, or to standard output."""
    from gradlab._files import dump_json, write_bytes

    text = dump_json(_encodable(data))
    if path == "-":
        sys.stdout.write(text.decode())
    else:
        write_bytes(path, text)


def _encodable(value: Any) -> Any:
    """Plain values whose texts UTF-8 has: file names may hold any byte."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(one) for key, one in value.items()}
    return [_encodable(one) for one in value] if isinstance(value, (list, tuple)) else value


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error while the rules run, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield None
        return
    with Progress(TextColumn("looking"), BarColumn(), TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("rules", total=1.0)
        yield lambda done, total: bar.update(task, completed=done / total)
