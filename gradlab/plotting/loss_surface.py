"""Slices through a loss surface, with what is not a number drawn as such."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patheffects import withStroke

from gradlab.analysis.surfaces import LossLine, LossSurface
from gradlab.analysis.trajectory import TrajectoryPCA
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.plotting.curves import left_out
from gradlab.plotting.style import COLOURS
from gradlab.plotting.surface import plot_surface

Array = npt.NDArray[Any]

RIM = [withStroke(linewidth=2.2, foreground="white")]


def plot_loss_surface(
    ax: Axes, result: LossSurface, *, what: str = "loss", decades: bool = False, member: tuple[int, ...] = ()
) -> QuadMesh:
    """A map of the loss over both coordinates, a cross at the centre; cells without a number are grey, and counted.

    `what`: "loss" or "gradient_norm". `decades`: its decimal logarithm, for cliffs; cells of exactly 0 are drawn at the
    smallest value above 0. `member`: which surface, where the result holds an ensemble.
    Errors: ShapeError for a slice along one direction or a wrong member; ValueRangeError if `what` is not there.
    """
    values = _one(result, what, member)
    if result.b is None:
        raise ShapeError("result is a slice along one direction; expected one along two; try plot_loss_slice")
    label = "loss" if what == "loss" else "norm of the gradient"
    if decades:
        above = values[np.isfinite(values) & (values > 0.0)]
        values = np.where(np.isfinite(values), np.log10(np.maximum(values, above.min() if above.size else 1.0)), np.nan)
        label = rf"$\log_{{10}}$ {label}"
    mesh = plot_surface(ax, result.a, result.b, values, label)
    if all(axis.min() <= 0.0 <= axis.max() for axis in (result.a, result.b)):
        ax.plot(0.0, 0.0, "+", color=COLOURS["black"], markersize=7, path_effects=RIM)
    ax.set(xlabel="$a$, along $d_1$ (units of $d_1$)", ylabel="$b$, along $d_2$ (units of $d_2$)")
    left_out(ax, int((~np.isfinite(values)).sum()))
    return mesh


def plot_loss_slice(ax: Axes, result: LossSurface, label: str = "", *, member: tuple[int, ...] = (), **line: Any) -> None:
    """The loss along one direction; a cross at the lower edge for each point without a number."""
    values = _one(result, "loss", member)
    if result.b is not None:
        raise ShapeError("result is a map over two directions; expected a slice along one; try plot_loss_surface")
    _curve(ax, result.a, values, label, line)
    ax.set(xlabel="$a$, along $d$ (units of $d$)", ylabel="loss")


def plot_loss_line(ax: Axes, result: LossLine, label: str = "", *, member: tuple[int, ...] = (), **line: Any) -> None:
    """The loss on the line between two solutions, with both of them, and the straight line under which there is no barrier."""
    values, ends = _member(result.loss, 1, member), _member(result.ends, 1, member)
    _curve(ax, result.alpha, values, label, line)
    ax.plot([0.0, 1.0], ends, color=COLOURS["grey"], linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    ax.plot([0.0, 1.0], ends, "o", color=COLOURS["black"], markersize=3.5)
    ax.set(xlabel=r"$\alpha$, from the first solution (0) to the second (1)", ylabel="loss")


def plot_trajectory(ax: Axes, result: TrajectoryPCA) -> None:
    """The way of training in the plane of its first two principal directions, with the share of the variance each explains.

    Drawn alone or on the map of a surface along the same directions. Error: ShapeError for a single direction.
    """
    if result.coordinates.shape[-1] < 2:
        raise ShapeError(f"result has {result.coordinates.shape[-1]} direction; expected 2; try trajectory_pca(..., k=2)")
    x, y = result.coordinates[:, 0], result.coordinates[:, 1]
    ax.plot(x, y, color=COLOURS["black"], linewidth=0.9, path_effects=RIM)
    ax.plot(x, y, ".", color=COLOURS["black"], markersize=2.5)
    ax.plot(x[0], y[0], "s", color="white", markeredgecolor="black", markersize=5, linestyle="none", label="start")
    ax.plot(x[-1], y[-1], "*", color="white", markeredgecolor="black", markersize=8, linestyle="none", label="end")
    shares = [f"{100.0 * share:.1f} %" for share in result.explained_variance_ratio]
    ax.set(xlabel=f"first principal direction ({shares[0]})", ylabel=f"second ({shares[1]})")


def _one(result: LossSurface, what: str, member: tuple[int, ...]) -> Array:
    values = {"loss": result.loss, "gradient_norm": result.gradient_norm}.get(what)
    if values is None:
        raise ValueRangeError(f"what is {what!r}; expected 'loss', or 'gradient_norm' of a result made with_gradient=True")
    axes = 1 if result.b is None else 2
    return _member(values, axes, member)


def _member(values: Array, axes: int, member: tuple[int, ...]) -> Array:
    """One member of an ensemble, whose axes are the last ones."""
    lead = values.shape[axes:]
    if len(member) != len(lead) or not all(-n <= k < n for k, n in zip(member, lead, strict=True)):
        raise ShapeError(f"member is {member}; expected an index into the ensemble axes {lead}")
    index: tuple[Any, ...] = (*(slice(None),) * axes, *member)
    return np.asarray(values[index])


def _curve(ax: Axes, x: Array, values: Array, label: str, line: dict[str, Any]) -> None:
    finite = np.isfinite(values)
    ax.plot(x, np.where(finite, values, np.nan), label=label or None, **({"color": COLOURS["blue"]} | line))
    padded = np.pad(finite, 1)
    alone = finite & ~padded[:-2] & ~padded[2:]  # a line would not show them
    ax.plot(x[alone], values[alone], ".", **({"color": COLOURS["blue"]} | {k: v for k, v in line.items() if k == "color"}))
    if not finite.all():
        style: dict[str, Any] = {"marker": "x", "markersize": 4, "color": COLOURS["vermilion"], "linestyle": "none"}
        ax.plot(x[~finite], np.full(int((~finite).sum()), 0.02), transform=ax.get_xaxis_transform(), clip_on=False, **style)
    left_out(ax, int((~np.isfinite(values)).sum()))
