"""Named arrays of a `.safetensors` or `.npz` file: the directory is checked first, then single arrays are read, never mapped."""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gradlab._files import HEADER, MAX_HEADER, MAX_MEMBERS, MAX_RANK, _check_directory, _check_end, _read_array
from gradlab._memory import refuse_above
from gradlab.errors import DTypeError, FormatError, GradlabError, UnsafeFileError

Array = npt.NDArray[Any]

MAX_NAME = 1024
"""Characters of a tensor's name."""
SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8}
SIZES["F64"] = 8
"""Bytes of one entry, of every safetensors dtype that may stand in the file."""
FLOATS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}
"""Those that weights may have, as NumPy reads them."""

TORCH_LINES = """
    state = torch.load({name!r}, weights_only=True)  # where you trust the file
    safetensors.torch.save_file({{k: v.clone() for k, v in state.items()}}, "model.safetensors")"""
PICKLE_LINES = """
    weights = {library}.load({opened})  # where you trust the file
    numpy.savez("model.npz", **weights)  # a dict of arrays"""
PICKLES = {".pt": "torch", ".pth": "torch", ".ckpt": "torch", ".bin": "torch", ".pkl": "pickle", ".pickle": "pickle"}
PICKLES |= {".joblib": "joblib", ".dill": "dill"}


@dataclass(frozen=True)
class Tensors:
    """The names in an open file, and how one of them is read. `format`: what the content is, whatever the file is called."""

    label: str
    format: str
    names: tuple[str, ...]
    read: Callable[[str], Array]


@contextmanager
def open_tensors(path: str | os.PathLike[str], max_memory: int | None) -> Iterator[Tensors]:
    """The tensors of the file at `path`. Its content decides how it is read, not its name.

    Errors: FormatError, UnsafeFileError (a pickle; nothing is unpickled), ResourceRefused. Nothing else is raised.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise DTypeError(f"path is a {type(path).__name__}; expected a str or a path")
    name = os.fspath(path)
    label = repr(name)
    suffix = Path(path).suffix.lower()
    if suffix in PICKLES:
        raise UnsafeFileError(_pickled(label, str(name), PICKLES[suffix]))
    if not Path(path).is_file():
        raise FormatError(f"{label}: no such regular file; expected .safetensors or .npz")
    try:
        with open(path, "rb") as stream:
            start = stream.read(9)
            stream.seek(0)
            if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                with zipfile.ZipFile(stream) as archive:
                    yield _npz(label, str(name), path, archive, max_memory)
            else:
                _refuse_others(label, str(name), start)
                yield _safetensors(label, stream, max_memory)
    except (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, GradlabError):  # ours are also ValueErrors
            raise
        raise FormatError(f"{label}: cannot be read ({error}); expected .safetensors or .npz") from error
    except RecursionError as error:
        raise FormatError(f"{label}: its header is nested too deeply") from error


def _pickled(label: str, name: str, library: str) -> str:
    if library == "torch":
        lines = TORCH_LINES.format(name=name)
    else:
        opened = repr(name) if library == "joblib" else f'open({name!r}, "rb")'
        lines = PICKLE_LINES.format(library=library, opened=opened)
    return f"{label}: a pickle, which runs code when it is loaded; gradlab never does. Two lines convert it:{lines}"


def _refuse_others(label: str, name: str, start: bytes) -> None:
    """Name what is neither of the two formats."""
    if start[:1] == b"\x80" and len(start) > 1 and start[1] <= 5 and start[8:] != b"{":  # 128 may also begin a header's length
        raise UnsafeFileError(_pickled(label, name, "torch"))
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        raise FormatError(f"{label}: an HDF5 file; try gradlab.adapters.from_keras")
    if start[:2] == b"\x1f\x8b":
        raise FormatError(f"{label}: gzipped; unpack it first")
    if start[:6] == b"\x93NUMPY":
        raise FormatError(f"{label}: a single array; expected named ones: numpy.savez(path, **arrays)")


def _npz(label: str, name: str, path: str | os.PathLike[str], archive: zipfile.ZipFile, max_memory: int | None) -> Tensors:
    members = archive.infolist()
    if any(member.filename.endswith("data.pkl") for member in members):
        raise UnsafeFileError(_pickled(label, name, "torch"))
    _check_end(name, path, len(members))
    _check_directory(name, members, max_memory)
    own = {member.filename.removesuffix(".npy"): member for member in members if member.filename != HEADER}
    _check_names(label, own)

    def read(key: str) -> Array:
        array = _read_array(name, archive, own[key])
        if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
            raise FormatError(f"{label}: {key!r} has dtype {array.dtype}; expected float16, float32 or float64")
        with np.errstate(all="ignore"):
            return array.astype(np.float32 if array.dtype.itemsize == 2 else array.dtype.newbyteorder("="))

    return Tensors(label, ".npz", tuple(own), read)


def _check_names(label: str, names: Mapping[str, object]) -> None:
    longest = max(map(len, names), default=0)
    if longest > MAX_NAME:
        raise FormatError(f"{label}: a name of {longest} characters; expected at most {MAX_NAME}")


def _safetensors(label: str, stream: BinaryIO, max_memory: int | None) -> Tensors:
    """Format: 8 bytes length N, little-endian; N bytes of JSON {name: {dtype, shape, data_offsets}}; the data without gaps."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    length = int.from_bytes(stream.read(8), "little")
    if size < 10 or not 2 <= length <= min(MAX_HEADER, size - 8):
        raise FormatError(
            f"{label}: {size} bytes, header of {length}; expected .safetensors with a header up to {MAX_HEADER}, or .npz"
        )
    text = stream.read(length)
    if text[:1] != b"{":
        raise FormatError(f"{label}: its header is no JSON object; expected .safetensors or .npz")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except ValueError as error:  # also what is not UTF-8
        raise FormatError(f"{label}: malformed header ({error}); expected .safetensors or .npz") from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{label}: __metadata__ is no object of texts")
    if len(header) > MAX_MEMBERS:
        raise FormatError(f"{label}: {len(header)} tensors; expected at most {MAX_MEMBERS}")
    _check_names(label, header)
    entries = {name: _entry(label, name, value) for name, value in header.items()}
    _check_ranges(label, entries, size - 8 - length)

    def read(key: str) -> Array:
        dtype, shape, first, last = entries[key]
        if dtype not in FLOATS:
            raise FormatError(f"{label}: {key!r} has dtype {dtype}; expected one of {', '.join(FLOATS)}")
        refuse_above(4 * (last - first), max_memory, f"{label}: {key!r}", "give a larger max_memory")
        stream.seek(8 + length + first)
        data = stream.read(last - first)
        if len(data) != last - first:
            raise FormatError(f"{label}: {key!r} is cut short; the file changed while it was read")
        flat = np.frombuffer(data, FLOATS[dtype])
        with np.errstate(all="ignore"):
            if dtype == "BF16":  # the upper half of a float32
                flat = (flat.astype(np.uint32) << 16).view(np.float32)
            return flat.reshape(shape).astype(np.float64 if dtype == "F64" else np.float32)

    return Tensors(label, ".safetensors", tuple(entries), read)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _entry(label: str, name: str, value: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Dtype, shape and byte range of one tensor, each checked."""
    label = f"{label}: {name!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{label} is described by {str(value)[:100]}; expected dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise FormatError(f"{label} has dtype {str(dtype)[:40]!r}, which is not supported; expected one of {', '.join(SIZES)}")
    if not _counts(shape) or len(shape) > MAX_RANK:
        raise FormatError(f"{label} has shape {str(shape)[:100]}; expected at most {MAX_RANK} whole numbers >= 0")
    if not _counts(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * SIZES[dtype]:
        raise FormatError(f"{label}: data_offsets {str(offsets)[:100]} do not go with {dtype} of shape {str(shape)[:100]}")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_ranges(label: str, entries: Mapping[str, tuple[str, tuple[int, ...], int, int]], size: int) -> None:
    """The tensors fill the data one after the other, without holes, overlaps or a rest."""
    reached = 0
    for name, (_, _, first, last) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if first != reached:
            what = "overlaps the tensor before" if first < reached else "leaves a hole before it"
            raise FormatError(f"{label}: {name!r} at byte {first} {what}, which ends at {reached}")
        reached = last
    if reached != size:
        raise FormatError(f"{label}: the tensors end at byte {reached} of the data, which has {size}; the file is damaged")
