"""The contract of a cell, as checks that raise: every closed form against exact differentiation of `step`.

Each check takes an `Example` and raises GradientMismatch with the cell in its message. `CONTRACT` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.backward import bptt
from gradlab.batch import Batch
from gradlab.cells.differentiation import input_jacobian, state_jacobian, verify, verify_output
from gradlab.checks.comparison import compare
from gradlab.checks.gradients import network_gradient, run_steps
from gradlab.errors import GradientMismatch
from gradlab.forward_pass import forward
from gradlab.network import Network
from gradlab.record import Record

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Example:
    """A network, its parameters, an input (T, B, D), initial states, a cotangent of its outputs, and lengths (B,) or None.

    `rtol`: of the scale S; 1e-11 where nothing saturates, see `gradlab.checks.comparison`.
    """

    net: Network
    params: dict[str, Array]
    x: Array
    initial: dict[str, Array]
    cotangent: Array
    lengths: Array | None = None
    rtol: float = 1e-11

    @cached_property
    def record(self) -> Record:
        """What `bptt` says."""
        return self.run(self.params, self.x, self.initial)

    def run(self, params: dict[str, Array], x: Array, initial: dict[str, Array], row: int | None = None) -> Record:
        """`bptt` with the loss sum(outputs * cotangent), everything kept; `row` picks the part of one batch row."""
        at = slice(None) if row is None else slice(row, row + 1)
        weight, lengths = self.cotangent[..., at, :], None if self.lengths is None else self.lengths[at]

        def linear(outputs: Array, targets: Array, mask: Array | None) -> tuple[Array, Array]:
            own = tuple(range(-weight.ndim, 0))
            return (outputs * weight).sum(axis=own), np.broadcast_to(weight, outputs.shape)

        keep = ("states", "gates", "immediate", "adjoints", "jacobians", "input_gradient")
        return bptt(self.net, params, Batch(x, weight, lengths=lengths), linear, keep, initial_states=initial)

    @cached_property
    def oracle(self) -> dict[str, tuple[Array, Array]]:
        """(gradient, S) by complex step through `step` alone. Error: NumericalError if `step` or `output` is not complex-safe."""
        self.require_oracle()
        return network_gradient(self.net, self.params, self.x, self.cotangent, self.initial, self.lengths)

    def require_oracle(self) -> None:
        """Hold the oracle itself against Richardson: a step that drops imaginary parts must not accuse a right backward.

        At a random point, not at the example's own: that may sit on a kink, where the two rightly differ.
        """
        rng = np.random.default_rng(0)
        for layer in self.net.layers:
            own = {k.removeprefix(f"{layer.name}."): v for k, v in self.params.items() if k.startswith(f"{layer.name}.")}
            params = {key: rng.uniform(-1.0, 1.0, value.shape) for key, value in own.items()}
            x, s, s_prev = (rng.uniform(-1.0, 1.0, (2, n)) for n in (layer.input_size, layer.state_size, layer.state_size))
            verify(layer.cell, params, x, s_prev, 0)
            verify_output(layer.cell, s, s_prev)

    def expect(self, name: str, value: Array, oracle: Array, scale: Array) -> None:
        """Raise GradientMismatch, naming the cell, unless `value` is within rtol * scale."""
        compare(f"{self.net.cell!r} {name}", value, oracle, scale, self.rtol).raise_for_failure()


def check_value(example: Example) -> None:
    """The engine's forward pass equals `step` applied one step at a time."""
    plain = run_steps(example.net, example.params, example.x, example.initial, example.lengths)
    # Rounding differs in the order of sums: relative to the largest output, not to each.
    example.expect("value", example.record.outputs, plain, np.full(plain.shape, np.abs(plain).max() + np.finfo(float).tiny))


def check_parameter_gradients(example: Example) -> None:
    """dL/dtheta of every parameter equals the complex step."""
    for key in example.params:
        example.expect(f"gradient of {key}", example.record.gradients[key], *example.oracle[key])


def check_input_gradient(example: Example) -> None:
    """dL/dx_t equals the complex step."""
    gradient = example.record.input_gradient
    assert gradient is not None
    example.expect("gradient of x", gradient, *example.oracle["x"])


def check_initial_state_gradient(example: Example) -> None:
    """delta_0 = dL/ds_0 equals the complex step."""
    for name, layer in example.record.layers.items():
        example.expect(f"gradient of s_0 {name}", layer.series("adjoints")[0], *example.oracle[f"s_0 {name}"])


def check_jacobians(example: Example) -> None:
    """J_t and G_t = ds_t/dx_t equal the complex step of `step` over the full state, at every recorded state."""
    example.require_oracle()
    run = forward(example.net, example.params, example.x, example.initial, lengths=example.lengths)
    for name, one in run.runs.items():
        own = {k.removeprefix(f"{name}."): v for k, v in example.params.items() if k.startswith(f"{name}.")}
        kept = example.record.layers[name].series("jacobians")
        for label, value, exact_of in (("J", kept, state_jacobian), ("G", one.input_jacobians(), input_jacobian)):
            for t in range(len(one.t)):
                exact = exact_of(one.layer.cell, own, one.x[t], one.states[t], int(one.t[t]))
                if one.mask is not None:
                    exact[~one.mask[t]] = np.eye(exact.shape[-1]) if label == "J" else 0.0
                example.expect(f"{label} of layer {name} at step {t}", value[t], exact, np.abs(exact) + _row_scale(exact))


def _row_scale(J: Array) -> Array:
    """Entries are sums of products of size up to the largest of their row: cancellation leaves rounding of that size."""
    return np.broadcast_to(np.abs(J).max(axis=-1, keepdims=True), J.shape)


def check_adjoint_recursion(example: Example) -> None:
    """delta_t = e_t + J_{t+1}^T delta_{t+1}: the vjp of a step is its Jacobian's transpose."""
    for name, layer in example.record.layers.items():
        delta, e, J = layer.series("adjoints"), layer.series("immediate"), layer.series("jacobians")
        terms = J * delta[1:, ..., :, None]
        scale = np.abs(terms).sum(axis=-2) + np.abs(e[:-1])
        example.expect(f"adjoint of layer {name}", delta[:-1], terms.sum(axis=-2) + e[:-1], scale)


def check_rows_are_independent(example: Example) -> None:
    """A batch row alone gives what it gives in the batch."""
    for row in range(example.x.shape[1]):
        at = slice(row, row + 1)
        alone = example.run(example.params, example.x[:, at], {k: v[at] for k, v in example.initial.items()}, row)
        for name, layer in alone.layers.items():
            for series in ("states", "adjoints"):
                whole = example.record.layers[name].series(series)
                own = layer.series(series)
                # BLAS sums a single row in another order: rounding of the largest entry of the same step.
                scale = np.broadcast_to(np.abs(own).max(axis=-1, keepdims=True), own.shape)
                example.expect(f"{series} of row {row} alone", own, whole[..., at, :], scale)


def check_ensemble_equals_loop(example: Example) -> None:
    """Parameters with an ensemble axis give, member by member, what a loop over the members gives."""
    factors = np.array([1.0, 0.5, -0.75])
    params = {k: v * factors.reshape(-1, *(1,) * v.ndim) for k, v in example.params.items()}
    together = example.run(params, example.x, example.initial)
    for member in range(len(factors)):
        single = example.run({k: v[member] for k, v in params.items()}, example.x, example.initial)
        for key, gradient in single.gradients.items():
            # The same sums in another order: rounding of the largest entry.
            scale = np.full(gradient.shape, np.abs(gradient).max())
            example.expect(f"ensemble member {member}, gradient of {key}", together.gradients[key][member], gradient, scale)
        for name, layer in single.layers.items():
            own = layer.series("states")
            scale = np.full(own.shape, np.abs(own).max())
            example.expect(f"ensemble member {member}, states", together.layers[name].series("states")[:, member], own, scale)


def check_complex_equals_real(example: Example) -> None:
    """The whole pass in complex128 has the real pass as its real part, and no imaginary part."""
    params = {k: v.astype(complex) for k, v in example.params.items()}
    record = example.run(params, example.x, example.initial)
    for key, gradient in example.record.gradients.items():
        scale = np.full(gradient.shape, np.abs(gradient).max())
        example.expect(f"complex128 gradient of {key}", record.gradients[key], gradient.astype(complex), scale)


def check_inputs_are_not_modified(example: Example) -> None:
    """Parameters, inputs and initial states are read, never written."""
    given = {**example.params, "x": example.x, **{f"s_0 {k}": v for k, v in example.initial.items()}}
    before = {key: value.copy() for key, value in given.items()}
    example.run(example.params, example.x, example.initial)
    for key, value in given.items():
        if not np.array_equal(value, before[key]):
            raise GradientMismatch(f"{example.net.cell!r} modified {key}")


def check_float32_stays_float32(example: Example) -> None:
    """A pass in float32 is float32 throughout and near the float64 one."""
    params = {k: v.astype(np.float32) for k, v in example.params.items()}
    initial = {k: v.astype(np.float32) for k, v in example.initial.items()}
    run = forward(example.net, params, example.x.astype(np.float32), initial, lengths=example.lengths)
    if run.outputs.dtype != np.float32 or any(s.dtype != np.float32 for s in run.states.values()):
        raise GradientMismatch(f"{example.net.cell!r} computes float32 inputs in {run.outputs.dtype}")
    size = np.abs(example.record.outputs).max()
    gap = np.abs(run.outputs - example.record.outputs).max()
    if gap > 1e-3 * (size + 1.0):  # far above the rounding of float32 over a few steps, far below a wrong formula
        raise GradientMismatch(f"{example.net.cell!r} in float32 is {gap:.1e} away from float64")


CONTRACT: tuple[Callable[[Example], None], ...] = (
    check_value,
    check_parameter_gradients,
    check_input_gradient,
    check_initial_state_gradient,
    check_jacobians,
    check_adjoint_recursion,
    check_rows_are_independent,
    check_ensemble_equals_loop,
    check_complex_equals_real,
    check_inputs_are_not_modified,
    check_float32_stays_float32,
)
"""Every check of the contract; each raises GradientMismatch."""
