"""How much memory a computation may take, and the refusal when it would take more."""

from __future__ import annotations

import resource
from pathlib import Path

from gradlab._validate import require_positive
from gradlab.errors import ResourceRefused

SHARE = 0.8
"""The share of the available memory that one computation may ask for."""


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None  # absent, or "max": no limit from here


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _control_group() -> int | None:
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most = _number(limit)
        if most is not None:
            return max(most - (_number(used) or 0), 0)
    return None


def _address_space() -> int:
    """Bytes of address space that this process holds already."""
    pages = _number("/proc/self/statm")
    return 0 if pages is None else pages * resource.getpagesize()


def memory_limit(asked: int | None = None) -> int:
    """Bytes one computation may allocate: the least of `asked` and a share of what the machine, its
    control group and the process limit leave free. Pages are lazy, so a successful allocation proves nothing.
    """
    bounds = [int(SHARE * b) for b in (_available(), _control_group()) if b is not None]
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        bounds.append(int(SHARE * max(soft - _address_space(), 0)))
    if asked is not None:
        bounds.append(int(require_positive("max_memory", asked)))
    return min(bounds) if bounds else 8 * 2**30


def gib(size: int) -> str:
    """`size` bytes in words: "3.91 GiB"."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**27 else f"{size / 2**20:.3g} MiB"


def refuse_above(needed: int, asked: int | None, what: str, instead: str) -> None:
    """Raise ResourceRefused if `needed` bytes exceed the limit; before anything is allocated."""
    limit = memory_limit(asked)
    if needed > limit:
        raise ResourceRefused(f"{what} needs {gib(needed)}, the limit is {gib(limit)}; {instead}")
