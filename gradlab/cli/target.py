"""`package.module:Cell` on the command line: imported and made, never evaluated."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

PACKAGE = str(Path(__file__).parent.parent) + os.sep


class Usage(Exception):
    """The command line itself is wrong."""


class Refused(Exception):
    """What it names cannot be imported or made."""


def add_target(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command about a cell."""
    parser.add_argument("target", metavar="package.module:Cell", help="a class, a cell, or a function that returns one")
    parser.add_argument("--debug", action="store_true", help="on an error, show the whole traceback")


@contextlib.contextmanager
def loaded(text: str) -> Iterator[Any]:
    """The cell that `text` names; inside, the user's own code can import from the current folder, as with `python -m`.

    What that code prints goes to standard error, and no byte code is written. Errors: Usage for a malformed name or for what
    is no cell, Refused for what cannot be imported or made.
    """
    from gradlab.cells.completed import as_cell  # before the current folder is looked into: it may hold a random.py
    from gradlab.errors import DTypeError

    module, name = parsed(text)
    path, byte_code = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, "")
    sys.dont_write_bytecode = True
    try:
        with contextlib.redirect_stdout(sys.stderr):
            cell = _made(_attribute(_imported(module), module, name), module, name)
            try:
                as_cell(cell)
            except DTypeError as error:
                raise Usage(f"{text} is no cell: {error}") from error
            yield cell
    finally:
        sys.path[:] = path
        sys.dont_write_bytecode = byte_code


def parsed(text: str) -> tuple[str, str]:
    """Module and name of `package.module:name`. Error: Usage, with what was probably meant."""
    module, colon, name = text.partition(":")
    given, wanted = f"{text[:80]!r}", "expected package.module:Cell"
    if "(" in text:
        raise Usage(
            f"{given}: arguments are never evaluated; write a function without arguments that returns the cell, def make(): "
            f"return {(name or module)[:80]}, and name that: {module[:80] if colon else 'package.module'}:make"
        )
    if "/" in module or module.endswith(".py"):
        raise Usage(f"{given} names a file; {wanted}, from the folder that holds the package")
    if not colon and "." in text:
        before, _, last = text.rpartition(".")
        raise Usage(f"{given} has no colon; {wanted}; did you mean {before[:80]}:{last[:80]}?")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise Usage(f"{given} names nothing; {wanted}")
    return module, name


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        # One that is missing is the one asked for, or a package around it; or one that it imports itself.
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            raise Refused(
                f"cannot import {module}: no module named {error.name} in the current folder or among the installed packages; "
                f"run in the folder that holds {error.name.partition('.')[0]}, or install it"
            ) from error
        raise Refused(f"cannot import {module}: {place_of(error)}; mend that first") from error


def _attribute(found: Any, module: str, name: str) -> Any:
    try:
        return reduce(getattr, name.split("."), found)
    except AttributeError as error:
        near = difflib.get_close_matches(name, dir(found), n=1)
        where = getattr(found, "__file__", None) or "built in"
        hint = f"; did you mean {module}:{near[0]}?" if near else "; expected a class, a cell, or a function that returns one"
        raise Refused(f"{module} ({where}) has no attribute {name}{hint}") from error


def is_itself(found: Any) -> bool:
    """Whether a name stands for a cell, and not for a class or a function that makes one."""
    return not isinstance(found, type) and callable(getattr(found, "init", None)) and callable(getattr(found, "step", None))


def _made(found: Any, module: str, name: str) -> Any:
    if is_itself(found):
        return found
    if not callable(found):
        kind = type(found).__name__
        raise Usage(f"{module}:{name} is a {kind}; expected a class, a cell with init and step, or a function that returns one")
    try:
        return found()
    except (Exception, SystemExit) as error:
        raise Refused(
            f"{module}:{name} cannot be made: {place_of(error)}; if it needs arguments, write a function without any, "
            f"def make(): return {name}(...), and name that: {module}:make"
        ) from error


def place_of(error: BaseException) -> str:
    """`file:line: Type: message` of what the user's own code raised; the deepest of its lines, not of a library's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}: {type(error).__name__}: {error.msg}"
    told = traceback.format_exception_only(error)[0].strip()
    lines = [line for line in traceback.extract_tb(error.__traceback__) if not _ours(line.filename)]
    own = [line for line in lines if not line.filename.startswith(_libraries())]
    line = own[-1] if own else lines[0] if lines else None
    return told if line is None else f"{_short(line.filename)}:{line.lineno}: {told}"


def _ours(filename: str) -> bool:
    return filename.startswith(("<frozen ", PACKAGE))


def _libraries() -> tuple[str, ...]:
    return tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _short(filename: str) -> str:
    """A path from the current folder, if it lies below that."""
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return filename
