"""Run analyses: what is stored already is taken from there, the rest is computed, stored, judged and drawn."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gradlab.errors import FormatError, ResourceRefused
from gradlab.runs.cache import Cache
from gradlab.runs.cache_care import LOCK
from gradlab.runs.course import Course, Outcome, judged, planned
from gradlab.runs.lock import held
from gradlab.runs.look import Look
from gradlab.runs.places import Place, beside, here, on_dask
from gradlab.runs.plan import generator
from gradlab.runs.schedule import Schedule
from gradlab.runs.store import redraw, require_writable
from gradlab.runs.verdict import Analysis, Scale
from gradlab.runs.work import Answer, Meter, meter_file, shares

__all__ = ["Options", "Outcome", "Watch", "generator", "missing", "run"]


@dataclass(frozen=True)
class Options:
    """Where results go, and how they are made.

    `jobs`: processes side by side, 1 for none but this. `dask`: the address of a scheduler instead. `force`: compute what
    is stored, too. `keep_going`: run the other tasks of an analysis that has failed. `timeout`: seconds for one task.
    `memory`: bytes for all processes together. `look`: how figures look, `pictures`: where they go if not to `folder`.
    """

    folder: Path
    scale: Scale = "full"
    seed: int = 2013
    redraw: bool = False
    debug: bool = False
    jobs: int = 1
    dask: str | None = None
    force: bool = False
    keep_going: bool = False
    timeout: float | None = None
    memory: int | None = None
    look: Look = field(default_factory=Look)
    pictures: Path | None = None


class Watch(Protocol):
    """Who is told how a run goes."""

    def planned(self, stem: str, tasks: int, cached: int) -> None:
        """An analysis has so many tasks, of which so many are stored already."""
        ...

    def running(self, shares: Callable[[], Mapping[str, float]]) -> None:
        """From now on the function tells which share of its missing tasks is done, for every analysis that runs."""
        ...

    def task_ended(self, stem: str, well: bool) -> None:
        """A task has been computed and stored, or has failed."""
        ...

    def finished(self, outcome: Outcome) -> None:
        """An analysis is done and stored, or has failed."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know and that stops nothing."""
        ...


def missing(analysis: Analysis) -> list[str]:
    """The optional libraries that `analysis` needs and this environment lacks."""
    return [name for name in analysis.NEEDS if importlib.util.find_spec(name) is None]


def run(analyses: Mapping[str, Analysis], stems: Sequence[str], options: Options, watch: Watch) -> None:
    """Run `stems`; `watch` receives each outcome at once, so that an interruption loses nothing that was done.

    Errors: ResourceRefused if the folder cannot be written, another run works there, or no cluster answers, before
    anything is computed; and if disk or memory do not suffice.
    """
    require_writable(options.folder)
    if options.pictures is not None:
        require_writable(options.pictures)
    able = list(stems) if options.redraw else []
    for stem in () if options.redraw else stems:
        lacking = missing(analyses[stem])
        if lacking:
            detail = f"needs {', '.join(lacking)}: pip install {' '.join(_requirement(name) for name in lacking)}"
            watch.finished(Outcome(stem, "skipped", detail=detail))
        else:
            able.append(stem)
    if not able:
        return  # and nothing is made
    cache = Cache(options.folder, watch.note)
    with ExitStack() as stack:
        for stem in sorted(able):
            stack.enter_context(held(cache.open(stem) / LOCK, stem, watch.note))
        if options.redraw:
            for stem in stems:
                watch.finished(_redrawn(stem, analyses[stem], options))
            return
        together = [stem for stem in able if not analyses[stem].ALONE]
        together.sort(key=lambda stem: -float(getattr(analyses[stem], "MINUTES", 0.0)))  # the longest first; ties as named
        # Analyses that measure time run after the others, one by one, with all threads.
        for group in ([together] if together else []) + [[stem] for stem in able if analyses[stem].ALONE]:
            _run_group([(stem, analyses[stem]) for stem in group], cache, options, watch)


def _requirement(name: str) -> str:
    return {"torch": "torch==2.13.0", "sklearn": "scikit-learn"}.get(name, name)


def _redrawn(stem: str, analysis: Analysis, options: Options) -> Outcome:
    try:
        verdict = redraw(options.folder, stem, analysis, options.look, options.pictures)
        return judged(Outcome(stem, "redrawn", verdict=verdict))
    except ResourceRefused:
        raise
    except FormatError as error:
        return Outcome(stem, "unreadable", detail=str(error))
    except (Exception, SystemExit) as error:
        return Course.crashed(stem, error, options.debug)


def _run_group(group: Sequence[tuple[str, Analysis]], cache: Cache, options: Options, watch: Watch) -> None:
    """Compute what is missing of these analyses, all their tasks side by side."""
    courses: list[Course] = []
    for stem, analysis in group:
        try:
            course = planned(stem, analysis, options.scale, options.seed, cache, options.force)
        except ResourceRefused:
            raise
        except (Exception, SystemExit) as error:
            watch.finished(Course.crashed(stem, error, options.debug))
            continue
        watch.planned(stem, len(course.jobs), course.cached)
        courses.append(course)
    todo = [(course, number) for course in courses for number in course.missing]
    meters = meter_file(cache.folder, len(todo))

    def answered(number: int, answer: Answer) -> None:
        course, own = todo[number]
        course.take(own, answer, cache, options.debug)
        Meter(str(meters), number)(1, 1)
        watch.task_ended(course.stem, answer.state == "done")

    def settled(number: int) -> None:
        course = todo[number][0]
        if (course.over or not wanted(number)) and not course.told:
            watch.finished(course.finish(cache, options))

    def wanted(number: int) -> bool:
        return options.keep_going or not todo[number][0].failures

    for course in courses:
        if not course.missing:
            watch.finished(course.finish(cache, options))
    try:
        if todo:
            jobs = [course.jobs[own] for course, own in todo]
            watch.running(lambda: _by_stem(shares(meters, len(todo)), [course.stem for course, _ in todo]))
            with _place(options, len(todo), alone=group[0][1].ALONE) as place:
                Schedule(jobs, meters, options.timeout, answered, settled, wanted).run(place)
        for course in courses:
            if not course.told:  # what is left of it was not wanted any more
                watch.finished(course.finish(cache, options))
    finally:
        meters.unlink(missing_ok=True)


def _by_stem(each: Sequence[float], stems: Sequence[str]) -> dict[str, float]:
    """The mean share of every analysis."""
    own = {name: [share for share, stem in zip(each, stems, strict=True) if stem == name] for name in dict.fromkeys(stems)}
    return {name: sum(found) / len(found) for name, found in own.items()}


def _place(options: Options, tasks: int, alone: bool) -> AbstractContextManager[Place]:
    threads = None if alone else 1  # with more, sums come in another order and the last digits differ from run to run
    if options.dask is not None and not alone:
        return on_dask(options.dask, options.timeout, options.debug)
    jobs = 1 if alone else min(options.jobs, tasks)
    if options.timeout is None and (alone or options.jobs == 1):
        return here(threads, options.memory)
    return beside(jobs, threads, options.memory, quiet=not options.debug)  # also where a task may have to be killed
