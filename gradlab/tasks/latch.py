"""The latch of Bengio, Simard & Frasconi (1994): keep one bit for any time, against noise, with trainable inputs.

    a_t = w tanh(a_{t-1}) + h_t,   x_t = tanh(a_t),   a_0 = 0

The class is told by the first L values h_t alone, which are trainable, one for each class and step; afterwards
h_t ~ N(0, s^2). As inputs of a network: channel 0 is the noise, channel 1 + L k + t is 1 at step t < L for class k. So W
holds 1 and the 2 L trainable values, U is w, and an Elman net with H = 1 is the latch (`latch_parameters`). Target:
-0.8 or 0.8, by class, for x_T. The loss is the mean of (x_T - d)^2, twice the paper's cost.

For w > 1 there are two attractors +-xbar, xbar = tanh(w xbar). The sign is kept for ever while every |h_t| < h*(w),
h*(w) = w q - artanh(q) with q = sqrt(1 - 1/w): the set a >= artanh(q) is then invariant. At the attractor the gradient
shrinks by w (1 - xbar^2) < 1 a step: what is kept safely has a vanishing gradient.
"""

from __future__ import annotations

import numpy as np

from gradlab._validate import as_numbers, require_number
from gradlab.batch import Batch
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.tasks.base import Array, Task, same_sign

STEPS = 3
"""L. This and the noise are gradlab's choice where the paper's own constants could not be confirmed."""
NOISE = 0.2
"""s, a standard deviation."""
GOAL = 0.8


def _law(rng: np.random.Generator, B: int, T: int) -> Batch:
    inputs = np.zeros((T, B, 1 + 2 * STEPS))
    classes, t = rng.integers(0, 2, B), np.arange(STEPS)[:, None]
    inputs[t, np.arange(B), 1 + STEPS * classes + t] = 1.0
    inputs[STEPS:, :, 0] = rng.normal(0.0, NOISE, (T - STEPS, B))
    return Batch(inputs, (GOAL * (2.0 * classes - 1.0))[:, None])


def latch_parameters(w: float, values: Array) -> dict[str, Array]:
    """The latch as parameters of `Network(Elman("tanh"), 7, 1, output_size=1, readout="last")`.

    `values` (2, 3): h_t of class 0 and of class 1 at the first steps. Train "0.W" but its first entry, which stays 1.
    """
    values = as_numbers("values", values)
    if values.shape != (2, STEPS):
        raise ShapeError(f"values have shape {values.shape}; expected (2, {STEPS}), one row for each class")
    return {
        "0.W": np.concatenate([[1.0], values.ravel()])[None],
        "0.U": np.array([[require_number("w", w)]]),
        "0.b": np.zeros(1),
        "readout.V": np.ones((1, 1)),
        "readout.b_y": np.zeros(1),
    }


def _require_latching(w: float) -> float:
    if require_number("w", w) <= 1.0:
        raise ValueRangeError(f"w is {w}; expected more than 1: below, 0 is the only attractor and no bit is kept")
    return float(w)


def safe_noise(w: float) -> float:
    """h*(w) = w q - artanh(q), q = sqrt(1 - 1/w), w > 1: inputs of smaller size never flip the bit. 0.0778 at w = 1.25."""
    w = _require_latching(w)
    q = np.sqrt(1.0 - 1.0 / w)
    return float(w * q - 0.5 * np.log(w) - np.log1p(q))  # artanh(q) without the cancellation in 1 - q


def attractor(w: float) -> float:
    """The root xbar > 0 of xbar = tanh(w xbar), w > 1: the stored value without noise. 0.7104 at w = 1.25."""
    w = _require_latching(w)
    x = 1.0
    for _ in range(200):  # Newton from the right: tanh(w x) - x is concave, so it falls to the root and stops there
        value = np.tanh(w * x)
        step = (value - x) / (w * (1.0 - value) * (1.0 + value) - 1.0)
        if not x - step < x:
            break
        x -= step
    return float(x)


def attractor_slope(w: float) -> float:
    """The slope w (1 - xbar^2): by so much the gradient shrinks in every step at the attractor. 0.6191 at w = 1.25."""
    e = np.exp(-2.0 * w * attractor(w))
    return float(4.0 * w * e / (1.0 + e) ** 2)  # w sech^2(w xbar), without overflow and exact where xbar rounds to 1


BENGIO = Task(
    name="latch_bengio",
    source="Bengio, Simard & Frasconi (1994); L = 3, s = 0.2 and the criterion are gradlab's choice",
    input_size=1 + 2 * STEPS,
    output_size=1,
    readout="last",
    loss="mean_squared_error",
    criterion="the output has the target's sign",
    law=_law,
    chance=lambda length: GOAL**2,
    correct=same_sign,
    minimum=STEPS + 1,
)
