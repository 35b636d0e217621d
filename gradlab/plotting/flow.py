"""Gradient flow against the lag, and how far it reaches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from gradlab.analysis.flow import MemoryHorizon
from gradlab.plotting.curves import band
from gradlab.plotting.style import COLOURS

Array = npt.NDArray[Any]


def plot_gradient_flow(ax: Axes, log_total: Array, label: str, **line: Any) -> None:
    """Norm of dL_T/ds_t in decades against the lag T - t, for a loss at the last step.

    `log_total` (T+1, *E, B): one entry of `GradientFlow.log_total`. The line is the median over the ensemble of the
    median over the sequences, the band the ensemble's whole range. Lags where the gradient is exactly zero are left out.
    """
    by_lag = log_total[::-1].reshape(log_total.shape[0], -1, log_total.shape[-1])
    decades = np.median(by_lag, axis=-1).T / np.log(10.0)  # (member, lag)
    shown = np.flatnonzero(np.isfinite(decades).all(axis=0))
    band(ax, shown.astype(float), decades[:, shown], label, **line)
    ax.set(xlabel="lag $T - t$ (steps)", ylabel=r"$\log_{10}\, \|dL_T/ds_t\|$")


def plot_memory_horizon(ax: Axes, horizon: MemoryHorizon, colour: str = COLOURS["black"]) -> None:
    """The median horizon on a plot of the flow against the lag, with its interval shaded; infinite ends reach the edge."""
    limits = ax.get_xlim()
    low, high = np.minimum(horizon.interval, max(limits[1], 2.0 * np.nan_to_num(horizon.median, posinf=0.0)))
    if low < high:
        ax.axvspan(low, high, color=colour, alpha=0.1, linewidth=0)
    if np.isfinite(horizon.median):
        ax.axvline(horizon.median, color=colour, linewidth=0.8, linestyle=(0, (4, 2)))
    text = f"horizon {horizon.median:.3g} steps (level {horizon.level:.2g})" if horizon.status.ok else str(horizon.status.code)
    ax.annotate(text, (0.98, 0.98), xycoords="axes fraction", ha="right", va="top", fontsize=6.5)
    ax.set_xlim(limits)
    ax.set_xlabel("lag $T - t$ (steps)")
