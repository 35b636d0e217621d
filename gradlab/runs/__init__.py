"""Runs: analyses computed, checked, drawn and stored, one after the other."""

from __future__ import annotations

from gradlab.runs.command import main
from gradlab.runs.runner import Options, Outcome, run
from gradlab.runs.verdict import WORDS, Analysis, GroundTruth, Verdict

__all__ = ["WORDS", "Analysis", "GroundTruth", "Options", "Outcome", "Verdict", "main", "run"]
