"""How long one instrumented training step takes, as a ratio to torch's plain one.

Claim: with its instruments on (all states and total adjoints recorded) gradlab's forward and backward pass in float64 takes
no longer than torch's plain forward and backward pass. float32, where torch has a fused LSTM, is shown beside it.
Measured in one process, in turn, medians of paired ratios: each side runs a few times in a row after a pause, so that
neither is timed against the other's waiting threads.

It would be contradicted by a median ratio above 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab.runs import Verdict

Array = npt.NDArray[Any]

CLAIM = "An instrumented float64 training step (T = 100, B = 32, D = 64, H = 128) takes no longer than torch's plain one"
SOURCE = "this project"
CONTRADICTED_IF = "the median of the paired ratios is above 1 for the LSTM or the Elman net in float64"
NEEDS = ("torch",)
ALONE = True
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {"T": 100, "B": 32, "D": 64, "H": 128, "pairs": 25, "runs_in_a_row": 5, "pause_seconds": 0.1},
    "quick": {"T": 100, "B": 32, "D": 64, "H": 128, "pairs": 5, "runs_in_a_row": 3, "pause_seconds": 0.1},
}
ROWS = ("LSTM float64", "Elman float64", "LSTM float32", "Elman float32")
CLAIMED = ROWS[:2]


def pairs_of(name: str, rng: np.random.Generator, p: Mapping[str, Any]) -> tuple[Callable[[], object], Callable[[], object]]:
    """The same training step twice: gradlab's, instrumented, and torch's."""
    import torch

    T, B, D, H = p["T"], p["B"], p["D"], p["H"]
    kind, dtype = name.split()
    x, target = (rng.normal(size=(T, B, n)).astype(dtype) for n in (D, H))
    cell, module = (gradlab.LSTM(), torch.nn.LSTM(D, H)) if kind == "LSTM" else (gradlab.Elman("tanh"), torch.nn.RNN(D, H))
    module = module.to(getattr(torch, dtype))
    net = gradlab.Network(cell, D, H)
    params = {
        "0.W": module.weight_ih_l0.detach().numpy(),
        "0.U": module.weight_hh_l0.detach().numpy(),
        "0.b": (module.bias_ih_l0 + module.bias_hh_l0).detach().numpy(),
    }
    batch, workspace = gradlab.Batch(x, target), gradlab.Workspace()
    x_t, target_t = torch.from_numpy(x), torch.from_numpy(target)

    def ours() -> gradlab.Record:
        return gradlab.bptt(net, params, batch, gradlab.mean_squared_error, ("states", "adjoints"), workspace=workspace)

    def theirs() -> object:
        module.zero_grad()
        y, _ = module(x_t)
        torch.nn.functional.mse_loss(y, target_t).backward()
        return module.weight_hh_l0.grad

    gap = np.abs(ours().gradients["0.U"] - np.asarray(theirs())).max()
    if not gap <= (1e-12 if dtype == "float64" else 1e-4) * np.abs(np.asarray(theirs())).max():
        raise gradlab.errors.NumericalError(f"{name}: the two gradients differ by {gap:.1e}; a ratio of times would mean nothing")
    return ours, theirs


def timed(f: Callable[[], object], p: Mapping[str, Any]) -> float:
    """Seconds of one run: the median of a few in a row, after a pause and one run that is not counted."""
    time.sleep(p["pause_seconds"])
    f()
    seconds = []
    for _ in range(p["runs_in_a_row"]):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    import torch

    p = PARAMETERS[scale]
    result: dict[str, Array] = {
        "torch_version": np.frombuffer(torch.__version__.encode(), np.uint8),
        "torch_threads": np.array(torch.get_num_threads()),
    }
    for k, name in enumerate(ROWS):
        ours, theirs = pairs_of(name, rng, p)
        times = np.empty((p["pairs"], 2))
        for pair in range(p["pairs"]):
            times[pair] = timed(ours, p), timed(theirs, p)
            if progress is not None:
                progress(k * p["pairs"] + pair + 1, len(ROWS) * p["pairs"])
        result[f"{name}_seconds"] = times
    return result


def ratios(result: Mapping[str, Array], name: str) -> Array:
    return result[f"{name}_seconds"][:, 0] / result[f"{name}_seconds"][:, 1]


def check(result: Mapping[str, Array]) -> Verdict:
    medians = {name: float(np.median(ratios(result, name))) for name in ROWS}
    numbers: dict[str, float | int | str] = {
        "torch": bytes(result["torch_version"]).decode(),
        "torch threads": int(result["torch_threads"]),
    }
    for name in ROWS:
        low, high = np.quantile(ratios(result, name), [0.25, 0.75])
        numbers |= {
            f"{name}: median ratio gradlab / torch": medians[name],
            f"{name}: lower quartile": float(low),
            f"{name}: upper quartile": float(high),
            f"{name}: gradlab, ms": float(1e3 * np.median(result[f"{name}_seconds"][:, 0])),
            f"{name}: torch, ms": float(1e3 * np.median(result[f"{name}_seconds"][:, 1])),
        }
    within = [medians[name] <= 1.0 for name in CLAIMED]
    word = "confirmed" if all(within) else "depends" if any(within) else "contradicted"
    text = ", ".join(f"{name} {m:.2f}" for name, m in medians.items())
    return Verdict(word, f"gradlab instrumented / torch plain, median of paired ratios: {text}", numbers)


def draw(result: Mapping[str, Array]) -> Any:
    from gradlab import plotting

    figure = plotting.new_figure(plotting.COLUMN, 2.2)
    ax = figure.subplots()
    for place, name in enumerate(ROWS):
        values = ratios(result, name)
        colour = plotting.COLOURS["vermilion"] if name in CLAIMED else plotting.COLOURS["blue"]
        ax.plot(values, np.full(len(values), place), "|", color=plotting.COLOURS["grey"], markersize=7)
        ax.plot(np.median(values), place, "D", color=colour, markersize=5)
        at, text = (np.median(values), place), f"{np.median(values):.2f}"
        ax.annotate(text, at, xytext=(-8, 6), textcoords="offset points", ha="right", fontsize=7)
    ax.axvline(1.0, color="black", linewidth=0.8, zorder=0)
    ax.annotate("torch", (1.0, -0.45), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center")
    ax.set_yticks(range(len(ROWS)), ROWS)
    ax.set_ylim(len(ROWS) - 0.5, -0.7)
    ax.set_xlim(left=0.0)
    ax.set_xlabel("time / time of torch, one training step")
    return figure
