"""Rules: history."""

from __future__ import annotations

from collections.abc import Iterator

from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding


def loss_jumps(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())


def update_ratio(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())
