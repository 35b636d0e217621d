"""One layer as a map of its state, under a constant input; its Jacobian; where it stands still."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import as_numbers, require_count, require_finite, require_one_of
from gradlab.cells import Clockwork
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.forward_pass import LayerPass, checked_params, forward
from gradlab.network import Network, Params

Array = npt.NDArray[Any]

LATER = (1, 2, 3, 7)
"""The cycles after the first one at which a map must be what it was."""


@dataclass(frozen=True)
class StateMap:
    """F: s -> the state after `period` steps from step 0 with the input `x`, for M networks at once.

    States are (M, N, S): N rows for each network. `params` carry M in front, or nothing where all share; `x` (M or 1, D).
    """

    net: Network
    params: Params
    x: Array
    members: int
    period: int

    @property
    def state_size(self) -> int:
        """Size S of the state."""
        return self.net.layers[0].state_size

    def part(self, at: slice) -> StateMap:
        """The map of some of the networks."""
        own = {k: v[at] if v.ndim > len(self.net.shapes[k]) and len(v) > 1 else v for k, v in self.params.items()}
        return replace(self, params=own, x=self.x[at] if len(self.x) > 1 else self.x, members=len(range(self.members)[at]))

    def moved(self, params: Params) -> StateMap:
        """The same map with other parameters."""
        return replace(self, params=params)

    def __call__(self, s: Array, start: int = 0) -> Array:
        """F(s), (M, N, S); NaN or infinite where it leaves the range of floats."""
        after: Array = self._run(s, start).states[-1]
        return after

    def with_jacobian(self, s: Array) -> tuple[Array, Array]:
        """F(s) and dF/ds, (M, N, S) and (M, N, S, S)."""
        run = self._run(s, 0)
        J = run.window(0, 1).jacobians()[0]
        with np.errstate(all="ignore"):
            for k in range(1, self.period):
                J = np.matmul(run.window(k, k + 1).jacobians()[0], J)
        return run.states[-1], J

    def _run(self, s: Array, start: int) -> LayerPass:
        x = np.broadcast_to(self.x[:, None, :], (self.period, len(self.x), s.shape[-2], self.x.shape[-1]))
        return forward(self.net, self.params, x, {"0": s}, first_step=start).runs["0"]


def state_map(net: Network, params: Mapping[str, Array], x: Array, layer: str, period: int | None, ensemble: bool) -> StateMap:
    """The map of `layer` of `net`. `ensemble`: whether `params` or `x` carry the axis (M,) of a family in front, or nothing.

    Errors: ShapeError, DTypeError, ValueRangeError; the last one for a cell that is not periodic with `period`.
    """
    layers = {one.name: one for one in net.layers}
    own = layers[require_one_of("layer", layer, layers)]
    prefix = f"{own.name}."
    values = {key: value for key, value in checked_params(net, params).items() if key.startswith(prefix)}
    for key, value in values.items():
        if np.iscomplexobj(value):
            raise DTypeError(f'params["{key}"] has dtype {value.dtype}; expected real parameters')
    x = as_numbers("x", x, allow_complex=False).astype(np.float64)
    require_finite("x", x)
    leads = {key: net.ensemble_shape(key, value) for key, value in values.items()} | {"x": x.shape[:-1]}
    most = 1 if ensemble else 0
    wrong = {key: lead for key, lead in leads.items() if len(lead) > most}
    if wrong:
        want = "one in front, for the family" if ensemble else "none; try gradlab.analysis.bifurcation"
        raise ShapeError(f"ensemble axes are {wrong}; expected {want}")
    if x.ndim == 0 or x.shape[-1] != own.input_size:
        raise ShapeError(f"x has shape {x.shape}; expected ({own.input_size},): the constant input of layer {layer}")
    try:
        lead = np.broadcast_shapes((1,), *leads.values())
    except ValueError as error:
        raise ShapeError(f"ensemble axes do not broadcast: {leads}; expected equal sizes, or 1") from error
    single = Network(own.cell, own.input_size, own.hidden_size)
    theta = {f"0.{key.removeprefix(prefix)}": value.astype(np.float64) for key, value in values.items()}
    found = StateMap(single, theta, np.atleast_2d(x), lead[0], _period(own.cell, period))
    _require_periodic(found, layer)
    return found


def _period(cell: Any, period: int | None) -> int:
    if period is not None:
        return require_count("period", period)
    return math.lcm(*cell.periods) if isinstance(cell, Clockwork) else 1


def _require_periodic(found: StateMap, layer: str) -> None:
    """A fixed point means something only where every application of the map is the same function."""
    rng = np.random.default_rng(0)
    s = rng.normal(size=(found.members, 2, found.state_size))
    first = found(s)
    for cycle in LATER:
        if not np.array_equal(found(s, cycle * found.period), first, equal_nan=True):
            raise ValueRangeError(
                f"period is {found.period}; the cell {found.net.cell!r} of layer {layer} does something else at step "
                f"{cycle * found.period} than at step 0: it depends on t; expected period = the length of its whole cycle"
            )
