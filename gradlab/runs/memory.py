"""How much memory a run may take, where several processes share one machine."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from gradlab import _memory

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def size(text: str) -> int:
    """Bytes in words: "4G", "512MiB", "1.5 GiB", "4000000000". Error: ValueError."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([KMGT]?)(?:i?B)?", text, flags=re.ASCII | re.IGNORECASE)
    bytes_ = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if not 2**20 <= bytes_ < 2**50:
        raise ValueError(f"{text[:40]!r} is no size of memory; expected something like 4G or 512M, at least 1M")
    return bytes_


def share(processes: int) -> None:
    """In a worker, for good: what is refused as too large is measured by its share of the machine."""
    _memory.SHARE /= processes


def cap(more: int) -> None:
    """In a worker, for good: allocate at most `more` bytes beyond what is there; the kernel sees to it."""
    resource.setrlimit(resource.RLIMIT_AS, (_bound(more), resource.getrlimit(resource.RLIMIT_AS)[1]))


@contextmanager
def capped(more: int | None) -> Iterator[None]:
    """The same in this process and for a while."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if more is not None:
        cap(more)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _bound(more: int) -> int:
    """Bytes of address space: those in use and `more`, within what the process was given."""
    wanted = _memory._address_space() + more
    given = [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit != resource.RLIM_INFINITY]
    return min([wanted, *given])
