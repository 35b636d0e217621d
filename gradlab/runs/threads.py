"""Threads of the linear algebra underneath NumPy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def _threadpoolctl() -> ModuleType:
    """The library, imported late: its import sets a variable of the environment, which is put back."""
    before = os.environ.get("KMP_DUPLICATE_LIB_OK")
    import threadpoolctl

    if before is None:
        os.environ.pop("KMP_DUPLICATE_LIB_OK", None)
    else:
        os.environ["KMP_DUPLICATE_LIB_OK"] = before
    return threadpoolctl  # type: ignore[no-any-return]


@contextmanager
def limited(threads: int | None) -> Iterator[None]:
    """At most `threads` threads inside; None leaves them as they are."""
    with _threadpoolctl().threadpool_limits(threads):
        yield


def pools() -> list[dict[str, Any]]:
    """Which libraries compute, and with how many threads."""
    wanted = ("internal_api", "version", "architecture", "num_threads")
    return [{key: info.get(key) for key in wanted} for info in _threadpoolctl().threadpool_info()]


def limit_for_good(threads: int) -> None:
    """At most `threads` threads in this process from now on."""
    _threadpoolctl().threadpool_limits(threads)
