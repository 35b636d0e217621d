"""Which rules had nothing to look at, and what they would need."""

from __future__ import annotations

from collections.abc import Iterator

from gradlab.diagnosis.ahead import affordable, problem_of
from gradlab.diagnosis.clipped import clipped_of
from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.history import History
from gradlab.diagnosis.rules_history import jumps_of
from gradlab.diagnosis.rules_updates import ratios_of


def silent(evidence: Evidence) -> dict[str, str]:
    """{what was not judged: what it would take}."""
    found = {}
    told, history = evidence.circumstances, evidence.history
    if not evidence.looks:
        found["gradient flow, gates, spectra"] = "no pass of a network; give a model, a record or what watch saw"
    if history is None:
        found["loss jumps, clipping, update sizes"] = "no training history; give history=, a gradlab.training.Monitor"
    else:
        found |= dict(_of_history(evidence, history))
    evaluable = any(problem_of(look) is not None for look in evidence.looks)
    if told.learning_rate is None:
        found["cliffs ahead"] = "no learning rate; give learning_rate="
    elif not evaluable:
        found["cliffs ahead"] = "the loss cannot be evaluated elsewhere; give a network with data and loss"
    elif not any(affordable(look) for look in evidence.looks if problem_of(look) is not None):
        found["sharpness"] = (
            "the network is large for its batch; give fewer or shorter sequences. Only the step ahead was looked at"
        )
    if told.dependency is None:
        found["memory horizon against the dependency"] = "no dependency; give dependency=, in steps"
    if told.truncation is None:
        found["length of truncation"] = "no truncation; give truncation=, k2 in steps"
    elif not evaluable:
        found["length of truncation"] = "the loss cannot be evaluated; give a network with data and loss"
    return found


def _of_history(evidence: Evidence, history: History) -> Iterator[tuple[str, str]]:
    told = evidence.circumstances
    if jumps_of(evidence) is None:
        yield "loss jumps", "no losses, or too few; record loss= of 40 updates or more"
    if not ratios_of(evidence):
        yield "update sizes", "no updates, or too few; record params= and new_params= of 25 updates or more"
    if told.clip_norm is None and told.clip_value is None:
        yield "whether clipping acts", "no threshold; give clip_norm= or clip_value="
    elif clipped_of(evidence) is None or not history.group("clipped"):
        yield "whether clipping acts", "no gradients after clipping; record gradients= and clipped="
