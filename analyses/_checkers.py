"""Other libraries' gradient checkers, with their own defaults, and the problems that they are given.

A problem is a pair (f, vjp) and the point: f(*arrays) -> array, vjp(*arrays, cotangent) -> one array for each argument. Each
checker is handed the same pair, wrapped as its library wants it, in float64. None of them sees a derivative of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab.checks import Example

Array = npt.NDArray[Any]
Function = Callable[..., Array]
Vjp = Callable[..., tuple[Array, ...]]
Checker = Callable[[Function, Vjp, tuple[Array, ...]], bool]
"""(f, vjp, arguments) -> True if the gradient is rejected."""


def torch_rejects(f: Function, vjp: Vjp, args: tuple[Array, ...], fast_mode: bool) -> bool:
    """`torch.autograd.gradcheck`: central differences, step 1e-6, atol 1e-5, rtol 1e-3."""
    import torch

    class Wrapped(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            ctx.save_for_backward(*tensors)
            return torch.from_numpy(f(*(tensor.detach().numpy() for tensor in tensors)))

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            given = (tensor.detach().numpy() for tensor in ctx.saved_tensors)
            return tuple(torch.from_numpy(np.asarray(found)) for found in vjp(*given, gradients[0].numpy()))

    tensors = tuple(torch.from_numpy(value.copy()).requires_grad_() for value in args)
    return not torch.autograd.gradcheck(Wrapped.apply, tensors, fast_mode=fast_mode, raise_exception=False)


def jax_rejects(f: Function, vjp: Vjp, args: tuple[Array, ...]) -> bool:
    """`jax.test_util.check_grads(order=1, modes=("rev",))`: one random direction, step 1e-4, atol and rtol 1e-5.

    That is `check_vjp` on what `jax.vjp` returns; here on the pair itself, which spares a compilation for each call.
    """
    import jax
    from jax.test_util import check_vjp

    def f_vjp(*values: Array) -> tuple[Array, Callable[[Array], tuple[Array, ...]]]:
        return f(*values), lambda cotangent: tuple(vjp(*values, np.asarray(cotangent)))

    with jax.enable_x64(True):  # else float64 is judged by the tolerance of float32
        try:
            check_vjp(f, f_vjp, args)
        except AssertionError:
            return True
    return False


PEERS: dict[str, Checker] = {
    "torch gradcheck": lambda f, vjp, args: torch_rejects(f, vjp, args, False),
    "torch gradcheck, fast": lambda f, vjp, args: torch_rejects(f, vjp, args, True),
    "jax check_grads": jax_rejects,
}
"""With the defaults of each library."""


def as_functions(example: Example) -> tuple[Function, Vjp, tuple[Array, ...]]:
    """The outputs of an example as a function of its parameters alone, their gradients, and the parameters."""
    names = list(example.params)

    def f(*values: Array) -> Array:
        params = dict(zip(names, values, strict=True))
        return gradlab.forward(example.net, params, example.x, example.initial).outputs

    def vjp(*given: Array) -> tuple[Array, ...]:
        *values, weight = given
        params, batch = dict(zip(names, values, strict=True)), gradlab.Batch(example.x, weight)

        def linear(outputs: Array, targets: Array, mask: Array | None) -> tuple[Array, Array]:
            return (outputs * targets).sum(), targets

        found = gradlab.bptt(example.net, params, batch, linear, (), initial_states=example.initial).gradients
        return tuple(found[name] for name in names)

    return f, vjp, tuple(example.params.values())


@dataclass(frozen=True)
class Vanishing:
    """h_0 -> h_T of h_t = tanh(U h_{t-1} + b_t), at a point `start` where the largest entry of |dh_T/dh_0| is given.

    `U` (H, H), `b` (T, H).
    """

    U: Array
    b: Array
    start: Array

    def states(self, h: Array) -> list[Array]:
        """h_1, ..., h_T."""
        found = []
        for b_t in self.b:
            h = np.tanh(self.U @ h + b_t)
            found.append(h)
        return found

    def f(self, h: Array) -> Array:
        """h_T."""
        return self.states(h)[-1]

    def vjp(self, h: Array, cotangent: Array) -> tuple[Array, ...]:
        """Its adjoint, by hand."""
        adjoint = cotangent
        for h_t in reversed(self.states(h)):
            adjoint = ((1.0 - h_t * h_t) * adjoint) @ self.U
        return (adjoint,)

    def jacobian(self) -> Array:
        """dh_T/dh_0 at `start`: the product of diag(1 - h_t^2) U (Pascanu, Mikolov & Bengio 2013, eq. 5)."""
        J = np.eye(len(self.U))
        for h_t in self.states(self.start):
            J = (1.0 - h_t * h_t)[:, None] * self.U @ J
        return J

    def gap(self) -> float:
        """Largest difference of that product from a complex step, relative to the largest entry."""
        J, units = self.jacobian(), np.eye(len(self.U))
        exact = np.stack([self.f(self.start + 1e-200j * unit).imag / 1e-200 for unit in units], axis=-1)
        return float(np.abs(J - exact).max() / np.abs(J).max())

    def example(self, cell: Any) -> Example:
        """The same net in gradlab: an Elman `cell` that reads b_t through W = I, with a loss of its last state alone."""
        H = len(self.U)
        net = gradlab.Network(cell, H, H, readout="last")
        params = {"0.W": np.eye(H), "0.U": self.U, "0.b": np.zeros(H)}
        weight = np.where(np.arange(H) % 2, -1.0, 1.0) * np.linspace(0.5, 1.5, H)
        return Example(net, params, self.b[:, None], {"0": self.start[None]}, weight[None])


def vanishing(rng: np.random.Generator, T: int, H: int, radius: float, size: float) -> Vanishing:
    """A random net with U of the given spectral radius, and b_t as large as it takes for max |dh_T/dh_0| = `size`."""
    U = rng.normal(size=(H, H))
    U *= radius / np.abs(np.linalg.eigvals(U)).max()
    direction, start = rng.normal(size=(T, H)), rng.uniform(-1.0, 1.0, H)
    low, high = 0.0, 4.0  # the stronger the drive the more the units saturate
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = np.abs(Vanishing(U, middle * direction, start).jacobian()).max() > size
        low, high = (middle, high) if above else (low, middle)
    return Vanishing(U, low * direction, start)
