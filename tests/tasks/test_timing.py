"""Timing: labels recomputed from the spikes alone, the law of its intervals, and exact losses of answers that know less."""

import math

import numpy as np
import pytest

from gradlab.tasks import ALL, timing

TASK = ALL["timing_gers"]


def labels_of(spikes):
    """What a reader who measures the first interval must say, step by step: (T,) from (T,) spikes of one sequence."""
    places = np.flatnonzero(spikes)
    due = places[1] + (places[1] - places[0]) * np.arange(1, len(spikes)) - 1
    return np.isin(np.arange(len(spikes)), due).astype(int)


@pytest.mark.parametrize("T", [10, 12, 30, 61])
def test_the_label_is_one_just_before_each_spike_from_the_third_on(T):
    batch = TASK.sample(np.random.default_rng(0), 300, T)
    assert set(np.unique(batch.inputs)) == {0.0, 1.0}
    for spikes, labels in zip(batch.inputs[..., 0].T, batch.targets.T, strict=True):
        np.testing.assert_array_equal(labels, labels_of(spikes))
        assert len(set(np.diff(np.flatnonzero(spikes)))) == 1  # one interval throughout
        assert labels.sum() >= 1  # the second interval ends in time: T/5 + 2 T/3 < T


@pytest.mark.parametrize("T", [10, 40, 60])
def test_every_interval_and_phase_is_as_likely_as_any_other(T):
    n = 40_000
    spikes = TASK.sample(np.random.default_rng(1), n, T).inputs[..., 0] > 0.0
    phase = spikes.argmax(axis=0)
    later = np.where(np.arange(T)[:, None] > phase, spikes, False)
    interval = later.argmax(axis=0) - phase
    pairs = np.bincount(interval * T + phase, minlength=T * T)
    drawn = [(i, p) for i in timing.intervals(T) for p in range(T // 5)]
    counts = pairs[[i * T + p for i, p in drawn]]
    assert counts.sum() == n
    expected = n / len(drawn)
    # Chi squared has the mean k - 1 and the variance 2 (k - 1): four standard deviations above.
    degrees = len(drawn) - 1
    assert ((counts - expected) ** 2 / expected).sum() <= degrees + 4.0 * math.sqrt(2.0 * degrees)


def test_the_baseline_at_length_10_is_that_of_its_four_trains():
    # I = 2, phases 0 and 1: labels at 3, 5, 7, 9 and 4, 6, 8; I = 3: at 5, 8 and 6, 9. Of four trains: one at steps 3, 4 and 7,
    # two at 5, 6, 8 and 9.
    quarter = 0.25 * math.log(4.0) + 0.75 * math.log(4.0 / 3.0)
    assert TASK.baseline(10) == pytest.approx((3.0 * quarter + 4.0 * math.log(2.0)) / 10.0, rel=1e-12)


def test_at_length_60_the_intervals_are_12_to_20():
    np.testing.assert_array_equal(timing.intervals(60), np.arange(12, 21))


@pytest.mark.parametrize("T", [10, 31, 60])
def test_what_counts_steps_does_better_than_what_knows_the_clock_and_worse_than_what_measures(T):
    assert 0.0 < timing.unmeasured(T) < TASK.baseline(T) < math.log(2.0)


def test_one_interval_leaves_nothing_to_measure_and_one_phase_nothing_to_see(monkeypatch):
    monkeypatch.setattr(timing, "intervals", lambda length: np.array([7]))
    assert timing.unmeasured(40) == 0.0
    assert TASK.baseline(40) > 0.0  # the phase is still unknown to a clock
    spikes, labels = timing.every_train(40)
    assert spikes.shape == labels.shape == (40, 8)


def test_the_loss_without_measuring_is_the_hazard_of_two_intervals(monkeypatch):
    # Intervals 3 and 4, T = 10, phases 0 and 1. Once two spikes were seen, step 2 after a spike asks "is it 3?"; if it is, a
    # spike follows, and if it is not, step 3 is certain. The trains: I = 3, phase 0: labels at 5, 8; phase 1: 6, 9;
    # I = 4, phase 0: 7; phase 1: 8. Doubt of ln 2 each: none, for the step of the last spike and the phases give it away, but
    # where two trains share their last spike: (3, 1) and (4, 0) at 4, until step 6, where one has a label.
    monkeypatch.setattr(timing, "intervals", lambda length: np.array([3, 4]))
    assert timing.unmeasured(10) == pytest.approx(2.0 * math.log(2.0) / 40.0, rel=1e-12)  # two of 4 x 10 positions


def test_a_sequence_with_one_label_a_step_late_is_wrong():
    batch = TASK.sample(np.random.default_rng(3), 4, 30)
    outputs = np.eye(2)[batch.targets]
    assert TASK.success(outputs, batch.targets).all()
    place = int(np.flatnonzero(batch.targets[:, 1])[0])
    outputs[[place, place + 1], 1] = outputs[[place + 1, place], 1]
    np.testing.assert_array_equal(TASK.success(outputs, batch.targets), [True, False, True, True])
