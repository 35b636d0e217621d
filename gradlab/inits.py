"""Initialisations of a weight matrix: each returns a function (rng, (rows, columns)) -> matrix.

Gated cells apply it to each gate's block on its own. The named recipes at the end (`irnn()`, `pascanu_tanh()`, ...) give the
inits of a whole network, for `net.init(rng, **inits.irnn())`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_count, require_generator, require_number, require_positive
from gradlab.errors import ShapeError, ValueRangeError

Array = npt.NDArray[Any]
Init = Callable[[np.random.Generator, tuple[int, int]], Array]


def gaussian(gain: float = 1.0) -> Init:
    """N(0, gain^2/columns): for a square matrix the spectral radius tends to `gain`, the largest singular value
    to 2 `gain` (Girko 1984; Geman 1980). The random networks of Sompolinsky, Crisanti & Sommers (1988).
    """
    require_number("gain", gain)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return rng.normal(0.0, gain / np.sqrt(shape[1]), shape)

    return draw


def glorot(gain: float = 1.0) -> Init:
    """Uniform in +-gain sqrt(6/(rows + columns)): variance 2 gain^2/(rows + columns) (Glorot & Bengio 2010, eq. 16)."""
    require_number("gain", gain)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        bound = gain * np.sqrt(6.0 / (shape[0] + shape[1]))
        return rng.uniform(-bound, bound, shape)

    return draw


def orthogonal(gain: float = 1.0) -> Init:
    """`gain` times an orthogonal matrix, Haar distributed (Saxe, McClelland & Ganguli 2014; Mezzadri 2007):
    every singular value is `gain`. A rectangular matrix has orthonormal rows or columns, whichever are fewer.
    """
    require_number("gain", gain)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        long, short = max(shape), min(shape)
        q, r = np.linalg.qr(rng.normal(size=(long, short)))
        q = q * np.sign(np.diagonal(r))  # without it the distribution is LAPACK's, not Haar's
        return np.asarray(gain * (q if shape[0] >= shape[1] else q.T))

    return draw


def identity(factor: float = 1.0) -> Init:
    """`factor` on the diagonal, 0 elsewhere (Le, Jaitly & Hinton 2015: 1, and 0.01 for speech)."""
    require_number("factor", factor)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return factor * np.eye(*shape)

    return draw


def uniform(bound: float) -> Init:
    """U[-bound, bound], whatever the shape (Hochreiter & Schmidhuber 1997, adding: 0.1)."""
    require_number("bound", bound)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return bound * rng.uniform(-1.0, 1.0, shape)

    return draw


def uniform_fan_in(gain: float = 1.0) -> Init:
    """Uniform in +-gain/sqrt(columns): variance gain^2/(3 columns), so the spectral radius of a square matrix tends to
    gain/sqrt(3) (the "commonly used" heuristic of Glorot & Bengio 2010, eq. 1).
    """
    require_number("gain", gain)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        bound = gain / np.sqrt(shape[1])
        return rng.uniform(-bound, bound, shape)

    return draw


def normal(std: float) -> Init:
    """N(0, std^2), whatever the shape: the spectral radius of an n x n matrix is near std sqrt(n)."""
    require_number("std", std)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return rng.normal(0.0, 1.0, shape) * std

    return draw


def spectral_radius(radius: float = 1.0) -> Init:
    """A Gaussian matrix divided by its own spectral radius, times `radius`. Square matrices only."""
    require_number("radius", radius)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        _require_square(shape)
        return _rescaled(rng.normal(0.0, 1.0, shape), radius)

    return draw


def sparse(radius: float = 0.95, nonzeros: int = 15) -> Init:
    """`nonzeros` Gaussian entries in each column, so for the outgoing weights of each unit, rescaled to the spectral `radius`:
    the recurrent matrix of "smart tanh" in the program of Pascanu, Mikolov & Bengio (2013). A smaller matrix is full.

    Square matrices only. The radius is never 0: where every column has an entry there is a cycle of units.
    """
    require_number("radius", radius)
    require_count("nonzeros", nonzeros)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        _require_square(shape)
        matrix = rng.normal(0.0, 1.0, shape)
        rank = rng.random(shape).argsort(axis=0).argsort(axis=0)  # of each entry in its column, uniform
        return _rescaled(np.where(rank < nonzeros, matrix, 0.0), radius)

    return draw


def critical_tanh(bias_variance: float = 0.0) -> Init:
    """N(0, sw^2/columns) with the sw^2 of `critical_point`: the edge between vanishing and exploding in a wide tanh net
    whose biases are N(0, `bias_variance`); draw those by `random_bias`, or the net is not critical.
    """
    gain = float(np.sqrt(critical_point(bias_variance).weight_variance))

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return rng.normal(0.0, gain / np.sqrt(shape[1]), shape)

    return draw


@dataclass(frozen=True)
class CriticalPoint:
    """sw^2, sb^2 and the variance q* of the pre-activations at the fixed point, where chi = 1."""

    weight_variance: float
    bias_variance: float
    q: float


def critical_point(bias_variance: float) -> CriticalPoint:
    """The sw^2 of a tanh net at which chi = 1, with z standard normal (Poole et al. 2016; Schoenholz et al. 2017):

    q = sw^2 E[tanh(sqrt(q) z)^2] + sb^2,   chi = sw^2 E[tanh'(sqrt(q) z)^2] = 1

    At sb^2 = 0, sw = 1 and q = 0; at 0.05, sw^2 = 1.760955. Accepts 0 to 1e4. Error: ValueRangeError.
    """
    sb2 = require_number("bias_variance", bias_variance)
    if not 0.0 <= sb2 <= 1e4:
        raise ValueRangeError(f"bias_variance is {bias_variance}; expected 0 to 1e4")
    if sb2 == 0.0:
        return CriticalPoint(1.0, 0.0, 0.0)
    low, high = 0.0, 2.0 * sb2 + 8.0  # E[tanh^2]/E[tanh'^2] grows like 1.9 sqrt(q): q - that ratio - sb^2 > 0 at `high`
    while low < (middle := 0.5 * (low + high)) < high:
        excess, slopes = _tanh_moments(middle)
        if (middle - excess / slopes) < sb2:
            low = middle
        else:
            high = middle
    return CriticalPoint(1.0 / _tanh_moments(high)[1], sb2, high)


def _tanh_moments(q: float) -> tuple[float, float]:
    """E[tanh^2] and E[tanh'^2] at sqrt(q) z. The trapezoidal rule: on analytic functions it converges exponentially, also where
    tanh is a step and Gauss-Hermite needs thousands of nodes.
    """
    root = np.sqrt(q)
    z = np.linspace(0.0, 12.0, 1 + int(12.0 * 20.0 * max(1.0, root)))
    weight = np.exp(-0.5 * z * z)
    weight[0] *= 0.5  # the other half-line is the mirror image
    weight /= weight.sum()
    value = np.square(np.tanh(root * z))
    return float(weight @ value), float(weight @ np.square(1.0 / np.square(np.cosh(np.minimum(root * z, 300.0)))))


def random_bias(rng: np.random.Generator, params: Mapping[str, Array], variance: float) -> dict[str, Array]:
    """`params` with every recurrent layer's bias "....b" drawn from N(0, `variance`); all else as it was."""
    require_generator("rng", rng)
    if require_number("variance", variance) < 0.0:
        raise ValueRangeError(f"variance is {variance}; expected 0 or more")
    std = np.sqrt(variance)
    return {
        key: (std * rng.normal(size=value.shape)).astype(value.dtype) if key.rpartition(".")[2] == "b" else value
        for key, value in params.items()
    }


def forget_bias(steps: float) -> float:
    """The forget bias with which a cell keeps its content for `steps`: sig(bias) = exp(-1/steps). For LSTM's `forget_bias`."""
    rate = 1.0 / require_positive("steps", steps)
    return float(-rate - np.log(-np.expm1(-rate)))


def forget_time_constant(bias: float) -> float:
    """The steps -1/ln sig(bias) in which a cell's content falls to 1/e, with all else 0: 1.44 at bias 0, 3.19 at 1."""
    if require_number("bias", bias) > 700.0:
        raise ValueRangeError(f"bias is {bias}; expected at most 700, beyond which the time constant is no finite number")
    return float(1.0 / np.logaddexp(0.0, -bias))


def irnn(factor: float = 1.0, input_std: float = 0.001) -> dict[str, Init]:
    """Le, Jaitly & Hinton (2015), for `Network.init(rng, **irnn())` with ReLU: U = `factor` I, W ~ N(0, 0.001^2), biases 0.

    Their read-out is not told; it keeps the network's default.
    """
    return {"input_init": normal(input_std), "recurrent_init": identity(factor)}


def pascanu_sigmoid() -> dict[str, Init]:
    """All weights N(0, 0.01^2), for `Network.init(rng, **...)`: the program of Pascanu, Mikolov & Bengio (2013)."""
    return dict.fromkeys(("input_init", "recurrent_init", "readout_init"), normal(0.01))


def pascanu_tanh() -> dict[str, Init]:
    """All weights N(0, 0.1^2): "basic tanh" of the same program."""
    return dict.fromkeys(("input_init", "recurrent_init", "readout_init"), normal(0.1))


def pascanu_smart_tanh() -> dict[str, Init]:
    """U `sparse()`, the rest N(0, 0.01^2): "smart tanh" of the same program."""
    return pascanu_sigmoid() | {"recurrent_init": sparse()}


def scrn() -> dict[str, Init]:
    """All weights N(0, 0.05^2): the released program of Mikolov et al. (2014)."""
    return dict.fromkeys(("input_init", "recurrent_init", "readout_init"), normal(0.05))


def _require_square(shape: tuple[int, int]) -> None:
    if shape[0] != shape[1]:
        raise ShapeError(f"shape is {shape}; expected a square matrix, which alone has a spectral radius; try recurrent_init")


def _rescaled(matrix: Array, radius: float) -> Array:
    """`matrix` with another spectral radius."""
    return np.asarray(radius / np.abs(np.linalg.eigvals(matrix)).max() * matrix)


FACTORIES = (
    gaussian,
    glorot,
    orthogonal,
    identity,
    uniform,
    uniform_fan_in,
    normal,
    spectral_radius,
    sparse,
    critical_tanh,
    irnn,
    pascanu_sigmoid,
    pascanu_tanh,
    pascanu_smart_tanh,
    scrn,
)
"""The functions above which make an init, or several, and are none."""
