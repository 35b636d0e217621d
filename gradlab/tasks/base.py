"""What a task is: the laws of its values, markers, targets and lengths, its loss, its chance level and its test of success.

Papers share the names of tasks, not these laws, so each variant is a `Task` of its own and its name says whose it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab._validate import as_numbers, require_array, require_count, require_generator
from gradlab.batch import Batch
from gradlab.errors import ShapeError

Array = npt.NDArray[Any]
Criterion = Callable[[Array, Array], Array]
"""(outputs (..., p), targets) -> bool for each position."""


def closer_than(bound: float) -> Criterion:
    """Every output's absolute error is below `bound`."""

    def correct(outputs: Array, targets: Array) -> Array:
        return np.asarray((np.abs(outputs - targets) < bound).all(axis=-1))

    return correct


def squared_error_up_to(bound: float) -> Criterion:
    """The squared error, summed over the outputs, is at most `bound`."""

    def correct(outputs: Array, targets: Array) -> Array:
        return np.asarray(np.square(outputs - targets).sum(axis=-1) <= bound)

    return correct


def largest_output(outputs: Array, targets: Array) -> Array:
    """The largest output is that of the target's class, and all are finite."""
    return np.asarray((outputs.argmax(axis=-1) == targets) & np.isfinite(outputs).all(axis=-1))


def same_sign(outputs: Array, targets: Array) -> Array:
    """Output and target lie on the same side of 0, and the output is finite."""
    return np.asarray(((outputs * np.sign(targets) > 0.0) & np.isfinite(outputs)).all(axis=-1))


def own_targets(batch: Batch) -> Array:
    """The targets as they stand: nothing was added to them."""
    targets: Array = batch.targets
    return targets


@dataclass(frozen=True, kw_only=True)
class Task:
    """One variant of one task.

    `source`: where its laws come from, and what in them is gradlab's own choice.
    `input_size`, `output_size`, `readout`: what a network for it needs. `loss`: the name of a function of `gradlab.losses`.
    `criterion`: when a sequence counts as right, in words. `minimum`: the shortest `length`.
    `law(rng, B, T)`, `chance(T)`, `correct(outputs, targets)`: what the methods below call with arguments that were checked.
    """

    name: str
    source: str
    input_size: int
    output_size: int
    readout: Literal["every", "last"]
    loss: Literal["mean_squared_error", "softmax_cross_entropy"]
    criterion: str
    law: Callable[[np.random.Generator, int, int], Batch]
    chance: Callable[[int], float]
    correct: Criterion
    minimum: int = 1
    truth: Callable[[Batch], Array] = own_targets

    def sample(self, rng: np.random.Generator, batch: int, length: int) -> Batch:
        """`batch` sequences; `length` is the paper's T, which the arrays may exceed (see the task's module).

        Inputs (T, B, input_size); targets (T, B) or (B,) labels, or (..., output_size) numbers.
        Errors: DTypeError and ValueRangeError for arguments, ResourceRefused beyond the memory there is.
        """
        require_generator("rng", rng)
        B, T = require_count("batch", batch), require_count("length", length, self.minimum)
        needed = 16 * T * B * self.input_size
        if needed > 2**28:  # a question to the system, for large batches only
            refuse_above(needed, None, f"a batch of {B} sequences of length {T}", "try fewer or shorter sequences at a time")
        return self.law(rng, B, T)

    def baseline(self, length: int) -> float:
        """The loss of the best answer that uses nothing of what must be remembered: exact, in the units of the loss."""
        return self.chance(require_count("length", length, self.minimum))

    def success(self, outputs: Array, targets: Array) -> Array:
        """Which sequences count as right by the variant's own criterion: bool (B,), or (*E, B) for an ensemble.

        `outputs` as the network emits them, (T, *E, B, p) or (*E, B, p); `targets` of `noise_free(batch)`, with or without
        the ensemble axes. Not finite is not right. Errors: ShapeError, DTypeError.
        """
        outputs = as_numbers("outputs", outputs, allow_complex=False)
        targets = require_array("targets", targets)
        times, features = int(self.readout == "every"), int(self.loss == "mean_squared_error")
        want = f"({'T, ' if times else ''}*E, B, {self.output_size})"
        if outputs.ndim < times + 2 or outputs.shape[-1] != self.output_size:
            raise ShapeError(f"outputs have shape {outputs.shape}; expected {want}, as the network of {self.name} emits")
        wanted = outputs.shape[: outputs.ndim - 1 + features]
        missing = len(wanted) - targets.ndim
        fitted = targets
        if missing > 0 and targets.ndim >= times + 1 + features:
            fitted = targets.reshape(*targets.shape[:times], *(1,) * missing, *targets.shape[times:])
        if fitted.ndim != len(wanted) or any(a not in (b, 1) for a, b in zip(fitted.shape, wanted, strict=True)):
            raise ShapeError(f"targets have shape {targets.shape}, outputs {outputs.shape}; expected targets {wanted}")
        with np.errstate(invalid="ignore", over="ignore"):
            right = self.correct(outputs, fitted)
        return np.asarray(right.all(axis=0)) if times else right

    def noise_free(self, batch: Batch) -> Array:
        """The targets that `success` compares with: where a task adds noise to its targets, those without it."""
        return self.truth(batch)


def one_hot(symbols: Array, size: int) -> Array:
    """Integers (...) as float64 (..., size), 1 at each one's place."""
    hot = np.zeros((*symbols.shape, size))
    np.put_along_axis(hot, symbols[..., None], 1.0, axis=-1)
    return hot
