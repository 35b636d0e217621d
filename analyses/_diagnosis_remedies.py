"""The catalogue's remedies, carried out on planted cases: is the finding gone afterwards, and has nothing else come?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from analyses._diagnosis_cases import CASES
from analyses._diagnosis_given import Case, Given, block
from analyses._diagnosis_training_cases import Run, by_norm
from gradlab.inits import forget_bias, orthogonal

Array = npt.NDArray[Any]
Cure = Callable[[Given, np.random.Generator], Given]


@dataclass(frozen=True)
class Remedy:
    """`what` the catalogue says for `code`, on the calibration case of that `name`: `cure` what was diagnosed, or train again,
    with `changes` and the same numbers.
    """

    code: str
    name: str
    what: str
    cure: Cure | None = None
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def case(self) -> Case:
        """The planted case."""
        return next(one for one in CASES if one.half == "calibration" and one.name == f"{self.code}: {self.name}")

    def cured(self, seeds: np.random.SeedSequence) -> Given:
        """The case as it is diagnosed afterwards."""
        case = self.case
        if self.cure is not None:
            return self.cure(
                case.given(seeds), np.random.default_rng(np.random.SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, 2)))
            )
        assert isinstance(case.build, Run)
        return replace(case, build=replace(case.build, **dict(self.changes))).given(seeds)


def carried_out(remedy: Remedy, seeds: np.random.SeedSequence) -> tuple[bool, bool, bool]:
    """(found before, found after, healthy after); only warnings and errors count."""
    before, after = remedy.case.given(seeds).diagnose(), remedy.cured(seeds).diagnose()
    found = [any(f.severity != "info" for f in one[remedy.code]) for one in (before, after)]
    return found[0], found[1], after.healthy


def orthogonal_everywhere(given: Given, rng: np.random.Generator) -> Given:
    """Orthogonal recurrent matrices, gate by gate."""
    net, params = given.subject, dict(given.params or {})
    for layer in net.layers:
        key = f"{layer.name}.U"
        rows, H = params[key].shape
        params[key] = np.concatenate([orthogonal()(rng, (H, H)) for _ in range(rows // H)])
    return replace(given, params=params)


def small_inputs_too(given: Given, rng: np.random.Generator) -> Given:
    """Orthogonal recurrent matrices and a tenth of the input weights."""
    cured = orthogonal_everywhere(given, rng)
    W = {key: 0.1 * value for key, value in (cured.params or {}).items() if key.endswith(".W")}
    return replace(cured, params=dict(cured.params or {}) | W)


def lstm_that_keeps(given: Given, rng: np.random.Generator) -> Given:
    """An LSTM of the same size in place of the net, with a forget bias for the number of steps."""
    net = replace(given.subject, cell=gradlab.LSTM())
    steps = given.options.get("dependency", len(given.data.inputs))
    return replace(given, subject=net, params=net.init(rng, forget_bias=forget_bias(steps)))


def gate_that_keeps(given: Given, rng: np.random.Generator) -> Given:
    """The forget or update bias of every layer for the length of the sequences."""
    params, T = dict(given.params or {}), len(given.data.inputs)
    for layer in given.subject.layers:
        key = f"{layer.name}.b"
        params[key] = params[key].copy()
        params[key][block(layer.cell, "f" if "f" in layer.cell.gates else "z", layer.hidden_size)] = forget_bias(T)
    return replace(given, params=params)


def fresh_gate(gate: str) -> Cure:
    """The gate's bias at 0 and its weights drawn anew."""

    def cure(given: Given, rng: np.random.Generator) -> Given:
        params = {key: value.copy() for key, value in (given.params or {}).items()}
        layer = given.subject.layers[0]
        at, H = block(layer.cell, gate, layer.hidden_size), layer.hidden_size
        params["0.b"][at] = 0.0
        params["0.W"][at] = gradlab.inits.glorot()(rng, params["0.W"][at].shape)
        params["0.U"][at] = orthogonal()(rng, (H, H))
        return replace(given, params=params)

    return cure


def revived(given: Given, rng: np.random.Generator) -> Given:
    """The dead units drawn anew, with a small positive bias and the identity as recurrent weights."""
    net, params = given.subject, {key: value.copy() for key, value in (given.params or {}).items()}
    states = gradlab.forward(net, params, given.data.inputs).states["0"][1:]
    dead = (states == 0.0).all(axis=(0, 1))
    params["0.W"][dead] = 0.1 * rng.standard_normal(params["0.W"][dead].shape)
    params["0.U"][dead] = np.eye(len(dead))[dead]
    params["0.b"][dead] = 0.1
    return replace(given, params=params)


def standardised(given: Given, rng: np.random.Generator) -> Given:
    """Every feature less its mean, over its standard deviation."""
    x = given.data.inputs
    scaled = (x - x.mean(axis=(0, 1))) / x.std(axis=(0, 1))
    return replace(given, data=replace(given.data, inputs=scaled))


def with_lengths(given: Given, rng: np.random.Generator) -> Given:
    """The number of steps in front of the padding, given with the batch."""
    x = given.data.inputs
    same = (x == x[-1]).all(axis=-1)  # (T, B)
    lengths = len(x) - np.where(same.all(axis=0), 0, np.argmin(same[::-1], axis=0))
    return replace(given, data=replace(given.data, lengths=lengths))


def whole_sequence(given: Given, rng: np.random.Generator) -> Given:
    """Truncation beyond the sequence."""
    return replace(given, options=dict(given.options) | {"truncation": len(given.data.inputs)})


def reader_drawn_anew(given: Given, rng: np.random.Generator) -> Given:
    """The weights that read the layers, as the network initialises them."""
    params = dict(given.params or {})
    params["readout.V"] = given.subject.init(rng)["readout.V"]
    return replace(given, params=params)


def slower(factor: float) -> Cure:
    """A lower learning rate."""

    def cure(given: Given, rng: np.random.Generator) -> Given:
        return replace(given, options=dict(given.options) | {"learning_rate": given.options["learning_rate"] / factor})

    return cure


REMEDIES: tuple[Remedy, ...] = (
    Remedy("forget-closed", "LSTM, bias +0, T = 100", "forget bias for T steps", gate_that_keeps),
    Remedy("input-scale", "tanh, 0 to 1e-4", "every feature standardised", standardised),
    Remedy("padding-counted", "GRU, -1 from step 8, last", "lengths given", with_lengths),
    Remedy("vanishing", "tanh, default init, T = 100", "orthogonal U, a tenth of W", small_inputs_too),
    Remedy("vanishing", "ReLU, default init, T = 60", "an LSTM with a forget bias for T", lstm_that_keeps),
    Remedy("exploding", "chaotic tanh, gain 3", "orthogonal U", orthogonal_everywhere),
    Remedy("transient-growth", "linear chain of 10, link 2.5", "orthogonal U", orthogonal_everywhere),
    Remedy("short-horizon", "Elman, 6 of 40", "an LSTM with a forget bias for the dependency", lstm_that_keeps),
    Remedy("truncation-short", "Elman, 5 of 60", "truncation beyond the sequence", whole_sequence),
    Remedy("saturated", "LSTM, o at -9", "the gate drawn anew", fresh_gate("o")),
    Remedy("dead-relu", "80% of 20, layer 0 of 1", "dead units drawn anew", revived),
    Remedy("ill-conditioned", "rank 2 of 24, layer 0", "orthogonal U", orthogonal_everywhere),
    Remedy("unused-direction", "LSTM, 0.backward", "the reader drawn anew", reader_drawn_anew),
    Remedy("cliff", "Elman, inputs 6 off", "inputs standardised", standardised),
    Remedy("cliff", "LSTM, inputs 5 off", "a tenth of the learning rate", slower(10.0)),
    Remedy("nonfinite", "times 1e+06 a step, forward", "orthogonal U", orthogonal_everywhere),
    Remedy("loss-jumps", "rate times 1000 at update 70", "a steady learning rate", changes=(("surge", ()),)),
    Remedy("clipping-always", "Elman, at 0.001", "threshold above the usual norm", changes=(("threshold", 3.0), ("rate", 0.03))),
    Remedy("clipping-never", "Elman, at 10000", "threshold near the usual norm", changes=(("threshold", 2.0),)),
    Remedy("clipping-inactive", "Elman, nothing", "clipped before the step", changes=(("clip", by_norm), ("threshold", 1.0))),
    Remedy("update-ratio", "Adam, rate 1e-8", "learning rate 0.003", changes=(("rate", 0.003),)),
)  # fmt: skip


def table(cured: Array) -> str:
    """Markdown, for the README: what was planted, what was done, and what the diagnosis says before and after."""
    lines = ["| finding | remedy carried out | before | after |", "|---|---|---|---|"]
    for remedy, (before, after, healthy) in zip(REMEDIES, cured, strict=False):
        told = "still there" if after else "gone" if healthy else "gone; another finding"
        lines.append(f"| `{remedy.code}` | {remedy.what} | {'found' if before else 'not found'} | {told} |")
    return "\n".join(lines)
