"""What an analysis consists of: its tasks, and the random numbers of each. Changing this file recomputes everything."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from gradlab.errors import ValueRangeError
from gradlab.runs.verdict import Analysis, Progress, Scale, Split, Whole

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Task:
    """One piece of an analysis: all that its result depends on besides seed and code. `label` tells it from the others."""

    parameters: Mapping[str, Any]
    label: str = ""


def is_split(analysis: Analysis) -> TypeGuard[Split]:
    """Whether an analysis comes in tasks."""
    return hasattr(analysis, "tasks")


def canonical(value: object) -> str:
    """`value` as JSON, the same text for equal content: sorted keys, NumPy's scalars as numbers. -0.0 is not 0.0.

    Errors: TypeError or ValueError for what JSON has no form for, infinity among it.
    """
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}, which JSON has no form for")


def tasks_of(analysis: Analysis, scale: Scale) -> list[Task]:
    """The tasks in their order; one with all settings where the analysis is in one piece.

    Error: ValueRangeError if there is none, if two are alike, or if one is not JSON.
    """
    given = f"tasks({scale!r})" if is_split(analysis) else f"PARAMETERS[{scale!r}]"
    try:
        texts = [canonical(p) for p in (analysis.tasks(scale) if is_split(analysis) else [dict(analysis.PARAMETERS[scale])])]
    except (TypeError, ValueError) as error:
        raise ValueRangeError(f"{given} cannot be written as JSON: {error}; give plain numbers, texts, lists") from error
    if not texts or len(set(texts)) < len(texts):
        raise ValueRangeError(f"{given} gives {len(texts)} tasks, {len(set(texts))} of them different; give one or more")
    each = [json.loads(text) for text in texts]  # what every process sees, wherever it runs
    if not all(isinstance(parameters, dict) for parameters in each):
        raise ValueRangeError(f"{given} gives something other than dicts; give the parameters of each task by name")
    return [Task(parameters, label) for parameters, label in zip(each, _labels(each), strict=True)]


def _labels(each: Sequence[dict[str, Any]]) -> list[str]:
    """The parameters in which the tasks differ: "length=100"."""
    names = dict.fromkeys(name for parameters in each for name in parameters)
    differ = [name for name in names if len({canonical(parameters.get(name)) for parameters in each}) > 1]
    told = [", ".join(f"{name}={canonical(p[name])[:40]}" for name in differ if name in p) for p in each]
    return [text[:120] for text in told]


def sequence(seed: int, stem: str) -> np.random.SeedSequence:
    """What the random numbers of an analysis come from: its own, whatever else runs and in which order."""
    return np.random.SeedSequence([seed, zlib.crc32(stem.encode())])


def generator(seed: int, stem: str) -> np.random.Generator:
    """The stream of one analysis."""
    return np.random.default_rng(sequence(seed, stem))


def run_one(
    analysis: Analysis, task: Task, seeds: np.random.SeedSequence, scale: Scale, progress: Progress | None = None
) -> dict[str, Array]:
    """The arrays of one task. `seeds`: those of the analysis; every task gets its own out of them, or all of them the same."""
    key = seeds.spawn_key
    if is_split(analysis):
        if not getattr(analysis, "COMMON_RANDOM_NUMBERS", False):
            digest = hashlib.sha256(canonical(task.parameters).encode()).digest()
            key = (*key, *(int.from_bytes(digest[k : k + 4], "little") for k in range(0, 16, 4)))
        return analysis.run_task(_from(seeds, key), task.parameters, progress)
    return _whole(analysis).compute(_from(seeds, key), scale, progress)


def _from(seeds: np.random.SeedSequence, key: tuple[int, ...]) -> np.random.Generator:
    """A generator at its beginning, which has spawned nothing yet, whoever has used `seeds` before."""
    return np.random.default_rng(np.random.SeedSequence(seeds.entropy, spawn_key=key))


def _whole(analysis: Any) -> Whole:
    return analysis  # type: ignore[no-any-return]


def collected(analysis: Analysis, results: Sequence[Mapping[str, Array]], scale: Scale) -> dict[str, Array]:
    """The arrays of an analysis out of those of its tasks."""
    return analysis.collect(results, scale) if is_split(analysis) else dict(results[0])


def computed(
    analysis: Analysis, seeds: np.random.SeedSequence, scale: Scale, progress: Progress | None = None
) -> dict[str, Array]:
    """All of an analysis here and now, task after task, nothing stored, with as many threads as there are."""
    tasks, results = tasks_of(analysis, scale), []
    for k, task in enumerate(tasks):

        def done(part: int, of: int, k: int = k) -> None:
            if progress is not None:
                progress(k * of + part, len(tasks) * of)

        results.append(run_one(analysis, task, seeds, scale, done))
    return collected(analysis, results, scale)
