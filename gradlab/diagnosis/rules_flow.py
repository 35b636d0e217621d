"""Rules: flow."""

from __future__ import annotations

from collections.abc import Iterator

from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding


def transient_growth(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())


def exploding(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())


def vanishing(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())


def short_horizon(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())
