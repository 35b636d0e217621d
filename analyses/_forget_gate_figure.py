"""The figure of `forget_gate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab import plotting  # first: it imports matplotlib so that the environment cannot prevent it

from analyses import _trials, forget_gate  # isort: skip
from gradlab.analysis.flow import median_interval  # isort: skip

Array = npt.NDArray[Any]
LINES: dict[float, tuple[str, Any]] = {
    0.0: ("vermilion", "-"),
    1.0: ("orange", (0, (5, 1, 1, 1, 1, 1))),
    2.0: ("green", "--"),
    4.0: ("blue", "-."),
    6.0: ("black", ":"),
}
"""One line for each bias, in all panels."""


def _line(bias: float) -> dict[str, Any]:
    colour, dashes = LINES.get(float(bias), ("grey", "-"))
    return {"color": plotting.COLOURS[colour], "linestyle": dashes, "linewidth": 1.2}


def draw(result: Mapping[str, Array]) -> Any:
    figure = plotting.new_figure(plotting.PAGE, 4.6)
    (constants, flow, growth), (right, curves, opened) = figure.subplots(2, 3)
    _constants(constants, result)
    _flow(flow, result)
    _growth(growth, result)
    _right(right, result)
    _curves(curves, result)
    _gates(opened, result)
    return figure


def _constants(ax: Any, result: Mapping[str, Array]) -> None:
    biases, steps = result["biases"], len(result["flow"])
    fine = np.linspace(biases[0], biases[-1], 100)
    ax.semilogy(fine, forget_gate.predicted(fine), color=plotting.COLOURS["grey"], linewidth=1.0, label=r"$-1/\ln\,\sigma(b_f)$")
    tau = np.median(1.0 / result["rate"], axis=-1)  # (bias, seed)
    ax.plot(
        biases,
        np.median(tau, axis=-1),
        "o",
        color=plotting.COLOURS["vermilion"],
        markersize=4,
        label=r"measured, $-1/\overline{\ln f}$",
    )
    horizon = np.median(result["horizon"], axis=-1)
    seen = np.isfinite(horizon)
    ax.plot(
        biases[seen], horizon[seen], "s", color=plotting.COLOURS["blue"], markersize=4, markerfacecolor="none", label="horizon"
    )
    ax.plot(
        biases[~seen],
        np.full((~seen).sum(), float(steps)),
        "^",
        color=plotting.COLOURS["blue"],
        markersize=4,
        label=f"beyond {steps}",
    )
    ax.set(xlabel="forget bias $b_f$", ylabel="steps")
    ax.legend(loc="upper left", fontsize=6)
    plotting.panel_label(ax, "a", "time constants")


def _flow(ax: Any, result: Mapping[str, Array]) -> None:
    biases, flow = result["biases"], np.median(result["flow"], axis=-1)
    lags = np.arange(1, len(flow) + 1)
    for k, bias in enumerate(biases):
        if bias in (0.0, 2.0, 4.0, 6.0):
            ax.plot(lags, flow[:, k], label=f"$b_f$ = {bias:g}", **_line(bias))
            line = {**_line(bias), "linewidth": 0.5, "alpha": 0.8}
            ax.plot(lags, -(lags - 1.0) / forget_gate.predicted(bias), **line)
    ax.axhline(forget_gate.VANISHED, color=plotting.COLOURS["grey"], linewidth=0.6, linestyle=(0, (1, 2)))
    ax.set_ylim(-30.0, 3.0)
    ax.set(xlabel="lag $T-t$", ylabel=r"$\ln\,|\partial L/\partial c_t|$, relative")
    ax.legend(loc="lower right", fontsize=6, frameon=True, facecolor="white", edgecolor="none", framealpha=0.9)
    plotting.panel_label(ax, "b", r"along $c$ (thin: $\prod f$)")


def _growth(ax: Any, result: Mapping[str, Array]) -> None:
    for k, bias in enumerate(result["grown biases"]):
        plotting.band(ax, result["gains"], result["growth"][:, k].T, f"$b_f$ = {bias:g}", **_line(bias))
    ax.set_xscale("log", base=2)
    limit = -forget_gate.VANISHED / float(result["grown steps"])
    for level in (-limit, 0.0, limit):
        ax.axhline(level, color=plotting.COLOURS["grey"], linewidth=0.6, linestyle=(0, (1, 2)))
    note = {
        "xycoords": ("axes fraction", "data"),
        "textcoords": "offset points",
        "fontsize": 6,
        "color": "#555555",
    }
    steps = int(result["grown steps"])
    ax.annotate(f"thousandfold in {steps} steps", (0.02, limit), xytext=(0, 2), **note)
    ax.annotate("a thousandth", (0.98, -limit), xytext=(0, -8), ha="right", **note)
    ax.set(xlabel="gain of $U$", ylabel="growth of $(c, h)$, nats per step")
    ax.legend(loc="upper left", fontsize=6)
    plotting.panel_label(ax, "c", "full Jacobians")


def _right(ax: Any, result: Mapping[str, Array]) -> None:
    right, biases = 100.0 * forget_gate.accuracy(result), result["learnt biases"]
    for k, own in enumerate(right):
        ax.plot(
            np.linspace(k - 0.15, k + 0.15, len(own)), np.sort(own), "o", color=plotting.COLOURS["blue"], markersize=3, alpha=0.6
        )
        low, high = median_interval(own, 0.95)
        middle = float(np.median(own))
        ax.errorbar(
            k + 0.3, middle, [[middle - low], [high - middle]], marker="D", markersize=3.5, color="black", capsize=2, linewidth=1
        )
    ax.axhline(25.0, color=plotting.COLOURS["grey"], linewidth=0.7, linestyle=(0, (1, 2)))
    ax.annotate(
        "a guess",
        (0.98, 25.0),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        fontsize=6.5,
    )
    ax.set_xticks(range(len(biases)), [f"{bias:g}" for bias in biases])
    ax.set(xlabel="forget bias $b_f$ at the start", ylabel="fresh sequences right (%)", ylim=(0, 104))
    plotting.panel_label(ax, "d", f"temporal order, $T$ = {int(result['length'])}")


def _curves(ax: Any, result: Mapping[str, Array]) -> None:
    biases, settings = result["learnt biases"], forget_gate.chosen(result)
    for k, bias in enumerate(biases):
        rows = 100.0 * _trials.carried(result["validation"][:, settings[k]])
        ax.plot(result["updates"], rows.mean(axis=1), label=f"$b_f$ = {bias:g}", **_line(bias))
    ax.set(xlabel="updates", ylabel="wrong in validation (%), mean", ylim=(-2, 80), xlim=(0, int(result["budget"])))
    ax.legend(loc="best", fontsize=6)
    plotting.panel_label(ax, "e", "learning")


def _gates(ax: Any, result: Mapping[str, Array]) -> None:
    settings, biases = forget_gate.chosen(result), result["learnt biases"]
    before, after = result["gates before"][0, settings], result["gates after"][0, settings]
    solved = forget_gate.accuracy(result) > 0.99
    for k in range(len(biases)):
        ax.plot(
            k - 0.2,
            np.median(before[k]),
            "_",
            color="black",
            markersize=12,
            markeredgewidth=1.2,
            label="start" if k == 0 else None,
        )
        for good, mark, text in ((True, "o", "solves it"), (False, "x", "does not")):
            own = after[k][solved[k] == good]
            x = np.linspace(k, k + 0.3, len(own)) if len(own) else []
            ax.plot(
                x,
                own,
                mark,
                color=plotting.COLOURS["blue" if good else "vermilion"],
                markersize=3.5,
                label=text if k == 0 else None,
            )
    ax.set_xticks(range(len(biases)), [f"{bias:g}" for bias in biases])
    ax.set(xlabel="forget bias $b_f$ at the start", ylabel="mean forget gate", ylim=(0.0, 1.04))
    ax.legend(loc="lower right", fontsize=6)
    plotting.panel_label(ax, "f", "gates after training")
