"""Laws of large random matrices, and the bounds on gradients that need only the weights: lines to draw beside measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import LN2, power_of_two
from gradlab._validate import as_numbers, require_count, require_one_of, require_positive
from gradlab.analysis._matrices import finite_matrices
from gradlab.cells import activations
from gradlab.errors import ValueRangeError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class CircularLaw:
    """Eigenvalues of a large matrix with independent entries of variance gain^2/N: uniform on the disc of radius `edge`."""

    edge: float

    def density(self, eigenvalues: Array) -> Array:
        """Per unit of area of the complex plane: 1/(pi edge^2) inside, 0 outside."""
        return np.where(np.abs(eigenvalues) <= self.edge, 1.0 / (np.pi * self.edge**2), 0.0)

    def share_within(self, radius: Array) -> Array:
        """The share of eigenvalues of modulus at most `radius`."""
        return np.asarray(np.clip(np.asarray(radius) / self.edge, 0.0, 1.0) ** 2)


def circular_law(gain: float = 1.0) -> CircularLaw:
    """The circular law (Ginibre 1965; Girko 1984) of a matrix with independent entries of variance `gain`^2/N."""
    return CircularLaw(require_positive("gain", gain))


@dataclass(frozen=True)
class MarchenkoPastur:
    """Eigenvalues of X^T X/n, X (n, p) with independent entries of variance `variance`, for large n and p = `ratio` n.

    They lie between `low` and `high`; for ratio > 1 the share `atom` of them is 0. The squared singular values of a square
    recurrent matrix of gain g are ratio 1, variance g^2: the largest singular value is 2 g.
    """

    ratio: float
    variance: float
    low: float
    high: float
    atom: float

    def density(self, x: Array) -> Array:
        """Of the eigenvalues that are not 0, with total 1 - `atom`; at the hard edge x = 0 of ratio 1 it is inf."""
        x = np.asarray(x, dtype=float)
        inside = (x >= self.low) & (x <= self.high)
        at = np.where(inside, x, self.high)
        with np.errstate(divide="ignore"):
            root = np.sqrt((self.high - at) * (at - self.low))
            found = np.where(at > 0.0, root / np.where(at > 0.0, at, 1.0), np.inf)
        return np.asarray(np.where(inside, found / (2.0 * np.pi * self.variance * self.ratio), 0.0))

    def moment(self, n: int) -> float:
        """The mean n-th power of all eigenvalues: of variance 1 these are 1, 1 + y, 1 + 3 y + y^2, ..."""
        require_count("n", n)
        narayana = (math.comb(n, r) * math.comb(n - 1, r) * self.ratio**r / (r + 1) for r in range(n))
        return float(self.variance**n * math.fsum(narayana))


def marchenko_pastur(ratio: float, variance: float = 1.0) -> MarchenkoPastur:
    """The law of Marchenko & Pastur (1967); `ratio` = p/n, columns by rows."""
    y, v = require_positive("ratio", ratio), require_positive("variance", variance)
    return MarchenkoPastur(y, v, v * (1.0 - math.sqrt(y)) ** 2, v * (1.0 + math.sqrt(y)) ** 2, max(0.0, 1.0 - 1.0 / y))


@dataclass(frozen=True)
class FussCatalan:
    """Squared singular values of a product of `factors` large square matrices with independent entries of variance 1/N.

    They lie between 0 and `edge` = (m + 1)^(m + 1)/m^m for m factors.
    """

    factors: int
    edge: float

    def moment(self, n: int) -> float:
        """The mean n-th power, binom((m + 1) n, n)/(m n + 1): for two factors 1, 3, 12, ..."""
        m = self.factors
        return math.comb((m + 1) * require_count("n", n), n) / (m * n + 1)


def fuss_catalan(factors: int) -> FussCatalan:
    """The law of Fuss & Catalan of a product of `factors` Gaussian matrices (Penson & Zyczkowski 2011)."""
    m = require_count("factors", factors)
    return FussCatalan(m, (m + 1.0) * ((m + 1.0) / m) ** m)


def gaussian_product_exponents(size: int, gain: float = 1.0) -> Array:
    """The Lyapunov exponents (N,) of products of independent N x N matrices with entries N(0, gain^2/N); nats per factor.

    lambda_i = ln gain + [ln(2/N) + digamma((N - i + 1)/2)]/2 (Newman 1986).
    """
    from scipy.special import digamma

    N = require_count("size", size)
    left = N - np.arange(N)
    return np.asarray(np.log(require_positive("gain", gain)) + 0.5 * (np.log(2.0 / N) + digamma(0.5 * left)))


@dataclass(frozen=True)
class PascanuBounds:
    """What the recurrent matrix alone says about an Elman network; arrays (*E,).

    `size`: the largest singular value of U (of a linear network, whose Jacobian is always U, its spectral radius).
    `limit`: 1/gamma, gamma the largest slope of the activation. `rate` = ln(gamma size), nats per step: no gradient grows
    faster (of a linear network, in the long run).
    `vanishes`: size < limit, sufficient for vanishing. `may_explode`: size > limit, necessary for exploding, and far from
    sufficient.
    """

    size: Array
    limit: float
    rate: Array
    vanishes: Array
    may_explode: Array


def pascanu_bounds(U: Array, activation: str = "tanh") -> PascanuBounds:
    """The two conditions of Pascanu, Mikolov & Bengio (2013), section 2.1 and eq. 6-7, for U (*E, H, H)."""
    U, exponent = power_of_two(finite_matrices("U", U, allow_complex=False), (-2, -1))  # a norm may overflow where no entry does
    slope = activations.ALL[require_one_of("activation", activation, activations.ALL)].max_slope
    scaled = np.abs(np.linalg.eigvals(U)).max(axis=-1) if activation == "linear" else np.linalg.norm(U, 2, axis=(-2, -1))
    with np.errstate(divide="ignore", over="ignore"):  # U = 0 has the rate -inf
        size, rate = np.ldexp(scaled, exponent), np.asarray(np.log(slope * scaled) + exponent * LN2)
    return PascanuBounds(np.asarray(size), 1.0 / slope, rate, np.asarray(slope * size < 1.0), np.asarray(slope * size > 1.0))


@dataclass(frozen=True)
class HochreiterBound:
    """|d a_v(t - q)/d a_u(t)| <= n tau^q for the error flow between any two of n units, tau = n max|w| gamma.

    `tau` (*E,); `log_bound` (*E, len(lags)): ln(n tau^q), nats. `vanishes`: tau < 1, for logistic units all |w| < 4/n.
    (The sum over the n^(q-1) paths shows that even tau^q/n is a bound.)
    """

    tau: Array
    lags: Array
    log_bound: Array
    vanishes: Array


def hochreiter_bound(U: Array, lags: Array, activation: str = "sigmoid") -> HochreiterBound:
    """The bound of Hochreiter & Schmidhuber (1997), section 3.1, on the error flow over `lags` (n,) steps, for U (*E, H, H)."""
    U = finite_matrices("U", U, allow_complex=False)
    lags = as_numbers("lags", lags, allow_complex=False)
    if lags.ndim != 1 or not (lags >= 1).all():
        raise ValueRangeError(f"lags is {lags!r}; expected a one-dimensional array of numbers >= 1")
    slope = activations.ALL[require_one_of("activation", activation, activations.ALL)].max_slope
    n = U.shape[-1]
    tau = n * slope * np.abs(U).max(axis=(-2, -1))
    with np.errstate(divide="ignore"):
        log_bound = np.log(n) + lags * np.log(tau)[..., None]
    return HochreiterBound(np.asarray(tau), lags, log_bound, np.asarray(tau < 1.0))
