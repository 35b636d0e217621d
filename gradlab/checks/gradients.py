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


def run_steps(
    net: Network,
    params: Mapping[str, Array],
    x: Array,
    initial: Mapping[str, Array] | None = None,
    lengths: Array | None = None,
) -> Array:
    """Outputs of the network from each cell's `step` alone, one sequence and one step at a time: no tape and no mask.

    The independent forward pass that the engine is held against. x (T, B, D) -> (T, B, p), 0 behind the end of a row,
    or (B, p) for readout="last".
    """
    rows = []
    for b in range(x.shape[1]):
        length = x.shape[0] if lengths is None else int(lengths[b])
        start = {name: state[b : b + 1] for name, state in (initial or {}).items()}
        y = _one_sequence(net, params, x[:length, b : b + 1], start)
        if net.readout == "every":
            y = np.concatenate([y, np.zeros((x.shape[0] - length, *y.shape[1:]))])
        rows.append(y)
    return np.concatenate(rows, axis=-2)


def _one_sequence(net: Network, params: Mapping[str, Array], x: Array, initial: Mapping[str, Array]) -> Array:
    """One row, (T, 1, D) -> (T, 1, p) or (1, p)."""
    sequence = x
    for level in net.levels:
        emitted, final = [], []
        for layer in level:
            own = {k.removeprefix(f"{layer.name}."): v for k, v in params.items() if k.startswith(f"{layer.name}.")}
            s = initial.get(layer.name, np.zeros((1, layer.state_size)))
            outputs = []
            for t, x_t in enumerate(sequence[::-1] if layer.reverse else sequence):
                previous, s = s, layer.cell.step(own, x_t, s, t)
                outputs.append(layer.cell.output(s, previous))
            final.append(outputs[-1])
            emitted.append(np.stack(outputs[::-1] if layer.reverse else outputs))
        sequence = np.concatenate(emitted, axis=-1)
    seen = np.concatenate(final, axis=-1) if net.readout == "last" else sequence
    if net.output_size is None:
        return seen
    return np.asarray(seen @ params["readout.V"].T + params["readout.b_y"])


def network_gradient(
    net: Network,
    params: Mapping[str, Array],
    x: Array,
    cotangent: Array,
    initial: Mapping[str, Array] | None = None,
    lengths: Array | None = None,
) -> dict[str, tuple[Array, Array]]:
    """(gradient, S) of sum(outputs * cotangent) with respect to every parameter, "x" and each "s_0 <layer>", by complex step.

    `cotangent` has the shape of the outputs. One forward pass for each entry: meant for small networks.
    """
    states = {layer.name: np.zeros((x.shape[1], layer.state_size)) for layer in net.layers} | dict(initial or {})
    found = {}
    for key, value in params.items():

        def of_parameter(theta: Array, key: str = key) -> Array:
            return run_steps(net, {**params, key: theta}, x, states, lengths)

        found[key] = complex_step_gradient(of_parameter, value, cotangent)
    found["x"] = complex_step_gradient(lambda v: run_steps(net, params, v, states, lengths), x, cotangent)
    for name, state in states.items():

        def of_state(v: Array, name: str = name) -> Array:
            return run_steps(net, params, x, {**states, name: v}, lengths)

        found[f"s_0 {name}"] = complex_step_gradient(of_state, state, cotangent)
    return found
