"""The three panels of the timing analysis: training step, analyses, gradient checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analyses._speed_checks import CHECK, MEANT, PROPERTY
from analyses._speed_rows import Array, Row, digits
from gradlab import plotting

PEERS = {"torch": ("D", "vermilion", "torch"), "jax": ("s", "blue", "JAX")}
"""Marker, colour and name of each peer."""


def figure_of(result: Mapping[str, Array], training: Sequence[Row], analyses: Sequence[Row], checks: Row) -> Any:
    """A figure of the panels for which there are times."""
    costs = _costs(result, checks)
    panels = ["a"] + ["c"] * bool(costs)
    mosaic = [[left, "b"] if analyses else [left] for left in panels]
    heights = {"a": 2.2, "c": 1.7}
    figure = plotting.new_figure(
        plotting.PAGE if analyses else plotting.COLUMN, max(sum(heights[left] for left in panels), 2.6 if analyses else 0.0)
    )
    axes = figure.subplot_mosaic(mosaic, height_ratios=[heights[left] for left in panels])
    draw_training(axes["a"], result, training)
    if analyses:
        draw_analyses(axes["b"], result, analyses)
    if costs:
        draw_costs(axes["c"], costs)
    if len(axes) > 1:
        titles = {"a": "training step", "b": "analyses", "c": "gradient checks"}
        for letter, (name, ax) in zip("abc", sorted(axes.items()), strict=False):
            plotting.panel_label(ax, letter, titles[name])
    return figure


def draw_training(ax: Any, result: Mapping[str, Array], rows: Sequence[Row]) -> None:
    """All paired ratios and their median; claimed rows in the stronger colour."""
    ratios = [row.ratios(result, "torch") for row in rows]
    widest = 1.6 * max(1.0, *(float(np.median(values)) for values in ratios))
    for place, (row, values) in enumerate(zip(rows, ratios, strict=True)):
        colour = plotting.COLOURS["vermilion"] if row.claimed else plotting.COLOURS["blue"]
        ax.plot(values, np.full(len(values), place), "|", color=plotting.COLOURS["grey"], markersize=7)
        ax.plot(np.median(values), place, "D", color=colour, markersize=5)
        if beyond := int((values > widest).sum()):  # a pair during which the machine did something else
            ax.annotate(f"{beyond} beyond", (widest, place), xytext=(0, 4), textcoords="offset points", ha="right", fontsize=6)
        at, text = (np.median(values), place), f"{np.median(values):.2f}"
        ax.annotate(text, at, xytext=(-8, 6), textcoords="offset points", ha="right", fontsize=7)
    ax.axvline(1.0, color="black", linewidth=0.8, zorder=0)
    ax.annotate("torch", (1.0, -0.45), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center")
    ax.set_yticks(range(len(rows)), [row.name for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.7)
    ax.set_xlim(0.0, widest)
    ax.set_xlabel("time / time of torch")


def draw_analyses(ax: Any, result: Mapping[str, Array], rows: Sequence[Row]) -> None:
    """How many times as fast as each peer, on a logarithmic axis, with the target of each; a miss is an open marker."""
    labels: list[str] = []
    nearest = furthest = 1.0
    for row in rows:
        for peer, target in row.targets.items():
            folds, place = 1.0 / row.ratios(result, peer), len(labels)
            marker, colour_name, name = PEERS[peer]
            colour = plotting.COLOURS[colour_name]
            labels.append(f"{row.name}: {name}")
            if np.isnan(folds).all():
                ax.annotate("not installed", (1.0, place), xytext=(3, 0), textcoords="offset points", fontsize=6.5, va="center")
                continue
            middle = 1.0 / float(np.median(1.0 / folds))
            furthest = max(furthest, middle, float(np.nanmax(folds)), target or 0.0)
            nearest = min(nearest, middle)
            ax.plot(folds, np.full(len(folds), place), "|", color=plotting.COLOURS["grey"], markersize=6)
            missed = target is not None and not row.met(result, peer)
            ax.plot(middle, place, marker, color=colour, markerfacecolor="white" if missed else colour, markersize=5)
            if target is not None:
                ax.plot([target, target], [place - 0.36, place + 0.36], "-", color="black", linewidth=1.6, zorder=3)
            text = digits(middle) + (" missed" if missed else "")
            ax.annotate(
                text,
                (1.0, place),
                xycoords=("axes fraction", "data"),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=7,
                va="center",
            )
    ax.axvline(1.0, color="black", linewidth=0.8, linestyle=":", zorder=0)
    ax.plot([], [], "|", color="black", markersize=8, markeredgewidth=1.6, label="meant to reach")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlim(min(0.5, 0.7 * nearest), 1.5 * furthest)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.legend(loc="upper left", fontsize=6.5, handlelength=1.0, borderaxespad=0.0)
    ax.set_xlabel("times as fast as torch or JAX")


def _costs(result: Mapping[str, Array], checks: Row) -> dict[str, tuple[str, Array]]:
    """Seconds of each check, with the name under which its target stands."""
    costs: dict[str, tuple[str, Array]] = {}
    if checks.key in result:
        costs["one LSTM: gradlab"] = (CHECK, result[checks.key][:, 0])
        costs["one LSTM: torch gradcheck"] = ("", result[checks.key][:, 1])
    if len(result.get("property_seconds", ())):
        costs["100 LSTMs: gradlab"] = (PROPERTY, result["property_seconds"])
    return costs


def draw_costs(ax: Any, costs: Mapping[str, tuple[str, Array]]) -> None:
    """Milliseconds of each check, all runs and their median, and what it was meant to take."""
    for place, (target, seconds) in enumerate(costs.values()):
        ax.semilogx(1e3 * seconds, np.full(len(seconds), place), "|", color=plotting.COLOURS["grey"], markersize=7)
        middle = 1e3 * float(np.median(seconds))
        missed = bool(target) and not middle <= MEANT[target]
        colour = plotting.COLOURS["green"]
        ax.plot(middle, place, "D", color=colour, markerfacecolor="white" if missed else colour, markersize=5)
        text = (f"{middle:.0f} ms" if middle < 1000.0 else f"{1e-3 * middle:.1f} s") + " missed" * missed
        ax.annotate(text, (middle, place), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7)
        if target:
            ax.plot(MEANT[target], place, "v", color="black", markerfacecolor="white", markersize=5, zorder=0)
    ax.plot([], [], "v", color="black", markerfacecolor="white", markersize=5, label="meant to take")
    ax.legend(loc="upper right", fontsize=6.5, handlelength=1.0, borderaxespad=0.0)
    ax.set_yticks(range(len(costs)), list(costs))
    ax.set_ylim(len(costs) - 0.5, -0.9)
    ax.set_xlim(3.0, 2e4)
    ax.set_xlabel("time (ms)")
