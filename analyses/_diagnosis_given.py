"""What a planted case is, and what the cases are made of: networks that are in order, batches, losses of any scale."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab.diagnosis.diagnosis import Diagnosis
from gradlab.inits import orthogonal
from gradlab.network import Layer

Array = npt.NDArray[Any]
Params = dict[str, Array]
Half = Literal["calibration", "held-out"]
HALVES: tuple[Half, ...] = ("calibration", "held-out")
HEALTHY = "healthy"
SCALES = (1e-6, 1.0, 1e6)
"""Of the loss."""


@dataclass(frozen=True)
class Given:
    """What `gradlab.diagnose` is given: `subject` with its parameters, data and loss, and the rest by keyword."""

    subject: Any
    params: Mapping[str, Array] | None = None
    data: Any = None
    loss: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def diagnose(self) -> Diagnosis:
        """The diagnosis of it."""
        return gradlab.diagnose(self.subject, self.params, self.data, self.loss, **self.options)


Build = Callable[[np.random.Generator, float], Given]
"""(generator, scale of the loss) -> what is diagnosed; a learning rate is divided by the scale, clipping thresholds are
multiplied by it."""


@dataclass(frozen=True)
class Case:
    """A pathology with its place, or a healthy network.

    `planted`: the code that must be found, or HEALTHY. `place`: what the planting fixes of it, by the names of `Place`'s fields.
    `also`: codes that are true consequences of what was planted. `scale`: of the loss. `invariant`: whether the case can be
    built at other scales: it has a loss, and no optimiser that rescales it.
    `family`: of its cell, or "history".
    """

    name: str
    half: Half
    planted: str
    build: Build
    place: Mapping[str, Any] = field(default_factory=dict)
    also: frozenset[str] = frozenset()
    scale: float = 1.0
    invariant: bool = True
    steps: int = 1
    """T, or the number of updates: what the tolerance of a timestep, lag or update refers to."""
    family: str = ""

    def given(self, seeds: np.random.SeedSequence, scale: float | None = None) -> Given:
        """Built from a stream of its own: the same numbers at every scale, whatever other cases there are."""
        key = (HALVES.index(self.half), zlib.crc32(self.name.encode()))
        rng = np.random.default_rng(np.random.SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, *key)))
        return self.build(rng, self.scale if scale is None else scale)


def planted(
    half: Half, code: str, name: str, build: Build, place: Mapping[str, Any], steps: int, family: str, *also: str
) -> Case:
    """A case of `code`, named after it."""
    return Case(f"{code}: {name}", half, code, build, place, frozenset(also), steps=steps, family=family)


@dataclass(frozen=True)
class Scaled:
    """`loss` times `by`."""

    loss: Any
    by: float

    def __call__(self, outputs: Array, targets: Any, mask: Array | None = None) -> tuple[Array, Array]:
        value, d_outputs = self.loss(outputs, targets, mask)
        return self.by * value, self.by * d_outputs


def squared(scale: float) -> Scaled:
    """The mean squared error times `scale`."""
    return Scaled(gradlab.mean_squared_error, scale)


def entropy(scale: float) -> Scaled:
    """The cross-entropy times `scale`."""
    return Scaled(gradlab.softmax_cross_entropy, scale)


# ---- networks in order ------------------------------------------------------------------------------------------------


def network(
    cell: Any, D: int, H: int, *, layers: int = 1, both: bool = False, readout: Literal["every", "last"] = "last", p: int = 1
) -> gradlab.Network:
    """`layers` of one cell, or a list of cells."""
    number = len(cell) if isinstance(cell, list) else layers
    return gradlab.Network(cell, D, H, output_size=p, num_layers=number, bidirectional=both, readout=readout)


def norm_preserving(rng: np.random.Generator, net: gradlab.Network, inputs: float = 0.1, memory: float = 100.0) -> Params:
    """Parameters with which every layer keeps a gradient: orthogonal U; inputs so small that no unit saturates, or gates that
    keep for `memory` steps.

    `inputs`: standard deviation of what unit inputs add to a pre-activation, in the layers without gates.
    """
    params = net.init(rng, recurrent_init=orthogonal())
    for layer in net.layers:
        name = layer.name
        if layer.cell.gates:
            remember(params, layer, memory)
        elif f"{name}.W" in params:
            W = params[f"{name}.W"]
            params[f"{name}.W"] = rng.normal(0.0, inputs / np.sqrt(W.shape[1]), W.shape)
    return params


def remember(params: Params, layer: Layer, steps: float) -> None:
    """Gates of `layer` that keep a content for `steps`, and let in as much as they forget (Tallec & Ollivier 2018, eq. 16)."""
    cell, H, bias = layer.cell, layer.hidden_size, gradlab.inits.forget_bias(steps)
    params[f"{layer.name}.b"][block(cell, "f" if "f" in cell.gates else "z", H)] = bias
    if "i" in cell.gates:
        params[f"{layer.name}.b"][block(cell, "i", H)] = -bias


def block(cell: Any, gate: str, H: int) -> slice:
    """Rows of W, U and b that belong to a gate."""
    k = cell.gates.index(gate)
    return slice(k * H, (k + 1) * H)


def regression(rng: np.random.Generator, net: gradlab.Network, T: int, B: int, *, x: Array | None = None) -> gradlab.Batch:
    """Unit-variance noise (or `x`) with targets that are noise too: at the last step or at every step, as the read-out wants."""
    inputs = rng.standard_normal((T, B, net.input_size)) if x is None else x
    lead = inputs.shape[:2] if net.readout == "every" else (inputs.shape[1],)
    return gradlab.Batch(inputs, rng.standard_normal((*lead, net.output_size or 1)))


def symbols(rng: np.random.Generator, net: gradlab.Network, T: int, B: int) -> gradlab.Batch:
    """One-hot symbols and labels, drawn independently."""
    inputs = np.eye(net.input_size)[rng.integers(0, net.input_size, (T, B))]
    lead = (T, B) if net.readout == "every" else (B,)
    return gradlab.Batch(inputs, rng.integers(0, net.output_size or 1, lead))


def given(net: gradlab.Network, params: Mapping[str, Array], batch: gradlab.Batch, scale: float, **options: Any) -> Given:
    """A network with data and the loss that its targets ask for, times `scale`."""
    loss = entropy(scale) if np.asarray(batch.targets).dtype.kind in "iu" else squared(scale)
    return Given(net, params, batch, loss, options)
