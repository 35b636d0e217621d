"""Analyses of an LSTM: Jacobians, Lyapunov exponents, a loss surface, a Hessian-vector product; all in float64.

What is compared starts from parameters and inputs on every side and ends with the same numbers. JAX is compiled before
its first timed run. Where a library has several ways, the fastest that was found is the one in the row:
- torch's Jacobians by one vmap(jacrev) of all steps, as its manual has it, and, in a row of their own, step by step, which
  takes less memory and less time;
- torch's tangent vectors by vmap(jvp), which never forms a Jacobian; products with those of jacrev take 3 to 10 times as long.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

import gradlab
from analyses._speed_peers import KEYS, jax_loss, jax_states, jax_step, random_lstm, torch_lstm, torch_step
from analyses._speed_rows import Row, Sides, installed, require_equal
from gradlab.analysis import hessian_vector_product, loss_surface, network_lyapunov

JACOBIANS = "all Jacobians"
SURFACE = "loss surface"
PRODUCT = "Hessian-vector product"
TOLERANCE = 1e-10
"""Right results of these sizes in float64 differ by 1e-13 or less of the largest entry."""


def all_jacobians(rng: np.random.Generator, p: Mapping[str, Any], one_by_one: bool = False) -> Sides:
    """ds_t/ds_{t-1} of the full state at all steps of all sequences, after the forward pass that leads there."""
    import torch

    net, params, batch = random_lstm(rng, p["jacobians"])
    T, B = batch.inputs.shape[:2]
    x = torch.from_numpy(batch.inputs)
    step = torch_step("LSTM", params)
    one, jacobian = torch.func.vmap(step), torch.func.vmap(torch.func.jacrev(step))

    S = net.layers[0].state_size
    memory = np.empty((T, B, S, S))  # reused from call to call, as a loop would
    workspace = gradlab.Workspace()

    def ours() -> Any:
        run = gradlab.forward(net, params, batch.inputs, workspace=workspace).runs["0"]
        return run.jacobians(threads=p["threads"], out=memory)

    def by_torch() -> Any:
        with torch.no_grad():
            s = torch.zeros(B, net.layers[0].state_size, dtype=torch.float64)
            states, J = torch.empty(T, B, S, dtype=torch.float64), torch.empty(T, B, S, S, dtype=torch.float64)
            for k in range(T):
                states[k] = s
                if one_by_one:
                    J[k] = jacobian(s, x[k])
                s = one(s, x[k])
            return J if one_by_one else jacobian(states.reshape(T * B, S), x.reshape(T * B, -1)).reshape(J.shape)

    theirs = {"torch": by_torch}
    if installed("jax") and not one_by_one:
        import jax

        weights, inputs = [jax.numpy.array(params[key]) for key in KEYS], jax.numpy.array(batch.inputs)

        @jax.jit
        def traced(W: Any, U: Any, b: Any, inputs: Any) -> Any:
            by_row = jax.vmap(jax.vmap(jax.jacfwd(partial(jax_step, W, U, b))))
            return by_row(jax_states(W, U, b, inputs)[:-1], inputs)

        theirs["jax"] = lambda: traced(*weights, inputs).block_until_ready()
    for peer, call in theirs.items():
        require_equal(JACOBIANS, "sets of Jacobians", peer, ours(), call(), TOLERANCE)
    return ours, theirs


def surface(rng: np.random.Generator, p: Mapping[str, Any]) -> Sides:
    """The loss on a square grid through two random directions."""
    import torch

    net, params, batch = random_lstm(rng, p["surface"])
    first, second = ({key: rng.normal(size=value.shape) for key, value in params.items()} for _ in range(2))
    grid = np.linspace(-0.2, 0.2, p["surface"]["points"])
    module = torch_lstm(params)
    x, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
    own = [getattr(module, name) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")]
    centre, right, up = ([torch.from_numpy(one[key]) for key in KEYS] for one in (params, first, second))

    def ours() -> Any:
        return loss_surface(
            net, params, batch, gradlab.mean_squared_error, [first, second], grid, grid, threads=p["threads"]
        ).loss

    def by_torch() -> Any:
        found = torch.empty(len(grid), len(grid), dtype=torch.float64)
        with torch.no_grad():
            for row, b in enumerate(grid):
                for column, a in enumerate(grid):
                    for weight, middle, d_1, d_2 in zip(own, centre, right, up, strict=True):
                        weight.copy_(middle + a * d_1 + b * d_2)
                    found[row, column] = torch.nn.functional.mse_loss(module(x)[0], targets)
        return found

    theirs = {"torch": by_torch}
    if installed("jax"):
        import jax

        thetas = [[jax.numpy.array(one[key]) for key in KEYS] for one in (params, first, second)]
        inputs, wanted = jax.numpy.array(batch.inputs), jax.numpy.array(batch.targets)

        def at(thetas: Any, inputs: Any, wanted: Any, a: Any, b: Any) -> Any:
            return jax_loss([m + a * d_1 + b * d_2 for m, d_1, d_2 in zip(*thetas, strict=True)], inputs, wanted)

        columns = jax.vmap(at, in_axes=(None, None, None, 0, None))
        traced = jax.jit(jax.vmap(columns, in_axes=(None, None, None, None, 0)))
        points = jax.numpy.array(grid)
        theirs["jax"] = lambda: traced(thetas, inputs, wanted, points, points).block_until_ready()
    for peer, call in theirs.items():
        require_equal(SURFACE, "surfaces", peer, ours(), call(), TOLERANCE)
    return ours, theirs


def lyapunov(cell: str, rng: np.random.Generator, p: Mapping[str, Any]) -> Sides:
    """The first k exponents over the same steps from the same tangent vectors, orthonormalised at every step by torch.

    The nets stand at the edge of chaos: beyond it two right trajectories part, and their exponents with them.
    """
    import torch

    T, D, H, k = (p["lyapunov"][key] for key in ("T", "D", "H", "k"))
    net = gradlab.Network(gradlab.LSTM() if cell == "LSTM" else gradlab.Elman(), D, H)
    params = net.init(rng, recurrent_init=gradlab.inits.gaussian(1.0))
    inputs, seed = rng.normal(size=(T, 1, D)), int(rng.integers(2**32))
    size = net.layers[0].state_size
    # The vectors that `network_lyapunov` draws; their order matters to T steps, not to the limit.
    Q_0 = torch.from_numpy(np.random.default_rng(seed).standard_normal((1, size, k))[0])
    x, step = torch.from_numpy(inputs[:, 0]), torch_step(cell, params)

    def ours() -> Any:
        found = network_lyapunov(net, params, inputs, k, rng=np.random.default_rng(seed), transient=0)
        return found["0"].exponents[0]

    def by_torch() -> Any:
        with torch.no_grad():
            s, Q, sums = torch.zeros(size, dtype=torch.float64), torch.linalg.qr(Q_0)[0], torch.zeros(k, dtype=torch.float64)
            for x_t in x:
                follow = partial(step, x=x_t)
                pushed = torch.func.vmap(lambda v, f=follow, at=s: torch.func.jvp(f, (at,), (v,)), in_dims=1, out_dims=(None, 1))
                s, Z = pushed(Q)
                Q, R = torch.linalg.qr(Z)
                sums += R.diagonal().abs().log()
        return (sums / T).sort(descending=True).values

    with warnings.catch_warnings():  # the first jvp of a process loads scripts that torch itself calls deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        require_equal(f"Lyapunov {cell}", "spectra", "torch", ours(), by_torch(), TOLERANCE)
    return ours, {"torch": by_torch}


def hessian_product(rng: np.random.Generator, p: Mapping[str, Any]) -> Sides:
    """H v for all parameters: gradlab's complex step through the backward pass, torch's double backward."""
    import torch

    net, params, batch = random_lstm(rng, p["hessian"])
    v = {key: rng.normal(size=value.shape) for key, value in params.items()}
    module, workspace = torch_lstm(params), gradlab.Workspace()
    x, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
    own = [getattr(module, name) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")]
    along = [torch.from_numpy(v[key]) for key in KEYS]

    def ours() -> Any:
        found = hessian_vector_product(net, params, batch, gradlab.mean_squared_error, v, workspace=workspace)
        return np.concatenate([found[key].ravel() for key in KEYS])

    def by_torch() -> Any:
        loss = torch.nn.functional.mse_loss(module(x)[0], targets)
        slopes = torch.autograd.grad(loss, own, create_graph=True)
        found = torch.autograd.grad(slopes, own, along)
        return torch.cat([one.ravel() for one in found])

    theirs = {"torch": by_torch}
    if installed("jax"):
        import jax

        thetas, directions = ([jax.numpy.array(one[key]) for key in KEYS] for one in (params, v))
        inputs, wanted = jax.numpy.array(batch.inputs), jax.numpy.array(batch.targets)

        @jax.jit
        def traced(thetas: Any, directions: Any, inputs: Any, wanted: Any) -> Any:
            slope = jax.grad(jax_loss)
            _, found = jax.jvp(lambda theta: slope(theta, inputs, wanted), (thetas,), (directions,))
            return jax.numpy.concatenate([one.ravel() for one in found])

        theirs["jax"] = lambda: traced(thetas, directions, inputs, wanted).block_until_ready()
    for peer, call in theirs.items():
        require_equal(PRODUCT, "products", peer, ours(), call(), TOLERANCE)
    return ours, theirs


ROWS = (
    Row(JACOBIANS, all_jacobians, {"torch": 25.0, "jax": 5.0}, blas_threads=1),
    Row(f"{JACOBIANS} one by one", partial(all_jacobians, one_by_one=True), {"torch": None}, blas_threads=1),
    Row(SURFACE, surface, {"torch": 4.0, "jax": 1.0}, blas_threads=1),
    Row("Lyapunov LSTM", partial(lyapunov, "LSTM"), {"torch": 8.0}),
    Row("Lyapunov Elman", partial(lyapunov, "Elman"), {"torch": 8.0}),
    Row(PRODUCT, hessian_product, {"torch": 1.0, "jax": None}),
)
