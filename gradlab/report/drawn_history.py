"""Panels of a training history: functions of (ax, history)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.history import History
from gradlab.plotting import COLOURS
from gradlab.report.drawings import LINES, Mark, _marked, lowest_shown
from gradlab.training.jumps import jumps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[Any]


def draw_loss(ax: Axes, history: History, marks: Sequence[Mark] = ()) -> None:
    """The loss of each update, logarithmic where it is positive, with its jumps."""
    updates, losses = history.series["loss"]
    found = jumps(losses)
    finite = np.isfinite(losses)
    ax.plot(updates, np.where(finite, losses, np.nan), color=COLOURS["blue"], linewidth=0.9)
    top = float(losses.max(where=finite, initial=-np.inf))
    heights = np.where(finite, losses, top)[found]
    if found.any():
        count = int(found.sum())
        ax.plot(
            updates[found],
            heights,
            "v",
            color=COLOURS["vermilion"],
            markerfacecolor="white",
            markersize=4.5,
            label=f"{count} jump{'s' * (count > 1)}",
        )
        ax.legend(fontsize=6.5)
    _logarithmic(ax, losses)
    ax.set(xlabel="update", ylabel="loss")
    _marked(ax, marks)


def draw_norms(ax: Axes, history: History, threshold: float | None, marks: Sequence[Mark] = ()) -> None:
    """The norm of the gradient before and after clipping, and the threshold."""
    shown = []
    for kind, label, line in (("gradient", "before clipping", LINES[1]), ("clipped", "after", LINES[0])):
        found = history.global_norm(kind)
        if found is not None:
            updates, norms = found
            ax.plot(
                updates, np.where(np.isfinite(norms), norms, np.nan), label=label, **line | {"linewidth": 0.8, "linestyle": "-"}
            )
            shown.append(norms)
    if threshold is not None:
        ax.axhline(threshold, color="black", linewidth=0.8, linestyle=(0, (4, 2)), label="threshold")
    _logarithmic(ax, np.concatenate(shown) if shown else np.ones(1))
    ax.legend(fontsize=6.5, loc="best")
    ax.set(xlabel="update", ylabel="norm of the gradient")
    _marked(ax, marks)


def draw_ratios(ax: Axes, history: History, only: str = "", limits: Sequence[float] = ()) -> None:
    """|change|/|parameter| by update, of each parameter or `only` one; `limits` as dashed lines."""
    ratios_of = history.group("ratio")
    shown = {only: ratios_of[only]} if only in ratios_of else ratios_of
    for (name, (updates, ratios)), line in zip(shown.items(), LINES, strict=False):
        there = np.isfinite(ratios) & (ratios > 0.0)
        ax.plot(updates[there], ratios[there], label=name, **line | {"linewidth": 0.9})
    for limit in limits:
        ax.axhline(limit, color=COLOURS["vermilion"], linewidth=0.8, linestyle=(0, (4, 2)))
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high < 30.0 * low:  # ticks need a decade
        ax.set_ylim(low / 5.0, high * 5.0)
    ax.legend(fontsize=6.5, ncols=2)
    ax.set(xlabel="update", ylabel=r"$\|\Delta\theta\| / \|\theta\|$")


def draw_adjoint_map(ax: Axes, history: History, layer: str, marks: Sequence[Mark] = ()) -> None:
    """The gradient ln |dL/ds_t| of a layer, step upward, update to the right."""
    updates, logs = history.series[f"adjoint/{layer}"]
    finite = np.isfinite(logs)
    low, top = lowest_shown(logs)
    shown = np.ma.masked_array(np.clip(np.where(finite, logs, 0.0), low, None), ~finite).T
    ax.set_facecolor("#BBBBBB")
    half = 0.5 * float(updates[-1] - updates[0]) / max(len(updates) - 1, 1) or 0.5
    extent = (float(updates[0]) - half, float(updates[-1]) + half, -0.5, logs.shape[1] - 0.5)
    image = ax.imshow(
        shown,
        aspect="auto",
        interpolation="none",
        cmap="cividis",
        origin="lower",
        extent=extent,
        vmin=low,
        vmax=top,
    )
    figure = ax.get_figure()
    if figure is not None:
        figure.colorbar(image, ax=ax, pad=0.02, aspect=14).ax.set_title("nats", fontsize=6.5)
    ax.set(xlabel="update", ylabel="step $t$ of the state")
    _marked(ax, marks)


def _logarithmic(ax: Axes, values: Array) -> None:
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0.0:
        ax.set_yscale("log")
