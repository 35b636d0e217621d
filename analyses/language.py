"""Two tasks on real text: the next character, and the syntactic class of each character of Python source.

Claim: a recurrent net uses what stands before the last character, so that it predicts the next one better than any table of
character pairs; and it uses what follows as well if it runs in both directions, so that two directions label syntax better than
one with as many parameters. Source: H.-Y. Lee's lecture; Schuster & Paliwal (1997). The opponent of the first half is the
bigram of the same split with the smoothing that suits the HELD-OUT text best, which no honest bigram could know; that
of the second half the commonest class, and, harder, the commonest class of the character itself.

Nothing is chosen on the held-out text: settings are fixed, the last parameters count, curves on it are only shown. It is cut
into windows that are read from a zero state, so the nets see less than they could. Single precision.

It would be contradicted by nets that lose to the bigram or to the majority, or by one direction that beats two, in every seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from analyses import _members, _text_measures
from gradlab.runs import GroundTruth, Verdict
from gradlab.tasks import characters, python_syntax

Array = npt.NDArray[Any]

CLAIM = (
    "On real text an LSTM predicts characters better than every bigram, and labels Python's syntax better in two directions "
    "than in one, both above the majority class"
)
SOURCE = "H.-Y. Lee's lecture; Schuster & Paliwal (1997), Bidirectional recurrent neural networks"
CONTRADICTED_IF = (
    "in every seed the LSTM loses to the bigram, two directions label fewer characters right than one, "
    "or a net loses to the majority"
)
NEEDS: tuple[str, ...] = ()
ALONE = False
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        "characters": {"hidden_size": 64, "seeds": 3, "updates": 1200, "batch": 32, "length": 50, "learning_rate": 0.01},
        "syntax": {
            "hidden_size": {"one": 64, "two": 38},  # 41 927 and 41 883 parameters
            "seeds": 5,
            "updates": 500,
            "batch": 16,
            "length": 60,
            "learning_rate": 0.01,
        },
        "clip_norm": 1.0,
        "shown_every": 50,
        "shown_sequences": 32,
        "held_out_window": 200,
    },
    "quick": {
        "characters": {"hidden_size": 24, "seeds": 2, "updates": 60, "batch": 16, "length": 30, "learning_rate": 0.03},
        "syntax": {
            "hidden_size": {"one": 20, "two": 11},  # 9 587 and 9 771 parameters
            "seeds": 2,
            "updates": 40,
            "batch": 8,
            "length": 40,
            "learning_rate": 0.03,
        },
        "clip_norm": 1.0,
        "shown_every": 20,
        "shown_sequences": 8,
        "held_out_window": 100,
    },
}
DIRECTIONS = {"one": "one direction", "two": "two directions"}
WORK = {"characters": 1.0, "one": 0.7, "two": 0.8}  # how long each takes, roughly: for the progress bar alone
DTYPE = np.float32
SMOOTHINGS = np.geomspace(1e-3, 10.0, 81)


class Curve:
    """A recorder for `train` that measures the held-out windows now and then, and decides nothing."""

    def __init__(self, every: int, measure: Any) -> None:
        self.every, self.measure = every, measure
        self.updates: list[int] = []
        self.values: list[Array] = []

    def record(self, update: int, **measured: Any) -> None:
        if (update + 1) % self.every == 0:
            self.updates.append(update + 1)
            self.values.append(self.measure(measured["new_params"]))


def train(
    net: gradlab.Network, sample: Any, q: Mapping[str, Any], p: Mapping[str, Any], seeds: list[Any], shown: Any, done: Any
) -> tuple[dict[str, Array], Curve]:
    """All seeds as one ensemble, axes (1, seed), and the curve on the `shown` held-out text."""
    streams = [_members.stream(seed, 1) for seed in seeds]

    def batches(_: np.random.Generator) -> gradlab.Batch:
        return _members.side_by_side([sample(rng, q["batch"], q["length"]) for rng in streams], True, DTYPE)

    classes = int(net.output_size or 0)
    curve = Curve(p["shown_every"], lambda params: _text_measures.measured(net, params, *shown, classes)[0])
    training = gradlab.training.train(
        net,
        _members.initial(net, seeds, 1, DTYPE),
        batches,
        gradlab.softmax_cross_entropy,
        q["updates"],
        np.random.default_rng(0),  # not used: every seed has a stream of its own
        optimiser=gradlab.training.Adam(),
        learning_rate=q["learning_rate"],
        schedule=gradlab.training.schedules.cosine(q["updates"]),
        clip=gradlab.training.ByNorm(p["clip_norm"]),
        monitor=curve,
        progress=done,
    )
    return training.params, curve


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    text, source = characters.load(), python_syntax.load()
    window = p["held_out_window"]
    total, before = 1000, 0.0

    def reporter(before: float, share: float, updates: int) -> Any:
        def done(update: int, of: int) -> None:
            if progress is not None:
                progress(int(total * (before + share * update / updates) / sum(WORK.values())), total)

        return done

    q = p["characters"]
    held_out = _text_measures.tiled(text.validation[:-1], text.validation[1:], window)
    few = tuple(part[:, :: max(1, part.shape[1] // p["shown_sequences"])] for part in held_out)
    costs = np.array([_text_measures.bigram(text.training, *held_out, smoothing) for smoothing in SMOOTHINGS])
    net = _text_measures.character_net(q["hidden_size"])
    seeds = _members.seeds_of(rng, q["seeds"])
    params, curve = train(net, text.sample, q, p, seeds, few, reporter(before, WORK["characters"], q["updates"]))
    before += WORK["characters"]
    nats, _ = _text_measures.measured(net, params, *held_out, characters.OUTPUT_SIZE)
    result: dict[str, Array] = {
        "text_sha256": np.frombuffer(text.sha256.encode(), np.uint8),
        "source_sha256": np.frombuffer(source.sha256.encode(), np.uint8),
        "characters_updates": np.array(curve.updates),
        "characters_curve": np.stack(curve.values)[:, 0],  # (measurements, seed)
        "characters_nats": nats[0],
        "characters_parameters": np.array(_members.parameter_count(net)),
        "characters_baseline": np.array(text.baseline),
        "bigram_add_one": np.array(_text_measures.bigram(text.training, *held_out, 1.0)),
        "bigram_costs": costs,
        **_text_measures.identities(text.training),
    }
    q = p["syntax"]
    held_out = _text_measures.tiled(source.validation, source.validation_classes, window)
    few = tuple(part[:, :: max(1, part.shape[1] // p["shown_sequences"])] for part in held_out)
    seeds = _members.seeds_of(rng, q["seeds"])
    for direction in DIRECTIONS:
        net = _text_measures.syntax_net(direction, q["hidden_size"][direction])
        params, curve = train(net, source.sample, q, p, seeds, few, reporter(before, WORK[direction], q["updates"]))
        before += WORK[direction]
        nats, taken = _text_measures.measured(net, params, *held_out, python_syntax.OUTPUT_SIZE)
        result |= {
            f"{direction}_updates": np.array(curve.updates),
            f"{direction}_curve": np.stack(curve.values)[:, 0],
            f"{direction}_nats": nats[0],
            f"{direction}_taken": taken[0],  # (seed, true class, class taken)
            f"{direction}_parameters": np.array(_members.parameter_count(net)),
        }
    commonest = np.bincount(source.training_classes).argmax()
    result |= {
        "majority": np.array((held_out[1] == commonest).mean()),
        "memoryless_majority": np.array(source.memoryless_majority),
        "memoryless_nats": np.array(source.memoryless_baseline),
        "share_nats": np.array(source.baseline),
    }
    return result


def right(result: Mapping[str, Array], direction: str) -> Array:
    """The share of characters that each seed labels right."""
    taken = result[f"{direction}_taken"]
    return np.asarray(np.trace(taken, axis1=-2, axis2=-1) / taken.sum(axis=(-2, -1)))


def check(result: Mapping[str, Array]) -> Verdict:
    nats, pairs = result["characters_nats"], float(result["bigram_costs"].min())
    share = {direction: right(result, direction) for direction in DIRECTIONS}
    majority = float(result["majority"])
    parts = {
        "the bigram": nats < pairs,
        "one direction": share["two"] > share["one"],
        "the majority class": np.minimum(share["one"], share["two"]) > majority,
    }
    lost = {
        "the bigram": nats > pairs,
        "one direction": share["two"] < share["one"],
        "the majority class": np.minimum(share["one"], share["two"]) < majority,
    }
    if all(part.all() for part in parts.values()):
        word, reason = "confirmed", ""
    elif any(part.all() for part in lost.values()):
        word = "contradicted"
        reason = f"; in no seed beaten: {', '.join(name for name, part in lost.items() if part.all())}"
    else:
        word = "inconclusive"
        reason = f"; not beaten in every seed: {', '.join(name for name, part in parts.items() if not part.all())}"
    numbers: dict[str, float | int | str] = {
        "text SHA-256": bytes(result["text_sha256"]).decode(),
        "Python source SHA-256": bytes(result["source_sha256"]).decode(),
        "next character: cross-entropy of symbol shares, nats": float(result["characters_baseline"]),
        "next character: bigram with one added, nats": float(result["bigram_add_one"]),
        "next character: bigram with the best smoothing, nats": pairs,
        "next character: best smoothing": float(SMOOTHINGS[int(result["bigram_costs"].argmin())]),
        "next character: LSTM, median, nats": float(np.median(nats)),
        "next character: LSTM, worst seed, nats": float(nats.max()),
        "next character: LSTM, median, bits": float(np.median(nats) / np.log(2.0)),
        "next character: parameters": int(result["characters_parameters"]),
        "next character: seeds": len(nats),
        "syntax: majority class, share": majority,
        "syntax: commonest class of the character, share": float(result["memoryless_majority"]),
        "syntax: class shares, nats": float(result["share_nats"]),
        "syntax: class shares of the character, nats": float(result["memoryless_nats"]),
        "syntax: seeds": len(share["one"]),
        "syntax: seeds in which two directions label more right": int(parts["one direction"].sum()),
    }
    for direction, label in DIRECTIONS.items():
        taken = result[f"{direction}_taken"].sum(axis=0)
        numbers |= {
            f"syntax: {label}, parameters": int(result[f"{direction}_parameters"]),
            f"syntax: {label}, median share right": float(np.median(share[direction])),
            f"syntax: {label}, worst seed": float(share[direction].min()),
            f"syntax: {label}, best seed": float(share[direction].max()),
            f"syntax: {label}, median nats": float(np.median(result[f"{direction}_nats"])),
            **{
                f"syntax: {label}, share of {name} right": float(taken[k, k] / taken[k].sum())
                for k, name in enumerate(python_syntax.CLASSES)
            },
        }
    one, two = (100 * float(np.median(share[direction])) for direction in DIRECTIONS)
    counted = f"two ahead in {int(parts['one direction'].sum())} of {len(share['one'])} seeds"
    sentence = (
        f"next character: LSTM {np.median(nats):.3f} nats, worst seed {nats.max():.3f}, best-smoothed bigram {pairs:.3f}; "
        f"syntax: {two:.2f} % right in two directions, {one:.2f} % in one ({counted}), majority {100 * majority:.1f} %{reason}"
    )
    truths = (
        GroundTruth(
            "characters: loss of a net of zeros", float(result["zero_characters"]), float(np.log(97.0)), 1e-12, "exact: ln 97"
        ),
        GroundTruth("syntax: loss of a net of zeros", float(result["zero_syntax"]), float(np.log(7.0)), 1e-12, "exact: ln 7"),
        GroundTruth(
            "unsmoothed bigram on its own text",
            float(result["own_bigram"]),
            float(result["entropy_difference"]),
            1e-10,
            "exact: H(pair) - H(first), Shannon (1948)",
        ),
    )
    return Verdict(word, sentence, numbers, truths)


def draw(result: Mapping[str, Array]) -> Any:
    from analyses import _language_figure  # late: it imports matplotlib

    return _language_figure.draw(result)
