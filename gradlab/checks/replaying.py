"""An example as one line of text, to paste into another session."""

from __future__ import annotations

import base64
import json
import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.cells.completed import Completed
from gradlab.checks.doubts import KINKS, Kinks
from gradlab.checks.example import Example
from gradlab.checks.oracle import CHOICES, Choice
from gradlab.errors import FormatError, GradlabError, ShapeError
from gradlab.network import Network

Array = npt.NDArray[Any]

VERSION = "1"
LONGEST = 6000
"""Characters of a code that a line of a report may have; a longer one is left out."""
LARGEST = 10_000_000
"""Bytes that a code may unpack to."""
LARGEST_SIZE = 1000
"""Inputs, hidden units and layers of a network in a code."""


def code_of(example: Example, oracle: Choice = "auto", kink: Kinks = "interval") -> str:
    """The numbers of an example, and how it was checked, as printable text: no code and no cell."""
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
        "options": [oracle, kink],
        "arrays": [[key, list(np.shape(value))] for key, value in arrays.items()],
    }
    body = b"".join(np.ascontiguousarray(value, "<f8").tobytes() for value in arrays.values())
    packed = zlib.compress(json.dumps(header, separators=(",", ":")).encode() + b"\n" + body, 9)
    return VERSION + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def example_from(code: str, cell: Any) -> Example:
    """The example that `code_of` wrote, over `cell`. Error: FormatError for a code that is damaged or of another version."""
    return unpacked(code, cell)[0]


def unpacked(code: str, cell: Any) -> tuple[Example, Choice, Kinks]:
    """As `example_from`, with the oracle and the policy for kinks that were asked for."""
    if not isinstance(code, str) or not code.startswith(VERSION):
        raise FormatError(f"code is {code!r:.40}; expected the text of a report's replay line, which starts with {VERSION}")
    text = code[len(VERSION) :].strip()
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        unpack = zlib.decompressobj()
        raw = unpack.decompress(packed, LARGEST)
        if not unpack.eof or unpack.unused_data:
            raise ValueError("it is cut short, too large, or goes on behind its end")
        head, _, body = raw.partition(b"\n")
        if len(head) > LONGEST * 10:
            raise ValueError("its header is too long")
        header = json.loads(head)
        arrays, start = {}, 0
        for key, shape in header["arrays"]:
            if not isinstance(key, str) or not all(isinstance(n, int) and 0 <= n <= LARGEST for n in shape):
                raise ValueError(f"it names an array {key!r} of shape {shape}")
            stop = start + 8 * math.prod(shape)
            arrays[key] = np.frombuffer(body[start:stop], "<f8").reshape(shape).copy()
            start = stop
        if start != len(body):
            raise ValueError("its sizes do not add up")
        example = _built(cell, header, arrays)
        oracle, kink = header["options"]
        if oracle not in CHOICES or kink not in KINKS:
            raise ValueError(f"it asks for {oracle!r} and {kink!r}")
        return example, oracle, kink
    except GradlabError as error:
        raise FormatError(f"code does not fit {cell!r}: {error}") from error
    except (zlib.error, ValueError, LookupError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise FormatError(f"code cannot be read ({error}); paste the whole replay line of a report") from error


def _built(cell: Any, header: dict[str, Any], arrays: dict[str, Array]) -> Example:
    """The example, once its sizes are no larger than its numbers, and its parameters those of the cell."""
    sizes = header["network"]
    if any(sizes[name] > LARGEST_SIZE for name in ("input_size", "hidden_size", "num_layers")):
        raise ValueError("its network is larger than any that a report has printed")
    net = Network(cell, **sizes)
    params, initial = (_under(arrays, f"{kind}/") for kind in ("params", "initial"))
    found = {key: value.shape for key, value in params.items()}
    if found != dict(net.shapes):
        raise ShapeError(f"it has parameters {found}; expected {dict(net.shapes)}")
    rtol = float(header["rtol"])
    if not 0.0 <= rtol < math.inf:
        raise ValueError(f"its rtol is {rtol}")
    lengths = arrays.get("lengths")
    if lengths is not None and not (np.isfinite(lengths).all() and (lengths == np.round(lengths)).all()):
        raise ValueError("its lengths are no whole numbers")
    whole = None if lengths is None else lengths.astype(int)
    return Example(net, params, arrays["x"], initial, arrays["cotangent"], whole, rtol)


def _under(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def reproducer(example: Example, oracle: Choice = "auto", kink: Kinks = "interval") -> str:
    """A line that checks this example again: for the shell if the cell can be made from its import path, else Python."""
    cell = example.net.cell
    code = code_of(example, oracle, kink)
    if len(code) > LONGEST:
        return f"the numbers are too many for a line ({len(code)} characters): gradlab.checks.code_of(example) has them"
    if isinstance(cell, tuple):
        return f'print(gradlab.checks.replay("{code}", [...]))  # the cells of the stack'
    user = cell.user_cell if isinstance(cell, Completed) else cell
    kind, text = type(user), repr(user)
    if "<" not in kind.__qualname__ and kind.__module__ not in ("__main__", "builtins") and not vars(user):
        return f"gradlab check {kind.__module__}:{kind.__qualname__} --replay {code}"
    shown = text if "<" not in text and "\n" not in text else "cell"
    return f'print(gradlab.checks.replay("{code}", {shown}))'
