"""The figure of `gru`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab import plotting  # first: it imports matplotlib so that the environment cannot prevent it

from analyses import _parts, _trials, gru  # isort: skip
from gradlab.analysis.flow import median_interval  # isort: skip

Array = npt.NDArray[Any]
NETS = {"GRU": "GRU", "LSTM 0": "LSTM, $b_f$ = 0", "LSTM 1": "LSTM, $b_f$ = 1"}
STYLE: dict[str, dict[str, Any]] = dict(zip(NETS, plotting.LINES.values(), strict=True))
MARKS = dict(zip(NETS, "os^", strict=True))


def draw(result: Mapping[str, Array]) -> Any:
    figure = plotting.new_figure(plotting.PAGE, 4.6)
    axes = figure.subplots(2, 3)
    _saving(axes[0, 0], result)
    _gaps(axes[1, 0], result)
    for column, (task, letters) in enumerate(zip(gru.TASKS, (("b", "e"), ("c", "f")), strict=True), start=1):
        _curves(axes[0, column], result, task)
        plotting.panel_label(axes[0, column], letters[0], f"{task}, $T$ = {int(result[f'{task} length'])}")
        _shares(axes[1, column], result, task)
        plotting.panel_label(axes[1, column], letters[1], f"{task}, after training")
    axes[0, 2].legend(loc="upper right", fontsize=6)
    return figure


def _saving(ax: Any, result: Mapping[str, Array]) -> None:
    lstm, own = np.moveaxis(result["counts"], -1, 0)
    share = 100.0 * (1.0 - own / lstm)  # (convention, m, n)
    sizes, keras = result["hidden sizes"], list(gru.CONVENTIONS).index("one, but two for the GRU (Keras, reset_after)")
    ax.plot(sizes, share[0, 0], "o-", color=plotting.COLOURS["black"], markersize=3, label="one, two, no bias")
    for k in range(share.shape[1]):
        dashes = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))[k % 4]
        label = f"Keras, $m$ = {int(result['input sizes'][k])}"
        ax.plot(sizes, share[keras, k], linestyle=dashes, color=plotting.COLOURS["blue"], linewidth=1.0, label=label)
    ax.axhline(100.0 / 3.0, color=plotting.COLOURS["vermilion"], linewidth=0.8)
    ax.annotate("a third", (sizes[0], 100.0 / 3.0), xytext=(0, -8), textcoords="offset points", fontsize=6.5)
    ax.set_xscale("log")
    ax.set(xlabel="hidden units $n$", ylabel="parameters saved (%)", ylim=(-13, 36), yticks=range(0, 36, 5))
    ax.legend(loc="lower center", ncols=2, columnspacing=0.8, handlelength=1.8, fontsize=6)
    plotting.panel_label(ax, "a", "saving against an LSTM")


def _curves(ax: Any, result: Mapping[str, Array], task: str) -> None:
    for who, label in NETS.items():
        cell = who.partition(" ")[0]
        rows = 100.0 * _trials.carried(result[f"{task} {cell} validation"][:, gru.chosen(result, task, who)])
        updates = result[f"{task} {cell} updates"]
        ax.plot(updates, rows.mean(axis=1), label=label, **STYLE[who])
    ax.set(xlabel="updates", ylabel="wrong in validation (%), mean", ylim=(-3, 93), xlim=(0, int(result[f"{task} budget"])))


def _shares(ax: Any, result: Mapping[str, Array], task: str) -> None:
    for k, who in enumerate(NETS):
        own = 100.0 * gru.right(result, task, who)
        colour = STYLE[who]["color"]
        ax.plot(np.linspace(k - 0.2, k + 0.15, len(own)), np.sort(own), MARKS[who], color=colour, markersize=3.5, alpha=0.7)
        low, high = median_interval(own, 0.95)
        middle = float(np.median(own))
        bar = [[middle - low], [high - middle]]
        ax.errorbar(k + 0.32, middle, bar, marker="D", markersize=3.5, color="black", capsize=2, linewidth=1.0)
    if task == "temporal order":
        ax.axhline(25.0, color=plotting.COLOURS["grey"], linewidth=0.7, linestyle=(0, (1, 2)))
        ax.annotate("a guess", (-0.4, 25.0), xytext=(0, 2), textcoords="offset points", fontsize=6.5, color="#555555")
    (n, lstm), (units, own) = result[f"{task} sizes"]
    names = [f"GRU\n$n$ = {units}\n{own} par."]
    names += [f"LSTM\n$b_f$ = {bias:g}\n$n$ = {n}\n{lstm} par." for bias in gru.FORGET_BIASES]
    ax.set_xticks(range(len(NETS)), names, fontsize=6)
    ax.set(ylabel="fresh sequences right (%)", ylim=(0, 104), xlim=(-0.5, len(NETS) - 0.4))


def _gaps(ax: Any, result: Mapping[str, Array]) -> None:
    found = gru.gaps(result)
    margin = 100.0 * _parts.MARGIN
    ax.axvspan(-margin, margin, color=plotting.COLOURS["grey"], alpha=0.2, linewidth=0)
    ax.axvline(0.0, color=plotting.COLOURS["grey"], linewidth=0.7)
    names = []
    for row, ((task, k), gap) in enumerate(found.items()):
        middle, low, high = (100.0 * value for value in (gap.median, gap.low, gap.high))
        who = f"LSTM {k}"
        bar = [[middle - low], [high - middle]]
        ax.errorbar(middle, -row, xerr=bar, marker=MARKS[who], color=STYLE[who]["color"], markersize=4, capsize=2, linewidth=1.2)
        names.append(f"{task}\n$b_f$ = {gru.FORGET_BIASES[k]:g}")
    ax.set_yticks([-row for row in range(len(names))], names, fontsize=6.5)
    ax.set(xlabel="right: GRU less LSTM (points)", ylim=(-len(names) + 0.5, 0.5))
    plotting.panel_label(ax, "d", "paired, 95 % intervals")
