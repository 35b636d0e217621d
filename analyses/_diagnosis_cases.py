"""All planted cases: the half on which thresholds are set, and the half, with other seeds, sizes and cells, that judges them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from analyses._diagnosis_data_cases import data
from analyses._diagnosis_flow_cases import flow
from analyses._diagnosis_gate_cases import gates
from analyses._diagnosis_given import HALVES, SCALES, Case, Half
from analyses._diagnosis_healthy_cases import healthy
from analyses._diagnosis_memory_cases import memory
from analyses._diagnosis_structure_cases import structure
from analyses._diagnosis_training_cases import training


def _of(half: Half) -> Iterator[Case]:
    yield from flow(half)
    yield from memory(half)
    yield from gates(half)
    yield from structure(half)
    yield from data(half)
    yield from training(half)
    yield from healthy(half)


def _all() -> Iterator[Case]:
    for half in HALVES:
        for k, case in enumerate(_of(half)):
            yield replace(case, scale=SCALES[k % len(SCALES)] if case.invariant else 1.0)


CASES: tuple[Case, ...] = tuple(_all())
