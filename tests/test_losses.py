"""Losses against values known in closed form, and their derivatives against the complex step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradlab._derivatives import complex_step_jacobian
from gradlab.errors import GradlabError
from gradlab.losses import mean_squared_error, softmax_cross_entropy

MODERATE = st.floats(-5.0, 5.0, allow_subnormal=False)


def exact_gradient(loss, outputs, targets, mask=None):
    return complex_step_jacobian(lambda y: loss(y, targets, mask)[0], outputs)


# ---- mean squared error ------------------------------------------------------------------------------------


def test_mean_squared_error_of_a_known_case():
    outputs, targets = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 2.0], [3.0, 2.0]])
    value, slope = mean_squared_error(outputs, targets)
    assert value == (1.0 + 0.0 + 0.0 + 4.0) / 4.0
    np.testing.assert_array_equal(slope, [[0.5, 0.0], [0.0, 1.0]])  # 2 (y - target)/4, exact in binary


def test_mean_squared_error_of_the_targets_themselves_is_exactly_zero():
    y = np.random.default_rng(0).normal(size=(4, 3, 2))
    value, slope = mean_squared_error(y, y.copy())
    assert value == 0.0
    np.testing.assert_array_equal(slope, np.zeros_like(y))


def test_a_mask_of_mean_squared_error_takes_the_mean_over_what_counts():
    rng = np.random.default_rng(1)
    outputs, targets = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2))
    mask = np.zeros((4, 3))
    mask[[0, 2, 3], [1, 0, 2]] = 1.0
    value, slope = mean_squared_error(outputs, targets, mask)
    kept = mask.astype(bool)
    np.testing.assert_allclose(value, ((outputs - targets)[kept] ** 2).mean(), rtol=1e-14)  # a sum of six terms
    np.testing.assert_array_equal(slope[~kept], 0.0)
    np.testing.assert_allclose(slope[kept], 2.0 * (outputs - targets)[kept] / 6.0, rtol=1e-14)


@pytest.mark.parametrize("loss", [mean_squared_error, softmax_cross_entropy], ids=lambda f: f.__name__)
def test_a_mask_of_ones_or_of_any_constant_is_no_mask(loss):
    rng = np.random.default_rng(2)
    outputs = rng.normal(size=(4, 3, 5))
    targets = rng.normal(size=(4, 3, 5)) if loss is mean_squared_error else rng.integers(0, 5, (4, 3))
    plain = loss(outputs, targets, None)
    for mask in (np.ones((4, 3)), np.full((4, 3), 0.25), np.ones((4, 3), bool), np.ones((4, 3), np.int8)):
        for one, other in zip(loss(outputs, targets, mask), plain, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-14)  # 12 or 60 terms in another order


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 3, 2), (3, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_slope_of_mean_squared_error_equals_the_complex_step(shape, masked):
    rng = np.random.default_rng(3)
    outputs, targets = rng.normal(size=shape), rng.normal(size=shape)
    mask = rng.uniform(0.1, 1.0, shape[:-1]) if masked else None
    _, slope = mean_squared_error(outputs, targets, mask)
    np.testing.assert_allclose(slope, exact_gradient(mean_squared_error, outputs, targets, mask), rtol=1e-14)  # one term each


# ---- cross-entropy -----------------------------------------------------------------------------------------


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes():
    value, slope = softmax_cross_entropy(np.full((2, 3, 4), 7.0), np.ones((2, 3), int))
    np.testing.assert_allclose(value, np.log(4.0), rtol=1e-15)
    expected = np.full((2, 3, 4), 0.25)
    expected[..., 1] = -0.75
    np.testing.assert_allclose(slope, expected / 6.0, rtol=1e-15)


def test_cross_entropy_of_two_classes_is_the_logistic_loss():
    z = np.array([[0.3], [-2.0], [5.0]])
    outputs = np.concatenate([np.zeros((3, 1)), z], axis=-1)
    value, _ = softmax_cross_entropy(outputs, np.ones(3, int))
    np.testing.assert_allclose(value, np.log1p(np.exp(-z)).mean(), rtol=1e-14)  # log and exp of moderate numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_of_logits_of_ten_thousand_is_exact(dtype):
    outputs = np.array([[1e4, 0.0, -1e4]] * 3, dtype)
    for label, nats in enumerate((0.0, 1e4, 2e4)):
        value, slope = softmax_cross_entropy(outputs, np.full(3, label))
        assert value == nats
        expected = np.array([1.0, 0.0, 0.0]) - np.eye(3)[label]
        # Three equal weights of 1/3, rounded in the dtype of the network.
        np.testing.assert_allclose(slope, np.broadcast_to(expected / 3.0, (3, 3)), rtol=4 * np.finfo(dtype).eps)


@given(
    outputs=hnp.arrays(np.float64, (3, 2, 4), elements=MODERATE),
    labels=hnp.arrays(np.int64, (3, 2), elements=st.integers(0, 3)),
    shift=st.floats(-1e3, 1e3, allow_subnormal=False),
)
def test_cross_entropy_does_not_change_with_a_shift_and_its_slope_sums_to_zero(outputs, labels, shift):
    value, slope = softmax_cross_entropy(outputs, labels)
    moved, _ = softmax_cross_entropy(outputs + shift, labels)
    np.testing.assert_allclose(moved, value, rtol=0, atol=1e-12)  # adding 1000 rounds the logits by 1e-13
    np.testing.assert_allclose(slope.sum(axis=-1), 0.0, atol=1e-16)  # four terms below 1/6
    assert value >= 0.0


@given(outputs=hnp.arrays(np.float64, (2, 3), elements=MODERATE), labels=hnp.arrays(np.int64, 2, elements=st.integers(0, 2)))
def test_the_slope_of_cross_entropy_equals_the_complex_step(outputs, labels):
    _, slope = softmax_cross_entropy(outputs, labels)
    # Probabilities are at least e^-10 = 5e-5; p - 1 cancels where p is near 1: rounding relative to 1.
    np.testing.assert_allclose(slope, exact_gradient(softmax_cross_entropy, outputs, labels), rtol=1e-11, atol=1e-16)


def test_a_mask_of_cross_entropy_weighs_each_position():
    rng = np.random.default_rng(4)
    outputs, labels = rng.normal(size=(4, 3, 5)), rng.integers(0, 5, (4, 3))
    mask = rng.uniform(0.0, 2.0, (4, 3))
    mask[1] = 0.0
    value, slope = softmax_cross_entropy(outputs, labels, mask)
    p = np.exp(outputs) / np.exp(outputs).sum(axis=-1, keepdims=True)
    nats = -np.log(np.take_along_axis(p, labels[..., None], axis=-1)[..., 0])
    np.testing.assert_allclose(value, (mask * nats).sum() / mask.sum(), rtol=1e-14)  # 12 terms
    np.testing.assert_array_equal(slope[1], 0.0)
    np.testing.assert_allclose(slope, exact_gradient(softmax_cross_entropy, outputs, labels, mask), rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint64])
def test_labels_may_have_any_integer_dtype(dtype):
    outputs = np.random.default_rng(5).normal(size=(3, 2, 4))
    labels = np.array([[0, 3], [1, 2], [3, 0]])
    one, other = softmax_cross_entropy(outputs, labels.astype(dtype)), softmax_cross_entropy(outputs, labels)
    assert one[0] == other[0]
    np.testing.assert_array_equal(one[1], other[1])


def test_a_row_of_minus_infinite_logits_never_gives_a_finite_loss():
    with np.errstate(all="ignore"):
        try:
            value, _ = softmax_cross_entropy(np.array([[0.0, 1.0], [-np.inf, -np.inf]]), np.array([0, 0]))
        except GradlabError:
            return
    assert not np.isfinite(value)


# ---- both --------------------------------------------------------------------------------------------------


def cases():
    rng = np.random.default_rng(6)
    return [
        (mean_squared_error, rng.normal(size=(2, 3, 4, 5, 2)), rng.normal(size=(4, 5, 2))),
        (softmax_cross_entropy, rng.normal(size=(2, 3, 4, 5, 2)), rng.integers(0, 2, (4, 5))),
        (mean_squared_error, rng.normal(size=(2, 3, 5, 2)), rng.normal(size=(5, 2))),
        (softmax_cross_entropy, rng.normal(size=(2, 3, 5, 2)), rng.integers(0, 2, 5)),
    ]


@pytest.mark.parametrize(("loss", "outputs", "targets"), cases())
@pytest.mark.parametrize("masked", [False, True])
def test_ensemble_axes_in_front_give_what_a_loop_gives(loss, outputs, targets, masked):
    positions = outputs.shape[2:-1]
    mask = np.random.default_rng(7).uniform(0.0, 1.0, positions) if masked else None
    value, slope = loss(outputs, targets, mask)
    assert value.shape == (2, 3)
    for index in np.ndindex(2, 3):
        one, own = loss(outputs[index], targets, mask)
        np.testing.assert_allclose(value[index], one, rtol=1e-14)  # the same terms, perhaps in another order
        np.testing.assert_allclose(slope[index], own, rtol=1e-14)


@pytest.mark.parametrize(("loss", "outputs", "targets"), cases())
def test_a_complex_step_passes_through_value_and_slope(loss, outputs, targets):
    v, h = np.random.default_rng(8).normal(size=outputs.shape), 1e-30
    value, slope = loss(outputs, targets)
    lifted, second = loss(outputs + 1j * h * v, targets)
    np.testing.assert_allclose(lifted.real, value, rtol=1e-13)  # complex exp and log round otherwise than real ones
    own = tuple(range(2, outputs.ndim))
    # d value = <slope, v>; terms of both signs: relative to the sum of their absolute values.
    np.testing.assert_array_less(np.abs(lifted.imag / h - (slope * v).sum(axis=own)), 1e-13 * np.abs(slope * v).sum(axis=own))
    step = 1e-6
    difference = (loss(outputs + step * v, targets)[1] - loss(outputs - step * v, targets)[1]) / (2.0 * step)
    # Central difference of the slope: rounding 1e-16/step and step^2, relative to slopes of order 0.1.
    np.testing.assert_allclose(second.imag / h, difference, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("loss", "outputs", "targets"), cases())
def test_float32_outputs_get_a_float32_slope(loss, outputs, targets):
    targets = targets.astype(np.float32) if targets.dtype == np.float64 else targets
    value, slope = loss(outputs.astype(np.float32), targets)
    wide = loss(outputs, targets)
    assert slope.dtype == np.float32
    np.testing.assert_allclose(value, wide[0], rtol=1e-5)  # 40 roundings of 6e-8
    np.testing.assert_allclose(slope, wide[1], rtol=1e-4, atol=1e-7)  # differences y - target cancel


@pytest.mark.parametrize(("loss", "outputs", "targets"), cases())
def test_a_loss_changes_neither_outputs_nor_targets_nor_mask(loss, outputs, targets):
    mask = np.random.default_rng(9).uniform(0.0, 1.0, outputs.shape[2:-1])
    before = outputs.copy(), targets.copy(), mask.copy()
    _, slope = loss(outputs, targets, mask)
    slope[...] = 0.0
    for now, then in zip((outputs, targets, mask), before, strict=True):
        np.testing.assert_array_equal(now, then)
