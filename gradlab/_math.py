"""Functions that stay exact where recurrent networks saturate, vanish and explode.

Activations come as `f(z)` for any real or complex z (holomorphic on each branch, so that a complex step
passes through) and as `f_and_slope(z, y, dy)`, which fills the value and the derivative of a whole block
from the pre-activation. Slopes are computed from z, not from y: 1 - tanh(20)^2 is 0.0 in float64, the
true value is 1.7e-17, and saturated units are what gradlab is about.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LN2 = float(np.log(2.0))


def sigmoid(z: Array) -> Array:
    """Logistic function 1/(1 + exp(-z)), without overflow and with full relative accuracy at both ends."""
    z = np.asarray(z)
    left = z.real < 0
    e = np.exp(np.where(left, z, -z))
    return np.asarray(np.where(left, e, 1.0) / (1.0 + e))


def sigmoid_slope(z: Array) -> Array:
    """Derivative of the logistic function, sigmoid(z) sigmoid(-z)."""
    z = np.asarray(z)
    return sigmoid(z) * sigmoid(-z)


def tanh(z: Array) -> Array:
    """Hyperbolic tangent. Complex ones by the addition theorem: NumPy's own take five times as long."""
    z = np.asarray(z)
    if not np.iscomplexobj(z):
        return np.asarray(np.tanh(z))
    if not np.max(np.abs(z.imag), initial=0.0) < 1.0:  # the tangent has poles
        return np.asarray(np.tanh(z))
    t, b = np.tanh(z.real), np.tan(z.imag)
    c = np.cosh(np.clip(z.real, -700.0, 700.0))  # beyond, 1/c^2 is 0
    out, below = np.empty_like(z), 1.0 + (t * b) ** 2
    out.real = t * (1.0 + b * b) / below
    out.imag = b / c / c / below
    return out


def tanh_slope(z: Array) -> Array:
    """Derivative of tanh, 4 sigmoid(2z) sigmoid(-2z): accurate where 1 - tanh(z)^2 has lost its digits."""
    z = np.asarray(z)
    return 4.0 * sigmoid_slope(2.0 * z)


FIRST_ORDER = 1e-9
"""An imaginary part up to here is a step: what its square adds to any of these functions is below rounding."""


def _is_step(z: Array) -> bool:
    """Whether f(x + iv) = f(x) + i v f'(x) to rounding. Real functions, 10 times faster than NumPy's complex ones, then do."""
    return bool(np.max(np.abs(z.imag), initial=0.0) <= FIRST_ORDER)


def sigmoid_and_slope(z: Array, y: Array, dy: Array) -> None:
    """Write sigmoid(z) to `y` and its derivative to `dy`; `y` may be `z` itself."""
    if np.iscomplexobj(z):
        if _is_step(z):
            x, v = z.real.copy(), z.imag.copy()
            value, slope = np.empty_like(x), np.empty_like(x)
            sigmoid_and_slope(x, value, slope)
            y.real, dy.real = value, slope
            v *= slope
            y.imag = v
            x *= -0.5
            v *= np.tanh(x, out=x)  # sigmoid'' = -sigmoid' tanh(x/2), where 1 - 2 sigmoid would cancel
            dy.imag = v
            return
        dy[...] = sigmoid_slope(z)
        y[...] = sigmoid(z)
        return
    # e = exp(-z); y = 1/(1+e); dy = (e y) y. The bound keeps e finite: inf * 0 would be NaN.
    # (multiply, not negative: NumPy 2.4's np.negative leaves entries unwritten for some strides)
    np.multiply(z, -1.0, out=dy)
    np.minimum(dy, -np.log(np.finfo(z.dtype).tiny), out=dy)  # y stays a normal number
    np.exp(dy, out=dy)
    np.add(dy, 1.0, out=y)
    np.reciprocal(y, out=y)
    np.multiply(dy, y, out=dy)
    np.multiply(dy, y, out=dy)


def one_minus_sigmoid(z: Array, y: Array, dy: Array, out: Array) -> None:
    """Write 1 - sigmoid(z) to `out` with all its digits, given y = sigmoid(z) and its slope dy."""
    if np.iscomplexobj(z):
        if _is_step(z):
            out.real = dy.real / y.real
            np.multiply(y.imag, -1.0, out=out.imag)
        else:
            out[...] = sigmoid(-z)
    else:
        np.divide(dy, y, out=out)


def tanh_and_slope(z: Array, y: Array, dy: Array) -> None:
    """Write tanh(z) to `y` and its derivative to `dy`; `y` may be `z` itself. The caller silences overflow."""
    if np.iscomplexobj(z):
        if _is_step(z):
            x, v = z.real.copy(), z.imag.copy()
            slope = np.empty_like(x)
            tanh_and_slope(x, x, slope)
            y.real, dy.real = x, slope
            v *= slope
            y.imag = v
            x *= -2.0
            v *= x  # tanh'' = -2 tanh' tanh
            dy.imag = v
            return
        dy[...] = tanh_slope(z)
        np.tanh(z, out=y)
        return
    # With e = exp(z): tanh' = (2 / (e + 1/e))^2, free of cancellation; where e or 1/e overflows it is 0, as it should be.
    e = np.exp(z, out=dy if dy.flags.c_contiguous else None)  # five passes over memory with gaps take twice as long
    e += np.reciprocal(e)
    np.divide(2.0, e, out=e)
    np.multiply(e, e, out=dy)
    np.tanh(z, out=y)


def relu(z: Array) -> Array:
    """max(z, 0), by the sign of the real part."""
    z = np.asarray(z)
    return np.where(z.real > 0, z, np.zeros((), z.dtype))


def relu_and_slope(z: Array, y: Array, dy: Array) -> None:
    """Write relu(z) to `y` and its slope to `dy`; the slope at exactly 0 is 0. `y` may be `z` itself."""
    np.greater(z.real, 0, out=dy, casting="unsafe")
    np.multiply(z, dy, out=y)


LEAK = 0.01
"""Slope of the leaky ReLU for negative arguments."""


def leaky_relu(z: Array) -> Array:
    """Z where its real part is positive, 0.01 z elsewhere."""
    z = np.asarray(z)
    return np.where(z.real > 0, z, LEAK * z)


def leaky_relu_and_slope(z: Array, y: Array, dy: Array) -> None:
    """Write leaky_relu(z) to `y` and its slope to `dy`; the slope at exactly 0 is 0.01. `y` may be `z` itself."""
    dy[...] = np.where(z.real > 0, 1.0, LEAK)
    np.multiply(z, dy, out=y)


def hard_tanh(z: Array) -> Array:
    """Z cut to [-1, 1], by the real part."""
    z = np.asarray(z)
    return np.where(z.real >= 1, 1.0, np.where(z.real <= -1, -1.0, z)).astype(z.dtype)


def hard_tanh_and_slope(z: Array, y: Array, dy: Array) -> None:
    """Write hard_tanh(z) to `y` and its slope to `dy`; the slope at exactly -1 and 1 is 0. `y` may be `z` itself."""
    dy[...] = (z.real > -1) & (z.real < 1)
    y[...] = hard_tanh(z)


def identity_and_slope(z: Array, y: Array, dy: Array) -> None:
    """Write z to `y` and 1 to `dy`; `y` may be `z` itself."""
    if y is not z:
        y[...] = z
    dy[...] = 1.0


def log_norm(x: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """Natural logarithm of the 2-norm along `axis`, without under- or overflow; -inf for a zero vector.

    A plain norm squares its entries, so it reads 0 for a vector of size 1e-200. Non-finite entries give
    NaN or inf in the result, never a finite number.
    """
    with np.errstate(all="ignore"):  # squares beside 1 may vanish; what is not finite stays so
        mantissa, exponent = power_of_two(x, axis)
        total = np.sum(mantissa.real**2 + mantissa.imag**2, axis=axis)
        return np.asarray(0.5 * np.log(total) + exponent * LN2)


def power_of_two(x: Array, axis: int | tuple[int, ...]) -> tuple[Array, Array]:
    """(mantissa, exponent) with x = mantissa * 2**exponent and the largest mantissa in [1/2, 1).

    The scaling is exact. A zero block has exponent 0; a non-finite one is left as it is.
    """
    # of a complex number the larger part: |z| itself may overflow where its parts do not
    size = np.max(np.maximum(np.abs(x.real), np.abs(x.imag)), axis=axis, keepdims=True)
    exponent = np.frexp(np.where(np.isfinite(size), size, 0.0))[1]
    if np.iscomplexobj(x):
        mantissa: Array = np.ldexp(x.real, -exponent) + 1j * np.ldexp(x.imag, -exponent)
    else:
        mantissa = np.ldexp(x, -exponent)
    return mantissa, np.squeeze(exponent, axis=axis).astype(np.int64)
