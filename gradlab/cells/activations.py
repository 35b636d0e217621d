"""Activations of a simple recurrent unit, each with the slope that the backward pass uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from gradlab import _math

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Activation:
    """A function with its derivative.

    `value(z)`: for real or complex z. `value_and_slope(z, y, dy)`: fills y = f(z) and dy = f'(z); y may be z.
    `max_slope`: the largest |f'|, the gamma of Pascanu, Mikolov & Bengio (2013), eq. 6.
    """

    name: str
    value: Callable[[Array], Array]
    value_and_slope: Callable[[Array, Array, Array], None]
    max_slope: float


def _linear(z: Array) -> Array:
    return z


TANH = Activation("tanh", _math.tanh, _math.tanh_and_slope, 1.0)
SIGMOID = Activation("sigmoid", _math.sigmoid, _math.sigmoid_and_slope, 0.25)
RELU = Activation("relu", _math.relu, _math.relu_and_slope, 1.0)
LEAKY_RELU = Activation("leaky_relu", _math.leaky_relu, _math.leaky_relu_and_slope, 1.0)
HARD_TANH = Activation("hard_tanh", _math.hard_tanh, _math.hard_tanh_and_slope, 1.0)
LINEAR = Activation("linear", _linear, _math.identity_and_slope, 1.0)

ALL = {activation.name: activation for activation in (TANH, SIGMOID, RELU, LEAKY_RELU, HARD_TANH, LINEAR)}
"""Activations by the name a cell is built with."""
