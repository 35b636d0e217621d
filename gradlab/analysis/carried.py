"""What a unit gradient at the end of a sequence becomes on its way back through one layer, whatever the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import LN2, log_norm, power_of_two
from gradlab._validate import require_count, require_generator
from gradlab.cells.base import Cell
from gradlab.errors import DTypeError, ValueRangeError
from gradlab.forward_pass import LayerPass
from gradlab.status import OK, Status

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class CarriedGradient:
    """How a gradient that enters at each row's last step is carried back, in the layer's own processing order.

    `log_gain` (lags, B): ln of |J_{t+1}^T ... J_n^T v|, root mean square over `directions` random unit vectors v on what the
    layer emits; row k is the state k steps before the last, row 0 is 0 by construction. NaN before a row's first state, -inf
    where nothing arrives. `log_parts` {part: (lags, B)}: the share that arrives in each part of the state. nats.
    """

    log_gain: Array
    log_parts: dict[str, Array]
    directions: int
    status: Status = OK


def carried_gradient(run: LayerPass, *, rng: np.random.Generator, directions: int = 4) -> CarriedGradient:
    """Carry `directions` random unit gradients from each row's last step back to its initial state.

    `run`: of `gradlab.forward`, `run.runs["0"]`; no ensemble axes. Rescaled by powers of two at every step, so that nothing
    under- or overflows; only adjoints are needed, no Jacobian of a built-in cell is formed.
    Errors: DTypeError, ValueRangeError for what is no pass, or one with ensemble axes.
    """
    _require(run, rng, directions)
    T, B = len(run.t), run.states.shape[1]
    logs = np.full((directions, T + 1, B), -np.inf)
    parts = {name: np.full((directions, T + 1, B), -np.inf) for name in run.layer.parts}
    with np.errstate(all="ignore"):
        for t, k, delta, shift in _march_back(run, rng, directions):
            logs[k, t] = log_norm(delta) + shift
            for name, (start, stop) in run.layer.parts.items():
                parts[name][k, t] = log_norm(delta[:, start:stop]) + shift
    gain = _by_lag(_mean_square(logs), run.mask)
    bad = ~(np.isfinite(gain) | np.isneginf(gain) | np.isnan(gain) & _absent(run.mask, T, B))
    status = Status("overflow", "a Jacobian of this layer is not finite") if bad.any() else OK
    return CarriedGradient(gain, {n: _by_lag(_mean_square(v), run.mask) for n, v in parts.items()}, directions, status)


def _require(run: LayerPass, rng: np.random.Generator, directions: int) -> None:
    if not isinstance(run, LayerPass):
        raise DTypeError(f"run is a {type(run).__name__}; expected one of gradlab.forward(...).runs")
    if run.states.ndim != 3:
        raise ValueRangeError(f"states have shape {run.states.shape}; expected (T+1, B, S), one network")
    require_generator("rng", rng)
    require_count("directions", directions)


def _march_back(run: LayerPass, rng: np.random.Generator, directions: int) -> Iterator[tuple[int, int, Array, Array]]:
    """(t, direction, delta_t, ln of what was divided out of it) for t = T, ..., 0 and every direction."""
    cell, T, (B, S) = run.layer.cell, len(run.t), run.states.shape[1:]
    emitted = _emitted(run)  # (S,) booleans: what the layer emits of its state
    starts = rng.standard_normal((directions, B, S)) * emitted
    starts /= np.linalg.norm(starts, axis=-1, keepdims=True)
    deltas = list(starts.astype(run.states.dtype))
    exponents = [np.zeros(B, np.int64) for _ in range(directions)]
    for k in range(directions):
        yield T, k, deltas[k], np.zeros(B)
    # A user's cell without an adjoint of its own would be differentiated by all of its parameters too.
    by_matrix = type(cell).step_vjp is Cell.step_vjp and cell.vjp is None
    da = np.empty((B, cell.pre_size(run.layer.input_size, run.layer.hidden_size)), run.states.dtype)
    back = np.empty((B, S), run.states.dtype)
    for t in reversed(range(T)):
        J = run.window(t, t + 1).jacobians()[0] if by_matrix else None
        for k in range(directions):
            if J is not None:
                back = np.matmul(deltas[k][:, None], J)[:, 0]
            else:
                cell.step_vjp(run.p, run.tape[t], run.states[t], run.states[t + 1], deltas[k], da, back, int(run.t[t]))
            if run.mask is not None:
                np.copyto(back, deltas[k], where=~run.mask[t][:, None])
            deltas[k], exponent = power_of_two(back, -1)
            exponents[k] = exponents[k] + exponent
            yield t, k, deltas[k], exponents[k] * LN2


def _emitted(run: LayerPass) -> Array:
    """Which entries of the state the layer emits: those through which a gradient of its outputs comes in."""
    cell, S = run.layer.cell, run.states.shape[-1]
    ones = np.ones((1, run.layer.output_size), run.states.dtype)
    now, before = np.zeros((1, S), run.states.dtype), np.zeros((1, S), run.states.dtype)
    cell.output_vjp(run.states[1:2, :1][0], run.states[:1, :1][0], ones, now, before)
    found = np.asarray(now[0] != 0.0)
    return found if found.any() else np.ones(S, bool)


def _mean_square(logs: Array) -> Array:
    """Natural logarithm of the root mean square over the directions: (directions, T+1, B) -> (T+1, B)."""
    with np.errstate(all="ignore"):
        top = logs.max(axis=0)
        safe = np.where(np.isfinite(top), top, 0.0)
        return np.asarray(safe + 0.5 * np.log(np.exp(2.0 * (logs - safe)).mean(axis=0)))


def _by_lag(logs: Array, mask: Array | None) -> Array:
    """(T+1, B) by time -> by lag from each row's own end; NaN in front of its first state."""
    if mask is None:
        return logs[::-1].copy()
    T1, B = logs.shape
    ends = mask.sum(axis=0)  # (B,)
    found = np.full((T1, B), np.nan)
    for b in range(B):
        found[: ends[b] + 1, b] = logs[: ends[b] + 1, b][::-1]
    return found


def _absent(mask: Array | None, T: int, B: int) -> Array:
    """(T+1, B) by lag: the entries in front of a row's first state."""
    ends = np.full(B, T) if mask is None else mask.sum(axis=0)
    return np.asarray(np.arange(T + 1)[:, None] > ends)
