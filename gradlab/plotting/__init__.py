"""Pictures: functions of (ax, result). matplotlib is imported here and in an analysis' draw(), nowhere else."""

from __future__ import annotations

from gradlab.plotting import library  # first: the others import matplotlib
from gradlab.plotting.curves import band, reference_line
from gradlab.plotting.flow import plot_gradient_flow
from gradlab.plotting.style import COLOURS, COLUMN, LINES, PAGE, new_figure, panel_label, stamp, style
from gradlab.plotting.surface import plot_surface, plot_surface_3d

__all__ = [
    "COLOURS",
    "COLUMN",
    "LINES",
    "PAGE",
    "band",
    "library",
    "new_figure",
    "panel_label",
    "plot_gradient_flow",
    "plot_surface",
    "plot_surface_3d",
    "reference_line",
    "stamp",
    "style",
]
