"""Which rules had nothing to look at, and what they would need."""

from __future__ import annotations

from gradlab.diagnosis.evidence import Evidence


def silent(evidence: Evidence) -> dict[str, str]:
    """{what was not judged: what it would take}."""
    found = {}
    told = evidence.circumstances
    evaluable = any(look.batch is not None and look.loss is not None for look in evidence.looks)
    if not evidence.looks:
        found["gradient flow, gates, spectra"] = "no pass of a network; give a model, a record or what watch saw"
    if evidence.history is None:
        found["loss jumps, clipping, update sizes"] = "no training history; give history=, a gradlab.training.Monitor"
    elif told.clip_norm is None and told.clip_value is None:
        found["whether clipping acts"] = "no threshold; give clip_norm= or clip_value="
    if told.learning_rate is None:
        found["cliffs ahead"] = "no learning rate; give learning_rate="
    elif not evaluable:
        found["cliffs ahead"] = "the loss cannot be evaluated elsewhere; give a network with data and loss"
    if told.dependency is None:
        found["memory horizon against the dependency"] = "no dependency; give dependency=, in steps"
    if told.truncation is None:
        found["length of truncation"] = "no truncation; give truncation=, k2 in steps"
    elif not evaluable:
        found["length of truncation"] = "the loss cannot be evaluated; give a network with data and loss"
    return found
