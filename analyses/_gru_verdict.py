"""What the arrays of `gru` say about each of its claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from analyses import gru
from analyses._parts import Part

Array = npt.NDArray[Any]
Numbers = dict[str, float | int | str]
LINKED = 1e-12
"""Weights of the old memory and of the candidate that add up to 1 within this are linked."""


def kind(result: Mapping[str, Array]) -> tuple[Part, Numbers]:
    linked = max(float(result["GRU gap"]), float(result["GRU residual"])) < LINKED
    same = int(result["GRU rank"]) == int(result["linked LSTM rank"])
    word = "contradicted" if not linked else "confirmed" if same else "depends"
    H = int(result["hidden size"])
    told = (
        f"a GRU has {int(result['GRU gates'])} gates to the LSTM's {int(result['LSTM gates'])} and "
        f"{'' if linked else 'no '}weights of old and new that add up to 1, but a state of {int(result['GRU rank']) / H:g} H "
        f"where an LSTM with linked gates has {int(result['linked LSTM rank']) / H:g} H, a reset gate and no output gate"
    )
    numbers: Numbers = {
        "LSTM: largest |i + f - 1|": float(result["LSTM gap"]),
        "linked LSTM: largest |i + f - 1|": float(result["linked LSTM gap"]),
        "GRU: largest residual of z h + (1 - z) n": float(result["GRU residual"]),
        **{f"{name}: rank of J_t": int(result[f"{name} rank"]) for name in ("LSTM", "linked LSTM", "GRU")},
    }
    return Part("a GRU is an LSTM with linked input and forget gates", word, told), numbers


def saving(result: Mapping[str, Array]) -> tuple[Part, Numbers]:
    """Exact: integers, at every size and under every convention."""
    lstm, own = np.moveaxis(result["counts"], -1, 0)
    third, quarter = 3 * (lstm - own) == lstm, 4 * (lstm - own) == lstm
    share = 1.0 - own / lstm
    numbers: Numbers = {}
    for k, name in enumerate(gru.CONVENTIONS):
        numbers |= {
            f"{name}: saving, least": float(share[k].min()),
            f"{name}: saving, largest": float(share[k].max()),
            f"{name}: a quarter exactly at every size": str(bool(quarter[k].all())),
        }
    word = "confirmed" if third.all() else "depends" if third.any() else "contradicted"
    exact = int(quarter.reshape(len(quarter), -1).all(axis=1).sum())
    told = (
        f"the saving is a quarter exactly under {exact} of {len(quarter)} conventions for the biases, "
        f"{share.min():.1%} to {share.max():.1%} over all sizes, a third in {int(third.sum())} of {third.size} counts"
    )
    return Part("a GRU saves a third of the parameters", word, told), numbers


def doing(result: Mapping[str, Array]) -> tuple[Part, Numbers]:
    found = gru.gaps(result)
    readings = {pair: gap.reading for pair, gap in found.items()}
    clear = set(readings.values()) - {"undecided"}
    if clear == {"level"}:
        word = "confirmed" if "undecided" not in readings.values() else "inconclusive"
    elif len(clear) > 1:
        word = "depends"
    elif not clear or "undecided" in readings.values():
        word = "inconclusive"
    else:
        word = "contradicted"
    numbers: Numbers = {"runs stopped by numbers not finite": 0}
    told = []
    for task in gru.TASKS:
        for who in ("GRU", *(f"LSTM {k}" for k in range(len(gru.FORGET_BIASES)))):
            cell, _, place = who.partition(" ")
            name = f"{task}, {cell}" + (f", b_f = {gru.FORGET_BIASES[int(place)]:g}" if place else "")
            own, setting = gru.right(result, task, who), gru.chosen(result, task, who)
            size, count = result[f"{task} sizes"][int(cell == "GRU")]
            numbers |= {
                f"{name}: hidden size": int(size),
                f"{name}: parameters": int(count),
                f"{name}: right, median of seeds": float(np.median(own)),
                f"{name}: right, worst seed": float(own.min()),
                f"{name}: seeds with less than 5 % wrong": int((own > 0.95).sum()),
                f"{name}: chosen learning rate": float(result["learning rates"][setting % len(result["learning rates"])]),
            }
        for k, bias in enumerate(gru.FORGET_BIASES):
            gap = found[task, k]
            numbers |= {
                f"{task}: GRU less LSTM, b_f = {bias:g}, median": gap.median,
                f"{task}: GRU less LSTM, b_f = {bias:g}, 95 % low": gap.low,
                f"{task}: GRU less LSTM, b_f = {bias:g}, 95 % high": gap.high,
                f"{task}: reading, b_f = {bias:g}": readings[task, k],
            }
            numbers |= {
                f"{task}: seeds in which the GRU is better by more than 5 points, b_f = {bias:g}": gap.above,
                f"{task}: seeds in which it is worse by as much, b_f = {bias:g}": gap.below,
                f"{task}: p of a sign test, b_f = {bias:g}": gap.p,
            }
            points = f"{100 * gap.median:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f}, {readings[task, k]})"
            told.append(f"{task}, b_f = {bias:g}: {points}")
        numbers["runs stopped by numbers not finite"] = int(numbers["runs stopped by numbers not finite"]) + sum(
            int(result[f"{task} {cell} not finite"]) for cell in ("LSTM", "GRU")
        )
    decides = ": the task and the forget bias decide" if word == "depends" else ""
    return Part(
        "a GRU does about as well", word, f"points right, GRU less LSTM at equal numbers: {', '.join(told)}{decides}"
    ), numbers


def parts(result: Mapping[str, Array]) -> tuple[list[Part], dict[str, Any]]:
    found = [kind(result), saving(result), doing(result)]
    return [part for part, _ in found], {name: value for _, some in found for name, value in some.items()}
