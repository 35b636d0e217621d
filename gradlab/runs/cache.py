"""Finished tasks on disk, one file each: written whole at once, verified when read, never unpickled.

They lie in `.cache/<stem>/` of the folder of results. A file is named by the hash of its key: analysis, scale, seed,
parameters and code version; it holds the whole key, a SHA-256 of the arrays, and the arrays. What is damaged is set
aside under another name, told and computed again. What a newer gradlab wrote is left alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._files import npz_bytes, read_npz, sweep, write_bytes
from gradlab.errors import FormatError, ResourceRefused
from gradlab.runs.plan import canonical

Array = npt.NDArray[Any]
Note = Callable[[str], None]

NAME = ".cache"
SCHEMA = 1
TAG = "CACHEDIR.TAG"
TAG_TEXT = b"Signature: 8a477f597d28d172789f06886806bc55\n# Finished tasks of gradlab; `gradlab cache clear` empties it.\n"
ENTRY = re.compile(r"[0-9a-f]{32}(?:-\d+)?\.npz")
BAD = re.compile(ENTRY.pattern + r"\.bad-\d+")


@dataclass(frozen=True)
class Key:
    """What a task's result depends on."""

    analysis: str
    scale: str
    seed: int
    parameters: Mapping[str, Any]
    code: str

    def told(self) -> dict[str, Any]:
        """As it stands in the file."""
        return asdict(self)

    def name(self) -> str:
        """The name of its file, without an ending."""
        return hashlib.sha256(canonical(self.told()).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Entry:
    """A finished task: its arrays, and the seconds that they took."""

    arrays: dict[str, Array]
    seconds: float


def arrays_of(result: object) -> dict[str, Array]:
    """`result` as named numeric arrays. Error: FormatError if it is something else."""
    if not isinstance(result, Mapping) or not all(isinstance(name, str) and name for name in result):
        raise FormatError(f"gave a {type(result).__name__}; expected arrays by name")
    arrays = {name: np.asarray(value) for name, value in result.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc" or "/" in name or "\0" in name:
            raise FormatError(f"gave {name[:60]!r} of dtype {array.dtype}; expected arrays of numbers by plain names")
    return arrays


def entry_bytes(key: Key, arrays: Mapping[str, Array], seconds: float) -> bytes:
    """The file of a finished task."""
    header = {"kind": "gradlab.task", "schema": SCHEMA, "key": key.told(), "sha256": _hash(arrays), "seconds": seconds}
    return npz_bytes(header, arrays)


def _hash(arrays: Mapping[str, Array]) -> str:
    found = hashlib.sha256()
    for name, array in arrays.items():
        plain = np.asarray(array, order="C")
        found.update(f"{name}\0{plain.dtype.str}\0{plain.shape}\0".encode())
        found.update(plain.tobytes())
    return found.hexdigest()


def read_entry(path: Path) -> tuple[dict[str, Any], Entry]:
    """The key and content of a file. Error: FormatError if it is damaged, of another schema or something else."""
    header, arrays = read_npz(path)
    key, seconds = header.get("key"), header.get("seconds")
    if header.get("kind") != "gradlab.task" or header.get("schema") != SCHEMA or not isinstance(key, dict):
        raise FormatError(f"{path}: not a task in schema {SCHEMA}")
    if header.get("sha256") != _hash(arrays):
        raise FormatError(f"{path}: its arrays do not have the SHA-256 that was stored with them")
    return key, Entry(arrays, float(seconds) if isinstance(seconds, (int, float)) else 0.0)


def schema_of(path: Path) -> int:
    """The schema of a file of a finished task, 0 if it says none. Error: FormatError if it cannot be read."""
    schema = read_npz(path)[0].get("schema")
    return schema if isinstance(schema, int) else 0


class Cache:
    """The finished tasks below one folder of results. Errors of writing: ResourceRefused."""

    def __init__(self, results: Path, note: Note) -> None:
        self.folder = results / NAME
        self._note = note
        self._kept: set[Path] = set()

    def open(self, stem: str) -> Path:
        """Make the folder of one analysis, and tidy it: what killed processes left half written goes."""
        folder = self.folder / stem
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tag = self.folder / TAG
            if not tag.is_file():
                write_bytes(tag, TAG_TEXT)
                write_bytes(self.folder / ".gitignore", b"*\n")
            sweep(self.folder)
            sweep(folder)
            mode = self.folder.stat().st_mode
        except OSError as error:
            raise ResourceRefused(f"{folder}: cannot be made ({error.strerror}); choose another folder with --out") from error
        if self.folder.is_symlink():
            self._note(f"{self.folder} is a link to {os.path.realpath(self.folder)}; finished tasks are read and written there")
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            self._note(f"{self.folder} can be written by every user of this machine; what is stored there could be anyone's")
        return folder

    def load(self, key: Key) -> Entry | None:
        """A finished task, or None. What cannot be trusted is set aside, told, and never used."""
        path = self._plain(key)
        if self._newer(path):
            path = self._beside(path)
        if not os.path.lexists(path):
            return None
        try:
            found, entry = read_entry(path)
            if canonical(found) != canonical(key.told()):
                raise FormatError(f"{path}: holds another task than its name says")
        except FormatError as error:
            aside = set_aside(path)
            self._note(f"{error}; set aside as {aside.name}, computed again")
            return None
        return entry

    def store(self, key: Key, entry: bytes) -> None:
        """Write a finished task, as `entry_bytes` gives it; beside the file of a newer version, where there is one."""
        path = self._plain(key)
        write_bytes(self._beside(path) if path in self._kept else path, entry)

    def _plain(self, key: Key) -> Path:
        return self.folder / key.analysis / f"{key.name()}.npz"

    def _beside(self, path: Path) -> Path:
        return path.with_name(f"{path.stem}-{SCHEMA}.npz")

    def _newer(self, path: Path) -> bool:
        """Whether a newer version wrote `path`; told once."""
        if path not in self._kept and path.is_file():
            try:
                if schema_of(path) > SCHEMA:
                    self._kept.add(path)
                    self._note(f"{path}: written by a newer gradlab (schema {schema_of(path)}, here {SCHEMA}); it is left alone")
            except FormatError:
                pass  # damaged: whoever reads it finds out
        return path in self._kept


def set_aside(path: Path) -> Path:
    """Rename a damaged file to a name of its own, which nobody reads."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.bad-{number}")):
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise ResourceRefused(f"{path}: is damaged and cannot be renamed ({error.strerror}); remove it") from error
    return aside
