"""What the arrays of `forget_gate` say about each of its claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from analyses import _parts, forget_gate
from analyses._parts import Part

Array = npt.NDArray[Any]
Numbers = dict[str, float | int | str]


def keeping(result: Mapping[str, Array]) -> Part:
    opened, closed = (float(value) for value in result["keeps"])
    if opened == 1.0 and closed == 0.0:
        word = "confirmed"
    elif opened == 0.0 and closed == 1.0:
        word = "contradicted"
    else:
        word = "inconclusive"
    return Part("an open forget gate keeps", word, f"dc_t/dc_t-1 is {opened:g} with the gate open and {closed:g} with it closed")


def vanishing(result: Mapping[str, Array]) -> tuple[Part, Numbers]:
    """At which biases the gradient along c survives all steps of nets as they start."""
    biases, flow = result["biases"], result["flow"]
    end = np.median(flow[-1], axis=-1)
    kept = end > forget_gate.VANISHED
    word = "confirmed" if kept.all() else "depends" if kept.any() else "contradicted"
    tau, expected = np.median(1.0 / result["rate"], axis=(-2, -1)), forget_gate.predicted(biases)
    numbers: Numbers = {
        "largest deviation of a median time constant from -1/ln sigmoid(b_f)": float(np.abs(tau / expected - 1).max())
    }
    for k, bias in enumerate(biases):
        numbers |= {
            f"b_f = {bias:g}: time constant, steps, median": float(tau[k]),
            f"b_f = {bias:g}: -1/ln sigmoid(b_f)": float(expected[k]),
            f"b_f = {bias:g}: horizon, steps, median": _told(float(np.median(result["horizon"][k])), len(flow)),
            f"b_f = {bias:g}: ln of the gradient along c after {len(flow) - 1} steps": float(end[k]),
        }
    first = f"{biases[np.argmax(kept)]:g}" if kept.any() else "none"
    zero = int(np.argmin(np.abs(biases)))
    told = (
        f"along c the gradient falls by {-float(end[zero]) / (len(flow) - 1):.2f} nats a step at b_f = {biases[zero]:g} "
        f"(ln 2 = 0.69) and outlasts {len(flow)} steps from b_f = {first} on"
    )
    return Part("an LSTM cures vanishing gradients", word, told), numbers


def _told(horizon: float, steps: int) -> float | str:
    return horizon if np.isfinite(horizon) else f"beyond {steps}"


def exploding(result: Mapping[str, Array]) -> tuple[Part, Numbers]:
    steps = int(result["grown steps"])
    grown = (result["growth"] * steps > -forget_gate.VANISHED).mean(axis=-1)  # (gain, bias)
    numbers: Numbers = {
        f"share of nets that explode, b_f = {bias:g}, gain {gain:g}": float(grown[j, k])
        for k, bias in enumerate(result["grown biases"])
        for j, gain in enumerate(result["gains"])
    }
    word = "confirmed" if grown.any() else "contradicted"
    told = f"at gain {result['gains'][-1]:g} {grown[-1].min():.0%} to {grown[-1].max():.0%} of nets still explode"
    return Part("an LSTM does not cure exploding gradients", word, told), numbers


def learning(result: Mapping[str, Array]) -> tuple[Part, Numbers]:
    biases, right = result["learnt biases"], forget_gate.accuracy(result)
    settings, rates = forget_gate.chosen(result), result["learning rates"]
    other = forget_gate.spanning(biases, int(result["length"]))
    gap = _parts.difference(right[other], right[int(np.argmin(np.abs(biases)))])
    reading = gap.reading
    word = {"higher": "confirmed", "lower": "contradicted", "level": "contradicted", "undecided": "inconclusive"}[reading]
    numbers: Numbers = {
        "seeds": right.shape[1],
        "right by chance": 0.25,
        "runs stopped by numbers not finite": int(result["not finite"]),
    }
    for k, bias in enumerate(biases):
        numbers |= {
            f"b_f = {bias:g}: right, median of seeds": float(np.median(right[k])),
            f"b_f = {bias:g}: right, worst seed": float(right[k].min()),
            f"b_f = {bias:g}: seeds with less than 1 % wrong": int((right[k] > 0.99).sum()),
            f"b_f = {bias:g}: chosen learning rate": float(rates[settings[k] % len(rates)]),
        }
    numbers |= {
        f"right at b_f = {biases[other]:g} less at 0, median": gap.median,
        "95 % interval, low": gap.low,
        "95 % interval, high": gap.high,
        "p of a sign test": gap.p,
    }
    told = (
        f"at T = {int(result['length'])} after {int(result['budget'])} updates {np.median(right[0]):.0%} of sequences are right "
        f"at b_f = {biases[0]:g} and {np.median(right[other]):.0%} at {biases[other]:g} "
        f"(difference {gap.low:+.0%} to {gap.high:+.0%}; a guess has 25 %)"
    )
    return Part("a gate that starts open learns lags that one at 0 does not", word, told), numbers


def opening(result: Mapping[str, Array]) -> tuple[Part, Numbers]:
    """Whether nets that solve the task have gates that are mostly open."""
    biases, settings = result["learnt biases"], forget_gate.chosen(result)
    solved = forget_gate.accuracy(result) > 0.99
    before, after = result["gates before"][:, settings], result["gates after"][:, settings]  # (3, bias, seed)
    numbers: Numbers = {}
    mostly = []
    for k, bias in enumerate(biases):
        numbers[f"b_f = {bias:g}: mean forget gate before training"] = float(np.median(before[0, k]))
        if not solved[k].any():
            continue
        share, longest = (float(np.median(after[j, k][solved[k]])) for j in (1, 2))
        mostly.append(share > 0.5)
        numbers |= {
            f"b_f = {bias:g}: mean forget gate of nets that solve it": float(np.median(after[0, k][solved[k]])),
            f"b_f = {bias:g}: share of gates above {forget_gate.OPEN:g} in them": share,
            f"b_f = {bias:g}: longest time constant of a unit in them, steps": longest,
        }
    word = "inconclusive" if not mostly else "confirmed" if all(mostly) else "depends" if any(mostly) else "contradicted"
    told = f"gates are above {forget_gate.OPEN:g} most of the time in solving nets of {sum(mostly)} of {len(mostly)} biases"
    return Part("the forget gate is mostly open", word, told), numbers


def parts(result: Mapping[str, Array]) -> tuple[list[Part], Numbers]:
    found = [vanishing(result), exploding(result), learning(result), opening(result)]
    numbers = {name: value for _, some in found for name, value in some.items()}
    return [keeping(result), *(part for part, _ in found)], numbers
