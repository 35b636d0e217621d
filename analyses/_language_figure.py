"""The figure of `language`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab import plotting  # first: it imports matplotlib so that the environment cannot prevent it
from gradlab.tasks import python_syntax

from analyses import language  # isort: skip

Array = npt.NDArray[Any]


def draw(result: Mapping[str, Array]) -> Any:
    figure = plotting.new_figure(plotting.PAGE, 4.8)
    axes = figure.subplots(2, 2)
    left, right_ax, bars, classes = axes.ravel()
    thin = {"color": plotting.COLOURS["grey"], "linewidth": 0.8}

    updates, curve = result["characters_updates"], result["characters_curve"]
    plotting.band(left, updates, curve.T, f"LSTM ({curve.shape[1]} seeds: median, range)", **plotting.LINES["first"])
    lines = (
        ("symbol shares", result["characters_baseline"], ":"),
        ("bigram, one added", result["bigram_add_one"], "--"),
        ("bigram, best smoothing", result["bigram_costs"].min(), "-"),
    )
    for label, value, dashes in lines:
        left.axhline(float(value), linestyle=dashes, label=f"{label}, {float(value):.3f}", **thin)
    left.plot(
        np.full(curve.shape[1], updates[-1]),
        result["characters_nats"],
        "D",
        color=plotting.LINES["first"]["color"],
        markeredgecolor="black",
        markeredgewidth=0.5,
        markersize=4,
        label=f"LSTM, all held-out text, {float(np.median(result['characters_nats'])):.3f}",
        linestyle="none",
        clip_on=False,
    )
    left.set(xlabel="updates", ylabel="nats per character", xlim=(0, None))
    left.set_ylim(top=left.get_ylim()[1] + 0.75 * np.ptp(left.get_ylim()))
    left.legend(loc="upper right", fontsize=6.5)
    plotting.panel_label(left, "a", "next character, held-out text")

    for direction, line in zip(language.DIRECTIONS, ("second", "first"), strict=True):
        curve = result[f"{direction}_curve"]
        size = int(result[f"{direction}_parameters"])
        label = f"{language.DIRECTIONS[direction]}, {size} parameters"
        plotting.band(right_ax, result[f"{direction}_updates"], curve.T, label, **plotting.LINES[line])
    for label, key, dashes in (("class shares", "share_nats", ":"), ("class shares of the character", "memoryless_nats", "--")):
        right_ax.axhline(float(result[key]), linestyle=dashes, label=f"{label}, {float(result[key]):.3f}", **thin)
    right_ax.set_yscale("log")
    right_ax.set(xlabel="updates", ylabel="nats per character", xlim=(0, None))
    low, high = right_ax.get_ylim()
    right_ax.set_ylim(low, high * (high / low) ** 0.75)
    right_ax.legend(loc="upper right", fontsize=6.5)
    plotting.panel_label(right_ax, "b", f"syntax, held-out files ({curve.shape[1]} seeds)")

    for place, (direction, line) in enumerate(zip(language.DIRECTIONS, ("second", "first"), strict=True)):
        wrong = 100 * (1.0 - language.right(result, direction))
        colour = plotting.LINES[line]["color"]
        bars.plot(np.full(len(wrong), place), wrong, "os"[place], color=colour, markersize=4, markerfacecolor="white")
        bars.plot([place - 0.2, place + 0.2], [np.median(wrong)] * 2, color=colour, linestyle="-")
        x, side = ((place - 0.24, "right"), (place + 0.24, "left"))[place]
        bars.annotate(f"{np.median(wrong):.2f} %", (x, np.median(wrong)), fontsize=7, va="center", ha=side)
    for a, b in zip(language.right(result, "one"), language.right(result, "two"), strict=True):
        bars.plot([0, 1], [100 * (1 - a), 100 * (1 - b)], color=plotting.COLOURS["grey"], linestyle="-", linewidth=0.5, zorder=0)
    for label, key, dashes in (
        ("majority class", "majority", "-"),
        ("commonest class of the character", "memoryless_majority", "--"),
    ):
        value = 100 * (1.0 - float(result[key]))
        bars.axhline(value, linestyle=dashes, **thin)
        bars.annotate(
            f"{label}, {value:.1f} %", (-0.65, value), xytext=(0, 2), textcoords="offset points", fontsize=6.5, color="#555555"
        )
    bars.set_yscale("log")
    bars.set_xticks([0, 1], list(language.DIRECTIONS.values()))
    bars.set(ylabel="characters labelled wrong (%)", xlim=(-0.7, 1.7))
    bars.set_ylim(top=bars.get_ylim()[1] * 1.3)
    plotting.panel_label(bars, "c", "syntax, one line for each seed")

    names = python_syntax.CLASSES
    for direction, line, offset, marker in (("one", "second", -0.15, "o"), ("two", "first", 0.15, "s")):
        taken = result[f"{direction}_taken"]
        recall = np.diagonal(taken, axis1=-2, axis2=-1) / np.maximum(taken.sum(axis=-1), 1)
        wrong = 100 * (1.0 - recall)  # (seed, class)
        x = np.arange(len(names)) + offset
        middle = np.median(wrong, axis=0)
        error = np.abs(np.stack([wrong.min(axis=0), wrong.max(axis=0)]) - middle)
        style = {"color": plotting.LINES[line]["color"], "marker": marker, "linestyle": "none", "markersize": 4, "capsize": 2}
        classes.errorbar(x, middle, error, label=language.DIRECTIONS[direction], linewidth=0.8, **style)
    classes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    classes.set(ylabel="of the class, wrong (%)")
    classes.set_ylim(bottom=0.0, top=classes.get_ylim()[1] * 1.25)
    classes.legend(loc="upper left", ncols=2)
    plotting.panel_label(classes, "d", "by class: median and range of the seeds")
    return figure
