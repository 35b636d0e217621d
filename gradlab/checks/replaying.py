"""An example as one line of text, to paste into another session."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.cells.completed import Completed
from gradlab.checks.example import Example
from gradlab.errors import FormatError, GradlabError
from gradlab.network import Network

Array = npt.NDArray[Any]

VERSION = "1"
LONGEST = 6000
"""Characters of a code that a line of a report may have; a longer one is left out."""
LARGEST = 10_000_000
"""Bytes that a code may unpack to."""


def code_of(example: Example) -> str:
    """The numbers of an example as printable text: sizes and arrays, no code and no cell."""
    net = example.net
    arrays = {"x": example.x, "cotangent": example.cotangent}
    arrays |= {f"params/{key}": value for key, value in example.params.items()}
    arrays |= {f"initial/{key}": value for key, value in example.initial.items()}
    if example.lengths is not None:
        arrays["lengths"] = np.asarray(example.lengths, float)
    names = ("input_size", "hidden_size", "output_size", "num_layers", "bidirectional", "readout")
    header = {
        "network": {name: getattr(net, name) for name in names},
        "rtol": example.rtol,
        "arrays": [[key, list(np.shape(value))] for key, value in arrays.items()],
    }
    body = b"".join(np.ascontiguousarray(value, "<f8").tobytes() for value in arrays.values())
    packed = zlib.compress(json.dumps(header, separators=(",", ":")).encode() + b"\n" + body, 9)
    return VERSION + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def example_from(code: str, cell: Any) -> Example:
    """The example that `code_of` wrote, over `cell`. Error: FormatError for a code that is damaged or of another version."""
    if not isinstance(code, str) or not code.startswith(VERSION):
        raise FormatError(f"code is {code!r:.40}; expected the text of a report's replay line, which starts with {VERSION}")
    text = code[len(VERSION) :].strip()
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        unpack = zlib.decompressobj()
        raw = unpack.decompress(packed, LARGEST)
        if not unpack.eof:
            raise ValueError("it is cut short, or too large")
        head, _, body = raw.partition(b"\n")
        header = json.loads(head)
        arrays, start = {}, 0
        for key, shape in header["arrays"]:
            stop = start + 8 * int(np.prod(shape, dtype=int))
            arrays[key] = np.frombuffer(body[start:stop], "<f8").reshape(shape).copy()
            start = stop
        if start != len(body):
            raise ValueError("its sizes do not add up")
        net = Network(cell, **header["network"])
        picked = {kind: _under(arrays, f"{kind}/") for kind in ("params", "initial")}
        lengths = arrays["lengths"].astype(int) if "lengths" in arrays else None
        return Example(net, picked["params"], arrays["x"], picked["initial"], arrays["cotangent"], lengths, float(header["rtol"]))
    except (binascii.Error, zlib.error, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        if isinstance(error, GradlabError):
            raise FormatError(f"code does not fit {cell!r}: {error}") from error
        raise FormatError(f"code cannot be read ({error}); paste the whole replay line of a report") from error


def _under(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def reproducer(example: Example) -> str:
    """A line that checks this example again: for the shell if the cell can be made from its import path, else Python."""
    cell = example.net.cell
    if isinstance(cell, tuple):
        return "gradlab.checks.replay(CODE, [cells]) with CODE = gradlab.checks.code_of(example)"
    user = cell.user_cell if isinstance(cell, Completed) else cell
    code = code_of(example)
    if len(code) > LONGEST:
        return f"the numbers are too many for a line ({len(code)} characters): gradlab.checks.code_of(example) has them"
    kind = type(user)
    importable = "<" not in kind.__qualname__ and kind.__module__ not in ("__main__", "builtins") and not vars(user)
    if importable:
        return f"gradlab check {kind.__module__}:{kind.__qualname__} --replay {code}"
    return f'print(gradlab.checks.replay("{code}", {user!r}))'
