"""How often a tanh net learns the order of two far symbols: with nothing, with clipping, with the norm-preserving regulariser.

Claim, of Pascanu, Mikolov & Bengio (2013): clipping the norm of the gradient makes more runs succeed than plain stochastic
gradient descent (explosions are what stops it), and their regulariser with clipping more still (vanishing is the other half).
The task is their program's variant at T = 50. Net, initialisation ("smart tanh"), batch, threshold, weight (form B, the
one in their program) and the test of success, fewer than 1 % of 10 000 fresh sequences wrong, are theirs; the learning rates
are larger and the updates far fewer than their 5 million.

Every way of training gets the same seeds, initial parameters, sequences, updates and learning rates to choose from; its
rate is the one at which most seeds succeed in VALIDATION. A run stops when validation finds next to no error. Single precision.

It would be contradicted by clipping, or regularising on top of it, that makes significantly fewer runs succeed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from analyses import _members
from gradlab.runs import GroundTruth, Verdict
from gradlab.tasks import temporal_order

Array = npt.NDArray[Any]
TASK = temporal_order.PASCANU

CLAIM = (
    "On temporal order clipping lets more tanh nets learn than plain gradient descent, the regulariser with clipping more still"
)
SOURCE = (
    "Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, section 4.1, and their program"
)
CONTRADICTED_IF = (
    "clipping, or the regulariser on top of it, makes significantly fewer seeds succeed at the same budget "
    "(Fisher's exact test, 5 %), and neither makes significantly more"
)
NEEDS: tuple[str, ...] = ()
ALONE = False
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        "length": 50,
        "hidden_size": 50,
        "seeds": 10,
        "learning_rates": [0.03, 0.1],
        "updates": 4000,
        "batch": 20,
        "clip_norm": 1.0,
        "weight": 4.0,
        "goal": 0.01,
        "stop_below": 0.002,
        "validate_every": 250,
        "validation_sequences": 1000,
        "test_sequences": 10000,
        "window": 50,
    },
    "quick": {
        "length": 10,
        "hidden_size": 20,
        "seeds": 4,
        "learning_rates": [0.1, 0.3],
        "updates": 300,
        "batch": 20,
        "clip_norm": 1.0,
        "weight": 4.0,
        "goal": 0.01,
        "stop_below": 0.002,
        "validate_every": 50,
        "validation_sequences": 1000,
        "test_sequences": 2000,
        "window": 10,
    },
}
WAYS = {"plain": "nothing", "clipped": "clipping", "both": "clipping and regulariser", "regularised": "regulariser"}
STEPS = (("plain", "clipped"), ("clipped", "both"))  # each claimed to be better than the one before it
WORK = {"plain": 2, "clipped": 2, "both": 3, "regularised": 3}  # how long each takes, roughly: for the progress bar alone
DTYPE = np.float32
AT_ONCE = 500  # sequences in one forward pass: bounds the memory
SIGNIFICANT = 0.05


def network(hidden_size: int) -> gradlab.Network:
    return gradlab.Network(
        gradlab.Elman("tanh"), TASK.input_size, hidden_size, output_size=TASK.output_size, readout=TASK.readout
    )


def wrong(net: gradlab.Network, params: Mapping[str, Array], batch: gradlab.Batch) -> Array:
    """The share of sequences that each member gets wrong."""
    total: Any = 0.0
    dtype = next(iter(params.values())).dtype
    for first in range(0, batch.inputs.shape[1], AT_ONCE):
        part = slice(first, first + AT_ONCE)
        outputs = gradlab.forward(net, params, batch.inputs[:, part].astype(dtype)).outputs
        total = total + (~TASK.success(outputs, batch.targets[part])).sum(axis=-1)
    return np.asarray(total) / len(batch.targets)


def train(way: str, p: Mapping[str, Any], seeds: list[Any], held_out: gradlab.Batch, done: Any) -> gradlab.training.Training:
    """All seeds at all rates as one ensemble, axes (rate, seed)."""
    net = network(p["hidden_size"])
    rates = np.array(p["learning_rates"])
    streams = [_members.stream(seed, 1) for seed in seeds]  # the same sequences for every way of training

    def sample(_: np.random.Generator) -> gradlab.Batch:
        return _members.side_by_side([TASK.sample(rng, p["batch"], p["length"]) for rng in streams], False, DTYPE)

    return gradlab.training.train(
        net,
        _members.initial(net, seeds, len(rates), DTYPE, **gradlab.inits.pascanu_smart_tanh()),
        sample,
        gradlab.softmax_cross_entropy,
        p["updates"],
        np.random.default_rng(0),  # not used: every seed has a stream of its own
        optimiser=gradlab.training.SGD(),
        learning_rate=np.repeat(rates[:, None], len(seeds), axis=1),
        clip=gradlab.training.ByNorm(p["clip_norm"]) if way in ("clipped", "both") else None,
        regulariser=gradlab.training.NormPreserving(p["weight"], "B") if way in ("both", "regularised") else None,
        validate=lambda params: wrong(net, params, held_out),
        validate_every=p["validate_every"],
        target=p["stop_below"],
        progress=done,
    )


def thinned(rows: Array, window: int, reduce: Any) -> Array:
    """Every `window` updates in one number; NaN from where a member had stopped."""
    whole = len(rows) // window * window
    return np.asarray(reduce(rows[:whole].reshape(-1, window, *rows.shape[1:]), axis=1))


def calibration() -> dict[str, Array]:
    """Exact facts: the loss of a net that gives every class the same output, and Omega of a scalar linear net with weight 1.1."""
    rng = np.random.default_rng(0)  # the numbers below do not depend on it
    net = network(4)
    zero = {key: np.zeros(shape) for key, shape in net.shapes.items()}
    loss = gradlab.bptt(net, zero, TASK.sample(rng, 8, 20), gradlab.softmax_cross_entropy, keep=()).loss
    scalar = gradlab.Network(gradlab.Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 1.1), "0.b": np.zeros(1)}
    batch = gradlab.Batch(rng.normal(size=(20, 3, 1)), rng.normal(size=(3, 1)))
    record = gradlab.bptt(scalar, params, batch, gradlab.mean_squared_error)
    omega, _ = gradlab.training.NormPreserving(1.0, "B")(scalar, params, record)
    return {"zero_loss": np.asarray(loss), "scalar_omega": np.asarray(omega)}


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    seeds = _members.seeds_of(rng, p["seeds"])
    held_out_rng, test_rng = (np.random.default_rng(seed) for seed in _members.seeds_of(rng, 2))
    held_out = TASK.sample(held_out_rng, p["validation_sequences"], p["length"])
    test = TASK.sample(test_rng, p["test_sequences"], p["length"])
    result: dict[str, Array] = {
        "learning_rates": np.array(p["learning_rates"]),
        "length": np.array(p["length"]),
        "updates": np.array(p["updates"]),
        "window": np.array(p["window"]),
        "goal": np.array(p["goal"]),
        "clip_norm": np.array(p["clip_norm"]),
        **calibration(),
    }
    total, before = sum(WORK.values()) * p["updates"], 0
    for way in WAYS:

        def done(updates: int, of: int, before: int = before, share: int = WORK[way]) -> None:
            if progress is not None:
                progress(before + share * updates, total)

        training = train(way, p, seeds, held_out, done)
        before += WORK[way] * p["updates"]
        result[f"{way}_loss"] = thinned(training.loss, p["window"], np.mean)
        result[f"{way}_gradient_norm"] = thinned(training.gradient_norm, p["window"], np.max)
        result[f"{way}_share_clipped"] = np.nanmean(training.clipped, axis=0)
        result[f"{way}_validation_updates"], result[f"{way}_validation"] = training.validation
        result[f"{way}_test"] = wrong(network(p["hidden_size"]), training.params, test)
        result[f"{way}_not_finite"] = np.array(sum(event.stopped for event in training.events))
    return result


def chosen_rate(result: Mapping[str, Array], way: str) -> int:
    """The rate at which most seeds succeed in validation; of equals, the one with the lowest mean error."""
    found = result[f"{way}_validation"]
    best = np.min(np.where(np.isnan(found), np.inf, found), axis=0)
    return int(np.lexsort((best.mean(axis=1), -(best < result["goal"]).sum(axis=1)))[0])


def successes(result: Mapping[str, Array], way: str) -> Array:
    """How many seeds get fewer than 1 % of the fresh sequences wrong, for each rate."""
    return np.asarray((result[f"{way}_test"] < result["goal"]).sum(axis=1))


def compared(first: int, second: int, trials: int) -> str:
    """Whether `second` is significantly more or fewer than `first`."""
    if _members.fisher(first, second, trials) >= SIGNIFICANT:
        return "undecided"
    return "more" if second > first else "fewer"


def check(result: Mapping[str, Array]) -> Verdict:
    seeds = result["plain_test"].shape[1]
    rates = result["learning_rates"]
    rate = {way: chosen_rate(result, way) for way in WAYS}
    counts = {way: successes(result, way) for way in WAYS}
    count = {way: int(counts[way][rate[way]]) for way in WAYS}
    numbers: dict[str, float | int | str] = {
        "seeds": seeds,
        "error rate of a guess": 0.75,
        "loss of a guess, nats": float(np.log(4.0)),
    }
    for way, label in WAYS.items():
        low, high = _members.interval(count[way], seeds)
        test = result[f"{way}_test"][rate[way]]
        numbers |= {
            f"{label}: successes": count[way],
            f"{label}: 95 % interval of the share, low": low,
            f"{label}: 95 % interval of the share, high": high,
            f"{label}: chosen learning rate": float(rates[rate[way]]),
            f"{label}: median test error rate": float(np.median(test)),
            f"{label}: largest gradient norm": float(np.nanmax(result[f"{way}_gradient_norm"][:, rate[way]])),
            f"{label}: share of clipped updates": float(result[f"{way}_share_clipped"][rate[way]].mean()),
            f"{label}: runs stopped by a number that is not finite, any rate": int(result[f"{way}_not_finite"]),
            **{f"{label}: successes at rate {value:g}": int(counts[way][k]) for k, value in enumerate(rates)},
        }
    for first, second in STEPS:
        numbers[f"p of {WAYS[first]} against {WAYS[second]}"] = _members.fisher(count[first], count[second], seeds)
    outcome = {pair: compared(count[pair[0]], count[pair[1]], seeds) for pair in STEPS}
    by_rate = [
        {compared(int(counts[first][k]), int(counts[second][k]), seeds) for k in range(len(rates))} for first, second in STEPS
    ]
    if any({"more", "fewer"} <= words for words in by_rate):
        word, reason = "depends", "; the order changes with the learning rate"
    elif all(found == "more" for found in outcome.values()):
        word, reason = "confirmed", ""
    elif "fewer" in outcome.values() and "more" not in outcome.values():
        word, reason = "contradicted", ""
    else:
        word = "inconclusive"
        shown = [f"{WAYS[b]} over {WAYS[a]}" for (a, b), found in outcome.items() if found == "more"]
        reason = f"; significant alone: {', '.join(shown)}" if shown else "; no step is significant"
    told = ", ".join(f"{label} {count[way]}" for way, label in WAYS.items())
    sentence = (
        f"fewer than {100 * float(result['goal']):g} % of fresh sequences wrong at T = {int(result['length'])} within "
        f"{int(result['updates'])} updates at the best of {len(rates)} rates, of {seeds} seeds: {told}{reason}"
    )
    truths = (
        GroundTruth("loss of equal outputs", float(result["zero_loss"]), float(np.log(4.0)), 1e-12, "exact: ln 4"),
        GroundTruth(
            "Omega of a scalar linear net, w = 1.1",
            float(result["scalar_omega"]),
            (1.1**2 - 1.0) ** 2,
            1e-12,
            "exact: (w^2 - 1)^2, Pascanu, Mikolov & Bengio (2013), eq. 10",
        ),
    )
    return Verdict(word, sentence, numbers, truths)


def draw(result: Mapping[str, Array]) -> Any:
    from analyses import _temporal_order_figure  # late: it imports matplotlib

    return _temporal_order_figure.draw(result)
