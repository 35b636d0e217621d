"""The cliff: surface, wall and gradient against the printed recursion in decimals, descent against its own rule."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from runs import quick

from analyses import error_surface
from gradlab.runs import Options
from gradlab.runs.runner import generator

STEM = "error_surface"
RATES = error_surface.PARAMETERS["quick"]["learning_rates"]
CLIP = error_surface.PARAMETERS["quick"]["clip_norm"]
DIGITS = 45


def sig(x):
    return 1 / (1 + (-x).exp())


def exact_error(w, b, steps=50):
    """E of the recursion as printed, x_t = w sig(x_{t-1}) + b, x_0 = 0.5, E = (sig(x_50) - 0.7)^2."""
    x = Decimal("0.5")
    for _ in range(steps):
        x = w * sig(x) + b
    return (sig(x) - Decimal("0.7")) ** 2


def exact(w, b):
    """E, dE/dw, dE/db at the floats w, b: the derivatives by central differences of 1e-15 in 45 digits."""
    with localcontext() as context:
        context.prec = DIGITS
        w, b, h = Decimal(float(w)), Decimal(float(b)), Decimal("1e-15")
        dw = (exact_error(w + h, b) - exact_error(w - h, b)) / (2 * h)
        db = (exact_error(w, b + h) - exact_error(w, b - h)) / (2 * h)
        return float(exact_error(w, b)), float(dw), float(db)


def plain(w, b):
    """E, dE/dw, dE/db by a loop over Python floats, x and its two tangents."""
    x, dw, db = 0.5, 0.0, 0.0
    for _ in range(50):
        s = 1.0 / (1.0 + math.exp(-x))
        slope = w * s * (1.0 - s)
        x, dw, db = w * s + b, s + slope * dw, 1.0 + slope * db
    s = 1.0 / (1.0 + math.exp(-x))
    outer = 2.0 * (s - 0.7) * s * (1.0 - s)
    return (s - 0.7) ** 2, outer * dw, outer * db


def wall_at(w):
    return 0.5 - w / (1.0 + math.exp(-0.5))


def check(**arrays):
    return error_surface.check(quick.with_arrays(STEM, **arrays))


# ---- the surface ------------------------------------------------------------------------------------------


def test_every_ground_truth_holds():
    verdict = error_surface.check(quick.result(STEM))
    assert verdict.broken == ()
    assert len(verdict.ground_truths) == 6


def test_error_and_gradient_at_random_grid_points_are_those_of_the_printed_recursion():
    result = quick.result(STEM)
    rng = np.random.default_rng(3)
    for _ in range(25):
        row, col = rng.integers(len(result["b"])), rng.integers(len(result["w"]))
        E, dw, db = exact(result["w"][col], result["b"][row])
        norm = math.hypot(dw, db)
        # A rounding in any of the 50 steps (1.1e-16 of |x| <= 8) acts like a shift of b, which E answers with its slope.
        assert result["E"][row, col] == pytest.approx(E, rel=1e-14, abs=50 * 8 * 1.1e-16 * norm)
        # the second derivative does the same to the slope, and is at most 1e4 times the slope away from the wall
        assert result["gradient_norm"][row, col] == pytest.approx(norm, rel=1e-9, abs=0.0)


def test_the_gradient_is_that_of_a_plain_loop_and_of_central_differences():
    w, b = np.array([4.1, 4.6, 5.0, 5.0, 5.7, 6.8]), np.array([-3.9, -2.3, -2.62, -2.60, -3.0, -1.6])
    E, dw, db = error_surface.surface(w, b)
    h = 1e-6
    for k in range(len(w)):
        np.testing.assert_allclose((E[k], dw[k], db[k]), plain(w[k], b[k]), rtol=1e-10)  # as above
        np.testing.assert_allclose((E[k], dw[k], db[k]), exact(w[k], b[k]), rtol=1e-10)
        rounding = 1.1e-16 / h  # of E <= 0.5, and h^2 E''' / 6 below it at these points, 0.01 from the wall
        np.testing.assert_allclose(
            dw[k], (plain(w[k] + h, b[k])[0] - plain(w[k] - h, b[k])[0]) / (2 * h), rtol=1e-5, atol=rounding
        )
        np.testing.assert_allclose(
            db[k], (plain(w[k], b[k] + h)[0] - plain(w[k], b[k] - h)[0]) / (2 * h), rtol=1e-5, atol=rounding
        )


def test_the_gradient_on_the_wall_has_the_two_known_components():
    result = quick.result(STEM)
    b = wall_at(5.0)
    assert error_surface.predicted_wall(np.array(5.0)) == b
    # 1e-6: the wall is known to 4e-16 in b, and an error of 1e-9 there shifts the gradient by 8.5e-5
    np.testing.assert_allclose(np.abs(result["on_wall"][1:]), [411.870634, 661.682801], rtol=1e-6)
    np.testing.assert_allclose(result["on_wall"], exact(5.0, b), rtol=1e-6)
    numbers = error_surface.check(result).numbers
    assert numbers["dE/dw on the wall"] == result["on_wall"][1]
    assert numbers["dE/db on the wall"] == result["on_wall"][2]


def test_the_error_jumps_across_the_wall():
    E, _, _ = error_surface.surface(np.array([5.0, 5.0]), wall_at(5.0) + np.array([-1e-3, 1e-3]))
    np.testing.assert_allclose(E, [0.341649, 0.010047], atol=1e-6, rtol=0.0)  # as printed, six decimals


def test_the_bisected_wall_is_where_the_start_is_the_unstable_fixed_point():
    result = quick.result(STEM)
    predicted = np.array([wall_at(w) for w in result["wall_w"]])
    # x_50 moves by more than 50 times a shift of b, so its sign is right to a few units in the last place of b < 4
    rounding = 4e-15
    np.testing.assert_allclose(result["wall_b"], predicted, atol=rounding, rtol=0.0)
    assert error_surface.check(result).numbers["largest gap between bisected and predicted wall"] <= rounding
    assert (result["wall_w"] > 4.2553).all()  # 1/sig'(0.5): below it there is no wall


def test_the_largest_gradient_beside_the_wall_is_the_known_one_at_the_known_place():
    result = quick.result(STEM)
    place = int(result["beside_norm"].argmax())
    assert result["beside_norm"][place] == pytest.approx(6773.13, rel=1e-5)  # as printed
    assert result["beside_offset"][place] == pytest.approx(-4.47e-5, abs=5e-8)  # one step of the scan
    _, dw, db = exact(5.0, wall_at(5.0) + result["beside_offset"][place])
    assert result["beside_norm"][place] == pytest.approx(math.hypot(dw, db), rel=1e-6)
    assert abs(db) == pytest.approx(5751.10, rel=1e-5)  # as printed


# ---- the descent ------------------------------------------------------------------------------------------


def test_the_runs_start_above_the_wall_where_the_seed_says():
    p = error_surface.PARAMETERS["quick"]
    result, rng = quick.result(STEM), generator(Options.seed, STEM)
    w = rng.uniform(4.6, 6.5, p["starts"])
    above = rng.uniform(0.05, 0.6, p["starts"])
    b = np.array([wall_at(x) for x in w]) + above
    # The example shown is one of these runs, the same without and with clipping.
    for name, starts in (("path_w", w), ("path_b", b)):
        assert result[name][0, 0] == result[name][1, 0]
        assert np.abs(starts - result[name][0, 0]).min() <= 1e-15  # a rounding of b


def test_no_clipped_step_is_longer_than_rate_times_threshold():
    result = quick.result(STEM)
    rounding = 2e-15  # of w and b themselves, which are below 8
    for k, rate in enumerate(RATES):
        assert result["largest_jump"][k, 1].max() <= rate * CLIP + rounding
    steps = np.hypot(np.diff(result["path_w"][1]), np.diff(result["path_b"][1]))
    assert steps.max() <= RATES[int(result["shown"])] * CLIP + rounding
    assert result["largest_jump"][:, 0].max() > 1.0  # else clipping had nothing to do


def test_each_step_is_rate_times_the_gradient_clipped_by_its_norm():
    result = quick.result(STEM)
    rate = RATES[int(result["shown"])]
    for k, clip in enumerate((math.inf, CLIP)):
        w, b = result["path_w"][k], result["path_b"][k]
        for t in range(40):
            E, dw, db = plain(w[t], b[t])
            scale = rate * min(1.0, clip / math.hypot(dw, db))
            # 1e-6: beside the wall the gradient itself changes by 1e-10 of its size with the last digit of b
            np.testing.assert_allclose(w[t + 1] - w[t], -scale * dw, rtol=1e-6, atol=2e-15)
            np.testing.assert_allclose(b[t + 1] - b[t], -scale * db, rtol=1e-6, atol=2e-15)
            np.testing.assert_allclose(result["path_E"][k][t], E, rtol=1e-6)


def test_the_shares_of_the_verdict_are_counts_of_runs():
    result = quick.result(STEM)
    numbers = error_surface.check(result).numbers
    runs = range(result["final_loss"].shape[-1])
    for i, rate in enumerate(RATES):
        for j, how in enumerate(("no clipping", "clipping")):
            solved = sum(result["final_loss"][i, j, run] < 1e-3 for run in runs) / len(runs)
            thrown = sum(result["largest_jump"][i, j, run] > 1.0 for run in runs) / len(runs)
            assert numbers[f"share at the minimum, rate {rate:g}, {how}"] == pytest.approx(solved, rel=1e-15)
            assert numbers[f"share thrown off, rate {rate:g}, {how}"] == pytest.approx(thrown, rel=1e-15)
    assert numbers["median gradient norm on the grid"] == np.median(result["gradient_norm"])
    assert numbers["non-finite cells of the grid"] == 0


def test_no_run_is_counted_as_thrown_off_whose_steps_are_clipped_at_that_length():
    """At rate 1 a step clipped at norm 1 has length 1, up to rounding; "thrown off" means a step of more than 1."""
    w = np.linspace(4.6, 6.5, 40)
    path_w, path_b, loss = error_surface.descend(w, error_surface.predicted_wall(w) + 0.05, 1.0, 1.0, 60, lambda done: None)
    jump = np.hypot(np.diff(path_w, axis=0), np.diff(path_b, axis=0)).max(axis=0)
    assert jump.max() <= 1.0 + 2e-15
    jumps = np.stack([np.stack([jump + 1.0, jump])])
    losses = np.stack([np.stack([loss[-1], loss[-1]])])
    verdict = check(learning_rates=[1.0], largest_jump=jumps, final_loss=losses, shown=0)
    assert verdict.numbers["share thrown off, rate 1, clipping"] == 0.0


# ---- the verdict ------------------------------------------------------------------------------------------

MISSED, REACHED = 0.5, 1e-4


def losses(*solved):
    """Final losses of ten runs at each rate, of which (unclipped, clipped) reach the minimum."""
    return np.array([[[REACHED] * n + [MISSED] * (10 - n) for n in pair] for pair in solved])


@pytest.mark.parametrize(
    ("solved", "word"),
    [
        (((3, 8), (5, 5), (2, 4)), "confirmed"),
        (((3, 8), (3, 9), (2, 4)), "confirmed"),
        (((5, 5), (5, 5), (5, 5)), "contradicted"),
        (((8, 3), (5, 5), (5, 5)), "contradicted"),
        (((0, 0), (0, 0), (0, 0)), "contradicted"),
        (((8, 3), (3, 8), (5, 5)), "depends"),
    ],
)
def test_the_verdict_follows_the_runs_that_reach_the_minimum(solved, word):
    verdict = check(final_loss=losses(*solved))
    assert verdict.word == word
    better, worse = sum(c > n for n, c in solved), sum(c < n for n, c in solved)
    assert f"clipping is better at {better} of 3 rates, worse at {worse}" in verdict.sentence


def test_a_loss_that_is_not_a_number_is_not_at_the_minimum():
    wrecked = losses((5, 5), (5, 5), (5, 5))
    wrecked[:, 1] = np.nan
    assert check(final_loss=wrecked).word == "contradicted"


def test_the_seed_used_here_confirms_and_says_by_how_much():
    verdict = error_surface.check(quick.result(STEM))
    assert verdict.word == "confirmed"
    assert "at rate 0.1" in verdict.sentence


@pytest.mark.parametrize("value", [1.0 + 1e-5, np.nan])
@pytest.mark.parametrize(("place", "name"), [(0, "E on the wall"), (1, "|dE/dw| on the wall"), (2, "|dE/db| on the wall")])
def test_a_value_on_the_wall_wrong_by_a_hundred_thousandth_breaks_its_ground_truth(place, name, value):
    on_wall = quick.result(STEM)["on_wall"]
    on_wall[place] *= value
    assert [truth.name for truth in check(on_wall=on_wall).broken] == [f"{name}, w = 5"]


def test_a_wall_that_is_off_by_a_hundred_millionth_breaks_its_ground_truth():
    wall = quick.result(STEM)["wall_b"]
    wall[7] += 1e-8
    (truth,) = check(wall_b=wall).broken
    assert truth.name == "1 + largest gap between bisected and predicted wall"
    wall[7] = np.nan
    assert len(check(wall_b=wall).broken) == 1


@pytest.mark.parametrize("factor", [1.002, 0.998, np.nan])
def test_another_largest_gradient_breaks_its_ground_truth(factor):
    (truth,) = check(beside_norm=quick.result(STEM)["beside_norm"] * factor).broken
    assert truth.name == "largest gradient beside the wall, w = 5"
