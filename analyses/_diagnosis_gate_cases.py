"""Planted: gates that are stuck, memory that is closed, units that are dead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import gradlab
from analyses._diagnosis_given import (
    Build,
    Case,
    Given,
    Half,
    block,
    given,
    network,
    norm_preserving,
    planted,
    regression,
    symbols,
)
from gradlab.inits import identity

LSTM, GRU = gradlab.LSTM(), gradlab.GRU()


def biased(
    cell: Any,
    gate: str,
    layer: str,
    bias: float,
    *,
    T: int,
    H: int,
    layers: int = 1,
    both: bool = False,
    share: float = 1.0,
    memory: float = 100.0,
    readout: Any = "last",
    one_hot: bool = False,
) -> Build:
    """A network in order, but for the bias of one gate ("h": of a net without gates) in `share` of the units of `layer`."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        D, p = (6, 6) if one_hot else (4, 1)
        net = network(cell, D, H, layers=layers, both=both, readout=readout, p=p)
        params = norm_preserving(rng, net, memory=memory)
        own = next(one.cell for one in net.layers if one.name == layer)
        at = block(own, gate, H) if gate != "h" else slice(0, H)
        chosen = np.arange(at.start, at.start + round(share * H))
        params[f"{layer}.b"][chosen] = bias * (np.sign(rng.standard_normal(len(chosen))) if gate in "ghn" else 1.0)
        batch = (symbols if one_hot else regression)(rng, net, T, 8)
        return given(net, params, batch, scale)

    return build


def flooded(cell: Any, gate: str, first: int, last: int, *, T: int, H: int) -> Build:
    """An input that shuts one gate from step `first` to before `last`, and is 0 elsewhere."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, readout="every")
        params = norm_preserving(rng, net)
        W = params["0.W"]
        W[:, 3] = 0.0
        W[block(cell, gate, H), 3] = -1.0
        x = rng.standard_normal((T, 8, 4))
        x[:, :, 3] = 0.0
        x[first:last, :, 3] = 12.0
        return given(net, params, regression(rng, net, T, 8, x=x), scale)

    return build


def closed(cell: Any, layer: str, bias: float, *, T: int, H: int, layers: int = 1, both: bool = False) -> Build:
    """Forget (or update) gates that start with `bias`, the other layers and gates in order."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, layers=layers, both=both)
        params = norm_preserving(rng, net)
        params[f"{layer}.b"][:] = 0.0
        params[f"{layer}.b"][block(cell, "f" if "f" in cell.gates else "z", H)] = bias
        return given(net, params, regression(rng, net, T, 8), scale)

    return build


def dead(cell: Any, layer: str, share: float, *, T: int, H: int, layers: int = 1, readout: Any = "last") -> Build:
    """Biases so negative, as one far too large update leaves them, that `share` of the ReLU units are 0 for every input."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, layers=layers, readout=readout)
        params = norm_preserving(rng, net)
        for one in net.layers:
            params[f"{one.name}.U"] = identity(0.99)(rng, (H, H))
            params[f"{one.name}.b"][:] = 0.02
        chosen = rng.permutation(H)[: round(share * H)]
        params[f"{layer}.b"][chosen] = -25.0
        return given(net, params, regression(rng, net, T, 8), scale)

    return build


def gates(half: Half) -> Iterator[Case]:
    """The cases of one half."""
    yield from (_first if half == "calibration" else _second)(half)


def _first(half: Half) -> Iterator[Case]:
    shut = ("vanishing", "forget-closed", "unused-layer", "initial-state", "ill-conditioned")
    for gate, bias, T, H in (("o", -9.0, 40, 16), ("i", -9.0, 30, 12), ("g", 7.0, 30, 16), ("i", 9.0, 40, 8)):
        stuck = biased(LSTM, gate, "0", bias, T=T, H=H)
        yield planted(half, "saturated", f"LSTM, {gate} at {bias:+g}", stuck, {"layer": "0", "gate": gate}, T, "LSTM", *shut)
    upper = biased(LSTM, "o", "1", -9.0, T=30, H=12, layers=3)
    yield planted(half, "saturated", "LSTM, o of layer 1 of 3", upper, {"layer": "1", "gate": "o"}, 30, "LSTM", *shut)
    some = biased(LSTM, "o", "0", -8.0, T=25, H=20, share=0.75)
    yield planted(half, "saturated", "LSTM, o of 3 units in 4", some, {"layer": "0", "gate": "o"}, 25, "LSTM", *shut)
    reset = biased(GRU, "r", "0", -9.0, T=40, H=16)
    yield planted(half, "saturated", "GRU, r shut", reset, {"layer": "0", "gate": "r"}, 40, "GRU", *shut)
    other = biased(GRU, "n", "0.backward", 7.0, T=30, H=10, both=True, memory=10.0)
    place = {"layer": "0.backward", "direction": "backward", "gate": "n"}
    yield planted(half, "saturated", "GRU, n, backward", other, place, 30, "GRU", *shut)
    tanh = biased(gradlab.Elman(), "h", "0", 5.0, T=30, H=20, one_hot=True, readout="every")
    yield planted(half, "saturated", "tanh at its ends", tanh, {"layer": "0", "gate": "h"}, 30, "Elman", *shut)
    stretch = flooded(LSTM, "o", 20, 45, T=60, H=12)
    place = {"layer": "0", "gate": "o", "timestep": 20}
    yield planted(half, "saturated", "LSTM, o from step 20", stretch, place, 60, "LSTM", "input-scale", *shut)

    lost = ("vanishing", "saturated", "short-horizon")
    for cell, family, bias, T, H, layers in (
        (LSTM, "LSTM", -1.0, 60, 16, 1),
        (LSTM, "LSTM", 0.0, 100, 24, 1),
        (LSTM, "LSTM", -6.0, 40, 10, 2),
        (GRU, "GRU", -2.0, 60, 16, 1),
        (GRU, "GRU", 0.0, 100, 12, 1),
    ):
        shutting = closed(cell, "0", bias, T=T, H=H, layers=layers)
        name = f"{family}, bias {bias:+g}, T = {T}"
        place = {"layer": "0", "gate": "f" if family == "LSTM" else "z"}
        yield planted(half, "forget-closed", name, shutting, place, T, family, *lost)
    back = closed(LSTM, "0.backward", -1.0, T=50, H=12, both=True)
    place = {"layer": "0.backward", "direction": "backward", "gate": "f"}
    yield planted(half, "forget-closed", "LSTM, backward", back, place, 50, "LSTM", *lost)

    gone = ("vanishing", "unused-layer", "ill-conditioned", "initial-state")
    for cell, family, share, T, H, layers, layer in (
        (gradlab.Elman("relu"), "Elman", 0.8, 30, 20, 1, "0"),
        (gradlab.Elman("relu"), "Elman", 1.0, 25, 16, 2, "1"),
        (gradlab.Elman("relu"), "Elman", 0.6, 40, 32, 2, "0"),
        (gradlab.irnn(), "Elman", 0.9, 30, 40, 1, "0"),
    ):
        killed = dead(cell, layer, share, T=T, H=H, layers=layers)
        name = f"{share:.0%} of {H}, layer {layer} of {layers}"
        yield planted(half, "dead-relu", name, killed, {"layer": layer}, T, family, *gone)


def _second(half: Half) -> Iterator[Case]:
    shut = ("vanishing", "forget-closed", "unused-layer", "initial-state", "ill-conditioned")
    cifg, peeping, before = gradlab.LSTM(coupled=True), gradlab.LSTM(peepholes=True), gradlab.GRU(reset="before")
    for cell, family, gate, bias, T, H in (
        (peeping, "LSTM peephole", "o", -8.0, 35, 14),
        (peeping, "LSTM peephole", "i", -10.0, 45, 10),
        (cifg, "LSTM coupled", "g", 6.0, 25, 18),
        (LSTM, "LSTM", "i", 8.0, 30, 20),
        (before, "GRU before", "r", -10.0, 50, 12),
    ):
        stuck = biased(cell, gate, "0", bias, T=T, H=H)
        name = f"{family}, {gate} at {bias:+g}"
        yield planted(half, "saturated", name, stuck, {"layer": "0", "gate": gate}, T, family, *shut)
    some = biased(before, "r", "0", -8.0, T=30, H=20, share=0.7)
    yield planted(half, "saturated", "GRU before, r of 7 units in 10", some, {"layer": "0", "gate": "r"}, 30, "GRU before", *shut)
    upper = biased(cifg, "o", "2", -8.0, T=25, H=9, layers=3)
    yield planted(half, "saturated", "coupled LSTM, o of layer 2", upper, {"layer": "2", "gate": "o"}, 25, "LSTM coupled", *shut)
    other = biased(before, "n", "0.forward", 6.0, T=35, H=15, both=True, memory=12.0)
    place = {"layer": "0.forward", "direction": "forward", "gate": "n"}
    yield planted(half, "saturated", "GRU before, n, forward", other, place, 35, "GRU before", *shut)
    sigmoid = biased(gradlab.Clockwork((1, 2)), "h", "0", 6.0, T=25, H=24, one_hot=True, readout="every")
    yield planted(half, "saturated", "Clockwork at its ends", sigmoid, {"layer": "0", "gate": "h"}, 25, "Clockwork", *shut)
    stretch = flooded(peeping, "i", 15, 33, T=50, H=16)
    place = {"layer": "0", "gate": "i", "timestep": 15}
    yield planted(half, "saturated", "peephole LSTM, i from step 15", stretch, place, 50, "LSTM peephole", "input-scale", *shut)

    lost = ("vanishing", "saturated", "short-horizon")
    for cell, family, bias, T, H, layers in (
        (peeping, "LSTM peephole", -1.5, 70, 14, 1),
        (cifg, "LSTM coupled", 0.0, 80, 20, 1),
        (LSTM, "LSTM", 0.0, 120, 30, 2),
        (before, "GRU before", -1.0, 50, 18, 1),
        (GRU, "GRU", -4.0, 40, 26, 1),
    ):
        shutting = closed(cell, "0", bias, T=T, H=H, layers=layers)
        name = f"{family}, bias {bias:+g}, T = {T}"
        place = {"layer": "0", "gate": "f" if "LSTM" in family else "z"}
        yield planted(half, "forget-closed", name, shutting, place, T, family, *lost)
    back = closed(cifg, "0.forward", -2.0, T=60, H=15, both=True)
    place = {"layer": "0.forward", "direction": "forward", "gate": "f"}
    yield planted(half, "forget-closed", "coupled LSTM, forward", back, place, 60, "LSTM coupled", *lost)

    gone = ("vanishing", "unused-layer", "ill-conditioned", "initial-state")
    for cell, family, share, T, H, layers, layer in (
        (gradlab.Elman("relu"), "Elman", 0.75, 35, 28, 1, "0"),
        (gradlab.Elman("relu"), "Elman", 1.0, 20, 12, 3, "1"),
        (gradlab.Clockwork((1, 2), "relu"), "Clockwork", 0.7, 30, 30, 1, "0"),
        (gradlab.irnn(0.9), "Elman", 0.85, 25, 50, 2, "1"),
    ):
        killed = dead(cell, layer, share, T=T, H=H, layers=layers)
        name = f"{family}, {share:.0%} of {H}, layer {layer} of {layers}"
        yield planted(half, "dead-relu", name, killed, {"layer": layer}, T, family, *gone)
