"""Mean-field theory of wide random networks: variances, chi, the critical line, and the exponents of the random map.

All averages are over z ~ N(0, 1), by Gauss-Legendre quadrature on panels that follow both the Gaussian and the
activation, however steep it is; accurate to 1e-13. All roots are found by bisection, for a whole grid at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import LN2, sigmoid
from gradlab._validate import as_numbers, require_one_of
from gradlab.cells import activations
from gradlab.errors import ValueRangeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]

KINKS = {"relu": (0.0,), "leaky_relu": (0.0,), "hard_tanh": (-1.0, 1.0)}
ORDER = 16
REACH = 9.5
"""Standard deviations beyond which a Gaussian has a mass below 1e-20."""
TINY, HUGE, MOST = 1e-30, 1e30, 1e12
HALVINGS = 70
ROUNDING = 1e-13


@dataclass(frozen=True)
class MeanField:
    """The fixed point of a wide random network; arrays of the shape of its variances.

    `variance`: q*, of the pre-activations, inf if it grows without bound. `chi` = weight_variance E[f'(sqrt(q*) z)^2]: the
    mean square of a gradient is multiplied by chi at each step: below 1 it vanishes, above 1 it explodes. `depth_scale`:
    -1/ln chi steps, the lag in which it falls by e; negative where it grows.
    """

    weight_variance: Array
    bias_variance: Array
    variance: Array
    chi: Array
    depth_scale: Array
    status: Status


def mean_field(weight_variance: Any, bias_variance: Any = 0.0, activation: str = "tanh") -> MeanField:
    """Solve q = weight_variance E[f(sqrt(q) z)^2] + bias_variance (Poole et al. 2016; Schoenholz et al. 2017).

    Weights N(0, weight_variance/N), biases N(0, bias_variance); numbers or arrays that broadcast. `activation`: as of an
    Elman cell. `status` is `beyond-range` if some variance grows without bound. Error: ValueRangeError for a negative variance.
    """
    sw, sb = np.broadcast_arrays(_variances("weight_variance", weight_variance), _variances("bias_variance", bias_variance))
    square, slope_square = _squares(activation)
    q = _root(lambda q: sw * square(q) + sb - q, sw + sb)
    chi = sw * slope_square(np.minimum(q, HUGE))
    with np.errstate(divide="ignore"):
        scale = -1.0 / np.log(chi)
    unbounded = int(np.isinf(q).sum())
    detail = f"the variance grows without bound at {unbounded} of {q.size} points"
    return MeanField(sw, sb, q, chi, scale, Status("beyond-range", detail) if unbounded else OK)


@dataclass(frozen=True)
class CriticalLine:
    """Where chi = 1: `weight_variance` for each `bias_variance`, with `variance` q* there; NaN where there is none."""

    bias_variance: Array
    weight_variance: Array
    variance: Array
    status: Status


def critical_line(bias_variance: Any, activation: str = "tanh") -> CriticalLine:
    """The weight variance at which a wide random network with this bias variance neither vanishes nor explodes.

    On the line weight_variance = 1/E[f'^2], so that q = bias_variance + E[f^2]/E[f'^2] (Schoenholz et al. 2017). For tanh
    without bias it is 1. `status` is `nonconverged` where no weight variance does it (ReLU with a bias).
    """
    sb = _variances("bias_variance", bias_variance)
    square, slope_square = _squares(activation)
    q = _root(lambda q: sb + square(q) / slope_square(q) - q, 1.0 + sb)
    none = np.isinf(q) | ((q == 0.0) & (sb > 0.0))
    q = np.where(none, np.nan, q)
    weight = np.asarray(1.0 / slope_square(np.maximum(q, TINY)))  # q = 0 is the limit from above
    detail = f"no weight variance makes chi = 1 at {int(none.sum())} of {q.size} points"
    return CriticalLine(sb, weight, q, Status("nonconverged", detail) if none.any() else OK)


@dataclass(frozen=True)
class RandomTanhMap:
    """h_t = tanh(J h_{t-1} + x_t), J ~ N(0, gain^2/N), x_t ~ N(0, input_variance), for N to infinity; nats per step.

    `variance`: Delta, of the pre-activations. `largest`, `mean`: of the Lyapunov exponents. Networks of finite size have a
    smaller largest exponent; near gain 1 without input they are often periodic.
    """

    gain: Array
    input_variance: Array
    variance: Array
    largest: Array
    mean: Array

    def spectrum(self, fraction: Any) -> Array:
        """The exponent that the share `fraction` (n,) of all exponents exceeds, (*shape of gain, n).

        lambda(x) = ln(gain^2 x/u)/2 with E[u d/(1 + u d)] = x, d = tanh'(sqrt(Delta) z)^2: the Jacobians taken as free of each
        other (Newman 1986; Kargin 2008), in terms of the S-transform of d. x = 0 is the largest exponent.
        Error: ValueRangeError unless 0 < fraction < 1.
        """
        x = np.atleast_1d(np.asarray(fraction, dtype=float))
        if not ((x > 0.0) & (x < 1.0)).all():
            raise ValueRangeError(f"fraction is {fraction}; expected numbers between 0 and 1")
        steepest = float(np.sqrt(self.variance.max()))
        a, weights = _nodes(self.variance, (), reach=int(REACH * steepest) + 1)
        log_d, weights = 2.0 * _log_tanh_slope(a)[..., None, :], weights[..., None, :]  # (*shape of gain, 1, nodes)

        def shares(log_u: Array) -> tuple[Array, Array]:
            """P/(1 - P) with P = E[ud/(1 + ud)], and the derivative of its logarithm by ln u."""
            log_ud = log_u[..., None] + log_d
            part = sigmoid(log_ud)
            rest = weights * sigmoid(-log_ud)  # P and 1 - P, both with all their digits
            share, other = (weights * part).sum(axis=-1), rest.sum(axis=-1)
            return share / other, (part * rest).sum(axis=-1) / (share * other)

        shape, odds = (*self.variance.shape, len(x)), x / (1.0 - x)
        log_u = _bisect(lambda v: odds - shares(v)[0], np.full(shape, -100.0), np.full(shape, 100.0 + 4.0 * REACH * steepest), 10)
        for _ in range(5):  # Newton: the curve is smooth on the scale 1
            found, slope = shares(log_u)
            log_u = log_u + (np.log(odds) - np.log(found)) / slope
        return np.asarray(np.log(self.gain)[..., None] + 0.5 * (np.log(x) - log_u))


def random_tanh_map(gain: Any, input_variance: Any = 0.0) -> RandomTanhMap:
    """Dynamic mean-field theory of the random tanh map in discrete time (after Molgedey, Schuchhardt & Schuster 1992).

    Delta = gain^2 E[tanh^2] + input_variance; lambda_max = ln(gain^2 E[tanh'^2])/2; the mean of all exponents, from the
    determinant, is ln gain - 1/2 + E[ln tanh']. Numbers or arrays that broadcast. Error: ValueRangeError if gain is not > 0.
    """
    g, si = np.broadcast_arrays(_variances("gain", gain), _variances("input_variance", input_variance))
    if not (g > 0.0).all():
        raise ValueRangeError(f"gain is {gain}; expected numbers > 0")
    found = mean_field(g**2, si)
    mean = np.log(g) - 0.5 + gaussian_mean(_log_tanh_slope, found.variance)
    return RandomTanhMap(g, si, found.variance, 0.5 * np.log(found.chi), mean)


def _log_tanh_slope(a: Array) -> Array:
    """The logarithm of tanh'(a) = sech(a)^2, which does not underflow."""
    return np.asarray(2.0 * (LN2 - np.abs(a) - np.log1p(np.exp(-2.0 * np.abs(a)))))


def gaussian_mean(f: Callable[[Array], Array], variance: Array, kinks: tuple[float, ...] = ()) -> Array:
    """E[f(sqrt(variance) z)] for z ~ N(0, 1) and `variance` of any shape; `f` element by element, smooth but at `kinks`."""
    a, weights = _nodes(np.asarray(variance, dtype=float), kinks)
    return np.asarray((weights * f(a)).sum(axis=-1))


def _nodes(variance: Array, kinks: tuple[float, ...], reach: int = 40) -> tuple[Array, Array]:
    """Points a = sqrt(variance) z and weights, (*shape, n): panels at most 1 wide in z and, for |a| < `reach`, in a."""
    deviation = np.sqrt(variance)[..., None]
    own = np.array([*range(-reach, reach + 1), *kinks]) / np.maximum(deviation, 1e-200)
    even = np.broadcast_to(np.linspace(-REACH, REACH, 20), (*variance.shape, 20))
    edges = np.sort(np.clip(np.concatenate([own, even], axis=-1), -REACH, REACH), axis=-1)
    x, w = np.polynomial.legendre.leggauss(ORDER)
    half = 0.5 * np.diff(edges)[..., None]
    z = (edges[..., :-1, None] + half * (1.0 + x)).reshape(*variance.shape, -1)
    weights = (half * w).reshape(z.shape) * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return deviation * z, weights


def _squares(activation: str) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """The functions q -> E[f^2] and q -> E[f'^2]."""
    chosen = activations.ALL[require_one_of("activation", activation, activations.ALL)]
    kinks = KINKS.get(activation, ())

    def slope_square(a: Array) -> Array:
        y, dy = np.empty_like(a), np.empty_like(a)
        with np.errstate(all="ignore"):  # what overflows on its way to a slope of 0
            chosen.value_and_slope(a, y, dy)
        return np.square(dy)

    return (
        lambda q: gaussian_mean(lambda a: np.square(chosen.value(a)), q, kinks),
        lambda q: gaussian_mean(slope_square, q, kinks),
    )


def _root(excess: Callable[[Array], Array], scale: Array) -> Array:
    """The q > 0 with excess(q) = 0, falling through it; 0 if it is not positive at the start, inf far above `scale`."""
    start, end = np.full(scale.shape, TINY), np.full(scale.shape, HUGE)
    found = np.exp(_bisect(lambda log_q: excess(np.exp(log_q)), np.log(start), np.log(end)))
    found = np.where(excess(start) <= ROUNDING * TINY, 0.0, found)
    # where q E[f^2] grows exactly as q does, rounding ends the search somewhere
    return np.asarray(np.where(found > scale / ROUNDING, np.inf, found))


def _bisect(excess: Callable[[Array], Array], low: Array, high: Array, halvings: int = HALVINGS) -> Array:
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        above = excess(middle) > 0.0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(0.5 * (low + high))


def _variances(name: str, value: Any) -> Array:
    found = as_numbers(name, np.asarray(value), allow_complex=False)
    if found.size == 0 or not ((found >= 0.0) & (found <= MOST)).all():
        raise ValueRangeError(f"{name} is {value}; expected finite numbers >= 0, of at most {MOST:g}")
    return found.astype(float)
