"""The one-weight chain: every number of its verdict against exact decimal powers, and the verdict both ways."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from runs import quick

from analyses import simplest_example
from gradlab.runs import WORDS

STEM = "simplest_example"
# 999 products forward and as many back, each rounded by 1.1e-16: 2.2e-13 at most, far above the digits lost in 1e-12.
ROUNDED = 1e-12


def exact(w, power):
    """w^power of the float `w` itself, 50 digits."""
    with localcontext() as context:
        context.prec = 50
        return Decimal(float(w)) ** power


def exact_slope(w):
    """d/dw (w^999 - 1)^2."""
    with localcontext() as context:
        context.prec = 50
        return 2 * (exact(w, 999) - 1) * 999 * exact(w, 998)


def exactly_lowers(start, rate):
    """Whether one gradient step from `start` lowers the loss, in exact arithmetic."""
    with localcontext() as context:
        context.prec = 80  # steps of 1e-28 change the loss in its 30th digit
        after = Decimal(float(start)) - Decimal(float(rate)) * exact_slope(start)
        return (after**999 - 1) ** 2 < (exact(start, 999) - 1) ** 2


def test_every_ground_truth_holds_and_the_claim_is_confirmed():
    verdict = simplest_example.check(quick.result(STEM))
    assert verdict.broken == ()
    assert len(verdict.ground_truths) == 9
    assert verdict.word == "confirmed"


def test_the_known_powers_are_what_the_ground_truths_expect():
    found = quick.truths(simplest_example.check(quick.result(STEM)))
    # 1.01^999 and 0.99^999 as printed in the lecture: 20751.6 and 4.36e-5, to the digits printed
    assert found["y at w = 1.01, T = 1000"].expected == pytest.approx(20751.6, abs=0.05)
    assert found["y at w = 0.99, T = 1000"].expected == pytest.approx(4.36e-5, abs=0.005e-5)
    assert found["dy/dw at w = 1, T = 1000"].expected == 999.0
    assert found["y at w = 0.01, T = 1000"].measured == 0.0


def test_output_and_gradient_of_every_weight_are_the_exact_powers():
    result = quick.result(STEM)
    assert len(result["w"]) == 101
    for w, y, dy, loss, dloss in zip(*(result[name] for name in ("w", "y", "dy", "loss", "dloss")), strict=True):
        assert y == pytest.approx(float(exact(w, 999)), rel=ROUNDED, abs=0.0)
        assert dy == pytest.approx(float(999 * exact(w, 998)), rel=ROUNDED, abs=0.0)
        # y - 1 cancels near w = 1: the error is that of y
        assert loss == pytest.approx((y - 1.0) ** 2, rel=1e-15, abs=0.0)
        assert dloss == pytest.approx(2.0 * (y - 1.0) * dy, rel=ROUNDED, abs=0.0)


def test_the_numbers_of_the_verdict_are_those_of_exact_arithmetic():
    result = quick.result(STEM)
    numbers = simplest_example.check(result).numbers
    above, below = float(exact_slope(1.01)), float(exact_slope(0.99))
    lowering = [rate for rate in result["learning_rates"] if exactly_lowers(1.01, rate)]
    for name, expected in {
        "y at 1.01": float(exact(1.01, 999)),
        "y at 0.99": float(exact(0.99, 999)),
        "dy/dw at 1.01": float(999 * exact(1.01, 998)),
        "dy/dw at 0.99": float(999 * exact(0.99, 998)),
        "dy/dw at 1": 999.0,
        "amplification of y by 2 per cent of w": float(exact(1.01, 999) / exact(0.99, 999)),
        "ratio of loss gradients": abs(above / below),
        "ideal learning rate from 1.01": (1.01 - 1.0) / above,
        "ideal learning rate from 0.99": (0.99 - 1.0) / below,
        "largest tried rate that lowers the loss from 1.01": max(lowering),
        "share of the way to w = 1 that it goes from 0.99": max(lowering) * abs(below) / 0.01,
    }.items():
        assert numbers[name] == pytest.approx(expected, rel=ROUNDED, abs=0.0), name


def test_the_count_of_rates_that_serve_both_starts_is_that_of_exact_arithmetic():
    result = quick.result(STEM)
    serve = [rate for rate in result["learning_rates"] if exactly_lowers(1.01, rate) and exactly_lowers(0.99, rate)]
    # A step too small to change the loss in its 16 digits still lowers it: rounding may not decide this number.
    assert simplest_example.check(result).numbers["tried rates that lower the loss from both starts"] == len(serve)


def test_the_ideal_rates_land_on_the_solution():
    result = quick.result(STEM)
    landed = result["starts"] - simplest_example.ideal_rates(result) * result["start_slope"]
    np.testing.assert_allclose(landed, 1.0, rtol=2.3e-16)  # one unit in the last place


def test_the_random_stream_has_no_part_in_it():
    p = {**simplest_example.PARAMETERS["quick"], "weights": [0.98, 1.02, 3], "learning_rates": [-16.0, 0.0, 2]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(simplest_example.PARAMETERS, "quick", p)
        one, two = (simplest_example.compute(np.random.default_rng(seed), "quick") for seed in (1, 2))
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("ratio", "word"), [(1.0, "contradicted"), (9.9, "contradicted"), (30.0, "inconclusive"), (101.0, "confirmed")]
)
def test_the_verdict_follows_the_ratio_of_the_two_gradients(ratio, word):
    verdict = simplest_example.check(quick.with_arrays(STEM, start_slope=[2.0 * ratio, -2.0]))
    assert verdict.word == word
    assert verdict.numbers["ratio of loss gradients"] == pytest.approx(ratio, rel=1e-15)  # one division


def test_rates_none_of_which_lowers_the_loss_still_give_a_verdict():
    result = quick.result(STEM)
    result["loss_after"] = np.broadcast_to(2.0 * result["loss_before"][:, None], result["loss_after"].shape)
    verdict = simplest_example.check(result)
    assert verdict.word in WORDS
    assert verdict.numbers["tried rates that lower the loss from both starts"] == 0


@pytest.mark.parametrize("name", ["example_y", "example_dy"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_value_wrong_by_a_hundred_millionth_breaks_its_ground_truth_and_no_other(name, place):
    result = quick.result(STEM)
    result[name][place] *= 1.0 + 1e-8  # ten times the tolerance
    (truth,) = simplest_example.check(result).broken
    weight = ("1.01", "1", "0.99")[place]
    assert truth.name == f"{'y' if name == 'example_y' else 'dy/dw'} at w = {weight}, T = 1000"


@pytest.mark.parametrize("value", [5e-324, np.nan, np.inf])
def test_anything_but_zero_at_one_hundredth_breaks_its_ground_truth(value):
    result = quick.result(STEM)
    result["example_y"][3] = value
    assert [truth.name for truth in simplest_example.check(result).broken] == ["y at w = 0.01, T = 1000"]


def test_the_full_run_differs_from_the_quick_one_in_its_grids_alone():
    full, small = simplest_example.PARAMETERS["full"], simplest_example.PARAMETERS["quick"]
    assert {key for key in full if full[key] != small[key]} == {"weights", "learning_rates"}
    assert full["weights"][:2] == small["weights"][:2]
    assert full["learning_rates"][:2] == small["learning_rates"][:2]
