"""Directions through parameter space: what a loss surface is cut along.

A direction is a dict of arrays under the keys of the parameters; where a key is missing, it is zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab._validate import as_numbers, require_finite, require_generator, require_one_of
from gradlab.backward import bptt
from gradlab.batch import Batch
from gradlab.errors import DTypeError, NumericalError, ShapeError, ValueRangeError
from gradlab.forward_pass import checked_params
from gradlab.losses import Loss
from gradlab.network import Network, Params

Array = npt.NDArray[Any]

NORMALISE = ("filter", "layer", "none")
BIASES = ("zero", "copy", "scale")


def named_weights(net: Network, *names: tuple[str, int | tuple[int, ...]]) -> tuple[Params, ...]:
    """One direction for each single weight, e.g. ("0.U", (0, 0)), ("0.b", 3): 1 at that entry, 0 elsewhere.

    Parameters that are 0 there make the coordinate of a slice the weight itself.
    Errors: ValueRangeError for an unknown key, or an index outside the parameter's own axes.
    """
    found = []
    for name in names:
        if not isinstance(name, tuple) or len(name) != 2:
            raise DTypeError(f'name is {name!r}; expected a key and an index, such as ("0.U", (0, 0))')
        key, index = name[0], name[1] if isinstance(name[1], tuple) else (name[1],)
        if key not in net.shapes:
            raise ValueRangeError(f"name is {name!r}; expected one of the keys {', '.join(net.shapes)}")
        shape = net.shapes[key]
        if len(index) != len(shape) or not all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in index):
            raise ValueRangeError(f"name is {name!r}; expected {len(shape)} integers, {key} has the shape {shape}")
        if not all(-n <= i < n for i, n in zip(index, shape, strict=True)):
            raise ValueRangeError(f"name is {name!r}; expected an index inside the shape {shape}")
        direction = np.zeros(shape)
        direction[index] = 1.0
        found.append({key: direction})
    return tuple(found)


def random_direction(
    rng: np.random.Generator,
    net: Network,
    params: Mapping[str, Array],
    *,
    normalise: str = "filter",
    biases: str = "zero",
    keys: Collection[str] | None = None,
) -> Params:
    """Standard normal numbers for every parameter (or those of `keys`), normalised: see `normalised`.

    Each ensemble member of a parameter gets its own.
    """
    require_generator("rng", rng)
    values = _chosen(net, params, keys)
    return normalised({key: rng.normal(size=value.shape) for key, value in values.items()}, net, params, normalise, biases)


def normalised(
    direction: Mapping[str, Array], net: Network, params: Mapping[str, Array], normalise: str = "filter", biases: str = "zero"
) -> Params:
    """`direction` scaled to the size of the parameters: filter normalisation (Li et al. 2018, sec. 4).

    Of each matrix, "filter": every row is scaled to the norm of the same row of the parameters; a row belongs to one unit
    of one gate, and what it reads is one filter. "layer": the whole matrix is scaled to the norm of the matrix.
    "none": as it is. The loss of a ReLU layer does not change when its W and b are scaled by k and what reads the layer by
    1/k; nor then does a filter-normalised surface, while a raw one does.
    `biases`, for everything that is no matrix (biases, peepholes, decays): "zero": they are not moved. "copy": the parameter
    itself, as the authors' code has it when it does not ignore biases. "scale": as the matrices, each gate's block of H
    entries as one row.
    A row of zeros in the parameters makes the row of the direction zero.
    Errors: ValueRangeError, ShapeError, DTypeError for what does not fit `net`; NumericalError if a row of `direction` is
    zero where that of the parameters is not.
    """
    require_one_of("normalise", normalise, NORMALISE)
    require_one_of("biases", biases, BIASES)
    values = _chosen(net, params, None)
    found: Params = {}
    for key, d in checked_direction("direction", net, direction).items():
        theta, own = values[key], len(net.shapes[key])
        if own > 1:
            axes = {"filter": (-1,), "layer": tuple(range(-own, 0)), "none": ()}[normalise]
            found[key] = _scaled(key, d, theta, axes) if axes else d.copy()
        elif biases == "zero":
            found[key] = np.zeros_like(d)
        elif biases == "copy":
            found[key] = theta.copy()
        elif normalise == "none":
            found[key] = d.copy()
        else:
            n = d.shape[-1] if own else 1  # a single number is a row of one
            whole = normalise == "layer" or key.startswith("readout.") or n % net.hidden_size != 0
            block = n if whole else net.hidden_size
            d, theta = (v.reshape((*net.ensemble_shape(key, v), n // block, block)) for v in (d, theta))
            scaled = _scaled(key, d, theta, (-1,))
            found[key] = scaled.reshape((*scaled.shape[:-2], *net.shapes[key]))
    return found


def gradient_direction(
    net: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    *,
    keys: Collection[str] | None = None,
    initial_states: Mapping[str, Array] | None = None,
    first_step: int = 0,
) -> Params:
    """The gradient at `params` (or its part in `keys`), scaled to norm 1: the steepest way up.

    Errors: NumericalError if it is zero or not finite.
    """
    own = list(_chosen(net, params, keys))
    record = bptt(net, params, batch, loss, (), initial_states=initial_states, first_step=first_step)
    if record.loss.ndim:
        raise ShapeError(f"params or batch have ensemble axes {record.loss.shape}; expected one network")
    gradient = {key: record.gradients[key] for key in own}
    size = log_norm(np.concatenate([value.ravel() for value in gradient.values()]))
    if not np.isfinite(size):
        raise NumericalError(f"the gradient has the norm {np.exp(size)}; expected a finite one above 0; {record.status}")
    half = np.exp(-0.5 * size)  # in two halves: the reciprocal of a norm of 1e-310 would overflow
    return {key: value * half * half for key, value in gradient.items()}


def checked_direction(name: str, net: Network, direction: Mapping[str, Array]) -> Params:
    """`direction`, its arrays finite and of the shapes of the parameters.

    Errors: DTypeError, ShapeError, ValueRangeError.
    """
    if not isinstance(direction, Mapping):
        raise DTypeError(f"{name} is a {type(direction).__name__}; expected a dict of arrays by parameter")
    unknown = [key for key in direction if key not in net.shapes]
    if unknown or not direction:
        raise ValueRangeError(f"{name} has the keys {list(direction)}; expected some of {list(net.shapes)}")
    found: Params = {}
    for key, given in direction.items():
        label, own = f'{name}["{key}"]', net.shapes[key]
        value = as_numbers(label, given, allow_complex=False)
        if value.shape[value.ndim - len(own) :] != own:
            raise ShapeError(f"{label} has shape {value.shape}; expected {own}, with ensemble axes only in front")
        require_finite(label, value)
        found[key] = value
    return found


def _scaled(key: str, d: Array, theta: Array, axes: tuple[int, ...]) -> Array:
    """`d` with the norm of `theta` along `axes`; in logarithms, so that neither over- nor underflows."""
    with np.errstate(all="ignore"):
        wanted, given = (np.expand_dims(log_norm(v, axes), axes) for v in (theta, d))
    if bool(np.any((given == -np.inf) & (wanted > -np.inf))):
        raise NumericalError(
            f'direction["{key}"] has a row of zeros where the parameters have none; expected numbers to scale; draw it anew'
        )
    with np.errstate(all="ignore"):
        half = np.exp(0.5 * (wanted - np.where(given == -np.inf, 0.0, given)))
        return np.asarray(d * half * half)


def _chosen(net: Network, params: Mapping[str, Array], keys: Collection[str] | None) -> Params:
    """The real parameters under `keys`, all if None."""
    values = checked_params(net, params)
    if isinstance(keys, str) or (keys is not None and (not keys or any(key not in values for key in keys))):
        raise ValueRangeError(f"keys is {keys!r}; expected some of {list(values)}")
    found = {key: value for key, value in values.items() if keys is None or key in keys}
    for key, value in found.items():
        if np.iscomplexobj(value):
            raise DTypeError(f'params["{key}"] has dtype {value.dtype}; expected real parameters')
    return found
