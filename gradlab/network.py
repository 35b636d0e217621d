"""Networks: layers of cells in one or both directions, with a read-out.

A network owns no parameters; every function takes them as a flat dict: "0.W", "0.U", "0.b" for the lowest layer, "1.W",
... above it ("0.forward.W" and "0.backward.W" if bidirectional), "readout.V" (p, outputs of the top) and "readout.b_y" (p,).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab import inits
from gradlab._validate import require_callable, require_count, require_generator
from gradlab.cells.base import Cell, Init
from gradlab.cells.completed import Completed, as_cell
from gradlab.errors import ShapeError, ValueRangeError

Array = npt.NDArray[Any]
Params = dict[str, Array]


@dataclass(frozen=True)
class Layer:
    """One layer in one direction: its name in keys and records, its cell and its sizes."""

    name: str
    cell: Cell
    input_size: int
    hidden_size: int
    reverse: bool = False

    @property
    def state_size(self) -> int:
        """Size S of the state."""
        return self.cell.state_size(self.hidden_size)

    @cached_property
    def output_size(self) -> int:
        """How many values the layer emits."""
        empty = np.zeros((1, self.state_size))
        return int(self.cell.output(empty, empty).shape[-1])

    @property
    def parts(self) -> dict[str, tuple[int, int]]:
        """First and last column of each part of the state."""
        spans, start = {}, 0
        for name, width in self.cell.parts(self.hidden_size).items():
            spans[name] = (start, start + width)
            start += width
        if start != self.state_size:
            raise ShapeError(f"{self.cell!r}: parts are {spans}; expected widths that add up to state_size = {self.state_size}")
        return spans


@dataclass(frozen=True)
class Network:
    """Layers of cells from `input_size` inputs, and a linear read-out of `output_size` values.

    `cell`: a `gradlab.cells` cell, any object with `init` and `step`, or a list of such, one for each layer.
    `output_size`: None for no read-out; the network then emits the raw outputs of its top layer.
    `num_layers`: layer l reads what layer l - 1 emits at the same step.
    `bidirectional`: each layer runs once in each direction; the next one, and the read-out, see both, forward first.
    `readout`: "every" emits at every step, outputs (T, *E, B, p); "last" at the last one only, (*E, B, p), where each
    direction contributes its own final state.
    """

    cell: Any
    input_size: int
    hidden_size: int
    output_size: int | None = None
    num_layers: int = 1
    bidirectional: bool = False
    readout: Literal["every", "last"] = "every"

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "num_layers"):
            object.__setattr__(self, name, require_count(name, getattr(self, name)))
        if self.output_size is not None:
            object.__setattr__(self, "output_size", require_count("output_size", self.output_size))
        if self.readout not in ("every", "last"):
            raise ValueRangeError(f'readout is {self.readout!r}; expected "every" or "last"')
        if not isinstance(self.bidirectional, bool):
            raise ValueRangeError(f"bidirectional is {self.bidirectional!r}; expected True or False")
        if isinstance(self.cell, (list, tuple)):
            if self.num_layers not in (1, len(self.cell)) or not self.cell:
                raise ValueRangeError(
                    f"num_layers is {self.num_layers} for a list of {len(self.cell)} cells; expected one for each"
                )
            object.__setattr__(self, "cell", tuple(as_cell(cell) for cell in self.cell))
            object.__setattr__(self, "num_layers", len(self.cell))
        else:
            object.__setattr__(self, "cell", as_cell(self.cell))

    @cached_property
    def levels(self) -> tuple[tuple[Layer, ...], ...]:
        """From the bottom up: the layers that read the same input, one or two."""
        found: list[tuple[Layer, ...]] = []
        for k in range(self.num_layers):
            cell = self.cell[k] if isinstance(self.cell, tuple) else self.cell
            size = sum(layer.output_size for layer in found[-1]) if found else self.input_size
            names = [(f"{k}.forward", False), (f"{k}.backward", True)] if self.bidirectional else [(str(k), False)]
            found.append(tuple(Layer(name, cell, size, self.hidden_size, reverse) for name, reverse in names))
        return tuple(found)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers from the bottom up, the forward direction first."""
        return tuple(layer for level in self.levels for layer in level)

    @property
    def top_size(self) -> int:
        """How many values the read-out sees."""
        return sum(layer.output_size for layer in self.levels[-1])

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
        `cell_options` go to the `init` of every cell that has such an option, e.g. forget_bias=1.0 of the LSTM.
        Error: ValueRangeError if no cell has it.
        """
        require_generator("rng", rng)
        for name, chosen in (("input_init", input_init), ("recurrent_init", recurrent_init), ("readout_init", readout_init)):
            _require_init(name, chosen)
        options = dict(cell_options)
        options |= {k: v for k, v in (("W", input_init), ("U", recurrent_init)) if v is not None}
        accepted = {layer.name: _options(layer.cell, options) for layer in self.layers}
        for name in options:
            if not any(name in taken for taken in accepted.values()):
                asked = {"W": "input_init", "U": "recurrent_init"}.get(name, name)
                known = sorted({option for layer in self.layers for option in _known(layer.cell) or ()} - {"W", "U"})
                raise ValueRangeError(
                    f"{asked} is an option that no cell of {self.cell!r} has in its init; expected "
                    f"{', '.join(['input_init', 'recurrent_init', 'readout_init', 'dtype', *known])}"
                )
        params: Params = {}
        for layer in self.layers:
            own = layer.cell.init(rng, layer.input_size, layer.hidden_size, **accepted[layer.name])
            params |= {f"{layer.name}.{key}": np.asarray(value).astype(dtype) for key, value in own.items()}
        if self.output_size is not None:
            shape = (self.output_size, self.top_size)
            bound = 1.0 / np.sqrt(shape[1])
            V = rng.uniform(-bound, bound, shape) if readout_init is None else readout_init(rng, shape)
            params |= {"readout.V": V.astype(dtype), "readout.b_y": np.zeros(shape[0], dtype)}
        return params

    def ensemble_shape(self, key: str, value: Array) -> tuple[int, ...]:
        """The ensemble axes in front of parameter `key`."""
        return value.shape[: value.ndim - len(self.shapes[key])]


def _require_init(name: str, chosen: Any) -> None:
    if chosen is None:
        return
    require_callable(name, chosen, "(rng, shape), such as gradlab.inits.orthogonal()")
    if chosen in inits.FACTORIES:
        raise ValueRangeError(f"{name} is the function {chosen.__name__}; expected what it makes; try {chosen.__name__}()")


def _options(cell: Cell, options: dict[str, Any]) -> dict[str, Any]:
    """Those of `options` that the cell's own `init` names."""
    known = _known(cell)
    return options if known is None else {name: value for name, value in options.items() if name in known}


def _known(cell: Cell) -> list[str] | None:
    """The options of the cell's own `init`; None if it takes any."""
    init = cell.user_cell.init if isinstance(cell, Completed) else cell.init
    parameters = list(inspect.signature(init).parameters.values())[3:]  # behind rng, input_size, hidden_size
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]
