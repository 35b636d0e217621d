"""The contract of a cell: s_t = F(x_t, s_{t-1}, t; theta).

A cell needs `init` and `step`. Everything else has a default, slow and exact, that differentiates `step`
by complex steps (`gradlab.cells.differentiation`); a built-in cell has closed forms instead, and the
contract test holds each closed form against the default.

Shapes inside a cell: a block of states is (*E, B, S) with any number of ensemble axes E in front;
parameters have E in front of their own axes (as many as the state, each of size 1 or E). Sequences are
time-major views, (T, ..., B, K), on memory with time behind the other leading axes, so that `rows`
flattens time and batch for one large contraction without a copy. The tape carries one more axis in front
of the ensemble, for blocks such as gates: (T, G, *E, B, H). Each gate at each step is then one contiguous
block of memory. Everything runs in float32, float64 and complex128.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.cells import differentiation

Array = npt.NDArray[Any]
Params = dict[str, Array]
Init = Callable[[np.random.Generator, tuple[int, int]], Array]
"""Draws one matrix of the given shape (rows, columns): see `gradlab.inits`."""


StepVJP = Callable[[Params, Array, Array, Array, int], tuple[Params, Array, Array]]


class Cell:
    """Base class of all cells; states the contract and holds the defaults.

    Needed: `init` and `step`. Worth adding to a cell of your own is the adjoint of one step for the cotangent `delta`
    (*E, B, S), `vjp(params, x_t, s_prev, delta, t) -> (dtheta, dx_t, ds_prev)`, dtheta as `params` in keys and shapes;
    `gradlab.checks.check_cell` holds it against a complex step of `step`. For a state of several parts: `state_size`,
    `parts`, `output`.
    """

    gates: tuple[str, ...] = ()
    """Names of the gates, in the order in which `gate_values` lists them and W, U, b stack them."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Two ways to the same numbers: a `jacobian` of its own must not be passed over by an inherited `jacobian_into`.
        if "jacobian" in vars(cls) and "jacobian_into" not in vars(cls):
            cls.jacobian_into = Cell.jacobian_into  # type: ignore[method-assign]

    # ---- what every cell must have -------------------------------------------------------------------

    def init(self, rng: np.random.Generator, input_size: int, hidden_size: int) -> Params:
        """Parameters drawn from `rng`, keyed by the letters of the paper."""
        raise NotImplementedError(f"{type(self).__name__} has no init(rng, input_size, hidden_size)")

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        """One step, as the paper prints it: x_t (*E, B, D), s_prev (*E, B, S) -> s_t (*E, B, S).

        `t`: absolute step, 0 for the first one, counted in processing order and continued across chunks.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step(params, x_t, s_prev, t)")

    # ---- what the state is ---------------------------------------------------------------------------

    def state_size(self, hidden_size: int) -> int:
        """Size S of the state."""
        return hidden_size

    def parts(self, hidden_size: int) -> dict[str, int]:
        """Names and widths of the parts of the state, in order; their widths sum to S."""
        return {"h": self.state_size(hidden_size)}

    def output(self, s: Array, s_prev: Array) -> Array:
        """What the layer emits from state `s` (and, for some cells, the state before); default: all of `s`."""
        return s

    def output_vjp(self, s: Array, s_prev: Array, dy: Array, ds: Array, ds_prev: Array) -> None:
        """Add the adjoint of `output` for the cotangent `dy` to `ds` and `ds_prev`, in place."""
        if getattr(self.output, "__func__", None) is Cell.output:  # the identity
            ds += dy
            return
        differentiation.add_output_vjp(self, s, s_prev, dy, ds, ds_prev)

    # ---- one step differentiated: a user's cell may have this closed form alone -------------------------

    vjp: StepVJP | None = None
    """vjp(params, x_t, s_prev, delta, t) -> (dtheta, dx_t, ds_prev): the adjoint of one `step` for the
    cotangent `delta` (*E, B, S). None: `step` is differentiated by complex steps."""

    # ---- the fast path: these belong together ----------------------------------------------------------
    # Its default keeps x_t on the tape and differentiates step by step.

    def tape_shape(self, input_size: int, hidden_size: int) -> tuple[int, int]:
        """(blocks, columns) of the tape: what one row of one step leaves behind for the backward pass."""
        return 1, input_size

    def pre_size(self, input_size: int, hidden_size: int) -> int:
        """Columns of da, the adjoints of the pre-activations that `input_grad` and `param_grads` start from."""
        return input_size

    def prepare(self, params: Params, rows: tuple[int, ...]) -> dict[str, Any]:
        """What one pass computes once: layouts, masks, work space for a block of `rows` = (*E, B)."""
        return differentiation.prepare(self, params)

    def project(self, p: dict[str, Any], x: Array, a: Array) -> None:
        """Fill the tape `a` (T, blocks, *E, B, K) with all that does not depend on the state: W x_t + b for all t at once."""
        a[:, 0] = x

    def step_into(self, p: dict[str, Any], a_t: Array, s_prev: Array, s_out: Array, t: int) -> None:
        """Write s_t to `s_out` and turn `a_t` in place into what the backward pass needs."""
        s_out[...] = self.step(p["params"], a_t[0], s_prev, t)

    def step_vjp(
        self, p: dict[str, Any], a_t: Array, s_prev: Array, s_t: Array, delta: Array, da_out: Array, ds_out: Array, t: int
    ) -> None:
        """Write J_t^T delta to `ds_out` and the adjoint of the pre-activations to `da_out`."""
        differentiation.tape_step_vjp(self, p, a_t[0], s_prev, delta, da_out, ds_out, t)

    def input_grad(self, p: dict[str, Any], da: Array) -> Array:
        """dL/dx (T, *E, B, D) from all `da` (T, *E, B, G*H)."""
        return da

    def param_grads(self, p: dict[str, Any], x: Array, a: Array, s: Array, da: Array, delta: Array, t: Array) -> Params:
        """dL/dtheta from the whole sequence, (*E, ...) each; s, delta (T+1, ...), `t` (T,) the absolute steps."""
        return differentiation.collect(p)

    def jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        """J_t = ds_t/ds_{t-1} of the full state for all steps at once: (T, *E, B, S, S)."""
        return differentiation.tape_jacobian(self, p, a[:, 0], s_prev, t)

    def jacobian_into(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array, out: Array) -> None:
        """Write `jacobian` to `out` (T, *E, B, S, S), which holds zeros: a cell may spare the array in between."""
        out[...] = self.jacobian(p, a, s_prev, s, t)

    def input_jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        """G_t = ds_t/dx_t for all steps at once: (T, *E, B, S, D)."""
        return differentiation.tape_input_jacobian(self, p, a[:, 0], s_prev, t)

    def pre_spans(self, hidden_size: int) -> dict[str, tuple[int, int]]:
        """First and last column of each gate in `da`; of a cell without gates, those of its one block "a"."""
        return {name: (k * hidden_size, (k + 1) * hidden_size) for k, name in enumerate(self.gates or ("a",))}

    def gate_values(self, a: Array) -> dict[str, Array]:
        """Named gate values (T, *E, B, H), read off the tape after the forward pass."""
        return {}


FAST_PATH = ("tape_shape", "pre_size", "project", "step_into", "step_vjp", "input_grad", "param_grads")
"""Methods that only make sense together."""


def rows(x: Array) -> Array:
    """(T, *E, B, K) -> (*E, T*B, K): a view where the memory is ensemble-major."""
    major = np.moveaxis(x, 0, -3)
    return major.reshape(*major.shape[:-3], major.shape[-3] * major.shape[-2], major.shape[-1])


def unrows(flat: Array, like: Array) -> Array:
    """(*E, T*B, K) -> (T, *E, B, K), the view that undoes `rows`; T and B as in `like`."""
    major = flat.reshape(*flat.shape[:-2], like.shape[0], like.shape[-2], flat.shape[-1])
    return np.moveaxis(major, -3, 0)


def affine_rows(x: Array, weight: Array, bias: Array, out: Array) -> None:
    """Out = x @ weight^T + bias for a whole sequence: x (T, *E, B, D), weight (*E, K, D), bias (*E, K), out (T, *E, B, K).

    The memory of `out` must have time and batch side by side, as `gradlab.workspace.time_major` makes it.
    """
    flat = rows(out)
    np.matmul(rows(x), transpose(weight), out=flat)
    if flat.strides[-2:] != (flat.shape[-1] * flat.itemsize, flat.itemsize):  # some columns of wider rows
        flat += row(bias)
        return
    by_step = flat.reshape(*flat.shape[:-2], len(out), -1)
    by_step += row(np.tile(bias, out.shape[-2]))  # one long row for each step takes half as long as many short ones


LONG = 800
"""Rows above which a contraction to a small matrix goes faster in two halves: BLAS packs long operands anew."""
SMALL = 64 * 64


def outer_rows(da: Array, x: Array) -> Array:
    """Sum over t and b of da x^T: the one contraction of a parameter gradient, (*E, K, D)."""
    left, right = transpose(rows(da)), rows(x)
    count = right.shape[-2]
    if count <= LONG or left.shape[-2] * right.shape[-1] > SMALL:
        return np.asarray(np.matmul(left, right))
    half = count // 2
    total: Array = np.matmul(left[..., :half], right[..., :half, :])
    total += np.matmul(left[..., half:], right[..., half:, :])
    return total


def sum_rows(da: Array) -> Array:
    """Sum over t and b: the gradient of a bias, (*E, K)."""
    total: Array = rows(da).sum(axis=-2)
    return total


def split_gates(stacked: Array, gates: int, axis: int) -> Array:
    """The `gates` blocks stacked along `axis` (negative) as a leading axis: (*E, G*H, D), -2 -> (G, *E, H, D). A view."""
    axis += stacked.ndim
    shape = (*stacked.shape[:axis], gates, stacked.shape[axis] // gates, *stacked.shape[axis + 1 :])
    return np.moveaxis(stacked.reshape(shape), axis, 0)


def transpose(matrix: Array) -> Array:
    """The last two axes swapped; no conjugate, so that a complex step passes."""
    return np.swapaxes(matrix, -1, -2)


def turned(matrix: Array) -> Array:
    """The transpose in memory of its own: a product with a few rows is up to six times as fast as with the view."""
    return np.ascontiguousarray(transpose(matrix))


def row(vector: Array) -> Array:
    """(*E, K) -> (*E, 1, K): a vector that broadcasts over the batch."""
    return vector[..., None, :]


def default_init(rng: np.random.Generator, shape: tuple[int, int], hidden_size: int) -> Array:
    """Uniform in +-1/sqrt(H), the common default of recurrent layers."""
    bound = 1.0 / np.sqrt(hidden_size)
    return rng.uniform(-bound, bound, shape)


def draw(rng: np.random.Generator, init: Init | None, gates: int, hidden_size: int, columns: int) -> Array:
    """One matrix of shape (gates*H, columns): each gate's block (H, columns) drawn by `init` on its own."""
    blocks = []
    for _ in range(gates):
        shape = (hidden_size, columns)
        blocks.append(default_init(rng, shape, hidden_size) if init is None else init(rng, shape))
    return np.concatenate(blocks)
