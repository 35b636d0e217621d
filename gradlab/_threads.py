"""Independent pieces of one computation side by side: NumPy lets go of the interpreter while it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import pairwise


def side_by_side(calls: Sequence[Callable[[], object]], threads: int) -> None:
    """Run all calls, up to `threads` at a time, each with the caller's np.errstate, which belongs to a context.

    The first exception is raised once all have ended.
    """
    if threads == 1 or len(calls) < 2:
        for call in calls:
            call()
        return
    with ThreadPoolExecutor(min(threads, len(calls))) as pool:
        for done in [pool.submit(copy_context().run, call) for call in calls]:
            done.result()


def shares(members: int, threads: int) -> list[slice]:
    """Spans of nearly equal size, one for each thread."""
    threads = min(threads, members)
    edges = [round(k * members / threads) for k in range(threads + 1)]
    return [slice(first, stop) for first, stop in pairwise(edges)]
