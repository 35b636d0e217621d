"""Runs: analyses computed task by task, checked, drawn and stored."""

from __future__ import annotations

from gradlab.runs.command import main
from gradlab.runs.look import Look
from gradlab.runs.plan import computed
from gradlab.runs.runner import Options, Outcome, Watch, run
from gradlab.runs.verdict import WORDS, Analysis, GroundTruth, Split, Verdict, Whole

__all__ = [
    "WORDS",
    "Analysis",
    "GroundTruth",
    "Look",
    "Options",
    "Outcome",
    "Split",
    "Verdict",
    "Watch",
    "Whole",
    "computed",
    "main",
    "run",
]
