"""Histories for the tests of training: real runs, and monitors fed by hand."""

import numpy as np

from gradlab import Elman, Network, mean_squared_error, softmax_cross_entropy
from gradlab.batch import Batch
from gradlab.diagnosis.circumstances import Circumstances
from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.history import History
from gradlab.tasks import adding
from gradlab.training import Monitor, train


def evidence(monitor, looks=(), **told):
    """What `diagnose(monitor, ...)` shows the rules."""
    return Evidence(looks, History.of(monitor), Circumstances(**told))


def findings(rules, shown):
    with np.errstate(all="ignore"):
        return [one for rule in rules for one in rule(shown)]


def told_of(found):
    """What a change of units must leave as it is."""
    return [(one.code, one.severity, one.place, one.message) for one in found]


def noted(losses=None, before=None, after=None, every=1, **more):
    """A monitor that was told of losses (n,), and of norms before and after clipping, (n,) or {parameter: (n,)}."""
    monitor = Monitor(every=every)
    series = [values for values in (losses, before, after) if values is not None]
    first = series[0]
    for k in range(len(next(iter(first.values())) if isinstance(first, dict) else first)):
        measured = {name: value[k] for name, value in more.items()}
        if losses is not None:
            measured["loss"] = losses[k]
        for name, norms in (("gradients", before), ("clipped", after)):
            if norms is not None:
                own = norms if isinstance(norms, dict) else {"0.U": norms}
                measured[name] = {key: np.array([[values[k]]]) for key, values in own.items()}
        monitor.record(k, **measured)
    return monitor


def moved(ratios, updates=60):
    """A monitor of parameters of norm 1 that move by `ratios` {parameter: number, or (updates,)}, to and fro."""
    monitor = Monitor()
    for k in range(updates):
        before = {key: np.full((2, 2), 0.5) for key in ratios}
        after = {key: 0.5 * (1.0 + np.broadcast_to(ratio, updates)[k] * np.ones((2, 2))) for key, ratio in ratios.items()}
        monitor.record(k, params=before, new_params=after)
    return monitor


def calm(n, rng, level=1.0, noise=0.05):
    """A loss that falls slowly, with little noise."""
    return level * np.exp(-np.arange(n) / n) * np.exp(noise * rng.standard_normal(n))


def scaled(loss, by):
    """`loss` times `by`."""

    def found(outputs, targets, mask=None):
        value, gradient = loss(outputs, targets, mask)
        return value * by, gradient * by

    return found


def symbols(rng, rows=8, length=10, size=4):
    """The next symbol of a cycle that sometimes stands still."""
    steps = (rng.random((length + 1, rows)) < 0.9).astype(int)
    walk = (steps.cumsum(axis=0) + rng.integers(size, size=rows)) % size
    return Batch(np.eye(size)[walk[:-1]], walk[1:])


def trained(
    cell=None,
    updates=120,
    rate=0.03,
    optimiser=None,
    clip=None,
    scale=1.0,
    task="adding",
    outliers=(),
    H=8,
    rows=8,
    seed=0,
    U=None,
):
    """A real run, and its network; `outliers`: updates at which one target in four is 30 times too large."""
    rng, count = np.random.default_rng(seed), iter(range(10**6))

    def sample(rng):
        batch = symbols(rng, rows) if task == "symbols" else adding.sample(rng, rows, 10)
        if next(count) in outliers:
            batch.targets[::4] *= 30.0
        return batch

    sizes = (4, 4, "every") if task == "symbols" else (adding.INPUT_SIZE, 1, "last")
    net = Network(cell or Elman(), sizes[0], H, output_size=sizes[1], readout=sizes[2])
    params = net.init(rng, **({} if U is None else {"recurrent_init": U}))
    loss = scaled(softmax_cross_entropy if task == "symbols" else mean_squared_error, scale)
    monitor = Monitor(every=10 if cell is None or "relu" not in repr(cell) else 10**6)
    found = train(net, params, sample, loss, updates, rng, learning_rate=rate, optimiser=optimiser, clip=clip, monitor=monitor)
    return monitor, net, found.params
