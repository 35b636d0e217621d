"""Planted: training runs that jump, clip wrongly, move too far or not at all. All are real runs of a small network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gradlab
from analyses._diagnosis_given import Array, Build, Case, Given, Half, network, squared
from gradlab.tasks import adding
from gradlab.training import SGD, Adam, Monitor, clip_by_norm

TANH, LSTM, GRU = gradlab.Elman(), gradlab.LSTM(), gradlab.GRU()


@dataclass(frozen=True)
class Run:
    """A training run on sums of two of `T` numbers, by hand, so that a mistake can be put anywhere into the loop.

    `rate`, `threshold`: of the unscaled loss. `clip(net, gradients, threshold)`: what the loop does before its step.
    `outliers`: updates at which one sequence in four has a target `outsize` times too large. `surge`: updates at which the rate
    is 1000 times as large. `rates`: factors on the rate of single parameters. `breaks`: the update from which on the loop's
    numbers are no numbers any more, as half precision does it.
    """

    cell: Any
    updates: int = 140
    T: int = 6
    H: int = 10
    B: int = 8
    layers: int = 1
    rate: float = 0.03
    threshold: float | None = None
    clip: Callable[..., Any] | None = None
    optimiser: Any = field(default_factory=SGD)
    outliers: tuple[int, ...] = ()
    outsize: float = 30.0
    surge: tuple[int, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    breaks: int | None = None

    def __call__(self, rng: np.random.Generator, scale: float) -> Given:
        net = network(self.cell, adding.INPUT_SIZE, self.H, layers=self.layers)
        params = net.init(rng)
        loss, monitor = squared(scale), Monitor(every=10)
        slots = {key: {slot: np.zeros_like(value) for slot in self.optimiser.slots} for key, value in params.items()}
        invariant = isinstance(self.optimiser, SGD)
        rate = self.rate / scale if invariant else self.rate
        threshold = None if self.threshold is None else self.threshold * scale
        for update in range(self.updates):
            batch = adding.sample(rng, self.B, self.T)
            if update in self.outliers:
                batch.targets[::4] *= self.outsize
            record = gradlab.bptt(net, params, batch, loss, ("states", "adjoints", "gates"))
            gradients = dict(record.gradients)
            clipped = gradients if self.clip is None else self.clip(net, gradients, threshold)
            now = rate * (1000.0 if update in self.surge else 1.0)
            count = np.asarray(update + 1)
            after = {
                key: params[key] - now * self.rates.get(key, 1.0) * self.optimiser.change(clipped[key], slots[key], count)
                for key in params
            }
            measured: dict[str, Any] = {"loss": record.loss, "gradients": gradients, "params": params, "new_params": after}
            measured |= {} if self.clip is None else {"clipped": clipped}
            if self.breaks is not None and update >= self.breaks:
                measured = {name: _spoilt(value) for name, value in measured.items()}
                after = params
            monitor.record(update, learning_rate=now, record=record, **measured)
            params = after
        options: dict[str, Any] = {"learning_rate": rate}
        if threshold is not None:
            options["clip_norm"] = threshold
        return Given(monitor, options=options)


def _spoilt(value: Any) -> Any:
    return {key: np.full_like(one, np.nan) for key, one in value.items()} if isinstance(value, dict) else np.nan


# ---- what a loop may do before its step ----------------------------------------------------------------------------------


def by_norm(net: gradlab.Network, gradients: Mapping[str, Array], threshold: float) -> dict[str, Array]:
    """As it should be."""
    return clip_by_norm(net, gradients, threshold)[0]


def nothing(net: gradlab.Network, gradients: Mapping[str, Array], threshold: float) -> dict[str, Array]:
    """Clipped before the backward pass, or after the step: the gradient that moves the parameters is the raw one."""
    return dict(gradients)


def read_out_alone(net: gradlab.Network, gradients: Mapping[str, Array], threshold: float) -> dict[str, Array]:
    """Only the parameters of the read-out were handed to the clipping function."""
    own = {key: value for key, value in gradients.items() if key.startswith("readout")}
    norm = np.sqrt(sum(float(np.square(value).sum()) for value in own.values()))
    return {key: value * min(1.0, threshold / norm) if key in own else value for key, value in gradients.items()}


def one_forgotten(net: gradlab.Network, gradients: Mapping[str, Array], threshold: float) -> dict[str, Array]:
    """The lowest layer's input weights were left out, as an embedding with an optimiser of its own is."""
    own = {key: value for key, value in gradients.items() if key not in ("0.W", "0.A")}
    norm = np.sqrt(sum(float(np.square(value).sum()) for value in own.values()))
    return {key: value * min(1.0, threshold / norm) if key in own else value for key, value in gradients.items()}


def too_late(factor: float) -> Callable[..., Any]:
    """Clipped while the loss was still scaled for half precision, to a threshold scaled by a factor too large."""

    def clip(net: gradlab.Network, gradients: Mapping[str, Array], threshold: float) -> dict[str, Array]:
        return clip_by_norm(net, gradients, factor * threshold)[0]

    return clip


def training(half: Half) -> Iterator[Case]:
    """The cases of one half."""
    yield from (_first if half == "calibration" else _second)(half)


def _case(half: Half, code: str, name: str, run: Run, place: dict[str, Any], *also: str) -> Case:
    build: Build = run
    invariant = isinstance(run.optimiser, SGD)
    return Case(
        f"{code}: {name}", half, code, build, place, frozenset(also), invariant=invariant, steps=run.updates, family="history"
    )


WILD = ("loss-jumps", "exploding", "nonfinite", "update-ratio", "cliff")


def _first(half: Half) -> Iterator[Case]:
    yield _case(half, "loss-jumps", "outliers at update 90", Run(TANH, outliers=(90,), rate=0.01), {"update": 90}, *WILD)
    clipped = Run(LSTM, outliers=(60,), threshold=3.0, clip=by_norm)
    yield _case(half, "loss-jumps", "outliers at update 60, clipped", clipped, {"update": 60})
    yield _case(half, "loss-jumps", "rate times 1000 at update 70", Run(GRU, surge=(70,), rate=0.02), {"update": 71}, *WILD)
    small = Run(LSTM, outliers=(80,), outsize=12.0)
    yield _case(half, "loss-jumps", "outliers of 12 times", small, {"update": 80}, *WILD)
    twice = Run(TANH, outliers=(40, 100), rate=0.01, updates=200, layers=2)
    yield _case(half, "loss-jumps", "outliers twice", twice, {}, *WILD)

    for cell, threshold, rate, H in ((TANH, 1e-3, 1.0, 10), (LSTM, 1e-4, 5.0, 8), (GRU, 3e-3, 1.0, 12), (TANH, 0.1, 0.02, 12)):
        small = Run(cell, threshold=threshold, rate=rate, clip=by_norm, H=H)
        yield _case(half, "clipping-always", f"{type(cell).__name__}, at {threshold:g}", small, {}, "update-ratio")
    for cell, threshold, at in ((TANH, 1e4, 80), (LSTM, 1e5, 50), (GRU, 1e3, 110)):
        large = Run(cell, threshold=threshold, outliers=(at,), rate=0.01, clip=by_norm)
        yield _case(half, "clipping-never", f"{type(cell).__name__}, at {threshold:g}", large, {}, *WILD)
    for cell, clip, threshold, layers in (
        (TANH, nothing, 0.1, 1),
        (LSTM, read_out_alone, 0.5, 2),
        (GRU, one_forgotten, 0.6, 1),
        (TANH, too_late(16.0), 0.05, 1),
    ):
        name = "too late" if clip.__name__ == "clip" else clip.__name__.replace("_", " ")
        yield _case(
            half,
            "clipping-inactive",
            f"{type(cell).__name__}, {name}",
            Run(cell, threshold=threshold, clip=clip, layers=layers),
            {},
            *WILD,
        )

    fast, slow = {"parameter": "0.U"}, {}
    yield _case(half, "update-ratio", "Adam, rate 0.5", Run(TANH, optimiser=Adam(), rate=0.5), {}, *WILD)
    yield _case(half, "update-ratio", "Adam, rate 1e-8", Run(LSTM, optimiser=Adam(), rate=1e-8), slow)
    yield _case(half, "update-ratio", "SGD, rate 1e-7", Run(GRU, rate=1e-7), slow)
    yield _case(half, "update-ratio", "Adam, rate 1e-6", Run(TANH, optimiser=Adam(), rate=1e-6), slow)
    hot = Run(TANH, optimiser=Adam(), rate=0.003, rates={"0.U": 200.0})
    yield _case(half, "update-ratio", "Adam, U at 200 times the rate", hot, fast, *WILD)
    frozen = Run(LSTM, optimiser=Adam(), rate=0.003, layers=2, rates={"1.W": 1e-6})
    yield _case(half, "update-ratio", "Adam, W of layer 1 at 1e-6 of the rate", frozen, {"parameter": "1.W", "layer": "1"})
    for cell, at in ((TANH, 45), (LSTM, 100)):
        spoilt = Run(cell, breaks=at, updates=at + 10)
        yield _case(half, "nonfinite", f"{type(cell).__name__} history, update {at}", spoilt, {"update": at})


def _second(half: Half) -> Iterator[Case]:
    cifg, peeping, before = gradlab.LSTM(coupled=True), gradlab.LSTM(peepholes=True), gradlab.GRU(reset="before")
    scrn = gradlab.SCRN(4)
    yield _case(half, "loss-jumps", "outliers at update 110", Run(peeping, outliers=(110,), rate=0.01), {"update": 110}, *WILD)
    clipped = Run(scrn, outliers=(75,), threshold=4.0, clip=by_norm, rate=0.02)
    yield _case(half, "loss-jumps", "outliers at update 75, clipped", clipped, {"update": 75})
    yield _case(half, "loss-jumps", "rate times 1000 at update 95", Run(before, surge=(95,), rate=0.025), {"update": 96}, *WILD)
    small = Run(scrn, outliers=(90,), outsize=15.0)
    yield _case(half, "loss-jumps", "outliers of 15 times", small, {"update": 90}, *WILD)
    twice = Run(cifg, outliers=(50, 130), rate=0.012, updates=180, layers=2)
    yield _case(half, "loss-jumps", "outliers twice, coupled LSTM", twice, {}, *WILD)

    for cell, threshold, rate, H in (
        (peeping, 5e-4, 2.0, 9),
        (before, 2e-4, 3.0, 14),
        (TANH, 2e-3, 1.0, 16),
        (cifg, 0.08, 0.02, 10),
    ):
        small = Run(cell, threshold=threshold, rate=rate, clip=by_norm, H=H)
        yield _case(half, "clipping-always", f"{type(cell).__name__}, at {threshold:g}", small, {}, "update-ratio")
    for cell, threshold, at in ((cifg, 2e4, 65), (before, 3e3, 95), (TANH, 5e4, 120)):
        large = Run(cell, threshold=threshold, outliers=(at,), rate=0.012, clip=by_norm)
        yield _case(half, "clipping-never", f"{type(cell).__name__}, at {threshold:g}", large, {}, *WILD)
    for cell, clip, threshold, layers in (
        (peeping, nothing, 0.08, 2),
        (before, read_out_alone, 0.4, 1),
        (cifg, one_forgotten, 0.5, 2),
        (LSTM, too_late(20.0), 0.04, 1),
    ):
        name = "too late" if clip.__name__ == "clip" else clip.__name__.replace("_", " ")
        yield _case(
            half,
            "clipping-inactive",
            f"{type(cell).__name__}, {name}",
            Run(cell, threshold=threshold, clip=clip, layers=layers),
            {},
            *WILD,
        )

    yield _case(half, "update-ratio", "Adam, rate 0.8", Run(peeping, optimiser=Adam(), rate=0.8), {}, *WILD)
    yield _case(half, "update-ratio", "Adam, rate 3e-8", Run(cifg, optimiser=Adam(), rate=3e-8), {})
    yield _case(half, "update-ratio", "SGD, rate 2e-7", Run(before, rate=2e-7), {})
    yield _case(half, "update-ratio", "Adam, rate 8e-7", Run(peeping, optimiser=Adam(), rate=8e-7), {})
    hot = Run(before, optimiser=Adam(), rate=0.002, layers=2, rates={"1.U": 300.0})
    yield _case(half, "update-ratio", "Adam, U of layer 1 at 300 times the rate", hot, {"parameter": "1.U", "layer": "1"}, *WILD)
    frozen = Run(peeping, optimiser=Adam(), rate=0.004, rates={"0.W": 1e-6})
    yield _case(half, "update-ratio", "Adam, W at 1e-6 of the rate", frozen, {"parameter": "0.W", "layer": "0"})
    for cell, at in ((cifg, 70), (before, 30)):
        spoilt = Run(cell, breaks=at, updates=at + 15)
        yield _case(half, "nonfinite", f"{type(cell).__name__} history, update {at}", spoilt, {"update": at})
