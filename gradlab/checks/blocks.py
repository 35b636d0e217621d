"""The adjoint dot-product test, one block at a time: <J v, w> = <v, J^T w> for v on one block of the parameters alone.

It costs one forward pass along all blocks and one backward pass, so that it serves networks too large for the untied
check. Restricting v to one gate of one parameter keeps a small defect there from drowning in all the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_generator
from gradlab.checks.along import Along, Shift
from gradlab.checks.comparison import Comparison, compare
from gradlab.checks.example import Example
from gradlab.checks.oracle import Choice, derivative, require_choice
from gradlab.checks.untied import parts_of, preflight
from gradlab.errors import NumericalError

Array = npt.NDArray[Any]

RTOL = 1e-11
"""Of the sum of absolute terms: both sides are sums of some thousand products."""
DIRECTIONS = 3
"""Random directions for each block: in one alone the terms may nearly cancel, and hide a small defect."""


def block_products(example: Example, rng: np.random.Generator, oracle: Choice = "auto", rtol: float = RTOL) -> list[Comparison]:
    """One comparison for every gate of every parameter, every step of the input, and every initial state.

    Each is the worst of three random directions. `rtol` counts for complex steps; for Richardson the error estimate is added.
    Errors: NumericalError if a demanded oracle fails its pre-flight; DTypeError, ValueRangeError.
    """
    require_choice(oracle)
    require_generator("rng", rng)
    net, params, record = example.net, example.params, example.record
    chosen = preflight(net, oracle)
    if not chosen.trusted:
        raise NumericalError(f"oracle {chosen}")
    gradient = record.input_gradient
    assert gradient is not None  # an example's record has everything
    shifts: list[Shift] = []
    labels: list[str] = []
    duals: list[Array] = []

    def add(label: str, shift: Shift, v: Array, claim: Array) -> None:
        labels.append(label)
        shifts.append(shift)
        duals.append((v * claim).reshape(len(v), -1).sum(axis=1))

    for key, value in params.items():
        layer, _, letter = key.rpartition(".")
        kind, place = ("readout", "") if layer == "readout" else ("parameter", layer)
        whole = {"": (0, value.shape[0])} if value.ndim else {"": (0, 0)}
        for gate, (first, last) in (parts_of(net, key) or whole).items():
            v = np.zeros((DIRECTIONS, *value.shape))
            at: Any = (slice(None), slice(first, last)) if value.ndim else slice(None)
            v[at] = _signs(rng, v[at].shape)
            add(f"d{key}[{gate}]" if gate else f"d{key}", Shift(kind, place, None, {letter: v}), v, record.gradients[key])
    for one in net.layers:
        v = _signs(rng, (DIRECTIONS, one.state_size))
        claim = record.layers[one.name].series("adjoints")[0].sum(axis=0)  # all rows move alike
        add(f"ds_0 {one.name}", Shift("state", one.name, 0, {"": v}), v, claim)
    for t in range(len(example.x)):
        v = _signs(rng, (DIRECTIONS, net.input_size))
        add(f"dx at step {t}", Shift("input", "", t, {"": v}), v, gradient[t].sum(axis=0))
    along = Along(net, params, example.x, example.states, example.lengths, shifts)
    slopes, errors = derivative(along, chosen)
    weight = example.cotangent if net.readout == "every" else example.cotangent[None]
    with np.errstate(all="ignore"):
        exact = (slopes[1:] * weight).sum(axis=(1, 2, 3))
        scale = np.abs(slopes[1:] * weight).sum(axis=(1, 2, 3))
        if errors.ndim:
            scale = scale + (errors[1:] * np.abs(weight)).sum(axis=(1, 2, 3)) * 4.0 / rtol
    found = []
    for k, (label, dual) in enumerate(zip(labels, duals, strict=True)):
        at = slice(k * DIRECTIONS, (k + 1) * DIRECTIONS)
        found.append(compare(label, dual, exact[at], scale[at], rtol))
    return found


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Entries of size 1/2 to 1 and random sign."""
    return np.asarray(rng.uniform(0.5, 1.0, shape) * rng.choice([-1.0, 1.0], shape))
