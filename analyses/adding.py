"""Who learns to add two numbers that stand far apart: LSTM, IRNN or a tanh Elman net, at one tuning budget.

Claim, of Le, Jaitly & Hinton (2015) and H.-Y. Lee's lecture: a ReLU net that starts from the identity (IRNN) does at least
as well as an LSTM, and a tanh net worse than both. The task is Le's variant: values from U[0, 1], two markers anywhere,
target their sum; no other variant's numbers compare. Success: mean squared error < 0.01 on fresh sequences; the best
constant answer has 1/6.

Every cell gets the same seeds, batches, updates, learning rates to choose from, optimiser (Adam) and clipping, and about the
same number of parameters. Each member keeps the parameters that validation liked best and stops when validation is well below
the goal; a cell's rate is the one at which most seeds reach the goal in VALIDATION; what is reported is the TEST error. The
LSTM's forget bias is 1. Single precision. (Le's 100 units, 1e-9..1e-1 for rates and far longer runs are another budget.)

It would be contradicted by an IRNN that succeeds with significantly fewer seeds than the LSTM at every length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from analyses import _members
from gradlab.runs import GroundTruth, Verdict
from gradlab.tasks import adding

Array = npt.NDArray[Any]

CLAIM = "On Le's adding problem an identity-initialised ReLU net does at least as well as an LSTM, a tanh net worse than both"
SOURCE = (
    "Le, Jaitly & Hinton (2015), A simple way to initialize recurrent networks of rectified linear units; H.-Y. Lee's lecture"
)
CONTRADICTED_IF = (
    "at equal tuning budget the IRNN succeeds with significantly fewer seeds than the LSTM at every length "
    "(Fisher's exact test, 5 %)"
)
NEEDS: tuple[str, ...] = ()
ALONE = False
COMMON_RANDOM_NUMBERS = True  # every length and cell gets the same seeds
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        "lengths": [100, 150],
        "hidden_size": {"lstm": 16, "irnn": 32, "tanh": 32},
        "seeds": 5,
        "learning_rates": [0.003, 0.01, 0.03],
        "updates": 3000,
        "batch": 20,
        "clip_norm": 1.0,
        "forget_bias": 1.0,
        "goal": 0.01,
        "stop_below": 0.005,
        "validate_every": 100,
        "validation_sequences": 200,
        "test_sequences": 2000,
        "constant_sequences": 20000,
    },
    "quick": {
        "lengths": [8, 12],
        "hidden_size": {"lstm": 8, "irnn": 16, "tanh": 16},
        "seeds": 3,
        "learning_rates": [0.01, 0.03],
        "updates": 250,
        "batch": 20,
        "clip_norm": 1.0,
        "forget_bias": 1.0,
        "goal": 0.01,
        "stop_below": 0.005,
        "validate_every": 25,
        "validation_sequences": 100,
        "test_sequences": 400,
        "constant_sequences": 20000,
    },
}
CELLS = {"lstm": gradlab.LSTM(), "irnn": gradlab.Elman("relu"), "tanh": gradlab.Elman("tanh")}
NAMES = {"lstm": "LSTM", "irnn": "IRNN", "tanh": "tanh Elman"}
WORK = {"lstm": 3, "irnn": 1, "tanh": 1}  # how long each takes, roughly: for the progress bar alone
DTYPE = np.float32
AT_ONCE = 200  # sequences in one forward pass: bounds the memory
SIGNIFICANT = 0.05


def network(name: str, hidden_size: int) -> gradlab.Network:
    return gradlab.Network(CELLS[name], adding.INPUT_SIZE, hidden_size, output_size=adding.OUTPUT_SIZE, readout="last")


def errors(net: gradlab.Network, params: Mapping[str, Array], batch: gradlab.Batch) -> Array:
    """Mean squared error of each member; infinite where an output is not finite."""
    total: Any = 0.0
    dtype = next(iter(params.values())).dtype
    for first in range(0, batch.inputs.shape[1], AT_ONCE):
        part = slice(first, first + AT_ONCE)
        outputs = gradlab.forward(net, params, batch.inputs[:, part].astype(dtype)).outputs
        with np.errstate(all="ignore"):
            total = total + np.square(outputs.astype(np.float64) - batch.targets[part]).sum(axis=(-2, -1))
    mean = np.asarray(total) / len(batch.targets)
    return np.where(np.isfinite(mean), mean, np.inf)


def exact_net() -> tuple[gradlab.Network, dict[str, Array]]:
    """Two ReLU units that add without error: u_t = relu(value + marker - 1) is the marked value, s_t = relu(s_{t-1} + u_{t-1})
    sums it up, and the read-out gives s_T + u_T. So whoever fails below fails to learn, not to express.
    """
    return network("irnn", 2), {
        "0.W": np.array([[1.0, 1.0], [0.0, 0.0]]),
        "0.U": np.array([[0.0, 0.0], [1.0, 1.0]]),
        "0.b": np.array([-1.0, 0.0]),
        "readout.V": np.ones((1, 2)),
        "readout.b_y": np.zeros(1),
    }


def train(name: str, p: Mapping[str, Any], seeds: list[Any], held_out: gradlab.Batch, done: Any) -> Any:
    """All seeds at all rates as one ensemble, axes (rate, seed): the training, its network."""
    net = network(name, p["hidden_size"][name])
    options: dict[str, Any] = {"forget_bias": p["forget_bias"]} if name == "lstm" else {}
    if name == "irnn":
        options = dict(gradlab.inits.irnn())
    rates = np.array(p["learning_rates"])
    streams = [_members.stream(seed, p["length"]) for seed in seeds]  # the same sequences for every cell

    def sample(_: np.random.Generator) -> gradlab.Batch:
        return _members.side_by_side([adding.sample(rng, p["batch"], p["length"]) for rng in streams], False, DTYPE)

    training = gradlab.training.train(
        net,
        _members.initial(net, seeds, len(rates), DTYPE, **options),
        sample,
        gradlab.mean_squared_error,
        p["updates"],
        np.random.default_rng(0),  # not used: every seed has a stream of its own
        optimiser=gradlab.training.Adam(),
        learning_rate=np.repeat(rates[:, None], len(seeds), axis=1),
        clip=gradlab.training.ByNorm(p["clip_norm"]),
        validate=lambda params: errors(net, params, held_out),
        validate_every=p["validate_every"],
        target=p["stop_below"],
        progress=done,
    )
    return training, net


def tasks(scale: str) -> list[dict[str, Any]]:
    """One task a length. The first one's constant answer is measured too: it does not depend on the length."""
    shared = {name: value for name, value in PARAMETERS[scale].items() if name != "lengths"}
    return [{**shared, "length": T} for T in PARAMETERS[scale]["lengths"]]


def run_task(rng: np.random.Generator, p: Mapping[str, Any], progress: Any = None) -> dict[str, Array]:
    T = p["length"]
    seeds = _members.seeds_of(rng, p["seeds"])
    held_out_seed, test_seed, constant_seed = _members.seeds_of(rng, 3)
    constant = adding.sample(_members.stream(constant_seed, 0), p["constant_sequences"], T)
    held_out = adding.sample(_members.stream(held_out_seed, T), p["validation_sequences"], T)
    test = adding.sample(_members.stream(test_seed, T), p["test_sequences"], T)
    result: dict[str, Any] = {
        "constant_error": np.square(constant.targets - 1.0).mean(),
        f"constant_validation_{T}": np.square(held_out.targets - 1.0).mean(),
        f"exact_error_{T}": errors(*exact_net(), test),
    }
    before, total = 0, sum(WORK.values()) * p["updates"]
    for name in CELLS:

        def done(updates: int, of: int, before: int = before, share: int = WORK[name]) -> None:
            if progress is not None:
                progress(before + share * updates, total)

        training, net = train(name, p, seeds, held_out, done)
        before += WORK[name] * p["updates"]
        stopped = np.zeros((len(p["learning_rates"]), p["seeds"]), bool)
        for event in training.events:
            stopped[event.member] = True
        result[f"{name}_{T}_updates"], result[f"{name}_{T}_validation"] = training.validation
        result[f"{name}_{T}_test"] = errors(net, training.params, test)
        result[f"{name}_{T}_stopped"] = stopped
    return result


def collect(results: Sequence[Mapping[str, Array]], scale: str) -> dict[str, Array]:
    p = PARAMETERS[scale]
    result: dict[str, Any] = {
        "lengths": p["lengths"],
        "learning_rates": p["learning_rates"],
        "goal": p["goal"],
        "constant_error": results[0]["constant_error"],
        "constant_sequences": p["constant_sequences"],
        "parameters": [_members.parameter_count(network(name, p["hidden_size"][name])) for name in CELLS],
        "updates": p["updates"],
    }
    for one in results:
        result |= {name: value for name, value in one.items() if name != "constant_error"}
    return {key: np.asarray(value) for key, value in result.items()}


def chosen_rate(result: Mapping[str, Array], name: str, length: int) -> int:
    """The rate at which most seeds reach the goal in validation; of equals, the one with the lowest median error."""
    with np.errstate(invalid="ignore"):
        best = np.nanmin(np.where(np.isnan(found := result[f"{name}_{length}_validation"]), np.inf, found), axis=0)
    reached = (best < result["goal"]).sum(axis=1)
    return int(np.lexsort((np.median(best, axis=1), -reached))[0])


def successes(result: Mapping[str, Array], name: str, length: int) -> Array:
    """How many seeds have a test error below the goal, for each rate."""
    return np.asarray((result[f"{name}_{length}_test"] < result["goal"]).sum(axis=1))


def check(result: Mapping[str, Array]) -> Verdict:
    lengths = [int(T) for T in result["lengths"]]
    seeds = result[f"lstm_{lengths[0]}_test"].shape[1]
    rate = {(name, T): chosen_rate(result, name, T) for name in CELLS for T in lengths}
    count = {(name, T): int(successes(result, name, T)[rate[name, T]]) for name in CELLS for T in lengths}
    numbers: dict[str, float | int | str] = {"chance level of a constant answer": adding.BASELINE, "seeds": seeds}
    for k, name in enumerate(CELLS):
        numbers[f"parameters of {NAMES[name]}"] = int(result["parameters"][k])
        for T in lengths:
            label = f"{NAMES[name]}, T = {T}"
            low, high = _members.interval(count[name, T], seeds)
            test = result[f"{name}_{T}_test"]
            numbers |= {
                f"{label}: successes": count[name, T],
                f"{label}: 95 % interval of the share, low": low,
                f"{label}: 95 % interval of the share, high": high,
                f"{label}: chosen learning rate": float(result["learning_rates"][rate[name, T]]),
                f"{label}: median test error at the chosen rate": float(np.median(test[rate[name, T]])),
                f"{label}: largest test error at the chosen rate": float(test[rate[name, T]].max()),
                f"{label}: stopped by a number that is not finite, any rate": int(result[f"{name}_{T}_stopped"].sum()),
            }
            for k_rate, value in enumerate(result["learning_rates"]):
                numbers[f"{label}: successes at rate {value:g}"] = int(successes(result, name, T)[k_rate])
    p_value = {
        (other, T): _members.fisher(count["lstm", T], count[other, T], seeds) for other in ("irnn", "tanh") for T in lengths
    }
    for (other, T), value in p_value.items():
        numbers[f"p of LSTM against {NAMES[other]}, T = {T}"] = value
    worse = [count["irnn", T] < count["lstm", T] and p_value["irnn", T] < SIGNIFICANT for T in lengths]
    holds = [count["irnn", T] >= count["lstm", T] > count["tanh", T] and p_value["tanh", T] < SIGNIFICANT for T in lengths]
    if all(worse):
        word = "contradicted"
    elif all(holds):
        word = "confirmed"
    elif any(worse) and any(holds):
        word = "depends"
    else:
        word = "inconclusive"
    told = [f"T = {T}: " + ", ".join(f"{NAMES[name]} {count[name, T]}" for name in CELLS) + f" of {seeds} seeds" for T in lengths]
    reason = {
        "depends": "; the IRNN falls behind at one length and not at the other",
        "inconclusive": "; too few seeds to tell IRNN and LSTM apart at every length",
    }
    sentence = (
        f"test error below {float(result['goal']):g} (a constant has 1/6) within {int(result['updates'])} updates at the best "
        f"of {len(result['learning_rates'])} rates, {'; '.join(told)}{reason.get(word, '')}"
    )
    truths = (
        GroundTruth(
            "error of the constant answer 1 (5 standard errors)",
            float(result["constant_error"]),
            adding.BASELINE,
            5.0 * float(np.sqrt(7.0 / 5.0 / float(result["constant_sequences"]))),
            "variance of the sum of two U[0, 1] is 1/6; its square has the variance 7/180",
        ),
        *(
            GroundTruth(
                f"1 + test error of two ReLU units set by hand, T = {T}",
                1.0 + float(result[f"exact_error_{T}"]),
                1.0,
                1e-12,
                "exact: relu(value + marker - 1) is the marked value",
            )
            for T in lengths
        ),
    )
    return Verdict(word, sentence, numbers, truths)


def draw(result: Mapping[str, Array]) -> Any:
    from analyses import _adding_figure  # late: it imports matplotlib

    return _adding_figure.draw(result)
