"""The gradient by time: the map of losses and steps, parts by lag, and paths through a state."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from gradlab._math import log_norm
from gradlab.analysis.products import PathProducts
from gradlab.analysis.temporal import FlowMap, TemporalComponents
from gradlab.plotting.curves import band, reference_line
from gradlab.plotting.style import COLOURS


def plot_flow_map(ax: Axes, result: FlowMap, key: str, decades: float = 12.0) -> QuadMesh:
    """Norm of dL_t/ds_k in decades, the loss of step t upward and the state of step k to the right: the median over the batch.

    Grey: exactly zero, as for k > t. All that is more than `decades` below the largest has the darkest colour.
    """
    norms = result.log_norm[key]
    with np.errstate(invalid="ignore"):
        shown = np.median(norms.reshape(*norms.shape[:2], -1), axis=-1) / np.log(10.0)
    there = np.isfinite(shown)
    largest = float(shown.max(where=there, initial=-np.inf))
    masked = np.ma.masked_array(np.maximum(shown, largest - decades), ~there)
    ax.set_facecolor("#BBBBBB")
    T = len(shown)
    mesh = ax.pcolormesh(np.arange(T + 1), np.arange(1, T + 1), masked, shading="nearest", rasterized=True)
    ax.set(xlabel="step $k$ of the state", ylabel="step $t$ of the loss")
    figure = ax.get_figure()
    if figure is not None:
        figure.colorbar(mesh, ax=ax, label=r"$\log_{10}\, \|dL_t/ds_k\|$", pad=0.02)
    return mesh


def plot_lag_split(ax: Axes, result: TemporalComponents, keys: tuple[str, ...]) -> None:
    """Norm of the part of the gradient that each lag contributes, in decades, one line for each parameter."""
    names = ("vermilion", "blue", "black", "green", "orange", "pink")
    dashes = ("-", "--", ":", "-.", (0, (6, 2)), (0, (1, 2)))
    for n, key in enumerate(keys):
        part = result.by_lag[key]
        decades = log_norm(part.reshape(len(part), -1)) / np.log(10.0)
        there = np.flatnonzero(np.isfinite(decades))
        ax.plot(there, decades[there], color=COLOURS[names[n % 6]], linestyle=dashes[n % 6], label=key)
    ax.set(xlabel="lag $t - k$ (steps)", ylabel=r"$\log_{10}$ norm of the part of $dL/d\theta$")
    ax.legend()


def plot_paths(ax: Axes, result: PathProducts, paths: tuple[str, ...] | None = None) -> None:
    """Growth along each path against the number of steps, in decades: the median over the sequences, their range shaded."""
    styles: tuple[dict[str, Any], ...] = (
        {"color": COLOURS["black"], "linestyle": "-"},
        {"color": COLOURS["vermilion"], "linestyle": "--"},
        {"color": COLOURS["blue"], "linestyle": "-."},
        {"color": COLOURS["green"], "linestyle": ":"},
    )
    for n, name in enumerate(paths or tuple(result.log_gain)):
        decades = result.log_gain[name].reshape(len(result.log_gain[name]), -1).T / np.log(10.0)
        there = np.flatnonzero(np.isfinite(decades).all(axis=0))
        band(ax, there.astype(float), decades[:, there], name, **styles[n % 4])
    reference_line(ax, 0.0, "", 0.0)
    ax.set(xlabel="steps", ylabel=r"$\log_{10}$ root-mean-square gain")
    ax.legend()
