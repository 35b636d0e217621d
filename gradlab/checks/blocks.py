"""The adjoint dot-product test, one block at a time: <J v, w> = <v, J^T w> for v on one block of the parameters alone.

It costs one forward pass along all blocks and one backward pass, so that it serves networks too large for the untied
check. Restricting v to one gate of one parameter keeps a small defect there from drowning in all the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.checks.along import Along, Shift, own_parameters
from gradlab.checks.comparison import Comparison, compare
from gradlab.checks.example import Example
from gradlab.checks.oracle import Choice, derivative
from gradlab.checks.untied import parts_of, preflight
from gradlab.errors import NumericalError

Array = npt.NDArray[Any]

RTOL = 1e-11
"""Of the sum of absolute terms: both sides are sums of some thousand products."""


def block_products(example: Example, rng: np.random.Generator, oracle: Choice = "auto", rtol: float = RTOL) -> list[Comparison]:
    """One comparison for every gate of every parameter, every step of the input, and every initial state.

    `rtol` counts for complex steps; for Richardson the error estimate is added. Error: NumericalError if a demanded
    oracle fails its pre-flight.
    """
    net, params = example.net, example.params
    chosen = preflight(net, oracle)
    if not chosen.trusted:
        raise NumericalError(f"oracle {chosen}")
    shifts: list[Shift] = []
    labels: list[str] = []
    duals: list[Array] = []
    record = example.record
    for layer in net.layers:
        for key, value in own_parameters(params, layer.name).items():
            name = f"{layer.name}.{key}"
            for gate, (first, last) in (parts_of(net, name) or {"": (0, value.shape[0] if value.ndim else 0)}).items():
                v = np.zeros(value.shape)
                at: Any = slice(first, last) if value.ndim else ()
                v[at] = _signs(rng, v[at].shape)
                shifts.append(Shift("parameter", layer.name, None, {key: v[None]}))
                labels.append(f"d{name}[{gate}]" if gate else f"d{name}")
                duals.append((v * record.gradients[name]).sum())
        v = _signs(rng, (layer.state_size,))
        shifts.append(Shift("state", layer.name, 0, {"": v[None]}))
        labels.append(f"ds_0 {layer.name}")
        duals.append((v * record.layers[layer.name].series("adjoints")[0]).sum())
    gradient = record.input_gradient
    assert gradient is not None
    for t in range(len(example.x)):
        v = _signs(rng, (net.input_size,))
        shifts.append(Shift("input", "", t, {"": v[None]}))
        labels.append(f"dx at step {t}")
        duals.append((v * gradient[t]).sum())
    if net.output_size is not None:
        for key, value in own_parameters(params, "readout").items():
            v = _signs(rng, value.shape)
            shifts.append(Shift("readout", "", None, {key: v[None]}))
            labels.append(f"dreadout.{key}")
            duals.append((v * record.gradients[f"readout.{key}"]).sum())
    along = Along(net, params, example.x, example.states, example.lengths, shifts)
    slopes, errors = derivative(along, chosen)
    weight = example.cotangent if net.readout == "every" else example.cotangent[None]
    axes = (1, 2, 3)
    exact = (slopes[1:] * weight).sum(axis=axes)
    scale = np.abs(slopes[1:] * weight).sum(axis=axes)
    if errors.ndim:
        scale = scale + (errors[1:] * np.abs(weight)).sum(axis=axes) * 4.0 / rtol
    return [
        compare(label, np.asarray(dual)[None], exact[k : k + 1], scale[k : k + 1], rtol)
        for k, (label, dual) in enumerate(zip(labels, duals, strict=True))
    ]


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Entries of size 1/2 to 1 and random sign."""
    return np.asarray(rng.uniform(0.5, 1.0, shape) * rng.choice([-1.0, 1.0], shape))
