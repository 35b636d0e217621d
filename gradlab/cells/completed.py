"""Any object with `init` and `step` as a full cell."""

from __future__ import annotations

from typing import Any

from gradlab.cells.base import FAST_PATH, Array, Cell, Params
from gradlab.errors import DTypeError

OPTIONAL = (
    "state_size",
    "parts",
    "output",
    "output_vjp",
    "vjp",
    "prepare",
    "jacobian",
    "input_jacobian",
    "gate_values",
    *FAST_PATH,
)


class Completed(Cell):
    """A user's object, with the defaults of the contract for all that it lacks."""

    def __init__(self, user_cell: Any) -> None:
        self.user_cell = user_cell
        self.gates = tuple(getattr(user_cell, "gates", ()))
        for name in OPTIONAL:
            if hasattr(user_cell, name):
                setattr(self, name, getattr(user_cell, name))

    def __repr__(self) -> str:
        return repr(self.user_cell)

    def init(self, rng: Any, input_size: int, hidden_size: int, **options: Any) -> Params:
        params: Params = self.user_cell.init(rng, input_size, hidden_size, **options)
        return params

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        s_t: Array = self.user_cell.step(params, x_t, s_prev, t)
        return s_t


def as_cell(cell: Any) -> Cell:
    """`cell` itself if it is a Cell, else completed from its `init` and `step`.

    Errors: DTypeError if one of the two is missing, or if only some methods of the fast path are there.
    """
    if isinstance(cell, type):
        raise DTypeError(f"cell is the class {cell.__name__}; expected an instance; try {cell.__name__}()")
    for name in ("init", "step"):
        if not callable(getattr(cell, name, None)):
            raise DTypeError(
                f"cell is {cell!r} without a method {name}; expected init(rng, input_size, hidden_size) and "
                "step(params, x_t, s_prev, t)"
            )
    if isinstance(cell, Cell):
        return cell
    given = [name for name in FAST_PATH if hasattr(cell, name)]
    if given and len(given) < len(FAST_PATH):
        missing = [name for name in FAST_PATH if name not in given]
        raise DTypeError(f"cell {cell!r} has {', '.join(given)} but not {', '.join(missing)}; these belong together: all or none")
    return Completed(cell)
