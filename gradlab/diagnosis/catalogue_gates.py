"""Catalogue: gates."""

from __future__ import annotations

from gradlab.diagnosis.entry import Entry

GATES: dict[str, Entry] = {}
