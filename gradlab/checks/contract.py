"""The contract of a cell beside its gradients, as checks that raise: each closed form against exact differentiation of `step`.

Each check takes an `Example` and raises GradientMismatch with the cell in its message. `CONTRACT` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._derivatives import complex_step
from gradlab.cells.differentiation import input_jacobian, state_jacobian
from gradlab.checks.along import own_parameters
from gradlab.checks.claims import claimed, replay
from gradlab.checks.example import Example
from gradlab.checks.gradients import run_steps
from gradlab.checks.one_step import step_slopes
from gradlab.checks.oracle import Oracle
from gradlab.checks.untied import preflight
from gradlab.directions import live
from gradlab.errors import GradientMismatch, NumericalError
from gradlab.forward_pass import LayerPass, forward
from gradlab.record import Record

Array = npt.NDArray[Any]


def check_value(example: Example) -> None:
    """The engine's forward pass equals `step` applied one step at a time."""
    plain = run_steps(example.net, example.params, example.x, example.initial, example.lengths)
    # Rounding differs in the order of sums: relative to the largest output, not to each.
    example.expect("value", example.record.outputs, plain, np.full(plain.shape, np.abs(plain).max() + np.finfo(float).tiny))


def check_gradients_are_sums_of_contributions(example: Example) -> None:
    """The gradient that training follows is the sum of what each step and row contributes."""
    claims = claimed(example)
    for key, gradient in example.record.gradients.items():
        scale = np.abs(claims[key]).sum(axis=(0, 1))
        example.expect(f"gradient of {key} as a sum over steps and rows", gradient, claims[key].sum(axis=(0, 1)), scale)


def check_jacobians(example: Example) -> None:
    """J_t and G_t = ds_t/dx_t equal exact differentiation of `step` over the full state, at every recorded state."""
    oracle = preflight(example.net, "auto")
    run = replay(example)
    for name, one in run.runs.items():
        kept = example.record.layers[name].series("jacobians")
        for label, value, exact in zip("JG", (kept, one.input_jacobians()), _exact_jacobians(example, one, oracle), strict=True):
            vague = 1.0 if oracle.kind == "complex" else max(1.0, 1e-6 / example.rtol)  # Richardson is good to about 1e-9
            scale = (np.abs(exact) + _row_scale(exact)) * vague
            example.expect(f"{label} of layer {name}", value, exact, scale)


def _exact_jacobians(example: Example, run: LayerPass, oracle: Oracle) -> tuple[Array, Array]:
    own = own_parameters(example.params, run.layer.name)
    if oracle.kind == "complex":
        J, G = (
            np.stack([of(run.layer.cell, own, run.x[t], run.states[t], int(run.t[t])) for t in range(len(run.t))])
            for of in (state_jacobian, input_jacobian)
        )
    else:
        slopes = step_slopes(run, own, oracle)  # (T, from, B, to)
        J, G = (np.moveaxis(slopes[key][0], 1, -1) for key in "sx")
    if run.mask is not None:
        J[~run.mask], G[~run.mask] = np.eye(J.shape[-1]), 0.0
    return J, G


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


def check_backward_is_linear_in_the_cotangent(example: Example) -> None:
    """The gradients of a weighted sum of two losses are the weighted sum of their gradients; of no loss, exactly zero."""
    zero = _run_with(example, np.zeros_like(example.cotangent))
    for key, gradient in _gradients(zero):
        if gradient.any():
            raise GradientMismatch(f"{example.net.cell!r}: the gradient of {key} is not 0 for a cotangent of zeros")
    other = np.roll(example.cotangent, 1, axis=-1) * np.linspace(0.5, 1.0, example.cotangent.size).reshape(
        example.cotangent.shape
    )
    a, b = example.record, _run_with(example, other)
    mixed = _run_with(example, 2.0 * example.cotangent - 0.5 * other)
    for (key, one), (_, two), (_, found) in zip(_gradients(a), _gradients(b), _gradients(mixed), strict=True):
        scale = np.full(found.shape, np.abs(one).max() + np.abs(two).max())  # sums of other terms: rounding of the largest
        example.expect(f"gradient of {key} for a sum of two losses", found, 2.0 * one - 0.5 * two, scale)


def check_calls_repeat_bit_for_bit(example: Example) -> None:
    """The same call twice gives the same bits."""
    for (key, one), (_, two) in zip(_gradients(example.record), _gradients(_run_with(example, example.cotangent)), strict=True):
        if not np.array_equal(one, two, equal_nan=True):
            raise GradientMismatch(
                f"{example.net.cell!r}: two identical calls differ in the gradient of {key}; freeze its generator"
            )


def check_time_runs_one_way(example: Example) -> None:
    """In one direction, the loss of step t has no gradient in later inputs: exactly zero, like all that is behind a row's end."""
    net, T = example.net, len(example.x)
    exists = live(T, example.lengths)
    gradient = example.record.input_gradient
    assert gradient is not None
    if exists is not None and gradient[~exists].any():
        raise GradientMismatch(f"{net.cell!r}: inputs behind the end of a row have a gradient")
    if net.bidirectional or net.readout == "last":
        return
    for t in range(T - 1):
        own = np.zeros_like(example.cotangent)
        own[t] = example.cotangent[t]
        later = _run_with(example, own).input_gradient
        if later is None or later[t + 1 :].any():
            raise GradientMismatch(f"{net.cell!r}: the loss of step {t} has a gradient in an input of a later step")


def check_chunks_equal_the_whole(example: Example) -> None:
    """A sequence in two chunks, the state carried over, gives the outputs and states of the whole."""
    net, T = example.net, len(example.x)
    if net.bidirectional or net.readout == "last" or example.lengths is not None or T < 2:
        return
    cut = T // 2
    first = forward(net, example.params, example.x[:cut], example.initial)
    middle = {name: run.states[-1] for name, run in first.runs.items()}
    second = forward(net, example.params, example.x[cut:], middle, first_step=cut)
    outputs = np.concatenate([first.outputs, second.outputs])
    example.expect("outputs in two chunks", outputs, example.record.outputs, np.full(outputs.shape, np.abs(outputs).max()))
    for name, run in second.runs.items():
        whole = replay(example).runs[name].states[cut:]
        example.expect(f"states of layer {name} in two chunks", run.states, whole, np.full(whole.shape, np.abs(whole).max()))


def check_rows_are_independent(example: Example) -> None:
    """A batch row alone gives what it gives in the batch."""
    for row in range(example.x.shape[1]):
        at = slice(row, row + 1)
        alone = example.run(example.params, example.x[:, at], {k: v[at] for k, v in example.initial.items()}, at)
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
    """The whole pass in complex128 has the real pass as its real part, and no imaginary part: second derivatives need it."""
    if preflight(example.net, "complex").trusted is False:
        raise NumericalError("the cell does not carry complex numbers; exact second derivatives of it are not to be had")
    params = {k: v.astype(complex) for k, v in example.params.items()}
    record = example.run(params, example.x, example.initial)
    for key, gradient in example.record.gradients.items():
        scale = np.full(gradient.shape, np.abs(gradient).max())
        example.expect(f"complex128 gradient of {key}", record.gradients[key], gradient.astype(complex), scale)


def check_second_derivatives(example: Example) -> None:
    """Hessian-vector products, complex steps of the backward pass, are symmetric: <u, H v> = <v, H u>."""
    if preflight(example.net, "complex").trusted is False:
        raise NumericalError("the cell does not carry complex numbers; exact second derivatives of it are not to be had")
    rng = np.random.default_rng(2)
    u, v = ({k: rng.uniform(-1.0, 1.0, value.shape) for k, value in example.params.items()} for _ in range(2))

    def along(direction: dict[str, Array]) -> Array:
        def gradient(shift: Array) -> Array:
            moved = {k: value + shift * direction[k] for k, value in example.params.items()}
            found = example.run(moved, example.x, example.initial).gradients
            return np.concatenate([found[k].ravel() for k in example.params])

        return complex_step(gradient, np.zeros(()), np.ones(()))

    flat_u, flat_v = (np.concatenate([d[k].ravel() for k in example.params]) for d in (u, v))
    one, other = flat_u * along(v), flat_v * along(u)
    example.expect("<u, H v> against <v, H u>", one.sum()[None], other.sum()[None], (np.abs(one) + np.abs(other)).sum()[None])


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


def _run_with(example: Example, cotangent: Array) -> Record:
    return example.run(example.params, example.x, example.initial, cotangent=cotangent)


def _gradients(record: Record) -> Iterable[tuple[str, Array]]:
    yield from record.gradients.items()
    assert record.input_gradient is not None
    yield "x", record.input_gradient
    for name, layer in record.layers.items():
        yield f"s {name}", layer.series("adjoints")


CONTRACT: tuple[Callable[[Example], None], ...] = (
    check_value,
    check_gradients_are_sums_of_contributions,
    check_jacobians,
    check_adjoint_recursion,
    check_backward_is_linear_in_the_cotangent,
    check_calls_repeat_bit_for_bit,
    check_time_runs_one_way,
    check_chunks_equal_the_whole,
    check_rows_are_independent,
    check_ensemble_equals_loop,
    check_complex_equals_real,
    check_second_derivatives,
    check_inputs_are_not_modified,
    check_float32_stays_float32,
)
"""Every check of the contract; each raises GradientMismatch, or NumericalError where it cannot be decided."""

NEEDS_COMPLEX = (check_complex_equals_real, check_second_derivatives)
"""What a cell that refuses complex numbers goes without; none of it is a gradient."""
