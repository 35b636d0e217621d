"""Products of Jacobians over any number of steps, without under- or overflow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import LN2, log_norm, power_of_two
from gradlab._validate import require_array
from gradlab.errors import ShapeError
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


def jacobian_product(jacobians: Iterable[Array]) -> JacobianProduct:
    """The product of `jacobians`, given in the order of time, J_1 first: (*L, S, S) each, any leading axes.

    After every factor the product is rescaled by a power of two, which is exact, so its logarithm is as
    accurate after 100 000 factors as after one. Errors: ShapeError for no factors or unequal shapes.
    """
    mantissa: Array | None = None
    exponent: Array = np.zeros((), np.int64)
    steps, bad = 0, 0
    for J in jacobians:
        J = require_array(f"jacobians[{steps}]", J)
        if J.ndim < 2 or J.shape[-1] != J.shape[-2] or (mantissa is not None and J.shape != mantissa.shape):
            want = "(..., S, S)" if mantissa is None else str(mantissa.shape)
            raise ShapeError(f"jacobians[{steps}] has shape {J.shape}; expected {want}")
        with np.errstate(all="ignore"):  # entries may vanish beside larger ones; what is not finite is found on the result
            factor, scale = power_of_two(J, (-2, -1))  # first, so that large factors do not overflow in the product
            mantissa, shift = power_of_two(factor if mantissa is None else np.matmul(factor, mantissa), (-2, -1))
        exponent = exponent + scale + shift
        steps += 1
        if not bad and not np.isfinite(mantissa).all():
            bad = steps
    if mantissa is None:
        raise ShapeError("jacobians is empty; expected at least one matrix (S, S)")
    status = Status("overflow", f"Jacobian of step {bad} is not finite") if bad else OK
    largest = np.full(mantissa.shape[:-2], np.nan)
    finite = np.asarray(np.isfinite(mantissa).all(axis=(-2, -1)))
    with np.errstate(all="ignore"):
        largest[finite] = np.log(np.linalg.norm(mantissa[finite], 2, axis=(-2, -1)))
        largest = largest + exponent * LN2
    return JacobianProduct(mantissa, exponent, steps, log_norm(mantissa, (-2, -1)) + exponent * LN2, largest, status)
