"""The figure of spectra: its ground truths, and its verdict every way."""

import numpy as np
import pytest
from runs import quick

from analyses import spectra

STEM = "spectra"


def test_every_ground_truth_holds_and_the_radius_alone_does_not_decide():
    verdict = spectra.check(quick.result(STEM))
    assert not verdict.broken
    assert verdict.word == "contradicted"
    assert verdict.numbers["feed-forward chain: |U^t| at that lag, median"] > 10.0
    assert verdict.numbers["orthogonal: |U^t| at that lag, median"] < 1.0


def test_nets_that_all_shrink_confirm_the_claim():
    result = quick.result(STEM)
    result["feed-forward chain powers"] = result["orthogonal powers"].copy()
    assert spectra.check(result).word == "confirmed"


def test_growth_in_some_seeds_alone_is_no_growth():
    result = quick.result(STEM)
    result["feed-forward chain powers"][:, 0] = result["orthogonal powers"][:, 0]
    assert spectra.check(result).word == "confirmed"


def test_a_normal_net_that_grows_too_leaves_it_open():
    result = quick.result(STEM)
    result["orthogonal powers"] += 100.0
    assert spectra.check(result).word == "inconclusive"


@pytest.mark.parametrize("kind", spectra.KINDS)
def test_matrices_have_the_radius_asked_for(kind):
    drawn = spectra.of_radius(np.random.default_rng(0), kind, 32, 0.9)
    # Rounding perturbs a chain of n equal eigenvalues by about its coupling times eps^(1/n): 0.25 * 2e-16^(1/10) = 0.007.
    tolerance = 0.01 if kind == "feed-forward chain" else 1e-12
    assert np.abs(np.linalg.eigvals(drawn)).max() == pytest.approx(0.9, rel=tolerance)
