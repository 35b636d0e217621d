"""Gradient flow against the lag."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from gradlab.plotting.curves import band

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
