"""Rules: structure."""

from __future__ import annotations

from collections.abc import Iterator

from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding


def truncation_short(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())


def unused(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())


def initial_state(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())


def ill_conditioned(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())
