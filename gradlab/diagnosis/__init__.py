"""Diagnosis: rules look at passes, gates, spectra and histories, and return findings with place, number and remedy."""

from __future__ import annotations

from gradlab.diagnosis.catalogue import CATALOGUE
from gradlab.diagnosis.compare import Comparison, compare
from gradlab.diagnosis.demos import DEMOS
from gradlab.diagnosis.diagnose import diagnose
from gradlab.diagnosis.diagnosis import Diagnosis
from gradlab.diagnosis.entry import Entry, Threshold
from gradlab.diagnosis.finding import SEVERITIES, Finding, Number, Place

__all__ = [
    "CATALOGUE",
    "DEMOS",
    "SEVERITIES",
    "Comparison",
    "Diagnosis",
    "Entry",
    "Finding",
    "Number",
    "Place",
    "Threshold",
    "compare",
    "diagnose",
]
