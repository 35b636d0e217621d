"""Any object with `init` and `step` as a full cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gradlab.cells.base import FAST_PATH, Array, Cell, Params
from gradlab.errors import DTypeError, ShapeError, ValueRangeError

OPTIONAL: tuple[str, ...] = ("state_size", "parts", "output", "output_vjp", "prepare", "gate_values", "pre_spans", *FAST_PATH)
OPTIONAL += ("jacobian", "jacobian_into", "input_jacobian")


class Completed(Cell):
    """A user's object, with the defaults of the contract for all that it lacks.

    Its `step` and `vjp` are called for one ensemble member at a time, with parameters of their own axes alone: code
    that writes `params["W"].T` would otherwise mix members where the sizes happen to agree.
    """

    def __init__(self, user_cell: Any) -> None:
        self.user_cell = user_cell
        self.gates = tuple(getattr(user_cell, "gates", ()))
        for name in OPTIONAL:
            if _own(user_cell, name):
                setattr(self, name, getattr(user_cell, name))
        if getattr(user_cell, "vjp", None) is not None:
            self.vjp = self._member_vjp

    def __repr__(self) -> str:
        kind: Any = type(self.user_cell)
        return f"{kind.__name__}()" if kind.__repr__ is object.__repr__ else repr(self.user_cell)

    def init(self, rng: Any, input_size: int, hidden_size: int, **options: Any) -> Params:
        params: Params = self.user_cell.init(rng, input_size, hidden_size, **options)
        return params

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        lead = np.broadcast_shapes(x_t.shape[:-2], s_prev.shape[:-2])
        call: Callable[..., Array] = self.user_cell.step
        if not lead:
            return call(params, x_t, s_prev, t)
        found = [call(own, x, s, t) for own, x, s in _members(lead, params, x_t, s_prev)]
        return np.stack(found).reshape(*lead, *found[0].shape)

    def _member_vjp(self, params: Params, x_t: Array, s_prev: Array, delta: Array, t: int) -> tuple[Params, Array, Array]:
        lead = delta.shape[:-2]
        found = [self._checked_vjp(own, x, s, d, t) for own, x, s, d in _members(lead, params, x_t, s_prev, delta)]
        if not lead:
            return found[0]

        def stack(values: list[Array]) -> Array:
            return np.stack(values).reshape(*lead, *values[0].shape)

        gradients = {key: stack([own[key] for own, _, _ in found]) for key in params}
        return gradients, stack([dx for _, dx, _ in found]), stack([ds for _, _, ds in found])

    def _checked_vjp(self, params: Params, x_t: Array, s_prev: Array, delta: Array, t: int) -> tuple[Params, Array, Array]:
        """The user's vjp, with one clear error for what it must not return."""
        found = self.user_cell.vjp(params, x_t, s_prev, delta, t)
        if not isinstance(found, tuple) or len(found) != 3 or not isinstance(found[0], dict):
            raise DTypeError(f"{self!r}.vjp returned {type(found).__name__}; expected the tuple (dtheta, dx_t, ds_prev)")
        if set(found[0]) != set(params):
            raise ValueRangeError(
                f"{self!r}.vjp returned gradients of {sorted(found[0])}; expected one for each of {sorted(params)}"
            )
        wanted = [(f'dtheta["{key}"]', found[0][key], value) for key, value in params.items()]
        for name, value, like in [*wanted, ("dx_t", found[1], x_t), ("ds_prev", found[2], s_prev)]:
            if np.shape(value) != like.shape:
                raise ShapeError(f"{self!r}.vjp returned {name} of shape {np.shape(value)}; expected {like.shape}")
        return found


def _members(lead: tuple[int, ...], params: Params, *blocks: Array) -> Iterator[tuple[Any, ...]]:
    """Parameters and blocks (rows, columns) of each ensemble member."""
    depth = len(lead)
    for index in np.ndindex(lead):

        def pick(value: Array, own_axes: int, index: tuple[int, ...] = index) -> Array:
            axes = value.shape[: value.ndim - own_axes]
            picked: Array = value[tuple(0 if n == 1 else k for n, k in zip(axes, index[depth - len(axes) :], strict=True))]
            return picked

        yield {key: pick(value, value.ndim - depth) for key, value in params.items()}, *(pick(block, 2) for block in blocks)


def _own(cell: Any, name: str) -> bool:
    """Whether the user's cell brings `name` itself, and does not merely inherit the default."""
    if isinstance(cell, Cell):
        return getattr(type(cell), name) is not getattr(Cell, name) or name in vars(cell)
    return hasattr(cell, name)


def as_cell(cell: Any) -> Cell:
    """`cell` itself if it has the whole fast path, else completed from its `init` and `step`.

    Errors: DTypeError if one of the two is missing, or if only some methods of the fast path are there.
    """
    if isinstance(cell, type):
        raise DTypeError(f"cell is the class {cell.__name__}; expected an instance; try {cell.__name__}()")
    if isinstance(cell, Completed):
        return cell
    for name in ("init", "step"):
        if not callable(getattr(cell, name, None)) or (isinstance(cell, Cell) and not _own(cell, name)):
            raise DTypeError(
                f"cell is {cell!r} without a method {name}; expected init(rng, input_size, hidden_size) and "
                "step(params, x_t, s_prev, t)"
            )
    given = [name for name in FAST_PATH if _own(cell, name)]
    if given and len(given) < len(FAST_PATH):
        missing = [name for name in FAST_PATH if name not in given]
        raise DTypeError(f"cell {cell!r} has {', '.join(given)} but not {', '.join(missing)}; these belong together: all or none")
    return cell if isinstance(cell, Cell) and given else Completed(cell)
