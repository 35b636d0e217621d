"""Eigenvalues, singular values and their spread, pseudospectra and transient growth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from gradlab._validate import require_one_of
from gradlab.analysis.pseudospectra import Pseudospectrum
from gradlab.analysis.spectra import Conditioning, JacobianSpectra
from gradlab.analysis.transient_growth import TransientGrowth
from gradlab.plotting.curves import left_out, reference_line
from gradlab.plotting.style import COLOURS

Array = npt.NDArray[Any]

WHAT = {
    "effective_rank": ("effective rank", 1.0),
    "stable_rank": ("stable rank", 1.0),
    "log_condition": (r"$\log_{10}$ condition", 1.0 / np.log(10.0)),
    "isometry_spread": ("isometry spread (variance of $s^2$ / mean$^2$)", 1.0),
}


def unit_circle(ax: Axes) -> None:
    """The circle |z| = 1, dashed: inside of it a linear map forgets in the long run."""
    angle = np.linspace(0.0, 2.0 * np.pi, 200)
    ax.plot(np.cos(angle), np.sin(angle), color=COLOURS["grey"], linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)


def plot_eigenvalues(ax: Axes, spectra: JacobianSpectra, **marker: Any) -> None:
    """All eigenvalues in the complex plane, with the unit circle; those that are not finite are left out and counted."""
    values = spectra.eigenvalues.ravel()
    finite = np.isfinite(values)
    style: dict[str, Any] = {"color": COLOURS["vermilion"], "marker": ".", "markersize": 2.5, "linestyle": "", "rasterized": True}
    ax.plot(values[finite].real, values[finite].imag, **(style | marker))
    unit_circle(ax)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel=r"Re $\lambda$", ylabel=r"Im $\lambda$")
    left_out(ax, int((~finite).sum()))


def plot_singular_values(ax: Axes, spectra: JacobianSpectra, label: str, **line: Any) -> None:
    """Singular values against their rank, in decades: the median over all matrices as a line, their whole range shaded.

    Zeros are drawn at the lower edge of what is there; matrices that are not finite are left out and counted.
    """
    values = spectra.singular_values.reshape(-1, spectra.singular_values.shape[-1])
    finite = np.isfinite(values).all(axis=-1)
    values = values[finite]
    left_out(ax, int((~finite).sum()), "matrices not finite")
    ax.set(xlabel="rank", ylabel=r"$\log_{10}$ singular value")
    if not len(values):
        return
    lowest = values.min(where=values > 0.0, initial=np.inf)
    decades = np.log10(np.maximum(values, lowest if np.isfinite(lowest) else 1.0))
    rank = np.arange(1, values.shape[-1] + 1)
    ax.fill_between(rank, decades.min(axis=0), decades.max(axis=0), color=line.get("color"), alpha=0.18, linewidth=0)
    ax.plot(rank, np.median(decades, axis=0), label=label, **line)


def plot_pseudospectrum(ax: Axes, result: Pseudospectrum, member: tuple[int, ...] = ()) -> Any:
    """Level lines of log10 of the smallest singular value of z - A, at most 10, with the eigenvalues and the unit circle.

    `member`: which matrix, if the result holds several. Returns the level lines.
    """
    decades = np.log10(np.maximum(result.smallest[member], np.finfo(float).tiny))
    low, high = np.quantile(decades, 0.02), decades.max()
    step = next((s for s in (0.1, 0.25, 0.5, 1.0, 2.0) if high - low <= 10.0 * s), 5.0)
    levels = np.arange(np.ceil(low / step) * step, high + 1e-9, step)
    lines = ax.contour(
        result.x,
        result.y,
        decades,
        levels=levels if len(levels) else [decades.mean()],
        cmap="cividis",
        linewidths=0.8,
        linestyles="solid",
    )
    ax.clabel(lines, fontsize=5.5, fmt="%g")
    values = result.eigenvalues[member]
    ax.plot(values.real, values.imag, ".", color=COLOURS["vermilion"], markersize=3)
    unit_circle(ax)
    ax.set_aspect("equal", adjustable="box")
    ax.set(xlabel="Re $z$", ylabel="Im $z$", xlim=(result.x[0], result.x[-1]), ylim=(result.y[0], result.y[-1]))
    return lines


def plot_transient_growth(ax: Axes, result: TransientGrowth, label: str, **line: Any) -> None:
    """log10 of the norm of A^t, or of the product of t Jacobians, against t: the median over all products, their range shaded.

    Steps at which some product is exactly zero are left out; those at which one is not finite are counted as well.
    """
    decades = result.log_norm.reshape(len(result.log_norm), -1) / np.log(10.0)
    shown = np.flatnonzero(np.isfinite(decades).all(axis=1))
    ax.fill_between(
        shown, decades[shown].min(axis=1), decades[shown].max(axis=1), color=line.get("color"), alpha=0.18, linewidth=0
    )
    ax.plot(shown, np.median(decades[shown], axis=1), label=label, **line)
    left_out(ax, int(np.isnan(decades).any(axis=1).sum()), "steps not finite")
    reference_line(ax, 0.0, "", 0.0)
    ax.set(xlabel="step $t$", ylabel=r"$\log_{10}\, \|J_t \cdots J_1\|$")


def plot_conditioning(ax: Axes, result: Conditioning, what: str = "log_condition", label: str = "", **line: Any) -> None:
    """One measure of how evenly each step acts, (T, ...), against the step: the median, and the whole range shaded.

    Steps with an infinite condition or without a number are left out and counted. Error: ValueRangeError for another measure.
    """
    name, unit = WHAT[require_one_of("what", what, WHAT)]
    values = np.atleast_1d(getattr(result, what)) * unit
    values = values.reshape(len(values), -1)
    finite = np.isfinite(values).all(axis=1)
    shown, style = values[finite], {"color": COLOURS["blue"]} | line
    step = np.flatnonzero(finite) + 1
    ax.fill_between(step, shown.min(axis=1), shown.max(axis=1), color=style["color"], alpha=0.18, linewidth=0)
    ax.plot(step, np.median(shown, axis=1), label=label or None, **style)
    left_out(ax, int((~finite).sum()), "steps not finite")
    ax.set(xlabel="step $t$", ylabel=name)
