"""Planted: gradients that vanish, explode or grow for a while."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import gradlab
from analyses._diagnosis_given import (
    Array,
    Build,
    Case,
    Given,
    Half,
    given,
    network,
    norm_preserving,
    planted,
    regression,
)
from gradlab.diagnosis.rules_flow import EXPLODED
from gradlab.diagnosis.rules_memory import LOST
from gradlab.inits import gaussian, identity, orthogonal

TANH, LINEAR, RELU = gradlab.Elman(), gradlab.Elman("linear"), gradlab.Elman("relu")


def rescaled(
    cell: Any, layer: str, recurrent: Any, *, T: int, H: int, layers: int = 1, both: bool = False, memory: float = 100.0
) -> Build:
    """A network in order, but for the recurrent matrix of `layer`: gate by gate from `recurrent`."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, layers=layers, both=both)
        params = norm_preserving(rng, net, memory=memory)
        key = f"{layer}.R" if f"{layer}.R" in params else f"{layer}.U"
        rows, columns = params[key].shape
        params[key] = np.concatenate([recurrent(rng, (H, columns)) for _ in range(rows // H)])
        return given(net, params, regression(rng, net, T, 8), scale)

    return build


def default(cell: Any, *, T: int, H: int, layers: int = 1, **options: Any) -> Build:
    """A network as its cell initialises it, whatever the length of the sequences."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, layers=layers)
        return given(net, net.init(rng, **options), regression(rng, net, T, 8), scale)

    return build


def pulse(at: int, *, T: int, H: int, layers: int = 1) -> Build:
    """One input so large that every unit of the lowest layer saturates at that step: no gradient passes it on its way back."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(TANH, 4, H, layers=layers)
        params = norm_preserving(rng, net)
        x = rng.standard_normal((T, 8, 4))
        loud = rng.standard_normal((8, 4))
        x[at] = 15.0 * loud / np.abs(loud @ params["0.W"].T).min(axis=1, keepdims=True)
        return given(net, params, regression(rng, net, T, 8, x=x), scale)

    return build


def chain(rng: np.random.Generator, H: int, radius: float, link: float) -> Array:
    """Units that feed each other one by one with the weight `link`, and each itself with `radius`, in a random basis: all
    eigenvalues are `radius`, yet a signal grows for a while.
    """
    Q = orthogonal()(rng, (H, H))
    return np.asarray(Q @ (radius * np.eye(H) + link * np.eye(H, k=1)) @ Q.T)


def peak(H: int, radius: float, link: float) -> int:
    """The power of a `chain` whose Frobenius norm is largest: that is what a random gradient sees, in any basis."""
    U, power, sizes = radius * np.eye(H) + link * np.eye(H, k=1), np.eye(H), [0.0]
    for _ in range(20 * H):
        power = power @ U
        sizes.append(float(np.linalg.norm(power)))
    return int(np.argmax(sizes))


def growing(cell: Any, layer: str, H: int, radius: float, link: float, *, T: int, layers: int = 1, inputs: float = 0.1) -> Build:
    """A `chain` as recurrent matrix of `layer`. `inputs`: so small that a tanh net stays in its linear range."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, layers=layers)
        params = norm_preserving(rng, net, inputs)
        params[f"{layer}.U"] = chain(rng, H, radius, link)
        return given(net, params, regression(rng, net, T, 8), scale)

    return build


def falls(gain: float, nats: float) -> int:
    """The first lag at which ln gain^lag lies beyond `nats`: an orthogonal matrix times `gain` changes every gradient so."""
    return int(np.ceil(nats / np.log(gain)))


def flow(half: Half) -> Iterator[Case]:
    """The cases of one half."""
    yield from (_first if half == "calibration" else _second)(half)


def _linear(half: Half, code: str, gain: float, T: int, H: int, layers: int = 1, backward: bool = False) -> Case:
    """An orthogonal matrix times `gain` in the top layer of a linear net: where the rule's limit is passed is known."""
    layer = f"{layers - 1}.backward" if backward else f"{layers - 1}"
    lag = falls(gain, (LOST if gain < 1.0 else EXPLODED).value)
    place = {"layer": layer, "direction": "backward" if backward else "", "timestep": lag if backward else T - 1 - lag}
    build = rescaled(LINEAR, layer, orthogonal(gain), T=T, H=H, layers=layers, both=backward)
    name = f"{code}: linear, {gain:g} orthogonal, layer {layer}"
    return Case(name, half, code, build, place, frozenset({"initial-state"} if gain > 1.0 else ()), steps=T, family="Elman")


LOUD = ("saturated", "input-scale")
"""What a pulse is, too."""


def _first(half: Half) -> Iterator[Case]:
    yield planted(half, "vanishing", "tanh, default init, T = 100", default(TANH, T=100, H=32), {"layer": "0"}, 100, "Elman")
    yield planted(half, "vanishing", "ReLU, default init, T = 60", default(RELU, T=60, H=64), {"layer": "0"}, 60, "Elman")
    three = rescaled(TANH, "1", orthogonal(0.7), T=60, H=16, layers=3)
    yield planted(half, "vanishing", "tanh, layer 1 of 3", three, {"layer": "1"}, 60, "Elman")
    one = rescaled(TANH, "0.forward", orthogonal(0.6), T=50, H=12, both=True)
    yield planted(half, "vanishing", "tanh, forward of two", one, {"layer": "0.forward", "direction": "forward"}, 50, "Elman")
    yield _linear(half, "vanishing", 0.8, 80, 16)
    yield _linear(half, "vanishing", 0.7, 60, 8, layers=2)
    yield _linear(half, "vanishing", 0.75, 60, 12, backward=True)
    yield planted(
        half, "vanishing", "pulse at step 25", pulse(25, T=60, H=20), {"layer": "0", "timestep": 25}, 60, "Elman", *LOUD
    )
    loud = pulse(18, T=40, H=10, layers=2)
    yield planted(half, "vanishing", "pulse at step 18, 2 layers", loud, {"layer": "0", "timestep": 18}, 40, "Elman", *LOUD)

    yield _linear(half, "exploding", 1.2, 80, 16)
    yield _linear(half, "exploding", 1.3, 60, 10, layers=2)
    yield _linear(half, "exploding", 1.1, 80, 14)
    yield _linear(half, "exploding", 1.25, 70, 12, backward=True)
    irnn = rescaled(RELU, "0", identity(1.15), T=100, H=24)
    yield planted(half, "exploding", "IRNN with 1.15 I", irnn, {"layer": "0"}, 100, "Elman", "initial-state")
    chaos = rescaled(TANH, "0", gaussian(3.0), T=80, H=64)
    yield planted(half, "exploding", "chaotic tanh, gain 3", chaos, {"layer": "0"}, 80, "Elman", "initial-state")
    middle = rescaled(TANH, "1", gaussian(3.0), T=60, H=40, layers=3)
    yield planted(half, "exploding", "chaotic tanh, layer 1 of 3", middle, {"layer": "1"}, 60, "Elman", "initial-state")
    lstm = rescaled(gradlab.LSTM(), "0", gaussian(12.0), T=100, H=32, memory=2.0)
    yield planted(half, "exploding", "chaotic LSTM", lstm, {"layer": "0"}, 100, "LSTM", "saturated", "initial-state")
    gru = rescaled(gradlab.GRU(), "0", gaussian(8.0), T=100, H=32, memory=2.0)
    yield planted(half, "exploding", "chaotic GRU", gru, {"layer": "0"}, 100, "GRU", "saturated", "initial-state")

    for H, radius, link, T, layers in ((10, 0.5, 2.5, 60, 1), (16, 0.6, 1.5, 80, 1), (8, 0.4, 4.0, 50, 2)):
        place = {"layer": f"{layers - 1}", "lag": peak(H, radius, link)}
        chained = growing(LINEAR, f"{layers - 1}", H, radius, link, T=T, layers=layers)
        yield planted(
            half,
            "transient-growth",
            f"linear chain of {H}, link {link:g}",
            chained,
            place,
            T,
            "Elman",
            "vanishing",
            "initial-state",
        )
    place = {"layer": "0", "lag": peak(8, 0.5, 1.5)}
    quiet = growing(TANH, "0", 8, 0.5, 1.5, T=60, inputs=1e-5)
    yield planted(half, "transient-growth", "tanh chain of 8", quiet, place, 60, "Elman", "vanishing", "input-scale")


def _second(half: Half) -> Iterator[Case]:
    yield planted(half, "vanishing", "tanh, default init, T = 140", default(TANH, T=140, H=48), {"layer": "0"}, 140, "Elman")
    yield planted(
        half, "vanishing", "sigmoid, default init", default(gradlab.Elman("sigmoid"), T=50, H=20), {"layer": "0"}, 50, "Elman"
    )
    scrn = default(gradlab.SCRN(6, alpha=0.5), T=70, H=18)
    yield planted(half, "vanishing", "SCRN with alpha 0.5", scrn, {"layer": "0"}, 70, "SCRN", "forget-closed")
    clock = rescaled(gradlab.Clockwork((1, 2)), "0", gaussian(0.4), T=90, H=20)
    yield planted(half, "vanishing", "Clockwork, gain 0.4", clock, {"layer": "0"}, 90, "Clockwork")
    four = rescaled(TANH, "2", orthogonal(0.65), T=50, H=14, layers=4)
    yield planted(half, "vanishing", "tanh, layer 2 of 4", four, {"layer": "2"}, 50, "Elman")
    one = rescaled(TANH, "1.backward", orthogonal(0.6), T=45, H=10, layers=2, both=True)
    yield planted(
        half, "vanishing", "tanh, backward, layer 1 of 2", one, {"layer": "1.backward", "direction": "backward"}, 45, "Elman"
    )
    yield _linear(half, "vanishing", 0.85, 110, 20)
    yield _linear(half, "vanishing", 0.65, 55, 9, layers=3)
    yield _linear(half, "vanishing", 0.77, 75, 10, backward=True)
    yield planted(
        half, "vanishing", "pulse at step 31", pulse(31, T=50, H=26), {"layer": "0", "timestep": 31}, 50, "Elman", *LOUD
    )

    yield _linear(half, "exploding", 1.15, 110, 20)
    yield _linear(half, "exploding", 1.4, 50, 9, layers=3)
    yield _linear(half, "exploding", 1.09, 100, 11)
    yield _linear(half, "exploding", 1.22, 90, 10, backward=True)
    irnn = rescaled(RELU, "0", identity(1.2), T=75, H=30)
    yield planted(half, "exploding", "IRNN with 1.2 I", irnn, {"layer": "0"}, 75, "Elman", "initial-state")
    clock = rescaled(gradlab.Clockwork((1, 2), "linear"), "0", gaussian(2.0), T=60, H=24)
    yield planted(half, "exploding", "linear Clockwork", clock, {"layer": "0"}, 60, "Clockwork", "initial-state")
    scrn = rescaled(gradlab.SCRN(6), "0", gaussian(30.0), T=80, H=40)
    yield planted(half, "exploding", "chaotic SCRN", scrn, {"layer": "0"}, 80, "SCRN", "saturated", "initial-state")
    chaos = rescaled(TANH, "0", gaussian(2.5), T=90, H=80)
    yield planted(half, "exploding", "chaotic tanh, gain 2.5", chaos, {"layer": "0"}, 90, "Elman", "initial-state")
    peeping = rescaled(gradlab.LSTM(peepholes=True), "0", gaussian(14.0), T=90, H=28, memory=2.0)
    yield planted(
        half,
        "exploding",
        "chaotic LSTM with peepholes",
        peeping,
        {"layer": "0"},
        90,
        "LSTM peephole",
        "saturated",
        "initial-state",
    )

    for H, radius, link, T, layers in ((12, 0.55, 2.2, 70, 1), (9, 0.45, 3.0, 55, 3), (14, 0.5, 1.8, 75, 1)):
        place = {"layer": f"{layers - 1}", "lag": peak(H, radius, link)}
        chained = growing(LINEAR, f"{layers - 1}", H, radius, link, T=T, layers=layers)
        yield planted(
            half,
            "transient-growth",
            f"linear chain of {H}, link {link:g}",
            chained,
            place,
            T,
            "Elman",
            "vanishing",
            "initial-state",
        )
    place = {"layer": "0", "lag": peak(7, 0.45, 1.7)}
    quiet = growing(gradlab.Elman("hard_tanh"), "0", 7, 0.45, 1.7, T=50, inputs=1e-4)
    yield planted(half, "transient-growth", "hard tanh chain of 7", quiet, place, 50, "Elman", "vanishing", "input-scale")
