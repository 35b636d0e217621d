"""Truncated gradients beside the full one."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gradlab.analysis.truncated_gradients import Truncation
from gradlab.plotting.curves import left_out, reference_line
from gradlab.plotting.style import COLOURS


def plot_truncation(ax: Axes, result: Truncation, key: str = "layers") -> None:
    """Cosine (solid) and norm ratio (dashed) of the truncated gradient to the full one, against its reach.

    The line is the batch's (the median over an ensemble); shaded are the quartiles of single sequences, if they were computed.
    """
    reach = np.array(result.reach, float)
    order = np.argsort(reach)
    styles: tuple[tuple[str, Any, Any, dict[str, Any]], ...] = (
        ("cosine", result.cosine, result.sequence_cosine, {"color": COLOURS["vermilion"], "linestyle": "-", "marker": "o"}),
        (
            "norm ratio",
            result.norm_ratio,
            result.sequence_norm_ratio,
            {"color": COLOURS["blue"], "linestyle": "--", "marker": "s"},
        ),
    )
    for name, whole, single, line in styles:
        curve = np.median(whole[key].reshape(len(reach), -1), axis=1)
        ax.plot(reach[order], curve[order], label=name, markersize=3, **line)
        if key in single:
            low, high = np.quantile(single[key].reshape(len(reach), -1), [0.25, 0.75], axis=1)
            ax.fill_between(reach[order], low[order], high[order], color=line["color"], alpha=0.18, linewidth=0)
    reference_line(ax, 1.0, "", reach.min())
    ax.set_xlim(0.9 * reach.min(), 1.1 * reach.max())  # a curve without a number sets no limits
    ax.set_xscale("log")
    left_out(ax, int(np.isnan(result.cosine[key].reshape(len(reach), -1)).any(axis=1).sum()), "reaches without an angle")
    ax.set(xlabel="reach of the truncated gradient (steps)", ylabel="relative to the full gradient")
    ax.legend()
