"""One run at a time in one place. The kernel frees a lock when its holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gradlab.errors import ResourceRefused


@contextmanager
def held(path: Path, what: str, note: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock `path` inside. Error: ResourceRefused at once if another process has it, with its number.

    A file system without locks is noted, and the run goes on.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise ResourceRefused(f"{path}: cannot be locked ({error.strerror}); choose another folder with --out") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                other = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
                raise ResourceRefused(
                    f"{what} is being worked on by another run (process {other or 'unknown'}); "
                    "wait for it, or choose another folder with --out"
                ) from error
            note(f"{path}: locks do not work here ({error.strerror}); see to it that only one run at a time writes there")
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
