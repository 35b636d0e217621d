"""Planted: a memory or a truncation too short for what is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import gradlab
from analyses._diagnosis_given import Build, Case, Given, Half, given, network, norm_preserving, planted, regression, remember

TANH, LINEAR = gradlab.Elman(), gradlab.Elman("linear")


def forgetting(cell: Any, taus: tuple[float, ...], dependency: int, *, T: int, H: int) -> Build:
    """Layers whose memory decays by 1/e in `taus` steps, asked to bridge `dependency`. Recurrent weights of gates are small, for
    what they feed back is remembered, too.
    """

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, layers=len(taus))
        params = norm_preserving(rng, net)
        for layer, tau in zip(net.layers, taus, strict=True):
            if cell.gates:
                remember(params, layer, tau)
                params[f"{layer.name}.U"] *= 0.1
            else:
                params[f"{layer.name}.U"] *= np.exp(-1.0 / tau)
        return given(net, params, regression(rng, net, T, 16), scale, dependency=dependency)

    return build


def truncated(cell: Any, k: int, *, T: int, H: int, layers: int = 1) -> Build:
    """A network that keeps its gradient, trained with truncation after `k` steps; the loss at the last step needs them all."""

    def build(rng: np.random.Generator, scale: float) -> Given:
        net = network(cell, 4, H, layers=layers)
        return given(net, norm_preserving(rng, net), regression(rng, net, T, 8), scale, truncation=k)

    return build


def memory(half: Half) -> Iterator[Case]:
    """The cases of one half."""
    yield from (_first if half == "calibration" else _second)(half)


def _first(half: Half) -> Iterator[Case]:
    for cell, family, taus, dependency, T, H in (
        (gradlab.LSTM(), "LSTM", (10.0,), 80, 100, 16),
        (gradlab.GRU(), "GRU", (8.0,), 60, 80, 12),
        (LINEAR, "Elman", (6.0,), 40, 60, 16),
        (LINEAR, "Elman", (3.0, 5.0), 40, 50, 8),
    ):
        forgets = forgetting(cell, taus, dependency, T=T, H=H)
        name = f"{family}, {max(taus):g} of {dependency}"
        place = {"layer": str(np.argmax(taus))}
        yield planted(half, "short-horizon", name, forgets, place, T, family, "forget-closed", "vanishing")

    for cell, family, k, T in (
        (LINEAR, "Elman", 5, 60),
        (TANH, "Elman", 3, 40),
        (gradlab.LSTM(), "LSTM", 8, 80),
        (gradlab.GRU(), "GRU", 4, 50),
    ):
        yield planted(half, "truncation-short", f"{family}, {k} of {T}", truncated(cell, k, T=T, H=12), {}, T, family)


def _second(half: Half) -> Iterator[Case]:
    cifg, before = gradlab.LSTM(coupled=True), gradlab.GRU(reset="before")
    for cell, family, taus, dependency, T, H in (
        (cifg, "LSTM coupled", (9.0,), 75, 90, 14),
        (before, "GRU before", (7.0,), 50, 60, 18),
        (LINEAR, "Elman", (7.0,), 50, 75, 12),
        (LINEAR, "Elman", (2.0, 6.0, 4.0), 45, 55, 10),
    ):
        forgets = forgetting(cell, taus, dependency, T=T, H=H)
        name = f"{family}, {max(taus):g} of {dependency}"
        place = {"layer": str(np.argmax(taus))}
        yield planted(half, "short-horizon", name, forgets, place, T, family, "forget-closed", "vanishing")

    peeping = gradlab.LSTM(peepholes=True)
    for cell, family, k, T in (
        (LINEAR, "Elman", 6, 70),
        (cifg, "LSTM coupled", 7, 60),
        (peeping, "LSTM peephole", 5, 50),
        (before, "GRU before", 6, 60),
    ):
        yield planted(half, "truncation-short", f"{family}, {k} of {T}", truncated(cell, k, T=T, H=15), {}, T, family)
