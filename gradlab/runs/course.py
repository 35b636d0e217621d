"""One analysis on its way from a list of tasks to a stored result."""

from __future__ import annotations

import sys
import time
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gradlab.errors import ResourceRefused
from gradlab.runs.cache import Cache, arrays_of
from gradlab.runs.plan import collected, tasks_of
from gradlab.runs.sources import code_version
from gradlab.runs.store import store
from gradlab.runs.verdict import Analysis, Scale, Verdict
from gradlab.runs.work import Answer, Job, reference

if TYPE_CHECKING:
    from gradlab.runs.runner import Options


@dataclass(frozen=True)
class Outcome:
    """What became of one analysis.

    `state`: done, redrawn, skipped, unreadable (nothing stored to draw again), broken (a ground truth fails) or crashed.
    `seconds`: those of the tasks that were `computed` now; the others came from the `cached` ones.
    """

    stem: str
    state: str
    seconds: float = 0.0
    verdict: Verdict | None = None
    detail: str = ""
    computed: int = 0
    cached: int = 0


def judged(outcome: Outcome) -> Outcome:
    """The outcome, or broken if one of its ground truths fails."""
    if outcome.verdict is None or not outcome.verdict.broken:
        return outcome
    truth = outcome.verdict.broken[0]
    detail = f"ground truth fails: {truth.name} is {truth.measured:.9g}, expected {truth.expected:.9g} ({truth.source})"
    return replace(outcome, state="broken", detail=detail)


@dataclass
class Course:
    """`missing`: the numbers of the jobs that are not stored; `told`: whether the outcome has been reported."""

    stem: str
    analysis: Analysis
    jobs: list[Job]
    missing: list[int]
    answered: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    computed: int = 0
    seconds: float = 0.0
    told: bool = False

    @property
    def cached(self) -> int:
        """How many tasks were stored before."""
        return len(self.jobs) - len(self.missing)

    @property
    def over(self) -> bool:
        """Whether every task has ended."""
        return len(self.answered) == len(self.missing)

    def take(self, number: int, answer: Answer, cache: Cache, debug: bool) -> None:
        """Store what a job gave, or note its failure. Error: ResourceRefused if memory or disk do not suffice."""
        job = self.jobs[number]
        self.answered.add(number)
        self.seconds += answer.seconds
        if answer.state == "done":
            cache.store(job.key, answer.entry)
            self.computed += 1
            return
        if debug and answer.trace:
            print(answer.trace, file=sys.stderr, end="")
        told = f"{job.task.label}: {answer.error}" if job.task.label else answer.error
        if answer.state == "refused":
            raise ResourceRefused(f"{job.stem}: {told}")
        self.failures.append(told)

    def finish(self, cache: Cache, options: Options) -> Outcome:
        """Judge, draw and store. Error: ResourceRefused if that cannot be written."""
        self.told = True
        plain = Outcome(self.stem, "crashed", self.seconds, computed=self.computed, cached=self.cached)
        if self.failures:
            more = f"; {len(self.failures) - 1} more tasks failed" if len(self.failures) > 1 else ""
            return replace(plain, detail=self.failures[0] + more)
        start = time.monotonic()
        try:
            entries = [entry for job in self.jobs if (entry := cache.load(job.key)) is not None]
            if len(entries) < len(self.jobs):
                return replace(plain, detail="a task that was stored cannot be read back; is the disk sound? run it once more")
            result = arrays_of(collected(self.analysis, [entry.arrays for entry in entries], options.scale))
            verdict = self.analysis.check(result)
            spent = sum(entry.seconds for entry in entries) + time.monotonic() - start
            told = {
                "seconds": round(spent, 2),
                "tasks": {"computed": self.computed, "from_cache": self.cached},
                "code": self.jobs[0].code,
            }
            store(options, self.stem, self.analysis, result, verdict, told)
        except ResourceRefused:
            raise
        except (Exception, SystemExit) as error:
            return replace(self.crashed(self.stem, error, options.debug), computed=self.computed, cached=self.cached)
        return judged(replace(plain, state="done", seconds=self.seconds + time.monotonic() - start, verdict=verdict))

    @staticmethod
    def crashed(stem: str, error: BaseException, debug: bool) -> Outcome:
        """The outcome of an analysis whose own code raises."""
        if debug:
            traceback.print_exception(error)
        return Outcome(stem, "crashed", detail=f"{type(error).__name__}: {error}")


def planned(stem: str, analysis: Analysis, scale: Scale, seed: int, cache: Cache, force: bool) -> Course:
    """What has to be computed of an analysis, and what is there. Errors: those of `tasks_of`."""
    code = code_version(analysis)
    jobs = [Job(reference(analysis), stem, scale, seed, task, code) for task in tasks_of(analysis, scale)]
    # All are read even where all are computed again: what is damaged is told and set aside.
    stored = [cache.load(job.key) is not None for job in jobs]
    return Course(stem, analysis, jobs, [k for k in range(len(jobs)) if force or not stored[k]])
