"""Networks: layers of cells with a read-out, and the forward pass.

A network owns no parameters; every function takes them as a flat dict: "0.W", "0.U", "0.b" for the
lowest layer, "1.W", ... above it, "readout.V" (p, outputs of the top layer) and "readout.b_y" (p,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab._validate import (
    as_numbers,
    require_count,
    require_finite,
    require_generator,
    require_sequences,
    require_shape,
)
from gradlab.cells.base import Cell, Init, affine_rows
from gradlab.cells.completed import as_cell
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.workspace import Workspace, time_major

Array = npt.NDArray[Any]
Params = dict[str, Array]


@dataclass(frozen=True)
class Layer:
    """One layer in one direction: its name in keys and records, its cell and its sizes."""

    name: str
    cell: Cell
    input_size: int
    hidden_size: int

    @property
    def state_size(self) -> int:
        return self.cell.state_size(self.hidden_size)

    @cached_property
    def output_size(self) -> int:
        empty = np.zeros((1, self.state_size))
        return int(self.cell.output(empty, empty).shape[-1])

    @property
    def parts(self) -> dict[str, tuple[int, int]]:
        """First and last column of each part of the state."""
        spans, start = {}, 0
        for name, width in self.cell.parts(self.hidden_size).items():
            spans[name] = (start, start + width)
            start += width
        return spans


@dataclass(frozen=True)
class Network:
    """`num_layers` layers of one cell, from `input_size` inputs, and a linear read-out of `output_size` values.

    `cell`: a `gradlab.cells` cell, or any object with `init` and `step`.
    `output_size`: None for no read-out; the network then emits the raw outputs of its top layer.
    `readout`: "every" emits at every step, outputs (T, *E, B, p); "last" at the last one only, (*E, B, p).
    `bidirectional`: not available yet.
    """

    cell: Any
    input_size: int
    hidden_size: int
    output_size: int | None = None
    num_layers: int = 1
    bidirectional: bool = False
    readout: Literal["every", "last"] = "every"

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", as_cell(self.cell))
        for name in ("input_size", "hidden_size", "num_layers"):
            object.__setattr__(self, name, require_count(name, getattr(self, name)))
        if self.output_size is not None:
            object.__setattr__(self, "output_size", require_count("output_size", self.output_size))
        if self.readout not in ("every", "last"):
            raise ValueRangeError(f'readout is {self.readout!r}; expected "every" or "last"')
        if self.bidirectional:
            raise ValueRangeError(
                "bidirectional is True; this version runs one direction only; "
                "until it comes, run a second network on the sequence reversed in time and concatenate the outputs"
            )

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers from the bottom up."""
        found: list[Layer] = []
        for k in range(self.num_layers):
            size = self.input_size if k == 0 else found[-1].output_size
            found.append(Layer(str(k), self.cell, size, self.hidden_size))
        return tuple(found)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The own shape of every parameter, without ensemble axes."""
        return {key: value.shape for key, value in self.init(np.random.default_rng(0)).items()}

    def init(
        self,
        rng: np.random.Generator,
        *,
        input_init: Init | None = None,
        recurrent_init: Init | None = None,
        readout_init: Init | None = None,
        dtype: npt.DTypeLike = np.float64,
        **cell_options: Any,
    ) -> Params:
        """Parameters drawn from `rng`.

        `input_init`, `recurrent_init`, `readout_init`: from `gradlab.inits`, for W, U (gate by gate) and V;
        None leaves the choice to the cell, and V uniform in +-1/sqrt(outputs of the top layer).
        `cell_options` go to the cell's own `init`, e.g. forget_bias=1.0 of the LSTM.
        """
        require_generator("rng", rng)
        options = dict(cell_options)
        options |= {k: v for k, v in (("W", input_init), ("U", recurrent_init)) if v is not None}
        params: Params = {}
        for layer in self.layers:
            own = layer.cell.init(rng, layer.input_size, layer.hidden_size, **options)
            params |= {f"{layer.name}.{key}": np.asarray(value).astype(dtype) for key, value in own.items()}
        if self.output_size is not None:
            shape = (self.output_size, self.layers[-1].output_size)
            bound = 1.0 / np.sqrt(shape[1])
            V = rng.uniform(-bound, bound, shape) if readout_init is None else readout_init(rng, shape)
            params |= {"readout.V": V.astype(dtype), "readout.b_y": np.zeros(shape[0], dtype)}
        return params

    def ensemble_shape(self, key: str, value: Array) -> tuple[int, ...]:
        """The ensemble axes in front of parameter `key`."""
        return value.shape[: value.ndim - len(self.shapes[key])]


@dataclass(frozen=True)
class LayerPass:
    """What one layer's forward pass leaves behind: time-major views on ensemble-major memory.

    `x` (T, *E', B, D), `states` (T+1, *E, B, S), `tape` (T, blocks, *E, B, K), `p` the prepared parameters, `t` (T,).
    """

    layer: Layer
    p: dict[str, Any]
    x: Array
    states: Array
    tape: Array
    t: Array

    def outputs(self) -> Array:
        """What the layer emits, (T, *E, B, outputs)."""
        return self.layer.cell.output(self.states[1:], self.states[:-1])


@dataclass(frozen=True)
class Pass:
    """A forward pass: `outputs` as the read-out says, and one `LayerPass` each from the bottom up."""

    outputs: Array
    layers: tuple[LayerPass, ...]
    params: Params

    @property
    def states(self) -> dict[str, Array]:
        """States (T+1, *E, B, S) by layer; row 0 is the initial state."""
        return {run.layer.name: run.states for run in self.layers}


def forward(
    net: Network,
    params: Mapping[str, Array],
    x: Array,
    initial_states: Mapping[str, Array] | None = None,
    *,
    first_step: int = 0,
    workspace: Workspace | None = None,
) -> Pass:
    """Run `net` over `x`.

    x (T, B, D), or (T, *E, B, D) with ensemble axes; parameters may carry ensemble axes in front, all broadcast.
    `initial_states`: {"0": (*E, B, S), ...}, zero where absent. `first_step`: absolute number of the first step.
    `workspace`: memory to reuse from call to call; the pass then lasts until the next call with it.
    Returns a `Pass`. Runs in the common dtype of all that it is given: float32, float64 or complex128.

    Errors: ShapeError, DTypeError, ValueRangeError, naming the argument.
    """
    x = as_numbers("x", x)
    require_sequences("x", x, net.input_size)
    require_finite("x", x)
    given = _initial(net, x, initial_states)
    cast = _common(net, params, x, given)
    ensemble = _ensemble(net, cast, x, given)
    dtype = next(iter(cast.values())).dtype
    x = x.reshape(x.shape[0], *_padded(x.shape[1:-2], len(ensemble)), *x.shape[-2:])
    x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -3), dtype), -3, 0)
    with np.errstate(all="ignore"):  # what leaves the range of floats is found on the results
        runs: list[LayerPass] = []
        for layer in net.layers:
            below = runs[-1].outputs() if runs else x
            runs.append(_run_layer(layer, cast, below, given.get(layer.name), ensemble, first_step, workspace))
        return Pass(_read_out(net, cast, runs[-1], workspace), tuple(runs), cast)


def _run_layer(
    layer: Layer,
    params: Params,
    x: Array,
    initial: Array | None,
    ensemble: tuple[int, ...],
    first_step: int,
    workspace: Workspace | None,
) -> LayerPass:
    cell, prefix = layer.cell, f"{layer.name}."
    T, B = x.shape[0], x.shape[-2]
    own = {key.removeprefix(prefix): value for key, value in params.items() if key.startswith(prefix)}
    dtype = next(iter(own.values())).dtype
    p = cell.prepare(own, (*ensemble, B))
    blocks, columns = cell.tape_shape(layer.input_size, layer.hidden_size)
    tape = time_major(workspace, f"{layer.name}.tape", (blocks, *ensemble, T, B, columns), dtype)
    states = time_major(workspace, f"{layer.name}.states", (*ensemble, T + 1, B, layer.state_size), dtype)
    states[0] = 0.0 if initial is None else initial
    cell.project(p, x, tape)
    for k in range(T):
        cell.step_into(p, tape[k], states[k], states[k + 1], first_step + k)
    return LayerPass(layer, p, x, states, tape, first_step + np.arange(T))


def _read_out(net: Network, params: Params, top: LayerPass, workspace: Workspace | None) -> Array:
    y = top.outputs()
    if net.readout == "last":
        y = y[-1:]
    if net.output_size is not None:
        V, b = params["readout.V"], params["readout.b_y"]
        lead = np.broadcast_shapes(y.shape[1:-2], V.shape[:-2], b.shape[:-1])
        out = time_major(workspace, "outputs", (*lead, y.shape[0], y.shape[-2], net.output_size), y.dtype)
        affine_rows(y, V, b, out)
        y = out
    return y[0] if net.readout == "last" else y


def _initial(net: Network, x: Array, initial_states: Mapping[str, Array] | None) -> Params:
    """The initial states that were given, checked; the others are zero."""
    sizes = {layer.name: layer.state_size for layer in net.layers}
    checked: Params = {}
    for name, value in (initial_states or {}).items():
        if name not in sizes:
            raise ValueRangeError(f"initial_states has the key {name!r}; expected {', '.join(sizes)}")
        label = f'initial_states["{name}"]'
        checked[name] = as_numbers(label, value)
        require_shape(label, checked[name], (x.shape[-2], sizes[name]), "(B, S)")
        require_finite(label, checked[name])
    return checked


def _common(net: Network, params: Mapping[str, Array], x: Array, initial: Params) -> Params:
    """Every parameter checked, in the common dtype, with the common number of ensemble axes in front."""
    missing = [k for k in net.shapes if k not in params]
    unknown = [k for k in params if k not in net.shapes]
    if missing or unknown:
        raise ValueRangeError(
            f"params lacks {missing or 'nothing'} and has unknown {unknown or 'nothing'}; expected {list(net.shapes)}"
        )
    values = {key: as_numbers(f'params["{key}"]', params[key]) for key in net.shapes}
    for key, value in values.items():
        require_shape(f'params["{key}"]', value, net.shapes[key], "its own axes")
    dtype = np.result_type(x, *values.values(), *initial.values())
    depth = max(
        [x.ndim - 3, *(len(net.ensemble_shape(k, v)) for k, v in values.items()), *(v.ndim - 2 for v in initial.values())]
    )
    return {
        key: np.ascontiguousarray(v.reshape(*_padded(net.ensemble_shape(key, v), depth), *net.shapes[key]), dtype)
        for key, v in values.items()
    }


def _padded(lead: tuple[int, ...], depth: int) -> tuple[int, ...]:
    return (1,) * (depth - len(lead)) + lead


def _ensemble(net: Network, params: Params, x: Array, initial: Params) -> tuple[int, ...]:
    shapes = [x.shape[1:-2], *(v.shape[:-2] for v in initial.values())]
    shapes += [net.ensemble_shape(k, v) for k, v in params.items()]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ShapeError(f"ensemble axes do not broadcast: {sorted(set(shapes))}; expected equal sizes, or 1") from error
