"""The bounds figure: its verdict both ways, and its numbers against nets whose answer is known."""

import numpy as np
import pytest
from runs import quick

from analyses import bounds

STEM = "bounds"


def test_the_claim_is_confirmed_without_one_violation():
    verdict = bounds.check(quick.result(STEM))
    assert verdict.word == "confirmed"
    assert not verdict.broken
    for name in bounds.ACTIVATIONS:
        assert verdict.numbers[f"{name}: products that grow below the limit"] == 0
        assert verdict.numbers[f"{name}: nets with n max|w| gamma < 1"] > 0  # the condition of 1997 was really tried
        assert 0.0 < verdict.numbers[f"{name}: share of them that vanish all the same"] < 1.0


@pytest.mark.parametrize("what", ["norm", "entry"])
def test_one_product_above_its_bound_contradicts_the_claim(what):
    result = quick.result(STEM)
    values, bound = result[f"tanh {what}"], result["tanh entry bound"]
    worst = (1.0 + result["tanh rate"] if what == "norm" else bound[0] + 1e-6)[0, 0, 0]
    values[0, 0, 0, 0] = worst
    assert bounds.check(result).word == "contradicted"


def test_if_every_net_above_the_limit_explodes_it_is_sufficient_and_the_claim_contradicted():
    result = quick.result(STEM)
    for name in bounds.ACTIVATIONS:
        over = result[f"{name} rate"] > 0.0
        result[f"{name} norm"][-1][over] = 8.0  # beyond a thousandfold, below every bound
    result["tanh rate"] += 10.0
    result["sigmoid rate"] += 10.0
    for name in bounds.ACTIVATIONS:
        result[f"{name} norm"][-1] = 8.0
    assert bounds.check(result).word == "contradicted"


def test_matrices_have_a_largest_singular_value_of_one():
    for kind in bounds.KINDS:
        drawn = bounds.matrices(np.random.default_rng(0), kind, 3, 7)
        # A norm of 7 x 7 numbers of size 1: some units in the last place.
        assert np.linalg.norm(drawn, 2, axis=(-2, -1)) == pytest.approx(np.ones(3), rel=1e-14)


def test_shares_count_nets_by_scale():
    result = quick.with_arrays(STEM)
    result["tanh norm"][-1] = 0.0
    result["tanh norm"][-1, 0] = -100.0
    result["tanh norm"][-1, 1] = 100.0
    vanished, exploded = bounds.shares(result, "tanh")
    assert vanished[0] == 1.0
    assert vanished[1:].sum() == 0.0
    assert exploded[1] == 1.0
    assert exploded.sum() == 1.0
