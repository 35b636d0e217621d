"""Lyapunov exponents of maps and flows that are given as functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import as_numbers, require_callable, require_count, require_finite, require_positive
from gradlab.analysis._lyapunov_meter import Progress
from gradlab.analysis.lyapunov import LyapunovSpectrum, read_meter, start_meter
from gradlab.errors import ShapeError

Array = npt.NDArray[Any]


def lyapunov_of_map(
    step: Callable[[Array], Array],
    jacobian: Callable[[Array], Array],
    s0: Array,
    steps: int,
    k: int | None = None,
    *,
    rng: np.random.Generator,
    dt: float | None = None,
    transient: int | None = None,
    interval: int | None = None,
    blocks: int = 20,
    progress: Progress | None = None,
) -> LyapunovSpectrum:
    """The first `k` exponents of the map s -> step(s) from `s0` (*L, S) on, over `steps` steps.

    `jacobian(s)`: (*L, S, S), the derivative of `step` at s; `runge_kutta` makes both for a flow. The transient covers the
    state and the tangent vectors. `dt`: time that one step takes; the exponents are then nats per unit of time, else per
    step. All else as in `lyapunov_spectrum`. If the state leaves the range of floats, `status` says at which step.
    """
    require_callable("step", step, "s -> the next s, both (..., S)")
    require_callable("jacobian", jacobian, "s -> (..., S, S)")
    state = as_numbers("s0", s0, allow_complex=False)
    if state.ndim < 1 or state.size == 0:
        raise ShapeError(f"s0 has shape {state.shape}; expected (..., S) with S >= 1")
    require_finite("s0", state)
    steps = require_count("steps", steps)
    pace = 1.0 if dt is None else require_positive("dt", dt)
    square = (*state.shape, state.shape[-1])
    held = 8 * int(np.prod(square))
    meter = start_meter(
        state.shape, k, rng, transient, interval, blocks, held=held, planned=steps, total=steps, progress=progress
    )
    with np.errstate(all="ignore"):  # a state that escapes is found and reported
        for t in range(steps):
            J = as_numbers(f"jacobian at step {t + 1}", jacobian(state), allow_complex=False)
            state = as_numbers(f"state after step {t + 1}", step(state), allow_complex=False)
            if J.shape != square or state.shape != square[:-1]:
                raise ShapeError(
                    f"step and jacobian returned shapes {state.shape} and {J.shape}; expected {square[:-1]} and {square}"
                )
            here = np.asarray(np.isfinite(state).all(axis=-1))
            meter.feed(partial(np.matmul, np.where(here[..., None, None], J, np.nan)))  # a copy: J may be written to again
    return read_meter(meter, pace, "nats per step" if dt is None else "nats per unit of time")


def runge_kutta(
    field: Callable[[Array], Array], field_jacobian: Callable[[Array], Array], dt: float
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """(step, jacobian) of the flow ds/dt = field(s) for `lyapunov_of_map`: the classical Runge-Kutta step of length `dt`.

    s (*L, S), field_jacobian(s) (*L, S, S). `jacobian` is the exact derivative of the step, the same method applied to
    the variational equation dM/dt = A(s) M.
    """
    require_callable("field", field, "s -> ds/dt")
    require_callable("field_jacobian", field_jacobian, "s -> (..., S, S)")
    h = require_positive("dt", dt)

    def stages(s: Array) -> tuple[Array, Array, Array, Array]:
        k1 = field(s)
        k2 = field(s + 0.5 * h * k1)
        k3 = field(s + 0.5 * h * k2)
        return k1, k2, k3, field(s + h * k3)

    def step(s: Array) -> Array:
        k1, k2, k3, k4 = stages(s)
        return np.asarray(s + h / 6.0 * (k1 + 2.0 * (k2 + k3) + k4))

    def jacobian(s: Array) -> Array:
        k1, k2, k3, _ = stages(s)
        one = np.eye(s.shape[-1])
        K1 = field_jacobian(s)
        K2 = field_jacobian(s + 0.5 * h * k1) @ (one + 0.5 * h * K1)
        K3 = field_jacobian(s + 0.5 * h * k2) @ (one + 0.5 * h * K2)
        K4 = field_jacobian(s + h * k3) @ (one + h * K3)
        return np.asarray(one + h / 6.0 * (K1 + 2.0 * (K2 + K3) + K4))

    return step, jacobian
