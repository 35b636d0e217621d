"""What a path holds: a model of any format the adapters read, a record, or a training history. Nothing is run or unpickled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gradlab._files import read_npz
from gradlab.adapters.weights import load
from gradlab.diagnosis.history import History
from gradlab.errors import FormatError, GradlabError
from gradlab.record import Record
from gradlab.training.monitor import SCHEMA as MONITOR
from gradlab.training.monitor import Monitor

READS = ".onnx, .keras, .weights.h5, .safetensors and .npz (weights, a gradlab record or a monitor's history)"


def read(path: str | os.PathLike[str], max_memory: int | None = None, **reading: Any) -> Any:
    """What is at `path`, as `diagnose` takes it. `reading`: options of the adapter, e.g. nonlinearity="tanh" for `load`.

    Errors: FormatError, UnsafeFileError, ResourceRefused naming the file; ValueRangeError where an option is missing.
    """
    ending = "".join(Path(os.fsdecode(path)).suffixes[-2:]).lower()
    if ending.endswith(".onnx"):
        from gradlab.adapters.onnx_io import from_onnx

        return from_onnx(path, max_memory=max_memory, **reading)
    if ending.endswith((".keras", ".h5")):
        from gradlab.adapters.keras_io import from_keras

        return from_keras(path, max_memory=max_memory, **reading)
    if ending.endswith(".npz") and not reading:
        kind = _kind(path, max_memory)
        if kind == "gradlab.Record":
            return Record.load(path, max_memory)
        if kind == MONITOR:
            return Monitor.load(path)
    return load(path, max_memory=max_memory, **reading)


def history_of(history: Any) -> History | None:
    """A history from a Monitor, the path of its file, or None."""
    if history is None or isinstance(history, History):
        return history
    if isinstance(history, (str, os.PathLike)):
        return History.of(Monitor.load(history))
    return History.of(history)


def _kind(path: str | os.PathLike[str], max_memory: int | None) -> str:
    """What the header of gradlab's own .npz says; "" for any other."""
    if not os.path.isfile(path):
        raise FormatError(f"{os.fsdecode(path)!r} is no file; expected {READS}")
    try:
        header, _ = read_npz(path, max_memory)
    except GradlabError:
        return ""
    return str(header.get("kind") or header.get("schema") or "")
