"""The figure of `temporal_order`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab import plotting  # first: it imports matplotlib so that the environment cannot prevent it

from analyses import _members, temporal_order  # isort: skip
from analyses.temporal_order import WAYS  # isort: skip

Array = npt.NDArray[Any]


def carried(rows: Array) -> Array:
    """`rows` (windows, seeds) with the last number of a member that stopped held until the end."""
    held = rows.copy()
    for k in range(1, len(held)):
        held[k] = np.where(np.isnan(held[k]), held[k - 1], held[k])
    return held


def draw(result: Mapping[str, Array]) -> Any:
    figure = plotting.new_figure(plotting.PAGE, 5.0)
    upper, lower = figure.subfigures(2, 1)
    losses = upper.subplots(1, len(WAYS), sharex=True, sharey=True)
    share, norms = lower.subplots(1, 2)
    lines = dict(zip(WAYS, ({"color": plotting.COLOURS["grey"], "linestyle": "-."}, *plotting.LINES.values()), strict=True))
    seeds = result["plain_test"].shape[1]
    rates = result["learning_rates"]
    window = int(result["window"])
    for letter, ax, (way, label) in zip("abcd", losses, WAYS.items(), strict=True):
        k = temporal_order.chosen_rate(result, way)
        loss = carried(result[f"{way}_loss"][:, k])
        plotting.band(ax, window * (np.arange(len(loss)) + 0.5), loss.T, "", **lines[way])
        ax.axhline(np.log(4.0), color=plotting.COLOURS["grey"], linewidth=0.7, linestyle=(0, (1, 2)))
        ax.set_xlabel("updates")
        plotting.panel_label(ax, letter, label.replace(" and ", "\nand "))
    losses[0].set_ylabel("training loss (nats)")
    losses[0].set_xlim(0, int(result["updates"]))
    losses[0].annotate(
        "a guess, ln 4",
        (0.97, np.log(4.0)),
        xycoords=("axes fraction", "data"),
        **{"xytext": (0, 2), "textcoords": "offset points", "ha": "right", "fontsize": 6.5, "color": "#555555"},
    )
    markers = dict(zip(WAYS, "^osD", strict=True))
    width = 0.8 / len(rates)
    for place, way in enumerate(WAYS):
        chosen = temporal_order.chosen_rate(result, way)
        for k in range(len(rates)):
            won = int(temporal_order.successes(result, way)[k])
            low, high = _members.interval(won, seeds)
            at = place + (k - 0.5 * (len(rates) - 1)) * width
            error = [[100 * (won / seeds - low)], [100 * (high - won / seeds)]]
            share.errorbar(
                at,
                100 * won / seeds,
                error,
                color=lines[way]["color"],
                marker=markers[way],
                markerfacecolor=None if k == chosen else "white",
                markersize=4.5,
                linewidth=1.0,
                capsize=2,
            )
            share.annotate(f"{rates[k]:g}", (at, 105), ha="center", fontsize=6)
    share.set_xticks(range(len(WAYS)), [label.replace(" and ", "\nand ") for label in WAYS.values()])
    share.set(ylabel="successful seeds (%)", ylim=(-4, 114), xlim=(-0.5, len(WAYS) - 0.5))
    plotting.panel_label(share, "e", f"{seeds} seeds, 95 % intervals, by rate (filled: chosen)")
    for way, label in WAYS.items():
        top = result[f"{way}_gradient_norm"][:, temporal_order.chosen_rate(result, way)]
        x = window * (np.arange(len(top)) + 0.5)
        largest = np.where(np.isnan(top), 0.0, top).max(axis=1)  # of those who still train
        norms.semilogy(x[largest > 0], largest[largest > 0], label=label, linewidth=1.0, **lines[way])
    norms.axhline(float(result["clip_norm"]), color=plotting.COLOURS["grey"], linewidth=0.7, linestyle=(0, (1, 2)))
    norms.set(xlabel="updates", ylabel="largest gradient norm", xlim=(0, int(result["updates"])))
    norms.set_ylim(top=norms.get_ylim()[1] * 30)
    norms.legend(loc="upper left", ncols=2, columnspacing=0.8, fontsize=6.5)
    plotting.panel_label(norms, "f", f"before clipping, of {seeds} seeds; who succeeds stops")
    return figure
