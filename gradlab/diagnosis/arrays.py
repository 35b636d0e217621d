"""Inputs, targets and lengths from .npy, .npz and .csv files: sizes are checked first, nothing is run or unpickled."""

from __future__ import annotations

import math
import os
import re
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._files import HEADER, MAX_RANK, _check_directory, _check_end, _read_array
from gradlab._memory import refuse_above
from gradlab.errors import FormatError, GradlabError, UnsafeFileError

Array = npt.NDArray[Any]

NAMES = {"inputs": ("inputs", "x", "data"), "targets": ("targets", "target", "y"), "lengths": ("lengths",)}
"""What an array may be called in a .npz that holds several, by its role."""
MAX_LINE = 2**24
"""Bytes of one line of a .csv."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", flags=re.ASCII)


def is_text(path: str | os.PathLike[str]) -> bool:
    """Whether `read_array` reads the file at `path` as .csv, rows and columns. Error: FormatError if it cannot be opened."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(6)
    except (OSError, ValueError) as error:
        raise FormatError(f"{os.fspath(path)!r}: cannot be read ({error}); expected .npy, .npz or .csv") from error
    return start[:4] not in (b"PK\x03\x04", b"PK\x05\x06") and start != b"\x93NUMPY"


def named_arrays(path: str | os.PathLike[str], max_memory: int | None = None) -> dict[str, Array]:
    """All arrays of a .npz, by name. Errors: as `read_array`."""
    label = repr(os.fspath(path))
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_end(os.fspath(path), path, len(members))
            _check_directory(os.fspath(path), members, max_memory)
            return {
                member.filename.removesuffix(".npy"): _numbers(label, _read_array(os.fspath(path), archive, member))
                for member in members
                if member.filename != HEADER
            }
    except (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, GradlabError):
            raise
        raise FormatError(f"{label}: cannot be read ({error}); expected .npz") from error


def read_array(path: str | os.PathLike[str], role: str, max_memory: int | None = None) -> Array:
    """The array at `path`: of a .npy its own; of a .npz the only one, or the one that is called as its `role` says (NAMES);
    of a .csv (rows, columns), numbers separated by commas, no header.

    The content decides what it is, not the name. Integers stay integers. `max_memory`: bytes that reading may take.
    Errors: FormatError (of a .csv with line and column), UnsafeFileError, ResourceRefused, naming the file; nothing else.
    """
    label = repr(os.fspath(path))
    if not Path(path).is_file():
        raise FormatError(f"{label}: no such regular file; expected .npy, .npz or .csv")
    try:
        with open(path, "rb") as stream:
            start = stream.read(6)
        if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            found = _npz(label, path, role, max_memory)
        elif start == b"\x93NUMPY":
            found = _npy(label, path, max_memory)
        elif start[:2] == b"\x1f\x8b":
            raise FormatError(f"{label}: gzipped; unpack it first")
        elif start[:1] == b"\x80" and Path(path).suffix.lower() not in (".csv", ".txt"):
            raise UnsafeFileError(f"{label}: a pickle, which runs code when it is loaded; gradlab never does; try numpy.save")
        else:
            found = _csv(label, path, max_memory)
    except (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, GradlabError):  # ours are also ValueErrors
            raise
        raise FormatError(f"{label}: cannot be read ({error}); expected .npy, .npz or .csv") from error
    if found.size == 0:
        raise FormatError(f"{label}: shape {found.shape}, no numbers; expected at least one")
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def _npz(label: str, path: str | os.PathLike[str], role: str, max_memory: int | None) -> Array:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.filename.endswith("data.pkl") for member in members):
            raise UnsafeFileError(f"{label}: a pickle, which runs code when it is loaded; gradlab never does; try numpy.savez")
        _check_end(os.fspath(path), path, len(members))
        _check_directory(os.fspath(path), members, max_memory)
        own = {member.filename.removesuffix(".npy"): member for member in members if member.filename != HEADER}
        fitting = [name for name in NAMES[role] if name in own]
        if len(fitting) != 1 and len(own) != 1:
            known = ", ".join(map(repr, list(own)[:8])) or "nothing"
            raise FormatError(f"{label}: holds {known}; expected one array, or {role} under one of the names {NAMES[role]}")
        member = own[fitting[0]] if fitting else next(iter(own.values()))
        found = _read_array(os.fspath(path), archive, member)
        return _numbers(f"{label}, member {member.filename!r}", found)


def _npy(label: str, path: str | os.PathLike[str], max_memory: int | None) -> Array:
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise FormatError(f"{label}: .npy version {version}; expected 1.0 or 2.0")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                shape, fortran, dtype = read(stream)
        except Exception as error:  # NumPy's reader evaluates a literal: it raises whatever the parser raises
            raise FormatError(f"{label}: malformed array header ({error})") from error
        if dtype.hasobject:
            raise UnsafeFileError(f"{label}: holds Python objects, which would have to be unpickled; gradlab never does")
        if dtype.kind not in "iuf":
            raise FormatError(f"{label}: dtype {dtype}; expected real numbers")
        if len(shape) > MAX_RANK or any(isinstance(n, bool) or n < 0 for n in shape):
            raise FormatError(f"{label}: shape {shape}; expected at most {MAX_RANK} axes, none negative")
        needed = math.prod(shape) * dtype.itemsize
        if stream.tell() + needed != size:
            raise FormatError(f"{label}: shape {shape} of {dtype} needs {needed} bytes, the file has {size - stream.tell()}")
        refuse_above(needed, max_memory, f"{label}: reading it", "give a larger --max-memory, or fewer sequences")
        data = stream.read(needed)
        if len(data) != needed:
            raise FormatError(f"{label}: cut short; the file changed while it was read")
    return _numbers(label, np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C").copy())


def _numbers(label: str, found: Array) -> Array:
    if found.dtype.kind not in "iuf" or found.dtype.itemsize > 8:
        raise FormatError(f"{label}: dtype {found.dtype}; expected real numbers of at most 64 bits")
    return found


def _csv(label: str, path: str | os.PathLike[str], max_memory: int | None) -> Array:
    """Rows of numbers; the first thing that is none is named with its line and column, from 1."""
    rows: list[Array] = []
    size = os.path.getsize(path)
    refuse_above(8 * size, max_memory, f"{label}: reading {size} bytes", "give a larger --max-memory, or fewer steps")
    with open(path, "rb") as stream:
        line = 0
        while data := stream.readline(MAX_LINE):
            line += 1
            if line == 1 and data[:3] == b"\xef\xbb\xbf":
                raise _wrong(label, 1, 1, "begins with a byte order mark; save it as UTF-8 without one")
            if len(data) == MAX_LINE and data[-1:] != b"\n":
                raise _wrong(label, line, 1, f"a line of more than {MAX_LINE} bytes; rows are steps, columns features")
            rows.append(_row(label, line, data, len(rows[0]) if rows else None))
    if not rows:
        raise _wrong(label, 1, 1, "the file is empty; expected numbers, one row for each step")
    found = np.stack(rows)
    whole = found.astype(np.int64) if (np.abs(found) < 2**53).all() else found
    return whole if (whole == found).all() and whole.dtype.kind == "i" else found


def _row(label: str, line: int, data: bytes, expected: int | None) -> Array:
    try:
        text = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        column = data[: error.start].count(b",") + 1
        raise _wrong(label, line, column, f"the byte {data[error.start]:#04x} is not UTF-8; expected numbers") from error
    fields = text.split(",")
    values = np.empty(len(fields))
    for k, field in enumerate(map(str.strip, fields)):
        if not _NUMBER.fullmatch(field):
            hint = "expected numbers separated by commas, one row for each step, no header"
            if ";" in field:
                hint = "values are separated by ';'; expected commas"
            elif field.lower().lstrip("+-") in ("nan", "inf", "infinity"):
                hint = "expected finite numbers"
            raise _wrong(label, line, k + 1, f"{field[:40]!r} is no number; {hint}" if field else f"empty; {hint}")
        values[k] = float(field)
        if not math.isfinite(values[k]):
            raise _wrong(label, line, k + 1, f"{field[:40]!r} lies beyond the range of floats; expected finite numbers")
    if expected is not None and len(fields) != expected:
        at = min(len(fields), expected) + 1
        raise _wrong(label, line, at, f"{len(fields)} columns; expected {expected}, as in line 1")
    return values


def _wrong(label: str, line: int, column: int, what: str) -> FormatError:
    return FormatError(f"{label}: line {line}, column {column}: {what}")
