"""What the analyses that train have in common: seeds as ensemble members with sequences of their own; counts of successes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

import gradlab

Array = npt.NDArray[Any]
Seed = np.random.SeedSequence


def seeds_of(rng: np.random.Generator, number: int) -> list[Seed]:
    """Independent seeds, one for each member."""
    return list(rng.bit_generator.seed_seq.spawn(number))  # type: ignore[attr-defined]


def stream(seed: Seed, purpose: int) -> np.random.Generator:
    """A seed's own stream for one purpose: the same at every call, so that all nets start and read alike."""
    return np.random.default_rng(Seed(seed.entropy, spawn_key=(*seed.spawn_key, purpose)))


def initial(net: gradlab.Network, seeds: Sequence[Seed], rates: int, dtype: Any, **options: Any) -> dict[str, Array]:
    """Parameters with axes (rate, seed): every rate starts from the same draws."""
    own = [net.init(stream(seed, 0), dtype=dtype, **options) for seed in seeds]
    return {key: np.stack([np.stack([params[key] for params in own])] * rates) for key in own[0]}


def side_by_side(batches: Sequence[gradlab.Batch], every: bool, dtype: Any) -> gradlab.Batch:
    """Each seed's own batch along ensemble axes (1, seed), which all rates share; `every`: targets have a time axis."""
    axis = 1 if every else 0
    inputs = np.stack([batch.inputs for batch in batches], axis=1).astype(dtype)
    targets = np.stack([batch.targets for batch in batches], axis=axis)
    if targets.dtype.kind == "f":
        targets = targets.astype(dtype)
    return gradlab.Batch(inputs[:, None], np.expand_dims(targets, axis))


def parameter_count(net: gradlab.Network) -> int:
    """Numbers that training changes."""
    return sum(math.prod(shape) for shape in net.shapes.values())


def interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of Clopper & Pearson (1934) for the probability behind `successes` of `trials`."""
    tail = 0.5 * (1.0 - level)
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1.0 - tail))
    return low, high


def fisher(first: int, second: int, trials: int) -> float:
    """Two-sided p of Fisher's exact test that `first` and `second` successes, of `trials` each, have one probability."""
    both = first + second
    ways = [math.comb(trials, k) * math.comb(trials, both - k) for k in range(max(0, both - trials), min(trials, both) + 1)]
    seen = math.comb(trials, first) * math.comb(trials, second)
    return sum(way for way in ways if way <= seen) / sum(ways)  # integers: ties are exact
