"""Keras files, read with zipfile, json and h5py: `.keras`, and `.weights.h5` beside a model's JSON."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._files import LARGE, MAX_HEADER, MAX_INFLATE, MAX_MEMBERS
from gradlab._memory import refuse_above
from gradlab.adapters import keras_io_h5
from gradlab.adapters._library import load_library
from gradlab.errors import DTypeError, FormatError, ResourceRefused, UnsafeFileError

Array = npt.NDArray[Any]

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
TIMEOUT = 120
"""Seconds on the clock for the process that reads HDF5; it bounds its processor time itself."""


def open_keras(path: str | os.PathLike[str], config: Any, max_memory: int | None) -> tuple[Any, Weights]:
    """The model's config and its weights. `config`: where the file itself has none.

    Errors: FormatError, UnsafeFileError, ResourceRefused, MissingLibrary, DTypeError.
    """
    name = repr(os.fspath(path))
    if not Path(path).is_file():
        raise FormatError(f"{name}: no such regular file; expected .keras or .weights.h5")
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as stream:
            start = stream.read(8)
            stream.seek(0)
            if start == b"\x89HDF\r\n\x1a\n":
                refuse_above(6 * size, max_memory, f"{name}: reading {size} bytes", "give a larger max_memory")
                data = stream.read(size)
                own = _given_config(name, config)
            elif start[:4] == b"PK\x03\x04":
                own, data = _unzipped(name, stream, max_memory)
                own = own if config is None else _given_config(name, config)
            else:
                raise FormatError(f"{name}: neither a .keras archive nor HDF5; expected what model.save of Keras 3 writes")
    except (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(f"{name}: cannot be read ({error}); expected what model.save of Keras 3 writes") from error
    except RecursionError as error:
        raise FormatError(f"{name}: its JSON is nested too deeply") from error
    return own, Weights(name, data)


def _given_config(name: str, config: Any) -> Any:
    if config is None:
        raise FormatError(
            f"{name}: holds weights alone, not which layers they are; give config=: the JSON of model.to_json(), "
            "or save the whole model: model.save('model.keras')"
        )
    if isinstance(config, Mapping):
        return config
    if not isinstance(config, (str, os.PathLike)):
        raise DTypeError(f"config is a {type(config).__name__}; expected a dict, JSON text or the path of a .json file")
    if isinstance(config, os.PathLike) or str(config).endswith(".json"):
        if not Path(config).is_file() or os.path.getsize(config) > MAX_HEADER:
            raise FormatError(f"{os.fspath(config)!r}: no regular file of at most {MAX_HEADER} bytes; expected a model's JSON")
        config = Path(config).read_text("utf-8")
    return _json(name, str(config))


def _json(name: str, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name}: its config is not JSON ({error}); expected that of model.to_json()") from error


def _unzipped(name: str, stream: Any, max_memory: int | None) -> tuple[Any, bytes]:
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(members) > MAX_MEMBERS or len(set(names)) != len(names):
            raise FormatError(f"{name}: {len(members)} members, or one name twice; expected {CONFIG}, {METADATA}, {WEIGHTS}")
        for wanted in (CONFIG, METADATA, WEIGHTS):
            if wanted not in names:
                raise FormatError(f"{name}: no {wanted}; expected a .keras file of Keras 3 (a sharded one is not read)")
        for wanted in (CONFIG, METADATA, WEIGHTS):
            member = archive.getinfo(wanted)
            if member.flag_bits & 0x1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise FormatError(f"{name}, member {wanted}: encrypted or of an unknown compression")
            if wanted != WEIGHTS and member.file_size > MAX_HEADER:
                raise FormatError(f"{name}, member {wanted}: {member.file_size} bytes; expected at most {MAX_HEADER}")
            if member.file_size > LARGE and member.file_size > MAX_INFLATE * max(member.compress_size, 1):
                raise FormatError(f"{name}, member {wanted}: inflates more than {MAX_INFLATE} to 1")
        size = archive.getinfo(WEIGHTS).file_size
        refuse_above(6 * size, max_memory, f"{name}: reading {size} bytes of weights", "give a larger max_memory")
        read = {wanted: archive.read(wanted) for wanted in (CONFIG, METADATA, WEIGHTS)}
    metadata = _json(name, read[METADATA])
    version = str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""
    if not version.startswith("3."):
        raise FormatError(f"{name}: written by Keras {version[:20] or 'unknown'}; expected 3: its layout and activations differ")
    return _json(name, read[CONFIG]), read[WEIGHTS]


class Weights:
    """Variables of cells by path, as `keras_io_h5` read them in a process with limits of its own."""

    def __init__(self, name: str, data: bytes) -> None:
        if importlib.util.find_spec("h5py") is None:
            load_library("h5py", "keras", "reading weights of Keras")  # which says how to install it
        self.name = name
        header, body = self._read(data)
        if "arrays" not in header:
            error = UnsafeFileError if header.get("unsafe") else FormatError
            raise error(f"{name}: {str(header.get('refused'))[:500]}")
        self.names: dict[str, str] = header["names"]
        self.arrays: dict[str, Array] = {}
        for path, (dtype, shape) in header["arrays"].items():
            length = math.prod(shape) * np.dtype(dtype).itemsize
            flat, body = np.frombuffer(body[:length], dtype), body[length:]
            with np.errstate(all="ignore"):
                self.arrays[path] = flat.reshape(shape).astype(np.float64 if dtype == "<f8" else np.float32)

    def _read(self, data: bytes) -> tuple[Any, memoryview]:
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads take address space
        command = [sys.executable, "-P", keras_io_h5.__file__]
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT, check=False, env=environment)
        except subprocess.TimeoutExpired as error:
            raise FormatError(f"{self.name}: its HDF5 could not be read in {TIMEOUT} s; the file is damaged") from error
        except OSError as error:
            raise ResourceRefused(f"{self.name}: no process can be started to read it ({error})") from error
        length = int.from_bytes(done.stdout[:8], "little")
        if done.returncode or len(done.stdout) < 8 + length:
            told = done.stderr.decode("utf-8", "replace").strip().split("\n")[-1][:200]
            ended = f"its reader ended with {done.returncode}{f', {told}' if told else ''}"
            raise FormatError(f"{self.name}: its HDF5 could not be read within limits ({ended}); the file is damaged")
        return json.loads(done.stdout[8 : 8 + length]), memoryview(done.stdout)[8 + length :]

    def variables(self, group: str) -> list[Array]:
        """The arrays "0", "1", ... of `group`. Error: FormatError."""
        found = {path.removeprefix(f"{group}/"): value for path, value in self.arrays.items() if path.startswith(f"{group}/")}
        names = sorted(found)
        if not names or names != [str(k) for k in range(len(names))] or len(names) > 3:
            raise FormatError(f"{self.name}: {group!r} holds {names[:8]}; expected the variables 0, 1 and 2")
        return [found[key] for key in names]

    def layer_name(self, group: str) -> str | None:
        """The layer's name that newer versions of Keras keep beside its variables."""
        return self.names.get(f"{group}/vars")

    def cells(self) -> list[str]:
        """Groups of all that looks like a cell's variables."""
        return sorted({path.rpartition("/")[0] for path in self.arrays})
