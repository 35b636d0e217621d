"""The Hessian of a loss, or a diagonal block of it, as an operator and as a matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._parameters import ParameterVector
from gradlab._validate import as_numbers, require_flag, require_shape
from gradlab.analysis.hessian_products import hessian_vector_product, real_params
from gradlab.backward import bptt, checked_inputs
from gradlab.batch import Batch
from gradlab.errors import DTypeError, NumericalError, ShapeError, ValueRangeError
from gradlab.forward_pass import checked_params
from gradlab.losses import Loss
from gradlab.network import Network, Params
from gradlab.workspace import Workspace

Array = npt.NDArray[Any]

Place = tuple[str, tuple[Any, ...]]
"""A parameter, and the index of the rows that belong to the block."""

AT_ONCE = 2**25
"""Bytes of states and tapes of all directions that go through the network together."""


@dataclass(frozen=True, eq=False, repr=False)
class Hessian:
    """The Hessian of a loss at `params`, or a block of it on the diagonal, as an operator: `hessian(v)` is H v.

    `keys`: the parameters it is restricted to, such as ("0.U",), or the rows of one gate, "0.U/f"; None takes all.
    v is (n,), or (K, n) for K directions; its entries stand in the order of `keys`, arrays row by row: `vector.pack`
    makes one of a dict, `direction` a dict of it. `params` are copied. n is `size`.
    `verify`: compare one product with differences of the gradient, and raise NumericalError if these agree among
    themselves but not with it: a loss or a cell that drops imaginary parts would otherwise be wrong in silence.
    Not for use by two threads.

    Errors: those of `hessian_vector_product`; ValueRangeError for unknown keys or a network with ensemble axes.
    """

    net: Network
    params: Mapping[str, Array]
    batch: Batch
    loss: Loss
    keys: Sequence[str] | None = None
    initial_states: Mapping[str, Array] | None = field(default=None, kw_only=True)
    first_step: int = field(default=0, kw_only=True)
    verify: bool = field(default=True, kw_only=True)
    vector: ParameterVector = field(init=False)
    _places: Mapping[str, Place] = field(init=False)
    _workspace: Workspace = field(init=False, default_factory=Workspace)

    def __post_init__(self) -> None:
        inputs = checked_inputs(self.net, self.batch, self.loss)
        if inputs.ndim != 3:
            raise ShapeError(f"batch.inputs has shape {inputs.shape}; expected (T, B, D), without ensemble axes")
        theta = {key: value.copy() for key, value in real_params("params", checked_params(self.net, self.params)).items()}
        for key, value in theta.items():
            if value.ndim > len(self.net.shapes[key]):
                raise ShapeError(f'params["{key}"] has shape {value.shape}; expected one network, without ensemble axes')
        require_flag("verify", self.verify)
        places = _places(self.net, list(self.net.shapes) if self.keys is None else self.keys)
        shapes = {label: theta[key][rows].shape for label, (key, rows) in places.items()}
        found = {"params": theta, "keys": tuple(places), "vector": ParameterVector(shapes), "_places": places}
        for name, made in found.items():
            object.__setattr__(self, name, made)
        if self.verify:
            self._verify()

    def __repr__(self) -> str:
        return f"Hessian({', '.join(self._places)}; size {self.size})"

    @property
    def size(self) -> int:
        """Number of rows n."""
        return self.vector.size

    def direction(self, v: Array) -> Params:
        """The vectors v (*K, n) as directions in all parameters, (*K, ...) each, zero outside `keys`."""
        found: Params = {}
        for label, part in self.vector.unpack(v).items():
            key, rows = self._places[label]
            if key not in found:
                found[key] = np.zeros((*v.shape[:-1], *self.net.shapes[key]))
            found[key][(..., *rows)] = part
        return found

    def __call__(self, v: Array) -> Array:
        """H v, (n,) or (K, n) as v: the directions go through the network a few at a time."""
        v = as_numbers("v", v, allow_complex=False)
        require_shape("v", v, (self.size,), "(n,)")
        flat = v.reshape(-1, self.size)
        out = np.empty(flat.shape)
        few = self.at_once
        for first in range(0, len(flat), few):
            own = slice(first, first + few)
            out[own] = self._product(flat[own] if few > 1 else flat[first])
        return out.reshape(v.shape)

    @property
    def at_once(self) -> int:
        """How many directions go through the network together: many for a small one, one for a large one."""
        columns = 0
        for layer in self.net.layers:
            blocks, width = layer.cell.tape_shape(layer.input_size, layer.hidden_size)
            columns += blocks * width + 2 * layer.state_size + layer.cell.pre_size(layer.input_size, layer.hidden_size)
        return max(1, AT_ONCE // (16 * columns * math.prod(self.batch.inputs.shape[:2])))

    def _product(self, v: Array) -> Array:
        found = hessian_vector_product(
            self.net,
            self.params,
            self.batch,
            self.loss,
            self.direction(v),
            initial_states=self.initial_states,
            first_step=self.first_step,
            workspace=self._workspace,
        )
        return self._restricted(found)

    def _restricted(self, full: Mapping[str, Array]) -> Array:
        return self.vector.pack({label: full[key][(..., *rows)] for label, (key, rows) in self._places.items()})

    def _gradient(self, shift: Params) -> Array:
        point = {key: np.asarray(value + shift[key]) if key in shift else value for key, value in self.params.items()}
        found = bptt(
            self.net, point, self.batch, self.loss, (), initial_states=self.initial_states, first_step=self.first_step
        ).gradients
        return self._restricted(found)

    def _verify(self) -> None:
        """Raise NumericalError if central differences of the gradient at two steps agree with each other and not with H v."""
        v = np.random.default_rng(0).normal(size=self.size)
        v /= np.linalg.norm(v)
        exact = self(v)
        reach = max(1.0, float(np.linalg.norm(self._restricted(self.params))))
        differences = []
        for h in (1e-5 * reach, 1e-6 * reach):
            up, down = (self._gradient(self.direction(sign * h * v)) for sign in (1.0, -1.0))
            differences.append((up - down) / (2.0 * h))
        coarse, fine = differences
        size, spread, gap = (float(np.linalg.norm(vector)) for vector in (fine, coarse - fine, exact - fine))
        if 0.0 < size < math.inf and spread <= 1e-4 * size and not gap <= 1e-2 * size:
            raise NumericalError(
                f"H v by complex step has norm {np.linalg.norm(exact):.6g}, by differences of the gradient {size:.6g}, "
                f"and they are {gap:.3g} apart: the loss, or the vjp of a cell, is not complex-safe (without abs, norm, sign "
                "and float dtypes), or the parameters are exactly on a kink; verify=False skips this comparison"
            )


def _places(net: Network, keys: Sequence[str]) -> dict[str, Place]:
    """Where each of `keys`, "0.U" or "0.U/f", stands; no entry twice."""
    if isinstance(keys, str) or not isinstance(keys, Sequence) or not keys:
        raise ValueRangeError(f'keys is {keys!r}; expected a sequence such as ("0.U",) or ("0.U/f", "0.b")')
    layers = {layer.name: layer for layer in net.layers}
    places: dict[str, Place] = {}
    for label in keys:
        key, _, gate = label.partition("/") if isinstance(label, str) else ("", "", "")
        if key not in net.shapes:
            raise ValueRangeError(f"keys holds {label!r}; expected names out of {list(net.shapes)}")
        own: tuple[Any, ...] = (slice(None),) * len(net.shapes[key])
        if gate:
            layer = layers.get(key.rpartition(".")[0])
            names, H = (layer.cell.gates, layer.hidden_size) if layer is not None else ((), 0)
            if gate not in names or net.shapes[key][0] != len(names) * H:
                stacked = f"the gates {', '.join(names)} of W, U or b" if names else f"{key!r} alone: there are no gates"
                raise ValueRangeError(f"keys holds {label!r}; expected {stacked}")
            own = (slice(names.index(gate) * H, (names.index(gate) + 1) * H), *own[1:])
        places[label] = (key, own)
    if len(places) < len(keys) or any(key != label and key in keys for label, (key, _) in places.items()):
        raise ValueRangeError(f"keys is {tuple(keys)}; expected each entry once: a parameter, or some of its gates")
    return places


def dense_hessian(hessian: Hessian, max_memory: int | None = None) -> Array:
    """The matrix H (n, n), row by row: an oracle for small networks.

    `max_memory`: bytes it may take; by default a share of what the machine has free.
    Error: ResourceRefused if it would not fit.
    """
    if not isinstance(hessian, Hessian):
        raise DTypeError(f"hessian is a {type(hessian).__name__}; expected gradlab.analysis.Hessian(net, params, batch, loss)")
    n = hessian.size
    refuse_above(24 * n * n, max_memory, f"the dense Hessian of n = {n} parameters", "restrict it by keys, or stay matrix-free")
    return hessian(np.eye(n))
