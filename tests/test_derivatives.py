"""Complex step and Richardson extrapolation against derivatives known in closed form, vanished ones included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab._derivatives import LARGE_STEP, STEP, complex_step, complex_step_jacobian, richardson, richardson_jacobian

KNOWN = {
    "exp": (np.exp, np.exp),
    "sin": (np.sin, np.cos),
    "tanh": (np.tanh, lambda x: 1.0 / np.cosh(x) ** 2),
    "reciprocal": (lambda x: 1.0 / (2.0 + x * x), lambda x: -2.0 * x / (2.0 + x * x) ** 2),
    "cubic": (lambda x: x**3 - 2.0 * x, lambda x: 3.0 * x**2 - 2.0),
    "sqrt of squares": (lambda x: np.sqrt(1.0 + x * x), lambda x: x / np.sqrt(1.0 + x * x)),
}
# Beyond 1e-200 the derivative of an odd term leaves the reach of the larger step, which is documented.
POINTS = st.floats(-3.0, 3.0).filter(lambda x: x == 0.0 or abs(x) > 1e-200)


START = 0.1


def tanh_chain(steps, w=0.5, start=START):
    """x_steps as a function of x_0, with x_t = tanh(w x_{t-1}), and its derivative from the chain rule."""

    def f(x):
        for _ in range(steps):
            x = np.tanh(w * x)
        return x

    x, slope = start, 1.0
    for _ in range(steps):
        slope *= w / np.cosh(w * x) ** 2  # at |w x| < 1 nothing cancels and nothing saturates
        x = np.tanh(w * x)
    return f, slope


@pytest.mark.parametrize("name", KNOWN)
@given(x=POINTS, v=st.sampled_from([1.0, -2.5, 1e-3]))
def test_complex_step_is_exact_to_rounding(name, x, v):
    f, df = KNOWN[name]
    found = complex_step(f, np.array(x), np.array(v))
    # No subtraction of nearby numbers. The cubic's terms cancel near its extrema: relative to their size, of order 1 there.
    np.testing.assert_allclose(found, df(x) * v, rtol=2e-15, atol=1e-14 * abs(v) if name == "cubic" else 0.0)


@pytest.mark.parametrize(("steps", "true"), [(400, 3.8597e-121), (420, 3.6809e-127), (900, 1.1791e-271)])
def test_complex_step_reads_derivatives_that_vanished(steps, true):
    f, slope = tanh_chain(steps)
    found = complex_step(f, np.array(START), np.array(1.0))
    np.testing.assert_allclose(found, slope, rtol=1e-12)  # a product of up to 900 factors, each with a rounding or two
    np.testing.assert_allclose(found, true, rtol=2e-5)  # five digits


def test_the_default_step_alone_would_read_zero_there():
    f, slope = tanh_chain(420)
    assert np.imag(f(np.array(START + 1j * STEP))) / STEP == 0.0
    assert slope > 0.0
    assert np.finfo(float).eps > LARGE_STEP**2  # so that the truncation error of the second step is below rounding


def test_complex_step_of_a_linear_map_is_the_map():
    A = np.random.default_rng(0).normal(size=(3, 4))
    v = np.array([1.0, -2.0, 0.5, 3.0])
    x = np.array([0.1, -0.2, 0.3, 0.4])
    np.testing.assert_allclose(complex_step(lambda z: A @ z, x, v), A @ v, rtol=1e-15, atol=4e-15)  # sums of 4 terms of order 3


def test_complex_step_of_a_constant_and_of_a_masked_entry_is_exactly_zero():
    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(
        complex_step(lambda z: np.array([3.0 + 0.0 * z[0], z[1] ** 2]), x, np.array([0.0, 1.0])), [0.0, 4.0]
    )


def test_vanished_and_ordinary_derivatives_of_one_function_are_both_right():
    found = complex_step(lambda z: np.stack([1e-150 * z, 3.0 * z, 0.0 * z]), np.array(2.0), np.array(1.0))
    np.testing.assert_allclose(found, [1e-150, 3.0, 0.0], rtol=1e-15)  # one product


def test_complex_step_jacobian_puts_outputs_first_and_inputs_last():
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    J = complex_step_jacobian(lambda z: np.array([z[0, 1] * z[1, 2], z.sum(), z[1, 0] ** 2, 0.0 * z[0, 0]]), x)
    expected = np.zeros((4, 2, 3))
    expected[0, 0, 1], expected[0, 1, 2] = 6.0, 2.0
    expected[1] = 1.0
    expected[2, 1, 0] = 8.0
    np.testing.assert_array_equal(J, expected)  # products of small integers


def test_complex_step_jacobian_of_a_matrix_function_has_the_shape_of_both():
    A = np.random.default_rng(1).normal(size=(2, 3))
    x = np.random.default_rng(2).normal(size=(3, 2))
    J = complex_step_jacobian(lambda z: A @ z, x)
    np.testing.assert_allclose(J, np.einsum("ik,jl->ijkl", A, np.eye(2)), rtol=1e-15)  # each entry is one product


def test_complex_step_jacobian_of_a_scalar_function_is_its_gradient():
    x = np.array([0.5, -1.5, 2.0])
    J = complex_step_jacobian(lambda z: (z * z).sum(), x)
    np.testing.assert_array_equal(J, 2.0 * x)


# Away from zeros of f: at one, the rounding of the argument, which no difference shows, outweighs that of the values.
SMOOTH = [("exp", 3.0), ("tanh", 3.0), ("reciprocal", 3.0), ("sqrt of squares", 3.0), ("sin", 2.0), ("cubic", 1.0)]


@pytest.mark.parametrize(("name", "reach"), SMOOTH)
@given(share=st.floats(-1.0, 1.0), v=st.sampled_from([1.0, -2.5, 1e-3]))
def test_the_error_estimate_of_richardson_bounds_its_true_error(name, reach, share, v):
    f, df = KNOWN[name]
    x = reach * share
    value, error = richardson(f, np.array(x), np.array(v))
    true = df(x) * v
    assert abs(value - true) <= error + 4.0 * np.spacing(abs(true))  # the reference itself is rounded
    assert error <= 1e-9 * max(1.0, abs(v))  # and the estimate is of use: smooth functions of order 1


def test_the_error_estimate_of_richardson_counts_the_rounding_of_the_argument():
    # At a zero of f the values are tiny, but x + h v is still rounded to the grid of x.
    x = np.array(np.nextafter(np.pi, 0.0))
    value, error = richardson(np.sin, x, np.array(1e-3))
    assert abs(value + 1e-3) <= error + 1e-18  # cos(pi) v, rounded


def test_the_error_estimate_of_richardson_covers_a_kink_between_its_steps():
    value, error = richardson(np.abs, np.array(3e-3), np.array(1.0))  # between h0/2 and h0/4
    assert abs(value - 1.0) <= error


def test_richardson_judges_each_output_by_itself():
    value, error = richardson(lambda x: np.array([np.sin(x), 1e8 * np.exp(x), 5.0 + 0.0 * x]), np.array(0.7), np.array(1.0))
    true = np.array([np.cos(0.7), 1e8 * np.exp(0.7), 0.0])
    assert (np.abs(value - true) <= error).all()
    assert error[0] < 1e-9 < error[1] < 1.0  # rounding scales with the size of each output


def test_richardson_jacobian_equals_the_complex_step_and_its_bounds_hold():
    x = np.array([[0.3, -40.0], [1e3, 0.0]])  # entries of unlike size: the step follows each

    def f(z):
        return np.array([np.sin(z[0, 0]) * z[0, 1], np.log(z[1, 0]) + z[1, 1] ** 2, z[0, 1] ** 3])

    exact = complex_step_jacobian(f, x)
    value, bound = richardson_jacobian(f, x)
    assert value.shape == bound.shape == exact.shape == (3, 2, 2)
    assert (np.abs(value - exact) <= bound + 4.0 * np.spacing(np.abs(exact))).all()  # the oracle's own rounding
    scale = np.abs(exact).max(axis=(1, 2), keepdims=True)
    assert (bound <= 1e-9 * scale + 1e-9).all()
