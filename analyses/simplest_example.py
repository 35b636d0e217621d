"""The one-weight chain: a change of w by one per cent, amplified by a thousand steps.

Claim: in a linear unit that feeds back to itself, a small change of its weight is amplified over the steps, so
that no learning rate suits both sides of w = 1. Source: Hung-yi Lee's lecture on recurrent networks, after
Bengio, Simard & Frasconi (1994). The chain is y_T = w^(T-1) for the input 1, 0, 0, ...; with T = 1000,
1.01^999 = 20751.6 and 0.99^999 = 4.36e-5. The task is to reach y = 1, whose solution is w = 1.

It would be contradicted by a ratio of the gradients at 1.01 and 0.99 near 1, so that one rate could serve both.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab.runs import GroundTruth, Verdict

Array = npt.NDArray[Any]

CLAIM = "A small change of a recurrent weight is amplified over the steps; no one learning rate suits both sides of w = 1"
SOURCE = "H.-Y. Lee, lecture on recurrent neural networks; Bengio, Simard & Frasconi (1994)"
CONTRADICTED_IF = "the gradients of the loss at w = 1.01 and 0.99 are of one order of magnitude"
NEEDS: tuple[str, ...] = ()
ALONE = False
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        "steps": 1000,
        "weights": [0.98, 1.02, 401],
        "examples": [1.01, 1.0, 0.99, 0.01],
        "learning_rates": [-16.0, 0.0, 65],
    },
    "quick": {
        "steps": 1000,
        "weights": [0.98, 1.02, 101],
        "examples": [1.01, 1.0, 0.99, 0.01],
        "learning_rates": [-16.0, 0.0, 17],
    },
}
TARGET = 1.0


def chain(w: Array, steps: int) -> tuple[Array, Array, Array, Array]:
    """y_T, dy_T/dw, the loss (y_T - 1)^2 and its derivative, for every weight of `w` at once: (n,) each."""
    net = gradlab.Network(gradlab.Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": w[:, None, None], "0.b": np.zeros(1)}
    x = np.zeros((steps, 1, 1))
    x[0] = 1.0
    batch = gradlab.Batch(x, np.full((1, 1), TARGET))

    def value(outputs: Array, targets: Array, mask: Array | None) -> tuple[Array, Array]:
        return outputs[..., 0, 0], np.ones_like(outputs)

    plain = gradlab.bptt(net, params, batch, value, keep=())
    loss = gradlab.bptt(net, params, batch, gradlab.mean_squared_error, keep=())
    return plain.loss, plain.gradients["0.U"][:, 0, 0], loss.loss, loss.gradients["0.U"][:, 0, 0]


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    low, high, count = p["weights"]
    w = np.linspace(low, high, count)
    y, dy, loss, dloss = chain(w, p["steps"])
    examples = np.array(p["examples"])
    example_y, example_dy, _, example_dloss = chain(examples, p["steps"])
    first, last, rates = p["learning_rates"]
    learning_rates = np.logspace(first, last, rates)
    starts = np.array([1.01, 0.99])
    start_slope = chain(starts, p["steps"])[3]
    after = starts[:, None] - learning_rates * start_slope[:, None]  # one gradient step, (start, rate)
    # What the step did to the loss: with w far above 1 the chain overflows, which is the answer.
    loss_after = np.stack([chain(w_after, p["steps"])[2] for w_after in after])
    return {
        "w": w,
        "y": y,
        "dy": dy,
        "loss": loss,
        "dloss": dloss,
        "examples": examples,
        "example_y": example_y,
        "example_dy": example_dy,
        "example_dloss": example_dloss,
        "learning_rates": learning_rates,
        "starts": starts,
        "start_slope": start_slope,
        "after": after,
        "loss_after": loss_after,
        "loss_before": chain(starts, p["steps"])[2],
    }


def ideal_rates(result: Mapping[str, Array]) -> Array:
    """The learning rate that would land exactly on w = 1, from each start."""
    return (result["starts"] - 1.0) / result["start_slope"]


def check(result: Mapping[str, Array]) -> Verdict:
    truths = []
    for w, y, dy in zip(result["examples"], result["example_y"], result["example_dy"], strict=True):
        exact = Decimal(str(w))
        if w == 0.01:
            continue  # 1e-1998 is no float: see the numbers below
        for name, measured, power in (("y", y, exact**999), ("dy/dw", dy, 999 * exact**998)):
            truths.append(
                GroundTruth(f"{name} at w = {w:g}, T = 1000", float(measured), float(power), 1e-9, "w^(T-1), exact powers")
            )
    truths.append(
        GroundTruth(
            "y at w = 0.01, T = 1000", float(result["example_y"][3]), 0.0, 0.0, "ln y = -4600.6 is below the range of floats"
        )
    )
    for start, slope in zip(result["starts"], result["start_slope"], strict=True):
        exact = Decimal(str(start))
        power = 2 * (exact**999 - 1) * 999 * exact**998
        truths.append(
            GroundTruth(f"dL/dw at w = {start:g}, T = 1000", float(slope), float(power), 1e-9, "2 (y - 1) dy/dw, exact powers")
        )
    slope_ratio = float(abs(result["start_slope"][0] / result["start_slope"][1]))
    spread = max(slope_ratio, 1.0 / slope_ratio)
    rate_above, rate_below = (float(r) for r in ideal_rates(result))
    amplification = float(result["example_y"][0] / result["example_y"][2])
    # The rates at which one step from BOTH starts lowers the loss. A step whose effect is below the rounding of the loss
    # still goes downhill: there the linear term decides, as exact arithmetic would.
    tiny = result["learning_rates"] * result["start_slope"][:, None] ** 2 < 1e-6 * result["loss_before"][:, None]
    lowers = tiny | (result["loss_after"] < result["loss_before"][:, None])
    both = int(lowers.all(axis=0).sum())
    word = "confirmed" if spread > 100.0 else "contradicted" if spread < 10.0 else "inconclusive"
    best_shared = float(result["learning_rates"][lowers[0]].max(initial=0.0))
    progress = best_shared * float(abs(result["start_slope"][1])) / 0.01
    return Verdict(
        word,
        f"y_1000 is {result['example_y'][0]:.1f} at w = 1.01 and {result['example_y'][2]:.3g} at 0.99; the loss gradients "
        f"differ by a factor {slope_ratio:.2g}: the rate that reaches w = 1 in one step is {rate_above:.2g} from above and "
        f"{rate_below:.2g} from below",
        {
            "y at 1.01": float(result["example_y"][0]),
            "y at 0.99": float(result["example_y"][2]),
            "dy/dw at 1.01": float(result["example_dy"][0]),
            "dy/dw at 0.99": float(result["example_dy"][2]),
            "dy/dw at 1": float(result["example_dy"][1]),
            "amplification of y by 2 per cent of w": amplification,
            "ratio of loss gradients": slope_ratio,
            "ideal learning rate from 1.01": rate_above,
            "ideal learning rate from 0.99": rate_below,
            "tried rates that lower the loss from both starts": both,
            "largest tried rate that lowers the loss from 1.01": best_shared,
            "share of the way to w = 1 that it goes from 0.99": progress,
        },
        tuple(truths),
    )


def draw(result: Mapping[str, Array]) -> Any:
    from gradlab import plotting

    figure = plotting.new_figure(plotting.PAGE, 2.5)
    left, right = figure.subplots(1, 2)
    left.semilogy(result["w"], result["y"], label=r"output $y_{1000}$", **plotting.LINES["first"])
    left.semilogy(result["w"], result["dy"], label=r"gradient $dy_{1000}/dw$", **plotting.LINES["second"])
    for k, offset, side in ((0, (6, -9), "left"), (2, (6, -8), "left")):
        w, y = result["examples"][k], result["example_y"][k]
        left.plot(w, y, "o", color=plotting.COLOURS["black"], markersize=3.5, zorder=5)
        label = f"{w:g}$^{{999}}$ = {y:.1f}" if k == 0 else f"{w:g}$^{{999}}$ = {y:.3g}"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        left.annotate(label, (w, y), xytext=offset, textcoords="offset points", fontsize=7, ha=side, bbox=box, zorder=4)
    left.set_xticks([0.98, 0.99, 1.0, 1.01, 1.02])
    left.set_xlim(0.979, 1.0245)
    left.set_xlabel("recurrent weight $w$")
    left.set_ylabel("value (log scale)")
    left.legend(loc="upper left")
    plotting.panel_label(left, "a", "output and gradient after 1000 steps")

    names = ("first", "second")
    for k, (start, line) in enumerate(zip(result["starts"], names, strict=True)):
        # Not |after - start|: that reads 0 where the step is below the rounding of w.
        moved = result["learning_rates"] * np.abs(result["start_slope"][k])
        right.loglog(result["learning_rates"], moved, label=f"from $w$ = {start:g}", **plotting.LINES[line])
        rate = ideal_rates(result)[k]
        right.plot(rate, 0.01, "o", color=plotting.COLOURS["black"], markersize=3.5, zorder=5)
        right.annotate(f"rate {rate:.2g}", (rate, 0.01), xytext=(5, -10), textcoords="offset points", fontsize=7)
    plotting.reference_line(right, 0.01, "step that solves the task", 1e-10)
    right.set_xlim(1e-17, 1e4)  # room for the second label
    right.set_xlabel("learning rate")
    right.set_ylabel(r"change of $w$ by one step")
    right.legend(loc="upper left")
    plotting.panel_label(right, "b", "one gradient step towards $y$ = 1")
    return figure
