"""Laws and lines of theory, to stand beside measurements."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gradlab.analysis.fisher import FisherMemory
from gradlab.analysis.mean_field_theory import CriticalLine
from gradlab.analysis.normality import NumericalRange
from gradlab.analysis.theory import CircularLaw, MarchenkoPastur
from gradlab.plotting.curves import left_out, reference_line
from gradlab.plotting.style import COLOURS

DASHED: dict[str, Any] = {"color": COLOURS["black"], "linewidth": 0.9, "linestyle": (0, (4, 2))}


def plot_circular_law(ax: Axes, law: CircularLaw, **line: Any) -> None:
    """The edge of the disc that eigenvalues of a large random matrix fill, for a plot in the complex plane."""
    angle = np.linspace(0.0, 2.0 * np.pi, 200)
    style = DASHED | {"label": f"circular law, radius {law.edge:.3g}"} | line
    ax.plot(law.edge * np.cos(angle), law.edge * np.sin(angle), **style)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel=r"Re $\lambda$", ylabel=r"Im $\lambda$")


def plot_marchenko_pastur(ax: Axes, law: MarchenkoPastur, **line: Any) -> None:
    """The density of eigenvalues that are not 0, for a histogram with density=True; at a hard edge it leaves the axes."""
    share = 0.5 * (1.0 - np.cos(np.linspace(0.0, np.pi, 400)[1:-1]))  # dense at both edges
    x = law.low + (law.high - law.low) * share
    ax.plot(x, law.density(x), **(DASHED | {"label": f"Marchenko-Pastur, ratio {law.ratio:.3g}"} | line))
    ax.set_ylim(bottom=0.0)
    ax.set(xlabel="eigenvalue", ylabel="density (per unit of the eigenvalue)")


def plot_critical_line(ax: Axes, result: CriticalLine, **line: Any) -> None:
    """The line chi = 1 in the plane of both variances: on the side of large weights gradients explode."""
    there = np.isfinite(result.weight_variance)
    order = np.argsort(result.bias_variance[there], axis=None)
    weight, bias = (values[there].ravel()[order] for values in (result.weight_variance, result.bias_variance))
    ax.plot(weight, bias, **(DASHED | {"label": r"$\chi = 1$"} | line))
    left_out(ax, int((~there).sum()), "biases without a critical weight")
    ax.set(xlabel=r"weight variance $\sigma_w^2$", ylabel=r"bias variance $\sigma_b^2$")


def plot_fisher_memory(ax: Axes, result: FisherMemory, label: str = "", **line: Any) -> None:
    """Memory of the input k steps back: the median over all matrices, their whole range shaded. 1 is its sum for a normal one."""
    curve = result.curve.reshape(len(result.curve), -1)
    lags, style = np.arange(len(curve)), {"color": COLOURS["blue"]} | line
    finite = np.isfinite(curve).all(axis=1)
    low, high = curve[finite].min(axis=1), curve[finite].max(axis=1)
    ax.fill_between(lags[finite], low, high, color=style["color"], alpha=0.18, linewidth=0)
    ax.plot(lags[finite], np.median(curve[finite], axis=1), label=label or None, **style)
    left_out(ax, int((~finite).sum()), "lags not finite")
    reference_line(ax, 0.0, "", 0.0)
    ax.set(xlabel="lag $k$ (steps)", ylabel="Fisher information $J(k)$")


def plot_numerical_range(ax: Axes, result: NumericalRange, member: tuple[int, ...] = (), **line: Any) -> None:
    """The boundary of the field of values, inside which all eigenvalues lie. `member`: which matrix, if there are several."""
    boundary = result.boundary[member]
    closed = np.append(boundary, boundary[:1])
    style: dict[str, Any] = {"color": COLOURS["green"], "linewidth": 0.9, "label": "numerical range"}
    ax.plot(closed.real, closed.imag, **(style | line))
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel="Re $z$", ylabel="Im $z$")
