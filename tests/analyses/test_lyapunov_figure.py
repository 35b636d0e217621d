"""The figure of Lyapunov exponents: its ground truths, and its verdict every way."""

import numpy as np
import pytest
from runs import quick

from analyses import lyapunov

STEM = "lyapunov"


def test_every_ground_truth_holds_and_the_hidden_state_alone_misleads():
    verdict = lyapunov.check(quick.result(STEM))
    assert not verdict.broken
    assert verdict.word == "confirmed"
    assert verdict.numbers["share of nets whose two exponents agree within 3 standard errors"] == 0.0


def test_exponents_that_agree_contradict_the_claim():
    result = quick.result(STEM)
    result["shortcut"] = result["full"].copy()
    assert lyapunov.check(result).word == "contradicted"


def test_a_gap_that_changes_its_sign_with_the_setting_depends():
    result = quick.result(STEM)
    result["shortcut"][0] = result["full"][0] + 1.0
    assert lyapunov.check(result).word == "depends"


def test_without_a_cell_state_of_its_own_the_shortcut_is_the_full_jacobian():
    # With the forget gate shut, c_t does not depend on c_{t-1}: the exponent of (c, h) is that of h with c_t following h_{t-1}.
    p = {**lyapunov.PARAMETERS["quick"], "settings": [[-40.0, 1.0]]}
    found = lyapunov.full_and_shortcut(np.random.default_rng(0), p)
    # The two start from different random tangents: over 175 steps a difference of a few nats at the start is 0.02 a step.
    assert (found["full"] < -0.5).all()
    gap = found["full"] - found["shortcut"]
    assert gap == pytest.approx(np.zeros_like(gap), abs=0.02)


def test_exponents_are_followed_through_training_at_the_updates_named():
    result = quick.result(STEM)
    p = lyapunov.PARAMETERS["quick"]
    assert list(result["updates"]) == list(range(0, p["updates"] + 1, p["every"]))
    for cell in lyapunov.CELLS:
        assert result[f"{cell} exponents"].shape == (len(result["updates"]), p["seeds"])
        assert np.isfinite(result[f"{cell} exponents"]).all()
