"""Panels of a diagnosis: functions of (ax, numbers)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gradlab.analysis.carried import CarriedGradient
from gradlab.analysis.lyapunov import LyapunovSpectrum
from gradlab.diagnosis.maps import LayerFlow, LayerSpectra
from gradlab.plotting import COLOURS, plot_eigenvalues, plot_lyapunov_spectrum, plot_singular_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[Any]

LINES: tuple[dict[str, Any], ...] = tuple(
    {"color": COLOURS[colour], "linestyle": dash, "linewidth": 1.4}
    for colour, dash in (
        ("blue", "-"),
        ("vermilion", "--"),
        ("green", "-."),
        ("pink", ":"),
        ("orange", (0, (6, 2))),
        ("sky", (0, (1, 1))),
    )
)
SEVERITY = {"error": COLOURS["vermilion"], "warning": COLOURS["orange"], "info": COLOURS["blue"]}
MARKS = ("o", "s", "^", "D", "v", "x")

Mark = tuple[float, str, str, str]
"""(place on the axis, label, severity, name of the layer, "" for all): where a finding lies."""


def draw_gradients(ax: Axes, flows: Sequence[LayerFlow], marks: Sequence[Mark] = ()) -> None:
    """The gradient ln |dL/ds| of each layer against the step, median and quartiles; a gap where it is exactly zero."""
    for flow, line in zip(flows, LINES, strict=False):
        steps = np.arange(len(flow.median))
        shown = [np.where(np.isfinite(one), one, np.nan) for one in (flow.low, flow.median, flow.high)]
        ax.fill_between(steps, shown[0], shown[2], color=line["color"], alpha=0.18, linewidth=0)
        marker = "." if np.isfinite(flow.median).sum() < 3 else ""
        ax.plot(steps, shown[1], label=f"layer {flow.name}", marker=marker, **line)
    last = max((len(flow.median) for flow in flows), default=1) - 1
    ax.set(xlabel="step of the input", ylabel=r"$\ln\, \|dL/ds_t\|$", xlim=(-0.01 * last - 0.1, 1.01 * last + 0.1))
    if len(flows) > 1:
        above = (0.5, 1.1 if marks else 1.0)
        ax.legend(ncols=2, loc="lower center", bbox_to_anchor=above, fontsize=6.5, handlelength=3.0)
    _marked(ax, marks)


def lowest_shown(values: Array) -> tuple[float, float]:
    """Both ends of a colour scale: all of it, but for the lowest twentieth if that lies far below the rest."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1e-9
    top, usual = float(finite.max()), float(np.quantile(finite, 0.05))
    low = max(float(finite.min()), top - max(40.0, 1.25 * (top - usual)))
    return low, max(top, low + 1e-9)


def draw_map(ax: Axes, flows: Sequence[LayerFlow], marks: Sequence[Mark] = ()) -> None:
    """Layer by step, ln |dL/ds| as colour; what is empty is exactly zero or no number."""
    values = np.stack([flow.median for flow in flows][::-1])
    finite = np.isfinite(values)
    low, top = lowest_shown(values)
    shown = np.ma.masked_array(np.clip(np.where(finite, values, 0.0), low, None), ~finite)
    ax.set_facecolor("#BBBBBB")
    image = ax.imshow(shown, aspect="auto", interpolation="none", cmap="cividis", vmin=low, vmax=top, origin="lower")
    ax.set_yticks(range(len(flows)), [flow.name for flow in flows][::-1])
    ax.set(xlabel="step of the input", ylabel="layer")
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)
    figure = ax.get_figure()
    if figure is not None:
        bar = figure.colorbar(
            image, ax=ax, pad=0.02, aspect=14, extend="min" if bool((values[finite] < low).any()) else "neither"
        )
        bar.ax.set_title("nats", fontsize=6.5)
        bar.outline.set_visible(False)
    rows = {flow.name: len(flows) - 1 - k for k, flow in enumerate(flows)}
    for at, label, severity, layer in marks:
        if layer in rows:
            box = {"boxstyle": "circle,pad=0.18", "facecolor": "white", "edgecolor": SEVERITY[severity], "linewidth": 1.2}
            ax.annotate(label, (at, rows[layer]), ha="center", va="center", fontsize=6, fontweight="bold", bbox=box)


def draw_carried(ax: Axes, carried: CarriedGradient, marks: Sequence[Mark] = (), limit: float | None = None) -> None:
    """What a unit gradient at the end becomes on its way back: ln of its norm against the lag, median and range."""
    logs = carried.log_gain
    lags = np.arange(len(logs))
    finite = np.where(np.isfinite(logs), logs, np.nan)
    there = np.isfinite(logs).any(axis=1)
    low, middle, high = np.full((3, len(logs)), np.nan)
    low[there], high[there] = np.nanmin(finite[there], axis=1), np.nanmax(finite[there], axis=1)
    middle[there] = np.nanmedian(finite[there], axis=1)
    ax.fill_between(lags, low, high, color=COLOURS["blue"], alpha=0.18, linewidth=0)
    ax.plot(lags, middle, color=COLOURS["blue"], linewidth=1.4)
    ax.axhline(0.0, color=COLOURS["grey"], linewidth=0.6, linestyle=(0, (1, 2)))
    if limit is not None:
        ax.axhline(limit, color=COLOURS["vermilion"], linewidth=0.8, linestyle=(0, (4, 2)))
    ax.set(xlabel="lag: steps back from the end", ylabel="ln gain of the gradient")
    ax.margins(x=0.01)
    _marked(ax, marks)


def draw_gate(ax: Axes, values: Array, name: str, marks: Sequence[Mark] = (), what: str = "gate") -> None:
    """A gate, or a part of the state, (T, units): median over units and sequences, half and 90 % of the values shaded."""
    steps = np.arange(len(values))
    with np.errstate(all="ignore"):
        q05, q25, q50, q75, q95 = np.nanquantile(values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1)
    ax.fill_between(steps, q05, q95, color=COLOURS["blue"], alpha=0.15, linewidth=0, label="90 % of the values")
    ax.fill_between(steps, q25, q75, color=COLOURS["blue"], alpha=0.3, linewidth=0, label="half of them")
    ax.plot(steps, q50, color=COLOURS["blue"], linewidth=1.4, label="median")
    low, high = float(np.nanmin(q05)), float(np.nanmax(q95))
    low, high = (min(low, 0.0), max(high, 1.0)) if what == "gate" else (low, max(high, low + 1e-12))
    ax.set(xlabel="step of the input", ylabel=f"{what} ${name}$", ylim=(low - 0.04 * (high - low), high + 0.04 * (high - low)))
    ax.margins(x=0.01)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06 if marks else 1.0), ncols=3, fontsize=6.5, handlelength=1.4)
    _marked(ax, marks)


def draw_gates(ax: Axes, quantiles: Mapping[str, Array]) -> None:
    """For each gate where its values lie between its ends, 0 and 1: five quantiles (0.05, 0.25, 0.5, 0.75, 0.95)."""
    place = np.arange(len(quantiles))
    low, lower, middle, upper, high = np.stack(list(quantiles.values()), axis=1)
    for start, stop in ((0.0, 0.1), (0.9, 1.0)):
        ax.axvspan(start, stop, color=COLOURS["orange"], alpha=0.16, linewidth=0)
    ax.hlines(place, low, high, color=COLOURS["blue"], linewidth=1.4)
    ax.barh(place, np.maximum(upper - lower, 0.004), left=lower, height=0.5, color=COLOURS["blue"], alpha=0.45)
    ax.plot(middle, place, "o", color=COLOURS["blue"], markersize=4.5, clip_on=False, zorder=4)
    ax.set_yticks(place, [f"${name}$" for name in quantiles])
    ax.set_ylim(len(quantiles) - 0.4, -0.6)
    ax.set(xlim=(-0.01, 1.01), xlabel="place between the gate's ends", ylabel="gate")


def draw_units(ax: Axes, values: Array, label: str) -> None:
    """One number for each unit, sorted, largest first; exact zeros are marked."""
    ordered = np.sort(np.nan_to_num(values, nan=0.0))[::-1]
    zero = ordered == 0.0
    place = np.arange(1, len(ordered) + 1)
    ax.vlines(place[~zero], 0.0, ordered[~zero], color=COLOURS["blue"], linewidth=1.2)
    ax.plot(place[zero], np.zeros(int(zero.sum())), "x", color=COLOURS["vermilion"], markersize=3.5, clip_on=False)
    ax.set(xlabel=f"unit, sorted ({int(zero.sum())} of {len(ordered)} exactly 0, marked x)", ylabel=label)
    ax.margins(x=0.01)


def draw_level(ax: Axes, values: Array, label: str, marks: Sequence[Mark] = (), xlabel: str = "step of the input") -> None:
    """One logarithm for each step."""
    ax.plot(np.arange(len(values)), np.where(np.isfinite(values), values, np.nan), color=COLOURS["blue"], linewidth=1.4)
    ax.set(xlabel=xlabel, ylabel=label)
    ax.margins(x=0.01)
    _marked(ax, marks)


def draw_features(ax: Axes, sizes: Array) -> None:
    """Root mean square of each input feature, on a logarithmic axis."""
    place = np.arange(len(sizes))
    there = np.isfinite(sizes) & (sizes > 0.0)
    base = float(sizes.min(where=there, initial=np.inf)) / 3.0 if there.any() else 0.1
    ax.bar(place[there], sizes[there] - base, bottom=base, width=0.7, color=COLOURS["blue"])
    ax.axhline(1.0, color=COLOURS["grey"], linewidth=0.8, linestyle=(0, (4, 2)))
    ax.set_yscale("log")
    if len(sizes) <= 12:
        ax.set_xticks(place)
    ax.set(xlabel="input feature", ylabel="root mean square")


def draw_padding(ax: Axes, constant: Array) -> None:
    """Which steps of which sequences (T, B) belong to a run of one vector at the end."""
    shown = np.where(constant.T, 1.0, 0.0)
    ax.imshow(shown, aspect="auto", interpolation="none", cmap="cividis", vmin=-0.15, vmax=1.15, origin="lower")
    ax.set(xlabel="step of the input", ylabel="sequence")


def draw_line(ax: Axes, x: Array, losses: Array, taken: float) -> None:
    """The loss along the negative gradient, in units of one update."""
    finite = np.isfinite(losses)
    ax.plot(x[finite], losses[finite], color=COLOURS["blue"], linewidth=1.4, marker=".", markersize=3)
    ax.axvline(taken, color=COLOURS["vermilion"], linewidth=0.9, linestyle=(0, (4, 2)))
    ax.annotate(
        "one update",
        (taken, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-3, -8),
        textcoords="offset points",
        ha="right",
        fontsize=6.5,
    )
    if finite.any() and losses[finite].min() > 0.0 and losses[finite].max() > 30.0 * losses[finite].min():
        ax.set_yscale("log")
    ax.set(xlabel="step along the negative gradient (updates)", ylabel="loss")


def draw_eigenvalues(ax: Axes, result: LayerSpectra) -> None:
    """Eigenvalues of J_t at each step, with the unit circle."""
    if result.spectra is None:
        return
    plot_eigenvalues(ax, result.spectra, color=COLOURS["blue"], markersize=3.0, rasterized=False, alpha=0.7)


def draw_singular_values(ax: Axes, result: LayerSpectra) -> None:
    """Singular values of J_t by rank; the line at one."""
    if result.spectra is None:
        return
    plot_singular_values(ax, result.spectra, "", color=COLOURS["blue"], linewidth=1.4)
    ax.axhline(0.0, color=COLOURS["grey"], linewidth=0.6, linestyle=(0, (1, 2)))


def draw_exponents(ax: Axes, spectra: Mapping[str, LyapunovSpectrum]) -> None:
    """Leading exponents of each layer by rank, with two standard errors."""
    for (name, spectrum), line, marker in zip(spectra.items(), LINES, MARKS, strict=False):
        plot_lyapunov_spectrum(ax, spectrum, f"layer {name}", color=line["color"], marker=marker, markersize=3.5)
    if len(spectra) > 1:
        ax.legend(fontsize=6.5)


def _marked(ax: Axes, marks: Sequence[Mark]) -> None:
    """A line at each place, with the numbers of its findings on top."""
    low, high = ax.get_xlim()
    places: list[tuple[float, list[str], str]] = []
    for at, label, severity, _ in sorted(marks, key=lambda mark: mark[0]):
        if places and at - places[-1][0] < 0.025 * (high - low):  # they would cover each other
            places[-1][1].append(label)
        else:
            places.append((at, [label], severity))
    for at, labels, severity in places:
        label = ",".join(labels if len(labels) < 4 else [*labels[:2], "…"])
        ax.axvline(at, color=SEVERITY[severity], linewidth=0.9, linestyle=(0, (2, 1.5)))
        box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": SEVERITY[severity], "linewidth": 1.0}
        ax.annotate(
            label,
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=6,
            fontweight="bold",
            bbox=box,
        )
