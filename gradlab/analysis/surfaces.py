"""Slices through a loss surface: along one direction, along two, and between two solutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import as_numbers, require_finite, require_flag
from gradlab.analysis._grid import Grid
from gradlab.batch import Batch
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.status import OK, Status

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LossSurface:
    """L(theta + a d_1), or L(theta + a d_1 + b d_2), in the unit of the loss.

    `a` (na,), `b` (nb,) or None: coordinates, in units of the directions. `loss` (na, *E), or (nb, na, *E): row i, column j
    at b[i], a[j]. `centre` (*E): the loss at theta itself.
    `gradient_norm`: norm of the gradient by ALL parameters, of the shape of `loss`, if asked for.
    `finite`: where the loss (and gradient norm) is a number, of the shape of `loss`; `nonfinite`: how many cells are not.
    `status`: `overflow` with their number if there are any.
    """

    a: Array
    b: Array | None
    loss: Array
    centre: Array
    gradient_norm: Array | None
    finite: Array
    nonfinite: int
    status: Status


@dataclass(frozen=True)
class LossLine:
    """L((1 - alpha) first + alpha second), in the unit of the loss.

    `alpha` (n,); `loss` (n, *E); `ends` (2, *E): the loss at both solutions. `barrier` (*E): the largest excess of a loss at
    0 <= alpha <= 1 over the straight line between the ends (Entezari et al. 2022), at least 0; NaN if one is not finite.
    `finite`, `nonfinite`, `gradient_norm`, `status`: as for `LossSurface`.
    """

    alpha: Array
    loss: Array
    ends: Array
    barrier: Array
    gradient_norm: Array | None
    finite: Array
    nonfinite: int
    status: Status


def loss_surface(
    net: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    directions: Sequence[Mapping[str, Array]],
    a: Array,
    b: Array | None = None,
    *,
    with_gradient: bool = False,
    initial_states: Mapping[str, Array] | None = None,
    first_step: int = 0,
    max_memory: int | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> LossSurface:
    """The loss on a line (one direction and `a`) or a grid (two directions, `a` and `b`) through `params`.

    `directions`: dicts of arrays, zero where a key is missing: see `named_weights`, `random_direction`, `gradient_direction`,
    `trajectory_pca`; a Hessian's eigenvectors as dicts. They are used as they are, and need not be orthogonal.
    `with_gradient`: a backward pass in every cell too; three to seven times slower.
    `params` are never changed; theta + a d is made anew for as many cells at a time as the cache and `max_memory` (bytes; by
    default a share of what the machine has free) hold. Ensemble axes E of parameters or batch give one surface each.
    `threads`: cells computed side by side, with the same results; `loss` and cell are then called from several threads.
    `progress(done, total)` is called after each group of cells.

    Errors: ShapeError, DTypeError, ValueRangeError for bad input; NumericalError if a parameter leaves the range of floats;
    ResourceRefused if one cell does not fit. Source: Goodfellow et al. (2015); Li et al. (2018).
    """
    require_flag("with_gradient", with_gradient)
    wanted = "one, for a" if b is None else "two, for a and b"
    if isinstance(directions, Mapping) or not isinstance(directions, Sequence):
        raise DTypeError(f"directions is a {type(directions).__name__}; expected a sequence of {wanted}; try [direction]")
    if len(directions) != (1 if b is None else 2):
        raise ValueRangeError(f"directions has {len(directions)} entries; expected {wanted}")
    a = _coordinates("a", a)
    b = None if b is None else _coordinates("b", b)
    named = {f"directions[{k}]": direction for k, direction in enumerate(directions)}
    grid = Grid.of(net, params, batch, loss, named, initial_states, first_step)
    if b is None:
        points = np.stack([np.ones(len(a)), a], axis=-1)
    else:
        rows, columns = np.meshgrid(b, a, indexing="ij")
        points = np.stack([np.ones(rows.size), columns.ravel(), rows.ravel()], axis=-1)
    points = np.concatenate([np.eye(1, points.shape[-1]), points])  # the centre first
    values, norms = grid.evaluate(points, with_gradient=with_gradient, max_memory=max_memory, threads=threads, progress=progress)
    shape = (len(a), *grid.lead) if b is None else (len(b), len(a), *grid.lead)
    found = values[1:].reshape(shape)
    gradient_norm = None if norms is None else norms[1:].reshape(shape)
    finite, nonfinite, status = _finite(found, gradient_norm)
    return LossSurface(a, b, found, values[0], gradient_norm, finite, nonfinite, status)


def loss_between(
    net: Network,
    first: Mapping[str, Array],
    second: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    alpha: Array,
    *,
    with_gradient: bool = False,
    initial_states: Mapping[str, Array] | None = None,
    first_step: int = 0,
    max_memory: int | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> LossLine:
    """The loss on the straight line through two solutions: `first` at alpha = 0, `second` at 1, beyond them outside of [0, 1].

    Hidden units may be permuted: a barrier between two solutions that are equal up to a permutation is no property of the
    functions. Options and errors as for `loss_surface`. Source: Goodfellow et al. (2015); Frankle et al. (2020).
    """
    require_flag("with_gradient", with_gradient)
    alpha = _coordinates("alpha", alpha)
    missing = [key for key in net.shapes if key not in second] if isinstance(second, Mapping) else []
    if missing:
        raise ValueRangeError(f"second lacks {missing}; expected {list(net.shapes)}")
    grid = Grid.of(net, first, batch, loss, {"second": second}, initial_states, first_step)
    at = np.concatenate([[0.0, 1.0], alpha])
    values, norms = grid.evaluate(
        np.stack([1.0 - at, at], axis=-1), with_gradient=with_gradient, max_memory=max_memory, threads=threads, progress=progress
    )
    ends, found = values[:2], values[2:]
    gradient_norm = None if norms is None else norms[2:]
    inside = (alpha >= 0.0) & (alpha <= 1.0)
    share = alpha[inside].reshape(-1, *(1,) * (found.ndim - 1))
    with np.errstate(all="ignore"):
        excess = found[inside] - ((1.0 - share) * ends[0] + share * ends[1])
        barrier = np.max(excess, axis=0, initial=0.0)
        barrier = np.where(np.isfinite(barrier) & np.isfinite(ends).all(axis=0), barrier, np.nan)
    finite, nonfinite, status = _finite(found, gradient_norm)
    return LossLine(alpha, found, ends, barrier, gradient_norm, finite, nonfinite, status)


def _coordinates(name: str, value: Array) -> Array:
    value = as_numbers(name, value, allow_complex=False)
    if value.ndim != 1 or value.size == 0:
        raise ShapeError(f"{name} has shape {value.shape}; expected (n,) with n >= 1; try numpy.linspace(-1, 1, 25)")
    require_finite(name, value)
    return value.astype(np.float64)


def _finite(loss: Array, gradient_norm: Array | None) -> tuple[Array, int, Status]:
    """Where all numbers of a cell are finite, in how many cells they are not, and what to say about it."""
    finite = np.isfinite(loss) if gradient_norm is None else np.isfinite(loss) & np.isfinite(gradient_norm)
    count = int(finite.size - finite.sum())
    return finite, count, Status("overflow", f"{count} of {finite.size} cells are not finite") if count else OK
