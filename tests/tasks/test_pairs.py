"""Adding and multiplication: where the markers stand, and what the target says, recomputed from the inputs alone."""

from fractions import Fraction

import numpy as np
import pytest

from gradlab.tasks import ALL, hochreiter_pairs

LENGTHS = [11, 20, 21, 57, 100]


def ends(batch):
    steps, rows = batch.inputs.shape[:2]
    return np.full(rows, steps) if batch.lengths is None else batch.lengths


def chi_squared(counts):
    expected = counts.sum() / counts.size
    return ((counts - expected) ** 2 / expected).sum()


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize(("name", "low"), [("adding_hochreiter", -1.0), ("multiplication_hochreiter", 0.0)])
def test_hochreiter_s_target_is_a_function_of_the_pairs_with_marker_1(name, low, T):
    batch = ALL[name].sample(np.random.default_rng(T), 3000, T)
    values, markers, rows = batch.inputs[..., 0], batch.inputs[..., 1], np.arange(3000)
    marked = markers == 1.0
    if name.startswith("adding"):
        expected = 0.5 + np.where(marked, values, 0.0).sum(axis=0) / 4.0
        assert batch.targets.min() >= 0.0
        assert batch.targets.max() <= 1.0
    else:
        expected = np.where(marked, values, 1.0).prod(axis=0)
    np.testing.assert_allclose(batch.targets[:, 0], expected, rtol=1e-15)  # one rounding, in another order
    # Markers: -1 exactly at the first and the last pair, two or (one hidden by the first pair) one 1, 0 elsewhere.
    assert set(np.unique(markers)) == {-1.0, 0.0, 1.0}
    assert (markers[0] == -1.0).all()
    assert (markers[ends(batch) - 1, rows] == -1.0).all()
    assert ((markers == -1.0).sum(axis=0) == 2).all()
    assert set(np.unique(marked.sum(axis=0))) == {1, 2}
    # Values are U[low, 1] up to the end of a row, and nothing stands behind it.
    live = np.arange(len(values))[:, None] < ends(batch)
    assert not batch.inputs[~live].any()
    inside = values[live]
    assert inside.min() >= low
    assert inside.max() <= 1.0
    assert abs(inside.mean() - (1.0 + low) / 2.0) <= 4.0 * (1.0 - low) / np.sqrt(12.0 * inside.size)  # standard deviations


@pytest.mark.parametrize("T", LENGTHS)
def test_hochreiter_s_lengths_are_uniform_from_t_to_a_tenth_more(T):
    lengths = ALL["adding_hochreiter"].sample(np.random.default_rng(1), 20_000, T).lengths
    counts = np.bincount(lengths)[T:]
    assert lengths.min() == T
    assert lengths.max() == T + T // 10
    assert chi_squared(counts) <= 2.0 * counts.size + 20.0  # beyond 99.9 % of chi squared for 1 to 10 degrees of freedom


@pytest.mark.parametrize("T", [11, 24, 60])
def test_hochreiter_s_marks_follow_the_law_of_the_paper_pair_by_pair(T):
    n = 40_000
    batch = ALL["adding_hochreiter"].sample(np.random.default_rng(2), n, T)
    # The law by enumeration: X1 among ten, X2 among the first T/2 - 1 that are left.
    law = {}
    for first in range(10):
        left = [k for k in range(T) if k != first][: T // 2 - 1]
        for second in left:
            seen = frozenset({first, second} - {0})
            law[seen] = law.get(seen, 0) + Fraction(1, 10 * len(left))
    assert sum(law.values()) == 1
    hidden = sum(p for seen, p in law.items() if len(seen) == 1)
    assert abs(hochreiter_pairs.hidden_mark_probability(T) - float(hidden)) <= 1e-15
    found = {}
    for row in (batch.inputs[..., 1] == 1.0).T:
        seen = frozenset(np.flatnonzero(row).tolist())
        found[seen] = found.get(seen, 0) + 1
    assert set(found) <= set(law)
    statistic = sum((found.get(seen, 0) - n * float(p)) ** 2 / (n * float(p)) for seen, p in law.items())
    freedom = len(law) - 1
    assert abs(statistic - freedom) <= 5.0 * np.sqrt(2.0 * freedom)  # mean and standard deviation of chi squared


def test_hochreiter_s_baselines_at_a_hidden_mark_in_ten_are_the_known_ones():
    assert abs(hochreiter_pairs.adding_baseline(0.1) - 19.0 / 480.0) <= 1e-17
    assert hochreiter_pairs.adding_baseline(0.0) == 1.0 / 24.0
    assert abs(hochreiter_pairs.multiplication_baseline(0.1) - 0.057708) <= 5e-7  # six printed digits
    assert abs(hochreiter_pairs.multiplication_baseline(0.0) - 7.0 / 144.0) <= 1e-17
    # A long sequence has the probability 1/10; at T = 100 it is 1/10 + 9/490.
    assert abs(hochreiter_pairs.hidden_mark_probability(10**9) - 0.1) <= 1e-8
    assert abs(ALL["adding_hochreiter"].baseline(100) - (2 - 0.1 - 9 / 490) / 48) <= 1e-17


@pytest.mark.parametrize("T", [10, 25, 99, 200])
@pytest.mark.parametrize("name", ["adding_pascanu", "multiplication_pascanu"])
def test_pascanu_s_markers_stand_in_their_tenths_and_the_target_follows(name, T):
    seen = set()
    for seed in range(15):
        batch = ALL[name].sample(np.random.default_rng(seed), 400, T)
        values, markers = batch.inputs[..., 0], batch.inputs[..., 1]
        l = len(values)  # noqa: E741 - the letter of the program
        seen.add(l)
        assert T <= l <= T + max(int(T * 0.1) - 1, 0)
        assert (markers.sum(axis=0) == 2.0).all()
        assert (markers[: int(l * 0.1)].sum(axis=0) == 1.0).all()
        assert (markers[int(l * 0.1) : int(l * 0.1) + int(l * 0.4)].sum(axis=0) == 1.0).all()
        marked = np.where(markers == 1.0, values, np.nan)
        expected = np.nanmean(marked, axis=0) if name == "adding_pascanu" else np.nanprod(marked, axis=0)
        np.testing.assert_allclose(batch.targets[:, 0], expected, rtol=1e-15)
        assert batch.lengths is None
    assert T < 25 or len(seen) > 1
    assert T < 200 or chi_squared(np.bincount(np.argmax(markers, axis=0), minlength=l // 10)) <= 60.0  # 99.9 % for 20 or fewer


def test_integer_tenths_are_those_of_the_program_s_floating_point():
    # int(l*.1) and its like in floats agree with integer division for every length that anyone runs.
    for tenths in (0.1, 0.3, 0.4, 0.5, 0.6):
        k = round(10 * tenths)
        assert all(int(n * tenths) == k * n // 10 for n in range(1, 50_000))


@pytest.mark.parametrize("T", [2, 3, 10, 31])
def test_arjovsky_s_markers_stand_one_in_each_half(T):
    batch = ALL["adding_arjovsky"].sample(np.random.default_rng(3), 5000, T)
    values, markers = batch.inputs[..., 0], batch.inputs[..., 1]
    half = T // 2
    assert (markers[:half].sum(axis=0) == 1.0).all()
    assert (markers[half : 2 * half].sum(axis=0) == 1.0).all()
    assert (markers.sum(axis=0) == 2.0).all()
    np.testing.assert_allclose(batch.targets[:, 0], (values * markers).sum(axis=0), rtol=1e-15)
    counts = markers.sum(axis=1)[: 2 * half]
    for part in (counts[:half], counts[half:]):
        assert chi_squared(part) <= 40.0  # 99.9 % for 15 or fewer degrees of freedom
