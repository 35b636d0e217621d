"""The plane in which a training trajectory moves most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import power_of_two
from gradlab._memory import refuse_above
from gradlab._parameters import ParameterVector
from gradlab._validate import as_numbers, require_count, require_finite, require_one_of
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.network import Network, Params
from gradlab.status import OK, Status

Array = npt.NDArray[Any]

ORIGINS = ("last", "mean")


@dataclass(frozen=True)
class TrajectoryPCA:
    """Principal directions of n snapshots of the parameters, and how little of the way a picture in their plane shows.

    `directions`: k orthonormal ones, dicts of arrays, the most important first. `origin`: the parameters that the plane goes
    through. `coordinates` (n, k): of each snapshot in the plane, from the origin.
    `explained_variance_ratio` (k,): share of the variance about the mean. A random walk in many dimensions has
    6/(pi k)^2 here, 0.61 and 0.15, whatever the loss (Antognini & Sohl-Dickstein 2018): less than a finding.
    `projection_error` (n,): distance of each snapshot from the plane, and `distance` (n,) from the origin, both in the
    units of the parameters.
    `status`: `rank-deficient` if the trajectory has fewer than k directions; the last ones are then arbitrary.
    """

    directions: tuple[Params, ...]
    origin: Params
    coordinates: Array
    explained_variance_ratio: Array
    projection_error: Array
    distance: Array
    status: Status


def trajectory_pca(
    net: Network,
    trajectory: Sequence[Mapping[str, Array]] | Mapping[str, Array],
    k: int = 2,
    *,
    origin: str = "last",
    max_memory: int | None = None,
) -> TrajectoryPCA:
    """Principal component analysis of the parameters during training (Li et al. 2018, sec. 7).

    `trajectory`: a sequence of parameter dicts, or a dict of arrays with the snapshots along their first axis.
    `origin`: "last" lets the plane go through the last snapshot, as Li et al. do, "mean" through their mean.
    Errors: ShapeError, DTypeError, ValueRangeError for what does not fit `net`, for fewer than 2 snapshots, and for
    a trajectory that does not move; ResourceRefused.
    """
    k = require_count("k", k)
    require_one_of("origin", origin, ORIGINS)
    vector = ParameterVector(net.shapes)
    points = _packed(net, vector, trajectory, max_memory)
    n = len(points)
    if not 1 <= k <= min(n - 1, vector.size):
        raise ValueRangeError(f"k is {k}; expected 1 to {min(n - 1, vector.size)}: {n} snapshots of {vector.size} parameters")
    with np.errstate(over="ignore"):
        start = points.mean(axis=0)
        moved = points - start
        away = points - (points[-1] if origin == "last" else start)
    for name, value in (
        ("the mean of trajectory", start),
        ("trajectory, from its mean,", moved),
        ("trajectory, from its origin,", away),
    ):
        require_finite(name, value)
    size = float(np.max(np.abs(moved)))
    if size <= 4.0 * np.finfo(float).eps * float(np.max(np.abs(points))):
        raise ValueRangeError("trajectory does not move: all its snapshots are equal to rounding")
    values, rows = np.linalg.svd(moved / size, full_matrices=False)[1:]  # squares of the entries stay in range
    found = int((values > max(moved.shape) * np.finfo(float).eps * values[0]).sum())
    status = OK
    if found < k:
        status = Status("rank-deficient", f"the trajectory spans {found} direction(s); the last {k - found} are arbitrary")
    axes = rows[:k]
    base = points[-1] if origin == "last" else start
    away, exponent = power_of_two(away, (0, 1))
    coordinates = away @ axes.T
    rest = away - coordinates @ axes
    return TrajectoryPCA(
        directions=tuple(vector.unpack(axis.copy()) for axis in axes),
        origin=vector.unpack(base.copy()),
        coordinates=np.ldexp(coordinates, exponent),
        explained_variance_ratio=values[:k] ** 2 / np.sum(values**2),
        projection_error=np.ldexp(np.linalg.norm(rest, axis=-1), exponent),
        distance=np.ldexp(np.linalg.norm(away, axis=-1), exponent),
        status=status,
    )


def _packed(
    net: Network, vector: ParameterVector, trajectory: Sequence[Mapping[str, Array]] | Mapping[str, Array], max_memory: int | None
) -> Array:
    """All snapshots (n, parameters) in float64."""
    snapshots: list[Mapping[str, Array]]
    if isinstance(trajectory, Mapping):
        missing = [key for key in net.shapes if key not in trajectory]
        if missing:
            raise ValueRangeError(f"trajectory lacks {missing}; expected {list(net.shapes)}")
        for key, shape in net.shapes.items():
            if np.shape(trajectory[key])[1:] != shape:
                raise ShapeError(
                    f'trajectory["{key}"] has shape {np.shape(trajectory[key])}; expected (n, *{shape}), one network'
                )
        count = len(trajectory[next(iter(net.shapes))])
        if any(len(trajectory[key]) != count for key in net.shapes):
            raise ShapeError(f"trajectory has snapshots { {k: len(v) for k, v in trajectory.items()} }; expected equal numbers")
        snapshots = [{key: trajectory[key][i] for key in net.shapes} for i in range(count)]
    elif isinstance(trajectory, Sequence) and not isinstance(trajectory, str):
        snapshots = list(trajectory)
    else:
        raise DTypeError(f"trajectory is a {type(trajectory).__name__}; expected a sequence of parameter dicts")
    if len(snapshots) < 2:
        raise ShapeError(f"trajectory has {len(snapshots)} snapshot(s); expected at least 2")
    needed = 4 * 8 * len(snapshots) * vector.size
    refuse_above(needed, max_memory, f"PCA of {len(snapshots)} snapshots of {vector.size} parameters", "take fewer snapshots")
    points = np.empty((len(snapshots), vector.size))
    for i, snapshot in enumerate(snapshots):
        if not isinstance(snapshot, Mapping):
            raise DTypeError(f"trajectory[{i}] is a {type(snapshot).__name__}; expected a dict of arrays by parameter")
        own = {key: as_numbers(f'trajectory[{i}]["{key}"]', value, allow_complex=False) for key, value in snapshot.items()}
        packed = vector.pack(own)
        if packed.ndim != 1:
            raise ShapeError(f"trajectory[{i}] has ensemble axes {packed.shape[:-1]}; expected one network")
        require_finite(f"trajectory[{i}]", packed)
        points[i] = packed
    return points
