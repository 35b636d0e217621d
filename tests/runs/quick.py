"""Results of the analyses at the quick scale, computed once for all tests of one process; and small means to use them."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import threadpoolctl

from analyses import ALL, speed
from gradlab.runs import Options
from gradlab.runs.runner import generator


@cache
def _computed(stem):
    if stem == "speed":  # synthetic: real times differ from run to run, and torch is optional
        rng = np.random.default_rng(1)
        times = {f"{name}_seconds": rng.uniform(0.01, 0.03, (5, 2)) for name in speed.ROWS}
        return {"torch_version": np.frombuffer(b"2.13.0", np.uint8), "torch_threads": np.array(2), **times}
    with threadpoolctl.threadpool_limits(1):  # as the runner does: small products are slow with more
        return ALL[stem].compute(generator(Options.seed, stem), "quick")


def result(stem):
    """The arrays of an analysis at the quick scale, a copy for each caller."""
    return copy.deepcopy(_computed(stem))


def with_arrays(stem, **arrays):
    """The same with some arrays replaced."""
    return {**result(stem), **{name: np.asarray(value) for name, value in arrays.items()}}


def truths(verdict):
    """The ground truths of a verdict by name."""
    return {truth.name: truth for truth in verdict.ground_truths}
