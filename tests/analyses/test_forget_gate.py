"""The forget gate: exact paths, and every word of the verdict from numbers that are known."""

import math

import numpy as np
import pytest
from runs import quick

import gradlab
from analyses import _forget_gate_paths as paths
from analyses import _forget_gate_verdict as verdict
from analyses import forget_gate

STEM = "forget_gate"


def test_every_ground_truth_holds_and_vanishing_depends_on_the_bias():
    found = forget_gate.check(quick.result(STEM))
    assert not found.broken
    assert found.numbers["word for: an open forget gate keeps"] == "confirmed"
    assert found.numbers["word for: an LSTM cures vanishing gradients"] == "depends"
    assert found.numbers["word for: an LSTM does not cure exploding gradients"] == "confirmed"
    assert found.word in ("depends", "contradicted")
    assert all(math.isfinite(value) for value in found.numbers.values() if isinstance(value, float))


def test_time_constants_of_random_nets_are_near_those_of_the_bias_alone():
    numbers = forget_gate.check(quick.result(STEM)).numbers
    # Weights of 1/sqrt(H) move the pre-activation by some 0.3, so ln f by some per cent of itself and, by convexity, its mean.
    assert numbers["largest deviation of a median time constant from -1/ln sigmoid(b_f)"] < 0.15


@pytest.mark.parametrize("name", ["path", "step path"])
def test_a_path_that_is_not_the_product_of_the_gates_breaks_a_ground_truth(name):
    result = quick.result(STEM)
    result[name][0, 0] *= 1.0 + 1e-9
    assert len(forget_gate.check(result).broken) == 1


@pytest.mark.parametrize(("name", "value"), [("off the path", 1e-16), ("no forget gate", 1e-15)])
def test_a_derivative_that_leaks_breaks_a_ground_truth(name, value):
    assert len(forget_gate.check(quick.with_arrays(STEM, **{name: np.array(value)})).broken) == 1


def test_a_time_constant_off_its_table_breaks_a_ground_truth():
    result = quick.result(STEM)
    result["table"][2] *= 1.00001
    assert len(forget_gate.check(result).broken) == 1


@pytest.mark.parametrize(
    ("opened", "closed", "word"), [(1.0, 0.0, "confirmed"), (0.0, 1.0, "contradicted"), (0.5, 0.5, "inconclusive")]
)
def test_the_word_for_keeping_follows_the_derivatives(opened, closed, word):
    assert verdict.keeping({"keeps": np.array([opened, closed])}).word == word


@pytest.mark.parametrize(("end", "word"), [(0.0, "confirmed"), (-20.0, "contradicted"), (None, "depends")])
def test_the_word_for_vanishing_follows_the_flow_at_the_far_end(end, word):
    result = quick.result(STEM)
    if end is not None:
        result["flow"][-1] = end
    assert verdict.vanishing(result)[0].word == word


@pytest.mark.parametrize(("growth", "word"), [(1.0, "confirmed"), (0.0, "contradicted")])
def test_the_word_for_exploding_follows_the_growth(growth, word):
    result = quick.result(STEM)
    assert verdict.exploding({**result, "growth": np.full_like(result["growth"], growth)})[0].word == word


def planted(at_zero, at_four, share=0.9):
    """A result in which the seeds of bias 0 and of bias 4 have these shares wrong."""
    result = quick.result(STEM)
    seeds = result["test"].shape[1]
    for name in ("test", "validation"):
        result[name] = np.full_like(result[name], 0.5)
        result[name][..., 0, :], result[name][..., 2, :] = np.resize(at_zero, seeds), np.resize(at_four, seeds)
    result["gates after"][1] = share
    return result


@pytest.mark.parametrize(
    ("at_zero", "at_four", "word"),
    [
        ([0.7], [0.0], "confirmed"),
        ([0.0], [0.7], "contradicted"),
        ([0.02], [0.0], "contradicted"),  # level: bias 0 learns it too
        ([0.0, 0.7], [0.7, 0.0], "inconclusive"),
    ],
)
def test_the_word_for_learning_follows_the_paired_shares(at_zero, at_four, word):
    assert verdict.learning(planted(at_zero, at_four))[0].word == word


@pytest.mark.parametrize(
    ("at_four", "share", "word"), [(0.0, 0.9, "confirmed"), (0.0, 0.1, "contradicted"), (0.7, 0.9, "inconclusive")]
)
def test_only_nets_that_solve_the_task_say_how_open_a_gate_must_be(at_four, share, word):
    assert verdict.opening(planted([0.7], [at_four], share))[0].word == word


def test_gates_that_are_open_at_one_bias_and_not_at_another_depend_on_it():
    result = planted([0.0], [0.0])
    result["gates after"][1, forget_gate.chosen(result)[0]] = 0.1
    assert verdict.opening(result)[0].word == "depends"


def test_predictions_are_the_published_ones_and_one_spans_the_length():
    np.testing.assert_allclose(
        forget_gate.predicted(np.array(list(forget_gate.TABLE))), list(forget_gate.TABLE.values()), rtol=1e-6
    )
    assert forget_gate.spanning(np.array([0.0, 2.0, 4.0, 6.0]), 40) == 2  # 55 steps; at 2 they are 8
    assert forget_gate.spanning(np.array([0.0, 2.0]), 40) == 1  # none does: the last


def test_a_gate_that_its_bias_alone_sets_keeps_its_share():
    for bias in (-2.0, 0.0, 3.0):
        assert forget_gate.keeps(bias) == pytest.approx(1.0 / (1.0 + math.exp(-bias)), rel=1e-14)  # a few roundings


def test_the_path_sees_a_planted_leak():
    net = gradlab.Network(gradlab.LSTM(), 1, 2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 2, 1))
    params = net.init(rng)
    on, gates, off = paths.whole_path(net, params, x)
    np.testing.assert_allclose(on, gates, rtol=1e-13)  # sums of five logarithms
    assert off == 0.0
    # With peepholes dc_t/dc_{t-1} is not f: the product of the gates is not the path.
    peep = gradlab.Network(gradlab.LSTM(peepholes=True), 1, 2)
    own = params | {f"0.p_{gate}": np.ones(2) for gate in "ifo"}
    on, gates, _ = paths.whole_path(peep, own, x)
    assert np.abs(on / gates - 1.0).max() > 1e-3


def test_growth_of_a_net_without_recurrence_is_that_of_its_gate():
    p = {"hidden_size": 3, "steps": 40, "seeds": 2, "gains": [0.0], "grown_biases": [0.0, 2.0]}
    found = paths.exponents(np.random.default_rng(np.random.SeedSequence(1)), p)
    assert found.shape == (1, 2, 2)
    # U = 0: the unit that keeps most decides, ln f with the noise of its own input around ln sigmoid(b_f).
    assert np.all(np.abs(found[0].mean(axis=-1) + 1.0 / forget_gate.predicted(np.array([0.0, 2.0]))) < 0.2)


def test_the_published_run_has_nine_seeds_and_a_lag_far_beyond_the_horizon_of_bias_zero():
    p = forget_gate.PARAMETERS["full"]
    assert p["seeds"] >= 9
    assert 0.4 * p["length"] > 10 * forget_gate.predicted(0.0)  # the second symbol stands at 6/10 at the latest
    assert (
        forget_gate.predicted(p["learnt_biases"][forget_gate.spanning(np.array(p["learnt_biases"]), p["length"])]) > p["length"]
    )
