"""How long one instrumented training step takes, as a ratio to torch's plain one.

Claim: with its instruments on (all states and total adjoints recorded) gradlab's forward and backward pass in float64 takes
no longer than torch's plain forward and backward pass. float32, where torch has a fused LSTM, is shown beside it.
Measured in one process, in turn, medians of paired ratios: each side runs a few times in a row after a pause, so that
neither is timed against the other's waiting threads.

Beside it, in absolute times and without part in the verdict: what a gradient check costs. One example is an LSTM with 72
parameters: the contribution of every step and row to every gradient, and the dot products by block, with their pre-flights.
torch's `gradcheck` of an LSTM of that size compares the 72 sums. A property is a hypothesis test over 100 random LSTMs.

It would be contradicted by a median ratio above 1.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
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
    "full": {
        **{"T": 100, "B": 32, "D": 64, "H": 128, "pairs": 25, "runs_in_a_row": 5, "pause_seconds": 0.1},
        **{"check_pairs": 10, "property_runs": 3, "property_examples": 100},
    },
    "quick": {
        **{"T": 100, "B": 32, "D": 64, "H": 128, "pairs": 5, "runs_in_a_row": 3, "pause_seconds": 0.1},
        **{"check_pairs": 3, "property_runs": 1, "property_examples": 100},
    },
}
ROWS = ("LSTM float64", "Elman float64", "LSTM float32", "Elman float32")
CLAIMED = ROWS[:2]
CHECK = "check of an LSTM with 72 parameters"
PROPERTY = "property of 100 random LSTMs"
CHECKED = {"T": 6, "B": 2, "D": 2, "H": 3}
"""Sizes of the example that is checked: 72 parameters."""
TARGETS = {CHECK: 15.0, PROPERTY: 2000.0}
"""Milliseconds that the checks were meant to take."""


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


def checks() -> tuple[Callable[[], object], Callable[[], object]]:
    """The check of one example, everything anew each time, and torch's of an LSTM with the same parameters."""
    import torch

    example = gradlab.checks.random_example(gradlab.LSTM(), **CHECKED)
    module = torch.nn.LSTM(CHECKED["D"], CHECKED["H"]).double()
    x = torch.from_numpy(example.x)
    start = torch.from_numpy(example.initial["0"])
    c_0, h_0 = (part.contiguous()[None] for part in start.split(CHECKED["H"], dim=1))
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")
    given = tuple(torch.from_numpy(value.copy()).requires_grad_() for value in example.params.values())

    def outputs(*values: Any) -> Any:
        weights = {**dict(zip(names, values, strict=True)), "bias_hh_l0": torch.zeros_like(values[-1])}
        return torch.func.functional_call(module, weights, (x, (h_0, c_0)))[0]

    def ours() -> object:
        fresh = replace(example)  # without the record that an example keeps
        report = gradlab.checks.check_example(fresh)
        products = gradlab.checks.block_products(fresh, np.random.default_rng(0))
        return report.verdict == "PASS" and all(one.passed for one in products)

    def theirs() -> object:
        return torch.autograd.gradcheck(outputs, given)

    gap = np.abs(example.record.outputs - outputs(*given).detach().numpy()).max()
    if not (gap <= 1e-12 and ours() and theirs()):
        raise gradlab.errors.NumericalError(
            f"{CHECK}: outputs differ by {gap:.1e}, or a check does not pass; no time has a meaning"
        )
    return ours, theirs


def property_of(examples: int) -> Callable[[], object] | None:
    """A hypothesis test over random LSTMs of all kinds of weights, as a user would write it; None without hypothesis."""
    if importlib.util.find_spec("hypothesis") is None:
        return None
    from hypothesis import HealthCheck, Phase, given, settings

    drawn = gradlab.checks.strategies.examples(gradlab.LSTM(), layers=(1,))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],  # no shrinking: all examples pass, or the time has no meaning
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn)
    def gradients(example: Any) -> None:
        if gradlab.checks.check_example(example, replay=False).verdict == "FAIL":
            raise gradlab.errors.NumericalError(f"{PROPERTY}: a right gradient is rejected")

    return gradients


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
    ours, theirs = checks()
    result["check_seconds"] = np.array([(timed(ours, p), timed(theirs, p)) for _ in range(p["check_pairs"])])
    gradients, seconds = property_of(p["property_examples"]), []
    for _ in range(p["property_runs"] if gradients is not None else 0):
        start = time.perf_counter()
        gradients()
        seconds.append(time.perf_counter() - start)
    result["property_seconds"] = np.array(seconds)
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
    sentence = f"gradlab instrumented / torch plain, median of paired ratios: {text}"
    if "check_seconds" in result:
        ours, theirs = 1e3 * np.median(result["check_seconds"], axis=0)
        ratio = float(np.median(result["check_seconds"][:, 0] / result["check_seconds"][:, 1]))
        numbers |= {f"{CHECK}: gradlab, ms": float(ours), f"{CHECK}: torch gradcheck, ms": float(theirs)}
        numbers |= {f"{CHECK}: median ratio gradlab / torch": ratio, f"{CHECK}: meant to take, ms": TARGETS[CHECK]}
        sentence += f"; the {CHECK} takes {ours:.0f} ms, torch's gradcheck {theirs:.0f} ms"
    if len(result.get("property_seconds", ())):
        seconds = float(np.median(result["property_seconds"]))
        numbers |= {f"{PROPERTY}: s": seconds, f"{PROPERTY}: meant to take, s": 1e-3 * TARGETS[PROPERTY]}
        sentence += f", a {PROPERTY} {seconds:.1f} s"
    return Verdict(word, sentence, numbers)


def draw(result: Mapping[str, Array]) -> Any:
    from gradlab import plotting

    costs = {"one LSTM: gradlab": (CHECK, result["check_seconds"][:, 0])} if "check_seconds" in result else {}
    if costs:
        costs["one LSTM: torch gradcheck"] = ("", result["check_seconds"][:, 1])
    if len(result.get("property_seconds", ())):
        costs["100 LSTMs: gradlab"] = (PROPERTY, result["property_seconds"])
    figure = plotting.new_figure(plotting.COLUMN, 3.4 if costs else 2.2)
    axes = np.atleast_1d(figure.subplots(1 + bool(costs), 1, height_ratios=[1.0, 0.62][: 1 + bool(costs)]))
    ax = axes[0]
    widest = 1.6 * max(1.0, *(float(np.median(ratios(result, name))) for name in ROWS))
    for place, name in enumerate(ROWS):
        values = ratios(result, name)
        colour = plotting.COLOURS["vermilion"] if name in CLAIMED else plotting.COLOURS["blue"]
        ax.plot(values, np.full(len(values), place), "|", color=plotting.COLOURS["grey"], markersize=7)
        ax.plot(np.median(values), place, "D", color=colour, markersize=5)
        if beyond := int((values > widest).sum()):  # a pair during which the machine did something else
            ax.annotate(f"{beyond} beyond", (widest, place), xytext=(0, 4), textcoords="offset points", ha="right", fontsize=6)
        at, text = (np.median(values), place), f"{np.median(values):.2f}"
        ax.annotate(text, at, xytext=(-8, 6), textcoords="offset points", ha="right", fontsize=7)
    ax.axvline(1.0, color="black", linewidth=0.8, zorder=0)
    ax.annotate("torch", (1.0, -0.45), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center")
    ax.set_yticks(range(len(ROWS)), ROWS)
    ax.set_ylim(len(ROWS) - 0.5, -0.7)
    ax.set_xlim(0.0, widest)
    ax.set_xlabel("time / time of torch")
    if costs:
        draw_costs(axes[1], costs)
        for letter, panel, text in zip("ab", axes, ("training step", "gradient checks"), strict=True):
            plotting.panel_label(panel, letter, text)
    return figure


def draw_costs(ax: Any, costs: Mapping[str, tuple[str, Array]]) -> None:
    """Milliseconds of each check, all runs and their median, and what it was meant to take."""
    from gradlab import plotting

    for place, (target, seconds) in enumerate(costs.values()):
        ax.semilogx(1e3 * seconds, np.full(len(seconds), place), "|", color=plotting.COLOURS["grey"], markersize=7)
        middle = 1e3 * float(np.median(seconds))
        ax.plot(middle, place, "D", color=plotting.COLOURS["green"], markersize=5)
        text = f"{middle:.0f} ms" if middle < 1000.0 else f"{1e-3 * middle:.1f} s"
        ax.annotate(text, (middle, place), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7)
        if target:
            ax.plot(TARGETS[target], place, "v", color="black", markerfacecolor="white", markersize=5, zorder=0)
    ax.plot([], [], "v", color="black", markerfacecolor="white", markersize=5, label="meant to take")
    ax.legend(loc="upper right", fontsize=6.5, handlelength=1.0, borderaxespad=0.0)
    ax.set_yticks(range(len(costs)), list(costs))
    ax.set_ylim(len(costs) - 0.5, -0.9)
    ax.set_xlim(3.0, 2e4)
    ax.set_xlabel("time (ms)")
