"""All calls of one backward pass, replayed and held against the gradients that torch computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.adapters.replay import passes_by_layer
from gradlab.adapters.watch_job import Job, Run, divided
from gradlab.adapters.watch_proof import EXPLAINED, LIMITS, Proof, deviation, explained, penalty
from gradlab.adapters.watch_result import Watched
from gradlab.adapters.watch_steps import single_steps
from gradlab.errors import GradlabError, NumericalError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Looked:
    """What came of one backward pass: proved records, replays that were refused, and calls that could not be replayed."""

    watched: tuple[Watched, ...]
    refused: tuple[NumericalError, ...]
    notes: tuple[str, ...]


def prove(
    torch: Any, jobs: Sequence[Job], arrived: Mapping[int, Array], update: int, scale: float, keep: Sequence[str]
) -> Looked:
    """Replay `jobs` and compare; `arrived`: by tensor, the gradient of its weight in this backward pass, before any clipping."""
    runs: dict[Job, Run] = {}
    notes: list[str] = []
    broken: set[int] = set()  # weights that some call used which could not be replayed
    for job in jobs:
        try:
            runs[job] = job.run(keep, _provenance(torch, job, update))
        except GradlabError as error:
            notes.append(f"{job.first.name} (update {update}, call {job.first.number}) cannot be replayed: {error}")
            broken |= {key for key, _ in job.first.weights.values()}
    found = {job: _compare(job, runs, arrived, broken) for job in runs}
    wanting = {job for job in runs if any(value > LIMITS[job.dtype] for value in found[job][0].values())}
    other: dict[Job, Run] = {}
    if wanting:
        used = {key for job in wanting for key, _ in job.first.weights.values()}
        for job in runs:
            if used & {key for key, _ in job.first.weights.values()}:
                other[job] = job.run(keep, {}, np.float64 if job.dtype == np.float32 else np.float32)
    watched, refused = [], []
    for job, run in runs.items():
        deviations, unproved = found[job]
        try:
            proof = (
                _doubtful(torch, job, runs, other, deviations, unproved, arrived)
                if job in wanting
                else _plain(job, deviations, unproved)
            )
        except NumericalError as error:
            refused.append(error)
            continue
        call = job.first
        replayed = None if call.spec.single else call.replayable()
        record = divided(run.record, scale)
        watched.append(Watched(call.name, update, call.number, record, call.spec.net, call.params, proof, replayed))
    return Looked(tuple(watched), tuple(refused), tuple(notes))


def _compare(
    job: Job, runs: Mapping[Job, Run], arrived: Mapping[int, Array], broken: set[int]
) -> tuple[dict[str, float], dict[str, str]]:
    """Deviations of all that can be compared, and why the rest cannot."""
    deviations: dict[str, float] = {}
    unproved: dict[str, str] = {}
    for name, (ours, theirs) in runs[job].emitted.items():
        if np.isfinite(theirs).all():
            deviations[name] = deviation(ours, theirs)
        else:
            unproved[name] = "torch's own are not finite"
    finite = not unproved and all(np.isfinite(value).all() for call in job.calls for value in call.arrived.values())
    for name, (key, _) in job.first.weights.items():
        back = arrived.get(key)
        if name not in job.first.trainable:
            unproved[name] = "frozen"
        elif back is None:
            unproved[name] = "no gradient was asked for"
        elif key in broken:
            unproved[name] = "another call that uses it cannot be replayed"
        elif not finite or not np.isfinite(back).all():
            unproved[name] = "what arrived is not finite"
        else:
            deviations[name] = deviation(_total(key, runs), back)
    return deviations, unproved


def _total(key: int, runs: Mapping[Job, Run]) -> Array:
    """The gradient of one weight, summed over every call that used it."""
    terms = [run.gradients[name] for job, run in runs.items() for name, (own, _) in job.first.weights.items() if own == key]
    return np.asarray(sum(terms[1:], start=terms[0]))


def _plain(job: Job, deviations: Mapping[str, float], unproved: Mapping[str, str]) -> Proof:
    verdict = "proved" if any(name in deviations for name in job.first.weights) else "unproved"
    return Proof(verdict, LIMITS[job.dtype], deviations, unproved)


def _doubtful(
    torch: Any,
    job: Job,
    runs: Mapping[Job, Run],
    other: Mapping[Job, Run],
    deviations: Mapping[str, float],
    unproved: Mapping[str, str],
    arrived: Mapping[int, Array],
) -> Proof:
    """What deviations above the limit come from. Error: NumericalError if it is the replay that is wrong."""
    call, limit, record = job.first, LIMITS[job.dtype], runs[job].record
    apart = {
        name: deviation(ours, other[job].emitted[name][0]) for name, (ours, _) in runs[job].emitted.items() if name in deviations
    }
    for name, (key, _) in call.weights.items():
        if name in deviations:
            apart[name] = deviation(_total(key, runs), _total(key, other))
    passes = {} if call.spec.single else passes_by_layer(call.replayable())
    steps, allowed = single_steps(torch, job, record, passes)
    wrong = {name: value for name, value in steps.items() if not value <= allowed[name]}
    rest = dict(deviations)
    unexplained = [name for name, d in deviations.items() if d > limit and not explained(d, apart, job.dtype)]
    penalties: dict[str, float] = {}
    for name in [name for name in unexplained if name in call.weights]:
        key, weight = call.weights[name]
        k, left = penalty(_total(key, runs), arrived[key], weight)
        if left <= limit:
            penalties[name], rest[name] = k, left
            unexplained.remove(name)
    if wrong or (unexplained and not _used_elsewhere(job, rest, unexplained)):
        numbers = [f"{n} {value:.1e} (two precisions {apart[n]:.1e} apart)" for n, value in deviations.items() if value > limit]
        numbers += [f"single steps of {name} {value:.1e}" for name, value in wrong.items()]
        raise NumericalError(
            f"{call.name}, call {call.number}: the replay deviates from torch beyond {limit:.0e}: {', '.join(numbers)}. Rounding "
            f"explains at most {EXPLAINED:.0f} times what lies between the two precisions, so the replay is wrong and its record "
            "is refused. Causes outside gradlab: weights that the loss also reads elsewhere (a penalty other than L2, sharing), "
            "outputs changed in place after the call, calls from before the look (every > 1), a subclass with its own forward"
        )
    why = "differs by {:.1e} where the layer's other gradients agree: another use of the weight in the loss (a penalty, sharing)?"
    lost = {name: why.format(rest.pop(name)) for name in unexplained}
    verdict = "ill-conditioned" if any(value > limit for value in rest.values()) else "proved"
    return Proof(verdict, limit, rest, {**unproved, **lost}, penalties, {} if verdict == "proved" else apart, steps)


def _used_elsewhere(job: Job, deviations: Mapping[str, float], unexplained: Sequence[str]) -> bool:
    """Whether only some weights of each layer fail and the rest is proved: then the adjoints, which all share, are right."""
    weights = job.first.weights
    for end in job.first.spec.suffixes.values():
        own = [f"{kind}{end}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if f"{kind}{end}" in weights]
        proved = [name for name in own if name in deviations and name not in unexplained]
        if any(name in unexplained for name in own) and not proved:
            return False
    return all(name in weights for name in unexplained)


def _provenance(torch: Any, job: Job, update: int) -> dict[str, Any]:
    call = job.first
    return {
        "source": call.spec.source,
        "module": call.name,
        "update": update,
        "call": call.number,
        "mode": "train" if call.training else "eval",
        "torch": str(torch.__version__),
        "loss": "unknown: the record starts from the gradient that arrived at the outputs and final states",
    }
