"""`gradlab.diagnose`: from a model, a record, what `watch` saw or a training history to findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_count
from gradlab.batch import Batch
from gradlab.diagnosis.circumstances import Circumstances
from gradlab.diagnosis.diagnosis import Diagnosis, ordered
from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding
from gradlab.diagnosis.rules import RULES
from gradlab.diagnosis.silence import silent
from gradlab.diagnosis.subject import looks_of
from gradlab.losses import Loss
from gradlab.record import versions

Array = npt.NDArray[Any]


def diagnose(
    subject: Any,
    params: Mapping[str, Array] | None = None,
    data: Batch | Array | None = None,
    loss: Loss | None = None,
    *,
    lengths: Array | None = None,
    history: Any = None,
    learning_rate: float | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    dependency: int | None = None,
    truncation: int | None = None,
    seed: int = 0,
    max_memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Findings with code, severity, place, numbers, remedy and reference; a healthy model gets "healthy".

    `subject`: a `gradlab.Network` (with `params`), what an adapter imported, a live torch or Keras model, a `Record`, what
    `gradlab.adapters.watch` saw (all of it or one part), a `gradlab.training.Monitor`, or the path of a file of any of these.
    `data`: inputs (T, B, D), or a `Batch` with targets; without it standard normal noise is read, and the diagnosis says so.
    `loss(outputs, targets, mask)`: without it a unit gradient is carried back from the last step, and the diagnosis says so.
    `history`: a Monitor of the training of `subject`. The rest: see `Circumstances`; a rule that lacks its number stays silent.

    Errors: DTypeError, ShapeError, ValueRangeError naming the argument; for a path what the adapters raise.
    """
    require_count("seed", seed, 0)
    circumstances = Circumstances(learning_rate, clip_norm, clip_value, dependency, truncation)
    name, looks, past, assumptions = looks_of(subject, params, data, loss, lengths, history, seed, max_memory)
    evidence = Evidence(looks, past, circumstances, seed)
    findings: list[Finding] = []
    for k, rule in enumerate(RULES):
        with np.errstate(all="ignore"):  # rules look at numbers that left the range of floats on purpose
            findings += rule(evidence)
        if progress is not None:
            progress(k + 1, len(RULES))
    return Diagnosis(name, ordered(findings), assumptions, silent(evidence), evidence, versions())
