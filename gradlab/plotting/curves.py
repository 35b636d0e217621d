"""Curves with the spread of their seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

Array = npt.NDArray[Any]


def band(ax: Axes, x: Array, curves: Array, label: str, **line: Any) -> None:
    """The median of `curves` (n, len(x)) as a line, and their whole range shaded: with few seeds nothing is hidden."""
    ax.fill_between(x, curves.min(axis=0), curves.max(axis=0), color=line.get("color"), alpha=0.18, linewidth=0)
    ax.plot(x, np.median(curves, axis=0), label=label, **line)


def reference_line(ax: Axes, y: float, text: str, x: float) -> None:
    """A thin horizontal line at `y`, named at `x`."""
    ax.axhline(y, color="#777777", linewidth=0.6, linestyle=(0, (1, 2)))
    ax.annotate(text, (x, y), xytext=(0, 2), textcoords="offset points", fontsize=6.5, color="#555555")


def left_out(ax: Axes, count: int, what: str = "not finite") -> None:
    """Say in the upper left corner how many values were not drawn, if any were not: nothing is dropped in silence."""
    if count:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        ax.annotate(f"{count} {what}", (0.02, 0.98), xycoords="axes fraction", va="top", fontsize=6.5, bbox=box)
