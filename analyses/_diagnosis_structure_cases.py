"""Planted: parts that nothing reads, states that nothing can be read from, and losses with a cliff in front."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import gradlab
from analyses._diagnosis_given import Build, Case, Given, Half, given, network, norm_preserving, planted, regression, squared
from gradlab.adapters.replay import Replayable, replay
from gradlab.adapters.watch_proof import LIMITS, Proof, deviation
from gradlab.adapters.watch_result import Watched
from gradlab.diagnosis.subject import MEASURED
from gradlab.diagnosis.unit_loss import unit_gradient
from gradlab.inits import gaussian, orthogonal

TANH, LINEAR, RELU, LEAKY = (gradlab.Elman(name) for name in ("tanh", "linear", "relu", "leaky_relu"))
LSTM, GRU = gradlab.LSTM(), gradlab.GRU()


def unread(
    cell: Any, layer: str, *, T: int, H: int, layers: int = 1, both: bool = False, factor: float = 0.0, readout: Any = "last"
) -> Build:
    """What reads `layer` (the layer above, or the read-out) has its weights multiplied by `factor`."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, layers=layers, both=both, readout=readout)
        params = norm_preserving(rng, net, 0.3, 30.0)
        level, _, direction = layer.partition(".")
        own = next(one for one in net.layers if one.name == layer)
        columns = slice(0, own.output_size) if direction != "backward" else slice(own.output_size, None)
        above = [one.name + ".W" for one in net.layers if one.name.partition(".")[0] == str(int(level) + 1)]
        for key in above or ["readout.V"]:
            params[key][:, columns] *= factor
        return given(net, params, regression(rng, net, T, 8), scale)

    return build


def carried_over(cell: Any, before: int, memory: float, *, T: int, H: int) -> Build:
    """A state that was never reset: after `before` steps of other sequences it still holds them, and the next one is short."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H)
        params = norm_preserving(rng, net, memory=memory)
        if not cell.gates:
            params["0.U"] = np.exp(-1.0 / memory) * np.eye(H)
        past = gradlab.forward(net, params, rng.standard_normal((before, 8, 4)))
        batch = regression(rng, net, T, 8)
        return Given(gradlab.bptt(net, params, batch, squared(scale), MEASURED, initial_states=past.final_states))

    return build


def low_rank(cell: Any, layer: str, rank: int, *, T: int, H: int, layers: int = 1) -> Build:
    """A recurrent matrix that rotates `rank` directions and deletes all others."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, layers=layers)
        params = norm_preserving(rng, net)
        basis = orthogonal()(rng, (H, rank))
        params[f"{layer}.U"] = basis @ orthogonal()(rng, (rank, rank)) @ basis.T
        return given(net, params, regression(rng, net, T, 8), scale)

    return build


def chaotic(cell: Any, *, T: int, H: int, gain: float) -> Build:
    """A chaotic net as `watch` replays it: two precisions, each right in every step, that end in different states."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = gradlab.Network(cell, 4, H)
        params = norm_preserving(rng, net)
        rows, columns = params["0.U"].shape
        params["0.U"] = np.concatenate([gaussian(gain)(rng, (H, columns)) for _ in range(rows // H)])
        x = rng.standard_normal((T, 8, 4))
        outputs = gradlab.forward(net, params, x).outputs
        _, dy = unit_gradient(gradlab.Batch(x, None), 0)(outputs, None)
        return Given(watched(Replayable(net, params, x, {}, None, {}, scale * dy, {})))

    return build


def watched(exact: Replayable) -> Watched:
    """What `watch` makes of a call in single precision: its replay, and how far one in double precision lies from it."""
    rough = exact.astype(np.float32)
    record = replay(rough)
    apart = {"outputs": deviation(record.outputs.astype(float), replay(exact).outputs)}
    limit = LIMITS[np.dtype(np.float32)]
    verdict = "proved" if apart["outputs"] <= limit else "ill-conditioned"
    return Watched("encoder", 0, 0, record, exact.net, rough.params, Proof(verdict, limit, apart, precisions=apart), rough)


# ---- cliffs -----------------------------------------------------------------------------------------------------------


def steep(cell: Any, rate: float, offset: float, *, T: int, H: int, readout: Any = "every") -> Build:
    """Inputs that are not centred: the loss is curved along their mean, more than descent at `rate` bears."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, readout=readout)
        params = norm_preserving(rng, net, 0.5, 5.0)
        x = offset + rng.standard_normal((T, 8, 4))
        return given(net, params, regression(rng, net, T, 8, x=x), scale, learning_rate=rate / scale)

    return build


def wall(T: int, weight: float, rate: float) -> Build:
    """One linear unit whose weight w is above 1: the loss at step T grows like w^(2T)."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(LINEAR, 1, 1)
        params = net.init(rng) | {"0.U": np.array([[weight]]), "0.W": np.ones((1, 1)), "readout.V": np.ones((1, 1))}
        return given(net, params, regression(rng, net, T, 16), scale, learning_rate=rate / scale)

    return build


def structure(half: Half) -> Iterator[Case]:
    """The cases of one half."""
    yield from (_first if half == "calibration" else _second)(half)


def _first(half: Half) -> Iterator[Case]:
    below = ("vanishing",)
    yield planted(half, "unused-layer", "LSTM, layer 0 of 2", unread(LSTM, "0", T=20, H=12, layers=2), {"layer": "0"}, 20, "LSTM")
    tanh = unread(TANH, "1", T=25, H=10, layers=3, factor=1e-9)
    yield planted(half, "unused-layer", "tanh, layer 1 of 3, 1e-9", tanh, {"layer": "1"}, 25, "Elman")
    top = unread(GRU, "0", T=15, H=8, layers=2, readout="every")
    yield planted(half, "unused-layer", "GRU, layer 0, every step", top, {"layer": "0"}, 15, "GRU")
    for cell, family, layer, layers, factor in (
        (LSTM, "LSTM", "0.backward", 1, 0.0),
        (GRU, "GRU", "1.forward", 2, 0.0),
        (TANH, "Elman", "0.forward", 2, 1e-8),
    ):
        one = unread(cell, layer, T=20, H=10, layers=layers, both=True, factor=factor, readout="every")
        place = {"layer": layer, "direction": layer.partition(".")[2]}
        yield planted(half, "unused-direction", f"{family}, {layer}", one, place, 20, family, *below)

    for cell, family, before, memory, T in (
        (RELU, "Elman", 300, 1e4, 8),
        (LINEAR, "Elman", 300, 1e3, 10),
        (GRU, "GRU", 500, 400.0, 5),
    ):
        kept = carried_over(cell, before, memory, T=T, H=12)
        name = f"{family}, {T} steps after {before}"
        yield planted(half, "initial-state", name, kept, {"layer": "0"}, T, family, "saturated")

    lost = ("vanishing",)
    for cell, layer, rank, T, H, layers in ((LINEAR, "0", 2, 40, 24, 1), (TANH, "0", 3, 30, 32, 1), (LINEAR, "1", 1, 25, 16, 2)):
        name = f"rank {rank} of {H}, layer {layer}"
        yield planted(
            half,
            "ill-conditioned",
            name,
            low_rank(cell, layer, rank, T=T, H=H, layers=layers),
            {"layer": layer},
            T,
            "Elman",
            *lost,
        )
    wild = chaotic(TANH, T=80, H=64, gain=4.0)
    yield planted(half, "sensitive", "tanh of gain 4, T = 80", wild, {}, 80, "Elman", "exploding", "saturated", "initial-state")

    ahead = ("input-scale", "exploding", "saturated")
    for cell, family, rate, offset, T, H in (
        (TANH, "Elman", 0.5, 6.0, 15, 10),
        (LINEAR, "Elman", 0.2, 3.0, 20, 8),
        (LSTM, "LSTM", 3.0, 5.0, 12, 8),
    ):
        yield planted(
            half, "cliff", f"{family}, inputs {offset:g} off", steep(cell, rate, offset, T=T, H=H), {}, T, family, *ahead
        )
    for T, weight, rate in ((60, 1.05, 0.1), (40, 1.1, 0.01)):
        yield planted(half, "cliff", f"wall of w^{2 * T}, w = {weight:g}", wall(T, weight, rate), {}, T, "Elman", *ahead)


def _second(half: Half) -> Iterator[Case]:
    below = ("vanishing",)
    cifg, peeping, before = gradlab.LSTM(coupled=True), gradlab.LSTM(peepholes=True), gradlab.GRU(reset="before")
    two = unread(peeping, "0", T=30, H=9, layers=2)
    yield planted(half, "unused-layer", "peephole LSTM, layer 0 of 2", two, {"layer": "0"}, 30, "LSTM peephole")
    tanh = unread(TANH, "2", T=20, H=14, layers=4, factor=1e-8)
    yield planted(half, "unused-layer", "tanh, layer 2 of 4, 1e-8", tanh, {"layer": "2"}, 20, "Elman")
    top = unread(cifg, "1", T=18, H=10, layers=3, readout="every")
    yield planted(half, "unused-layer", "coupled LSTM, layer 1, every step", top, {"layer": "1"}, 18, "LSTM coupled")
    for cell, family, layer, layers, factor in (
        (cifg, "LSTM coupled", "0.forward", 1, 0.0),
        (before, "GRU before", "1.backward", 2, 0.0),
        (TANH, "Elman", "1.backward", 3, 1e-9),
    ):
        one = unread(cell, layer, T=25, H=12, layers=layers, both=True, factor=factor, readout="every")
        place = {"layer": layer, "direction": layer.partition(".")[2]}
        yield planted(half, "unused-direction", f"{family}, {layer}", one, place, 25, family, *below)

    for cell, family, past, memory, T in (
        (LEAKY, "Elman", 250, 1e3, 6),
        (LINEAR, "Elman", 400, 2e3, 12),
        (before, "GRU before", 600, 300.0, 4),
    ):
        kept = carried_over(cell, past, memory, T=T, H=16)
        name = f"{family}, {T} steps after {past}"
        yield planted(half, "initial-state", name, kept, {"layer": "0"}, T, family, "saturated")

    lost = ("vanishing",)
    for cell, layer, rank, T, H, layers in ((LINEAR, "0", 3, 50, 30, 1), (TANH, "1", 2, 25, 28, 2), (LINEAR, "2", 1, 30, 20, 3)):
        name = f"rank {rank} of {H}, layer {layer}"
        yield planted(
            half,
            "ill-conditioned",
            name,
            low_rank(cell, layer, rank, T=T, H=H, layers=layers),
            {"layer": layer},
            T,
            "Elman",
            *lost,
        )
    wild = chaotic(TANH, T=90, H=48, gain=5.0)
    yield planted(half, "sensitive", "tanh of gain 5, T = 90", wild, {}, 90, "Elman", "exploding", "saturated", "initial-state")

    ahead = ("input-scale", "exploding", "saturated")
    for cell, family, rate, offset, T, H in (
        (TANH, "Elman", 0.7, 5.0, 12, 12),
        (LINEAR, "Elman", 0.3, 4.0, 16, 6),
        (cifg, "LSTM coupled", 4.0, 6.0, 10, 10),
    ):
        yield planted(
            half, "cliff", f"{family}, inputs {offset:g} off", steep(cell, rate, offset, T=T, H=H), {}, T, family, *ahead
        )
    for T, weight, rate in ((50, 1.07, 0.05), (80, 1.04, 0.02)):
        yield planted(half, "cliff", f"wall of w^{2 * T}, w = {weight:g}", wall(T, weight, rate), {}, T, "Elman", *ahead)
