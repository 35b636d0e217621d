"""What the arrays of `peepholes` say about each part of its claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from analyses import peepholes
from analyses._parts import Part

Array = npt.NDArray[Any]
Numbers = dict[str, float | int | str]


def blocks(result: Mapping[str, Array]) -> dict[str, Array]:
    """Sizes of the derivatives of the gates (4, H, H) with respect to c_{t-1} and to h_{t-1}, with peepholes and without."""
    H = result["with"].shape[1]
    return {
        f"{name} {part}": np.abs(result[name][..., columns])
        for name in ("with", "plain")
        for part, columns in (("c", slice(None, H)), ("h", slice(H, None)))
    }


def naming(result: Mapping[str, Array]) -> tuple[Part, Numbers]:
    found = blocks(result)
    H = result["with"].shape[1]
    off = found["with c"] * (1.0 - np.eye(H))
    o, seen_before = result["with"][3, :, :H], result["expected of an o that sees the cell before"]
    counts = {name: int((value != 0.0).sum()) for name, value in found.items()}
    numbers: Numbers = {
        "derivatives of gates by h, without peepholes, not 0": counts["plain h"],
        "derivatives of gates by h, with peepholes, not 0": counts["with h"],
        "derivatives of gates by c, without peepholes, not 0": counts["plain c"],
        "derivatives of gates by c, with peepholes, not 0": counts["with c"],
        "largest of them off the diagonal": float(off.max()),
        "relative error if o saw c_t-1, median": float(np.median(np.abs(np.diagonal(o) / seen_before - 1.0))),
    }
    of = found["plain h"].size
    if counts["plain h"] == 0 and counts["with h"] > 0 and counts["with c"] > 0:
        word = "confirmed"
    elif counts["plain h"] > 0 and counts["plain c"] == 0 and counts["with c"] > 0:
        word = "contradicted"
    else:
        word = "depends"
    told = (
        f"of {of} derivatives of gates by h {counts['plain h']} are not 0 without peepholes and {counts['with h']} with them, "
        f"of {of} by c {counts['plain c']} and {counts['with c']}, {'all' if off.max() == 0.0 else 'not all'} on diagonals"
    )
    return Part("the connections from h and c to the gates are called peepholes", word, told), numbers


def timing(result: Mapping[str, Array]) -> tuple[Part, Numbers]:
    own = {name: peepholes.right(result, name) for name in peepholes.NETS}
    gaps = peepholes.gaps(result)
    best, *by_rate = (gap.reading for gap in gaps.values())
    if {"higher", "lower"} <= set(by_rate):
        word = "depends"
    else:
        word = {"higher": "confirmed", "undecided": "inconclusive"}.get(best, "contradicted")
    numbers: Numbers = {
        "seeds": len(own["peepholes"]),
        "loss of an answer that knows the step alone, nats": float(result["chance"][0]),
        "loss of an answer that sees the spikes and forgets the interval, nats": float(result["chance"][1]),
    }
    for name in peepholes.NETS:
        size, count = result[f"{name} size"]
        numbers |= {
            f"{name}: hidden size": int(size),
            f"{name}: parameters": int(count),
            f"{name}: trains right, median of seeds": float(np.median(own[name])),
            f"{name}: trains right, worst seed": float(own[name].min()),
            f"{name}: seeds with less than 10 % wrong": int((own[name] > 0.9).sum()),
            f"{name}: chosen learning rate": float(result["learning rates"][peepholes.chosen(result, name)]),
            f"{name}: runs stopped by numbers not finite": int(result[f"{name} not finite"]),
        }
        for k, rate in enumerate(result["learning rates"]):
            numbers[f"{name}: trains right at rate {rate:g}, median"] = float(np.median(1.0 - result[f"{name} test"][k]))
    for name, gap in gaps.items():
        numbers |= {
            f"peepholes less without, {name}: median": gap.median,
            f"peepholes less without, {name}: 95 % low": gap.low,
            f"peepholes less without, {name}: 95 % high": gap.high,
            f"peepholes less without, {name}: p of a sign test": gap.p,
            f"peepholes less without, {name}: reading": gap.reading,
        }
    intervals = result["intervals"]
    with_them, without = (f"{np.median(own[name]):.0%} of {result[f'{name} size'][1]} parameters" for name in peepholes.NETS)
    apart = ", ".join(f"{name} {100 * gap.median:+.0f} ({gap.reading})" for name, gap in gaps.items())
    told = (
        f"trains with intervals of {intervals[0]} to {intervals[-1]} steps announced to the step after {int(result['budget'])} "
        f"updates, medians: with peepholes {with_them}, without {without}; points that peepholes add: {apart}"
        f"{': the learning rate decides' if word == 'depends' else ''}"
    )
    return Part("peepholes let an LSTM learn to time spikes", word, told), numbers


def parts(result: Mapping[str, Array]) -> tuple[list[Part], Numbers]:
    (first, some), (second, more) = naming(result), timing(result)
    return [first, second], some | more
