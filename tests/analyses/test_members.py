"""Counts of successes against scipy's exact tests, and ensembles whose members start and read as the seeds say."""

import numpy as np
import pytest
from scipy import stats

import gradlab
from analyses import _members


@pytest.mark.parametrize("trials", [1, 5, 10, 20])
def test_intervals_are_those_of_clopper_and_pearson(trials):
    for successes in range(trials + 1):
        theirs = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
        # 1e-9: scipy finds the same quantiles of the beta distribution by another route
        np.testing.assert_allclose(_members.interval(successes, trials), theirs, rtol=1e-9, atol=1e-12)


def test_the_interval_of_no_success_has_its_closed_form():
    assert _members.interval(0, 10) == (0.0, pytest.approx(1.0 - 0.025**0.1, rel=1e-12))
    assert _members.interval(10, 10) == (pytest.approx(0.025**0.1, rel=1e-12), 1.0)


@pytest.mark.parametrize("trials", [3, 5, 10])
def test_p_values_are_those_of_fishers_exact_test(trials):
    for first in range(trials + 1):
        for second in range(trials + 1):
            theirs = stats.fisher_exact([[first, trials - first], [second, trials - second]]).pvalue
            # 1e-9: scipy adds up floating-point probabilities, here they are integers
            assert _members.fisher(first, second, trials) == pytest.approx(theirs, rel=1e-9)


def test_every_rate_starts_from_the_same_draws_and_every_seed_from_others():
    seeds = _members.seeds_of(np.random.default_rng(np.random.SeedSequence(1)), 3)
    net = gradlab.Network(gradlab.Elman("tanh"), 2, 4, output_size=1)
    params = _members.initial(net, seeds, 2, np.float32)
    assert {value.dtype for value in params.values()} == {np.dtype(np.float32)}
    assert params["0.U"].shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(params["0.U"][0], params["0.U"][1])
    assert not np.array_equal(params["0.U"][0, 0], params["0.U"][0, 1])
    for k, seed in enumerate(seeds):
        own = net.init(_members.stream(seed, 0))
        np.testing.assert_array_equal(params["readout.V"][1, k], own["readout.V"].astype(np.float32))
    assert _members.parameter_count(net) == 2 * 4 + 16 + 4 + 4 + 1


def test_a_stream_begins_anew_at_every_call_and_differs_by_seed_and_purpose():
    one, two = _members.seeds_of(np.random.default_rng(np.random.SeedSequence(1)), 2)
    draws = [_members.stream(seed, purpose).random() for seed in (one, two) for purpose in (0, 1)]
    assert len(set(draws)) == 4
    assert _members.stream(one, 0).random() == draws[0]


@pytest.mark.parametrize("every", [True, False])
def test_batches_side_by_side_give_each_seed_the_gradient_of_its_own(every):
    rng = np.random.default_rng(0)
    net = gradlab.Network(gradlab.Elman("tanh"), 2, 3, output_size=1, readout="every" if every else "last")
    seeds = _members.seeds_of(np.random.default_rng(np.random.SeedSequence(1)), 2)
    params = _members.initial(net, seeds, 2, np.float64)
    shape = (5, 4, 1) if every else (4, 1)
    own = [gradlab.Batch(rng.normal(size=(5, 4, 2)), rng.normal(size=shape)) for _ in range(2)]
    joint = gradlab.bptt(net, params, _members.side_by_side(own, every, np.float64), gradlab.mean_squared_error)
    for k, batch in enumerate(own):
        alone = gradlab.bptt(net, {key: value[0, k] for key, value in params.items()}, batch, gradlab.mean_squared_error)
        for rate in range(2):
            # 1e-12: the same sums, blocked differently
            np.testing.assert_allclose(joint.gradients["0.U"][rate, k], alone.gradients["0.U"], rtol=1e-12, atol=1e-14)
