"""The simple recurrent network of Elman (1990)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from gradlab._validate import require_callable, require_number, require_one_of
from gradlab.cells import activations
from gradlab.cells.base import (
    Array,
    Cell,
    Init,
    Params,
    affine_rows,
    draw,
    outer_rows,
    row,
    rows,
    sum_rows,
    transpose,
    turned,
    unrows,
)


class Elman(Cell):
    """h_t = f(W x_t + U h_{t-1} + b);  J_t = diag(f'(a_t)) U.

    Elman (1990), "Finding structure in time", Cognitive Science 14. State: h (H). Trained here by full
    backpropagation through time. Pascanu, Mikolov & Bengio (2013) take the pre-activation as state
    instead: the same Lyapunov spectrum, other norms over finite times.

    `activation`: tanh, sigmoid, relu, leaky_relu (0.01), hard_tanh or linear. Parameters: W (H, D), U (H, H), b (H,).
    `W`, `U`: the inits that `init` uses where it is given none.
    """

    def __init__(self, activation: str = "tanh", *, W: Init | None = None, U: Init | None = None) -> None:
        self.activation = activations.ALL[require_one_of("activation", activation, activations.ALL)]
        for name, init in (("W", W), ("U", U)):
            if init is not None:
                require_callable(name, init, "(rng, shape), such as gradlab.inits.orthogonal()")
        self.default_W, self.default_U = W, U

    def __repr__(self) -> str:
        return f"Elman({self.activation.name!r})"

    def init(
        self, rng: np.random.Generator, input_size: int, hidden_size: int, *, W: Init | None = None, U: Init | None = None
    ) -> Params:
        """Matrices by the inits `W` and `U` (default: the cell's own, else uniform in +-1/sqrt(H)), bias 0."""
        return {
            "W": draw(rng, W or self.default_W, 1, hidden_size, input_size),
            "U": draw(rng, U or self.default_U, 1, hidden_size, hidden_size),
            "b": np.zeros(hidden_size),
        }

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        W, U, b = params["W"], params["U"], params["b"]
        return self.activation.value(x_t @ transpose(W) + s_prev @ transpose(U) + row(b))

    # The tape is the pre-activation a_t until the step turns it into the slope f'(a_t).

    def tape_shape(self, input_size: int, hidden_size: int) -> tuple[int, int]:
        return 1, hidden_size

    def pre_size(self, input_size: int, hidden_size: int) -> int:
        return hidden_size

    def prepare(self, params: Params, rows: tuple[int, ...]) -> dict[str, Any]:
        U = params["U"]
        return dict(params, U_T=turned(U), pre=np.empty((*rows, U.shape[-1]), U.dtype))

    def project(self, p: dict[str, Any], x: Array, a: Array) -> None:
        affine_rows(x, p["W"], p["b"], out=a[:, 0])

    def step_into(self, p: dict[str, Any], a_t: Array, s_prev: Array, s_out: Array, t: int) -> None:
        pre = p["pre"]  # contiguous, as the members of an ensemble are not in `s_out`: a third of the time of the whole step
        np.matmul(s_prev, p["U_T"], out=pre)
        pre += a_t[0]
        self.activation.value_and_slope(pre, s_out, a_t[0])

    def step_vjp(
        self, p: dict[str, Any], a_t: Array, s_prev: Array, s_t: Array, delta: Array, da_out: Array, ds_out: Array, t: int
    ) -> None:
        np.multiply(delta, a_t[0], out=da_out)
        np.matmul(da_out, p["U"], out=ds_out)

    def input_grad(self, p: dict[str, Any], da: Array) -> Array:
        return unrows(np.matmul(rows(da), p["W"]), da)

    def param_grads(self, p: dict[str, Any], x: Array, a: Array, s: Array, da: Array, delta: Array, t: Array) -> Params:
        return {"W": outer_rows(da, x), "U": outer_rows(da, s[:-1]), "b": sum_rows(da)}

    def jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        J: Array = a[:, 0, ..., :, None] * p["U"][..., None, :, :]
        return J

    def jacobian_products(self, p: dict[str, Any], a: Array) -> Iterator[Callable[[Array], Array]]:
        """Z -> J_t Z for each step of the tape, for any number n of tangent vectors Z (*E, B, H, n): J_t is never formed."""
        U = p["U"][..., None, :, :]

        def product(slope: Array, Z: Array) -> Array:
            da: Array = np.matmul(U, Z)
            da *= slope
            return da

        return (partial(product, slope) for slope in a[:, 0, ..., None])

    def input_jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        G: Array = a[:, 0, ..., :, None] * p["W"][..., None, :, :]
        return G


def irnn(factor: float = 1.0, input_std: float = 0.001) -> Elman:
    """The IRNN of Le, Jaitly & Hinton (2015): an Elman net with ReLU, U = `factor` I, W ~ N(0, `input_std`^2), b = 0.

    The paper's factor is 1, and 0.01 for speech. At the start every singular value of J_t is 0 or `factor`.
    """
    require_number("factor", factor)
    require_number("input_std", input_std)

    def scaled_identity(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return factor * np.eye(*shape)

    def small(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return rng.normal(0.0, input_std, shape)

    return Elman("relu", W=small, U=scaled_identity)
