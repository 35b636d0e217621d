"""Products of Jacobians with vectors, without any matrix: for wide networks and long windows.

J v by one complex step of the cell's step (forward mode), J^T u by its adjoint; scaled by a power of two at each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._derivatives import complex_step
from gradlab._math import power_of_two
from gradlab._validate import require_count
from gradlab.analysis.jacobian_stream import replay
from gradlab.errors import DTypeError, NumericalError, ValueRangeError
from gradlab.forward_pass import LayerPass
from gradlab.network import Network
from gradlab.record import Record

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class JacobianOperator:
    """Phi(stop, first) = J_stop ... J_{first+1} of one sequence, (S, S), as products with vectors, 2^-exponent times.

    `exponent` is chosen so that the products are of the order of 1, whatever the number of steps.
    """

    run: LayerPass
    params: Mapping[str, Array]
    exponent: int = 0

    @property
    def size(self) -> int:
        """Size S of the state."""
        return int(self.run.states.shape[-1])

    def forward(self, v: Array) -> Array:
        """2^-exponent Phi v for the columns of `v` (S, n), scaled by a power of two after each step."""
        mantissa, exponent = self._forward(v)
        return np.asarray(np.ldexp(mantissa, exponent - self.exponent))

    def _forward(self, v: Array) -> tuple[Array, Array]:
        cell, run, n = self.run.layer.cell, self.run, v.shape[1]
        mantissa, exponent = power_of_two(np.ascontiguousarray(v.T), -1)
        for k, t in enumerate(run.t):
            x, s = (np.repeat(block, n, axis=0) for block in (run.x[k], run.states[k]))

            def step(s: Array, x: Array = x, t: int = int(t)) -> Array:
                return cell.step(dict(self.params), x, s, t)

            with np.errstate(all="ignore"):
                mantissa, shift = power_of_two(complex_step(step, s, mantissa), -1)
            exponent = exponent + shift
        return mantissa.T, exponent

    def backward(self, u: Array) -> Array:
        """2^-exponent Phi^T u for the columns of `u` (S, n)."""
        cell, run, n = self.run.layer.cell, self.run, u.shape[1]
        p = cell.prepare(dict(self.params), (n,))
        mantissa, exponent = power_of_two(np.ascontiguousarray(u.T), -1)
        da = np.empty((n, cell.pre_size(run.layer.input_size, run.layer.hidden_size)))
        carried = np.empty_like(mantissa)
        for k in reversed(range(len(run.t))):
            a, s_prev, s = (np.repeat(block, n, axis=-2) for block in (run.tape[k], run.states[k], run.states[k + 1]))
            with np.errstate(all="ignore"):
                cell.step_vjp(p, a, s_prev, s, mantissa, da, carried, int(run.t[k]))
                mantissa, shift = power_of_two(carried, -1)
            exponent = exponent + shift
        return np.asarray(np.ldexp(mantissa.T, exponent - self.exponent))


def jacobian_operator(
    net: Network,
    params: Mapping[str, Array],
    record: Record,
    layer: str = "0",
    *,
    first: int = 0,
    stop: int | None = None,
    sequence: int = 0,
    member: tuple[int, ...] = (),
) -> JacobianOperator:
    """The product of the Jacobians of the steps first+1 .. stop (by default: all) of one sequence, without any matrix.

    `member`: the index along each ensemble axis of the record. `record` must hold "states", in float64; its inputs are run
    forward once more, so `params` must be those it was made with. Steps that do not exist are left out.
    Errors: ValueRangeError if there is no such layer, sequence, member or window, or the replay gives other states;
    DTypeError for a pass that is not in float64; NumericalError for states that are not finite.
    """
    if layer not in record.layers:
        raise ValueRangeError(f"layer is {layer!r}; expected one of {', '.join(record.layers)}")
    run = replay(net, params, record)[layer]
    if run.states.dtype != np.float64:
        raise DTypeError(f"the record's states are {run.states.dtype}; expected float64")
    E, B = run.states.shape[1:-2], run.states.shape[-2]
    if len(member) != len(E) or not all(0 <= m < e for m, e in zip(member, E, strict=True)):
        raise ValueRangeError(f"member is {member}; expected one index for each ensemble axis of {E}")
    sequence = require_count("sequence", sequence, 0)
    if sequence >= B:
        raise ValueRangeError(f"sequence is {sequence}; expected 0 to B - 1 = {B - 1}")
    exist = len(run.t) if record.lengths is None else int(record.lengths[sequence])
    first, stop = require_count("first", first, 0), exist if stop is None else require_count("stop", stop)
    if not first < stop <= exist:
        raise ValueRangeError(f"first is {first} and stop is {stop}; expected 0 <= first < stop <= {exist}, the steps there are")
    at = slice(sequence, sequence + 1)
    own = LayerPass(
        run.layer,
        {},
        np.ascontiguousarray(_member(run.x, member, 1)[:, at][first:stop]),
        np.ascontiguousarray(_member(run.states, member, 1)[:, at][first : stop + 1]),
        np.ascontiguousarray(_member(run.tape, member, 2)[:, :, at][first:stop]),
        run.t[first:stop],
        None,
    )
    if not (np.isfinite(own.states).all() and np.isfinite(own.tape).all()):
        raise NumericalError(f"the states of sequence {sequence} are not finite in the window; expected an earlier `stop`")
    prefix, picked = f"{layer}.", {}
    for key, value in params.items():
        if key.startswith(prefix):
            depth = len(net.ensemble_shape(key, np.asarray(value)))
            index = tuple(0 if n == 1 else m for n, m in zip(value.shape[:depth], member[len(member) - depth :], strict=True))
            picked[key.removeprefix(prefix)] = np.asarray(value[index], np.float64)
    operator = JacobianOperator(own, picked)
    probe = np.random.default_rng(0).normal(size=(operator.size, 1))  # it sets a power of two and nothing else
    return JacobianOperator(own, picked, int(operator._forward(probe)[1][0]))


def _member(sequence: Array, member: tuple[int, ...], axis: int) -> Array:
    """One ensemble member of a sequence whose ensemble axes start at `axis`; axes of size 1 are shared."""
    lead = sequence.shape[axis : axis + len(member)]
    index = (slice(None),) * axis + tuple(0 if n == 1 else m for n, m in zip(lead, member, strict=True))
    return np.asarray(sequence[index])
