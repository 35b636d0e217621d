"""How far the gradient of one character's loss reaches back, in an Elman net and an LSTM, on real text.

Claim: on real data the gradient vanishes within a few steps in a simple recurrent net, and reaches further back
through the cell of an LSTM, before and after training. Source: Hochreiter & Schmidhuber (1997); Bengio, Simard &
Frasconi (1994); H.-Y. Lee's lecture. Measured: the TOTAL derivative of the last step's cross-entropy with respect to
the state at each earlier step, and the number of steps in which it falls below 1/e and below 1/1000 of where it
starts (memory horizons). Both nets get the same seeds, batches, updates and learning rates to choose from; each is
shown at the rate with the lowest training loss.

It would be contradicted by an Elman net whose horizons are as long as the LSTM's.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab.runs import GroundTruth, Verdict
from gradlab.tasks import characters

Array = npt.NDArray[Any]

CLAIM = (
    "On real text the gradient reaches further back through an LSTM's cell than through an Elman net, before and after training"
)
SOURCE = "Hochreiter & Schmidhuber (1997), Long short-term memory; Bengio, Simard & Frasconi (1994); H.-Y. Lee's lecture"
CONTRADICTED_IF = "the Elman net's memory horizons are at least those of the LSTM's cell in most seeds, before and after training"
NEEDS: tuple[str, ...] = ()
ALONE = False
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        "hidden_size": 64,
        "seeds": 5,
        "learning_rates": [0.3, 1.0, 3.0],
        "updates": 300,
        "batch": 16,
        "length": 50,
        "clip_norm": 1.0,
        "measured_sequences": 32,
        "measured_length": 100,
        "jacobian_sequences": 2,
        "jacobian_every": 10,
    },
    "quick": {
        "hidden_size": 24,
        "seeds": 2,
        "learning_rates": [1.0, 3.0],
        "updates": 60,
        "batch": 8,
        "length": 30,
        "clip_norm": 1.0,
        "measured_sequences": 8,
        "measured_length": 60,
        "jacobian_sequences": 1,
        "jacobian_every": 10,
    },
}
CELLS = {"elman": gradlab.Elman("tanh"), "lstm": gradlab.LSTM()}
PATHS = {"elman": ("h",), "lstm": ("c", "h")}
LEVELS = {"1/e": float(np.exp(-1.0)), "1/1000": 1e-3}
WHEN = ("before", "after")


def windows(rngs: list[np.random.Generator], batch: int, length: int, split: Any) -> gradlab.Batch:
    """One batch for each seed, from its own stream, along an ensemble axis."""
    corpus = characters.load()
    drawn = [corpus.sample(rng, batch, length, split) for rng in rngs]
    return gradlab.Batch(np.stack([b.inputs for b in drawn], axis=1), np.stack([b.targets for b in drawn], axis=1))


def train(net: gradlab.Network, p: Mapping[str, Any], seeds: list[np.random.SeedSequence], done: Any) -> dict[str, Any]:
    """Train all seeds at all learning rates at once, axes (rate, seed); keep the rate with the lowest training loss."""
    rates = np.array(p["learning_rates"])
    init_rngs = [np.random.default_rng(s.spawn(1)[0]) for s in seeds]
    own = [net.init(rng) for rng in init_rngs]
    start = {key: np.stack([q[key] for q in own]) for key in own[0]}
    params = {key: np.broadcast_to(value, (len(rates), *value.shape)) for key, value in start.items()}
    batch_rngs = [np.random.default_rng(s) for s in seeds]

    def sample(_: np.random.Generator) -> gradlab.Batch:
        return windows(batch_rngs, p["batch"], p["length"], "training")  # each seed's stream, the same at all rates

    history = gradlab.training.train(
        net,
        params,
        sample,
        gradlab.softmax_cross_entropy,
        p["updates"],
        batch_rngs[0],
        learning_rate=np.repeat(rates[:, None], len(seeds), axis=1),
        clip=gradlab.training.ByNorm(p["clip_norm"]),
        progress=lambda updates, _: done(updates),
    )
    if not history.status.ok:
        raise gradlab.errors.NumericalError(str(history.status))
    final = history.loss[-max(1, p["updates"] // 10) :].mean(axis=0)  # (rate, seed)
    best = int(np.argmin(np.median(final, axis=1)))
    return {
        "before": start,
        "after": {key: value[best] for key, value in history.params.items()},
        "rate": rates[best],
        "loss": history.loss[:, best],
        "final": final,
    }


def measure(net: gradlab.Network, params: dict[str, Array], batch: gradlab.Batch, p: Mapping[str, Any]) -> dict[str, Array]:
    """Flow by path (T+1, seed, sequence) and spectral radii (steps, seed, sequence), of the loss at the last step alone."""
    last = np.zeros(batch.targets.shape)
    last[-1] = 1.0
    record = gradlab.bptt(net, params, gradlab.Batch(batch.inputs, batch.targets, last), gradlab.softmax_cross_entropy)
    flow = gradlab.analysis.gradient_flow(record)
    found = {path: flow.log_total[f"0/{path}"] for path in record.layers["0"].parts}
    few = p["jacobian_sequences"]
    small = gradlab.bptt(
        net, params, gradlab.Batch(batch.inputs[:, :, :few], batch.targets[:, :, :few]), gradlab.softmax_cross_entropy
    )
    stream = gradlab.analysis.jacobians(net, params, small)
    chosen = np.stack(list(islice(stream, 0, None, p["jacobian_every"])))
    found["spectral_radius"] = gradlab.analysis.jacobian_spectra(chosen).spectral_radius
    return found


def calibration() -> dict[str, Array]:
    """Two nets whose flow is known exactly: an LSTM with zero weights and forget bias 1, an orthogonal linear Elman."""
    rng = np.random.default_rng(0)  # the numbers below do not depend on it
    T, H = 60, 8
    x, target = rng.normal(size=(T, 1, 1)), rng.normal(size=(1, H))
    slopes = {}
    for name, net in (
        ("lstm", gradlab.Network(gradlab.LSTM(), 1, H, readout="last")),
        ("orthogonal", gradlab.Network(gradlab.Elman("linear"), 1, H, readout="last")),
    ):
        params = net.init(rng, recurrent_init=gradlab.inits.orthogonal())
        if name == "lstm":
            params = {key: np.zeros_like(v) if key != "0.b" else v for key, v in params.items()}
        record = gradlab.bptt(net, params, gradlab.Batch(x, target), gradlab.mean_squared_error)
        log = gradlab.analysis.gradient_flow(record).log_total["0/c" if name == "lstm" else "0/h"][:, 0]
        slopes[name] = np.array((log[1] - log[T - 1]) / (T - 2))  # per step of lag
    return {f"calibration_{name}": value for name, value in slopes.items()}


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    corpus = characters.load()
    seeds = rng.bit_generator.seed_seq.spawn(p["seeds"])  # the same seeds, and so the same batches, for both cells
    result: dict[str, Array] = {
        "text_sha256": np.frombuffer(corpus.sha256.encode(), np.uint8),
        "baseline": np.array(corpus.baseline),
        "jacobian_lags": p["measured_length"] - 1 - np.arange(0, p["measured_length"], p["jacobian_every"]),
        **calibration(),
    }
    held_out = windows(
        [np.random.default_rng(s) for s in rng.bit_generator.seed_seq.spawn(p["seeds"])],
        p["measured_sequences"],
        p["measured_length"],
        "validation",
    )
    work = {"elman": 1, "lstm": 4}  # how long each takes, roughly: for the progress bar alone
    total, before = sum(work.values()) * p["updates"], 0
    for name, cell in CELLS.items():
        net = gradlab.Network(cell, characters.INPUT_SIZE, p["hidden_size"], output_size=characters.OUTPUT_SIZE)

        def done(updates: int, before: int = before, share: int = work[name]) -> None:
            if progress is not None:
                progress(before + share * updates, total)

        trained = train(net, p, [np.random.SeedSequence(s.entropy, spawn_key=s.spawn_key) for s in seeds], done)
        before += work[name] * p["updates"]
        for when in WHEN:
            params = trained[when]
            for key, value in measure(net, params, held_out, p).items():
                result[f"{name}_{when}_{key}"] = value
            loss = gradlab.bptt(net, params, held_out, gradlab.softmax_cross_entropy, keep=()).loss
            result[f"{name}_{when}_validation"] = loss
        result[f"{name}_loss"] = trained["loss"]
        result[f"{name}_rate"] = np.array(trained["rate"])
        result[f"{name}_final"] = trained["final"]
    return result


def horizons(result: Mapping[str, Array], name: str, when: str, path: str, level: str) -> Array:
    """The median memory horizon of each seed; infinite if beyond the sequence."""
    log = result[f"{name}_{when}_{path}"]
    seeds = range(log.shape[1])
    return np.array([gradlab.analysis.memory_horizon(log[:, seed], LEVELS[level]).median for seed in seeds])


def check(result: Mapping[str, Array]) -> Verdict:
    found = {
        (name, when, path, level): horizons(result, name, when, path, level)
        for name in CELLS
        for when in WHEN
        for path in PATHS[name]
        for level in LEVELS
    }
    numbers: dict[str, float | int | str] = {"text SHA-256": bytes(result["text_sha256"]).decode()}
    for (name, when, path, level), lags in found.items():
        label = f"horizon of {name} {path} {when} training, level {level}"
        numbers |= {
            f"{label}, {word}": float(f(lags)) for word, f in (("median", np.median), ("lowest", np.min), ("highest", np.max))
        }
    for name in CELLS:
        numbers[f"learning rate of {name}"] = float(result[f"{name}_rate"])
        for when in WHEN:
            numbers[f"validation loss of {name} {when} training, nats"] = float(np.median(result[f"{name}_{when}_validation"]))
            numbers[f"spectral radius of {name} {when} training, median"] = float(
                np.median(result[f"{name}_{when}_spectral_radius"])
            )
    numbers["validation loss of symbol shares, nats"] = float(result["baseline"])
    wins = {
        (when, level): found["lstm", when, "c", level] > found["elman", when, "h", level] for when in WHEN for level in LEVELS
    }
    undecided = any(
        (np.isinf(found["lstm", when, "c", level]) & np.isinf(found["elman", when, "h", level])).any() for when, level in wins
    )
    seeds = len(found["elman", "before", "h", "1/e"])
    if all(w.all() for w in wins.values()):
        word = "confirmed"
    elif undecided:
        word = "inconclusive"  # both reach beyond the sequence: it was too short to tell
    elif all(w.mean() < 0.5 for w in wins.values()):
        word = "contradicted"
    else:
        word = "depends"
    parts = []
    for when in WHEN:
        for level in LEVELS:
            elman, lstm = (np.median(found[key]) for key in (("elman", when, "h", level), ("lstm", when, "c", level)))
            longer = int(wins[when, level].sum())
            parts.append(f"{when} training to {level}: {elman:.1f} and {lstm:.1f} (longer in {longer} of {seeds} seeds)")
    source = "exact: c_t = sig(1) c_{t-1} without inputs; an orthogonal matrix keeps norms"
    slope = float(np.log(1.0 / (1.0 + np.exp(-1.0))))
    truths = (
        GroundTruth(
            "slope of ln|dL/dc| by lag, zero weights, forget bias 1", float(result["calibration_lstm"]), slope, 1e-9, source
        ),
        GroundTruth(
            "1 + slope of ln|dL/dh|, orthogonal linear net", 1.0 + float(result["calibration_orthogonal"]), 1.0, 1e-12, source
        ),
    )
    return Verdict(word, f"memory horizon in steps of Elman h and LSTM c, {'; '.join(parts)}", numbers, truths)


def draw(result: Mapping[str, Array]) -> Any:
    from gradlab import plotting

    figure = plotting.new_figure(plotting.PAGE, 4.6)
    axes = figure.subplots(2, 2)
    curves = (("elman", "h", "Elman $h$", "first"), ("lstm", "c", "LSTM $c$", "second"), ("lstm", "h", "LSTM $h$", "third"))
    seeds = result["elman_before_h"].shape[1]
    for ax, letter, when in zip(axes[0], "ab", WHEN, strict=True):
        for name, path, label, line in curves:
            plotting.plot_gradient_flow(ax, result[f"{name}_{when}_{path}"], label, **plotting.LINES[line])
        plotting.panel_label(ax, letter, f"{when} training ({seeds} seeds: median, range)")
    bottom = min(ax.get_ylim()[0] for ax in axes[0])
    top = max(ax.get_ylim()[1] for ax in axes[0])
    for ax in axes[0]:
        ax.set_ylim(bottom, top)
    axes[0, 0].legend(loc="lower left")

    radii = axes[1, 0]
    for name, label, line in (("elman", "Elman", "first"), ("lstm", "LSTM, full state", "second")):
        for when, alpha in (("before", 0.45), ("after", 1.0)):
            rho = np.median(result[f"{name}_{when}_spectral_radius"], axis=-1).T  # (seed, step)
            radii.plot(
                result["jacobian_lags"],
                np.median(rho, axis=0),
                label=f"{label}, {when}",
                alpha=alpha,
                marker="o",
                markersize=3,
                markerfacecolor="white" if when == "before" else None,
                **plotting.LINES[line],
            )
    radii.axhline(1.0, color=plotting.COLOURS["grey"], linewidth=0.6)
    radii.set(xlabel="lag $T - t$ (steps)", ylabel=r"spectral radius of $J_t$")
    radii.set_ylim(bottom=0.0)
    radii.legend(loc="lower left", ncols=2, columnspacing=0.8, handlelength=2.0, fontsize=6.5)
    plotting.panel_label(radii, "c", "one-step Jacobians")

    reach = axes[1, 1]
    rows = [(name, path, label, line, when) for name, path, label, line in curves for when in WHEN]
    for place, (name, path, _, line, when) in enumerate(rows):
        colour = plotting.LINES[line]["color"]
        for level, marker in (("1/e", "o"), ("1/1000", "s")):
            lags = horizons(result, name, when, path, level)
            face = colour if when == "after" else "white"
            reach.plot(lags, np.full(len(lags), place), marker, color=colour, markerfacecolor=face, markersize=3.5)
    for level, marker in (("1/e", "o"), ("1/1000", "s")):
        reach.plot([], [], marker, color=plotting.COLOURS["grey"], markersize=3.5, label=f"until below {level}")
    reach.set_yticks(range(len(rows)), [f"{label}, {when}" for _, _, label, _, when in rows])
    reach.set_ylim(len(rows) + 0.6, -0.5)
    reach.set_xscale("log")
    reach.set(xlabel="memory horizon (steps)")
    reach.grid(axis="x")
    reach.legend(loc="lower center", ncols=2, columnspacing=1.0)
    plotting.panel_label(reach, "d", "each seed")
    return figure
