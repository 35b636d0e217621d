"""Finished tasks, looked after by hand: all of them verified, all of them removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from gradlab._files import sweep
from gradlab.errors import FormatError, ResourceRefused
from gradlab.runs.cache import BAD, ENTRY, NAME, SCHEMA, TAG, read_entry, schema_of
from gradlab.runs.lock import held
from gradlab.runs.plan import canonical

LOCK = "lock"


@dataclass(frozen=True)
class Found:
    """One file of a cache. `state`: good, damaged, newer (of a newer gradlab), or aside (set aside by a run)."""

    path: Path
    state: str
    size: int
    detail: str = ""


def cache_below(folder: Path) -> Path:
    """The cache of a folder of results, which may also be named itself. Error: FormatError if gradlab made none there."""
    for path in (folder / NAME, folder):
        if (path / TAG).is_file():
            return path
    raise FormatError(f"{folder}: holds no finished tasks ({NAME}/{TAG}); expected a folder that `python -m analyses` wrote to")


def _files(cache: Path) -> Iterator[Path]:
    try:
        for folder in sorted(path for path in cache.iterdir() if path.is_dir() and not path.is_symlink()):
            yield from (path for path in sorted(folder.iterdir()) if ENTRY.fullmatch(path.name) or BAD.fullmatch(path.name))
    except OSError as error:
        raise ResourceRefused(f"{error.filename}: cannot be listed ({error.strerror})") from error


def verify(cache: Path) -> Iterator[Found]:
    """Every file, read whole and held against its SHA-256 and its name. Nothing is changed."""
    for path in _files(cache):
        size = path.lstat().st_size
        if BAD.fullmatch(path.name):
            yield Found(path, "aside", size)
            continue
        try:
            schema = schema_of(path)
            if schema > SCHEMA:
                yield Found(path, "newer", size, f"schema {schema}, here {SCHEMA}")
                continue
            key, _ = read_entry(path)
            _require_name(path, key)
            yield Found(path, "good", size)
        except FormatError as error:
            yield Found(path, "damaged", size, str(error))


def _require_name(path: Path, key: dict[str, object]) -> None:
    import hashlib

    name = hashlib.sha256(canonical(key).encode()).hexdigest()[:32]
    if not path.name.startswith(name) or key.get("analysis") != path.parent.name:
        raise FormatError(f"{path}: holds another task than its name says")


def clear(cache: Path) -> Counter[str]:
    """Remove every finished task and what killed runs left; files that gradlab did not make stay. How many went and stayed.

    Error: ResourceRefused, before anything is removed, if a run is working there.
    """
    with ExitStack() as locks:
        for path in sorted(cache.glob(f"*/{LOCK}")):
            locks.enter_context(held(path, path.parent.name, lambda text: None))
        count: Counter[str] = Counter()
        for folder in (cache, *(path for path in sorted(cache.iterdir()) if path.is_dir() and not path.is_symlink())):
            sweep(folder)
        for path in _files(cache):
            count["bytes"] += path.lstat().st_size
            try:
                path.unlink()
            except OSError as error:
                raise ResourceRefused(f"{path}: cannot be removed ({error.strerror})") from error
            count["removed"] += 1
        return count
