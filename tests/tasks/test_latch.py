"""The latch and the two-sequence problem: laws, exact attractors, and the noise that a bit survives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab import Elman, Network, forward
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.tasks import ALL, latch


def test_the_known_values_at_w_a_quarter_above_1():
    assert abs(latch.safe_noise(1.25) - 0.077805169) <= 5e-10  # printed digits
    assert abs(latch.attractor(1.25) - 0.7104117835) <= 5e-11
    assert abs(latch.attractor_slope(1.25) - 0.619143872) <= 5e-10


@given(st.floats(1.0 + 1e-6, 1e3))
def test_the_attractor_is_a_stable_fixed_point_and_the_bound_its_barrier(w):
    x = latch.attractor(w)
    assert 0.0 < x <= 1.0
    assert abs(np.tanh(w * x) - x) <= 4e-16  # a rounding or two of a number up to 1
    assert 0.0 <= latch.attractor_slope(w) < 1.0
    if w < 5.0:  # above, 1 - x^2 has lost digits
        assert abs(latch.attractor_slope(w) / (w * (1.0 - x) * (1.0 + x)) - 1.0) <= 1e-12 * (1.0 + w / (1.0 - x)) ** 0.5
    # h* is the height of the barrier: a push of -h keeps a > 0 if w tanh(a) - a reaches h somewhere.
    a = np.linspace(0.0, np.arctanh(np.sqrt(1.0 - 1.0 / w)) * 2.0 + 1e-9, 20_001)
    barrier = (w * np.tanh(a) - a).max()
    assert abs(latch.safe_noise(w) - barrier) <= 1e-7 * w  # a grid of 1e-4 around a smooth maximum; rounding of w


def test_near_w_1_both_follow_their_leading_terms():
    for eps in (1e-4, 1e-6):
        # xbar = sqrt(3 eps) (1 + O(eps)); h* = (2/3) eps^1.5 (1 + O(eps)).
        assert abs(latch.attractor(1.0 + eps) / np.sqrt(3.0 * eps) - 1.0) <= 2.0 * eps
        assert abs(latch.safe_noise(1.0 + eps) / (2.0 / 3.0 * eps**1.5) - 1.0) <= 2.0 * eps + 1e-16 / eps


@pytest.mark.parametrize("w", [1.0, 0.5, -2.0])
def test_without_two_attractors_there_is_no_bit(w):
    for function in (latch.safe_noise, latch.attractor, latch.attractor_slope):
        with pytest.raises(ValueRangeError, match=f"w is {w}; expected more than 1"):
            function(w)


@pytest.mark.parametrize(("share", "kept"), [(0.999, True), (1.001, False)])
@pytest.mark.parametrize("w", [1.25, 2.0])
def test_a_network_keeps_its_bit_just_below_the_bound_and_loses_it_just_above(w, share, kept):
    # The worst noise: every step the same push against the bit.
    values = np.array([[-1.0] * 3, [1.0] * 3])
    net = Network(Elman("tanh"), 7, 1, output_size=1, readout="last")
    batch = latch.BENGIO.sample(np.random.default_rng(0), 40, 1000)
    push = -np.sign(batch.targets[:, 0]) * share * latch.safe_noise(w)
    inputs = batch.inputs.copy()
    inputs[3:, :, 0] = push
    outputs = forward(net, latch.latch_parameters(w, values), inputs).outputs
    np.testing.assert_array_equal(latch.BENGIO.success(outputs, batch.targets), np.full(40, kept))


def test_without_noise_the_output_is_the_attractor():
    net = Network(Elman("tanh"), 7, 1, output_size=1, readout="last")
    inputs = np.zeros((400, 1, 7))
    inputs[np.arange(3), 0, 4 + np.arange(3)] = 1.0  # class 1
    outputs = forward(net, latch.latch_parameters(1.25, np.array([[-1.0] * 3, [0.5] * 3])), inputs).outputs
    assert abs(outputs[0, 0] - latch.attractor(1.25)) <= 1e-15  # 0.62^400 of the way


def test_the_latch_tells_the_class_in_its_first_steps_only():
    T, n = 50, 2000
    batch = ALL["latch_bengio"].sample(np.random.default_rng(1), n, T)
    noise, told = batch.inputs[..., 0], batch.inputs[..., 1:].reshape(T, n, 2, 3)
    assert not noise[:3].any()
    assert not told[3:].any()
    classes = told[0, :, 1, 0].astype(int)
    for t in range(3):
        expected = np.zeros((n, 2, 3))
        expected[np.arange(n), classes, t] = 1.0
        np.testing.assert_array_equal(told[t], expected)
    np.testing.assert_array_equal(batch.targets[:, 0], np.where(classes == 1, 0.8, -0.8))
    assert abs(classes.mean() - 0.5) <= 4.0 * 0.5 / np.sqrt(n)
    later = noise[3:]
    assert abs(later.std() / 0.2 - 1.0) <= 4.0 / np.sqrt(2.0 * later.size)  # four standard deviations
    assert abs(later.mean()) <= 4.0 * 0.2 / np.sqrt(later.size)


def test_wrong_values_of_a_latch_are_told():
    with pytest.raises(ShapeError, match=r"values have shape \(3, 2\); expected \(2, 3\)"):
        latch.latch_parameters(1.25, np.zeros((3, 2)))
    with pytest.raises(DTypeError, match="w is 'a'"):
        latch.latch_parameters("a", np.zeros((2, 3)))


@pytest.mark.parametrize("name", ["two_sequence_hochreiter", "two_sequence_hochreiter_3c"])
@pytest.mark.parametrize("T", [4, 60])
def test_the_two_sequences_begin_with_their_class_and_go_on_with_noise(name, T):
    n = 20_000
    task = ALL[name]
    batch = task.sample(np.random.default_rng(2), n, T)
    x = batch.inputs[..., 0]
    assert set(np.unique(x[:3])) == {-1.0, 1.0}
    assert (x[:3] == x[0]).all()
    assert abs(x[0].mean()) <= 4.0 / np.sqrt(n)
    live = np.arange(len(x))[:, None] < batch.lengths
    assert not x[~live].any()
    noise = x[3:][live[3:]]
    assert abs(noise.var() / 0.2 - 1.0) <= 4.0 * np.sqrt(2.0 / noise.size)  # 0.2 is the variance
    assert batch.lengths.min() == T
    assert batch.lengths.max() == T + T // 10
    if name.endswith("3c"):
        clean = np.where(x[0] > 0, 0.8, 0.2)[:, None]
        np.testing.assert_array_equal(task.noise_free(batch), clean)
        added = batch.targets - clean
        assert abs(added.var() / 0.1 - 1.0) <= 4.0 * np.sqrt(2.0 / n)
        assert abs(np.corrcoef(added[:, 0], x[0])[0, 1]) <= 4.0 / np.sqrt(n)
    else:
        np.testing.assert_array_equal(batch.targets[:, 0], x[0] > 0)
