"""Rules: gates."""

from __future__ import annotations

from collections.abc import Iterator

from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding


def dead_relu(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())


def saturated(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())


def forget_closed(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())
