"""Curvature: the density of a Hessian's spectrum, and sharpness during training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from gradlab.analysis.curvature import ExtremeEigenvalues, Sharpness
from gradlab.analysis.spectral_densities import SpectralDensity
from gradlab.errors import ShapeError
from gradlab.plotting.style import COLOURS, LINES

Array = npt.NDArray[Any]


def plot_spectral_density(ax: Axes, result: SpectralDensity, extremes: ExtremeEigenvalues | None = None) -> None:
    """The density on a logarithmic axis, from a tenth of what one eigenvalue alone gives; a tick for each known eigenvalue.

    The band is one standard error to either side. `extremes`: the ticks, grey if some have not converged.
    """
    one = 1.0 / (result.size * result.width * math.sqrt(2.0 * math.pi))
    floor = 0.1 * one
    spread = np.nan_to_num(result.standard_error)
    low, high = (np.maximum(result.density + sign * spread, floor) for sign in (-1.0, 1.0))
    ax.fill_between(result.grid, low, high, color=COLOURS["blue"], alpha=0.25, linewidth=0)
    ax.plot(result.grid, np.maximum(result.density, floor), color=COLOURS["blue"], label="density")
    ax.axvline(0.0, color=COLOURS["grey"], linewidth=0.6, linestyle=(0, (1, 2)))
    if extremes is not None:
        values = np.concatenate([extremes.smallest.values, extremes.largest.values])
        ax.plot(
            values[np.isfinite(values)],
            np.full(int(np.isfinite(values).sum()), 0.03),
            linestyle="none",
            marker="|",
            markersize=8,
            color=COLOURS["black"] if extremes.status.ok else COLOURS["grey"],
            transform=ax.get_xaxis_transform(),
            label="eigenvalues" if extremes.status.ok else "eigenvalues, not converged",
        )
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)
    ax.set(xlabel=r"eigenvalue of the Hessian $\lambda$", ylabel=r"density (per unit of $\lambda$)")


def plot_sharpness(ax: Axes, updates: Array, results: Sequence[Sharpness]) -> None:
    """Sharpness at the `updates` (n,) it was measured at, and 2/learning rate; open circles where it has not converged.

    Error: ShapeError unless there is one result for each update.
    """
    if np.shape(updates) != (len(results),):
        raise ShapeError(f"updates has shape {np.shape(updates)}; expected ({len(results)},), one for each result")
    values = np.array([result.value for result in results])
    good = np.array([result.status.ok for result in results], dtype=bool)
    ax.plot(updates, values, marker="o", markersize=3, label=r"sharpness $\lambda_{\max}$", **LINES["first"])
    if not good.all():
        open_circles = {"markerfacecolor": "white", "markeredgecolor": LINES["first"]["color"], "linestyle": "none"}
        ax.plot(np.asarray(updates)[~good], values[~good], marker="o", markersize=5, label="not converged", **open_circles)
    limits = [result.limit for result in results]
    ax.plot(updates, limits, drawstyle="steps-post", label=r"$2/\eta$", **LINES["second"])
    ax.set(xlabel="update", ylabel=r"curvature (loss / parameter$^2$)")
