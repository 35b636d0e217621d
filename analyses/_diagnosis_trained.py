"""Short real training runs that learn their task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import gradlab
from analyses._diagnosis_given import Build, Given, entropy, network, norm_preserving, squared
from gradlab.tasks import adding
from gradlab.training import SGD, Adam, ByNorm, Monitor


def echo(delay: int, length: int) -> Callable[[np.random.Generator], gradlab.Batch]:
    """Say again what was read `delay` steps ago, of three symbols."""

    def sample(rng: np.random.Generator) -> gradlab.Batch:
        read = rng.integers(0, 3, (length, 16))
        mask = np.broadcast_to((np.arange(length) >= delay)[:, None].astype(float), read.shape)
        return gradlab.Batch(np.eye(3)[read], np.roll(read, delay, axis=0), mask)

    return sample


def sums(length: int) -> Callable[[np.random.Generator], gradlab.Batch]:
    """The adding problem."""
    return lambda rng: adding.sample(rng, 16, length)


def trained(
    cell: Any,
    sample: Callable[[np.random.Generator], gradlab.Batch],
    H: int,
    *,
    updates: int = 300,
    rate: float = 0.02,
    adam: bool = True,
    part: str = "",
    **shape: Any,
) -> Build:
    """A short real training run. `part`: "history" for the run alone, "net" for what came out of it, "" for both."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        probe = sample(np.random.default_rng(0))
        labels = probe.targets.dtype.kind in "iu"
        p = 3 if labels else probe.targets.shape[-1]
        net = network(cell, probe.inputs.shape[-1], H, readout="every" if labels else "last", p=p, **shape)
        params = norm_preserving(rng, net, 1.0, 2.0 * len(probe.inputs))
        loss = (entropy if labels else squared)(scale)
        monitor = Monitor(every=25)
        own_rate = rate if adam else rate / scale
        run = gradlab.training.train(
            net, params, sample, loss, updates, rng, optimiser=Adam() if adam else SGD(), learning_rate=own_rate,
            clip=ByNorm(scale), monitor=monitor,
        )  # fmt: skip
        told: dict[str, Any] = {"clip_norm": scale} | ({} if adam else {"learning_rate": own_rate})
        if part == "history":
            return Given(monitor, options=told)
        return Given(net, run.params, sample(rng), loss, {"history": monitor, **told} if not part else {})

    return build
