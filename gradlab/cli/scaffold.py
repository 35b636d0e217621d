"""`gradlab scaffold`: a ready test file for a cell."""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
from functools import reduce
from pathlib import Path
from string import Template

from gradlab.cli.files import require_writable
from gradlab.cli.target import Usage, add_target, is_itself, loaded, parsed

HELP = """The file has the whole contract, the edges that random numbers seldom hit, and a property over random networks; each
says what it is for. It runs as it is (pip install 'gradlab[test]'), and is yours to change.

  gradlab scaffold cells:Leaky > test_leaky.py
  pytest test_leaky.py

exit status: 0 written, 2 usage, or the file exists, 3 the cell cannot be imported, 5 the file cannot be written,
130 interrupted, 141 the reader of the output is gone"""

FILE = Template('''\
"""Gradient checks of $target for pytest.

Begun by `gradlab scaffold`. What fails is named by gradient, gate, step and row, and
comes with a line that runs it again. If the cell cannot be imported, run
`python -m pytest` in the folder that holds it.
"""

import dataclasses

$imports

CELL = $expression
PLAIN = gradlab.checks.random_example(CELL)
TWICE_THE_SAME_ROW = np.repeat(PLAIN.x[:, :1], 2, axis=1)
BIASES = {k: np.copysign(40.0, v) for k, v in PLAIN.params.items() if v.ndim == 1}
EDGES = {
    "one step": gradlab.checks.random_example(CELL, T=1),
    "one hidden unit": gradlab.checks.random_example(CELL, H=1),
    # Where a ReLU has its kink.
    "all weights zero": gradlab.checks.random_example(CELL, scale=0.0),
    "repeated rows": dataclasses.replace(PLAIN, x=TWICE_THE_SAME_ROW),
    "saturated": dataclasses.replace(PLAIN, params=PLAIN.params | BIASES),
}


def test_the_whole_contract_holds(gradcheck):
    """Gradients by step and row, Jacobians, causality, chunks, rows of unequal length.

    What the backward pass returns is also altered on purpose, and must be rejected.
    """
    gradcheck(CELL)


# A saturated slope such as 1 - tanh(40)**2 has lost its digits: UNRESOLVED (floor).
# Take `floor` away where slopes are computed so that they keep them.
@pytest.mark.gradcheck(allow={"floor"})
@pytest.mark.parametrize("edge", EDGES)
def test_gradients_are_right_at_the_edge(gradcheck, edge):
    """Cases that random numbers seldom hit, where a backward pass goes wrong first."""
    gradcheck(EDGES[edge])


@pytest.mark.gradcheck(allow={"floor"})
@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(example=gradlab.checks.strategies.examples(CELL))
def test_gradients_are_right_in_any_network(gradcheck, example):
    """Deep or not, both directions, ragged, weights from zero to huge.

    What fails is shrunk to the fewest steps, and printed.
    """
    gradcheck(example)
''')


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "scaffold",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="write a ready pytest file for a cell",
        description="Write a pytest file that checks the gradients of a cell.",
        epilog=HELP,
    )
    add_target(parser)
    parser.add_argument("--output", metavar="FILE", help="where to write it (default: standard output)")
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the file; 0."""
    if options.force and options.output is None:
        raise Usage("--force has no meaning without --output; drop it")
    if options.output is not None and os.path.lexists(options.output) and not options.force:
        raise Usage(f"{options.output} exists and is left as it is; give --force to overwrite it, or another --output")
    module, name = parsed(options.target)
    with loaded(options.target):
        found = reduce(getattr, name.split("."), sys.modules[module])
        text = written(module, name if is_itself(found) else f"{name}()", options.target)
    if options.output is None:
        sys.stdout.write(text)
    else:
        from gradlab._files import write_bytes

        write_bytes(require_writable(options.output), text.encode())
    return 0


def written(module: str, call: str, target: str) -> str:
    """The test file for what `call` makes of `module`, which has been imported; one's own modules come last, as linters want."""
    from_elsewhere = {"import gradlab", "import hypothesis", "import numpy as np", "import pytest"}
    own = _is_of(module, Path.cwd())
    imports = "\n".join(sorted(from_elsewhere | (set() if own else {f"import {module}"})))
    imports += f"\n\nimport {module}" if own else ""
    return FILE.substitute(target=target, module=module, imports=imports, expression=f"{module}.{call}")


def _is_of(module: str, folder: Path) -> bool:
    """Whether a module belongs to the project in `folder`, and is not merely installed there."""
    file = getattr(sys.modules[module], "__file__", None)
    if file is None:
        return False
    installed = any(Path(file).is_relative_to(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib"))
    return Path(file).is_relative_to(folder) and not installed
