"""Lyapunov spectra of recurrent nets: against the gain, through training, and of the whole state of an LSTM.

Claim: the gradient of an LSTM reaches further back than its hidden state alone shows; published code that leaves out the cell
state (the Jacobian of h_t by h_{t-1} with c held fixed) finds exponents several times too small. Source: the exponents of
Engelken, Wolf & Abbott (2023) and Vogt et al. (2022); the mean field of random tanh maps after Molgedey, Schuchhardt & Schuster
(1992). Measured: the largest exponent of the full state (c, h) and of the shortcut, for random LSTMs of several forget biases
and scales; the spectra of random tanh nets against the gain, held against the mean field; the largest exponent of an Elman
net and an LSTM before, during and after training on the adding problem.

It would be contradicted by shortcut exponents that agree with those of the full state within their errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab.analysis import lyapunov_spectrum, network_lyapunov, random_tanh_map
from gradlab.runs import GroundTruth, Verdict
from gradlab.tasks import adding

Array = npt.NDArray[Any]

CLAIM = "An LSTM's gradient lives in its cell: exponents of the hidden state alone are far from those of the full state"
SOURCE = "Engelken, Wolf & Abbott (2023); Vogt et al. (2022); Molgedey, Schuchhardt & Schuster (1992)"
CONTRADICTED_IF = "the largest exponent of h with c held fixed agrees with that of the full state in most settings"
NEEDS: tuple[str, ...] = ()
ALONE = False
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        "units": 200,
        "gains": [0.5, 0.8, 1.2, 1.6, 2.0, 2.5, 3.0, 4.0],
        "nets": 5,
        "steps": 1000,
        "spectrum_units": 120,
        "spectrum_gain": 3.0,
        "spectrum_steps": 600,
        "hidden_size": 32,
        "settings": [[0.0, 1.0], [1.0, 1.0], [1.0, 3.0], [3.0, 1.0], [3.0, 3.0]],
        "lstm_steps": 400,
        "seeds": 5,
        "updates": 1500,
        "every": 50,
        "length": 30,
    },
    "quick": {
        "units": 100,
        "gains": [0.5, 1.2, 2.0, 4.0],
        "nets": 3,
        "steps": 300,
        "spectrum_units": 40,
        "spectrum_gain": 3.0,
        "spectrum_steps": 300,
        "hidden_size": 16,
        "settings": [[0.0, 1.0], [1.0, 1.0], [3.0, 1.0]],
        "lstm_steps": 200,
        "seeds": 3,
        "updates": 40,
        "every": 10,
        "length": 30,
    },
}
CELLS = {"elman": gradlab.Elman("tanh"), "lstm": gradlab.LSTM()}
RATE = {"elman": 0.003, "lstm": 0.01}
"""Adam's rates; each net's own usual one, for the exponents are followed and no net is ranked."""


def against_gain(rng: np.random.Generator, p: Mapping[str, Any]) -> dict[str, Array]:
    """Largest exponent of random tanh nets (gains, nets), and one spectrum (nets, N)."""
    N, gains = p["units"], np.array(p["gains"])
    U = gains[:, None, None, None] * rng.standard_normal((p["nets"], N, N)) / np.sqrt(N)
    net = gradlab.Network(gradlab.Elman("tanh"), 1, N)
    params = {"0.W": np.zeros((N, 1)), "0.U": U, "0.b": np.zeros(N)}
    start = {"0": rng.standard_normal((len(gains), p["nets"], 1, N))}
    quiet = np.zeros((p["steps"], 1, 1))
    found = network_lyapunov(net, params, quiet, 1, rng=rng, initial_states=start, transient=p["steps"] // 4)["0"]
    n = p["spectrum_units"]
    small = gradlab.Network(gradlab.Elman("tanh"), 1, n)
    own = {
        "0.W": np.zeros((n, 1)),
        "0.U": p["spectrum_gain"] * rng.standard_normal((p["nets"], n, n)) / np.sqrt(n),
        "0.b": np.zeros(n),
    }
    begin = {"0": rng.standard_normal((p["nets"], 1, n))}
    quiet = np.zeros((p["spectrum_steps"], 1, 1))
    whole = network_lyapunov(small, own, quiet, None, rng=rng, initial_states=begin, transient=p["spectrum_steps"] // 4)["0"]
    orthogonal = gradlab.inits.orthogonal()(rng, (n, n))
    linear = gradlab.Network(gradlab.Elman("linear"), 1, n)
    exact = network_lyapunov(linear, {"0.W": np.zeros((n, 1)), "0.U": 0.9 * orthogonal, "0.b": np.zeros(n)}, quiet, 3, rng=rng)[
        "0"
    ]
    return {
        "gains": gains,
        "largest": found.exponents[..., 0, 0],
        "spectrum": whole.exponents[:, 0],
        "spectrum gain": np.array(p["spectrum_gain"]),
        "linear exponents": exact.exponents[0],
    }


def full_and_shortcut(rng: np.random.Generator, p: Mapping[str, Any]) -> dict[str, Array]:
    """Largest exponents of random LSTMs, (settings, seeds) each: of (c, h), and of h with c held fixed."""
    H, T, settings = p["hidden_size"], p["lstm_steps"], np.array(p["settings"])
    net = gradlab.Network(gradlab.LSTM(), H, H)
    drawn = [net.init(rng) for _ in range(p["seeds"])]
    stacked = {key: np.stack([one[key] for one in drawn]) for key in drawn[0]}  # (seeds, ...)
    U = settings[:, 1, None, None, None] * stacked["0.U"]
    b = np.zeros((len(settings), p["seeds"], 4 * H))
    b[..., H : 2 * H] = settings[:, 0, None, None]
    params = {"0.W": stacked["0.W"], "0.U": U, "0.b": b}
    x = rng.standard_normal((T, 1, H))
    run = gradlab.forward(net, params, x).runs["0"]
    steps = [run.window(t, t + 1).jacobians()[0][..., 0, :, :] for t in range(T)]  # (settings, seeds, 2H, 2H)
    whole = lyapunov_spectrum(steps, 1, rng=rng, transient=T // 8)
    shortcut = lyapunov_spectrum((J[..., H:, H:] for J in steps), 1, rng=rng, transient=T // 8)
    return {
        "settings": settings,
        "full": whole.exponents[..., 0],
        "full error": whole.standard_error[..., 0],
        "shortcut": shortcut.exponents[..., 0],
        "shortcut error": shortcut.standard_error[..., 0],
    }


def through_training(rng: np.random.Generator, p: Mapping[str, Any], cell: str) -> dict[str, Array]:
    """Largest exponent by update, (looks, seeds), of nets that learn the adding problem, along sequences that they train on."""
    net = gradlab.Network(CELLS[cell], 2, p["hidden_size"], 1, readout="last")
    drawn = [net.init(one) for one in rng.spawn(p["seeds"])]
    params = {key: np.stack([one[key] for one in drawn]) for key in drawn[0]}
    probe = gradlab.training.probes.leading_exponent(net)
    monitor = gradlab.training.Monitor(every=p["every"], probes={"exponent": probe})
    gradlab.training.train(
        net,
        params,
        lambda own: adding.sample(own, 32, p["length"]),
        gradlab.mean_squared_error,
        p["updates"] + 1,  # one more, whose record shows what the last update made
        rng,
        optimiser=gradlab.training.Adam(),
        learning_rate=RATE[cell],
        clip=gradlab.training.ByNorm(1.0),
        monitor=monitor,
    )
    updates, exponents = monitor.series("probe/exponent")
    return {"updates": updates, f"{cell} exponents": exponents, f"{cell} losses": monitor.series("loss")[1]}


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    streams = rng.spawn(4)
    found = against_gain(streams[0], p) | full_and_shortcut(streams[1], p)
    for k, cell in enumerate(CELLS):
        if progress is not None:
            progress(k + 2, 4)
        found |= through_training(streams[2 + k], p, cell)
    return found


def check(result: Mapping[str, Array]) -> Verdict:
    full, shortcut = result["full"], result["shortcut"]
    apart = np.abs(full - shortcut) / np.hypot(result["full error"], result["shortcut error"])
    agree = float(np.mean(apart < 3.0))
    gaps = np.median(full - shortcut, axis=1)
    factors = np.median(shortcut / full, axis=1)
    numbers: dict[str, float | int | str] = {"share of nets whose two exponents agree within 3 standard errors": agree}
    for (bias, scale), gap, factor, own, cut in zip(
        result["settings"], gaps, factors, np.median(full, axis=1), np.median(shortcut, axis=1), strict=True
    ):
        where = f"forget bias {bias:g}, U times {scale:g}"
        numbers[f"{where}: exponent of (c, h)"] = float(own)
        numbers[f"{where}: exponent of h alone"] = float(cut)
        numbers[f"{where}: gap"] = float(gap)
        numbers[f"{where}: factor"] = float(factor)
    mean_field = random_tanh_map(result["gains"])
    chaotic = result["gains"] > 1.5  # nearer to 1 finite nets are often periodic
    largest = np.median(result["largest"], axis=1)
    off = np.abs(largest - mean_field.largest)[chaotic]
    numbers["largest distance from the mean field, gains above 1.5"] = float(off.max())
    fractions = (np.arange(result["spectrum"].shape[-1]) + 0.5) / result["spectrum"].shape[-1]
    middle = (fractions > 0.1) & (fractions < 0.9)
    law = random_tanh_map(float(result["spectrum gain"])).spectrum(fractions[middle])
    whole = np.median(result["spectrum"], axis=0)[middle]
    numbers["largest distance of the spectrum from its law"] = float(np.abs(whole - law).max())
    for cell in CELLS:
        rows = result[f"{cell} exponents"]
        for when, row in (("before", rows[0]), ("after", rows[-1])):
            numbers[f"{cell}: largest exponent {when} training, median"] = float(np.median(row))
        numbers[f"{cell}: loss at the end, median"] = float(np.median(result[f"{cell} losses"][-1]))
    truths = [
        GroundTruth("exponents of 0.9 times an orthogonal net", float(value), float(np.log(0.9)), 1e-10, "ln 0.9, exactly")
        for value in result["linear exponents"]
    ]
    # Nets of 100 to 200 units: the largest exponent has fluctuations and a bias of a few hundredths of a nat.
    strongest = int(np.argmax(result["gains"]))
    expected = float(np.atleast_1d(mean_field.largest)[strongest])
    truths.append(
        GroundTruth(
            f"largest exponent at gain {result['gains'][strongest]:g}", float(largest[strongest]), expected, 0.15, "mean field"
        )
    )
    word = "contradicted" if agree > 0.5 else "confirmed" if agree < 0.05 and (gaps < 0.0).sum() in (0, len(gaps)) else "depends"
    worst = int(np.argmax(np.abs(gaps)))
    bias, scale = result["settings"][worst]
    return Verdict(
        word,
        f"{agree:.0%} of {full.size} random LSTMs have equal exponents with and without c; at forget bias {bias:g} and U times "
        f"{scale:g} h alone says {float(np.median(shortcut[worst])):.2f} nats a step where the full state has "
        f"{float(np.median(full[worst])):.2f}; random tanh nets lie within {float(off.max()):.2f} of the mean field",
        numbers,
        tuple(truths),
    )


def draw(result: Mapping[str, Array]) -> Any:
    from gradlab import plotting

    figure = plotting.new_figure(plotting.PAGE, 4.8)
    figure.get_layout_engine().set(w_pad=0.08)
    (left, whole), (middle, right) = figure.subplots(2, 2)
    gains = np.linspace(result["gains"].min(), result["gains"].max(), 60)
    law = random_tanh_map(gains).largest
    law = np.where(gains < 1.0, np.log(gains), law)  # below gain 1 the origin attracts
    left.plot(gains, law, color=plotting.COLOURS["black"], linewidth=1.0, label="mean field")
    for k in range(result["largest"].shape[1]):
        left.plot(
            result["gains"],
            result["largest"][:, k],
            "o",
            color=plotting.COLOURS["vermilion"],
            markersize=3,
            label="random nets" if k == 0 else None,
        )
    left.axhline(0.0, color=plotting.COLOURS["grey"], linewidth=0.5, linestyle=":")
    left.set_xlabel("gain $g$")
    left.set_ylabel("largest exponent, nats")
    left.legend(loc="lower right", fontsize=6)
    plotting.panel_label(left, "a", "tanh nets against gain")
    spectrum = np.sort(result["spectrum"], axis=-1)[:, ::-1]
    share = (np.arange(spectrum.shape[1]) + 0.5) / spectrum.shape[1]
    whole.plot(share, np.median(spectrum, axis=0), ".", color=plotting.COLOURS["vermilion"], markersize=3, label="random nets")
    inner = np.linspace(0.01, 0.97, 80)
    law = random_tanh_map(float(result["spectrum gain"])).spectrum(inner)
    whole.plot(inner, law, color=plotting.COLOURS["black"], linewidth=1.0, label="free products")
    whole.axhline(0.0, color=plotting.COLOURS["grey"], linewidth=0.5, linestyle=":")
    whole.set_xlabel("share of exponents")
    whole.set_ylabel("exponent, nats")
    whole.legend(loc="lower left", fontsize=6)
    plotting.panel_label(whole, "b", f"all exponents at gain {float(result['spectrum gain']):g}")
    x = np.arange(len(result["settings"]))
    for name, line, mark, shift in (("full", "first", "o", -0.1), ("shortcut", "second", "^", 0.1)):
        values = result[name]
        centre = np.median(values, axis=1)
        spread = np.abs(np.stack([values.min(axis=1), values.max(axis=1)]) - centre)
        label = "(c, h)" if name == "full" else "h, c held fixed"
        middle.errorbar(x + shift, centre, spread, fmt=mark, color=plotting.LINES[line]["color"], markersize=4, label=label)
    middle.set_xticks(x, [f"{bias:g}\n{scale:g}" for bias, scale in result["settings"]])
    middle.set_xlabel("forget bias, scale of $U$")
    middle.axhline(0.0, color=plotting.COLOURS["grey"], linewidth=0.5, linestyle=":")
    middle.legend(loc="center left", fontsize=6)
    middle.set_ylabel("largest exponent, nats")
    plotting.panel_label(middle, "c", "LSTM: whole state or h")
    for cell, line, label in (("elman", "first", "Elman"), ("lstm", "second", "LSTM")):
        rows = result[f"{cell} exponents"]
        right.plot(result["updates"], np.median(rows, axis=1), label=label, **plotting.LINES[line])
        colour = plotting.LINES[line]["color"]
        right.fill_between(result["updates"], rows.min(axis=1), rows.max(axis=1), color=colour, alpha=0.15, linewidth=0)
    right.axhline(0.0, color=plotting.COLOURS["grey"], linewidth=0.5, linestyle=":")
    right.set_xlabel("update")
    right.legend(loc="lower right", fontsize=6)
    right.set_ylabel("largest exponent, nats")
    plotting.panel_label(right, "d", "while learning to add")
    return figure
