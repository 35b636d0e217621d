"""Exact products with the Hessian of a loss: the complex step through the hand-written backward pass.

    H v = d/dh grad L(theta + h v) at h = 0 = Im grad L(theta + i h v) / h        (Squire & Trapp 1998)

Nothing is subtracted, so h can be so small that its square is below rounding, and the product is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import as_numbers, require_finite, require_shape
from gradlab.backward import bptt
from gradlab.batch import Batch
from gradlab.errors import DTypeError, NumericalError, ShapeError, ValueRangeError
from gradlab.forward_pass import checked_params
from gradlab.losses import Loss
from gradlab.network import Network, Params
from gradlab.record import Record
from gradlab.workspace import Workspace

Array = npt.NDArray[Any]

STEPS = (2.0**-100, 2.0**-400, 2.0**-900)
"""Steps h for a direction whose largest entry is 1; the smaller ones where a tangent explodes. Powers of two scale exactly."""
REACH = 1e-9
"""The largest imaginary part that a state may have, relative to the state or to 1: its square is below rounding."""


def hessian_vector_product(
    net: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    v: Mapping[str, Array],
    *,
    initial_states: Mapping[str, Array] | None = None,
    first_step: int = 0,
    workspace: Workspace | None = None,
) -> Params:
    """H v for the loss of one batch: a dict with the keys and shapes of `params`, exact to rounding, in float64.

    `v`: like `params`; a key that is not there stands for zeros. Axes in front of a direction's own are ensemble axes, as
    they are for `params`: v (K, ...) gives K products in one pass. Where the batch has ensemble axes those of K stand in front.
    At the kinks of a ReLU it is the Hessian of the piece, without the jump.
    The loss must be complex-safe, and so must be the `vjp` of a cell of your own (`Hessian` verifies that).
    Entries below 1e-270 max|v| may underflow to zero. `workspace`: memory to reuse from call to call.

    Errors: ShapeError, DTypeError, ValueRangeError for bad input; NumericalError if a number leaves the range of floats.
    Source: Squire & Trapp (1998), SIAM Review 40; the product without the matrix is Pearlmutter's (1994).
    """
    theta = real_params("params", checked_params(net, params))
    v = _checked_direction(net, v)
    if isinstance(batch, Batch) and np.iscomplexobj(batch.inputs):
        raise DTypeError("batch.inputs are complex; expected real numbers: the step is taken along i")
    if isinstance(initial_states, Mapping):  # the forward pass refuses other things
        initial_states = real_params("initial_states", initial_states)
    leads = {net.ensemble_shape(key, value) for given in (theta, v) for key, value in given.items()}
    try:
        lead = np.broadcast_shapes(*leads)
    except ValueError as error:
        told = f"ensemble axes of params and v do not broadcast: {sorted(leads)}"
        raise ShapeError(f"{told}; expected equal sizes, or 1") from error
    size = np.zeros(lead)  # max|v| of each member
    for key, value in v.items():
        size = np.maximum(size, np.abs(value).max(axis=tuple(range(-len(net.shapes[key]), 0))))
    exponents = {key: np.frexp(size)[1].reshape((*lead, *(1,) * len(shape))) for key, shape in net.shapes.items()}
    why = "the tangent grows by more than 1e260 along the sequence"
    for h in STEPS:
        point = {}
        for key, value in theta.items():
            if key in v:
                value = value + 1j * (h * np.ldexp(v[key], -exponents[key]))
            point[key] = np.broadcast_to(value, (*lead, *net.shapes[key]))
        record = bptt(
            net, point, batch, loss, ("states",), initial_states=initial_states, first_step=first_step, workspace=workspace
        )
        if record.status.ok and _reach(record) <= REACH:
            with np.errstate(over="ignore"):  # found below
                products = {key: np.ldexp(record.gradients[key].imag / h, exponents[key]) for key in net.shapes}
            if all(np.isfinite(value).all() for value in products.values()):
                return products
            why = "its entries are beyond 1e308; scale v down"
    real = bptt(net, theta, batch, loss, ("states", "adjoints"), initial_states=initial_states, first_step=first_step)
    if not real.status.ok:
        why = f"{real.status}; take parameters where the loss and its gradient are finite, or a shorter sequence"
    raise NumericalError(f"no Hessian-vector product: {why}")


def _checked_direction(net: Network, v: object) -> Params:
    if not isinstance(v, Mapping):
        raise DTypeError(f"v is a {type(v).__name__}; expected a dict of arrays by parameter")
    unknown = [key for key in v if key not in net.shapes]
    if unknown or not v:
        raise ValueRangeError(f"v has the keys {list(v)}; expected one or more of {list(net.shapes)}")
    found = real_params("v", v)
    for key, value in found.items():
        require_shape(f'v["{key}"]', value, net.shapes[key], "its own axes")
        require_finite(f'v["{key}"]', value)
    return found


def real_params(name: str, values: Mapping[str, Array]) -> Params:
    """`values` in float64. Error: DTypeError for what is complex or no array of numbers."""
    found = {key: as_numbers(f'{name}["{key}"]', value, allow_complex=False) for key, value in values.items()}
    return {key: value.astype(np.float64, copy=False) for key, value in found.items()}


def _reach(record: Record) -> float:
    """The largest imaginary part of any state; relative to it where a state is large."""
    series = [layer.series("states") for layer in record.layers.values()]
    return max(float((np.abs(s.imag) / np.maximum(np.abs(s.real), 1.0)).max()) for s in series)
