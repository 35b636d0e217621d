"""What the forget gate does to the gradient: time constants against the bias, the path along c, horizons, and what is learnt.

Claims, of H.-Y. Lee's lecture: an open forget gate keeps; an LSTM cures vanishing gradients, not exploding ones, since its memory
is added to and the gate is mostly open. The gate is that of Gers, Schmidhuber & Cummins (2000); starting it open, by a bias of 1
or more, was measured by Jozefowicz, Zaremba & Sutskever (2015).

Measured: dc_t/dc_{t-1} with the gate open and closed; -1/mean ln f of nets as they start against -1/ln sigmoid(b_f); dc_T/dc_0
by a complex step against the product of the gates; the gradient of a loss at the last step along c; the growth of perturbations
of the full (c, h) against the scale of U; and the share of fresh sequences of temporal order (Pascanu, Mikolov & Bengio 2013) got
right, whose symbols lie far beyond the horizon of b_f = 0. Every bias has the same seeds, sequences, updates, rates to choose
from (in validation), Adam and clipping. Bias 0 is compared with one that was fixed beforehand: the first of those tried whose
time constant exceeds the length; it is better if the seeds that differ by more than 5 points are too one-sided for chance, at
5 %. Single precision in training.

It would be contradicted by an open gate that loses, by gradients that no bias keeps, or by nets that never explode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from analyses import _forget_gate_paths as paths
from analyses import _members, _parts, _trials
from gradlab.runs import GroundTruth, Verdict
from gradlab.tasks import temporal_order

Array = npt.NDArray[Any]
TASK = temporal_order.PASCANU

CLAIM = "An open forget gate keeps; so an LSTM cures vanishing gradients, not exploding ones, and learns long lags"
SOURCE = "Gers, Schmidhuber & Cummins (2000); Jozefowicz, Zaremba & Sutskever (2015); H.-Y. Lee's lecture"
CONTRADICTED_IF = (
    "an open gate loses what is in c, no forget bias keeps the gradient, no net explodes, "
    "or a bias that spans the lag is no better than 0"
)
NEEDS: tuple[str, ...] = ()
ALONE = False
_GROWTH = {"hidden_size": 16, "steps": 200, "grown_biases": [0.0, 2.0, 6.0], "gains": [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]}
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        "biases": [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "steps": 200,
        "path_steps": 100,
        "sequences": 4,
        "growth": {**_GROWTH, "seeds": 20},
        "length": 40,
        "hidden_size": 16,
        "seeds": 9,
        "learnt_biases": [0.0, 1.0, 2.0, 4.0, 6.0],
        "learning_rates": [0.01, 0.02],
        "updates": 800,
        "batch": 20,
        "clip_norm": 1.0,
        "stop_below": 0.005,
        "validate_every": 40,
        "validation_sequences": 200,
        "test_sequences": 1000,
    },
    "quick": {
        "biases": [-2.0, 0.0, 2.0, 4.0, 6.0],
        "steps": 100,
        "path_steps": 100,
        "sequences": 2,
        "growth": {**_GROWTH, "seeds": 5},
        "length": 30,
        "hidden_size": 8,
        "seeds": 6,
        "learnt_biases": [0.0, 2.0, 4.0],
        "learning_rates": [0.02],
        "updates": 240,
        "batch": 20,
        "clip_norm": 1.0,
        "stop_below": 0.005,
        "validate_every": 40,
        "validation_sequences": 100,
        "test_sequences": 200,
    },
}
VANISHED = float(np.log(1e-3))
"""A gradient that has shrunk to a thousandth has vanished; one that has grown a thousandfold has exploded."""
TABLE = {0.0: 1.442695, 1.0: 3.192219, 2.0: 7.878482, 4.0: 55.09664, 10.0: 22026.97}
"""-1/ln sigmoid(b), in steps."""
OPEN = 0.9
"""Where a gate counts as open (Karpathy, Johnson & Fei-Fei 2015: right-saturated)."""


def predicted(biases: Array) -> Array:
    """The time constant of a gate that its bias alone sets, -1/ln sigmoid(b), in steps."""
    return np.asarray(1.0 / np.log1p(np.exp(-np.asarray(biases, float))))


def spanning(biases: Array, length: int) -> int:
    """The first of `biases` whose time constant exceeds the length; the last if none does."""
    return int(np.append(np.flatnonzero(predicted(biases) > length), len(biases) - 1)[0])


def keeps(bias: float) -> float:
    """dc_t/dc_{t-1} of one unit whose forget gate only its bias sets, by a complex step."""
    net = gradlab.Network(gradlab.LSTM(), 1, 1)
    params = {"0.W": np.ones((4, 1)), "0.U": np.zeros((4, 1)), "0.b": np.array([0.0, bias, 0.0, 0.0])}
    params["0.W"][1] = 0.0
    start = {"0": np.array([[0.3 + 1j * paths.STEP, 0.0]])}
    return float(gradlab.forward(net, params, np.ones((1, 1, 1)), start).runs["0"].states[-1][0, 0].imag / paths.STEP)


def exact_constants(biases: list[float]) -> list[float]:
    """Time constants that `gate_time_constants` measures on nets whose gates only the bias sets."""
    net = gradlab.Network(gradlab.LSTM(), 1, 2, output_size=1, readout="last")
    zero = {key: np.zeros(shape) for key, shape in net.shapes.items()}
    batch = gradlab.Batch(np.ones((20, 2, 1)), np.ones((2, 1)))
    b = np.repeat(np.array([[0.0, bias, 0.0, 0.0] for bias in biases]), 2, axis=1)
    record = gradlab.bptt(net, zero | {"0.b": b}, batch, gradlab.mean_squared_error, keep=("gates",))
    found = gradlab.analysis.gate_time_constants(record).time_constants["0/f"]
    return [float(value) for value in found[:, 0]]


def gates(net: gradlab.Network, params: Mapping[str, Array], x: Array) -> Array:
    """Of the forget gates, (3, *E): mean, share that is open, and the time constant of the unit that remembers longest."""
    run = gradlab.forward(net, params, x.astype(_trials.DTYPE)).runs["0"]
    f = run.layer.cell.gate_values(run.tape)["f"].astype(float)  # (T, *E, B, H)
    with np.errstate(divide="ignore"):
        longest = 1.0 / -np.log(f).mean(axis=(0, -2)).max(axis=-1)
    return np.stack([f.mean(axis=(0, -2, -1)), (f >= OPEN).mean(axis=(0, -2, -1)), longest])


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    seeds = _members.seeds_of(rng, p["seeds"])
    held_out_seed, test_seed, start_seed, growth_seed = _members.seeds_of(rng, 4)
    net = _trials.network(gradlab.LSTM(), TASK, p["hidden_size"])
    biases = np.array(p["biases"])
    params = paths.with_biases(net, seeds, biases)
    starts = _members.stream(start_seed, 0)
    x = TASK.sample(starts, p["hidden_size"], p["path_steps"]).inputs
    found: dict[str, Any] = {
        "biases": biases,
        "learnt biases": np.array(p["learnt_biases"]),
        "learning rates": np.array(p["learning_rates"]),
        "gains": np.array(p["growth"]["gains"]),
        "grown biases": np.array(p["growth"]["grown_biases"]),
        "grown steps": np.array(p["growth"]["steps"] - p["growth"]["steps"] // 2),
        "length": np.array(p["length"]),
        "budget": np.array(p["updates"]),
        "table": np.array(exact_constants(list(TABLE))),
        "keeps": np.array([keeps(800.0), keeps(-800.0)]),
        "no forget gate": np.array(paths.no_forget_gate(starts, p["hidden_size"], x)),
        "growth": paths.exponents(_members.stream(growth_seed, 0), p["growth"]),
        **paths.at_start(net, params, TASK.sample(starts, p["sequences"], p["steps"])),
    }
    found["path"], found["path gates"], found["off the path"] = paths.whole_path(net, params, x)
    found["step path"], found["step gates"] = paths.step_paths(net, params, x[:, : p["sequences"]])
    held_out = TASK.sample(_members.stream(held_out_seed, 0), p["validation_sequences"], p["length"])
    test = TASK.sample(_members.stream(test_seed, 0), p["test_sequences"], p["length"])
    settings = [(rate, {"forget_bias": bias}) for bias in p["learnt_biases"] for rate in p["learning_rates"]]
    training = _trials.train(net, TASK, p["length"], p, seeds, settings, held_out, progress)
    found |= _trials.arrays(training, _trials.wrong(net, training.params, TASK, test))
    some = test.inputs[:, : _trials.AT_ONCE // 2]
    found["gates before"] = gates(net, _trials.side_by_side(net, seeds, settings)[0], some)
    found["gates after"] = gates(net, training.params, some)
    return {key: np.asarray(value) for key, value in found.items()}


def chosen(result: Mapping[str, Array]) -> list[int]:
    """The setting of each bias: that of its rates which validation prefers."""
    rates = len(result["learning rates"])
    each = range(len(result["learnt biases"]))
    return [_trials.chosen(result["validation"], range(k * rates, (k + 1) * rates)) for k in each]


def accuracy(result: Mapping[str, Array]) -> Array:
    """Shares of fresh sequences got right at the chosen rates, (bias, seed)."""
    return np.asarray(1.0 - result["test"][chosen(result)])


def check(result: Mapping[str, Array]) -> Verdict:
    from analyses import _forget_gate_verdict  # late: it reads the constants above

    parts, numbers = _forget_gate_verdict.parts(result)
    slack = [
        ("the path along c, U = 0: 1 + largest error of ln dc_T/dc_0", result["path"], result["path gates"]),
        ("the path along c, any U, h held: 1 + largest error of its ln", result["step path"], result["step gates"]),
    ]
    truths = [
        # ln f of a gate near 1 keeps eps / |ln f| of its digits: 1e-13 at a bias of 6.
        GroundTruth(name, 1.0 + float(np.abs(measured / expected - 1.0).max()), 1.0, 1e-10, "the product of the gates f")
        for name, measured, expected in slack
    ]
    truths += [
        GroundTruth("largest derivative off the path, U = 0", float(result["off the path"].max()), 0.0, 0.0, "0 exactly"),
        GroundTruth("|ln dc_T/dc_0| without a forget gate, U = 0", float(result["no forget gate"]), 0.0, 0.0, "f = 1 exactly"),
        *(
            GroundTruth(f"time constant at b_f = {bias:g}", float(value), expected, 1e-6, "-1/ln sigmoid(b_f)")
            for (bias, expected), value in zip(TABLE.items(), result["table"], strict=True)
        ),
    ]
    return Verdict(_parts.whole(parts), "; ".join(part.told for part in parts), numbers | _parts.words(parts), tuple(truths))


def draw(result: Mapping[str, Array]) -> Any:
    from analyses import _forget_gate_figure  # late: it imports matplotlib

    return _forget_gate_figure.draw(result)
