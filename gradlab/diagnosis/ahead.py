"""What lies ahead of a step of gradient descent: the sharpness where it starts, and the loss along it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.analysis.curvature import sharpness
from gradlab.analysis.hessian import Hessian
from gradlab.backward import bptt
from gradlab.batch import Batch
from gradlab.diagnosis.circumstances import Circumstances
from gradlab.diagnosis.evidence import Look
from gradlab.losses import Loss
from gradlab.network import Network, Params
from gradlab.record import Record

Array = npt.NDArray[Any]

SEQUENCES = 32
"""At most so many sequences of the batch are looked at."""
FEWEST = 4
"""With fewer the curvature is that of single sequences, far above that of their mean."""
WORK = 2**25
"""Multiply-adds of one pass that the fifty or so passes of a Lanczos iteration may cost each: about 10 s together."""
PER_STEP = 2**14
"""What a step costs however small the network is, in multiply-adds."""
FRACTIONS = (0.125, 0.25, 0.5, 1.0)
"""Of the step, where the loss is looked at."""


@dataclass(frozen=True)
class Problem:
    """The loss of one network on a few sequences, as a function of its parameters; `theta` in float64."""

    net: Network
    theta: Params
    batch: Batch
    loss: Loss

    @property
    def sequences(self) -> int:
        return int(self.batch.inputs.shape[-2])

    def gradient(self, theta: Mapping[str, Array]) -> Record:
        """The loss and its gradient at `theta`."""
        return bptt(self.net, theta, self.batch, self.loss, ())

    def at(self, s: float, step: Mapping[str, Array]) -> Params:
        """The parameters s of the `step` away from theta."""
        return {key: np.asarray(value + s * step[key]) for key, value in self.theta.items()}


@dataclass(frozen=True)
class Ahead:
    """What lies along the step. `wall`: rise of the loss above its start, or above its quadratic model, whichever is less, in
    units of the decrease that the gradient promises; largest over the fractions of the step, inf where the loss is not finite.
    `at`: that fraction. `rise`: of the loss there, relative to its size. `rate`: the learning rate times what clipping leaves of
    the gradient. `along`: the curvature along the step over 2/rate; the sharpness is at least that. `sequences`: how many were
    read.
    """

    wall: float
    at: float
    rise: float
    rate: float
    along: float
    sequences: int


@dataclass(frozen=True)
class Steepness:
    """Sharpness over 2/rate, `ratio`, with the residual in the same unit. `parameter`: the one that holds most of
    the direction, and its `share` of it. `sequences`: how many were read.
    """

    ratio: float
    residual: float
    parameter: str
    share: float
    sequences: int


def problem_of(look: Look, most: int = SEQUENCES) -> Problem | None:
    """The loss of `look` on at most `most` sequences, evenly spread; None if it cannot be asked for at other parameters."""
    net, params, batch, loss = look.net, look.params, look.batch, look.loss
    if net is None or params is None or batch is None or loss is None or np.ndim(batch.inputs) != 3:
        return None
    if any(key not in params or np.ndim(params[key]) != len(shape) for key, shape in net.shapes.items()):
        return None  # an ensemble
    B = batch.inputs.shape[-2]
    few = _few(batch, net, np.unique(np.linspace(0, B - 1, min(B, most)).astype(int)))
    return None if few is None else Problem(net, {key: np.asarray(params[key], np.float64) for key in net.shapes}, few, loss)


def affordable(look: Look) -> int:
    """How many sequences a Lanczos iteration may read: SEQUENCES, fewer of a large network or a long batch, or 0."""
    if look.net is None or look.batch is None:
        return 0
    (T, B), size = np.shape(look.batch.inputs)[:2], sum(int(np.prod(shape)) for shape in look.net.shapes.values())
    most = min(SEQUENCES, int((WORK / max(T, 1) - PER_STEP) / size))
    return most if most >= min(FEWEST, B) else 0


def steepness_of(look: Look, rate: float, seed: int) -> Steepness | None:
    """By Lanczos iteration on exact products with the Hessian; None where it cannot be known, or costs too much."""
    most = affordable(look)
    problem = problem_of(look, most) if most else None
    if problem is None:
        return None
    try:
        operator = Hessian(problem.net, problem.theta, problem.batch, problem.loss)
        found = sharpness(operator, rate, rng=np.random.default_rng(seed), tol=1e-2, restarts=3)
    except Exception:  # a user's cell and loss are called: they raise what they like. Also: not complex-safe, or overflow
        return None
    if not np.isfinite(found.value):
        return None
    shares = {key: float((found.vector[own] ** 2).sum()) for key, own in operator.vector.slices.items()}
    most_of = max(shares, key=lambda key: shares[key])
    return Steepness(found.ratio, found.residual / found.limit, most_of, shares[most_of], problem.sequences)


def ahead_of(look: Look, told: Circumstances) -> Ahead | None:
    """The loss along the next step of plain gradient descent, clipped if it is to be; None where it cannot be known."""
    problem = problem_of(look)
    if told.learning_rate is None or problem is None:
        return None
    try:
        here = problem.gradient(problem.theta)
        step = _step(here.gradients, told)
        promised = -_inner(here.gradients, step)  # the decrease over the whole step, to first order
        if not here.status.ok or not np.isfinite(promised) or promised <= 0.0:
            return None
        length, slope = np.sqrt(_inner(step, step)), np.sqrt(_inner(here.gradients, here.gradients))
        bend = _bend(problem, step)  # d^2 L along the step
        line = [float(problem.gradient(problem.at(s, step)).loss) for s in FRACTIONS]  # one by one, as a user's loss expects
    except Exception:  # as in steepness_of
        return None
    start, rate = float(here.loss), float(length / slope)
    found = Ahead(-np.inf, 0.0, 0.0, rate, float(0.5 * rate * bend / length**2), problem.sequences)
    for s, value in zip(FRACTIONS, line, strict=True):
        if not np.isfinite(value):
            return replace(found, wall=np.inf, at=s, rise=np.inf)
        model = start - s * promised + 0.5 * s * s * bend
        wall = (value - max(start, model)) / (s * promised)
        if wall > found.wall:
            found = replace(found, wall=wall, at=s, rise=(value - start) / abs(start) if start else np.inf)
    return found


def _step(gradients: Mapping[str, Array], told: Circumstances) -> Params:
    """-learning rate times the gradient, cut as the loop would cut it."""
    bound = np.inf if told.clip_value is None else told.clip_value
    cut = {key: np.clip(value, -bound, bound) for key, value in gradients.items()}
    norm = float(np.sqrt(_inner(cut, cut)))
    rate = float(told.learning_rate or 0.0)
    factor = rate if told.clip_norm is None or norm <= told.clip_norm else rate * told.clip_norm / norm
    return {key: -factor * value for key, value in cut.items()}


def _bend(problem: Problem, step: Params) -> float:
    """Second derivative of the loss along `step`, by central differences of the gradient: it needs no complex-safe loss."""
    theta = problem.theta
    h = 1e-5 * max(1.0, float(np.sqrt(_inner(theta, theta)))) / float(np.sqrt(_inner(step, step)))
    up, down = (_inner(problem.gradient(problem.at(s, step)).gradients, step) for s in (h, -h))
    return (up - down) / (2.0 * h)


def _few(batch: Batch, net: Network, rows: Array) -> Batch | None:
    """Those rows of the batch; None if it is not clear where its targets have them."""
    B = batch.inputs.shape[-2]
    if len(rows) == B:
        return batch
    axis = 0 if net.readout == "last" else 1
    found: dict[str, Any] = {"inputs": batch.inputs[..., rows, :]}
    for name in ("targets", "mask"):
        value = getattr(batch, name)
        if value is None:
            continue
        if not isinstance(value, np.ndarray) or value.ndim <= axis or value.shape[axis] != B:
            return None
        found[name] = np.take(value, rows, axis)
    if batch.lengths is not None:
        found["lengths"] = np.asarray(batch.lengths)[rows]
    return replace(batch, **found)


def _inner(a: Mapping[str, Array], b: Mapping[str, Array]) -> float:
    return float(sum(np.vdot(a[key], b[key]) for key in a))
