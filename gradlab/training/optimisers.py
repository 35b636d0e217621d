"""Optimisers: one update of one parameter, over ensemble axes.

The forms are those of PyTorch's `torch.optim` with the same names of constants. An optimiser holds constants only; what it
remembers of a parameter lives in `slots`, arrays of the parameter's shape that start at zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_flag, require_number, require_positive
from gradlab.errors import ValueRangeError

Array = npt.NDArray[Any]


class Optimiser(Protocol):
    """What the trainer needs: names of the slots, and the change of one parameter."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays that it remembers for each parameter."""

    def change(self, gradient: Array, slots: dict[str, Array], count: Array) -> Array:
        """What to subtract from the parameter, divided by the learning rate; `slots` are updated in place.

        `count`: updates of each member so far, this one included, broadcastable against the gradient.
        """


@dataclass(frozen=True)
class SGD:
    """v = momentum v + g; theta -= eta v, or with Nesterov's look-ahead eta (g + momentum v).

    Momentum after Polyak (1964), Nesterov's form after Sutskever, Martens, Dahl & Hinton (2013). While eta is constant this is
    Polyak's v = momentum v - eta g. On 0.5 a x^2 it is stable for a < 2 (1 + momentum)/eta, with Nesterov's form for
    a < 2 (1 + momentum)/(eta (1 + 2 momentum)).
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _require_share("momentum", self.momentum)
        if require_flag("nesterov", self.nesterov) and not self.momentum:
            raise ValueRangeError("nesterov is True with momentum 0; expected a momentum > 0, such as 0.9")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def change(self, gradient: Array, slots: dict[str, Array], count: Array) -> Array:
        if not self.momentum:
            return gradient
        v = slots["velocity"]
        v *= self.momentum
        v += gradient
        return gradient + self.momentum * v if self.nesterov else v


@dataclass(frozen=True)
class RMSProp:
    """s = decay s + (1 - decay) g^2; theta -= eta g/(sqrt(s) + epsilon).   Tieleman & Hinton (2012), lecture 6.5."""

    decay: float = 0.99
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _require_share("decay", self.decay)
        require_positive("epsilon", self.epsilon)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("square",)

    def change(self, gradient: Array, slots: dict[str, Array], count: Array) -> Array:
        s = slots["square"]
        s *= self.decay
        s += (1.0 - self.decay) * (gradient * gradient)
        return np.asarray(gradient / (np.sqrt(s) + self.epsilon))


@dataclass(frozen=True)
class Adam:
    """m = beta1 m + (1 - beta1) g; s = beta2 s + (1 - beta2) g^2; theta -= eta mhat/(sqrt(shat) + epsilon),
    mhat = m/(1 - beta1^t), shat = s/(1 - beta2^t).   Kingma & Ba (2015), algorithm 1.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _require_share("beta1", self.beta1)
        _require_share("beta2", self.beta2)
        require_positive("epsilon", self.epsilon)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("mean", "square")

    def change(self, gradient: Array, slots: dict[str, Array], count: Array) -> Array:
        m, s = slots["mean"], slots["square"]
        m *= self.beta1
        m += (1.0 - self.beta1) * gradient
        s *= self.beta2
        s += (1.0 - self.beta2) * (gradient * gradient)
        # Powers in double precision, whatever the parameter's: 1 - 0.999^t has no digits to spare in float32.
        first, second = (1.0 - b ** np.asarray(count, float) for b in (self.beta1, self.beta2))
        root = np.sqrt(s / second.astype(s.dtype))
        return np.asarray((m / first.astype(m.dtype)) / (root + self.epsilon))


def _require_share(name: str, value: float) -> None:
    require_number(name, value, "a number in [0, 1)")
    if not 0.0 <= value < 1.0:
        raise ValueRangeError(f"{name} is {value}; expected a number in [0, 1)")
