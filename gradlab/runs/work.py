"""What happens where a task runs: in this process, in a worker beside it, or on a cluster.

Whatever goes wrong comes back as plain text, so that nothing of the user's has to be pickled on the way back.
"""

from __future__ import annotations

import importlib
import os
import struct
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gradlab.errors import GradlabError, ResourceRefused
from gradlab.runs.cache import Key, arrays_of, entry_bytes
from gradlab.runs.plan import Task, run_one, sequence
from gradlab.runs.sources import UNKNOWN, code_version
from gradlab.runs.threads import limit_for_good, limited
from gradlab.runs.verdict import Analysis, Scale


@dataclass(frozen=True)
class Job:
    """One task to be run. `analysis`: the name of its module, or the object itself where it is none."""

    analysis: str | Analysis
    stem: str
    scale: Scale
    seed: int
    task: Task
    code: str

    @property
    def key(self) -> Key:
        """Under which its result is stored."""
        return Key(self.stem, self.scale, self.seed, self.task.parameters, self.code)

    @property
    def name(self) -> str:
        """As errors call it."""
        return f"{self.stem} ({self.task.label})" if self.task.label else self.stem


@dataclass(frozen=True)
class Answer:
    """What became of a job. `state`: done (`entry` is its file), failed, refused (memory, disk) or hung."""

    state: str
    entry: bytes = b""
    seconds: float = 0.0
    error: str = ""
    trace: str = ""
    where: str = ""


@dataclass(frozen=True)
class Meter:
    """Where a job tells how far it is: eight bytes in a file that the parent reads. Too simple to get in anyone's way."""

    path: str
    slot: int

    def __call__(self, done: float, total: float) -> None:
        """`done` of `total`; the smallest share says that the job has begun."""
        share = min(max(done / total, 1e-9), 1.0) if total else 1e-9
        try:
            descriptor = os.open(self.path, os.O_WRONLY)
            try:
                os.pwrite(descriptor, struct.pack("d", share), 8 * self.slot)
            finally:
                os.close(descriptor)
        except OSError:
            pass  # on another machine there is no such file


def reference(analysis: Analysis) -> str | Analysis:
    """What tells another process which analysis is meant."""
    return analysis.__name__ if isinstance(analysis, ModuleType) else analysis


def execute(job: Job, meter: Meter, threads: int | None = 1) -> Answer:
    """Run a job here with so many threads of linear algebra. An interruption is the only exception that leaves."""
    with limited(threads):
        return _answer(job, meter)


def execute_in_worker(job: Job, meter: Meter) -> Answer:
    """The same in a process that does nothing else, whose threads were limited when it started."""
    return _answer(job, meter)


def execute_on_cluster(job: Job, meter: Meter, timeout: float | None) -> Answer:
    """The same in a worker of Dask: a process with several threads that is not ours to kill.

    With a timeout the job runs in a thread of its own, and is given up.
    """
    limit_for_good(1)  # not `limited`: a neighbour that ends would set back the threads of all
    where = _address()
    if timeout is None:
        return _answer(job, meter, where)
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(_answer(job, meter, where)), daemon=True)
    thread.start()
    thread.join(timeout)
    return answers[0] if answers else Answer("hung", where=where)


def _address() -> str:
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return ""


def _answer(job: Job, meter: Meter, where: str = "") -> Answer:
    start = time.monotonic()
    meter(0, 1)
    try:
        analysis: Any = importlib.import_module(job.analysis) if isinstance(job.analysis, str) else job.analysis
        if not job.code.startswith(UNKNOWN) and code_version(analysis) != job.code:
            raise GradlabError(
                f"the sources or libraries {f'at {where}' if where else 'in the worker'} differ from those of the run; "
                "install the same versions there, and do not edit during a run"
            )
        result = run_one(analysis, job.task, sequence(job.seed, job.stem), job.scale, meter)
        seconds = time.monotonic() - start
        return Answer("done", entry_bytes(job.key, arrays_of(result), seconds), seconds, where=where)
    except (ResourceRefused, MemoryError) as error:
        return Answer("refused", b"", time.monotonic() - start, _told(error), _trace(error), where)
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        return Answer("failed", b"", time.monotonic() - start, _told(error), _trace(error), where)


def _told(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be made)"
    if isinstance(error, MemoryError):
        text = f"{text or 'memory does not suffice'}; run fewer jobs side by side, or give more with --max-memory"
    return text[:2000] if isinstance(error, ResourceRefused | MemoryError) else f"{type(error).__name__}: {text[:2000]}"


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))[-100_000:]
    except Exception:
        return ""


def meter_file(folder: Path, slots: int) -> Path:
    """An empty file for so many meters; its name says whose it is, so that a later run removes it if this one is killed."""
    import secrets

    path = folder / f".progress.{os.getpid()}-{secrets.token_hex(6)}.part"
    try:
        path.write_bytes(bytes(8 * slots))
    except OSError as error:
        raise ResourceRefused(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from error
    return path


def shares(path: Path, slots: int) -> list[float]:
    """How far every job is, from 0 to 1; zeros if the file is gone."""
    try:
        data = path.read_bytes()
        return list(struct.unpack(f"{slots}d", data[: 8 * slots]))
    except (OSError, struct.error):
        return [0.0] * slots
