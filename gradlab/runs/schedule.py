"""Jobs handed over, answers taken back, in any order: nothing of a result depends on it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

from gradlab.runs.places import Place
from gradlab.runs.work import Answer, Job, Meter, shares

POLL = 0.1
START = 60.0
"""Seconds that a job may wait for its process to start, beyond its own time."""


@dataclass
class _Flight:
    """A job that was handed over."""

    number: int
    since: float
    begun: bool = False
    hung: bool = False


@dataclass
class Schedule:
    """A list of jobs and what becomes of it.

    `answered` is called at once with the number of a job and its answer, and stores it; `settled` afterwards, when the
    workers have something to do again, for what takes longer. `wanted` says whether a job is still worth a start.
    """

    jobs: Sequence[Job]
    meters: Path
    timeout: float | None
    answered: Callable[[int, Answer], None]
    settled: Callable[[int], None]
    wanted: Callable[[int], bool]
    died: dict[int, int] = field(default_factory=dict)

    def run(self, place: Place) -> None:
        """Until every job is answered. An exception that leaves has stored all answers that had arrived."""
        waiting = deque(range(len(self.jobs)))
        flying: dict[Future[Answer], _Flight] = {}
        try:
            while waiting or flying:
                self._launch(place, waiting, flying)
                arrived, _ = wait(flying, timeout=POLL, return_when=FIRST_COMPLETED)
                numbers = [number for future in arrived if (number := self._arrived(place, future, flying, waiting)) is not None]
                if place.width > 1:
                    self._launch(place, waiting, flying)
                for number in numbers:
                    self.settled(number)
                self._expire(place, flying)
        except BaseException:
            for future in [future for future in flying if future.done() and not future.cancelled() and not future.exception()]:
                answer = future.result()
                if answer.state == "done":
                    self.answered(flying[future].number, answer)
            raise

    def _launch(self, place: Place, waiting: deque[int], flying: dict[Future[Answer], _Flight]) -> None:
        while waiting and len(flying) < place.width:
            number = waiting.popleft()
            if self.wanted(number):
                future = place.launch(self.jobs[number], Meter(str(self.meters), number))
                flying[future] = _Flight(number, time.monotonic())
        for future in [future for future, flight in flying.items() if not self.wanted(flight.number)]:
            if future.cancel():
                del flying[future]

    def _arrived(
        self, place: Place, future: Future[Answer], flying: dict[Future[Answer], _Flight], waiting: deque[int]
    ) -> int | None:
        """Take one answer back; the job's number, or None if it is to be run once more."""
        flight = flying.pop(future)
        answer = self._answer(future, flight)
        if answer is None:
            self.died[flight.number] = self.died.get(flight.number, 0) + 1
            if self.died[flight.number] < 2:
                waiting.appendleft(flight.number)
                return None
            answer = Answer(
                "failed",
                error="its process died twice; if the system killed it for its memory, run fewer jobs side by side",
            )
        if answer.state == "hung":
            place.restart(answer.where)
            answer = Answer("failed", error=f"has not ended after {self.timeout:g} s (--task-timeout); its process was killed")
        self.answered(flight.number, answer)
        return flight.number

    def _answer(self, future: Future[Answer], flight: _Flight) -> Answer | None:
        """What a future holds; None if the process died under it."""
        if flight.hung:
            return Answer("hung")
        try:
            return future.result()
        except BrokenExecutor:
            return None
        except CancelledError:
            return Answer("failed", error="was given up by the cluster; is its scheduler alive?")
        except Exception as error:  # it could not be sent, or the cluster gave up on it
            return Answer("failed", error=f"{type(error).__name__}: {str(error)[:2000]}")

    def _expire(self, place: Place, flying: dict[Future[Answer], _Flight]) -> None:
        """Kill what has had its time, counted from the moment when it began."""
        if self.timeout is None or place.kill is None:
            return
        now, share = time.monotonic(), shares(self.meters, len(self.jobs))
        for future, flight in flying.items():
            if not flight.begun and share[flight.number] > 0.0:
                flight.begun, flight.since = True, now
            if not flight.hung and now - flight.since > self.timeout + (0.0 if flight.begun else START):
                flight.hung = True
                place.kill(future)
