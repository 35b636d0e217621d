"""The defaults of the cell contract: any `step` differentiated exactly, by complex steps.

One evaluation for each parameter entry and one for all directions of the input and of the state, which are
folded into the batch (rows are independent). Slow and exact; once per pass the complex step is compared
with a Richardson extrapolation in one direction, since functions such as np.abs drop the imaginary part
without a word.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gradlab._derivatives import complex_step, richardson
from gradlab.errors import DTypeError, NumericalError

Array = npt.NDArray[Any]
Params = dict[str, Array]


class Cell(Protocol):
    """What differentiation needs of a cell (`gradlab.cells.base.Cell` is one)."""

    @property
    def vjp(self) -> Callable[[Params, Array, Array, Array, int], tuple[Params, Array, Array]] | None:
        """The adjoint of one step, if the cell has it in closed form."""

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        """One step."""

    def output(self, s: Array, s_prev: Array) -> Array:
        """What the layer emits."""


REMEDY = (
    "use functions that carry complex numbers (np.sqrt((z*z).sum()) for np.linalg.norm, np.where(z.real < 0, -z, z) "
    "for np.abs, gradlab's sigmoid), or give the cell a closed form vjp(params, x_t, s_prev, delta, t)"
)


def prepare(cell: Cell, params: Params) -> dict[str, Any]:
    """Work space of the default backward pass: the parameters and their gradients so far."""
    return {"params": params, "gradients": {k: np.zeros_like(v) for k, v in params.items()}, "verified": False}


def collect(p: dict[str, Any]) -> Params:
    """The gradients that the backward steps summed on their way, which start from zero again."""
    gradients: Params = p["gradients"]
    p["gradients"] = {key: np.zeros_like(value) for key, value in p["params"].items()}
    return gradients


def _require_real(cell: Cell, *arrays: Array) -> None:
    for array in arrays:
        if np.iscomplexobj(array):
            raise DTypeError(
                f"{cell!r} differentiates its step by complex steps, so its backward pass cannot run in {array.dtype}; "
                "second derivatives need the closed form vjp(params, x_t, s_prev, delta, t)"
            )


def verify(cell: Cell, params: Params, x_t: Array, s_prev: Array, t: int) -> None:
    """Raise NumericalError unless complex step and Richardson agree in one direction of (theta, x, s)."""

    def step(x: Array, s: Array, *theta: Array) -> Array:
        return np.asarray(cell.step(dict(zip(params, theta, strict=True)), x, s, t))

    _compare(f"{cell!r}: step at t = {t}", step, [x_t, s_prev, *params.values()])


def verify_output(cell: Cell, s: Array, s_prev: Array) -> None:
    """As `verify`, of the cell's `output`."""
    _compare(f"{cell!r}: output", lambda now, before: np.asarray(cell.output(now, before)), [s, s_prev])


def _compare(name: str, f: Callable[..., Array], point: list[Array]) -> None:
    point = [v.astype(np.float64) for v in point]
    rng = np.random.default_rng(0)
    direction = [rng.uniform(0.5, 1.0, v.shape) * rng.choice([-1.0, 1.0], v.shape) for v in point]

    def along(shift: Array) -> Array:
        return f(*(v + shift * d for v, d in zip(point, direction, strict=True)))

    with np.errstate(all="ignore"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                exact = complex_step(along, np.zeros(()), np.ones(()))
        except Exception as error:  # a user's code may refuse complex numbers in any way
            raise NumericalError(f"{name} refuses complex numbers ({error}); {REMEDY}") from error
        estimate, bound = richardson(along, np.zeros(()), np.ones(()))
    gap = np.abs(exact - estimate)
    if not (gap <= 100.0 * bound + 1e-7 * np.abs(estimate)).all():
        worst = np.unravel_index(int(np.argmax(gap)), gap.shape)
        raise NumericalError(
            f"{name}: complex step and Richardson disagree on its derivative: {exact[worst]:.6g} and {estimate[worst]:.6g}, "
            f"estimated error {bound[worst]:.1g}. Either it is not complex-safe or the state sits on a kink; {REMEDY}"
        )


def _directions(cell: Cell, params: Params, x_t: Array, s_prev: Array, t: int, wrt: str) -> Array:
    """D step/d(one of x_t, s_prev): (*E, B, S, n), all n directions in one evaluation, folded into the batch."""
    target = x_t if wrt == "x" else s_prev
    lead = np.broadcast_shapes(x_t.shape[:-1], s_prev.shape[:-1])
    n, batch = target.shape[-1], lead[-1]

    def tile(v: Array) -> Array:
        full = np.broadcast_to(v, (*lead, v.shape[-1]))
        return np.repeat(full[..., None, :], n, axis=-2).reshape(*lead[:-1], batch * n, v.shape[-1])

    xs, ss = tile(x_t).astype(np.float64), tile(s_prev).astype(np.float64)
    basis = np.tile(np.eye(n), (batch, 1))

    def f(v: Array) -> Array:
        return np.asarray(cell.step(params, v, ss, t) if wrt == "x" else cell.step(params, xs, v, t))

    columns = complex_step(f, xs if wrt == "x" else ss, np.broadcast_to(basis, (*lead[:-1], batch * n, n)))
    return np.swapaxes(columns.reshape(*lead, n, columns.shape[-1]), -1, -2)


def state_jacobian(cell: Cell, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
    """J_t = ds_t/ds_{t-1} by complex step: (*E, B, S, S)."""
    return _directions(cell, params, x_t, s_prev, t, "s")


def input_jacobian(cell: Cell, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
    """G_t = ds_t/dx_t by complex step: (*E, B, S, D)."""
    return _directions(cell, params, x_t, s_prev, t, "x")


def step_vjp(cell: Cell, params: Params, x_t: Array, s_prev: Array, delta: Array, t: int) -> tuple[Params, Array, Array]:
    """(dtheta, dx_t, ds_prev) of one step by complex steps, for the cotangent `delta` (*E, B, S)."""
    _require_real(cell, x_t, s_prev, delta)
    wide = {k: v.astype(np.float64) for k, v in params.items()}
    dx = np.einsum("...s,...sd->...d", delta, _directions(cell, wide, x_t, s_prev, t, "x"))
    ds = np.einsum("...s,...sd->...d", delta, _directions(cell, wide, x_t, s_prev, t, "s"))
    ensemble = delta.ndim - 2
    gradients = {}
    for key, value in wide.items():
        own = value.shape[ensemble:]
        gradient = np.empty(delta.shape[:ensemble] + own)
        for index in np.ndindex(own):
            v = np.zeros(value.shape)
            v[(..., *index)] = 1.0

            def f(theta: Array, key: str = key) -> Array:
                return np.asarray(cell.step({**wide, key: theta}, x_t, s_prev, t))

            gradient[(..., *index)] = (complex_step(f, value, v) * delta).sum(axis=(-2, -1))
        gradients[key] = gradient
    return gradients, dx, ds


def tape_step_vjp(
    cell: Cell, p: dict[str, Any], a_t: Array, s_prev: Array, delta: Array, da_out: Array, ds_out: Array, t: int
) -> None:
    """Default of `Cell.step_vjp`: the tape holds x_t, da is dx_t, parameter gradients are summed on the way."""
    params = p["params"]
    if cell.vjp is not None:
        gradients, dx, ds = cell.vjp(params, a_t, s_prev, delta, t)
    else:
        if not p["verified"]:
            _require_real(cell, a_t, s_prev)
            verify(cell, params, a_t, s_prev, t)
            p["verified"] = True
        gradients, dx, ds = step_vjp(cell, params, a_t, s_prev, delta, t)
    da_out[...] = dx
    ds_out[...] = ds
    for key, value in gradients.items():
        p["gradients"][key] = p["gradients"][key] + value.astype(p["gradients"][key].dtype)


def tape_jacobian(cell: Cell, p: dict[str, Any], a: Array, s_prev: Array, t: Array) -> Array:
    """Default of `Cell.jacobian`: from the cell's own `vjp` if it has one, else one complex step of `step` a time step."""
    return _tape_jacobian(cell, p, a, s_prev, t, "s")


def tape_input_jacobian(cell: Cell, p: dict[str, Any], a: Array, s_prev: Array, t: Array) -> Array:
    """Default of `Cell.input_jacobian`, as `tape_jacobian`."""
    return _tape_jacobian(cell, p, a, s_prev, t, "x")


def _tape_jacobian(cell: Cell, p: dict[str, Any], a: Array, s_prev: Array, t: Array, wrt: str) -> Array:
    params = p["params"]
    if cell.vjp is not None:
        steps = []
        for k in range(len(t)):
            units = np.eye(s_prev.shape[-1], dtype=s_prev.dtype)
            found = [cell.vjp(params, a[k], s_prev[k], np.broadcast_to(unit, s_prev[k].shape), int(t[k])) for unit in units]
            steps.append(np.stack([dx if wrt == "x" else ds for _, dx, ds in found], axis=-2))
        return np.stack(steps)
    _require_real(cell, a, s_prev)
    if not p["verified"]:
        verify(cell, params, a[-1], s_prev[-1], int(t[-1]))
        p["verified"] = True
    exact = [_directions(cell, params, a[k], s_prev[k], int(t[k]), wrt) for k in range(len(t))]
    return np.stack(exact).astype(s_prev.dtype)


def add_output_vjp(cell: Cell, s: Array, s_prev: Array, dy: Array, ds: Array, ds_prev: Array) -> None:
    """Default of `Cell.output_vjp`, by complex steps along each entry of the state."""
    _require_real(cell, s, s_prev, dy)
    verify_output(cell, s, s_prev)
    for k in range(s.shape[-1]):
        v = np.zeros(s.shape[-1])
        v[k] = 1.0
        for target, along_now in ((ds, True), (ds_prev, False)):

            def f(u: Array, along_now: bool = along_now) -> Array:
                return np.asarray(cell.output(u, s_prev) if along_now else cell.output(s, u))

            column = complex_step(f, (s if along_now else s_prev).astype(np.float64), v)
            target[..., k] += np.sum(column * dy, axis=-1)
