"""Planted: inputs of the wrong size, padding that is read as data, numbers that leave the range of floats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import gradlab
from analyses._diagnosis_given import Build, Case, Given, Half, given, network, norm_preserving, planted, regression, squared
from gradlab.inits import orthogonal

TANH, LINEAR, LSTM, GRU = gradlab.Elman(), gradlab.Elman("linear"), gradlab.LSTM(), gradlab.GRU()
OVERFLOWS = 308.25
"""Decimal logarithm of the largest double."""


def raw(cell: Any, low: float, high: float, *, T: int, H: int, D: int = 8, layers: int = 1) -> Build:
    """Inputs as a file has them, uniform from `low` to `high`; weights as the cell initialises them."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, D, H, layers=layers, readout="every")
        return given(net, net.init(rng), regression(rng, net, T, 8, x=rng.uniform(low, high, (T, 8, D))), scale)

    return build


def mixed(cell: Any, factor: float, *, T: int, H: int, D: int = 5) -> Build:
    """One feature in another unit than the others."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, D, H, readout="every")
        x = rng.standard_normal((T, 8, D))
        x[:, :, 2] *= factor
        return given(net, net.init(rng), regression(rng, net, T, 8, x=x), scale)

    return build


def padded(
    cell: Any, shortest: int, *, T: int, H: int, value: float = 0.0, both: bool = False, readout: Any = "last", B: int = 16
) -> Build:
    """Rows of unequal length, filled up to T with `value`, and no lengths: the shortest row ends at `shortest`."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, both=both, readout=readout)
        x = rng.standard_normal((T, B, 4))
        lengths = rng.integers(shortest + 1, T + 1, B)
        lengths[rng.integers(B)] = shortest
        behind = np.arange(T)[:, None] >= lengths
        x[behind] = value
        batch = regression(rng, net, T, B, x=x)
        if readout == "every":
            batch.targets[behind] = 0.0
        return given(net, norm_preserving(rng, net, 0.5), batch, scale)

    return build


def overflow(cell: Any, factor: float, backward: bool, *, T: int, H: int, layers: int = 1) -> Build:
    """A linear net that multiplies by `factor` at every step: its states leave the range of floats, or, where nothing is read
    before the last step, its gradient does.
    """

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, layers=layers)
        params = norm_preserving(rng, net)
        params[f"{layers - 1}.U"] = orthogonal(factor)(rng, (H, H))
        x = rng.standard_normal((T, 8, 4))
        if backward:
            x[:-1] = 0.0
        return given(net, params, regression(rng, net, T, 8, x=x), scale)

    return build


def broken_record(cell: Any, at: int, gate: str, value: float, *, T: int, H: int, layers: int = 1) -> Build:
    """What is recorded of a model that a framework ran in half precision: one gate, then the states, from step `at` on; or, for
    the gate "x", the inputs first.
    """

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, layers=layers)
        record = gradlab.bptt(net, norm_preserving(rng, net), regression(rng, net, T, 8), squared(scale))
        name = str(layers - 1) if gate != "x" else "0"
        broken = dict(record.layers)
        for key in record.layers if gate == "x" else [name]:
            layer = record.layers[key]
            states, adjoints, gates = layer.series("states").copy(), layer.series("adjoints").copy(), dict(layer.gates)
            states[at + 1 :, 3] = np.nan
            adjoints[:, 3] = np.nan
            if gate in gates:
                gates[gate] = gates[gate].copy()
                gates[gate][at, 3, 1] = value
                gates = {g: np.where(np.arange(T)[:, None, None] > at, np.nan, v) for g, v in gates.items()}
            broken[key] = replace(layer, states=states, adjoints=adjoints, gates=gates)
        inputs = record.inputs.copy()
        if gate == "x":
            inputs[at, 3, 0] = value
        outputs = record.outputs.copy()
        outputs[3] = np.nan
        return Given(replace(record, layers=broken, inputs=inputs, outputs=outputs, loss=np.asarray(np.nan)))

    return build


def data(half: Half) -> Iterator[Case]:
    """The cases of one half."""
    yield from (_first if half == "calibration" else _second)(half)


def _overflow(half: Half, factor: float, backward: bool, T: int, H: int, layers: int = 1) -> Case:
    lasts = int(OVERFLOWS / np.log10(factor))
    phase = "backward" if backward else "forward"
    place = {"layer": str(layers - 1), "phase": phase, "timestep": T - 2 - lasts if backward else lasts}
    build = overflow(LINEAR, factor, backward, T=T, H=H, layers=layers)
    name = f"nonfinite: times {factor:g} a step, {phase}"
    also = frozenset({"exploding", "input-scale", "initial-state"})
    return Case(name, half, "nonfinite", build, place, also, invariant=not backward, steps=T, family="Elman")


def _first(half: Half) -> Iterator[Case]:
    loud = ("saturated", "vanishing", "forget-closed", "ill-conditioned", "exploding")
    for cell, family, low, high, T, H in (
        (TANH, "Elman", 0.0, 255.0, 20, 16),
        (LSTM, "LSTM", 0.0, 255.0, 15, 12),
        (GRU, "GRU", -300.0, 300.0, 20, 10),
        (TANH, "Elman", 0.0, 40.0, 15, 12),
    ):
        yield planted(
            half,
            "input-scale",
            f"{family}, {low:g} to {high:g}",
            raw(cell, low, high, T=T, H=H),
            {"layer": "0"},
            T,
            family,
            *loud,
        )
    faint = raw(LSTM, -1e-5, 1e-5, T=20, H=16, layers=2)
    yield planted(half, "input-scale", "LSTM, -1e-5 to 1e-5", faint, {"layer": "0"}, 20, "LSTM", "initial-state", "unused-layer")
    tiny = raw(TANH, 0.0, 1e-4, T=10, H=20)
    yield planted(half, "input-scale", "tanh, 0 to 1e-4", tiny, {"layer": "0"}, 10, "Elman", "initial-state")
    for cell, family, factor, T, H in ((TANH, "Elman", 1e3, 15, 12), (GRU, "GRU", 1e-5, 15, 16), (LSTM, "LSTM", 300.0, 12, 10)):
        yield planted(
            half,
            "input-scale",
            f"{family}, one feature {factor:g}",
            mixed(cell, factor, T=T, H=H),
            {"layer": "0"},
            T,
            family,
            *loud,
        )

    read = ("initial-state",)
    for cell, family, shortest, T, value, both, readout in (
        (TANH, "Elman", 12, 30, 0.0, False, "last"),
        (LSTM, "LSTM", 20, 50, 0.0, False, "every"),
        (GRU, "GRU", 8, 25, -1.0, False, "last"),
        (LSTM, "LSTM", 15, 40, 0.0, True, "last"),
    ):
        filled = padded(cell, shortest, T=T, H=12, value=value, both=both, readout=readout)
        name = f"{family}, {value:g} from step {shortest}, {readout}" + ", both" * both
        yield planted(half, "padding-counted", name, filled, {"timestep": shortest}, T, family, *read)

    for factor, backward, T, H, layers in ((1e6, False, 70, 8, 1), (1e9, True, 50, 10, 1), (1e8, False, 60, 6, 2)):
        yield _overflow(half, factor, backward, T, H, layers)
    for cell, family, at, gate, value, layers in (
        (LSTM, "LSTM", 13, "x", np.nan, 1),
        (LSTM, "LSTM", 9, "i", np.inf, 2),
        (GRU, "GRU", 21, "n", np.nan, 1),
    ):
        spoilt = broken_record(cell, at, gate, value, T=30, H=8, layers=layers)
        place = {"timestep": at} if gate == "x" else {"layer": str(layers - 1), "phase": "forward", "timestep": at, "gate": gate}
        yield planted(half, "nonfinite", f"{family}, {gate} at step {at}", spoilt, place, 30, family)


def _second(half: Half) -> Iterator[Case]:
    cifg, peeping, before = gradlab.LSTM(coupled=True), gradlab.LSTM(peepholes=True), gradlab.GRU(reset="before")
    scrn, clock = gradlab.SCRN(6), gradlab.Clockwork((1, 2))
    loud = ("saturated", "vanishing", "forget-closed", "ill-conditioned", "exploding")
    for cell, family, low, high, T, H in (
        (peeping, "LSTM peephole", 0.0, 255.0, 18, 14),
        (clock, "Clockwork", -200.0, 200.0, 16, 20),
        (TANH, "Elman", 0.0, 1000.0, 25, 24),
        (cifg, "LSTM coupled", 0.0, 60.0, 18, 10),
    ):
        yield planted(
            half,
            "input-scale",
            f"{family}, {low:g} to {high:g}",
            raw(cell, low, high, T=T, H=H),
            {"layer": "0"},
            T,
            family,
            *loud,
        )
    faint = raw(before, -2e-5, 2e-5, T=15, H=12, layers=2)
    yield planted(
        half, "input-scale", "GRU before, -2e-5 to 2e-5", faint, {"layer": "0"}, 15, "GRU before", "initial-state", "unused-layer"
    )
    tiny = raw(cifg, 0.0, 3e-5, T=12, H=18)
    yield planted(half, "input-scale", "coupled LSTM, 0 to 3e-5", tiny, {"layer": "0"}, 12, "LSTM coupled", "initial-state")
    for cell, family, factor, T, H in (
        (clock, "Clockwork", 2e3, 12, 15),
        (LSTM, "LSTM", 3e-6, 20, 10),
        (before, "GRU before", 400.0, 15, 12),
    ):
        yield planted(
            half,
            "input-scale",
            f"{family}, one feature {factor:g}",
            mixed(cell, factor, T=T, H=H),
            {"layer": "0"},
            T,
            family,
            *loud,
        )

    read = ("initial-state",)
    for cell, family, shortest, T, value, both, readout in (
        (peeping, "LSTM peephole", 18, 45, 0.0, False, "last"),
        (scrn, "SCRN", 10, 35, 0.0, False, "every"),
        (before, "GRU before", 14, 40, -9.0, False, "last"),
        (TANH, "Elman", 9, 24, 0.0, True, "every"),
    ):
        filled = padded(cell, shortest, T=T, H=14, value=value, both=both, readout=readout)
        name = f"{family}, {value:g} from step {shortest}, {readout}" + ", both" * both
        yield planted(half, "padding-counted", name, filled, {"timestep": shortest}, T, family, *read, *(loud if value else ()))

    for factor, backward, T, H, layers in ((1e7, False, 80, 7, 1), (1e8, True, 60, 9, 2), (1e10, False, 45, 5, 3)):
        yield _overflow(half, factor, backward, T, H, layers)
    for cell, family, at, gate, value, layers in (
        (peeping, "LSTM peephole", 17, "x", np.inf, 2),
        (cifg, "LSTM coupled", 6, "g", np.nan, 1),
        (before, "GRU before", 28, "r", np.nan, 3),
    ):
        spoilt = broken_record(cell, at, gate, value, T=35, H=9, layers=layers)
        place = {"timestep": at} if gate == "x" else {"layer": str(layers - 1), "phase": "forward", "timestep": at, "gate": gate}
        yield planted(half, "nonfinite", f"{family}, {gate} at step {at}", spoilt, place, 35, family)
