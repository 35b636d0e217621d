"""Curvature of a recurrent net's loss: both ends of the Hessian's spectrum, and gradient descent at the edge of stability.

Claim: full-batch gradient descent raises the largest curvature until it stands at 2/learning rate, the limit of stability on a
quadratic, and goes on from there (Cohen et al. 2021); the Hessian of a recurrent net is indefinite, with most eigenvalues
near 0 and a few large ones (Sagun et al. 2017). Measured: the sharpness along training at several rates with Lanczos on
exact Hessian-vector products, the spectral density before and after by stochastic Lanczos quadrature, both extreme
eigenvalues, for an Elman net and an LSTM on fixed batches of real text.

It would be contradicted by sharpness that stays well below 2/learning rate at every rate, or that settles far above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab.analysis import Hessian, extreme_eigenvalues, spectral_density
from gradlab.runs import GroundTruth, Verdict
from gradlab.tasks import characters

Array = npt.NDArray[Any]

CLAIM = "Gradient descent drives the largest curvature of a recurrent net's loss to 2/learning rate and stays there"
SOURCE = "Cohen et al. (2021), Gradient descent on neural networks typically occurs at the edge of stability; Sagun et al. (2017)"
CONTRADICTED_IF = "the sharpness at the end lies below half of 2/learning rate, or above twice, at every rate in most seeds"
NEEDS: tuple[str, ...] = ()
ALONE = False
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        "hidden_size": 16,
        "seeds": 5,
        "rates": [0.25, 0.5, 1.0],
        "updates": 600,
        "every": 50,
        "batch": 8,
        "length": 12,
        "probes": 8,
        "lanczos": 60,
    },
    "quick": {
        "hidden_size": 6,
        "seeds": 2,
        "rates": [1.0, 2.0],
        "updates": 100,
        "every": 50,
        "batch": 4,
        "length": 8,
        "probes": 4,
        "lanczos": 30,
    },
}
CELLS = {"elman": gradlab.Elman("tanh"), "lstm": gradlab.LSTM()}


def descend(
    net: gradlab.Network, params: dict[str, Array], batch: gradlab.Batch, rate: float, p: Mapping[str, Any]
) -> tuple[Array, Array, dict[str, Array]]:
    """(sharpness at every look, loss at every update, parameters at the end) of gradient descent on one batch."""
    probe = gradlab.training.probes.sharpness(net, batch, gradlab.softmax_cross_entropy, tol=1e-2)
    monitor = gradlab.training.Monitor(every=p["every"], probes={"sharpness": probe})
    trained = gradlab.training.train(
        net,
        params,
        lambda _: batch,
        gradlab.softmax_cross_entropy,
        p["updates"] + 1,
        np.random.default_rng(0),
        learning_rate=rate,
        monitor=monitor,
    )
    return monitor.series("probe/sharpness")[1], trained.loss, trained.params


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    corpus = characters.load()
    found: dict[str, Array] = {
        "rates": np.array(p["rates"]),
        "updates": np.arange(0, p["updates"] + 1, p["every"]),
        "dense ends": dense_ends(rng),
    }
    total, done = len(CELLS) * p["seeds"] * len(p["rates"]), 0
    for name, cell in CELLS.items():
        net = gradlab.Network(cell, characters.INPUT_SIZE, p["hidden_size"], output_size=characters.OUTPUT_SIZE)
        sharp = np.empty((p["seeds"], len(p["rates"]), len(found["updates"])))
        losses = np.empty((p["seeds"], len(p["rates"]), p["updates"] + 1))
        ends = np.empty((p["seeds"], 2, 2))  # before and after; smallest and largest
        for s, own in enumerate(rng.spawn(p["seeds"])):
            batch = corpus.sample(own, p["batch"], p["length"], "training")
            params = net.init(own)
            after = params
            for r, rate in enumerate(p["rates"]):
                sharp[s, r], losses[s, r], after = descend(net, params, batch, rate, p)
                done += 1
                if progress is not None:
                    progress(done, total)
            for k, theta in enumerate((params, after)):
                operator = Hessian(net, theta, batch, gradlab.softmax_cross_entropy)
                pair = extreme_eigenvalues(operator, 1, rng=own, tol=1e-6)
                ends[s, k] = pair.smallest.values[0], pair.largest.values[0]
                if s == 0:
                    density = spectral_density(operator, rng=own, probes=p["probes"], steps=p["lanczos"])
                    label = f"{name} {('before', 'after')[k]}"
                    found |= {f"{label} grid": density.grid, f"{label} density": density.density}
                    found[f"{label} near zero"] = np.array(
                        float(density.weights[np.abs(density.nodes) < 0.05 * ends[s, k, 1]].sum() / p["probes"])
                    )
        found |= {f"{name} sharpness": sharp, f"{name} losses": losses, f"{name} ends": ends}
    return found


def dense_ends(rng: np.random.Generator) -> Array:
    """Both extreme eigenvalues of a small net's Hessian, (2, 2): by Lanczos, and of the dense matrix."""
    net = gradlab.Network(gradlab.LSTM(), 3, 4, output_size=2)
    batch = gradlab.Batch(rng.standard_normal((6, 3, 3)), rng.standard_normal((6, 3, 2)))
    params = net.init(rng)
    pair = extreme_eigenvalues(Hessian(net, params, batch, gradlab.mean_squared_error), 1, rng=rng)
    dense = np.linalg.eigvalsh(gradlab.analysis.dense_hessian(Hessian(net, params, batch, gradlab.mean_squared_error)))
    return np.array([[pair.smallest.values[0], pair.largest.values[0]], [dense[0], dense[-1]]])


def settled(result: Mapping[str, Array], name: str) -> Array:
    """Sharpness over 2/learning rate, median over the last third of the looks, (seeds, rates)."""
    sharp = result[f"{name} sharpness"]
    last = sharp[..., -(sharp.shape[-1] // 3) :]
    return np.asarray(np.median(last, axis=-1) * result["rates"] / 2.0)


def check(result: Mapping[str, Array]) -> Verdict:
    numbers: dict[str, float | int | str] = {}
    inside = {}
    for name in CELLS:
        ratios = np.median(settled(result, name), axis=0)
        for rate, ratio in zip(result["rates"], ratios, strict=True):
            numbers[f"{name}, rate {rate:g}: sharpness over 2/rate at the end, median"] = float(ratio)
        inside[name] = [bool(0.5 <= ratio <= 2.0) for ratio in ratios]
        ends = np.median(result[f"{name} ends"], axis=0)
        for when, row in zip(("before", "after"), ends, strict=True):
            numbers[f"{name}: smallest eigenvalue {when} training, median"] = float(row[0])
            numbers[f"{name}: largest eigenvalue {when} training, median"] = float(row[1])
            near = float(result[f"{name} {when} near zero"])
            numbers[f"{name}: share of eigenvalues below 5 % of the largest {when} training"] = near
        losses = result[f"{name} losses"]
        numbers[f"{name}: share of updates that raise the loss, largest rate"] = float(
            (np.diff(losses[:, -1], axis=-1) > 0.0).mean()
        )
    every = [one for name in CELLS for one in inside[name]]
    word = "confirmed" if all(every) else "contradicted" if not any(every) else "depends"
    lanczos, dense = result["dense ends"]
    truths = tuple(
        GroundTruth(f"{end} eigenvalue of a small LSTM's Hessian", float(own), float(exact), 1e-8, "the dense Hessian")
        for end, own, exact in zip(("smallest", "largest"), lanczos, dense, strict=True)
    )
    said = "; ".join(
        f"{name} " + ", ".join(f"{ratio:.2f}" for ratio in np.median(settled(result, name), axis=0)) for name in CELLS
    )
    return Verdict(
        word,
        f"sharpness over 2/learning rate in the last third of training, at rates {', '.join(f'{r:g}' for r in result['rates'])}: "
        f"{said}; the claim holds within a factor 2 in {sum(every)} of {len(every)} settings",
        numbers,
        truths,
    )


def draw(result: Mapping[str, Array]) -> Any:
    from gradlab import plotting

    figure = plotting.new_figure(plotting.PAGE, 4.6)
    axes = figure.subplots(2, 2)
    lines = ("first", "second", "third")
    for row, (name, title) in enumerate((("elman", "Elman"), ("lstm", "LSTM"))):
        left, right = axes[row]
        sharp = result[f"{name} sharpness"]
        for r, rate in enumerate(result["rates"]):
            style = plotting.LINES[lines[r]]
            ratio = sharp[:, r] * rate / 2.0
            left.semilogy(result["updates"], np.median(ratio, axis=0), label=f"rate {rate:g}", **style)
            ends = ratio.min(axis=0), ratio.max(axis=0)
            left.fill_between(result["updates"], *ends, color=style["color"], alpha=0.12, linewidth=0)
        left.axhline(1.0, color=plotting.COLOURS["grey"], linewidth=0.8)
        left.set_xlabel("update")
        left.set_ylabel("sharpness over 2/rate")
        left.legend(loc="lower right", fontsize=6)
        plotting.panel_label(left, "ac"[row], f"{title}: gradient descent")
        for when, line in (("before", "second"), ("after", "first")):
            label = f"{name} {when}"
            right.semilogy(result[f"{label} grid"], result[f"{label} density"], label=f"{when} training", **plotting.LINES[line])
        right.set_ylim(1e-5, None)
        right.set_xlabel("eigenvalue of the Hessian")
        right.set_ylabel("density")
        right.legend(loc="upper right", fontsize=6)
        plotting.panel_label(right, "bd"[row], f"{title}: spectrum, one net")
    return figure
