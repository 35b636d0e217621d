"""A checker that never fails proves nothing: planted wrong gradients must be rejected, the right ones pass."""

import copy
import dataclasses

import numpy as np
import pytest

from gradlab import cells
from gradlab.checks import CONTRACT, Example, compare
from gradlab.checks.contract import check_initial_state_gradient, check_input_gradient, check_jacobians, check_parameter_gradients
from gradlab.errors import GradientMismatch, ShapeError
from gradlab.network import Network

DEFECT = 1e-6  # relative: three orders below what the common checkers see


def example_of(cell, rtol=1e-11):
    rng = np.random.default_rng(5)
    net = Network(cell, 2, 3, num_layers=2)
    params = {k: rng.uniform(-0.7, 0.7, shape) for k, shape in net.shapes.items()}
    x = rng.uniform(0.2, 1.0, (4, 2, 2))
    initial = {layer.name: rng.uniform(0.2, 1.0, (2, layer.state_size)) for layer in net.layers}
    return Example(net, params, x, initial, rng.uniform(0.5, 1.0, (4, 2, 3)), rtol=rtol)


def altered(cell, method, alter):
    """`cell` with the result of one method altered, in place where the method writes in place."""
    original = getattr(cell, method)

    def wrong(*args):
        return alter(original(*args), args)

    changed = copy.copy(cell)
    setattr(changed, method, wrong)
    return changed


def scale_gate(key, gate):
    def alter(gradients, args):
        H = gradients["b"].shape[-1] // 4
        gradients[key][..., gate * H : (gate + 1) * H, :] *= 1.0 + DEFECT
        return gradients

    return alter


def scale_state_adjoint(result, args):
    args[6][...] *= 1.0 + DEFECT  # ds_out
    return result


def scale_at_step_2(result, args):
    if args[7] == 2:
        args[5][...] *= 1.0 + DEFECT  # da_out
    return result


LSTM, ELMAN = cells.LSTM(), cells.Elman("tanh")
PLANTED = {
    "forget gate of dU": (LSTM, "param_grads", scale_gate("U", 1), check_parameter_gradients),
    "output gate of dW": (LSTM, "param_grads", scale_gate("W", 3), check_parameter_gradients),
    "adjoint carried back, LSTM": (LSTM, "step_vjp", scale_state_adjoint, check_initial_state_gradient),
    "adjoint carried back, Elman": (ELMAN, "step_vjp", scale_state_adjoint, check_parameter_gradients),
    "one step of da, LSTM": (LSTM, "step_vjp", scale_at_step_2, check_parameter_gradients),
    "one step of da, Elman": (ELMAN, "step_vjp", scale_at_step_2, check_parameter_gradients),
    "dx": (LSTM, "input_grad", lambda dx, args: dx * (1.0 + DEFECT), check_input_gradient),
    "Jacobian, LSTM": (LSTM, "jacobian", lambda J, args: J * (1.0 + DEFECT), check_jacobians),
    "Jacobian, Elman": (ELMAN, "jacobian", lambda J, args: J * (1.0 + DEFECT), check_jacobians),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_gradient_wrong_by_a_millionth_is_rejected(name):
    cell, method, alter, check = PLANTED[name]
    with pytest.raises(GradientMismatch, match=r"error/S [1-9]\.\de-0[67]"):
        check(example_of(altered(cell, method, alter)))


@pytest.mark.parametrize("cell", [LSTM, ELMAN], ids=repr)
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_the_unaltered_cell_passes_on_the_same_example(cell, check):
    assert check(example_of(cell)) is None


def test_modified_inputs_are_rejected():
    def write(result, args):
        args[1][...] = 0.0  # the user's own x
        return result

    broken = altered(ELMAN, "project", write)
    check = next(check for check in CONTRACT if check.__name__ == "check_inputs_are_not_modified")
    with pytest.raises(GradientMismatch, match="modified x"):
        check(example_of(broken))


@pytest.mark.parametrize("wrong", [0.0, -1.0, 2.0], ids=["zeroed", "negated", "doubled"])
def test_a_vanished_gradient_is_judged_on_its_own_scale(wrong):
    exact = np.array([1e-11, -3e-12])
    assert compare("right", exact, exact, np.abs(exact)).passed
    assert not compare("wrong", wrong * exact, exact, np.abs(exact)).passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_numbers_never_pass(value):
    x = np.array([value])
    assert not compare("x", x, x, np.array([1.0])).passed
    assert not compare("x", np.array([1.0]), x, np.array([np.inf])).passed


def test_zero_scale_passes_only_an_exact_zero():
    zero = np.zeros(1)
    assert compare("x", zero, zero, zero).passed
    assert not compare("x", np.array([1e-300]), zero, zero).passed


def test_empty_comparisons_are_refused():
    with pytest.raises(ShapeError, match="not empty"):
        compare("x", np.zeros(0), np.zeros(0), np.zeros(0))


def test_the_message_names_entry_backward_and_oracle():
    example = example_of(altered(LSTM, "param_grads", scale_gate("U", 1)))
    with pytest.raises(
        GradientMismatch, match=r"LSTM\(\) gradient of 0\.U: \d+ of 36 entries differ; worst at \([345], \d\): backward"
    ):
        check_parameter_gradients(dataclasses.replace(example))
