"""Temporal order, copying, permutation: windows of the symbols, and targets recomputed from the inputs."""

import numpy as np
import pytest

from gradlab.tasks import ALL


def chi_squared(counts):
    expected = counts.sum() / counts.size
    return ((counts - expected) ** 2 / expected).sum()


def symbols_of(batch):
    """Symbol of every step, -1 behind a row's end; checks that inputs are one-hot."""
    assert set(np.unique(batch.inputs)) == {0.0, 1.0}
    steps = np.arange(len(batch.inputs))[:, None]
    live = steps < (len(steps) if batch.lengths is None else batch.lengths)
    np.testing.assert_array_equal(batch.inputs.sum(axis=-1), np.broadcast_to(live, batch.inputs.shape[:2]))
    return np.where(live, batch.inputs.argmax(axis=-1), -1)


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("temporal_order_hochreiter_two", [(10, 20), (50, 60)]),
        ("temporal_order_hochreiter_three", [(10, 20), (33, 43), (66, 76)]),
    ],
)
def test_hochreiter_s_order_at_length_100_is_that_of_the_paper(name, windows):
    n = 6000
    batch = ALL[name].sample(np.random.default_rng(0), n, 100)
    s, rows = symbols_of(batch), np.arange(n)
    assert (s[0] == 0).all()
    assert (s[batch.lengths - 1, rows] == 1).all()
    assert ((s == 0).sum(axis=0) == 1).all()
    assert ((s == 1).sum(axis=0) == 1).all()
    counts = np.bincount(batch.lengths)
    assert counts[:100].sum() == 0
    assert counts[100:].size == 11
    assert chi_squared(counts[100:]) <= 29.6  # 99.9 % of chi squared with 10 degrees of freedom
    important = s >= 6
    assert (important.sum(axis=0) == len(windows)).all()
    label = np.zeros(n, int)
    for low, high in windows:
        place = low + important[low : high + 1].argmax(axis=0)
        assert (important[low : high + 1].sum(axis=0) == 1).all()
        assert chi_squared(np.bincount(place - low, minlength=11)) <= 29.6
        label = 2 * label + (s[place, rows] == 7)
    np.testing.assert_array_equal(batch.targets, np.eye(2 ** len(windows))[label])
    assert chi_squared(batch.targets.sum(axis=0)) <= 24.3  # 7 degrees of freedom
    distractors = np.bincount(s[(s >= 2) & (s < 6)])[2:]
    assert chi_squared(distractors) <= 16.3  # 3 degrees of freedom


@pytest.mark.parametrize("T", [10, 25, 250])
@pytest.mark.parametrize("name", ["temporal_order_hochreiter_two", "temporal_order_hochreiter_three"])
def test_hochreiter_s_order_at_other_lengths_keeps_its_symbols_apart(name, T):
    s = symbols_of(ALL[name].sample(np.random.default_rng(1), 500, T))
    assert ((s >= 6).sum(axis=0) == (2 if name.endswith("two") else 3)).all()  # none is overwritten
    assert ((s == 1).sum(axis=0) == 1).all()


@pytest.mark.parametrize("l", [10, 19, 50, 103])
@pytest.mark.parametrize(
    ("name", "starts"), [("temporal_order_pascanu", (0.1, 0.5)), ("temporal_order_pascanu_three", (0.1, 0.3, 0.6))]
)
def test_pascanu_s_order_has_the_windows_of_the_program(name, starts, l):  # noqa: E741 - the letter of the program
    n = 4000
    batch = ALL[name].sample(np.random.default_rng(2), n, l)
    s, rows = symbols_of(batch), np.arange(n)
    assert s.shape == (l, n)
    important, width = s < 2, int(l * 0.1)
    assert (important.sum(axis=0) == len(starts)).all()
    label = np.zeros(n, int)
    for k, start in enumerate(starts):
        low = int(l * start)
        inside = important[low : low + width]
        assert (inside.sum(axis=0) == 1).all()
        place = inside.argmax(axis=0)
        assert chi_squared(np.bincount(place, minlength=width)) <= 29.6  # 99.9 % for 10 or fewer degrees of freedom
        label += s[low + place, rows] << k
    np.testing.assert_array_equal(batch.targets, label)
    assert chi_squared(np.bincount(label, minlength=2 ** len(starts))) <= 24.3
    assert chi_squared(np.bincount(s[s >= 2])[2:]) <= 16.3


@pytest.mark.parametrize("T", [1, 2, 40])
def test_arjovsky_s_copy_reads_ten_symbols_and_answers_after_the_marker(T):
    batch = ALL["copy_arjovsky"].sample(np.random.default_rng(3), 2000, T)
    s = symbols_of(batch)
    assert s.shape == batch.targets.shape == (T + 20, 2000)
    assert ((s[:10] >= 1) & (s[:10] <= 8)).all()
    assert chi_squared(np.bincount(s[:10].ravel())[1:]) <= 24.3  # 99.9 % with 7 degrees of freedom
    assert (s[10 : T + 9] == 0).all()  # T - 1 blanks
    assert (s[T + 9] == 9).all()
    assert (s[T + 10 :] == 0).all()
    assert (batch.targets[: T + 10] == 0).all()
    np.testing.assert_array_equal(batch.targets[T + 10 :], s[:10])


@pytest.mark.parametrize("T", [1, 30])
@pytest.mark.parametrize(("name", "values", "count"), [("memorisation_pascanu", 5, 10), ("memorisation_pascanu_two", 2, 5)])
def test_pascanu_s_memorisation_answers_from_the_trigger_on(name, values, count, T):
    batch = ALL[name].sample(np.random.default_rng(4), 2000, T)
    s = symbols_of(batch)
    assert batch.inputs.shape == (T + 2 * count, 2000, values + 2)
    assert chi_squared(np.bincount(s[:count].ravel(), minlength=values)) <= 18.5  # 99.9 % with 4 degrees of freedom
    blank = np.delete(s[count:], T, axis=0)
    assert (blank == values).all()
    assert (s[T + count] == values + 1).all()
    assert (batch.targets[: T + count] == values).all()
    np.testing.assert_array_equal(batch.targets[T + count :], s[:count])


@pytest.mark.parametrize("T", [2, 30])
def test_the_permutation_ends_with_the_bit_it_began_with(T):
    batch = ALL["permutation_pascanu"].sample(np.random.default_rng(5), 4000, T)
    s = symbols_of(batch)
    assert s.shape == (T, 4000)
    np.testing.assert_array_equal(batch.targets, s[0])
    assert set(np.unique(s[0])) == {0, 1}
    assert abs(s[0].mean() - 0.5) <= 4.0 * 0.5 / np.sqrt(4000)
    assert s[1:].min() == 2
    assert s[1:].max() == 99
    assert chi_squared(np.bincount(s[1:].ravel(), minlength=100)[2:]) <= 150.0  # 99.9 % with 97: 145
