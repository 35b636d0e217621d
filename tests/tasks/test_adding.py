"""The adding problem: two markers anywhere, and a baseline that the samples themselves reach."""

import numpy as np
import pytest

from gradlab.tasks import adding


def test_the_baseline_is_the_variance_of_the_targets():
    n = 200_000
    targets = adding.sample(np.random.default_rng(0), n, 10).targets[:, 0]
    # Squared error of the constant answer 1; its relative scatter is below 5/sqrt(n).
    assert abs(((targets - 1.0) ** 2).mean() / adding.BASELINE - 1.0) <= 5.0 / np.sqrt(n)
    assert adding.BASELINE == 1.0 / 6.0
    # No other constant is better: the derivative of the error at 1 is 2 (mean - 1), zero within 5 standard deviations.
    assert abs(targets.mean() - 1.0) <= 5.0 * np.sqrt(adding.BASELINE / n)


@pytest.mark.parametrize("length", [2, 3, 50])
def test_there_are_exactly_two_markers_and_the_target_is_the_sum_of_their_values(length):
    batch = adding.sample(np.random.default_rng(1), 500, length)
    values, markers = batch.inputs[..., 0], batch.inputs[..., 1]
    assert set(np.unique(markers)) == {0.0, 1.0} if length > 2 else {1.0}
    np.testing.assert_array_equal(markers.sum(axis=0), 2.0)
    np.testing.assert_allclose(
        (values * markers).sum(axis=0), batch.targets[:, 0], rtol=1e-15
    )  # one sum, perhaps in the other order
    assert batch.mask is None
    assert batch.targets.shape == (500, 1)


def test_values_are_uniform_between_0_and_1():
    values = adding.sample(np.random.default_rng(2), 2000, 20).inputs[..., 0].ravel()
    counts, _ = np.histogram(values, 20, (0.0, 1.0))
    assert counts.sum() == values.size == 40_000  # none outside
    chi2 = ((counts - 2000.0) ** 2 / 2000.0).sum()
    assert chi2 <= 43.8  # 99.9 % of the chi-squared distribution with 19 degrees of freedom
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) <= 4.0 / np.sqrt(values.size)  # neighbours are independent


def test_every_pair_of_steps_is_equally_likely():
    T, n = 7, 42_000
    markers = adding.sample(np.random.default_rng(3), n, T).inputs[..., 1]
    pairs = np.argsort(-markers, axis=0, kind="stable")[:2]  # the two marked steps, in order
    counts = np.zeros((T, T))
    np.add.at(counts, (pairs[0], pairs[1]), 1)
    upper = counts[np.triu_indices(T, 1)]
    assert upper.sum() == n
    chi2 = ((upper - n / 21.0) ** 2 / (n / 21.0)).sum()
    assert chi2 <= 45.3  # 99.9 % of the chi-squared distribution with 20 degrees of freedom


def test_markers_do_not_depend_on_values():
    batch = adding.sample(np.random.default_rng(4), 100_000, 4)
    marked = batch.inputs[..., 0][batch.inputs[..., 1] == 1.0]
    assert abs(marked.mean() - 0.5) <= 4.0 * np.sqrt(1.0 / 12.0 / marked.size)  # four standard deviations


def test_the_same_generator_gives_the_same_batch_and_the_next_one_differs():
    one, other = (adding.sample(np.random.default_rng(5), 8, 30) for _ in range(2))
    np.testing.assert_array_equal(one.inputs, other.inputs)
    np.testing.assert_array_equal(one.targets, other.targets)
    rng = np.random.default_rng(5)
    adding.sample(rng, 8, 30)
    assert np.abs(adding.sample(rng, 8, 30).targets - one.targets).min() > 0.0


def test_numbers_of_the_task_fit_a_network():
    batch = adding.sample(np.random.default_rng(6), 3, 4)
    assert batch.inputs.shape == (4, 3, adding.INPUT_SIZE)
    assert batch.targets.shape[-1] == adding.OUTPUT_SIZE
