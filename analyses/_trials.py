"""What the analyses that compare cells on a task have in common: settings by seeds as one ensemble, one budget for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from analyses import _members

Array = npt.NDArray[Any]
DTYPE = np.float32
AT_ONCE = 100  # sequences in one forward pass: bounds the memory


def network(cell: Any, task: gradlab.tasks.Task, hidden_size: int) -> gradlab.Network:
    return gradlab.Network(cell, task.input_size, hidden_size, output_size=task.output_size, readout=task.readout)


def nearest_size(cell: Any, task: gradlab.tasks.Task, parameters: int) -> int:
    """The hidden size whose network has the number of parameters nearest to this one, the read-out included."""
    sizes, counts = [], []
    for hidden_size in range(1, 200):
        sizes.append(hidden_size)
        counts.append(_members.parameter_count(network(cell, task, hidden_size)))
        if counts[-1] > parameters:
            break
    return sizes[int(np.argmin(np.abs(np.array(counts) - parameters)))]


def wrong(net: gradlab.Network, params: Mapping[str, Array], task: gradlab.tasks.Task, batch: gradlab.Batch) -> Array:
    """The share of sequences that each member gets wrong, by the task's own criterion."""
    total: Any = 0.0
    dtype = next(iter(params.values())).dtype
    for first in range(0, batch.inputs.shape[1], AT_ONCE):
        part = slice(first, first + AT_ONCE)
        outputs = gradlab.forward(net, params, batch.inputs[:, part].astype(dtype)).outputs
        targets = batch.targets[:, part] if task.readout == "every" else batch.targets[part]
        total = total + (~task.success(outputs, targets)).sum(axis=-1)
    return np.asarray(total) / batch.inputs.shape[1]


def side_by_side(net: gradlab.Network, seeds: Sequence[Any], settings: Sequence[tuple[float, Mapping[str, Any]]]) -> Any:
    """Initial parameters with axes (setting, seed), and learning rates: a setting is a rate and options of `net.init`.

    Every setting starts from the same draws of each seed.
    """
    each = [_members.initial(net, seeds, 1, DTYPE, **options) for _, options in settings]
    params = {key: np.concatenate([own[key] for own in each]) for key in each[0]}
    return params, np.repeat(np.array([rate for rate, _ in settings])[:, None], len(seeds), axis=1)


def train(
    net: gradlab.Network,
    task: gradlab.tasks.Task,
    length: int,
    p: Mapping[str, Any],
    seeds: Sequence[Any],
    settings: Sequence[tuple[float, Mapping[str, Any]]],
    held_out: gradlab.Batch,
    done: Callable[[int, int], None] | None,
) -> gradlab.training.Training:
    """Adam on the task's own loss: `p` has updates, batch, clip_norm, validate_every and stop_below.

    All settings read the same sequences of each seed. A member keeps the parameters that validation liked best.
    """
    streams = [_members.stream(seed, length) for seed in seeds]
    params, rates = side_by_side(net, seeds, settings)

    def sample(_: np.random.Generator) -> gradlab.Batch:
        drawn = [task.sample(rng, p["batch"], length) for rng in streams]
        return _members.side_by_side(drawn, task.readout == "every", DTYPE)

    return gradlab.training.train(
        net,
        params,
        sample,
        getattr(gradlab.losses, task.loss),
        p["updates"],
        np.random.default_rng(0),  # not used: every seed has a stream of its own
        optimiser=gradlab.training.Adam(),
        learning_rate=rates,
        clip=gradlab.training.ByNorm(p["clip_norm"]),
        validate=lambda trained: wrong(net, trained, task, held_out),
        validate_every=p["validate_every"],
        target=p["stop_below"],
        progress=done,
    )


def arrays(training: gradlab.training.Training, wrong_in_test: Array) -> dict[str, Array]:
    """What is kept of a training: validated error rates (runs, settings, seeds) with their updates, and those of the test."""
    updates, validation = training.validation
    return {
        "updates": updates,
        "validation": validation,
        "test": wrong_in_test,
        "not finite": np.array(sum(event.stopped for event in training.events)),
    }


def best(validation: Array) -> Array:
    """The lowest validated error rate of each member, (settings, seeds)."""
    return np.asarray(np.min(np.where(np.isnan(validation), np.inf, validation), axis=0))


def chosen(validation: Array, among: Sequence[int]) -> int:
    """The setting, of those `among`, with the lowest median validated error over the seeds.

    Of equals that with the lowest mean, then the one that was wrong the least all along: it learns soonest.
    """
    found = best(validation)[list(among)]
    along = [carried(validation[:, k]).mean() for k in among]
    return int(among[int(np.lexsort((along, found.mean(axis=1), np.median(found, axis=1)))[0])])


def carried(rows: Array) -> Array:
    """`rows` (runs, seeds) with the last number of a member that stopped held until the end."""
    held = rows.copy()
    for k in range(1, len(held)):
        held[k] = np.where(np.isnan(held[k]), held[k - 1], held[k])
    return held
