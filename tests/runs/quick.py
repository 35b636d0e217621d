"""Results of the analyses at the quick scale, computed once for all tests of one process; and small means to use them."""

from __future__ import annotations

import copy
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import threadpoolctl

from analyses import ALL, speed
from gradlab.runs import Options, computed
from gradlab.runs.plan import sequence
from gradlab.runs.store import load_result

FIGURES = Path(__file__).resolve().parents[2] / "figures"


@cache
def _computed(stem):
    if stem == "speed":  # synthetic: real times differ from run to run, and torch is optional
        rng = np.random.default_rng(1)
        times = {row.key: rng.uniform(0.01, 0.03, (5, 1 + len(row.targets))) for row in speed.ROWS}
        versions = {"torch_version": b"2.13.0", "jax_version": b"0.10.2"}
        told = {name: np.frombuffer(version, np.uint8) for name, version in versions.items()}
        return {"torch_threads": np.array(2), "property_seconds": rng.uniform(1.0, 3.0, 3), **told, **times}
    if not all(importlib.util.find_spec(library) for library in ALL[stem].NEEDS):
        return load_result(FIGURES, stem)[0]  # what it needs is not installed: the stored numbers of the full run
    with threadpoolctl.threadpool_limits(1):  # as the runner does: small products are slow with more
        return computed(ALL[stem], sequence(Options.seed, stem), "quick")


def result(stem):
    """The arrays of an analysis at the quick scale, a copy for each caller."""
    return copy.deepcopy(_computed(stem))


def with_arrays(stem, **arrays):
    """The same with some arrays replaced."""
    return {**result(stem), **{name: np.asarray(value) for name, value in arrays.items()}}


def truths(verdict):
    """The ground truths of a verdict by name."""
    return {truth.name: truth for truth in verdict.ground_truths}
