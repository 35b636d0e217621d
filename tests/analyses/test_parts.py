"""Claims of several parts, and paired differences: every reading from numbers that are known."""

import numpy as np
import pytest
from scipy import stats

from analyses import _parts
from analyses._parts import Difference, Part


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (("confirmed", "confirmed"), "confirmed"),
        (("confirmed", "inconclusive"), "inconclusive"),
        (("inconclusive", "depends"), "depends"),
        (("confirmed", "contradicted", "depends"), "contradicted"),
    ],
)
def test_a_claim_holds_only_if_all_its_parts_do(words, whole):
    parts = [Part(f"part {k}", word, "") for k, word in enumerate(words)]
    assert _parts.whole(parts) == whole
    assert list(_parts.words(parts).values()) == list(words)


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "reading"),
    [
        (-0.05, 0.05, 1, 1, "level"),
        (0.01, 0.04, 0, 0, "level"),  # not 0, and still within the margin
        (0.0, 0.06, 6, 0, "higher"),  # equal pairs reach into the interval, not into the test: 2/64
        (-0.06, -0.01, 0, 7, "lower"),
        (-0.06, 0.0, 0, 5, "undecided"),  # 2/32
        (-np.inf, np.inf, 0, 0, "undecided"),
    ],
)
def test_an_interval_is_read_against_the_margin_first(low, high, above, below, reading):
    assert Difference(0.0, low, high, above, below).reading == reading


@pytest.mark.parametrize(("above", "below", "equal"), [(7, 0, 2), (0, 7, 2), (6, 1, 0), (3, 3, 3), (0, 0, 9), (4, 5, 0)])
def test_p_is_that_of_the_binomial_test_without_pairs_within_the_margin(above, below, equal):
    found = _parts.difference(np.repeat([0.06, -0.06, 0.04], [above, below, equal]), np.zeros(above + below + equal))
    theirs = stats.binomtest(above, above + below).pvalue if above + below else 1.0
    assert found.p == pytest.approx(theirs, rel=1e-12)
    assert (found.above, found.below) == (above, below)


def test_the_interval_of_nine_seeds_leaves_out_the_extreme_one_on_each_side():
    # P(Binomial(9, 1/2) < 2) = 10/512 = 0.0195 <= 0.025, P(... < 3) = 46/512: order statistics 2 and 8.
    found = _parts.difference(np.arange(9.0)[::-1] - 3.0, np.zeros(9))
    assert (found.low, found.median, found.high) == (-2.0, 1.0, 4.0)


def test_differences_are_paired_seed_by_seed():
    one, other = np.arange(6.0), np.arange(6.0) - 0.25
    found = _parts.difference(one, other)
    assert (found.low, found.median, found.high) == (0.25, 0.25, 0.25)


def test_fewer_than_six_seeds_decide_nothing():
    # Six are on one side by chance with probability 2/64 = 0.03, five with 2/32 = 0.06.
    assert _parts.difference(np.ones(5), np.zeros(5)).reading == "undecided"
    assert _parts.difference(np.ones(6), np.zeros(6)).reading == "higher"
