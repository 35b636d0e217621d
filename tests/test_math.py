"""Activations and log-scaled numbers against arithmetic of hundreds of decimal digits, saturated and vanished values included."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab import _math

TINY = np.finfo(float).tiny

# Both signs, the neighbourhood of 0, where 1 - tanh^2 loses its digits (9, 20), and both ends of float64's exponent range.
ARGUMENTS = sorted(
    {s * v for v in (0.0, 1e-300, 1e-9, 0.3, 1.0, 5.0, 9.0, 15.0, 20.0, 37.0, 40.0, 354.0, 700.0) for s in (1.0, -1.0)}
)
ARGUMENTS += [float(z) for z in np.random.default_rng(0).uniform(-700.0, 700.0, 200)]


def exact(function, z):
    """f(z) of a float, which is an exact Decimal; 400 digits leave 100 for 1 - exp(-2e-300)."""
    with localcontext() as context:
        context.prec = 400 if abs(z) < 1e-20 else 60
        z = Decimal(float(z))
        e, e2 = (-abs(z)).exp(), (-2 * abs(z)).exp()
        sign = -1 if z < 0 else 1
        return {
            "sigmoid": (e if z < 0 else 1) / (1 + e),
            "sigmoid slope": e / (1 + e) ** 2,
            "tanh": sign * (1 - e2) / (1 + e2),
            "tanh slope": 4 * e2 / (1 + e2) ** 2,
        }[function]


def relative_error(value, reference):
    with localcontext() as context:
        context.prec = 60
        return float(abs(Decimal(float(value)) - reference) / abs(reference)) if reference else float(value != 0.0)


def filled(pair, z, alias=False):
    y, dy = (z.copy() if alias else np.full_like(z, np.nan)), np.full_like(z, np.nan)
    with np.errstate(all="ignore"):  # as the engine does; what overflows on the way is found on the results
        pair(y if alias else z, y, dy)
    return y, dy


PAIRS = {
    "sigmoid": (_math.sigmoid_and_slope, _math.sigmoid, _math.sigmoid_slope),
    "tanh": (_math.tanh_and_slope, _math.tanh, _math.tanh_slope),
}


@pytest.mark.parametrize("name", PAIRS)
def test_value_and_slope_have_14_digits_from_minus_700_to_700(name):
    pair, value, slope = PAIRS[name]
    z = np.array(ARGUMENTS)
    y, dy = filled(pair, z)
    for label, numbers in ((name, y), (name, value(z)), (f"{name} slope", dy), (f"{name} slope", slope(z))):
        for argument, number in zip(z, numbers, strict=True):
            reference = exact(label, argument)
            if abs(reference) < TINY:  # subnormal results cannot carry 14 digits: they must be as small as the truth
                assert 0.0 <= abs(number) <= TINY, (label, argument, number)
            else:
                # A handful of operations, each within one rounding (2.2e-16); exp itself within one more.
                assert relative_error(number, reference) <= 1e-14, (label, argument, number)


def test_the_slope_of_tanh_at_20_is_not_zero():
    # 4 exp(-40)/(1 + exp(-40))^2, where 1 - tanh(20)^2 reads exactly 0.
    assert 1.0 - np.tanh(20.0) ** 2 == 0.0
    _, dy = filled(_math.tanh_and_slope, np.array([20.0, -20.0]))
    np.testing.assert_allclose(dy, 1.6993417021166355e-17, rtol=1e-14)  # as above
    np.testing.assert_allclose(np.log(dy), -38.613705638880108, rtol=1e-15)  # ln 4 - 40, to the last digit


def test_sigmoid_of_minus_40_is_not_rounded_to_zero():
    np.testing.assert_allclose(_math.sigmoid(np.array(-40.0)), 4.248354255291589e-18, rtol=1e-14)  # one exp, one division
    assert 1.0 - _math.sigmoid(np.array(40.0)) == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("name", PAIRS)
def test_at_plus_and_minus_1000_slopes_are_zero_or_subnormal_and_never_nan(name, dtype):
    z = np.array([1000.0, -1000.0], dtype)
    pair, value, slope = PAIRS[name]
    y, dy = filled(pair, z)
    tiny = np.finfo(dtype).tiny
    for number in (dy, slope(z)):
        assert (number.real >= 0.0).all()
        # The truth, exp(-1000), is below every positive float; the bound that keeps the exponential finite rounds once.
        assert (number.real <= (1.0 + 1e-4) * tiny).all()
        assert (number.imag == 0.0).all()
    np.testing.assert_array_equal(y.real[0], 1.0)
    assert abs(y.real[1] - (-1.0 if name == "tanh" else 0.0)) <= (1.0 + 1e-4) * tiny
    np.testing.assert_array_equal(value(z).real, [1.0, -1.0 if name == "tanh" else 0.0])


@pytest.mark.parametrize("name", PAIRS)
def test_infinite_arguments_give_the_limits_and_nan_stays_nan(name):
    y, dy = filled(PAIRS[name][0], np.array([np.inf, -np.inf, np.nan]))
    assert y[0] == 1.0
    assert abs(y[1] - (-1.0 if name == "tanh" else 0.0)) <= (1.0 + 1e-12) * TINY  # one rounding of the exponential
    assert (dy[:2] >= 0.0).all()
    assert (dy[:2] <= (1.0 + 1e-12) * TINY).all()
    assert np.isnan(y[2])
    assert np.isnan(dy[2])


@pytest.mark.parametrize("name", PAIRS)
def test_float32_stays_float32_and_has_six_digits(name):
    z = np.array([v for v in ARGUMENTS if abs(v) <= 40.0] + [-80.0, 43.0, -43.0], np.float32)
    y, dy = filled(PAIRS[name][0], z)
    assert y.dtype == dy.dtype == np.float32
    for label, numbers in ((name, y), (f"{name} slope", dy)):
        for argument, number in zip(z, numbers, strict=True):
            reference = exact(label, argument)
            if abs(reference) < np.finfo(np.float32).tiny:
                assert 0.0 <= abs(number) <= np.finfo(np.float32).tiny
            else:
                assert relative_error(number, reference) <= 1e-6, (label, argument)  # 8 roundings of 1.2e-7


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize(
    "pair",
    [_math.sigmoid_and_slope, _math.tanh_and_slope, _math.relu_and_slope, _math.identity_and_slope],
    ids=lambda f: f.__name__,
)
def test_value_may_overwrite_the_argument(pair, dtype):
    z = np.array([-800.0, -30.0, -1.5, 0.0, 0.25, 12.0, 800.0]).astype(dtype)
    if np.iscomplexobj(z):
        z += 0.125j
    for apart, together in zip(filled(pair, z), filled(pair, z, alias=True), strict=True):
        np.testing.assert_array_equal(together, apart)


@given(st.floats(-350.0, 350.0))
def test_slopes_equal_the_complex_step_of_the_value(z):
    # At +-350 the slope of tanh is 4e-304; times the step it would vanish, so the step is 1 where nothing curves: use
    # 1e-30, whose square is far below rounding, and skip what is subnormal after multiplication.
    h = 1e-30
    for value, slope in ((_math.sigmoid, _math.sigmoid_slope), (np.tanh, _math.tanh_slope)):
        found, step = slope(np.array(z)), np.imag(value(np.array(z + 1j * h)))
        if step > 1e3 * TINY:
            np.testing.assert_allclose(found, step / h, rtol=1e-13)  # two libraries' exp, tanh and some products


@given(st.floats(-30.0, 30.0), st.floats(-1.0, 1.0))
def test_complex_value_and_slope_equal_the_closed_forms_of_complex_exp(x, y):
    z = np.array(complex(x, y))
    e = np.exp(-abs(x) - 1j * (y if x >= 0 else -y))  # exp(-z) or exp(z), whichever is small
    sigmoid, sigmoid_slope = (1.0 if x >= 0 else e) / (1.0 + e), e / (1.0 + e) ** 2
    for pair, want, want_slope in (
        (_math.sigmoid_and_slope, sigmoid, sigmoid_slope),
        (_math.tanh_and_slope, None, 4.0 * e**2 / (1.0 + e**2) ** 2),
    ):
        got, slope = filled(pair, z)
        # |1 + e| and |1 + e^2| stay above 0.5 for |Im z| <= 1: no cancellation, only some complex roundings.
        np.testing.assert_allclose(slope, want_slope, rtol=1e-13)
        if want is not None:
            np.testing.assert_allclose(got, want, rtol=1e-13)


@given(st.floats(-400.0, 400.0), st.one_of(st.floats(-0.99, 0.99), st.floats(1.0, 9.0)))
def test_complex_tanh_is_numpys(x, y):
    z = np.array([complex(x, y)])
    with np.errstate(all="ignore"):
        ours, theirs = _math.tanh(z)[0], np.tanh(z)[0]
    assert abs(ours.real - theirs.real) <= 1e-15 * abs(theirs.real)  # some roundings of either
    # Both lose bits below the smallest normal number; cosh is 350 units of its argument's rounding off at the far end.
    assert abs(ours.imag - theirs.imag) <= 1e-13 * abs(theirs.imag) + 10.0 * TINY


@pytest.mark.parametrize("z", [0.0, 1e-9, 0.3, -5.0, 20.0, -37.0, 40.0, 100.0, -200.0])
def test_a_complex_step_of_tanh_keeps_its_digits_in_saturation(z):
    with np.errstate(all="ignore"):
        slope = _math.tanh(np.array([z + 1e-30j]))[0].imag / 1e-30
    assert relative_error(slope, exact("tanh slope", z)) <= 1e-13


def test_relu_passes_the_positive_side_and_has_slope_zero_at_zero():
    z = np.array([-2.0, -0.0, 0.0, 5e-324, 3.0])
    y, dy = filled(_math.relu_and_slope, z)
    np.testing.assert_array_equal(_math.relu(z), [0.0, 0.0, 0.0, 5e-324, 3.0])
    np.testing.assert_array_equal(y, [0.0, 0.0, 0.0, 5e-324, 3.0])
    np.testing.assert_array_equal(dy, [0.0, 0.0, 0.0, 1.0, 1.0])


def test_relu_branches_on_the_real_part_and_keeps_the_imaginary_one():
    z = np.array([-2.0 + 1e-200j, 0.0 + 1e-200j, 2.0 - 1e-200j])
    y, dy = filled(_math.relu_and_slope, z)
    np.testing.assert_array_equal(_math.relu(z), [0.0, 0.0, 2.0 - 1e-200j])
    np.testing.assert_array_equal(y, [0.0, 0.0, 2.0 - 1e-200j])
    np.testing.assert_array_equal(dy, [0.0, 0.0, 1.0])


# ---- log_norm ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vector", "log"),
    [
        ([3.0, 4.0], np.log(5.0)),
        ([3e-200, 4e-200], np.log(5.0) - 200.0 * np.log(10.0)),
        ([3e200, -4e200], np.log(5.0) + 200.0 * np.log(10.0)),
        ([5e-324, 0.0], -1074.0 * np.log(2.0)),  # the smallest positive float
        ([1.5e308, 1.5e308], np.log(1.5) + 0.5 * np.log(2.0) + 308.0 * np.log(10.0)),  # the norm itself overflows
        ([1.0, 1e-300], 0.0),
        ([3e-200 + 4e-200j], np.log(5.0) - 200.0 * np.log(10.0)),
        ([1e200 + 0j, 1e-200j], 200.0 * np.log(10.0)),
    ],
)
def test_log_norm_neither_underflows_nor_overflows(vector, log):
    # Sums of two logarithms of up to 745: rounding of that size, a few 1e-16 of it.
    np.testing.assert_allclose(_math.log_norm(np.array(vector)), log, rtol=1e-15, atol=1e-15)


def test_log_norm_of_a_zero_vector_is_minus_infinity():
    np.testing.assert_array_equal(_math.log_norm(np.array([[0.0, -0.0], [0.0, 1.0]])), [-np.inf, 0.0])
    assert _math.log_norm(np.zeros(3, complex)) == -np.inf


@pytest.mark.parametrize("other", [0.0, 1.0, 1e300])
@pytest.mark.parametrize(("value", "expected"), [(np.nan, np.nan), (np.inf, np.inf), (-np.inf, np.inf)])
def test_log_norm_of_non_finite_entries_is_never_finite(value, other, expected):
    np.testing.assert_array_equal(_math.log_norm(np.array([other, value])), expected)


@pytest.mark.parametrize("value", [complex(np.inf, 0.0), complex(0.0, -np.inf), complex(np.nan, 1.0)])
def test_log_norm_of_non_finite_complex_entries_is_never_finite_and_warns_of_nothing(value):
    assert not np.isfinite(_math.log_norm(np.array([1.0, value])))


def test_log_norm_of_complex_entries_near_the_largest_float_is_finite():
    # |1.5e308 (1 + i)| is above the largest float, its logarithm is not.
    log = np.log(1.5) + 0.5 * np.log(2.0) + 308.0 * np.log(10.0)
    np.testing.assert_allclose(_math.log_norm(np.array([1.5e308 + 1.5e308j])), log, rtol=1e-15)  # a sum of logarithms


def test_log_norm_takes_one_or_several_axes():
    x = np.random.default_rng(0).normal(size=(4, 3, 5))
    # Reference and value are both sums of a few squares: a few roundings of a logarithm of order 1.
    np.testing.assert_allclose(_math.log_norm(x, 1), np.log(np.sqrt((x**2).sum(axis=1))), rtol=0, atol=1e-15)
    np.testing.assert_allclose(_math.log_norm(x, (-2, -1)), np.log(np.linalg.norm(x, axis=(1, 2))), rtol=0, atol=1e-15)
    np.testing.assert_allclose(_math.log_norm(x, (0, 2)), np.log(np.sqrt((x**2).sum(axis=(0, 2)))), rtol=0, atol=1e-15)


def test_log_norm_of_float32_reaches_below_its_smallest_square():
    x = np.array([3e-30, 4e-30], np.float32)  # squares of 1e-60 are 0 in float32
    np.testing.assert_allclose(_math.log_norm(x), np.log(5e-30), rtol=1e-6)  # entries rounded to 6e-8


def test_harmless_underflow_does_not_raise_in_a_program_that_asked_for_floating_point_errors():
    with np.errstate(all="raise"):
        assert _math.log_norm(np.array([1.0, 1e-200])) == 0.0  # beside 1 the square of 1e-200 is nothing: ln 1 exactly


# ---- power_of_two -----------------------------------------------------------------------------------------


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_power_of_two_is_exact(values):
    x = np.array(values)
    mantissa, exponent = _math.power_of_two(x, 0)
    largest = np.abs(mantissa).max()
    assert largest == 0.0 if not x.any() else 0.5 <= largest < 1.0
    for number, m in zip(x, mantissa, strict=True):
        if m == 0.0 or abs(m) >= TINY:  # an entry 2^1022 below the largest leaves the normal range: it may lose digits
            with localcontext() as context:
                context.prec = 1200  # enough for every float64 exactly
                scaled = Decimal(float(m)) * Decimal(2) ** int(exponent)
                assert scaled == Decimal(float(number)) or (m == 0.0 and abs(number) < 1e-290 * np.abs(x).max())


def test_power_of_two_scales_real_and_imaginary_parts_together():
    mantissa, exponent = _math.power_of_two(np.array([3e250 - 1e250j, 2e150j]), 0)
    np.testing.assert_array_equal(mantissa * 2.0 ** float(exponent), [3e250 - 1e250j, 2e150j])
    assert 0.5 <= np.abs(mantissa).max() < 1.0


def test_power_of_two_leaves_zero_and_non_finite_blocks_as_they_are():
    x = np.array([[0.0, 0.0], [np.nan, 1.0], [np.inf, 4.0], [8.0, 1.0]])
    mantissa, exponent = _math.power_of_two(x, 1)
    np.testing.assert_array_equal(mantissa[:3], x[:3])
    np.testing.assert_array_equal(exponent, [0, 0, 0, 4])
    np.testing.assert_array_equal(mantissa[3], [0.5, 0.0625])
