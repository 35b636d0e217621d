"""The untied check: every contribution of every step and row to every gradient, against the oracle.

The forward pass has its own copy of each parameter at each step (and, rows being independent, for each row). The oracle
then returns contributions, not sums, and a mismatch has a place: parameter, gate, step, row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.cells.base import Cell
from gradlab.checks.along import Along, Shift, own_parameters, unit_shifts
from gradlab.checks.claims import SUMMED, Claims, claimed, replay
from gradlab.checks.example import Example
from gradlab.checks.judgement import Quantity
from gradlab.checks.oracle import Choice, Oracle, choose, derivative, rescued
from gradlab.forward_pass import Pass
from gradlab.network import Network

Array = npt.NDArray[Any]

CANCELLED = 0.1
"""Where all entries of a cell are below this share of S, the loss hides them; another one is added."""
TRIED = (0, 1, 2)
"""Steps at which a cell's own step is tried before a complex step of it is trusted, at a random point each."""
FAINT = 1e-90
"""Below this a complex step of 1e-200 may have underflowed on its way."""


@dataclass(frozen=True)
class Untied:
    """The oracle's side of an example: derivatives of all outputs along all untied directions."""

    example: Example
    oracle: Oracle
    wanted: list[tuple[str, int, Shift]]
    along: Along

    @cached_property
    def run(self) -> Pass:
        """The engine's own forward pass."""
        return replay(self.example)

    @cached_property
    def slopes(self) -> tuple[Array, Array]:
        """(dy/d(direction), error estimate), each (directions, T, B, p)."""
        first, estimate = derivative(self.along, self.oracle)
        first = first[1:]
        if self.oracle.kind == "complex":
            seen = self.example.cotangent if self.example.net.readout == "every" else self.example.cotangent[None]
            faint = (np.abs(first * (seen != 0.0)).max(axis=(1, 3)) < FAINT).any(axis=-1)
            if faint.any():
                at, some = self._only(faint)
                first[at] = rescued(lambda shift: some(shift)[1:], first[at])
            return first, np.zeros(())
        return first, estimate[1:]

    def _only(self, directions: Array) -> tuple[Array, Along]:
        """The indices of all directions that move with one of `directions`, and the forward pass along these alone."""
        e, kept, at, start = self.example, [], [], 0
        for _, _, shift in self.wanted:
            if directions[start : start + shift.size].any():
                kept.append(shift)
                at.append(np.arange(start, start + shift.size))
            start += shift.size
        return np.concatenate(at), Along(e.net, e.params, e.x, e.states, e.lengths, kept)

    def _contract(self, slopes: Array, cotangent: Array) -> tuple[Array, Array]:
        """Sums over outputs, and over their absolute values: (directions, B) each."""
        weight = cotangent if self.example.net.readout == "every" else cotangent[None]
        with np.errstate(all="ignore"):  # what is not finite is withheld
            terms = slopes * weight
            return terms.sum(axis=(1, 3)), np.abs(terms).sum(axis=(1, 3))

    def quantities(self, claims: Claims, cotangent: Array) -> list[Quantity]:
        """Each quantity judged."""
        n, S, unsure = self.sides(*self.slopes, cotangent)
        e = self.example
        return [Quantity(name, a, n[name], S[name], unsure[name], e.rtol, parts_of(e.net, name)) for name, a in claims.items()]

    def sides(self, slopes: Array, errors: Array, cotangent: Array) -> tuple[Claims, Claims, Claims]:
        """Gradients, scales S and error estimates by quantity, of derivatives of the outputs along all directions."""
        exact, scale = self._contract(slopes, cotangent)
        estimate = self._contract(errors, cotangent)[1] if errors.ndim else np.zeros(exact.shape)
        return self._by_quantity(exact), self._by_quantity(scale), self._by_quantity(estimate)

    def _by_quantity(self, flat: Array) -> dict[str, Array]:
        """(directions, B) -> by name (steps, B, *own); the steps of a quantity stand one behind the other."""
        found: dict[str, Array] = {}
        start = 0
        for name, group in itertools.groupby(self.wanted, key=lambda one: one[0]):
            steps = list(group)
            shift = steps[0][2]
            own = next(iter(shift.vectors.values())).shape[1:]
            stop = start + len(steps) * shift.size
            block = flat[start:stop].reshape(len(steps), shift.size, -1).swapaxes(1, 2)
            found[name] = block.reshape(len(steps), -1, *own)
            if shift.kind in ("parameter", "readout"):
                with np.errstate(all="ignore"):
                    found[f"{name}{SUMMED}"] = found[name].sum(axis=(0, 1))[None, None]
            start = stop
        return found

    def one_sided(self, h: float, cotangent: Array) -> tuple[tuple[dict[str, Array], dict[str, Array]], float]:
        """((left, right) derivatives by differences with a step `h`, by quantity; the sum of the loss's absolute terms)."""
        with np.errstate(all="ignore"):
            above, here, below = (self.along(np.asarray(sign * h)) for sign in (1.0, 0.0, -1.0))
            left, right = (self._contract(difference[1:] / h, cotangent)[0] for difference in (here - below, above - here))
            terms = float(self._contract(here[:1], cotangent)[1].max(initial=0.0))
        return (self._by_quantity(left), self._by_quantity(right)), terms


def untied(example: Example, choice: Choice = "auto") -> Untied:
    """Set the oracle up for an example: pre-flight, directions."""
    wanted = unit_shifts(example.net, example.params, len(example.x))
    along = Along(example.net, example.params, example.x, example.states, example.lengths, [shift for _, _, shift in wanted])
    return Untied(example, preflight(example.net, choice), wanted, along)


def preflight(net: Network, choice: Choice) -> Oracle:
    """The oracle for a network: each cell's step and output are tried in one direction, at random points and steps.

    Not at an example's own point: that may sit on a kink, where complex step and Richardson rightly differ.
    """
    forward_only = all(differentiates_itself(layer.cell) for layer in net.layers)
    pieces = [piece for t in TRIED for piece in _pieces(net, np.random.default_rng(t), t)]
    return choose(pieces, choice, forward_only)


def differentiates_itself(cell: Any) -> bool:
    """True if all of the cell's derivatives are complex steps of its own `step`: nothing was written by hand."""
    return cell.vjp is None and getattr(cell.param_grads, "__func__", None) is Cell.param_grads


def _pieces(net: Network, rng: np.random.Generator, t: int) -> list[Callable[[Any], Array]]:
    found: list[Callable[[Any], Array]] = []
    seen: list[Any] = []
    for layer in net.layers:
        if any(layer.cell is cell for cell in seen):
            continue
        seen.append(layer.cell)
        shapes = own_parameters({key: np.zeros(shape) for key, shape in net.shapes.items()}, layer.name)
        points = {key: rng.uniform(-1.0, 1.0, value.shape) for key, value in shapes.items()}
        moves = {key: rng.uniform(0.5, 1.0, value.shape) * rng.choice([-1.0, 1.0], value.shape) for key, value in shapes.items()}
        sizes = (layer.input_size, layer.state_size, layer.state_size)
        x, s, s_now = (rng.uniform(-1.0, 1.0, (2, n)) for n in sizes)
        dx, ds, ds_now = (rng.uniform(0.5, 1.0, (2, n)) * rng.choice([-1.0, 1.0], (2, n)) for n in sizes)

        def step(
            shift: Any,
            cell: Any = layer.cell,
            points: Any = points,
            moves: Any = moves,
            x: Any = x,
            s: Any = s,
            dx: Any = dx,
            ds: Any = ds,
        ) -> Array:
            theta = {key: points[key] + shift * moves[key] for key in points}
            return np.asarray(cell.step(theta, x + shift * dx, s + shift * ds, t))

        def output(
            shift: Any, cell: Any = layer.cell, s: Any = s, s_now: Any = s_now, ds: Any = ds, ds_now: Any = ds_now
        ) -> Array:
            return np.asarray(cell.output(s_now + shift * ds_now, s + shift * ds))

        found += [step, output]
    return found


def parts_of(net: Network, name: str) -> dict[str, tuple[int, int]]:
    """Gates of a parameter, or parts of a state, as spans of its first own axis."""
    name = name.removesuffix(SUMMED)
    for layer in net.layers:
        if name == f"s {layer.name}":
            return dict(layer.parts) if len(layer.parts) > 1 else {}
        if name.startswith(f"{layer.name}."):
            gates, H = layer.cell.gates, layer.hidden_size
            rows = net.shapes[name][0] if net.shapes[name] else 0
            if len(gates) > 1 and rows == len(gates) * H:
                return {gate: (k * H, (k + 1) * H) for k, gate in enumerate(gates)}
    return {}


def judged(check: Untied, rng: np.random.Generator) -> tuple[list[Quantity], Array, Claims]:
    """All quantities of an example: with its own cotangent, and with a second one where the first hides a whole cell.

    Returns the quantities (where both judgements pass, entry by entry the worse), the cotangent that they belong to, and
    what the backward pass claims for it.
    """
    example = check.example
    claims = claimed(example, check.run)
    quantities = check.quantities(claims, example.cotangent)
    if any(_hidden(quantity) for quantity in quantities) and not any(q.verdict.any() for q in quantities):
        second = np.abs(example.cotangent) * rng.uniform(0.5, 1.0, example.cotangent.shape)
        other = claimed(example, check.run, second)
        again = check.quantities(other, second)
        if any(q.verdict.any() for q in again):
            return again, second, other
        quantities = [_worse(one, other) for one, other in zip(quantities, again, strict=True)]
    return quantities, example.cotangent, claims


def _hidden(quantity: Quantity) -> bool:
    """Whether some cell (gate, step, row) has nothing but entries that nearly cancel."""
    seen = np.abs(quantity.oracle) >= CANCELLED * quantity.scale
    for _, block in quantity.blocks():
        part = seen[(slice(None), slice(None), *block)]
        if not part.reshape(*part.shape[:2], -1).any(axis=-1).all():
            return True
    return False


def _worse(one: Quantity, other: Quantity) -> Quantity:
    """Entry by entry the judgement with the larger error."""
    take = other.error > one.error

    def pick(a: Array, b: Array) -> Array:
        return np.where(take, b, a)

    value, oracle, scale, estimate = (pick(getattr(one, k), getattr(other, k)) for k in ("value", "oracle", "scale", "estimate"))
    return Quantity(one.name, value, oracle, scale, estimate, one.rtol, one.parts)
