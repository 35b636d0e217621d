"""Fixed and slow points in the plane of two coordinates of the state, and bifurcation diagrams."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from gradlab.analysis.branches import Bifurcation
from gradlab.analysis.fixed_point_search import FixedPoints
from gradlab.analysis.folds import FoldPoints
from gradlab.errors import ValueRangeError
from gradlab.plotting.curves import left_out
from gradlab.plotting.style import COLOURS

Array = npt.NDArray[Any]

MARKS: dict[str, dict[str, Any]] = {
    "stable": {"marker": "o", "color": COLOURS["blue"], "markersize": 5},
    "marginal": {"marker": "s", "color": COLOURS["green"], "markersize": 4.5},
    "saddle": {"marker": "X", "color": COLOURS["vermilion"], "markersize": 5.5},
    "unstable": {"marker": "o", "color": COLOURS["vermilion"], "markersize": 5, "fillstyle": "none"},
    "slow": {"marker": ".", "color": COLOURS["grey"], "markersize": 4},
}
"""Kinds of points differ in shape, so that a print in grey keeps them apart."""


def plot_fixed_points(ax: Axes, result: FixedPoints, components: tuple[int, int] = (0, 1)) -> None:
    """The points in the plane of two coordinates of the state, one mark for each kind of stability; slow ones as dots.

    Error: ValueRangeError for a coordinate that is not there.
    """
    for component in components:
        _require_component(component, result.fixed.points.shape[-1])
    kinds = np.array(result.fixed.stability, dtype=object)
    for kind, mark in MARKS.items():
        points = result.slow.points if kind == "slow" else result.fixed.points[kinds == kind]
        if len(points):
            x, y = (points[:, component] for component in components)
            ax.plot(x, y, linestyle="none", label=f"{kind} ({len(points)})", **mark)
    left_out(ax, result.nonconverged, f"of {result.starts} starts lost")
    ax.set(xlabel=f"$s_{{{components[0]}}}$", ylabel=f"$s_{{{components[1]}}}$")


def plot_bifurcation(ax: Axes, result: Bifurcation, label: str, component: int = 0, folds: FoldPoints | None = None) -> None:
    """One coordinate of all fixed points against the parameter: branches, stable ones solid, the others dashed.

    `label`: what the parameter is, for the axis. `folds`: marked by diamonds.
    Error: ValueRangeError for a coordinate that is not there.
    """
    _require_component(component, result.points.shape[-1])
    named: set[bool] = set()
    for k in range(result.branches):
        where, column = np.nonzero(result.branch == k)
        stable = bool(result.unstable[where[0], column[0]] == 0)
        style: dict[str, Any] = {"color": COLOURS["blue"], "linestyle": "-"} if stable else {"color": COLOURS["vermilion"]}
        style |= {} if stable else {"linestyle": (0, (3, 2))}
        style |= {"marker": "."} if len(where) == 1 else {}
        ax.plot(
            result.values[where],
            result.points[where, column, component],
            label=None if stable in named else "stable" if stable else "not stable",
            **style,
        )
        named.add(stable)
    if folds is not None and len(folds.values):
        mark: dict[str, Any] = {"marker": "D", "color": COLOURS["black"], "markersize": 3.5, "linestyle": "none"}
        ax.plot(folds.values, folds.points[:, component], label="fold", **mark)
    left_out(ax, int(result.nonconverged.sum()), "starts lost")
    ax.set(xlabel=label, ylabel=f"fixed point $s_{{{component}}}$")


def _require_component(component: int, size: int) -> None:
    if not 0 <= component < size:
        raise ValueRangeError(f"component is {component}; expected 0 to {size - 1}")
