"""The figure of `diagnosis_accuracy`: what was reported of each planted code, how sure that is, and where the thresholds lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab import plotting  # first: it imports matplotlib so that the environment cannot prevent it

from analyses import diagnosis_accuracy as accuracy  # isort: skip
from analyses._diagnosis_given import HEALTHY  # isort: skip
from analyses._diagnosis_scores import wilson  # isort: skip
from analyses._diagnosis_statistics import STATISTICS  # isort: skip

Array = npt.NDArray[Any]

WIDEST = 30.0
"""Times the threshold at which the axis of margins ends; what lies beyond stands at its ends."""


def draw(result: Mapping[str, Array]) -> Any:
    half = "held-out" if (accuracy.table(result)["half"] == "held-out").any() else "calibration"
    figure = plotting.new_figure(plotting.PAGE, 8.0)
    upper, lower = figure.subfigures(2, 1, height_ratios=[1.25, 1.0])
    matrix, bars = upper.subplots(1, 2, width_ratios=[2.6, 1.0], sharey=True)
    draw_matrix(matrix, result, half)
    plotting.panel_label(matrix, "a", f"{half}: reported of each planted code (%)")
    draw_codes(bars, result, half)
    plotting.panel_label(bars, "b", "dots: found; squares: placed")
    margins, whole = lower.subplots(1, 2, width_ratios=[1.9, 1.0])
    draw_margins(margins, result)
    plotting.panel_label(margins, "c", "calibration: statistic / threshold")
    draw_rates(whole, result, half)  # the red bars are what the claim asks for
    plotting.panel_label(whole, "d", f"{half}: all codes")
    return figure


def rows_of(result: Mapping[str, Array], half: str) -> list[str]:
    """The planted codes of a half, in the order of the figure, the healthy last."""
    planted = set(accuracy.table(result)["planted"][accuracy.table(result)["half"] == half])
    return [code for code in (*accuracy.CODES, HEALTHY) if code in planted]


def confusion(result: Mapping[str, Array], half: str) -> tuple[Array, list[str], list[str]]:
    """(shares (row, column), rows, columns): of the cases with one planted code, how many have a warning or an error of each
    code, or none at all.
    """
    cases = accuracy.table(result)
    rows, columns = rows_of(result, half), [*accuracy.CODES, HEALTHY]
    told = np.concatenate([result["reported"], (result["headline"] == len(accuracy.CODES))[:, None]], axis=1)
    own = [told[(cases["half"] == half) & (cases["planted"] == code)] for code in rows]
    return np.array([one.mean(axis=0) for one in own]), rows, columns


def draw_matrix(ax: Any, result: Mapping[str, Array], half: str) -> None:
    """Shares as grey, with their numbers; a cross where a case does not explain what was reported of it."""
    shares, rows, columns = confusion(result, half)
    cases = accuracy.table(result)
    ax.imshow(shares, cmap="Greys", vmin=0.0, vmax=1.15, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if share > 0.0:
            colour = "white" if share > 0.6 else "black"
            ax.text(column, row, f"{100.0 * share:.0f}", ha="center", va="center", fontsize=6, color=colour)
    for k, name in enumerate(rows):
        at = columns.index(name)
        x, y = at + 0.5 * np.array([-1, 1, 1, -1, -1]), k + 0.5 * np.array([-1, -1, 1, 1, -1])
        ax.plot(x, y, "k-", linewidth=0.6)
        odd = result["unexplained"][(cases["half"] == half) & (cases["planted"] == name)].any(axis=0)
        ax.plot(np.flatnonzero(odd) + 0.38, np.full(odd.sum(), k - 0.32), "x", color="black", markersize=2.5, markeredgewidth=0.7)
    ax.set_xticks(range(len(columns)), [*columns[:-1], "nothing"], rotation=90, fontsize=6)
    ax.set_yticks(range(len(rows)), rows, fontsize=6)
    ax.set_xlabel("reported as warning or error")
    ax.set_ylabel("planted")
    ax.tick_params(length=0)
    ax.set_ylim(len(rows) - 0.5, -0.5)


def draw_codes(ax: Any, result: Mapping[str, Array], half: str) -> None:
    """Found (dot) and rightly placed (square) with Wilson's intervals; of the healthy ones those without an alarm."""
    for k, code in enumerate(rows_of(result, half)):
        if code == HEALTHY:
            wrong, trials = accuracy.rates(result, half)["false alarms on healthy"]
            counts = [(trials - wrong, trials), (0, 0)]
        else:
            own = accuracy.rates(result, half, code)
            counts = [own["sensitivity"], own["places right"]]
        for (hits, trials), offset, marker, colour in zip(counts, (-0.18, 0.18), "os", ("black", "vermilion"), strict=True):
            if trials:
                _interval(ax, k + offset, hits, trials, marker, plotting.COLOURS[colour], 3.2)
        told = f"{counts[0][0]}/{counts[0][1]}" + (f"  {counts[1][0]}/{counts[1][1]}" if counts[1][1] else "")
        ax.annotate(told, (1.02, k), xycoords=("axes fraction", "data"), fontsize=6, va="center")
    ax.set_xlim(0.0, 104.0)
    ax.set_xticks([0, 50, 100])
    ax.set_xlabel("share (%), 95 % interval")
    ax.tick_params(axis="y", length=0, labelleft=False)


def _interval(ax: Any, y: float, hits: int, trials: int, marker: str, colour: str, size: float) -> None:
    low, high = wilson(hits, trials)
    ax.plot([100.0 * low, 100.0 * high], [y, y], "-", color=colour, linewidth=0.8, zorder=1)
    face = "white" if marker == "s" else colour
    ax.plot(100.0 * hits / trials, y, marker, color=colour, markersize=size, markerfacecolor=face, zorder=2)


def draw_margins(ax: Any, result: Mapping[str, Array]) -> None:
    """Of every statistic: cases with its own code (dots), healthy ones (rings), all others (ticks). Right of 1 it is reported."""
    cases = accuracy.table(result)
    half = cases["half"] == "calibration"
    rng = np.random.default_rng(0)  # spreads the marks
    for k, one in enumerate(STATISTICS):
        margin = one.margin(result["statistics"][:, k])
        where = np.log10(np.clip(np.nan_to_num(margin, nan=0.0, posinf=WIDEST), 1.0 / WIDEST, WIDEST))
        known = half & ~np.isnan(margin)
        own = np.array([code == one.code or (one.code == "unused" and code.startswith("unused")) for code in cases["planted"]])
        well = cases["planted"] == HEALTHY
        height = k + rng.uniform(-0.22, 0.22, len(where))
        for mask, style in (
            (known & ~own & ~well, {"marker": "|", "color": plotting.COLOURS["sky"], "markersize": 3.5, "zorder": 1}),
            (
                known & well,
                {"marker": "o", "color": plotting.COLOURS["blue"], "markersize": 3.0, "markerfacecolor": "white", "zorder": 2},
            ),
            (known & own, {"marker": "o", "color": plotting.COLOURS["vermilion"], "markersize": 3.0, "zorder": 3}),
        ):
            ax.plot(where[mask], height[mask], linestyle="none", markeredgewidth=0.6, **style)
    ax.axvline(0.0, color="black", linewidth=0.7, zorder=0)
    ends = np.log10(WIDEST)
    ax.set_xlim(-1.05 * ends, 1.05 * ends)
    ticks = [-1.0, 0.0, 1.0]
    ax.set_xticks([-ends, *ticks, ends], ["less", "0.1", "threshold", "10", "more"])
    ax.set_xlabel("in units of its threshold, towards the finding (log scale)")
    ax.set_yticks(range(len(STATISTICS)), [f"{one.code}: {one.name}" for one in STATISTICS], fontsize=6)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(STATISTICS) - 0.5, -0.5)
    for label, marker, colour, face in (
        ("planted", "o", "vermilion", None),
        ("healthy", "o", "blue", "white"),
        ("other codes planted", "|", "sky", None),
    ):
        ax.plot(
            [],
            [],
            marker,
            color=plotting.COLOURS[colour],
            markerfacecolor=face or plotting.COLOURS[colour],
            markersize=3.5,
            label=label,
        )
    ax.legend(loc="upper center", bbox_to_anchor=(0.3, -0.13), ncols=3, fontsize=6, handlelength=1.0, borderaxespad=0.0)


def draw_rates(ax: Any, result: Mapping[str, Array], half: str) -> None:
    """The rates of the verdict with Wilson's intervals, and what was claimed of them."""
    own = accuracy.rates(result, half)
    wanted = {"sensitivity": accuracy.SENSITIVITY, "places right": accuracy.PLACES, "false alarms on healthy": accuracy.ALARMS}
    for k, (name, (hits, trials)) in enumerate(own.items()):
        if not trials:
            continue
        low, high = wilson(hits, trials)
        _interval(ax, k, hits, trials, "o", "black", 4.0)
        if name in wanted:
            ax.plot(
                [100.0 * wanted[name]] * 2,
                [k - 0.16, k + 0.16],
                color=plotting.COLOURS["vermilion"],
                linestyle="-",
                linewidth=1.4,
            )
        told = f"{name}: {hits} of {trials}\n{100.0 * hits / trials:.1f} % [{100.0 * low:.1f}, {100.0 * high:.1f}]"
        at = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 6}
        ax.annotate(told, (0.0, k), xytext=(0, 8), **at)
    ax.set_xlim(-2.0, 102.0)
    ax.set_ylim(len(own) - 0.7, -0.7)
    ax.set_yticks([])
    ax.set_ylabel("rate")
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("share of the cases (%)")
