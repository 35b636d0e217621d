"""What a gradient check runs on: a network, its numbers, and the cotangent of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_array, require_lengths
from gradlab.backward import bptt
from gradlab.batch import Batch
from gradlab.checks.comparison import RTOL, compare
from gradlab.errors import DTypeError, ShapeError
from gradlab.network import Network
from gradlab.record import Record

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Example:
    """A network, its parameters, an input (T, B, D), initial states, a cotangent of its outputs, and lengths (B,) or None.

    The loss of an example is sum(outputs * cotangent). `rtol`: of the scale S, see `gradlab.checks.comparison`.
    Errors: DTypeError, ShapeError.
    """

    net: Network
    params: dict[str, Array]
    x: Array
    initial: dict[str, Array]
    cotangent: Array
    lengths: Array | None = None
    rtol: float = RTOL

    def __post_init__(self) -> None:
        if not isinstance(self.net, Network):
            raise DTypeError(f"net is {self.net!r}; expected a gradlab.Network; for a cell: gradlab.checks.check_cell")
        x = require_array("x", self.x)
        if x.ndim != 3:
            raise ShapeError(f"x has shape {x.shape}; expected (T, B, D): an example has no ensemble axes")
        require_lengths("lengths", self.lengths, x.shape[0], x.shape[1])
        width = self.net.top_size if self.net.output_size is None else self.net.output_size
        want = (*x.shape[:2], width) if self.net.readout == "every" else (x.shape[1], width)
        if not isinstance(self.params, Mapping):
            raise DTypeError(f"params is a {type(self.params).__name__}; expected a dict of arrays")
        for key, value in self.params.items():
            require_array(f'params["{key}"]', value)
        if np.shape(self.cotangent) != want:
            raise ShapeError(f"cotangent has shape {np.shape(self.cotangent)}; expected {want}, that of the outputs")
        # The criterion is one of double precision: what is held against it is computed in it.
        object.__setattr__(self, "params", {key: _double(value) for key, value in self.params.items()})
        object.__setattr__(self, "initial", {key: _double(value) for key, value in self.initial.items()})
        object.__setattr__(self, "x", _double(x))
        object.__setattr__(self, "cotangent", _double(np.asarray(self.cotangent)))
        object.__setattr__(self, "rtol", float(self.rtol))

    @property
    def size(self) -> str:
        """T, B, D and H in words."""
        T, B, D = self.x.shape
        kind = "" if self.net.num_layers == 1 else f" layers={self.net.num_layers}"
        both = " bidirectional" if self.net.bidirectional else ""
        ragged = "" if self.lengths is None else f" lengths={self.lengths.tolist()}"
        return f"T={T} B={B} D={D} H={self.net.hidden_size}{kind}{both}{ragged}"

    @property
    def largest(self) -> float:
        """The largest number among parameters, inputs and initial states, at least 1."""
        given = [*self.params.values(), *self.initial.values(), self.x]
        return max([1.0, *(float(np.abs(value).max(initial=0.0)) for value in given)])

    @property
    def subnormal(self) -> float:
        """Below this an intermediate result may have lost digits before it was multiplied up again."""
        with np.errstate(over="ignore"):
            scale = np.float64(self.largest) ** 2 * max(1.0, float(np.abs(self.cotangent).max(initial=0.0)))
            return float(np.finfo(float).tiny / np.finfo(float).eps * scale)

    @property
    def states(self) -> dict[str, Array]:
        """The initial state (B, S) of every layer, zero where none was given."""
        B = self.x.shape[1]
        return {layer.name: np.zeros((B, layer.state_size)) for layer in self.net.layers} | dict(self.initial)

    @cached_property
    def record(self) -> Record:
        """What `bptt` says, everything kept."""
        return self.run(self.params, self.x, self.initial)

    def run(
        self,
        params: Mapping[str, Array],
        x: Array,
        initial: Mapping[str, Array],
        rows: slice = slice(None),
        cotangent: Array | None = None,
    ) -> Record:
        """`bptt` with everything kept, for other numbers; `rows` picks the part of some batch rows."""
        weight = (self.cotangent if cotangent is None else cotangent)[..., rows, :]
        lengths = None if self.lengths is None else self.lengths[rows]

        def linear(outputs: Array, targets: Array, mask: Array | None) -> tuple[Array, Array]:
            own = tuple(range(-weight.ndim, 0))
            return (outputs * weight).sum(axis=own), np.broadcast_to(weight, outputs.shape)

        keep = ("states", "gates", "immediate", "adjoints", "jacobians", "input_gradient")
        return bptt(self.net, params, Batch(x, weight, lengths=lengths), linear, keep, initial_states=initial)

    def expect(self, name: str, value: Array, oracle: Array, scale: Array) -> None:
        """Raise GradientMismatch, naming the cell, unless `value` is within rtol * scale."""
        compare(f"{self.net.cell!r} {name}", value, oracle, scale, self.rtol).raise_for_failure()


def _double(value: Array) -> Array:
    return value.astype(np.float64) if value.dtype.kind in "fiu" else value


def random_example(
    cell: Any,
    *,
    T: int = 5,
    B: int = 2,
    D: int = 2,
    H: int = 3,
    seed: int = 0,
    rtol: float = RTOL,
    scale: float = 1.0,
    ragged: bool = False,
    **network: Any,
) -> Example:
    """An example over `cell` with all numbers drawn from `seed`: parameters, inputs and initial states uniform in +-scale.

    `network`: more arguments of `gradlab.Network`. `ragged`: the second row ends two steps early, if it can.
    """
    rng = np.random.default_rng(seed)
    net = Network(cell, D, H, **network)
    params = {key: rng.uniform(-scale, scale, shape) for key, shape in net.shapes.items()}
    x = rng.uniform(-1.0, 1.0, (T, B, D))
    initial = {layer.name: rng.uniform(-1.0, 1.0, (B, layer.state_size)) for layer in net.layers}
    lengths = np.maximum(1, T - 2 * (np.arange(B) % 2)) if ragged else None
    return Example(net, params, x, initial, random_cotangent(net, rng, T, B), lengths, rtol)


def random_cotangent(net: Network, rng: np.random.Generator, T: int, B: int) -> Array:
    """Numbers of size 1/2 to 3/2 and random sign, of the shape of the outputs."""
    width = net.top_size if net.output_size is None else net.output_size
    shape = (T, B, width) if net.readout == "every" else (B, width)
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))
