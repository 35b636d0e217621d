"""A checker that never fails proves nothing: planted wrong gradients must be rejected, the right ones pass."""

import copy

import numpy as np
import pytest

from gradlab import cells
from gradlab.checks import CONTRACT, Example, check_example, compare
from gradlab.checks.contract import check_jacobians
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
    "forget gate of dU": (LSTM, "param_grads", scale_gate("U", 1), "d0.U[f]"),
    "output gate of dW": (LSTM, "param_grads", scale_gate("W", 3), "d0.W[o]"),
    "adjoint carried back, LSTM": (LSTM, "step_vjp", scale_state_adjoint, "ds_prev 0[c, h]"),
    "adjoint carried back, Elman": (ELMAN, "step_vjp", scale_state_adjoint, "ds_prev 0"),
    "one step of da, Elman": (ELMAN, "step_vjp", scale_at_step_2, "d0.b, step 2"),
    "dx": (LSTM, "input_grad", lambda dx, args: dx * (1.0 + DEFECT), "dx 0"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_gradient_wrong_by_a_millionth_is_rejected_and_named_where_it_is_made(name):
    cell, method, alter, place = PLANTED[name]
    report = check_example(example_of(altered(cell, method, alter)))
    assert report.verdict == "FAIL"
    assert any(f"wrong where it is made: {place}" in line for line in report.one_step), report.one_step
    assert max(one.error for one in report.findings) < 1e-5


@pytest.mark.parametrize("cell", [LSTM, ELMAN], ids=repr)
def test_a_jacobian_wrong_by_a_millionth_is_rejected(cell):
    def alter(result, args):
        args[5][...] *= 1.0 + DEFECT  # out

    with pytest.raises(GradientMismatch, match=r"error/S [1-9]\.\de-0[67]"):
        check_jacobians(example_of(altered(cell, "jacobian_into", alter)))


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
    with pytest.raises(GradientMismatch, match=r"x: 1 of 3 entries differ; worst at \(1,\): backward 3\.0+e\+00, oracle 2"):
        compare("x", np.array([1.0, 3.0, 3.0]), np.array([1.0, 2.0, 3.0]), np.ones(3)).raise_for_failure()
