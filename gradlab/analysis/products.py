"""Products of Jacobians over any number of steps, without under- or overflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import LN2, log_norm, power_of_two
from gradlab._validate import as_numbers, require_flag
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class JacobianProduct:
    """Phi(T, 0) = J_T ... J_1 = mantissa * 2^exponent.

    `mantissa` (*L, S, S) with its largest entry in [1/2, 1), all 0 if the product is exactly zero; `exponent` (*L,) integers.
    `log_norm` (*L,): ln of the Frobenius norm; `log_largest` (*L,): ln of the largest singular value. -inf means
    exactly zero. The smaller singular values are not there: a product of many factors loses them to rounding.
    Divide by `steps` for nats per step. `status`: `overflow` with the first bad step if a Jacobian was not finite.
    """

    mantissa: Array
    exponent: Array
    steps: int
    log_norm: Array
    log_largest: Array
    status: Status


class RunningProduct:
    """A product that grows by one factor at a time, rescaled by a power of two after each, which is exact.

    `reverse`: the next factor stands on the right, Phi(T, k) = Phi(T, k+1) J_{k+1}, so that factors come last step first.
    """

    def __init__(self, reverse: bool = False) -> None:
        self.reverse, self.steps, self.bad = reverse, 0, 0
        self.mantissa: Array | None = None
        self.exponent: Array = np.zeros((), np.int64)

    def multiply(self, J: Array) -> Array:
        """Take the next factor; returns the mantissa. Error: ShapeError if its shape is not that of the others."""
        before = self.mantissa
        if J.ndim < 2 or J.size == 0 or J.shape[-1] != J.shape[-2] or (before is not None and J.shape != before.shape):
            want = "(..., S, S)" if before is None else str(before.shape)
            raise ShapeError(f"jacobians[{self.steps}] has shape {J.shape}; expected {want}")
        with np.errstate(all="ignore"):  # entries may vanish beside larger ones; what is not finite is found on the result
            factor, scale = power_of_two(J, (-2, -1))  # first, so that large factors do not overflow in the product
            if before is None:
                found = factor
            else:
                found = np.matmul(before, factor) if self.reverse else np.matmul(factor, before)
            self.mantissa, shift = power_of_two(found, (-2, -1))
        self.exponent = self.exponent + scale + shift
        self.steps += 1
        if not self.bad and not np.isfinite(self.mantissa).all():
            self.bad = self.steps
        return self.mantissa

    def log_norm(self) -> Array:
        """Natural logarithm of the Frobenius norm so far, (*L,). Error: ShapeError before the first factor."""
        return log_norm(self._started(), (-2, -1)) + self.exponent * LN2

    def result(self) -> JacobianProduct:
        """The product of all factors so far. Error: ShapeError before the first one."""
        mantissa = self._started()
        largest = np.full(mantissa.shape[:-2], np.nan)
        finite = np.asarray(np.isfinite(mantissa).all(axis=(-2, -1)))
        with np.errstate(all="ignore"):
            largest[finite] = np.log(np.linalg.norm(mantissa[finite], 2, axis=(-2, -1)))
            largest = largest + self.exponent * LN2
        step = self.steps + 1 - self.bad if self.reverse else self.bad
        status = Status("overflow", f"Jacobian of step {step} is not finite") if self.bad else OK
        return JacobianProduct(mantissa, self.exponent, self.steps, self.log_norm(), largest, status)

    def _started(self) -> Array:
        if self.mantissa is None:
            raise ShapeError("jacobians is empty; expected at least one matrix (S, S)")
        return self.mantissa


def jacobian_product(jacobians: Iterable[Array], *, reverse: bool = False) -> JacobianProduct:
    """The product of `jacobians`, given in the order of time, J_1 first: (*L, S, S) each, any leading axes.

    After every factor the product is rescaled by a power of two, which is exact, so its logarithm is as
    accurate after 100 000 factors as after one. `reverse`: they come last step first, J_T first, as a sweep backward through
    time meets them; the product is the same. Errors: ShapeError for no factors or unequal shapes.
    """
    product = RunningProduct(require_flag("reverse", reverse))
    if not isinstance(jacobians, Iterable):
        raise DTypeError(f"jacobians is a {type(jacobians).__name__}; expected an iterable of arrays (..., S, S)")
    for J in jacobians:
        product.multiply(as_numbers(f"jacobians[{product.steps}]", J))
    return product.result()


@dataclass(frozen=True)
class PathProducts:
    """Products along single parts of the state beside the product of the whole Jacobians, step by step.

    `products` by path: "full", and each part, the product of its own diagonal blocks J_t[part, part]: what goes from the
    part to itself at every step and never through another part. For an LSTM J = [[A, B], [G A, G B + K]]: "c" is the
    product of the A_t = dc_t/dc_{t-1}, with no peepholes diag(f_t), so diag(prod f_t); "h" is that of the
    dh_t/dh_{t-1} at fixed c_{t-1}, which still pass through c_t within a step. All that crosses from one part to the
    other is in "full" alone.
    `log_gain` by path, (steps+1, *L): ln of the root-mean-square singular value after 0, 1, ... factors, by how much a
    perturbation in a random direction grows, in nats; 0 at the start, -inf where the product is exactly zero.
    """

    products: Mapping[str, JacobianProduct]
    log_gain: Mapping[str, Array]
    status: Status


def path_products(jacobians: Iterable[Array], parts: Mapping[str, tuple[int, int]], *, reverse: bool = False) -> PathProducts:
    """How far the gradient comes along each part of the state alone: the c-path and the h-path of an LSTM, and the whole.

    `jacobians` in the order of time (`reverse`: last step first), (*L, S, S) each, read once; `parts`: first and last column
    of each part, as in `record.layers["0"].parts`. Errors: ShapeError for no factors or unequal shapes; ValueRangeError
    for a part outside of the state.
    """
    if "full" in parts:
        raise ValueRangeError('parts holds "full", the name of the whole product; expected another name for the part')
    running = {name: RunningProduct(require_flag("reverse", reverse)) for name in ("full", *parts)}
    gains: dict[str, list[Array]] = {name: [] for name in running}
    for J in jacobians:
        J = as_numbers(f"jacobians[{running['full'].steps}]", J)
        for name, product in running.items():
            first, stop = (0, J.shape[-1] if J.ndim else 0) if name == "full" else parts[name]
            if J.ndim < 2 or J.size == 0 or J.shape[-1] != J.shape[-2]:
                raise ShapeError(f"jacobians[{product.steps}] has shape {J.shape}; expected (..., S, S)")
            if not 0 <= first < stop <= J.shape[-1]:
                raise ValueRangeError(f'parts["{name}"] is ({first}, {stop}); expected columns of a state of {J.shape[-1]}')
            product.multiply(J[..., first:stop, first:stop])
            gains[name].append(product.log_norm() - 0.5 * np.log(stop - first))
    found = {name: product.result() for name, product in running.items()}
    log_gain = {name: np.stack([np.zeros_like(rows[0]), *rows]) for name, rows in gains.items()}
    return PathProducts(found, log_gain, found["full"].status)
