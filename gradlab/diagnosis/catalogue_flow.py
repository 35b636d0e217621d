"""Catalogue: flow."""

from __future__ import annotations

from gradlab.diagnosis.entry import Entry

FLOW: dict[str, Entry] = {}
