"""Run analyses one after the other: seeds, threads, progress, failures."""

from __future__ import annotations

import importlib.util
import time
import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradlab.errors import FormatError, ResourceRefused
from gradlab.runs.store import redraw, require_writable, store
from gradlab.runs.threads import limited
from gradlab.runs.verdict import Analysis, Progress, Scale, Verdict


@dataclass(frozen=True)
class Options:
    """Where results go, and how they are made."""

    folder: Path
    scale: Scale = "full"
    seed: int = 2013
    redraw: bool = False
    debug: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one analysis.

    `state`: done, redrawn, skipped, unreadable (nothing stored to draw again), broken (a ground truth fails) or crashed.
    """

    stem: str
    state: str
    seconds: float = 0.0
    verdict: Verdict | None = None
    detail: str = ""


Report = Callable[[str], Progress]
"""Called with the stem when an analysis starts; what it returns is called with (done, total)."""


def missing(analysis: Analysis) -> list[str]:
    """The optional libraries that `analysis` needs and this environment lacks."""
    return [name for name in analysis.NEEDS if importlib.util.find_spec(name) is None]


def run(
    analyses: Mapping[str, Analysis], stems: Sequence[str], options: Options, report: Report, finished: Callable[[Outcome], None]
) -> None:
    """Run `stems`; `finished` receives each outcome at once, so that an interruption loses nothing that was done.

    Errors: ResourceRefused if the folder cannot be written, before anything is computed.
    """
    require_writable(options.folder)
    # Analyses that measure time run after the others, with all threads.
    for stem in sorted(stems, key=lambda name: analyses[name].ALONE):
        analysis = analyses[stem]
        lacking = missing(analysis)
        if lacking and not options.redraw:
            detail = f"needs {', '.join(lacking)}: pip install {' '.join(_requirement(name) for name in lacking)}"
            finished(Outcome(stem, "skipped", detail=detail))
            continue
        start = time.monotonic()
        try:
            if options.redraw:
                outcome = _judged(stem, "redrawn", 0.0, redraw(options.folder, stem, analysis))
            else:
                outcome = _one(stem, analysis, options, report(stem), start)
        except ResourceRefused:
            raise
        except FormatError as error:
            outcome = Outcome(stem, "unreadable", detail=str(error))
        except (Exception, SystemExit) as error:  # one analysis must not take the others with it
            if options.debug:
                traceback.print_exc()
            outcome = Outcome(stem, "crashed", time.monotonic() - start, detail=f"{type(error).__name__}: {error}")
        finished(outcome)


def _requirement(name: str) -> str:
    return {"torch": "torch==2.13.0"}.get(name, name)


def generator(seed: int, stem: str) -> np.random.Generator:
    """The stream of one analysis: its own, whatever else runs and in which order."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(stem.encode())]))


def _one(stem: str, analysis: Analysis, options: Options, progress: Progress, start: float) -> Outcome:
    # One BLAS thread: with more, sums come in another order and the last digits differ from run to run.
    with limited(None if analysis.ALONE else 1):
        result = analysis.compute(generator(options.seed, stem), options.scale, progress)
    verdict = analysis.check(result)
    seconds = time.monotonic() - start
    store(options.folder, stem, analysis, result, verdict, options.seed, options.scale, seconds)
    return _judged(stem, "done", seconds, verdict)


def _judged(stem: str, state: str, seconds: float, verdict: Verdict) -> Outcome:
    if not verdict.broken:
        return Outcome(stem, state, seconds, verdict)
    truth = verdict.broken[0]
    detail = f"ground truth fails: {truth.name} is {truth.measured:.9g}, expected {truth.expected:.9g} ({truth.source})"
    return Outcome(stem, "broken", seconds, verdict, detail)
