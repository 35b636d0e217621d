"""The figure of curvature: its ground truths, and its verdict every way."""

import numpy as np
import pytest
from runs import quick

from analyses import curvature

STEM = "curvature"


def with_ratio(result, ratio):
    """The result with the sharpness at `ratio` times 2/rate throughout."""
    for name in curvature.CELLS:
        result[f"{name} sharpness"][...] = (ratio * 2.0 / result["rates"])[None, :, None]
    return result


def test_every_ground_truth_holds():
    assert not curvature.check(quick.result(STEM)).broken


@pytest.mark.parametrize(("ratio", "word"), [(1.0, "confirmed"), (0.1, "contradicted"), (5.0, "contradicted")])
def test_the_verdict_follows_where_the_sharpness_settles(ratio, word):
    assert curvature.check(with_ratio(quick.result(STEM), ratio)).word == word


def test_a_claim_that_holds_for_one_cell_alone_depends():
    result = with_ratio(quick.result(STEM), 1.0)
    result["lstm sharpness"] *= 0.1
    assert curvature.check(result).word == "depends"


def test_settled_is_the_median_of_the_last_third():
    result = with_ratio(quick.result(STEM), 1.0)
    looks = result["elman sharpness"].shape[-1]
    result["elman sharpness"][..., : looks - looks // 3] = 1e6  # what came before does not count
    # The product with rate/2 and its inverse: one rounding each.
    assert curvature.settled(result, "elman") == pytest.approx(1.0, rel=1e-15)


def test_a_hessian_before_training_is_indefinite_and_descent_removes_the_negative_end():
    result = quick.result(STEM)
    ends = result["elman ends"]  # (seeds, before and after, smallest and largest)
    assert (ends[:, 0, 0] < -0.1).all()
    assert (np.abs(ends[:, 1, 0]) < np.abs(ends[:, 0, 0])).all()
