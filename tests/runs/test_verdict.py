"""A ground truth holds only where the measured number is within its tolerance; a verdict uses the five words."""

import dataclasses

import numpy as np
import pytest

from gradlab.errors import ValueRangeError
from gradlab.runs import WORDS, GroundTruth, Verdict

INF, NAN = float("inf"), float("nan")


def truth(measured, expected, tolerance):
    return GroundTruth("g", measured, expected, tolerance, "by hand")


@pytest.mark.parametrize(
    ("measured", "expected", "tolerance"),
    [
        (8.5, 8.0, 0.0625),  # binary fractions: 0.5 <= 0.0625 x 8 exactly, so this is the boundary itself
        (7.5, 8.0, 0.0625),
        (-8.5, -8.0, 0.0625),
        (-7.5, -8.0, 0.0625),
        (8.0, 8.0, 0.0),
        (5e-324, 5e-324, 0.0),
        (0.0, 0.0, 0.0),
        (-0.0, 0.0, 1e-9),
    ],
)
def test_a_ground_truth_holds_up_to_and_on_its_boundary(measured, expected, tolerance):
    assert truth(measured, expected, tolerance).holds is True


@pytest.mark.parametrize(
    ("measured", "expected", "tolerance"),
    [
        (np.nextafter(8.5, 9.0), 8.0, 0.0625),
        (np.nextafter(7.5, 7.0), 8.0, 0.0625),
        (np.nextafter(-8.5, -9.0), -8.0, 0.0625),
        (-8.0, 8.0, 0.0625),  # the sign counts
        (np.nextafter(8.0, 9.0), 8.0, 0.0),
    ],
)
def test_a_ground_truth_fails_one_float_past_its_boundary(measured, expected, tolerance):
    assert truth(measured, expected, tolerance).holds is False


@pytest.mark.parametrize("tolerance", [0.0, 1e-9, 0.5, 10.0])
@pytest.mark.parametrize("measured", [5e-324, -1e-300, 1e-16, 1.0])
def test_where_zero_is_expected_only_zero_holds_whatever_the_tolerance(measured, tolerance):
    assert truth(measured, 0.0, tolerance).holds is False


@pytest.mark.parametrize("expected", [1.0, 0.0, NAN, INF, -INF])
@pytest.mark.parametrize("measured", [NAN, INF, -INF])
def test_a_measured_number_that_is_not_finite_never_holds(measured, expected):
    assert truth(measured, expected, 1e-6).holds is False


@pytest.mark.parametrize("tolerance", [0.0, 1e-6, 1.0])
@pytest.mark.parametrize("expected", [NAN, INF, -INF])
def test_no_finite_number_holds_against_an_expected_one_that_is_not(expected, tolerance):
    assert truth(1.0, expected, tolerance).holds is False


def test_a_tolerance_that_is_not_a_number_never_holds():
    assert truth(1.0, 1.0, NAN).holds is False


def test_numpy_numbers_are_judged_as_python_ones():
    assert truth(np.float64(8.5), 8.0, 0.0625).holds is True
    assert truth(np.float32(8.6), 8.0, 0.0625).holds is False


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_the_list_is_accepted(word):
    assert Verdict(word, "so it is", {}).word == word


def test_there_are_five_words_and_no_sixth():
    assert set(WORDS) == {"confirmed", "contradicted", "depends", "inconclusive", "not testable"}


@pytest.mark.parametrize("word", ["Confirmed", "confirmed ", "true", "", "not_testable", "proved", None])
def test_any_other_word_is_refused_with_the_word_and_the_list(word):
    with pytest.raises(ValueRangeError) as error:
        Verdict(word, "so it is", {})
    assert repr(word) in str(error.value)
    assert all(known in str(error.value) for known in WORDS)


def test_broken_lists_exactly_the_ground_truths_that_fail_in_order():
    good, low, nan = truth(1.0, 1.0, 0.0), truth(0.9, 1.0, 0.01), truth(NAN, 1.0, 0.5)
    assert Verdict("confirmed", "", {}, (low, good, nan)).broken == (low, nan)
    assert Verdict("confirmed", "", {}, (good,)).broken == ()
    assert Verdict("confirmed", "", {}).broken == ()


def test_a_verdict_cannot_be_changed_afterwards():
    verdict = Verdict("depends", "on the seed", {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict.word = "confirmed"
