"""Saturation of gates and the time constants of what they keep."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gradlab.analysis.gates import GateSaturation, GateTimeConstants
from gradlab.plotting.style import COLOURS

MARKS = (("o", "vermilion"), ("s", "blue"), ("^", "green"), ("D", "orange"), ("v", "pink"), ("x", "black"))


def plot_gate_saturation(ax: Axes, result: GateSaturation, layer: str = "0") -> None:
    """Each unit of each gate of a layer: the share of time it is right-saturated against left-saturated.

    No point lies above the line; one in the corner (0, 0) is never saturated (after Karpathy, Johnson & Fei-Fei 2015).
    """
    keys = [key for key in result.left if key.rpartition("/")[0] == layer]
    for key, (marker, colour) in zip(keys, MARKS, strict=False):
        ax.plot(
            result.left[key].ravel(),
            result.right[key].ravel(),
            marker,
            color=COLOURS[colour],
            markerfacecolor="none",
            markersize=3.5,
            alpha=0.8,
            label=key.rpartition("/")[2],
            clip_on=False,
        )
    ax.plot([0.0, 1.0], [1.0, 0.0], color=COLOURS["grey"], linewidth=0.6)
    ax.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0), xlabel=f"share of steps below {result.low:g}", ylabel=f"share above {result.high:g}")
    ax.set_aspect("equal")
    ax.legend()


def plot_time_constants(ax: Axes, result: GateTimeConstants, key: str, **bars: Any) -> None:
    """Histogram of the units' time constants of one gate, in decades, with the length of the sequences as a line.

    Units that never forget stand in the rightmost bar, those that forget at once in the leftmost, and the heading counts them.
    """
    values = result.time_constants[key].ravel()
    never, at_once = int(np.isposinf(values).sum()), int((values == 0.0).sum())
    finite = values[np.isfinite(values) & (values > 0.0)]
    ends = np.log10([min(finite.min(initial=1.0), 1.0), max(finite.max(initial=1.0), float(result.steps)) * 1.5])
    edges = np.logspace(ends[0], ends[1], 25)
    shown = np.clip(values[~np.isnan(values)], edges[0], edges[-1])
    style: dict[str, Any] = {"color": COLOURS["blue"], "alpha": 0.7}
    ax.hist(shown, edges.tolist(), **(style | bars))
    ax.axvline(result.steps, color="black", linewidth=0.8, linestyle=(0, (4, 2)))
    ax.annotate("$T$", (result.steps, 1.0), xycoords=("data", "axes fraction"), xytext=(2, -8), textcoords="offset points")
    ax.set_xscale("log")
    ax.set(xlabel="time constant (steps)", ylabel="units")
    if never or at_once:
        ax.set_title(f"{never} never forget, {at_once} forget at once", loc="left", fontsize=6.5)
