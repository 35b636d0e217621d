"""What a GRU is, how many parameters it saves against an LSTM, and how well it does at the same number.

Claims, of H.-Y. Lee's lecture: a GRU is an LSTM with one gate fewer, its input and forget gates linked; that saves a third of
the parameters; and it does about as well. The GRU is that of Cho et al. (2014); the comparison that of Jozefowicz, Zaremba &
Sutskever (2015), who found that a forget bias of 1 closes the gap, and of Greff et al. (2015), whose LSTM with linked gates
(CIFG) is not a GRU.

Measured: the weights with which the old memory and the candidate enter the new one, and the rank of the Jacobian of the state, of
an LSTM with linked gates and of a GRU; counts of parameters under each convention for biases at many sizes, as integers; and
the shares of fresh sequences got right in adding (Le, Jaitly & Hinton 2015) and temporal order (Pascanu, Mikolov & Bengio 2013)
at equal numbers of parameters, the GRU's hidden size chosen so that they are nearest. Every net gets the same seeds, sequences,
updates, rates to choose from in validation, Adam and clipping. "About as well" means a median of the paired differences within
5 points, at 95 %; apart they are if the seeds that differ by more are too one-sided for chance, at 5 %. Single precision.

It would be contradicted by another saving under every convention, or by accuracies apart by more than that everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from analyses import _members, _parts, _trials
from gradlab.runs import GroundTruth, Verdict
from gradlab.tasks import adding, temporal_order

Array = npt.NDArray[Any]

CLAIM = "A GRU is an LSTM with linked input and forget gates, saves a third of its parameters and does about as well"
SOURCE = "Cho et al. (2014); Jozefowicz, Zaremba & Sutskever (2015); Greff et al. (2015); H.-Y. Lee's lecture"
CONTRADICTED_IF = (
    "no convention for the biases gives a saving of a third, "
    "or on every task and at both forget biases the nets are apart, significantly and by more than 5 points"
)
NEEDS: tuple[str, ...] = ()
ALONE = False
TASKS = {"temporal order": temporal_order.PASCANU, "adding": adding.LE}
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        "input_sizes": [1, 10, 100],
        "hidden_sizes": [1, 2, 5, 10, 20, 50, 100, 200, 400],
        "units": 13,  # of the LSTM: the size up to 20 whose numbers a GRU's come nearest to on both tasks
        "seeds": 9,
        "learning_rates": [0.005, 0.01, 0.02, 0.04],
        "temporal order": {"length": 40, "updates": 700},
        "adding": {"length": 25, "updates": 900},
        "training": {"batch": 20, "clip_norm": 1.0, "stop_below": 0.005, "validate_every": 50},
        "validation_sequences": 200,
        "test_sequences": 1000,
    },
    "quick": {
        "input_sizes": [2],
        "hidden_sizes": [1, 10, 100],
        "units": 13,
        "seeds": 6,
        "learning_rates": [0.02],
        "temporal order": {"length": 20, "updates": 100},
        "adding": {"length": 8, "updates": 200},
        "training": {"batch": 20, "clip_norm": 1.0, "stop_below": 0.005, "validate_every": 50},
        "validation_sequences": 100,
        "test_sequences": 200,
    },
}
FORGET_BIASES = (0.0, 1.0)
CONVENTIONS = {
    "one bias for each gate": ("one", "one"),
    "two biases (PyTorch)": ("two", "two"),
    "one, but two for the GRU (Keras, reset_after)": ("one", "two"),
    "no biases": ("none", "none"),
}
"""How the biases of the LSTM and those of the GRU are counted."""


def counts(input_sizes: list[int], hidden_sizes: list[int]) -> Array:
    """Integers (conventions, input sizes, hidden sizes, 2): parameters of the LSTM and of the GRU."""
    found = [
        [
            [
                [
                    gradlab.parameter_count(cell, m, n, how)
                    for cell, how in zip((gradlab.LSTM(), gradlab.GRU()), pair, strict=True)
                ]
                for n in hidden_sizes
            ]
            for m in input_sizes
        ]
        for pair in CONVENTIONS.values()
    ]
    return np.array(found, np.int64)


def structure(rng: np.random.Generator, hidden_size: int) -> dict[str, Array]:
    """Of an LSTM, one with linked gates and a GRU, each with random weights: how the new memory is made, and the state's rank.

    "gap": the largest |w_old + w_new - 1| of the weights of the old memory and of the candidate; "residual": what the new memory
    misses of w_old * old + w_new * candidate, relative to its size; "rank" of J_t by singular values above 1e-10 of the first.
    """
    cells = {"LSTM": gradlab.LSTM(), "linked LSTM": gradlab.LSTM(coupled=True), "GRU": gradlab.GRU()}
    found: dict[str, Array] = {}
    for (name, cell), own in zip(cells.items(), rng.spawn(len(cells)), strict=True):
        net = gradlab.Network(cell, 3, hidden_size)
        run = gradlab.forward(net, net.init(own), own.standard_normal((20, 4, 3))).runs["0"]
        gate = cell.gate_values(run.tape)
        if name == "GRU":  # one gate has both weights; what is measured is whether the state follows it
            old, new, candidate = gate["z"], 1.0 - gate["z"], gate["n"]
        else:
            old, new, candidate = gate["f"], gate["i"], gate["g"]
        memory = run.states[..., :hidden_size]
        missed = np.abs(memory[1:] - old * memory[:-1] - new * candidate).max() / np.abs(memory).max()
        singular = np.linalg.svd(run.jacobians()[-1], compute_uv=False)
        found[f"{name} gap"] = np.abs(old + new - 1.0).max()
        found[f"{name} residual"] = missed
        found[f"{name} rank"] = (singular > 1e-10 * singular[..., :1]).sum(axis=-1).min()
        found[f"{name} gates"] = np.array(len(cell.gates) - 1)  # the candidate is a block, not a gate
    return found


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    seeds = _members.seeds_of(rng, p["seeds"])
    held_out_seed, test_seed, other_seed = _members.seeds_of(rng, 3)
    found: dict[str, Any] = {
        "input sizes": np.array(p["input_sizes"]),
        "hidden sizes": np.array(p["hidden_sizes"]),
        "counts": counts(p["input_sizes"], p["hidden_sizes"]),
        "published counts": counts([2], [100])[:, 0, 0],
        "learning rates": np.array(p["learning_rates"]),
        "hidden size": np.array(p["units"]),
        **structure(_members.stream(other_seed, 0), p["units"]),
    }
    total, before = 3 * sum(p[name]["length"] * p[name]["updates"] for name in TASKS), 0
    for name, task in TASKS.items():
        length, settings = p[name]["length"], p["training"] | {"updates": p[name]["updates"]}
        held_out = task.sample(_members.stream(held_out_seed, length), p["validation_sequences"], length)
        test = task.sample(_members.stream(test_seed, length), p["test_sequences"], length)
        lstm = _trials.network(gradlab.LSTM(), task, p["units"])
        size = _trials.nearest_size(gradlab.GRU(), task, _members.parameter_count(lstm))
        gru = _trials.network(gradlab.GRU(), task, size)
        found[f"{name} sizes"] = np.array([[net.hidden_size, _members.parameter_count(net)] for net in (lstm, gru)])
        found[f"{name} length"], found[f"{name} budget"] = np.array(length), np.array(settings["updates"])
        options: tuple[dict[str, float], ...] = tuple({"forget_bias": bias} for bias in FORGET_BIASES)
        for who, net, starts in (("LSTM", lstm, options), ("GRU", gru, ({},))):
            share = length * len(starts)

            def done(updates: int, of: int, before: int = before, share: int = share) -> None:
                if progress is not None:
                    progress(before + share * updates, total)

            pairs = [(rate, start) for start in starts for rate in p["learning_rates"]]
            training = _trials.train(net, task, length, settings, seeds, pairs, held_out, done)
            before += share * settings["updates"]
            kept = _trials.arrays(training, _trials.wrong(net, training.params, task, test))
            found |= {f"{name} {who} {key}": value for key, value in kept.items()}
    return {key: np.asarray(value) for key, value in found.items()}


def chosen(result: Mapping[str, Array], task: str, who: str) -> int:
    """The setting that validation prefers; `who`: "GRU", or "LSTM" with the place of its forget bias, "LSTM 0" or "LSTM 1"."""
    rates = len(result["learning rates"])
    cell, _, place = who.partition(" ")
    first = rates * int(place or 0)
    return _trials.chosen(result[f"{task} {cell} validation"], range(first, first + rates))


def right(result: Mapping[str, Array], task: str, who: str) -> Array:
    """Shares of fresh sequences got right at the chosen rate, (seed,)."""
    return np.asarray(1.0 - result[f"{task} {who.partition(' ')[0]} test"][chosen(result, task, who)])


def gaps(result: Mapping[str, Array]) -> dict[tuple[str, int], _parts.Difference]:
    """GRU less LSTM, by task and place of the forget bias."""
    return {
        (task, k): _parts.difference(right(result, task, "GRU"), right(result, task, f"LSTM {k}"))
        for task in TASKS
        for k in range(len(FORGET_BIASES))
    }


def check(result: Mapping[str, Array]) -> Verdict:
    from analyses import _gru_verdict  # late: it reads the constants above

    parts, numbers = _gru_verdict.parts(result)
    lstm, gru = result["published counts"].T
    truths = (
        GroundTruth("LSTM, m = 2, n = 100, one bias", float(lstm[0]), 41200.0, 0.0, "4(nm + n^2 + n)"),
        GroundTruth("GRU, m = 2, n = 100, one bias", float(gru[0]), 30900.0, 0.0, "3(nm + n^2 + n)"),
        GroundTruth("GRU, m = 2, n = 100, two biases", float(gru[1]), 31200.0, 0.0, "3(nm + n^2 + 2n)"),
        GroundTruth("LSTM, m = 2, n = 100, two biases", float(lstm[1]), 41600.0, 0.0, "4(nm + n^2 + 2n)"),
        GroundTruth("1 + |i + f - 1| of the linked LSTM", 1.0 + float(result["linked LSTM gap"]), 1.0, 1e-15, "i = 1 - f"),
        *(
            GroundTruth(
                f"1 + residual of the new memory, {name}", 1.0 + float(result[f"{name} residual"]), 1.0, 1e-13, "its equation"
            )
            for name in ("LSTM", "linked LSTM", "GRU")
        ),
    )
    return Verdict(_parts.whole(parts), "; ".join(part.told for part in parts), numbers | _parts.words(parts), truths)


def draw(result: Mapping[str, Array]) -> Any:
    from analyses import _gru_figure  # late: it imports matplotlib

    return _gru_figure.draw(result)
