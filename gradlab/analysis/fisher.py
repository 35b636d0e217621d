"""How much a linear network remembers of a signal in noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import as_numbers, require_count, require_finite
from gradlab.analysis._matrices import finite_matrices
from gradlab.errors import NumericalError, ShapeError, ValueRangeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FisherMemory:
    """Fisher information that the state holds about the input k steps back: `curve` (lags+1, *L), k = 0, 1, ...

    In units of that of the input in noise of variance 1. `total` (*L,): the sum over all k, exact; 1 for every normal W, and at
    most S for any (Ganguli, Huh & Sompolinsky 2008). `status`: `rank-deficient` if C cannot be inverted to any accuracy.
    """

    curve: Array
    total: Array
    status: Status


def fisher_memory(W: Array, v: Array, lags: int = 100) -> FisherMemory:
    """Memory of h_t = W h_{t-1} + v x_t + noise of unit variance, for W (*L, S, S) and v (S,), scaled to norm 1.

    J(k) = v^T (W^k)^T C^-1 W^k v with C = sum_k W^k (W^k)^T (Ganguli, Huh & Sompolinsky 2008).
    Errors: ShapeError; ValueRangeError for v = 0 or a spectral radius of 1 or more, where C does not exist; NumericalError if C
    overflows.
    """
    W = finite_matrices("W", W)
    v = as_numbers("v", v, allow_complex=False)
    lags = require_count("lags", lags, 0)
    if W.dtype.kind == "c" or v.shape != W.shape[-1:]:
        raise ShapeError(f"W has shape {W.shape} and dtype {W.dtype}, v has shape {v.shape}; expected real (..., S, S) and (S,)")
    require_finite("v", v)
    if not v.any():
        raise ValueRangeError("v is 0 everywhere; expected the weights of an input that is seen")
    radius = np.abs(np.linalg.eigvals(W)).max(axis=-1)
    if not (radius < 1.0).all():
        raise ValueRangeError(
            f"W has the spectral radius {radius.max():.6g}; expected below 1: otherwise the noise grows for ever"
        )
    v = v / np.linalg.norm(v)
    with np.errstate(all="ignore"):  # what leaves the range of floats is found on the results
        noise = _sum_of_powers(W, np.broadcast_to(np.eye(W.shape[-1]), W.shape))  # sum_k W^k (W^k)^T
        if not np.isfinite(noise).all():
            raise NumericalError("the noise that W gathers is beyond the range of floats; expected powers of W below 1e150")
        condition = np.linalg.cond(noise)
        inverse = np.linalg.inv(noise)
        total = np.einsum("i,...ij,j->...", v, _sum_of_powers(np.swapaxes(W, -1, -2), inverse), v)
        curve, seen = np.empty((lags + 1, *W.shape[:-2])), np.broadcast_to(v, W.shape[:-1])
        for k in range(lags + 1):
            curve[k] = np.einsum("...i,...ij,...j->...", seen, inverse, seen)
            seen = np.einsum("...ij,...j->...i", W, seen)
    lost = condition > 1.0 / (W.shape[-1] * np.finfo(float).eps)
    status = OK
    if lost.any():
        status = Status("rank-deficient", f"the noise of {int(lost.sum())} of {lost.size} matrices is singular to rounding")
    return FisherMemory(curve, total, status)


def _sum_of_powers(W: Array, Q: Array) -> Array:
    """Sum over k of W^k Q (W^k)^T, for symmetric positive Q, by doubling the number of terms: all of them are positive."""
    total, power = Q, W
    for _ in range(60):  # 2^60 terms: enough for any spectral radius that rounds to less than 1
        more = np.matmul(np.matmul(power, total), np.swapaxes(power, -1, -2))
        total = total + more
        power = np.matmul(power, power)
        if not (np.abs(more).max(axis=(-2, -1)) > 1e-17 * np.abs(total).max(axis=(-2, -1))).any():
            break
    return 0.5 * (total + np.swapaxes(total, -1, -2))
