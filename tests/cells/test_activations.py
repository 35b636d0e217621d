"""Every activation: its fast form equals its value, its slope equals the complex step, in place and in complex128."""

import numpy as np
import pytest

from gradlab.cells import activations

POINTS = (
    np.concatenate([np.linspace(-40.0, 40.0, 161), np.linspace(-2, 2, 99), [-700.0, -1e-12, 1e-12, 700.0]]) + 1e-3
)  # off every kink


@pytest.mark.parametrize("activation", activations.ALL.values(), ids=lambda a: a.name)
def test_value_and_slope_equal_the_function_and_its_complex_step(activation):
    y, dy = np.empty_like(POINTS), np.empty_like(POINTS)
    with np.errstate(over="ignore"):
        activation.value_and_slope(POINTS, y, dy)
        exact = np.imag(activation.value(POINTS + 1e-200j)) / 1e-200
    assert np.abs(y - activation.value(POINTS)).max() <= 1e-15 * 700.0  # an ulp of the largest argument
    seen = np.abs(exact) > 1e-100  # below, 1e-200 times the slope is no normal number
    assert seen.sum() > 40
    assert np.abs(dy[seen] / exact[seen] - 1.0).max() <= 1e-14
    assert (dy >= 0).all()
    assert (dy <= activation.max_slope).all()


@pytest.mark.parametrize("activation", activations.ALL.values(), ids=lambda a: a.name)
def test_the_fast_form_may_write_over_its_argument(activation):
    z, dy, y, dy_apart = POINTS.copy(), np.empty_like(POINTS), np.empty_like(POINTS), np.empty_like(POINTS)
    with np.errstate(over="ignore"):
        activation.value_and_slope(POINTS, y, dy_apart)
        activation.value_and_slope(z, z, dy)
    assert np.array_equal(z, y)
    assert np.array_equal(dy, dy_apart)


@pytest.mark.parametrize("activation", activations.ALL.values(), ids=lambda a: a.name)
def test_the_complex_form_has_the_real_one_as_its_real_part(activation):
    z = POINTS[np.abs(POINTS) < 300].astype(complex)
    y, dy = np.empty_like(z), np.empty_like(z)
    activation.value_and_slope(z, y, dy)
    real_y, real_dy = np.empty(z.shape), np.empty(z.shape)
    activation.value_and_slope(z.real.copy(), real_y, real_dy)
    assert np.abs(y.real - real_y).max() <= 1e-14 * np.abs(real_y).max()
    assert np.abs(dy.real - real_dy).max() <= 1e-14
    assert not y.imag.any()


@pytest.mark.parametrize(("name", "kink", "slope"), [("relu", 0.0, 0.0), ("leaky_relu", 0.0, 0.01), ("hard_tanh", 1.0, 0.0)])
def test_the_slope_at_the_kink_is_the_stated_one_and_that_of_the_complex_step(name, kink, slope):
    z, y, dy = np.array([kink]), np.empty(1), np.empty(1)
    activations.ALL[name].value_and_slope(z, y, dy)
    assert dy[0] == slope
    assert np.imag(activations.ALL[name].value(z + 1e-200j))[0] / 1e-200 == pytest.approx(slope, rel=1e-15)
