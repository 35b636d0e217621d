"""A training run as its monitor saw it: the gradient over time, clipping, and the loss with its jumps."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from gradlab._validate import require_positive
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.plotting.curves import band
from gradlab.plotting.style import COLOURS, LINES, PAGE, new_figure, panel_label
from gradlab.training.jumps import jumps
from gradlab.training.monitor import Monitor

Array = npt.NDArray[Any]
Source = Monitor | str | os.PathLike[str]

SHOWN_JUMPS = 200
"""Jumps that are marked in a picture; all are counted in its legend."""
MARKS = ("o", "s", "^", "D", "v", "x", "P", "*")


def plot_adjoint_map(ax: Axes, run: Source, layer: str = "0", member: int | None = None, decades: float = 12.0) -> QuadMesh:
    """The total adjoint norm |dL/ds_t| of a layer, step t upward and update to the right, log10: where and when gradients vanish.

    `run`: a Monitor, or the path of its files, also of a run that is still going on. Of an ensemble the median over the members,
    or one `member`. Grey: exactly zero, or not finite. All that is more than `decades` below the largest has the darkest colour.
    Errors: ValueRangeError if nothing was kept of that layer.
    """
    decades = require_positive("decades", decades)
    updates, values = opened(run).series(f"adjoint/{layer}")
    logs = _of(values, member, keep=1) / np.log(10.0)  # (members, looks, T+1)
    with np.errstate(invalid="ignore"):
        shown = np.median(logs, axis=0)
    there = np.isfinite(shown)
    largest = float(shown.max(where=there, initial=-np.inf))
    masked = np.ma.masked_array(np.maximum(np.where(there, shown, 0.0), largest - decades), ~there)
    ax.set_facecolor("#BBBBBB")
    steps = np.arange(masked.shape[1] + 1) - 0.5
    mesh = ax.pcolormesh(_edges(updates), steps, masked.T, shading="flat", rasterized=True)
    ax.set(xlabel="update", ylabel="step $t$ of the state")
    figure = ax.get_figure()
    if figure is not None:
        extend = "min" if bool((shown[there] < largest - decades).any()) else "neither"
        figure.colorbar(mesh, ax=ax, label=r"$\log_{10}\, \|dL/ds_t\|$", pad=0.02, extend=extend)
    return mesh


def plot_loss_with_jumps(ax: Axes, run: Source, member: int | None = None) -> None:
    """The loss of each update, logarithmic where it is positive, with its jumps as triangles; of an ensemble median and range."""
    updates, values = opened(run).series("loss")
    losses = _of(values, member)
    _curve(ax, updates, losses, "loss", **LINES["second"] | {"linestyle": "-"})
    found = jumps(losses.T)  # (updates, members)
    at, who = np.nonzero(found)
    if len(at):
        finite = np.isfinite(losses)
        top = float(losses.max(where=finite, initial=-np.inf))
        heights = losses[who, at]
        heights = np.where(np.isfinite(heights), heights, top)
        label = f"{len(at)} jump{'s' * (len(at) > 1)}"
        style: dict[str, Any] = {
            "color": COLOURS["vermilion"],
            "markerfacecolor": "white",
            "markersize": 4.5,
            "linestyle": "none",
        }
        ax.plot(updates[at][:SHOWN_JUMPS], heights[:SHOWN_JUMPS], "v", label=label, **style)
    if _positive(losses):
        ax.set_yscale("log")
    ax.set(xlabel="update", ylabel="loss")
    _legend_above_data(ax)


def plot_clipping(ax: Axes, run: Source, member: int | None = None) -> None:
    """The norm of the gradient of all parameters before and after clipping, and the share of updates that were clipped.

    The share stands in the heading, and as grey ticks along the top for the updates themselves. Without clipping the norm alone.
    """
    monitor = opened(run)
    before, after = (_joint(monitor, kind, member) for kind in ("gradient", "clipped"))
    if before is None:
        raise ValueRangeError("run holds no gradients; expected a monitor that was given gradients={...}")
    updates, _ = monitor.series("loss")
    _curve(ax, updates, before, "before clipping", **LINES["first"] | {"linewidth": 0.8, "linestyle": "-"})
    shown = [before]
    if after is not None and "was_clipped" in monitor.names:
        _curve(ax, updates, after, "after", **LINES["third"] | {"linestyle": "-"})
        shown.append(after)
        hits = _of(monitor.series("was_clipped")[1], member)
        ax.set_title(f"{100.0 * hits.mean():.0f} % of updates clipped", loc="right", fontsize=7)
        at = updates[(hits > 0.5).any(axis=0)]
        ax.plot(
            at, np.full(len(at), 1.0), "|", color=COLOURS["grey"], markersize=4, transform=ax.get_xaxis_transform(), clip_on=False
        )
    if all(_positive(one) for one in shown):
        ax.set_yscale("log")
    ax.set(xlabel="update", ylabel="norm of the gradient")
    _legend_above_data(ax)


def plot_update_ratios(ax: Axes, run: Source, member: int | None = None) -> None:
    """|change of a parameter|/|parameter| by update, a running median for each parameter; of an ensemble the median."""
    monitor = opened(run)
    names = [name for name in monitor.names if name.startswith("ratio/")]
    if not names:
        raise ValueRangeError("run holds no update ratios; expected a monitor that was given params and new_params")
    colours = [COLOURS[name] for name in ("vermilion", "blue", "black", "green", "orange", "pink", "sky", "grey")]
    for n, name in enumerate(names):
        updates, values = monitor.series(name)
        ratio = _running_median(np.median(_of(values, member), axis=0), max(1, len(updates) // 50))
        ok = np.isfinite(ratio) & (ratio > 0.0)
        every = max(1, len(updates) // 6)
        ax.plot(
            updates[ok],
            ratio[ok],
            color=colours[n % 8],
            marker=MARKS[n % 8],
            markevery=(n * every // len(names), every),
            markersize=3,
            markerfacecolor="white",
            linewidth=0.8,
            linestyle="-",
            label=name.removeprefix("ratio/"),
        )
    ax.set_yscale("log")
    ax.set(xlabel="update", ylabel=r"$\|\Delta\theta\| / \|\theta\|$")
    _legend_above_data(ax, 3)


def plot_gate_shares(ax: Axes, run: Source, layer: str = "0", member: int | None = None) -> None:
    """The share of gate values in the outer tenths of their range, by update; of an ensemble median and range."""
    monitor = opened(run)
    names = [name for name in monitor.names if name.startswith(f"saturated/{layer}/")]
    if not names:
        raise ValueRangeError(f"run holds no gates of layer {layer!r}; expected a monitor that was given records")
    colours = [COLOURS[name] for name in ("vermilion", "blue", "black", "green", "orange", "pink")]
    dashes = ("-", "--", ":", "-.", (0, (6, 2)), (0, (1, 2)))
    for n, name in enumerate(names):
        updates, values = monitor.series(name)
        _curve(ax, updates, _of(values, member), f"${name.rpartition('/')[2]}$", color=colours[n % 6], linestyle=dashes[n % 6])
    ax.set(xlabel="update", ylabel="saturated share", ylim=(-0.02, 1.02))
    ax.set_yticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    _legend_above_data(ax, 4)


def plot_sharpness_limit(ax: Axes, run: Source, member: int | None = None) -> None:
    """The largest Hessian eigenvalue against 2/learning rate, above which plain gradient descent is unstable along it.

    Of a monitor with the probe `gradlab.training.probes.sharpness` under the name "sharpness" (Cohen et al. 2021).
    """
    monitor = opened(run)
    updates, values = monitor.series("probe/sharpness")
    at, rates = monitor.series("learning_rate")
    with np.errstate(divide="ignore"):
        limits = 2.0 / _of(rates, member)
    _curve(ax, updates, _of(values, member), "sharpness", marker="o", markersize=2.5, **LINES["second"] | {"linestyle": "-"})
    _curve(ax, at, limits, "2/learning rate", **LINES["first"] | {"linestyle": "--"})
    if _positive(_of(values, member)):
        ax.set_yscale("log")
    ax.set(xlabel="update", ylabel="largest eigenvalue of the Hessian")
    _legend_above_data(ax)


def training_page(run: Source, layer: str = "0", member: int | None = None) -> Figure:
    """One page of a run: loss, clipping, the map of adjoints, update ratios and gates, as far as they were kept."""
    monitor = opened(run)
    if "loss" not in monitor.names:
        raise ValueRangeError("run holds no updates yet; expected a monitor after its first record")
    panels: list[tuple[str, Any, dict[str, Any]]] = [("loss", plot_loss_with_jumps, {})]
    if any(name.startswith("gradient/") for name in monitor.names):
        panels.append(("clipping", plot_clipping, {}))
    if f"adjoint/{layer}" in monitor.names:
        panels.append((f"total adjoints of layer {layer}", plot_adjoint_map, {"layer": layer}))
    if any(name.startswith("ratio/") for name in monitor.names):
        panels.append(("size of updates (running median)", plot_update_ratios, {}))
    if any(name.startswith(f"saturated/{layer}/") for name in monitor.names):
        panels.append((f"saturation in layer {layer}", plot_gate_shares, {"layer": layer}))
    if {"probe/sharpness", "learning_rate"} <= set(monitor.names):
        panels.append(("edge of stability", plot_sharpness_limit, {}))
    wide = len(panels) % 2 == 1  # the map, or else the last panel, fills a row
    rows = (len(panels) + 1) // 2
    figure = new_figure(PAGE, 2.2 * rows)
    grid, place = figure.add_gridspec(rows, 2), 0
    updates, _ = monitor.series("loss")
    margin = 0.5 + 0.01 * float(updates[-1] - updates[0])
    for n, (letter, (text, draw, options)) in enumerate(zip("abcdef", panels, strict=False)):
        whole = wide and place % 2 == 0 and (draw is plot_adjoint_map or n == len(panels) - 1)
        ax = figure.add_subplot(grid[place // 2, :] if whole else grid[place // 2, place % 2])
        wide, place = wide and not whole, place + 1 + whole
        draw(ax, monitor, member=member, **options)
        if draw is not plot_adjoint_map:  # grey beyond its last column would be taken for zeros
            ax.set_xlim(updates[0] - margin, updates[-1] + margin)
        panel_label(ax, letter, text)
    return figure


def opened(run: Source) -> Monitor:
    """The monitor itself, or that of a file. Errors: DTypeError for something else; FormatError as `Monitor.load`."""
    if isinstance(run, Monitor):
        return run
    if not isinstance(run, (str, os.PathLike)):
        raise DTypeError(f"run is {run!r}; expected a gradlab.training.Monitor, or the path of its files")
    return Monitor.load(run)


def _of(values: Array, member: int | None, keep: int = 0) -> Array:
    """(rows, *E, ...) -> (members, rows, ...), all members or one; the last `keep` axes are no ensemble axes."""
    lead = values.shape[1 : values.ndim - keep]
    flat: Array = np.moveaxis(values.reshape(len(values), -1, *values.shape[values.ndim - keep :]), 1, 0)
    if member is None:
        return flat
    if not isinstance(member, (int, np.integer)) or not 0 <= member < len(flat):
        raise ShapeError(
            f"member is {member!r}; expected None or an index below {len(flat)}, of the ensemble axes {lead} flattened"
        )
    return np.asarray(flat[int(member)][None])


def _joint(monitor: Monitor, kind: str, member: int | None) -> Array | None:
    """Joint norm of all parameters by update, (members, rows), from the norms of each; None if they were not kept."""
    parts = [_of(monitor.series(name)[1], member) for name in monitor.names if name.startswith(f"{kind}/")]
    if not parts:
        return None
    with np.errstate(all="ignore"):
        return np.asarray(np.hypot.reduce(np.stack(parts), axis=0))


def _curve(ax: Axes, updates: Array, curves: Array, label: str, **line: Any) -> None:
    """One line, or of several members their median and range; what is not finite leaves a gap."""
    with np.errstate(all="ignore"):
        shown = np.where(np.isfinite(curves), curves, np.nan)
    ok = np.isfinite(shown).all(axis=0)
    if len(curves) > 1:
        band(ax, np.where(ok, updates, np.nan), np.where(ok, shown, np.nan), label, **line)
    else:
        ax.plot(updates, shown[0], label=label, **line)


def _legend_above_data(ax: Axes, columns: int = 2) -> None:
    """A legend in a strip of its own between the data and the top of the panel."""
    entries = len(ax.get_legend_handles_labels()[0])
    strip = 0.05 + 0.11 * -(-entries // columns)
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log":
        ax.set_ylim(low, high * (high / low) ** (strip / (1.0 - strip)))
    else:
        ax.set_ylim(low, high + (high - low) * strip / (1.0 - strip))
    ax.legend(loc="upper right", ncols=columns, columnspacing=1.0, handlelength=1.8, borderaxespad=0.3)


def _running_median(values: Array, window: int) -> Array:
    """The median of `window` values around each; at the ends of those that there are."""
    half = window // 2
    padded = np.concatenate(
        [np.full(half, np.nan), np.where(np.isfinite(values), values, np.nan), np.full(window - 1 - half, np.nan)]
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)
    ok = np.isfinite(windows).any(axis=-1)
    found = np.full(len(values), np.nan)
    found[ok] = np.nanmedian(windows[ok], axis=-1)
    return found


def _positive(values: Array) -> bool:
    finite = np.isfinite(values)
    return bool(finite.any()) and float(values.min(where=finite, initial=np.inf)) > 0.0


def _edges(updates: Array) -> Array:
    """Borders of the columns of a map: halfway between neighbours."""
    middle = updates.astype(float)
    if len(middle) == 1:
        return np.array([middle[0] - 0.5, middle[0] + 0.5])
    between = 0.5 * (middle[1:] + middle[:-1])
    return np.concatenate([[2.0 * middle[0] - between[0]], between, [2.0 * middle[-1] - between[-1]]])
