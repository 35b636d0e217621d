"""Saturation of gates, the time constants of what they keep, the gradient that arrives, and units that do nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gradlab.analysis.gate_gradients import GateFlow
from gradlab.analysis.gates import GateSaturation, GateTimeConstants, UnitActivity
from gradlab.errors import ValueRangeError
from gradlab.plotting.curves import left_out
from gradlab.plotting.style import COLOURS

MARKS = (("o", "vermilion"), ("s", "blue"), ("^", "green"), ("D", "orange"), ("v", "pink"), ("x", "black"))
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 2)), (0, (1, 2)))


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


def plot_gate_flow(ax: Axes, result: GateFlow, layer: str = "0") -> None:
    """Norm of the gradient at each gate of a layer against the step, in decades: the median over the sequences.

    Steps at which it is exactly zero in half of the sequences are left out; those at which it is no number are counted.
    """
    keys = [key for key in result.log_norm if key.rpartition("/")[0] == layer]
    if not keys:
        layers = sorted({key.rpartition("/")[0] for key in result.log_norm})
        raise ValueRangeError(f"layer is {layer!r}; expected one of {', '.join(layers)}")
    lost = 0
    for key, (marker, colour), dash in zip(keys, MARKS, DASHES, strict=False):
        with np.errstate(invalid="ignore"):  # of -inf and -inf
            decades = np.median(result.log_norm[key].reshape(len(result.log_norm[key]), -1), axis=1) / np.log(10.0)
        there = np.flatnonzero(np.isfinite(decades))
        lost += int((np.isnan(decades) | (decades == np.inf)).sum())
        name, every = key.rpartition("/")[2], max(1, len(there) // 8)
        ax.plot(
            there + 1,
            decades[there],
            color=COLOURS[colour],
            linestyle=dash,
            marker=marker,
            markersize=3,
            markevery=every,
            label=name,
        )
    left_out(ax, lost, "values not finite")
    ax.set(xlabel="step $t$", ylabel=r"$\log_{10}\, \|dL/da_t\|$")
    ax.legend()


def plot_unit_activity(ax: Axes, result: UnitActivity) -> None:
    """The share of the units of each part and gate that are dead (filled) and stuck (outlined); a dead one is stuck too."""
    names = list(result.stuck)
    stuck, dead = ([100.0 * float(side[key].mean()) for key in names] for side in (result.stuck, result.dead))
    place = np.arange(len(names))
    ax.barh(place, stuck, height=0.6, facecolor="white", edgecolor=COLOURS["blue"], label=f"range below {result.threshold:g}")
    ax.barh(place, dead, height=0.6, color=COLOURS["vermilion"], label="exactly 0")
    ax.set_yticks(place, names)
    ax.invert_yaxis()
    ax.set(xlim=(0.0, 100.0), xlabel="share of the units (%)", ylabel="part of the state, gate")
    ax.legend()
