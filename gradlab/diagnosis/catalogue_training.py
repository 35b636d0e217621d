"""Catalogue: training."""

from __future__ import annotations

from gradlab.diagnosis.entry import Entry

TRAINING: dict[str, Entry] = {}
