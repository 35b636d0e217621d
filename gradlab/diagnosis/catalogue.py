"""What each code means, what helps, and where it is written: one entry for every code, by subject in three files."""

from __future__ import annotations

from gradlab.diagnosis.catalogue_flow import FLOW
from gradlab.diagnosis.catalogue_gates import GATES
from gradlab.diagnosis.catalogue_training import TRAINING
from gradlab.diagnosis.entry import Entry

CATALOGUE: dict[str, Entry] = {**FLOW, **GATES, **TRAINING}
