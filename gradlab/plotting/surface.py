"""Error surfaces over two parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

Array = npt.NDArray[Any]


def plot_surface(ax: Axes, x: Array, y: Array, values: Array, label: str) -> QuadMesh:
    """A map of `values` (len(y), len(x)); cells that are not finite are plain grey, never left out in silence."""
    size = float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0))
    if size > 1e300:  # matplotlib would overflow on the span of the colours
        decades = int(np.floor(np.log10(size)))
        values, label = values / 10.0**decades, f"{label} ($10^{{{decades}}}$)"
    shown = np.ma.masked_invalid(values)
    ax.set_facecolor("#BBBBBB")
    mesh = ax.pcolormesh(x, y, shown, shading="nearest", rasterized=True)
    figure = ax.get_figure()
    if figure is not None:
        figure.colorbar(mesh, ax=ax, label=label, pad=0.02)
    return mesh


def plot_surface_3d(ax: Any, x: Array, y: Array, values: Array) -> None:
    """The same as a relief; `ax` has the projection "3d"."""
    grid_x, grid_y = np.meshgrid(x, y)
    ax.plot_surface(
        grid_x,
        grid_y,
        np.where(np.isfinite(values), values, np.nan),
        cmap="cividis",
        linewidth=0,
        rcount=len(y),
        ccount=len(x),
        antialiased=False,
        rasterized=True,
    )
