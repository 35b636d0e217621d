"""Reads the variables of an HDF5 file of Keras, as a program of its own: python -P keras_io_h5.py < file > variables.

The HDF5 library is not made for hostile files: among a few thousand mutated ones, some made it allocate gigabytes or loop
for ever. A process with limits of its own turns that into an error. Output: 8 bytes length, a JSON header, the arrays.
"""

from __future__ import annotations

import importlib
import io
import json
import math
import resource
import sys
from typing import Any

MAX_MEMBERS, MAX_DEPTH, MAX_AXES = 20_000, 32, 2
SPARE = 64 * 2**20
"""Bytes beyond the file itself and its copies that reading may take."""
SECONDS = 2
"""Of processor time; more for large files."""


class Refused(Exception):
    """The file breaks a rule; `unsafe`: it would make the library open another file."""

    def __init__(self, message: str, unsafe: bool = False) -> None:
        super().__init__(message)
        self.unsafe = unsafe


def limit(size: int) -> None:
    """Bound memory and time of this process, beside what it has already."""
    with open("/proc/self/statm") as stream:
        pages = int(stream.read().split()[0])
    memory = pages * resource.getpagesize() + SPARE + 4 * size
    bounds = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, SECONDS + size // 10**8))
    for what, bound in bounds:
        most = resource.getrlimit(what)[1]
        resource.setrlimit(what, (bound if most == resource.RLIM_INFINITY else min(bound, most), most))


def collect(h5py: Any, data: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """Names of layers by group, and the datasets of cells by path; plain ones behind hard links."""
    names, datasets = {}, {}
    with h5py.File(io.BytesIO(data), "r") as file:
        waiting, seen = [("", file, 0)], 0
        while waiting:
            path, group, depth = waiting.pop()
            if path.split("/")[-1] == "vars" and "name" in group.attrs:
                names[path] = str(group.attrs["name"])[:1024]
            for key in group:
                seen += 1
                if seen > MAX_MEMBERS or depth > MAX_DEPTH:
                    raise Refused(f"more than {MAX_MEMBERS} members, or nested more than {MAX_DEPTH} deep")
                here = f"{path}/{key}".lstrip("/")
                if type(group.get(key, getlink=True)) is not h5py.HardLink:
                    raise Refused(f"{here!r} is a link to elsewhere, which gradlab does not follow", unsafe=True)
                below = group[key]
                if isinstance(below, h5py.Group):
                    waiting.append((here, below, depth + 1))
                elif {"cell", "cells"} & set(here.split("/")):
                    datasets[here] = array(here, below, len(data))
    return names, datasets


def array(path: str, data: Any, size: int) -> Any:
    """The numbers of one dataset, little-endian."""
    if data.is_virtual or data.external:
        raise Refused(f"the numbers of {path!r} are in another file, which gradlab never opens", unsafe=True)
    if data.dtype.kind != "f" or data.dtype.itemsize not in (2, 4, 8):
        raise Refused(f"{path!r} has dtype {data.dtype}; expected float16, float32 or float64")
    if data.id.get_create_plist().get_nfilters():
        raise Refused(f"{path!r} is compressed or filtered, which Keras does not do", unsafe=True)
    if data.shape is None or len(data.shape) > MAX_AXES or math.prod(data.shape) * data.dtype.itemsize > size:
        raise Refused(f"{path!r} has shape {data.shape}, too large for a file of {size} bytes or for a weight")
    return data[()].astype(data.dtype.newbyteorder("<"))


def main() -> None:
    """Read from stdin, write to stdout; what goes wrong goes into the header."""
    h5py = importlib.import_module("h5py")  # with its libraries, before memory is limited
    data = sys.stdin.buffer.read()
    limit(len(data))
    header: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    try:
        header["names"], arrays = collect(h5py, data)
        header["arrays"] = {path: [value.dtype.str, list(value.shape)] for path, value in arrays.items()}
    except Refused as error:
        header = {"refused": str(error), "unsafe": error.unsafe}
    except (Exception, MemoryError) as error:
        header = {"refused": f"its HDF5 is damaged ({error})"[:500], "unsafe": False}
    text = json.dumps(header).encode()
    out = sys.stdout.buffer
    out.write(len(text).to_bytes(8, "little") + text)
    if "arrays" in header:
        for value in arrays.values():
            out.write(value.tobytes())
    out.flush()


if __name__ == "__main__":
    main()
