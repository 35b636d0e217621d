"""Rules: nonfinite."""

from __future__ import annotations

from collections.abc import Iterator

from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding


def nonfinite(evidence: Evidence) -> Iterator[Finding]:
    """..."""
    return iter(())
