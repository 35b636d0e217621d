"""Processes beside this one, of loky, each an executor of its own with one worker.

A pool of several workers cannot say which of its tasks killed it: all of them fail, and the innocent are run again, or
fail with the guilty. With one worker each, a task takes only its own process with it, and one that hangs can be killed.
Workers start afresh (nothing is forked), with one thread of linear algebra, and end when this process ends, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from typing import Any

from gradlab.errors import ResourceRefused

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
PR_SET_PDEATHSIG = 1


class Seats(Executor):
    """An executor with `seats` workers. `threads`: of linear algebra in each, None for all. `memory`: bytes for all together.

    Submit from the main thread: the kernel ends a worker when the THREAD that started it ends.
    """

    def __init__(self, seats: int, *, threads: int | None = 1, memory: int | None = None, quiet: bool = True) -> None:
        self._env = {} if threads is None else dict.fromkeys(THREADS, str(threads))
        self._initial = (os.getpid(), seats, memory and memory // seats, quiet)
        self._free: list[Executor | None] = [None] * seats
        self._at: dict[Future[Any], Executor] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` in a free worker. There must be one: whoever submits counts the futures that are not done.

        Error: ResourceRefused if no process can be started.
        """
        for future in [future for future in self._at if future.done()]:
            executor = self._at.pop(future)
            self._free.append(None if future.cancelled() or future.exception() else executor)
            if self._free[-1] is None:
                _kill(executor)
        try:
            seat = self._free.pop() or self._worker()
            with _without_interrupts():
                future = seat.submit(fn, *args, **kwargs)
        except (OSError, ImportError, NotImplementedError) as error:
            raise ResourceRefused(f"no process can be started beside this one ({error}); run with --jobs 1") from error
        self._at[future] = seat
        return future

    def kill(self, future: Future[Any]) -> None:
        """End the process that runs `future`, which then fails."""
        _kill(self._at[future])

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all workers; at once, whatever they do."""
        for executor in [*self._at.values(), *(seat for seat in self._free if seat is not None)]:
            _kill(executor)
        self._at.clear()

    def _worker(self) -> Executor:
        from loky.process_executor import ProcessPoolExecutor

        made: Executor = ProcessPoolExecutor(1, initializer=_begin, initargs=self._initial, env=self._env)
        return made


def _kill(executor: Any) -> None:
    executor.shutdown(wait=False, kill_workers=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Inside, no Ctrl-C: a process started here never sees one, as it goes to the whole group."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int, seats: int, memory: int | None, quiet: bool) -> None:
    """The first thing that a worker does."""
    _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if quiet:  # what it prints would tear the table of the parent
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.close(sink)
    from gradlab.runs import memory as own

    own.share(seats)
    if memory is not None:
        own.cap(memory)


def _end_with(parent: int) -> None:
    """End when the parent ends, even if it is killed."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def look() -> None:  # it may have died before, and other systems have no such signal
        while os.getppid() == parent:
            ended.wait(1.0)
        os._exit(1)

    ended = threading.Event()
    threading.Thread(target=look, daemon=True).start()
