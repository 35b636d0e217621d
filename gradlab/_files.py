"""Files: written whole or not at all, read without running anything.

`.npz` archives carry a JSON header and plain numeric arrays. Nothing is pickled or unpickled, and sizes
are checked against the archive's own directory before a byte is allocated.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import secrets
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gradlab._memory import gib, memory_limit
from gradlab.errors import FormatError, ResourceRefused, UnsafeFileError

Array = npt.NDArray[Any]

HEADER = "header.json"
MAX_HEADER = 2 * 2**20  # bytes
MAX_MEMBERS = 20_000
MAX_RANK = 8
MAX_INFLATE = 200  # ratio of a deflated member's size to its size in the archive, for members larger than LARGE
LARGE = 64 * 2**20  # bytes; larger members are stored as they are: zeros deflate 1000 to 1 and would look like a bomb


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that gets its name only when it is complete and on the disk.

    Raises ResourceRefused with path and reason if the folder cannot be written or the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(_temporary_name(target.name))
    try:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # the umask applies
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ResourceRefused(f"{target}: cannot be written ({error.strerror or error}); choose another folder") from error
    _sync_folder(target.parent)


def _temporary_name(name: str) -> str:
    """A hidden name that says whose it is; short in bytes, whatever the characters."""
    short = os.fsdecode(os.fsencode(name)[:100])
    return f".{short}.{os.getpid()}-{secrets.token_hex(6)}.part"


_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{12}\.part", flags=re.DOTALL)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written; what a living one is writing stays."""
    for path in folder.iterdir():
        found = _TEMPORARY.fullmatch(path.name)
        if found and not _alive(int(found[1])):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system allows a folder to be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def dump_json(value: object) -> bytes:
    """`value` as JSON (RFC 8259: no NaN, no infinity), UTF-8, sorted keys, one line an entry."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False, default=_plain) + "\n").encode()


def _plain(value: object) -> object:
    """A NumPy scalar as a number of Python."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}, which JSON has no form for")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` whole or not at all."""
    with atomic_write(path) as stream:
        stream.write(data)


def write_npz(path: str | os.PathLike[str], header: Mapping[str, object], arrays: Mapping[str, Array]) -> None:
    """Write a JSON header and named numeric arrays; equal content gives equal bytes.

    Errors: ValueError or TypeError for what JSON or .npy has no form for, ResourceRefused as `atomic_write`.
    """
    with atomic_write(path) as stream:
        _write_archive(stream, header, arrays)


def npz_bytes(header: Mapping[str, object], arrays: Mapping[str, Array]) -> bytes:
    """What `write_npz` writes, in memory."""
    buffer = io.BytesIO()
    _write_archive(buffer, header, arrays)
    return buffer.getvalue()


def _write_archive(stream: BinaryIO, header: Mapping[str, object], arrays: Mapping[str, Array]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_member(HEADER), dump_json(dict(header)))
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
            info = _member(f"{name}.npy")
            if buffer.getbuffer().nbytes > LARGE:
                info.compress_type = zipfile.ZIP_STORED
            archive.writestr(info, buffer.getbuffer())


def _member(name: str) -> zipfile.ZipInfo:
    """A directory entry without today's date, so that equal content gives equal bytes."""
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


def read_npz(path: str | os.PathLike[str], max_memory: int | None = None) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays of a file written by `write_npz`.

    `max_memory` bounds the bytes of all arrays together. Errors: FormatError if the file is missing, cut,
    altered or holds something else; UnsafeFileError if it would need unpickling; ResourceRefused if it is
    too large. Nothing else is raised.
    """
    name = os.fspath(path)
    try:
        if not Path(path).is_file():
            raise FormatError(f"{name!r}: no such regular file; expected a .npz written by gradlab")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_end(name, path, len(members))
            _check_directory(name, members, max_memory)
            header = json.loads(archive.read(HEADER), parse_constant=_no_constant) if HEADER in archive.namelist() else None
            if not isinstance(header, dict):
                raise FormatError(f"{name!r}: no {HEADER}; expected a .npz written by gradlab")
            arrays = {m.filename[:-4]: _read_array(name, archive, m) for m in members if m.filename != HEADER}
            return header, arrays
    except (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(f"{name!r}: cannot be read as .npz ({error}); expected a file written by gradlab") from error
    except RecursionError as error:
        raise FormatError(f"{name!r}: its JSON header is nested too deeply") from error


def _no_constant(value: str) -> None:
    raise ValueError(f"{value} is no number of JSON")


def _check_end(name: str, path: str | os.PathLike[str], members: int) -> None:
    """Compare the members found with the number in the archive's last record: zipfile stops in silence at a broken one."""
    with open(path, "rb") as stream:
        stream.seek(-22, os.SEEK_END)  # the last record without a comment, as `write_npz` leaves it
        end = stream.read()
    count = int.from_bytes(end[10:12], "little")
    if end[:4] != b"PK\x05\x06" or count not in (members, 0xFFFF):
        raise FormatError(f"{name!r}: its directory has {members} members, its last record says {count}; the file is damaged")


def _check_directory(name: str, members: list[zipfile.ZipInfo], max_memory: int | None) -> None:
    if len(members) > MAX_MEMBERS:
        raise FormatError(f"{name!r}: {len(members)} members; expected at most {MAX_MEMBERS}")
    names = [m.filename for m in members]
    if len(set(names)) != len(names):
        raise FormatError(f"{name!r}: a member name occurs twice")
    for member in members:
        label = f"{name!r}, member {member.filename!r}"
        limit = MAX_HEADER if member.filename == HEADER else None
        if limit is not None and member.file_size > limit:
            raise FormatError(f"{label}: {member.file_size} bytes; expected at most {limit}")
        if member.filename != HEADER and (not member.filename.endswith(".npy") or ".." in member.filename.split("/")):
            raise FormatError(f"{label}: expected {HEADER} or an array named *.npy")
        if member.flag_bits & 0x1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"{label}: encrypted or of an unknown compression; expected stored or deflated")
        deflated = member.compress_type == zipfile.ZIP_DEFLATED
        if deflated and member.file_size > LARGE and member.file_size > MAX_INFLATE * max(member.compress_size, 1):
            raise FormatError(f"{label}: inflates more than {MAX_INFLATE} to 1")
    total = sum(m.file_size for m in members)
    limit_bytes = memory_limit(max_memory)
    if total > limit_bytes:
        raise ResourceRefused(f"{name!r} holds {gib(total)}, the limit is {gib(limit_bytes)}; give a larger max_memory")


def _read_array(name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    label = f"{name!r}, member {member.filename!r}"
    with archive.open(member) as stream:
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
        if dtype.kind not in "biufc" or dtype.itemsize == 0:
            raise FormatError(f"{label}: dtype {dtype}; expected numbers")
        if len(shape) > MAX_RANK or any(isinstance(n, bool) or n < 0 for n in shape):
            raise FormatError(f"{label}: shape {shape}; expected at most {MAX_RANK} axes, none negative")
        size = math.prod(shape) * dtype.itemsize
        if stream.tell() + size != member.file_size:
            raise FormatError(f"{label}: shape {shape} of {dtype} needs {size} bytes, the member has {member.file_size}")
        data = stream.read(size)
        if len(data) != size or stream.read(1):
            raise FormatError(f"{label}: {len(data)} bytes of data; expected exactly {size}")
    array = np.frombuffer(data, dtype=dtype).copy()
    return array.reshape(shape, order="F" if fortran else "C")
