"""Peepholes: which derivatives are there, and every word of the verdict from numbers that are known."""

import math

import numpy as np
import pytest
from runs import quick

import gradlab
from analyses import _members, _trials, peepholes
from analyses import _peepholes_verdict as verdict

STEM = "peepholes"


def test_every_ground_truth_holds_and_the_name_is_contradicted():
    found = peepholes.check(quick.result(STEM))
    assert not found.broken
    assert found.word == "contradicted"
    assert found.numbers["word for: the connections from h and c to the gates are called peepholes"] == "contradicted"
    H = peepholes.PARAMETERS["quick"]["structure_size"]
    assert found.numbers["derivatives of gates by h, without peepholes, not 0"] == 4 * H * H
    assert found.numbers["derivatives of gates by c, without peepholes, not 0"] == 0
    assert found.numbers["derivatives of gates by c, with peepholes, not 0"] == 3 * H
    assert found.numbers["relative error if o saw c_t-1, median"] > 0.01
    assert all(math.isfinite(value) for value in found.numbers.values() if isinstance(value, float))


def test_the_derivatives_are_those_of_finite_differences():
    rng = np.random.default_rng(1)
    H = 3
    cell = gradlab.LSTM(peepholes=True)
    net = gradlab.Network(cell, 2, H)
    params = {key: rng.normal(size=shape) for key, shape in net.shapes.items()}
    s, x = rng.normal(size=2 * H), rng.normal(size=2)
    found = peepholes.gate_derivatives(cell, params, s, x)

    def gates(state):
        run = gradlab.forward(net, params, x[None, None], {"0": state[None]}).runs["0"]
        return np.stack([cell.gate_values(run.tape)[gate][0, 0] for gate in peepholes.GATES])

    step = 1e-6
    for k in range(2 * H):
        moved = step * (np.arange(2 * H) == k)
        # Central differences: eps/step = 2e-10 of rounding, step^2 = 1e-12 of curvature.
        np.testing.assert_allclose(found[..., k], (gates(s + moved) - gates(s - moved)) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("gate", "factor"), [(0, 1.0 + 1e-9), (1, -1.0), (3, 1.1)])
def test_a_peephole_of_another_strength_breaks_a_ground_truth(gate, factor):
    result = quick.result(STEM)
    H = result["with"].shape[1]
    result["with"][gate, 0, 0] *= factor
    assert len(peepholes.check(result).broken) == 1
    assert H == 6


def test_a_peephole_into_g_breaks_a_ground_truth():
    result = quick.result(STEM)
    result["with"][2, 1, 1] = 1e-16
    assert len(peepholes.check(result).broken) == 1


@pytest.mark.parametrize(("name", "value"), [("equal outputs", 0.7), ("share in the test", 0.2)])
def test_a_wrong_number_of_the_task_breaks_its_ground_truth(name, value):
    assert len(peepholes.check(quick.with_arrays(STEM, **{name: value})).broken) == 1


def named(plain_h, plain_c):
    """Derivatives with peepholes as they are; without them those by h and by c scaled or replaced."""
    result = quick.result(STEM)
    H = result["with"].shape[1]
    result["plain"][..., H:] *= plain_h
    result["plain"][..., :H] = plain_c
    return verdict.naming(result)[0].word


def test_the_word_for_the_name_follows_the_derivatives():
    assert named(1.0, 0.0) == "contradicted"
    assert named(0.0, 0.0) == "confirmed"  # then h would come with the peepholes, too
    assert named(1.0, 0.1) == "depends"  # c is there without any


def planted(*rates):
    """A result in which nets with and without peepholes have these shares wrong, seed by seed, at each of the two rates."""
    result = quick.result(STEM)
    for name, wrong in zip(peepholes.NETS, zip(*rates, strict=True), strict=True):
        for key in ("test", "validation"):
            value = result[f"{name} {key}"]
            rows = np.stack([np.resize(one, value.shape[-1]) for one in wrong])
            result[f"{name} {key}"] = np.broadcast_to(rows, value.shape).copy()
    return result


@pytest.mark.parametrize(
    ("rates", "word"),
    [
        ((([0.0], [0.5]), ([0.1], [0.6])), "confirmed"),
        ((([0.0], [0.5]), ([0.6], [0.1])), "depends"),  # the order turns round
        ((([0.0], [0.02]), ([0.6], [0.6])), "contradicted"),
        ((([0.5], [0.0]), ([0.5], [0.0])), "contradicted"),
        ((([0.0], [0.0, 0.5]), ([0.9], [0.9])), "inconclusive"),
        ((([0.0], [0.6]), ([0.0], [0.0])), "contradicted"),  # better at one rate, level at the best
    ],
)
def test_the_word_for_timing_follows_the_paired_shares(rates, word):
    assert verdict.timing(planted(*rates))[0].word == word


def test_nets_with_and_without_start_as_one_and_the_same_function():
    seeds = _members.seeds_of(np.random.default_rng(np.random.SeedSequence(1)), 2)
    each = []
    for cell in (gradlab.LSTM(peepholes=True), gradlab.LSTM()):
        net = _trials.network(cell, peepholes.TASK, 4)
        params, _ = _trials.side_by_side(net, seeds, [(0.1, {"forget_bias": 1.0})])
        batch = peepholes.TASK.sample(np.random.default_rng(2), 3, 12)
        each.append(gradlab.forward(net, params, batch.inputs.astype(np.float32)).outputs)
    np.testing.assert_array_equal(*each)


def test_the_nearest_net_without_peepholes_has_as_many_units():
    for scale in ("full", "quick"):
        H = peepholes.PARAMETERS[scale]["hidden_size"]
        count = _members.parameter_count(_trials.network(gradlab.LSTM(peepholes=True), peepholes.TASK, H))
        assert _trials.nearest_size(gradlab.LSTM(), peepholes.TASK, count) == H
    assert peepholes.PARAMETERS["full"]["seeds"] >= 9


def test_what_is_drawn_as_said_is_the_probability_of_the_label():
    net = _trials.network(gradlab.LSTM(), peepholes.TASK, 2)
    zero = {key: np.zeros((1, 1, *shape), np.float32) for key, shape in net.shapes.items()}
    zero["readout.b_y"][..., 1] = np.log(3.0)
    batch = peepholes.TASK.sample(np.random.default_rng(0), 1, 10)
    # 1e-6: single precision
    np.testing.assert_allclose(peepholes.announced(net, zero, batch), 0.75, rtol=1e-6)
