"""The two published conditions on the recurrent matrix, held against measured products of Jacobians.

Claim: a largest singular value of U below 1/gamma is sufficient for the gradient to vanish, and one above 1/gamma is
necessary, not sufficient, for it to explode; gamma is the largest slope of the activation (1 for tanh, 1/4 for the logistic
sigmoid). Source: Pascanu, Mikolov & Bengio (2013), section 2.1, eq. 6-7; for logistic units with all |w| < 4/n Hochreiter &
Schmidhuber (1997), section 3.1. Measured: ln of the largest singular value of J_T ... J_1 per step, over random Elman nets
of several kinds and scales under noise, and the largest single entry over q steps against (n max|w| gamma)^q / n.

It would be contradicted by one net below the limit whose product grows, or by one product above its bound. How loose the
bounds are is the other half of the answer: the share of nets above the limit that vanish all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab.analysis.products import RunningProduct
from gradlab.runs import GroundTruth, Verdict

Array = npt.NDArray[Any]

CLAIM = "A largest singular value below 1/gamma suffices for vanishing; one above is necessary, not sufficient, for exploding"
SOURCE = "Pascanu, Mikolov & Bengio (2013), section 2.1; Hochreiter & Schmidhuber (1997), section 3.1; H.-Y. Lee's lecture"
CONTRADICTED_IF = "one product of Jacobians grows faster than its bound, or every net above the limit explodes"
NEEDS: tuple[str, ...] = ()
ALONE = False
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {"hidden_size": 24, "steps": 100, "draws": 12, "scales": [-5.0, 4.0, 37], "input_scale": 0.5},
    "quick": {"hidden_size": 12, "steps": 60, "draws": 3, "scales": [-5.0, 4.0, 19], "input_scale": 0.5},
}
KINDS = ("Gaussian", "orthogonal", "triangular")
ACTIVATIONS = ("tanh", "sigmoid")
VANISHED = np.log(1e-3)
"""A product that has shrunk to a thousandth has vanished; one that has grown a thousandfold has exploded."""


def matrices(rng: np.random.Generator, kind: str, draws: int, n: int) -> Array:
    """(draws, n, n) random matrices with the largest singular value 1."""
    if kind == "orthogonal":
        own = gradlab.inits.orthogonal()
        return np.stack([own(rng, (n, n)) for _ in range(draws)])
    drawn = rng.standard_normal((draws, n, n))
    if kind == "triangular":  # as far from normal as can be: its eigenvalues say little
        drawn = np.triu(drawn)
    return np.asarray(drawn / np.linalg.norm(drawn, 2, axis=(-2, -1))[:, None, None])


def flow(net: gradlab.Network, params: Mapping[str, Array], x: Array) -> tuple[Array, Array]:
    """(ln of the largest singular value of J_q ... J_1, ln of its largest entry), by q, (T, *E) each."""
    run = gradlab.forward(net, params, x).runs["0"]
    norms, entries = [], []
    product = RunningProduct()
    for t in range(len(x)):
        mantissa = product.multiply(run.window(t, t + 1).jacobians()[0])[..., 0, :, :]
        shift = product.exponent[..., 0] * np.log(2.0)
        with np.errstate(divide="ignore"):
            norms.append(np.log(np.linalg.norm(mantissa, 2, axis=(-2, -1))) + shift)
            entries.append(np.log(np.abs(mantissa).max(axis=(-2, -1))) + shift)
    return np.stack(norms), np.stack(entries)


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    n, T = p["hidden_size"], p["steps"]
    low, high, count = p["scales"]
    limits = 2.0 ** np.linspace(low, high, count)  # gamma times the largest singular value
    U = np.stack([matrices(rng, kind, p["draws"], n) for kind in KINDS])  # (kinds, draws, n, n)
    W = rng.standard_normal((len(KINDS), p["draws"], n, n)) / np.sqrt(n)
    x = p["input_scale"] * rng.standard_normal((T, 1, n))
    found: dict[str, Array] = {"limits": limits, "steps": np.array(T)}
    for k, name in enumerate(ACTIVATIONS):
        gamma = 1.0 / gradlab.analysis.pascanu_bounds(np.eye(2), name).limit
        own = U * (limits / gamma)[:, None, None, None, None]  # (scales, kinds, draws, n, n)
        net = gradlab.Network(gradlab.Elman(name), n, n)
        norms, entries = flow(net, {"0.W": W, "0.U": own, "0.b": np.zeros(n)}, x)
        lags = np.arange(1.0, T + 1.0)
        hochreiter = gradlab.analysis.hochreiter_bound(own, lags, name)
        found[f"{name} norm"] = norms  # (T, scales, kinds, draws)
        found[f"{name} rate"] = gradlab.analysis.pascanu_bounds(own, name).rate
        found[f"{name} entry"] = entries
        found[f"{name} entry bound"] = np.moveaxis(hochreiter.log_bound, -1, 0) - 2.0 * np.log(n)
        found[f"{name} tau"] = hochreiter.tau
        if progress is not None:
            progress(k + 1, len(ACTIVATIONS) + 1)
    linear = U[1] * 0.9
    chain = gradlab.Network(gradlab.Elman("linear"), n, n)
    found["linear norm"] = flow(chain, {"0.W": W[1], "0.U": linear, "0.b": np.zeros(n)}, x)[0]
    return found


def shares(result: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    """Shares of nets that have vanished and exploded after all steps, by scale."""
    end = result[f"{name} norm"][-1]
    return np.mean(end < VANISHED, axis=(1, 2)), np.mean(end > -VANISHED, axis=(1, 2))


def check(result: Mapping[str, Array]) -> Verdict:
    T = int(result["steps"])
    lags = np.arange(1, T + 1)[:, None, None, None]
    numbers: dict[str, float | int | str] = {}
    broken, above, still, sure, gaps = 0, 0, 0, 0, []
    for name in ACTIVATIONS:
        norm, rate, tau = result[f"{name} norm"], result[f"{name} rate"], result[f"{name} tau"]
        # Each of up to T products of n terms is rounded: T n eps, in nats, is what equality may be missed by.
        slack = T * 64 * np.finfo(float).eps
        own = int((norm > lags * rate + slack).sum())
        grown = int(((norm > slack) & (rate < 0.0)).sum())
        entries = int((result[f"{name} entry"] > result[f"{name} entry bound"] + slack).sum())
        vanished = norm[-1] < VANISHED
        over = rate > 0.0
        gap = float(np.median((rate - norm[-1] / T)[over]))
        numbers[f"{name}: products above gamma smax to the power of the steps"] = own
        numbers[f"{name}: products that grow below the limit"] = grown
        numbers[f"{name}: entries above (n max|w| gamma)^q / n"] = entries
        numbers[f"{name}: nets with n max|w| gamma < 1"] = int((tau < 1.0).sum())
        numbers[f"{name}: nets above the limit"] = int(over.sum())
        numbers[f"{name}: share of them that vanish all the same"] = float(vanished[over].mean())
        numbers[f"{name}: share of them that explode"] = float((norm[-1] > -VANISHED)[over].mean())
        numbers[f"{name}: median looseness above the limit, nats per step"] = gap
        broken += own + grown + entries
        above, still = above + int(over.sum()), still + int(vanished[over].sum())
        sure += int((rate < 0.0).sum())
        gaps.append(gap)
    numbers["products held against a bound"] = sum(3 * result[f"{name} norm"].size for name in ACTIVATIONS)
    share = still / above
    word = "contradicted" if broken or share == 0.0 else "confirmed"
    linear = result["linear norm"]
    truth = GroundTruth(
        "ln |Phi(T, 0)| of 0.9 times an orthogonal linear net",
        float(linear[-1].mean()),
        T * float(np.log(0.9)),
        1e-12,
        "T ln 0.9 exactly",
    )
    return Verdict(
        word,
        f"{broken} violations in {numbers['products held against a bound']} products of {sure} nets below the limit and {above} "
        f"above it; {share:.0%} of those above vanish all the same: there the bound is loose by {gaps[0]:.2f} nats a step for "
        f"tanh, {gaps[1]:.2f} for the sigmoid",
        numbers,
        (truth,),
    )


def draw(result: Mapping[str, Array]) -> Any:
    from gradlab import plotting

    figure = plotting.new_figure(plotting.PAGE, 2.6)
    axes = figure.subplots(1, 3)
    T = int(result["steps"])
    marks = {"Gaussian": ("o", "vermilion"), "orthogonal": ("^", "blue"), "triangular": ("x", "black")}
    for ax, name, letter in zip(axes[:2], ACTIVATIONS, "ab", strict=True):
        rate, norm = result[f"{name} rate"], result[f"{name} norm"][-1] / T
        for k, kind in enumerate(KINDS):
            mark, colour = marks[kind]
            ax.plot(
                rate[:, k].ravel(),
                norm[:, k].ravel(),
                mark,
                color=plotting.COLOURS[colour],
                markersize=2.5,
                alpha=0.6,
                label=kind,
            )
        ends = np.array([rate.min(), rate.max()])
        ax.plot(ends, ends, color=plotting.COLOURS["grey"], linewidth=0.8)
        ax.annotate("bound", (ends[1], ends[1]), xytext=(-4, -2), textcoords="offset points", ha="right", va="top", fontsize=7)
        ax.axhline(0.0, color=plotting.COLOURS["grey"], linewidth=0.5, linestyle=":")
        ax.axvline(0.0, color=plotting.COLOURS["grey"], linewidth=0.5, linestyle=":")
        ax.set_xlabel(r"bound $\ln(\gamma\,\sigma_{\max}(U))$, nats per step")
        ax.set_ylabel(r"measured $\ln\|J_T\cdots J_1\|/T$")
        plotting.panel_label(ax, letter, name)
    axes[0].legend(loc="lower right", markerscale=1.5)
    for name, line in zip(ACTIVATIONS, ("first", "second"), strict=True):
        vanished, exploded = shares(result, name)
        style = plotting.LINES[line]
        axes[2].semilogx(result["limits"], vanished, label=f"{name}: vanishes", **style)
        axes[2].semilogx(result["limits"], exploded, label=f"{name}: explodes", marker="o", markersize=2.5, **style)
    axes[2].axvline(1.0, color=plotting.COLOURS["grey"], linewidth=0.5, linestyle=":")
    axes[2].set_xlabel(r"$\gamma\,\sigma_{\max}(U)$")
    axes[2].set_ylabel(f"share of nets after {T} steps")
    axes[2].legend(loc="center left", fontsize=6)
    plotting.panel_label(axes[2], "c", "what happens")
    return figure
