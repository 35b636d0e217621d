"""Networks and training runs in order: untrained ones from published recipes, and trained ones that learnt their task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import gradlab
from analyses._diagnosis_given import (
    HEALTHY,
    Build,
    Case,
    Given,
    Half,
    block,
    given,
    network,
    norm_preserving,
    regression,
    squared,
    symbols,
)
from analyses._diagnosis_structure_cases import carried_over
from analyses._diagnosis_trained import echo, sums, trained
from gradlab.inits import gaussian, identity, random_bias

TANH, RELU, LSTM, GRU = gradlab.Elman(), gradlab.Elman("relu"), gradlab.LSTM(), gradlab.GRU()


def fresh(cell: Any, T: int, H: int, *, D: int = 4, B: int = 8, options: Any = None, told: Any = None, **shape: Any) -> Build:
    """As the cell's own init makes it, with `options`."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, D, H, **shape)
        return given(net, net.init(rng, **(options or {})), regression(rng, net, T, B), scale, **(told or {}))

    return build


def keeping(cell: Any, T: int, H: int, *, inputs: float = 0.2, told: Any = None, **shape: Any) -> Build:
    """Orthogonal matrices, gates open for as long as the sequence."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, **shape)
        return given(net, norm_preserving(rng, net, inputs, float(T)), regression(rng, net, T, 8), scale, **(told or {}))

    return build


def critical(T: int, H: int, variance: float) -> Build:
    """A wide tanh net on the critical line: random weights and biases."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(TANH, 4, H)
        params = net.init(rng, recurrent_init=gradlab.inits.critical_tanh(variance), input_init=gaussian(0.1))
        return given(net, random_bias(rng, params, variance), regression(rng, net, T, 8), scale)

    return build


def chrono(cell: Any, T: int, H: int) -> Build:
    """Forget biases ln U[1, T-1], input biases their negatives (Tallec & Ollivier 2018)."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H)
        params = norm_preserving(rng, net)
        keep = np.log(rng.uniform(1.0, T - 1.0, H))
        params["0.b"][block(cell, "f" if "f" in cell.gates else "z", H)] = keep
        if "i" in cell.gates:
            params["0.b"][block(cell, "i", H)] = -keep
        return given(net, params, regression(rng, net, T, 8), scale)

    return build


def half_on(T: int, H: int, layers: int) -> Build:
    """A ReLU net whose units are on for about half of the inputs."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(RELU, 4, H, layers=layers)
        params = net.init(rng, input_init=gaussian(np.sqrt(2.0)), recurrent_init=identity(0.95))
        return given(net, params, regression(rng, net, T, 16), scale)

    return build


def language(cell: Any, T: int, H: int, **shape: Any) -> Build:
    """One-hot symbols, the cross-entropy at every step."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 12, H, readout="every", p=12, **shape)
        return given(net, norm_preserving(rng, net, 1.0, 2.0 * T), symbols(rng, net, T, 8), scale)

    return build


def fading(steps: float, T: int, H: int, told: dict[str, int]) -> Build:
    """A linear net that forgets by 1/e in `steps`, which is enough for what it is told of the task."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(gradlab.Elman("linear"), 4, H)
        params = norm_preserving(rng, net)
        params["0.U"] *= np.exp(-1.0 / steps)
        return given(net, params, regression(rng, net, T, 8), scale, **told)

    return build


def steady(cell: Any, rate: float, T: int, H: int, **shape: Any) -> Build:
    """Centred inputs of unit variance, and a learning rate at which gradient descent on this batch goes down."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, **shape)
        params = norm_preserving(rng, net, 0.5, 5.0)
        return given(net, params, regression(rng, net, T, 8), scale, learning_rate=rate / scale)

    return build


def ragged(cell: Any, T: int, H: int, **shape: Any) -> Build:
    """Rows of unequal length, padded, with their lengths."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, **shape)
        lengths = rng.integers(T // 2, T + 1, 12)
        x = np.where(np.arange(T)[:, None, None] < lengths[:, None], rng.standard_normal((T, 12, 4)), 0.0)
        batch = regression(rng, net, T, 12, x=x)
        return given(net, norm_preserving(rng, net, 0.2, T), gradlab.Batch(x, batch.targets, lengths=lengths), scale)

    return build


def alone(cell: Any, H: int, *, record: bool = False, dtype: Any = np.float64, **shape: Any) -> Build:
    """A model without data or loss; or its record, all that is left of a pass."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, **shape)
        params = {key: value.astype(dtype) for key, value in norm_preserving(rng, net, 0.1, 150.0).items()}
        if record:
            return Given(gradlab.bptt(net, params, regression(rng, net, 30, 8), squared(scale)))
        return Given(net, params)

    return build


def healthy(half: Half) -> Iterator[Case]:
    """The cases of one half."""
    for name, build, family, invariant in (_first if half == "calibration" else _second)():
        yield Case(f"healthy: {name}", half, HEALTHY, build, invariant=invariant, family=family)


Row = tuple[str, Build, str, bool]


def _first() -> Iterator[Row]:
    yield "tanh, orthogonal, T = 40", keeping(TANH, 40, 24), "Elman", True
    yield "tanh, orthogonal, 3 layers", keeping(TANH, 25, 16, layers=3), "Elman", True
    yield "tanh, critical, 100 units", critical(25, 100, 0.05), "Elman", True
    yield "tanh, default, T = 8", fresh(TANH, 8, 16), "Elman", True
    yield "LSTM, forget bias for T = 60", keeping(LSTM, 60, 16), "LSTM", True
    yield "LSTM, forget bias 4, T = 50", fresh(LSTM, 50, 16, options={"forget_bias": 4.0}), "LSTM", True
    yield "LSTM, default, T = 10", fresh(LSTM, 10, 20), "LSTM", True
    yield "LSTM, forget bias 0, T = 6", fresh(LSTM, 6, 12, options={"forget_bias": 0.0}), "LSTM", True
    yield "LSTM, 3 layers", fresh(LSTM, 12, 12, layers=3), "LSTM", True
    yield "LSTM, both directions, 2 layers", fresh(LSTM, 10, 10, layers=2, both=True, readout="every"), "LSTM", True
    yield "LSTM, chrono, T = 80", chrono(LSTM, 80, 24), "LSTM", True
    yield "GRU, default, T = 10", fresh(GRU, 10, 16), "GRU", True
    yield "GRU, update bias for T = 50", keeping(GRU, 50, 12), "GRU", True
    yield "GRU, both directions", keeping(GRU, 20, 10, both=True), "GRU", True
    yield "IRNN, T = 60", fresh(gradlab.irnn(), 60, 32), "Elman", True
    yield "ReLU, half of the units on", half_on(20, 32, 1), "Elman", True
    yield "LSTM, one-hot, cross-entropy", language(LSTM, 30, 16), "LSTM", True
    yield "tanh, one-hot, cross-entropy", language(TANH, 10, 16), "Elman", True
    yield "GRU, padded, with lengths", ragged(GRU, 30, 12), "GRU", True
    yield "LSTM, padded, with lengths, both", ragged(LSTM, 24, 10, both=True), "LSTM", True
    yield "LSTM alone, no data, no loss", alone(LSTM, 16), "LSTM", False
    yield "GRU alone, float32", alone(GRU, 12, dtype=np.float32), "GRU", False
    yield "LSTM, its record", alone(LSTM, 12, record=True), "LSTM", True
    spans = {"dependency": 10, "truncation": 25}
    yield "LSTM, short dependency, long truncation", keeping(LSTM, 30, 12, told=spans), "LSTM", True
    yield "linear, keeps 9 steps, needs 6", fading(9.0, 40, 12, {"dependency": 6, "truncation": 25}), "Elman", True
    yield "tanh, SGD at 0.05", steady(TANH, 0.05, 15, 10, readout="every"), "Elman", True
    yield "LSTM, SGD at 0.1, 2 layers", steady(LSTM, 0.1, 12, 8, layers=2, readout="every"), "LSTM", True
    yield "GRU, state carried over, memory 8", carried_over(GRU, 100, 8.0, T=40, H=12), "GRU", True
    yield "trained LSTM, adding", trained(LSTM, sums(12), 12), "LSTM", False
    yield "trained GRU, adding, its run", trained(GRU, sums(10), 10, part="history"), "history", False
    yield "trained tanh, echo", trained(TANH, echo(3, 12), 20, rate=0.01), "Elman", False
    yield "trained LSTM, echo, 2 layers", trained(LSTM, echo(2, 10), 10, layers=2, updates=200), "LSTM", False
    yield "trained tanh, adding, SGD", trained(TANH, sums(8), 16, adam=False, rate=0.05, part="history"), "history", True
    yield "trained GRU, adding, SGD", trained(GRU, sums(6), 10, adam=False, rate=0.05), "GRU", True
    yield "trained GRU, echo, net alone", trained(GRU, echo(3, 15), 14, part="net"), "GRU", False


def _second() -> Iterator[Row]:
    cifg, peeping, before = gradlab.LSTM(coupled=True), gradlab.LSTM(peepholes=True), gradlab.GRU(reset="before")
    scrn, clock = gradlab.SCRN(8), gradlab.Clockwork((1, 2, 4))
    yield "tanh, orthogonal, T = 35", keeping(TANH, 35, 40), "Elman", True
    yield "tanh, orthogonal, 4 layers", keeping(TANH, 20, 20, layers=4), "Elman", True
    yield "tanh, critical, 140 units", critical(20, 140, 0.02), "Elman", True
    yield "tanh, default, T = 7", fresh(TANH, 7, 24), "Elman", True
    yield "peephole LSTM, forget bias for T = 70", keeping(peeping, 70, 14), "LSTM peephole", True
    yield "coupled LSTM, forget bias for T = 40", keeping(cifg, 40, 18), "LSTM coupled", True
    yield "peephole LSTM, forget bias 4, T = 45", fresh(peeping, 45, 20, options={"forget_bias": 4.0}), "LSTM peephole", True
    yield "LSTM, default, T = 12", fresh(LSTM, 12, 28), "LSTM", True
    yield "coupled LSTM, 2 layers", fresh(cifg, 10, 14, layers=2), "LSTM coupled", True
    yield (
        "peephole LSTM, both directions, 2 layers",
        fresh(peeping, 9, 12, layers=2, both=True, readout="every"),
        "LSTM peephole",
        True,
    )
    yield "peephole LSTM, chrono, T = 100", chrono(peeping, 100, 20), "LSTM peephole", True
    yield "GRU before, default, T = 9", fresh(before, 9, 20), "GRU before", True
    yield "GRU before, update bias for T = 60", keeping(before, 60, 15), "GRU before", True
    yield "SCRN, T = 20", fresh(scrn, 20, 16), "SCRN", True
    yield "Clockwork, orthogonal, T = 16", keeping(clock, 16, 24), "Clockwork", True
    yield "Clockwork, default, T = 12", fresh(clock, 12, 18), "Clockwork", True
    yield "IRNN, T = 80", fresh(gradlab.irnn(), 80, 40), "Elman", True
    yield "ReLU, half of the units on, 2 layers", half_on(15, 40, 2), "Elman", True
    yield "coupled LSTM, one-hot, cross-entropy", language(cifg, 25, 20), "LSTM coupled", True
    yield "tanh, one-hot, cross-entropy, 2 layers", language(TANH, 8, 20, layers=2), "Elman", True
    yield "GRU before, padded, with lengths", ragged(before, 36, 10), "GRU before", True
    yield "peephole LSTM alone, no data, no loss", alone(peeping, 18), "LSTM peephole", False
    yield "coupled LSTM alone, float32", alone(cifg, 14, dtype=np.float32), "LSTM coupled", False
    yield "GRU before, its record", alone(before, 16, record=True), "GRU before", True
    yield "GRU, short dependency, long truncation", keeping(GRU, 40, 10, told={"dependency": 8, "truncation": 30}), "GRU", True
    yield "linear, keeps 10 steps, needs 8", fading(10.0, 45, 16, {"dependency": 8, "truncation": 30}), "Elman", True
    yield "tanh, SGD at 0.08", steady(TANH, 0.08, 18, 14, readout="every"), "Elman", True
    yield "coupled LSTM, SGD at 0.15", steady(cifg, 0.15, 10, 10, readout="every"), "LSTM coupled", True
    yield "GRU before, state carried over, memory 6", carried_over(before, 80, 6.0, T=35, H=10), "GRU before", True
    yield "trained peephole LSTM, adding", trained(peeping, sums(14), 10), "LSTM peephole", False
    yield "trained coupled LSTM, adding, its run", trained(cifg, sums(9), 12, part="history"), "history", False
    yield "trained tanh, echo of 2", trained(TANH, echo(2, 14), 24, rate=0.01), "Elman", False
    yield "trained GRU before, echo, 2 layers", trained(before, echo(3, 12), 12, layers=2, updates=200), "GRU before", False
    yield "trained GRU before, adding, SGD", trained(before, sums(7), 12, adam=False, rate=0.05, part="history"), "history", True
    yield "trained tanh, adding, SGD at 0.04", trained(TANH, sums(7), 14, adam=False, rate=0.04), "Elman", True
    yield "trained Clockwork, echo, net alone", trained(clock, echo(2, 12), 20, rate=0.01, part="net"), "Clockwork", False
