"""The figure of `adding`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab import plotting  # first: it imports matplotlib so that the environment cannot prevent it

from analyses import adding  # isort: skip

Array = npt.NDArray[Any]


def draw(result: Mapping[str, Array]) -> Any:
    lengths = [int(T) for T in result["lengths"]]
    rates = result["learning_rates"]
    figure = plotting.new_figure(plotting.PAGE, 5.4)
    grid = figure.add_gridspec(len(lengths) + 1, len(adding.CELLS), height_ratios=[1.0] * len(lengths) + [0.75])
    letters = iter("abcdefghijkl")
    dashes = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
    first = None
    for row, T in enumerate(lengths):
        for column, (name, line) in enumerate(zip(adding.CELLS, ("first", "second", "third"), strict=True)):
            ax = figure.add_subplot(grid[row, column], sharex=first, sharey=first)
            first = first or ax
            k = adding.chosen_rate(result, name, T)
            curves, updates = result[f"{name}_{T}_validation"][:, k], result[f"{name}_{T}_updates"]
            colour = plotting.LINES[line]["color"]  # the dashes tell the seeds apart
            for seed in range(curves.shape[1]):
                seen = np.isfinite(curves[:, seed])
                ax.plot(updates[seen], curves[seen, seed], color=colour, linestyle=dashes[seed % len(dashes)], linewidth=0.9)
                if seen.any() and curves[seen, seed][-1] < result["goal"]:
                    ax.plot(updates[seen][-1], curves[seen, seed][-1], "o", color=colour, markersize=3)
            ax.set_yscale("log")
            constant = float(result[f"constant_validation_{T}"])  # of these few sequences
            ax.axhline(constant, color=plotting.COLOURS["grey"], linewidth=0.7, linestyle=(0, (1, 2)))
            ax.axhline(float(result["goal"]), color=plotting.COLOURS["grey"], linewidth=0.7)
            if column == len(adding.CELLS) - 1:  # where the curves leave most room
                ends: dict[str, Any] = {"textcoords": "offset points", "fontsize": 6.5, "color": "#555555"}
                ax.annotate(f"constant answer, {constant:.3f}", (0, constant), xytext=(4, -10), **ends)
                ax.annotate(f"goal, {float(result['goal']):g}", (0, float(result["goal"])), xytext=(4, 2), **ends)
            if column == 0:
                ax.set_ylabel("validation error\n(mean square)")
            if row == len(lengths) - 1:
                ax.set_xlabel("updates")
            won = int(adding.successes(result, name, T)[k])
            plotting.panel_label(ax, next(letters), f"{adding.NAMES[name]}, $T$ = {T}: {won} of {curves.shape[1]}")
    figure.axes[0].set_ylim(top=0.5)
    figure.axes[0].set_xlim(left=0)
    table = figure.add_subplot(grid[len(lengths), :])
    table.axis("off")
    plotting.panel_label(
        table,
        next(letters),
        "seeds with a test error below the goal at each learning rate (bold: chosen in validation, shown above)",
    )
    heads = [f"{value:g}" for value in rates]
    seeds = result[f"lstm_{lengths[0]}_test"].shape[1]
    cells = [
        [f"{adding.successes(result, name, T)[k]} of {seeds}" for T in lengths for k in range(len(rates))]
        for name in adding.CELLS
    ]
    grid_of_text = table.table(
        cellText=cells,
        rowLabels=[adding.NAMES[name] for name in adding.CELLS],
        colLabels=[f"$T$ = {T}\nrate {head}" for T in lengths for head in heads],
        cellLoc="center",
        bbox=[0.12, 0.0, 0.86, 0.95],
        edges="horizontal",
    )
    grid_of_text.auto_set_font_size(False)
    grid_of_text.set_fontsize(7)
    for row, name in enumerate(adding.CELLS):
        for column, T in enumerate(lengths):
            k = adding.chosen_rate(result, name, T)
            grid_of_text[row + 1, column * len(rates) + k].set_text_props(weight="bold")
    for cell in grid_of_text.get_celld().values():
        cell.set_linewidth(0.4)
    return figure
