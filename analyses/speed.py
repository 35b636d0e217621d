"""How long gradlab takes, as ratios to torch and JAX doing the same on the same machine in the same process.

Claim: with its instruments on (all states and total adjoints recorded) gradlab's forward and backward pass in float64 takes
no longer than torch's plain forward and backward pass. float32, where torch has a fused LSTM, is shown beside it.
Measured in one process, in turn, medians of paired ratios: each side runs a few times in a row after a pause, so that
neither is timed against the other's waiting threads. Every row compares the results of both sides before it is timed.

Beside it, without part in the verdict, each with the ratio it was meant to reach:
- analyses of an LSTM against torch and JAX (compiled, in double precision): all Jacobians against vmap(jacrev) and
  vmap(jacfwd), the Lyapunov exponents against vmap(jvp) and QR, a 25 x 25 loss surface against a loop and vmap, and one
  Hessian-vector product against double backward;
- 32 Elman nets trained as one ensemble against a torch loop over modules and JAX's vmap of grad; and what a monitor with its
  defaults adds to a training step;
- what a gradient check costs. One example is an LSTM with 72 parameters: the contribution of every step and row to every
  gradient, and the dot products by block, with their pre-flights. torch's `gradcheck` of an LSTM of that size compares the
  72 sums. A property is a hypothesis test over 100 random LSTMs.
Where JAX is not installed its numbers are left out, and the verdict says so.

It would be contradicted by a median ratio above 1.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from analyses import _speed_analysis, _speed_ensembles, _speed_training
from analyses._speed_checks import CHECK, MEANT, PROPERTY, property_of
from analyses._speed_checks import ROW as CHECKS
from analyses._speed_figure import figure_of
from analyses._speed_rows import Array, Row, digits, installed, jax_in_double, measure
from gradlab.runs import Verdict

CLAIM = "An instrumented float64 training step (T = 100, B = 32, D = 64, H = 128) takes no longer than torch's plain one"
SOURCE = "this project"
CONTRADICTED_IF = "the median of the paired ratios is above 1 for the LSTM or the Elman net in float64"
NEEDS = ("torch",)
ALONE = True
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        **{"T": 100, "B": 32, "D": 64, "H": 128, "pairs": 25, "runs_in_a_row": 5, "seconds_in_a_row": 0.5, "pause_seconds": 0.1},
        **{"threads": 2, "analysis_pairs": 9},
        "jacobians": {"T": 100, "B": 4, "D": 8, "H": 128},
        "surface": {"T": 50, "B": 16, "D": 8, "H": 32, "points": 25},
        "lyapunov": {"T": 300, "D": 8, "H": 128, "k": 10},
        "hessian": {"T": 100, "B": 32, "D": 64, "H": 128},
        "ensembles": {"members": 32, "T": 100, "B": 16, "D": 2, "H": 32, "threads": 2},
        "monitored_updates": 20,
        **{"check_pairs": 10, "property_runs": 3, "property_examples": 100},
    },
    "quick": {
        **{"T": 100, "B": 32, "D": 64, "H": 128, "pairs": 3, "runs_in_a_row": 3, "seconds_in_a_row": 0.2, "pause_seconds": 0.1},
        **{"threads": 2, "analysis_pairs": 1},
        "jacobians": {"T": 25, "B": 4, "D": 8, "H": 128},
        "surface": {"T": 50, "B": 16, "D": 8, "H": 32, "points": 9},
        "lyapunov": {"T": 100, "D": 8, "H": 128, "k": 10},
        "hessian": {"T": 50, "B": 32, "D": 64, "H": 128},
        "ensembles": {"members": 32, "T": 100, "B": 16, "D": 2, "H": 32, "threads": 2},
        "monitored_updates": 4,
        **{"check_pairs": 3, "property_runs": 1, "property_examples": 100},
    },
}
TRAINING: tuple[Row, ...] = _speed_training.ROWS
ANALYSIS: tuple[Row, ...] = (*_speed_analysis.ROWS, _speed_ensembles.ROW)
"""Rows of the second panel."""
MONITORS: tuple[Row, ...] = _speed_ensembles.MONITORS
ROWS = (*TRAINING, *ANALYSIS, CHECKS)
PEERS = ("torch", "jax")


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    import torch

    p = PARAMETERS[scale]
    result: dict[str, Array] = {"torch_threads": np.array(torch.get_num_threads())}
    for peer in PEERS:
        version = importlib.metadata.version(peer) if installed(peer) else ""
        result[f"{peer}_version"] = np.frombuffer(version.encode(), np.uint8)
    rounds = [(row, p["pairs"]) for row in TRAINING] + [(row, p["analysis_pairs"]) for row in (*ANALYSIS, *MONITORS)]
    rounds += [(CHECKS, p["check_pairs"])]
    done, total = 0, sum(pairs for _, pairs in rounds)

    def told() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    with jax_in_double():
        for row, pairs in rounds:
            result[row.key] = measure(row, rng, p, pairs, told)
    gradients, seconds = property_of(p["property_examples"]), []
    for _ in range(p["property_runs"] if gradients is not None else 0):
        start = time.perf_counter()
        gradients()
        seconds.append(time.perf_counter() - start)
    result["property_seconds"] = np.array(seconds)
    return result


def check(result: Mapping[str, Array]) -> Verdict:
    numbers: dict[str, float | int | str] = {}
    for peer in PEERS:
        if version := _version(result, peer):
            numbers[peer] = version
    numbers["torch threads"] = int(result["torch_threads"])
    for row in _told(result, ROWS):
        numbers |= dict(_numbers(result, row))
    claimed = [row.met(result, "torch") for row in TRAINING if row.claimed]
    word = "confirmed" if all(claimed) else "depends" if any(claimed) else "contradicted"
    text = ", ".join(f"{row.name} {_median(result, row, 'torch'):.2f}" for row in TRAINING)
    sentence = f"gradlab instrumented / torch plain, median of paired ratios: {text}"
    if analyses := _told(result, ANALYSIS):
        sentence += "; times as fast as others: " + ", ".join(_compared(result, row) for row in analyses)
        if not _version(result, "jax"):
            sentence += " (JAX is not installed, its times are left out)"
    if monitors := _told(result, MONITORS):
        shares = {row.name: _median(result, row, "without") - 1.0 for row in monitors}
        numbers |= {f"{name}: share of a training step": share for name, share in shares.items()}
        numbers["monitor: meant to take at most, share of a training step"] = _speed_ensembles.OVERHEAD
        sentence += f"; added by a {', '.join(f'{name} {share:.1%}' for name, share in shares.items())}"
        missed = not all(row.met(result, "without") for row in monitors)
        sentence += f" ({'MISSES' if missed else 'meant at most'} {_speed_ensembles.OVERHEAD:.0%})"
    if CHECKS.key in result:
        ours, theirs = 1e3 * np.median(result[CHECKS.key], axis=0)
        numbers[f"{CHECK}: meant to take, ms"] = MEANT[CHECK]
        sentence += f"; the {CHECK} takes {ours:.0f} ms{_meant(CHECK, ours)}, torch's gradcheck {theirs:.0f} ms"
    if len(result.get("property_seconds", ())):
        seconds = float(np.median(result["property_seconds"]))
        numbers |= {f"{PROPERTY}: s": seconds, f"{PROPERTY}: meant to take, s": 1e-3 * MEANT[PROPERTY]}
        sentence += f", a {PROPERTY} {seconds:.1f} s{_meant(PROPERTY, 1e3 * seconds)}"
    return Verdict(word, sentence, numbers)


def draw(result: Mapping[str, Array]) -> Any:
    return figure_of(result, TRAINING, _told(result, ANALYSIS), CHECKS)


def _told(result: Mapping[str, Array], rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(row for row in rows if row.key in result)


def _version(result: Mapping[str, Array], peer: str) -> str:
    return bytes(result.get(f"{peer}_version", np.zeros(0, np.uint8))).decode()


def _median(result: Mapping[str, Array], row: Row, peer: str) -> float:
    return float(np.median(row.ratios(result, peer)))


def _numbers(result: Mapping[str, Array], row: Row) -> Iterator[tuple[str, float | str]]:
    """Times, ratios and targets of one row; nothing of a peer that was not there."""
    yield f"{row.name}: gradlab, ms", float(1e3 * np.median(result[row.key][:, 0]))
    for k, (peer, target) in enumerate(row.targets.items(), start=1):
        ratios = row.ratios(result, peer)
        if np.isnan(ratios).all():
            continue
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        name = f"{row.name}: {{}} gradlab / {peer}".format
        yield f"{row.name}: {peer}, ms", float(1e3 * np.median(result[row.key][:, k]))
        yield name("median ratio"), float(middle)
        yield name("lower quartile of the ratio"), float(low)
        yield name("upper quartile of the ratio"), float(high)
        if target is not None:
            yield f"{row.name}: times as fast as {peer}", float(1.0 / middle)
            yield f"{row.name}: meant to be as fast as {peer}, times", target
            yield f"{row.name}: {peer} target", "met" if row.met(result, peer) else "missed"


def _meant(check: str, milliseconds: float) -> str:
    limit = f"{MEANT[check]:g} ms" if MEANT[check] < 1000.0 else f"{1e-3 * MEANT[check]:g} s"
    return f" (meant {limit})" if milliseconds <= MEANT[check] else f" (MISSES {limit})"


def _compared(result: Mapping[str, Array], row: Row) -> str:
    """All Jacobians 31 (meant 25) torch, 6.9 (meant 5) jax."""
    parts = []
    for peer, target in row.targets.items():
        fold = 1.0 / _median(result, row, peer)
        if np.isnan(fold):
            continue
        meant = "" if target is None else f" (meant {target:g})" if row.met(result, peer) else f" (MISSES {target:g})"
        parts.append(f"{digits(fold)} {peer}{meant}")
    return f"{row.name} {' and '.join(parts)}"
