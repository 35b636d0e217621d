"""What a path holds: a model of any format the adapters read, a record, or a training history. Nothing is run or unpickled."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradlab._files import HEADER, MAX_HEADER
from gradlab.adapters.imported import Imported
from gradlab.adapters.weights import load
from gradlab.diagnosis.history import History
from gradlab.errors import FormatError
from gradlab.record import Record
from gradlab.training.monitor import SCHEMA as MONITOR
from gradlab.training.monitor import Monitor

READS = ".onnx, .keras, .weights.h5, .safetensors and .npz (weights, a gradlab record or a monitor's history)"
ENDINGS = {"onnx": (".onnx",), "keras": (".keras",), "h5": (".h5", ".hdf5")}
"""By kind; .npz and .safetensors have their own note where name and content disagree."""
HDF5 = b"\x89HDF\r\n\x1a\n"


def read(path: str | os.PathLike[str], max_memory: int | None = None, **reading: Any) -> Any:
    """What is at `path`, as `diagnose` takes it. `reading`: options of the adapter, e.g. nonlinearity="tanh" for `load`.

    The content decides what it is, not the name; where they disagree the import has a note.
    Errors: FormatError, UnsafeFileError, ResourceRefused naming the file; ValueRangeError where an option is missing.
    """
    kind = kind_of(path)
    if kind in ("gradlab.Record", MONITOR):
        if reading:
            name = next(iter(reading))
            raise FormatError(
                f"{os.fspath(path)!r} is a {'record' if kind != MONITOR else 'history'}; {name}= has no meaning there"
            )
        return Record.load(path, max_memory) if kind != MONITOR else Monitor.load(path)
    if kind == "onnx":
        from gradlab.adapters.onnx_io import from_onnx

        return _noted(path, kind, from_onnx(path, max_memory=max_memory, **reading))
    if kind in ("keras", "h5"):
        from gradlab.adapters.keras_io import from_keras

        return _noted(path, kind, from_keras(path, max_memory=max_memory, **reading))
    return load(path, max_memory=max_memory, **reading)


def history_of(history: Any) -> History | None:
    """A history from a Monitor, the path of its file, or None. Errors: FormatError, DTypeError."""
    if history is None or isinstance(history, History):
        return history
    if isinstance(history, (str, os.PathLike)):
        if not os.path.isfile(history):  # Monitor.load would look beside it
            raise FormatError(f"{os.fspath(history)!r}: no such regular file; expected the .npz of a gradlab.training.Monitor")
        if Path(os.fsdecode(history)).suffix != ".npz":
            raise FormatError(f"{os.fspath(history)!r}: expected the .npz that a gradlab.training.Monitor writes")
        return History.of(Monitor.load(history))
    return History.of(history)


def kind_of(path: str | os.PathLike[str]) -> str:
    """What the content of a file is: "onnx", "keras", "h5", "gradlab.Record", the monitor's schema, or "" for weights.

    Error: FormatError if there is no such regular file.
    """
    if not os.path.isfile(path):
        raise FormatError(f"{os.fspath(path)!r}: no such regular file; expected {READS}")
    try:
        with open(path, "rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise FormatError(f"{os.fspath(path)!r}: cannot be read ({error.strerror}); expected {READS}") from error
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _kind_of_zip(path)
    if start[:8] == HDF5:
        return "h5"
    # A protobuf has no mark of its own: the first field of a model is its version, and no safetensors header is so short.
    is_json = start[8:9] == b"{"
    named = _ending(path)
    if named == "onnx" and not is_json:
        return "onnx"
    if named in ("keras", "h5") and not is_json:
        return named
    return "onnx" if start[:1] == b"\x08" and not is_json and start[1:2] < b"\x20" else ""


def _kind_of_zip(path: str | os.PathLike[str]) -> str:
    """By the names of its members, and by the header alone: no array is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "config.json" in names and any(name.endswith(".h5") for name in names):
                return "keras"
            if HEADER in names and archive.getinfo(HEADER).file_size <= MAX_HEADER:
                header = json.loads(archive.read(HEADER))
                return str(header.get("kind") or header.get("schema") or "") if isinstance(header, dict) else ""
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, RecursionError):
        pass  # the reader of the format says what is wrong
    return "keras" if _ending(path) == "keras" else ""


def _ending(path: str | os.PathLike[str]) -> str:
    own = Path(os.fsdecode(path)).suffix.lower()
    return next((kind for kind, endings in ENDINGS.items() if own in endings), "")


def _noted(path: str | os.PathLike[str], kind: str, found: Sequence[Imported] | Imported) -> Sequence[Imported] | Imported:
    """The import, with a note if the file is not called as what it is."""
    if _ending(path) == kind:
        return found
    what = {"onnx": "an ONNX model", "keras": "a Keras model", "h5": "Keras weights in HDF5"}[kind]
    note = f"the file is called {Path(os.fsdecode(path)).suffix or 'nothing'}, its content is {what}"
    if isinstance(found, Imported):
        return replace(found, notes=(*found.notes, note))
    return [replace(one, notes=(*one.notes, note)) for one in found]
