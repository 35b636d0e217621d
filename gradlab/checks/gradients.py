"""Exact gradients to hold hand-written ones against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._derivatives import complex_step_jacobian, richardson_jacobian
from gradlab.network import Network

Array = npt.NDArray[Any]


def complex_step_gradient(f: Callable[[Array], Array], x: Array, cotangent: Array) -> tuple[Array, Array]:
    """(gradient, S) of sum(f(x) * cotangent) by complex step, both of the shape of `x`.

    S = sum over outputs k of |dy_k/dx * cotangent_k|: the scale of `gradlab.checks.compare`.
    """
    terms = complex_step_jacobian(f, x) * cotangent.reshape(cotangent.shape + (1,) * x.ndim)
    axes = tuple(range(cotangent.ndim))
    return terms.sum(axis=axes), np.abs(terms).sum(axis=axes)


def richardson_gradient(f: Callable[[Array], Array], x: Array, cotangent: Array) -> tuple[Array, Array]:
    """(gradient, error estimate) of sum(f(x) * cotangent) by Richardson extrapolation, both of the shape of `x`.

    For functions that do not carry complex numbers; real evaluations only.
    """
    values, errors = richardson_jacobian(f, x)
    weight = cotangent.reshape(cotangent.shape + (1,) * x.ndim)
    axes = tuple(range(cotangent.ndim))
    return (values * weight).sum(axis=axes), (errors * np.abs(weight)).sum(axis=axes)


def run_steps(net: Network, params: Mapping[str, Array], x: Array, initial: Mapping[str, Array] | None = None) -> Array:
    """Outputs of the network from each cell's `step` alone, one step at a time: no tape, no closed form.

    The independent forward pass that the engine is held against. x (T, B, D) -> (T, B, p), or (B, p) for readout="last".
    """
    sequence = x
    for layer in net.layers:
        prefix = f"{layer.name}."
        own = {key.removeprefix(prefix): value for key, value in params.items() if key.startswith(prefix)}
        s = np.zeros((x.shape[1], layer.state_size))
        if initial is not None and layer.name in initial:
            s = initial[layer.name]
        emitted = []
        for t in range(x.shape[0]):
            previous, s = s, layer.cell.step(own, sequence[t], s, t)
            emitted.append(layer.cell.output(s, previous))
        sequence = np.stack(emitted)
    if net.readout == "last":
        sequence = sequence[-1]
    if net.output_size is not None:
        sequence = sequence @ params["readout.V"].T + params["readout.b_y"]
    return sequence


def network_gradient(
    net: Network, params: Mapping[str, Array], x: Array, cotangent: Array, initial: Mapping[str, Array] | None = None
) -> dict[str, tuple[Array, Array]]:
    """(gradient, S) of sum(outputs * cotangent) with respect to every parameter, "x" and each "s_0 <layer>", by complex step.

    `cotangent` has the shape of the outputs. One forward pass for each entry: meant for small networks.
    """
    states = {layer.name: np.zeros((x.shape[1], layer.state_size)) for layer in net.layers} | dict(initial or {})
    found = {}
    for key, value in params.items():

        def of_parameter(theta: Array, key: str = key) -> Array:
            return run_steps(net, {**params, key: theta}, x, states)

        found[key] = complex_step_gradient(of_parameter, value, cotangent)
    found["x"] = complex_step_gradient(lambda v: run_steps(net, params, v, states), x, cotangent)
    for name, state in states.items():

        def of_state(v: Array, name: str = name) -> Array:
            return run_steps(net, params, x, {**states, name: v})

        found[f"s_0 {name}"] = complex_step_gradient(of_state, state, cotangent)
    return found
