"""Which connections are peepholes, and whether they help an LSTM to time spikes.

Claim, of the digest of H.-Y. Lee's lecture: real LSTMs feed h and c back to the gates, which is called a peephole. Peepholes are
those of Gers & Schmidhuber (2000): from c alone, one weight for each unit, i and f seeing c_{t-1} and o seeing c_t. Gers,
Schraudolph & Schmidhuber (2002) found that they let an LSTM learn to measure the time between spikes.

Measured: derivatives of each gate with respect to c_{t-1} and h_{t-1} by complex steps, with peepholes and without; and the
share of fresh spike trains announced to the step, in gradlab's task after theirs, by an LSTM with peepholes and by the one
without whose number of parameters is nearest: it has as many units. Both start as the same function (peepholes at 0, forget bias
1) and get the same seeds, sequences, updates, rates to choose from in validation, Adam and clipping. They are level if the
median of their paired differences lies within 5 points, at 95 %; apart if the seeds that differ by more are too one-sided for
chance, at 5 %. Single precision in training.

The claim is contradicted if the h connections are there without peepholes and only those from c come with them, or if nets with
peepholes announce no more trains; it depends if the order of the two turns round with the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from analyses import _members, _parts, _trials
from gradlab.runs import GroundTruth, Verdict
from gradlab.tasks import timing

Array = npt.NDArray[Any]
TASK = timing.GERS

CLAIM = "Real LSTMs feed back h and c to their gates, which is called a peephole; without it they do not learn to time spikes"
SOURCE = "Gers & Schmidhuber (2000); Gers, Schraudolph & Schmidhuber (2002); H.-Y. Lee's lecture"
CONTRADICTED_IF = (
    "the connections from h are there without peepholes and only those from c come with them, "
    "or LSTMs without announce as many spike trains at equal numbers of parameters"
)
NEEDS: tuple[str, ...] = ()
ALONE = False
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        "structure_size": 6,
        "length": 50,
        "hidden_size": 10,
        "seeds": 13,
        "learning_rates": [0.003, 0.01, 0.03, 0.1],
        "updates": 1000,
        "batch": 20,
        "clip_norm": 1.0,
        "stop_below": 0.005,
        "validate_every": 50,
        "validation_sequences": 200,
        "test_sequences": 1000,
    },
    "quick": {
        "structure_size": 6,
        "length": 20,
        "hidden_size": 8,
        "seeds": 6,
        "learning_rates": [0.01, 0.03],
        "updates": 160,
        "batch": 20,
        "clip_norm": 1.0,
        "stop_below": 0.005,
        "validate_every": 40,
        "validation_sequences": 100,
        "test_sequences": 200,
    },
}
GATES = ("i", "f", "g", "o")
NETS = {"peepholes": gradlab.LSTM(peepholes=True), "without": gradlab.LSTM()}
STEP = 1e-30


def gate_derivatives(cell: Any, params: Mapping[str, Array], s: Array, x: Array) -> Array:
    """Derivatives of the gates i, f, g, o at one step with respect to (c_{t-1}, h_{t-1}), (4, H, 2H), by complex steps.

    s (2H,) the state before, x (D,) the input. Each row of a batch perturbs one number of the state.
    """
    S = len(s)
    net = gradlab.Network(cell, len(x), S // 2)
    start = s + 1j * STEP * np.eye(S)
    run = gradlab.forward(net, params, np.broadcast_to(x, (1, S, len(x))), {"0": start}).runs["0"]
    values = cell.gate_values(run.tape)
    return np.stack([values[gate][0].imag.T / STEP for gate in GATES])


def structure(rng: np.random.Generator, H: int) -> dict[str, Array]:
    """Derivatives of the gates of one random LSTM with its peepholes and without, and what the equations say they are."""
    cell = gradlab.LSTM(peepholes=True)
    net = gradlab.Network(cell, 2, H)
    params = net.init(rng)
    params |= {f"0.p_{gate}": rng.choice([-1.0, 1.0], H) * rng.uniform(0.5, 1.5, H) for gate in ("i", "f", "o")}
    plain = {key: value for key, value in params.items() if not key.startswith("0.p_")}
    s, x = rng.normal(size=2 * H), rng.normal(size=2)
    run = gradlab.forward(net, params, x[None, None], {"0": s[None]}).runs["0"]
    gate = {name: value[0, 0] for name, value in cell.gate_values(run.tape).items()}
    A = np.diagonal(run.jacobians()[0, 0, :H, :H])  # dc_t/dc_{t-1}
    slope = {name: gate[name] * (1.0 - gate[name]) for name in ("i", "f", "o")}
    return {
        "with": gate_derivatives(cell, params, s, x),
        "plain": gate_derivatives(gradlab.LSTM(), plain, s, x),
        "expected": np.stack(
            [
                params["0.p_i"] * slope["i"],
                params["0.p_f"] * slope["f"],
                np.zeros(H),
                params["0.p_o"] * slope["o"] * A,  # it sees c_t, so c_{t-1} through dc_t/dc_{t-1}
            ]
        ),
        "expected of an o that sees the cell before": params["0.p_o"] * slope["o"],
    }


def announced(net: gradlab.Network, params: Mapping[str, Array], batch: gradlab.Batch) -> Array:
    """Probability of the label 1 at every step, (T, settings, seeds, B)."""
    outputs = gradlab.forward(net, params, batch.inputs.astype(_trials.DTYPE)).outputs.astype(float)
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(outputs[..., 0] - outputs[..., 1], -700.0, 700.0))))


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    seeds = _members.seeds_of(rng, p["seeds"])
    held_out_seed, test_seed, structure_seed = _members.seeds_of(rng, 3)
    length = p["length"]
    held_out = TASK.sample(_members.stream(held_out_seed, 0), p["validation_sequences"], length)
    test = TASK.sample(_members.stream(test_seed, 0), p["test_sequences"], length)
    zero_net = _trials.network(gradlab.LSTM(peepholes=True), TASK, 2)
    labels = timing.every_train(length)[1].sum(axis=0)  # ones in each possible train
    zero = {key: np.zeros(shape) for key, shape in zero_net.shapes.items()}
    found: dict[str, Any] = {
        "length": np.array(length),
        "intervals": timing.intervals(length),
        "budget": np.array(p["updates"]),
        "learning rates": np.array(p["learning_rates"]),
        "equal outputs": gradlab.bptt(zero_net, zero, held_out, gradlab.softmax_cross_entropy, keep=()).loss,
        "share of labels": labels.mean() / length,
        "share in the test": test.targets.mean(),
        "its scatter": labels.std() / labels.mean() / np.sqrt(p["test_sequences"]),
        "chance": np.array([TASK.baseline(length), timing.unmeasured(length)]),
        "spikes": test.inputs[:, 0, 0],
        "labels": test.targets[:, 0],
        **structure(_members.stream(structure_seed, 0), p["structure_size"]),
    }
    settings = [(rate, {"forget_bias": 1.0}) for rate in p["learning_rates"]]
    parameters = _members.parameter_count(_trials.network(NETS["peepholes"], TASK, p["hidden_size"]))
    for k, (name, cell) in enumerate(NETS.items()):

        def done(updates: int, of: int, before: int = k * p["updates"]) -> None:
            if progress is not None:
                progress(before + updates, len(NETS) * p["updates"])

        net = _trials.network(cell, TASK, _trials.nearest_size(cell, TASK, parameters))
        training = _trials.train(net, TASK, length, p, seeds, settings, held_out, done)
        kept = _trials.arrays(training, _trials.wrong(net, training.params, TASK, test))
        found |= {f"{name} {key}": value for key, value in kept.items()}
        found[f"{name} size"] = np.array([net.hidden_size, _members.parameter_count(net)])
        first = gradlab.Batch(test.inputs[:, :1], test.targets[:, :1])
        found[f"{name} announced"] = announced(net, training.params, first)[..., 0]
    return {key: np.asarray(value) for key, value in found.items()}


def chosen(result: Mapping[str, Array], name: str) -> int:
    """The rate that validation prefers."""
    return _trials.chosen(result[f"{name} validation"], range(len(result["learning rates"])))


def right(result: Mapping[str, Array], name: str) -> Array:
    """Shares of fresh trains announced to the step at the chosen rate, (seed,)."""
    return np.asarray(1.0 - result[f"{name} test"][chosen(result, name)])


def gaps(result: Mapping[str, Array]) -> dict[str, _parts.Difference]:
    """Peepholes less without: each "at its best" rate, and at each rate."""
    found = {"each at its best": _parts.difference(right(result, "peepholes"), right(result, "without"))}
    pairs = zip(result["learning rates"], result["without test"], result["peepholes test"], strict=True)
    return found | {f"rate {rate:g}": _parts.difference(without, own) for rate, without, own in pairs}


def check(result: Mapping[str, Array]) -> Verdict:
    from analyses import _peepholes_verdict  # late: it reads the constants above

    parts, numbers = _peepholes_verdict.parts(result)
    H = result["with"].shape[1]
    diagonal = np.diagonal(result["with"][..., :H], axis1=1, axis2=2)
    seen = np.arange(4) != GATES.index("g")
    error = np.abs(diagonal[seen] / result["expected"][seen] - 1.0).max()
    truths = (
        GroundTruth("1 + error of d(i, f, o)/dc_t-1", 1.0 + float(error), 1.0, 1e-12, "p_i i', p_f f', p_o o' dc_t/dc_t-1"),
        GroundTruth("|dg/dc_t-1|", float(np.abs(result["with"][2, :, :H]).max()), 0.0, 0.0, "no peephole enters g"),
        GroundTruth("loss of equal outputs", float(result["equal outputs"]), float(np.log(2.0)), 1e-12, "ln 2"),
        GroundTruth(
            "share of steps with the label 1 in the test",
            float(result["share in the test"]),
            float(result["share of labels"]),
            5.0 * float(result["its scatter"]),
            "every interval and phase equally likely; 5 standard errors",
        ),
    )
    return Verdict(_parts.whole(parts), "; ".join(part.told for part in parts), numbers | _parts.words(parts), truths)


def draw(result: Mapping[str, Array]) -> Any:
    from analyses import _peepholes_figure  # late: it imports matplotlib

    return _peepholes_figure.draw(result)
