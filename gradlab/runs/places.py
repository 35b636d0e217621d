"""Where jobs run: here, in processes beside this one, or on a Dask cluster. All of them are `concurrent.futures` executors."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from gradlab.errors import ResourceRefused
from gradlab.runs.memory import capped
from gradlab.runs.seats import Seats
from gradlab.runs.work import Answer, Job, Meter, execute, execute_in_worker, execute_on_cluster

CONNECT = 15.0
"""Seconds to wait for a Dask scheduler."""


class InProcess(Executor):
    """Runs what is submitted at once; an exception of the runner's own, or an interruption, is raised there."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A finished future."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@dataclass(frozen=True)
class Place:
    """An executor, and what the runner has to know of it.

    `width`: how many jobs to hand over at once. `kill`: ends the process of a future, None where that is not ours to do;
    `restart`: has the cluster replace the worker at an address.
    """

    executor: Executor
    width: int
    call: Callable[[Job, Meter], Answer]
    kill: Callable[[Future[Any]], None] | None = None
    restart: Callable[[str], None] = lambda where: None

    def launch(self, job: Job, meter: Meter) -> Future[Answer]:
        """Hand over one job."""
        return self.executor.submit(self.call, job, meter)


@contextmanager
def here(threads: int | None, memory: int | None) -> Iterator[Place]:
    """In this process, one job after the other."""
    with capped(memory):
        yield Place(InProcess(), 1, partial(execute, threads=threads))


@contextmanager
def beside(jobs: int, threads: int | None, memory: int | None, quiet: bool) -> Iterator[Place]:
    """In so many processes."""
    seats = Seats(jobs, threads=threads, memory=memory, quiet=quiet)
    try:
        yield Place(seats, jobs, execute_in_worker, seats.kill)
    finally:
        seats.shutdown()


@contextmanager
def on_dask(address: str, timeout: float | None, debug: bool) -> Iterator[Place]:
    """On the workers of a Dask scheduler, with all jobs handed over at once: the cluster may grow with them.

    Error: ResourceRefused if the library is missing or nobody answers at the address.
    """
    if importlib.util.find_spec("distributed") is None:
        raise ResourceRefused("--dask needs the library distributed; install it: pip install 'gradlab[dask]'")
    distributed: Any = importlib.import_module("distributed")
    log = logging.getLogger("distributed")
    before = log.level
    log.setLevel(before if debug else logging.CRITICAL)  # a lost worker is told by the runner, if it matters
    try:
        try:
            client = distributed.Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ResourceRefused(
                f"no Dask scheduler answers at {address[:100]!r} ({reason}); start one with `dask scheduler` and give its address"
            ) from error
        try:
            executor = client.get_executor(pure=False)

            def restart(where: str) -> None:
                with suppress(Exception):  # it has no nanny, or is gone already
                    client.restart_workers([where], timeout=10, raise_for_error=False)

            yield Place(executor, 1_000_000, partial(execute_on_cluster, timeout=timeout), restart=restart)
        finally:
            with suppress(Exception):
                executor.shutdown(wait=False)
            with suppress(Exception):
                client.close(timeout=1)
    finally:
        log.setLevel(before)
