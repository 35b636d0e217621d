"""A function of arrays along single entries of its arguments, or along random directions if they are many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.checks.judgement import Quantity
from gradlab.checks.oracle import Oracle, derivative, rescued
from gradlab.checks.untied import FAINT

Array = npt.NDArray[Any]

ENTRIES = 2000
"""Up to this many entries of all arguments each is differentiated; above, sums along random directions are compared."""
DIRECTIONS = 32


class FunctionAlong:
    """The function f, its arguments, and the directions in which each is moved."""

    def __init__(self, f: Callable[..., Any], args: list[Array], names: list[str]) -> None:
        self.f, self.args, self.names = f, args, names
        self.single = sum(value.size for value in args) <= ENTRIES
        rng = np.random.default_rng(1)
        scale = [np.maximum(1.0, np.abs(value)) for value in args]  # a difference's step follows the size of the entry
        self.whole = [rng.uniform(0.5, 1.0, v.shape) * rng.choice([-1.0, 1.0], v.shape) for v in args]
        self.vectors: list[list[Array]] = []
        for value, size in zip(args, scale, strict=True):
            if self.single:
                units = np.eye(value.size).reshape(value.size, *value.shape)
                self.vectors.append([unit * size for unit in units])
            else:
                self.vectors.append([rng.choice([-1.0, 1.0], value.shape) for _ in range(min(DIRECTIONS, value.size))])

    def everything(self, shift: Any) -> Array:
        """Value of f with all arguments moved at once, for the pre-flight."""
        return np.asarray(self.f(*(value + shift * v for value, v in zip(self.args, self.whole, strict=True))))

    def pieces(self) -> list[Callable[[Any], Array]]:
        """F along up to 32 of the directions, for the pre-flight: an entry may hide behind a larger one."""
        every = [(k, v) for k, vectors in enumerate(self.vectors) for v in vectors]
        return [self.one(k, v) for k, v in every[:: max(1, len(every) // 32)]]

    def one(self, k: int, v: Array) -> Callable[[Any], Array]:
        def along(shift: Any) -> Array:
            return np.asarray(self.f(*(value + shift * v if j == k else value for j, value in enumerate(self.args))))

        return along

    def at(self, k: int, index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[Callable[[Any], Array], float]:
        """F along the direction of one entry of argument k (index and shape without step and row), and the direction's size."""
        v = self.vectors[k][int(np.ravel_multi_index(index, shape))]
        return self.one(k, v), float(np.abs(v).max()) if self.single else 1.0

    def judge(self, claims: list[Array], cotangent: Array, oracle: Oracle, rtol: float) -> list[Quantity]:
        quantities = []
        for k, (name, claim) in enumerate(zip(self.names, claims, strict=True)):
            exact, scale, estimate, value = [], [], [], []
            for v in self.vectors[k]:
                along = self.one(k, v)
                slopes, error = derivative(along, oracle)
                if oracle.kind == "complex" and float(np.abs(slopes * (cotangent != 0.0)).max()) < FAINT:
                    slopes = rescued(along, slopes)
                size = float(np.abs(v).max()) if self.single else 1.0
                terms = slopes * cotangent / size
                exact.append(terms.sum())
                scale.append(np.abs(terms).sum())
                estimate.append((error * np.abs(cotangent)).sum() / size)
                value.append(0.0 if self.single else float((claim * v).sum()))
            shape = (1, 1, *self.args[k].shape) if self.single else (1, 1, len(value))
            flat = list(claim.ravel()) if self.single else value
            a, n, S, unsure = (np.asarray(side, float).reshape(shape) for side in (flat, exact, scale, estimate))
            if not self.single:  # sums of many entries: 1e-5 times an rtol of 1e-9 is what their rounding may be
                S = S + 1e-5 * np.array([np.abs(claim * v).sum() for v in self.vectors[k]]).reshape(shape)
            quantities.append(Quantity(name, a, n, S, unsure, rtol))
        return quantities
