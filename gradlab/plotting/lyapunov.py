"""Lyapunov exponents: the spectrum, how its estimate settled, and the exponent along a sweep of the gain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradlab.analysis.lyapunov import LyapunovSpectrum
from gradlab.plotting.curves import band, reference_line
from gradlab.plotting.style import COLOURS, LINES

Array = npt.NDArray[Any]


def plot_lyapunov_spectrum(ax: Axes, result: LyapunovSpectrum, label: str = "", **line: Any) -> None:
    """Exponents by rank, with bars of two standard errors: over time, or over the batch (all leading axes) if there is one.

    Exponents of -inf are triangles at the lower edge; NaN is left out.
    """
    values, error = _over_members(result)
    rank = np.arange(1, len(values) + 1)
    shown = np.isfinite(values)
    options: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "markersize": 2.5,
        "color": COLOURS["black"],
        "capsize": 1.5,
    } | line
    bars = np.where(np.isfinite(error), 2.0 * error, 0.0)
    ax.errorbar(rank[shown], values[shown], yerr=bars[shown], label=label or None, **options)
    gone = np.isneginf(values)
    if gone.any():
        edge = ax.get_xaxis_transform()  # x in ranks, y in parts of the axes
        ax.plot(rank[gone], np.full(int(gone.sum()), 0.02), "v", color=options["color"], transform=edge, clip_on=False)
        ax.annotate(
            r"$-\infty$",
            (rank[gone][0], 0.05),
            xycoords=edge,
            ha="center",
            fontsize=6.5,
            textcoords="offset points",
            xytext=(0, 3),
        )
    reference_line(ax, 0.0, "", 1.0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="rank $i$", ylabel=rf"$\lambda_i$ ({result.unit})")


def plot_lyapunov_convergence(ax: Axes, result: LyapunovSpectrum, ranks: tuple[int, ...] = (1, 2, 3)) -> None:
    """Running estimates of the exponents of `ranks` (at most 3) against the steps counted, with the final two standard errors.

    Of several members the mean.
    """
    steps = np.cumsum(result.block_steps)
    values, error = _over_members(result)
    history = result.history.reshape(len(steps), -1, len(values)).mean(axis=1)
    for rank, line in zip([rank for rank in ranks if rank <= len(values)], LINES.values(), strict=False):
        final, two = values[rank - 1], 2.0 * error[rank - 1]
        if not np.isfinite(final):
            continue
        if np.isfinite(two):
            ax.fill_between(steps, final - two, final + two, color=line["color"], alpha=0.15, linewidth=0)
        ax.plot(steps, history[:, rank - 1], label=rf"$\lambda_{{{rank}}}$", **line)
    ax.set(xlabel="steps counted", ylabel=f"estimate so far ({result.unit})")


def plot_exponent_against_gain(
    ax: Axes, gains: Array, exponents: Array, label: str, *, theory: Array | None = None, **line: Any
) -> None:
    """The largest exponent (seeds, len(gains)) against the gain: the median, and the whole range shaded.

    `theory` (len(gains),) is drawn as a dotted line. Above 0 neighbouring trajectories part and gradients explode.
    """
    band(ax, gains, exponents, label, **({"color": COLOURS["vermilion"], "linestyle": "-"} | line))
    if theory is not None:
        ax.plot(gains, theory, label="mean field", color=COLOURS["black"], linestyle=":")
    reference_line(ax, 0.0, "", float(np.min(gains)))
    ax.set(xlabel="gain $g$", ylabel=r"$\lambda_1$ (nats per step)")


def _over_members(result: LyapunovSpectrum) -> tuple[Array, Array]:
    """(exponents, standard errors), (k,) each."""
    if result.exponents.ndim == 1:
        return result.exponents, result.standard_error
    members = result.exponents.reshape(-1, result.exponents.shape[-1])
    if len(members) == 1:
        return members[0], result.standard_error.reshape(-1)
    with np.errstate(invalid="ignore"):  # members at -inf have no scatter
        return members.mean(axis=0), members.std(axis=0, ddof=1) / np.sqrt(len(members))
