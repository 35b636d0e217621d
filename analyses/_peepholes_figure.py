"""The figure of `peepholes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab import plotting  # first: it imports matplotlib so that the environment cannot prevent it

from matplotlib import colormaps  # isort: skip
from matplotlib.colors import ListedColormap  # isort: skip

from analyses import _parts, _trials, peepholes  # isort: skip

Array = npt.NDArray[Any]
STYLE: dict[str, dict[str, Any]] = {"peepholes": plotting.LINES["first"], "without": plotting.LINES["second"]}
MARKS = {"peepholes": "o", "without": "s"}
LABELS = {"peepholes": "with peepholes", "without": "without"}


def draw(result: Mapping[str, Array]) -> Any:
    figure = plotting.new_figure(plotting.PAGE, 4.8)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.1, 1.0))
    plain, peep, train = upper.subplots(1, 3, width_ratios=(1.0, 1.0, 1.25))
    curves, shares, gaps = lower.subplots(1, 3, width_ratios=(1.15, 1.0, 1.0))
    top = max(float(np.abs(result[name]).max()) for name in ("plain", "with"))
    _blocks(plain, result["plain"], top)
    plotting.panel_label(plain, "a", "without peepholes")
    image = _blocks(peep, result["with"], top)
    plotting.panel_label(peep, "b", "with peepholes")
    bar = upper.colorbar(image, ax=[plain, peep], shrink=0.85, pad=0.02)
    bar.set_label("|derivative of the gate|", fontsize=7)
    _train(train, result)
    _curves(curves, result)
    _shares(shares, result)
    _gaps(gaps, result)
    return figure


def _blocks(ax: Any, derivatives: Array, top: float) -> Any:
    """All gates' derivatives (4, H, 2H) one under another; exact zeros stay white, and nothing else is near white."""
    H = derivatives.shape[1]
    size = np.ma.masked_equal(np.abs(derivatives).reshape(4 * H, 2 * H), 0.0)
    shades = ListedColormap(colormaps["viridis_r"](np.linspace(0.25, 1.0, 256)))
    image = ax.imshow(size, cmap=shades, vmin=0.0, vmax=top, aspect="auto", interpolation="nearest")
    for k in range(1, 4):
        ax.axhline(k * H - 0.5, color="black", linewidth=0.6)
    ax.axvline(H - 0.5, color="black", linewidth=0.6)
    ax.set_xticks([0.5 * H - 0.5, 1.5 * H - 0.5], ["$c_{t-1}$", "$h_{t-1}$"])
    ax.set_yticks([(k + 0.5) * H - 0.5 for k in range(4)], [f"${gate}_t$" for gate in peepholes.GATES])
    ax.set(xlabel="state before (white: exactly 0)", ylabel="gate")
    ax.tick_params(length=0)
    return image


def _train(ax: Any, result: Mapping[str, Array]) -> None:
    """One spike train of the test, and what the median seed of each net says."""
    T = len(result["spikes"])
    t = np.arange(T)
    for row, name in enumerate(("peepholes", "without")):
        own = peepholes.right(result, name)
        seed = int(np.argsort(own, kind="stable")[len(own) // 2])
        said = result[f"{name} announced"][:, peepholes.chosen(result, name), seed]
        base = 1.3 * (1 - row)
        ax.fill_between(t, base, base + said, step="mid", color=STYLE[name]["color"], alpha=0.5, linewidth=0)
        ax.plot(t, base + said, drawstyle="steps-mid", linewidth=0.8, **STYLE[name])
        ax.annotate(LABELS[name], (0, base + 0.72), fontsize=6.5)
        due = np.flatnonzero(result["labels"])
        ax.plot(due, np.full(len(due), base + 1.1), "v", color="black", markersize=3.5)
    spikes = np.flatnonzero(result["spikes"])
    ax.vlines(spikes, 2.75, 3.25, color="black", linewidth=1.2)
    ax.set(xlabel="step", xlim=(-1, T), ylim=(-0.1, 3.4))
    ax.set_yticks([0.65, 1.95, 3.0], ["says 1", "says 1", "spikes"], fontsize=7)
    ax.tick_params(axis="y", length=0)
    plotting.panel_label(ax, "c", "a train (triangles: due)")


def _curves(ax: Any, result: Mapping[str, Array]) -> None:
    for name in peepholes.NETS:
        rows = 100.0 * _trials.carried(result[f"{name} validation"][:, peepholes.chosen(result, name)])
        ax.plot(result[f"{name} updates"], rows.mean(axis=1), label=LABELS[name], **STYLE[name])
    ax.set(xlabel="updates", ylabel="wrong in validation (%), mean", ylim=(-3, 103), xlim=(0, int(result["budget"])))
    ax.legend(loc="lower left", fontsize=6)
    intervals = result["intervals"]
    plotting.panel_label(ax, "d", f"intervals {intervals[0]} to {intervals[-1]}, $T$ = {int(result['length'])}")


def _shares(ax: Any, result: Mapping[str, Array]) -> None:
    """Every seed at every rate: the nets side by side, what validation chose filled."""
    rates = result["learning rates"]
    for side, name in enumerate(peepholes.NETS):
        colour, picked = STYLE[name]["color"], peepholes.chosen(result, name)
        for k, row in enumerate(result[f"{name} test"]):
            own = 100.0 * np.sort(1.0 - row)
            x = k - 0.36 + 0.38 * side + np.linspace(0.0, 0.24, len(own))
            face = colour if k == picked else "white"
            ax.plot(x, own, MARKS[name], color=colour, markerfacecolor=face, markersize=3.0, markeredgewidth=0.7)
            ax.plot([x[0] - 0.03, x[-1] + 0.03], [np.median(own)] * 2, color="black", linewidth=1.2)
    ax.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    ax.set(xlabel="learning rate (filled: chosen)", ylabel="fresh trains right (%)", ylim=(-3, 104))
    own, other = (int(result[f"{name} size"][1]) for name in peepholes.NETS)
    plotting.panel_label(ax, "e", f"{own} against {other} parameters")


def _gaps(ax: Any, result: Mapping[str, Array]) -> None:
    margin = 100.0 * _parts.MARGIN
    ax.axvspan(-margin, margin, color=plotting.COLOURS["grey"], alpha=0.2, linewidth=0)
    ax.axvline(0.0, color=plotting.COLOURS["grey"], linewidth=0.7)
    found = peepholes.gaps(result)
    for row, gap in enumerate(found.values()):
        middle, low, high = (100.0 * value for value in (gap.median, gap.low, gap.high))
        bar, colour = [[middle - low], [high - middle]], "black" if row == 0 else plotting.COLOURS["blue"]
        ax.errorbar(middle, -row, xerr=bar, marker="D" if row == 0 else "o", color=colour, markersize=4, capsize=2, linewidth=1.2)
    ax.set_yticks(
        [-row for row in range(len(found))], [name.replace("its best", "its\nbest rate") for name in found], fontsize=6.5
    )
    ax.set(xlabel="right: with less without (points)", ylim=(-len(found) + 0.5, 0.5), xlim=(-104, 104))
    plotting.panel_label(ax, "f", "paired, 95 % intervals")
