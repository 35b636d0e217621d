"""Rules: clipping."""

from __future__ import annotations

from collections.abc import Iterator

from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding


def clipping_always(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())


def clipping_never(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())


def clipping_inactive(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())
