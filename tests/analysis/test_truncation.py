"""Truncated gradients beside the full one: exactly 1 without truncation, and elsewhere what the lags say."""

import numpy as np
import pytest

from gradlab import GRU, LSTM, Batch, Elman, Network, bptt, mean_squared_error, truncated_bptt
from gradlab.analysis.temporal import temporal_components
from gradlab.analysis.truncated_gradients import truncation
from gradlab.errors import DTypeError, ResourceRefused, ValueRangeError


def setting(cell, readout="every", T=8, B=4, ensemble=0, seed=0):
    """`ensemble` 1: two networks; 2: with sequences of their own."""
    rng = np.random.default_rng(seed)
    net = Network(cell, 2, 4, output_size=2, num_layers=2, readout=readout)
    params = {k: rng.uniform(-0.9, 0.9, s) for k, s in net.shapes.items()}
    if ensemble:
        params["0.U"] = params["0.U"] * np.array([1.0, 0.3]).reshape(2, 1, 1)
    own = (2,) if ensemble == 2 else ()
    targets = rng.normal(size=(T, *own, B, 2) if readout == "every" else (*own, B, 2))
    initial = {"1": rng.normal(size=(B, net.layers[1].state_size))}
    return net, params, Batch(rng.normal(size=(T, *own, B, 2)), targets), initial


def cosine(a, b):
    return (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("k1", [None, 1])
@pytest.mark.parametrize("readout", ["every", "last"])
@pytest.mark.parametrize("cell", [LSTM(), GRU(), Elman("tanh")], ids=repr)
def test_without_truncation_cosine_and_ratio_are_exactly_1(cell, readout, k1):
    net, params, batch, initial = setting(cell, readout)
    found = truncation(net, params, batch, mean_squared_error, [8, 2], k1=k1, by_sequence=True, initial_states=initial)
    assert found.reach == (8, 2)
    for result in (found.cosine, found.norm_ratio, found.sequence_cosine, found.sequence_norm_ratio):
        assert sorted(result) == sorted([*net.shapes, "layers", "all"])
        for key, values in result.items():
            assert (values[0] == 1.0).all(), key
    assert found.cosine["readout.V"][1] == found.norm_ratio["readout.V"][1] == 1.0  # truncation leaves the read-out
    assert found.cosine["layers"][1] < 1.0 - 1e-6
    assert found.status.ok


def test_every_number_is_that_of_the_two_gradients():
    net, params, batch, _ = setting(LSTM())
    found = truncation(net, params, batch, mean_squared_error, (1, 3, 5))
    full = bptt(net, params, batch, mean_squared_error).gradients
    for n, k in enumerate((1, 3, 5)):
        some = truncated_bptt(net, params, batch, mean_squared_error, k, k).gradients
        for key in net.shapes:
            np.testing.assert_allclose(found.cosine[key][n], cosine(some[key], full[key]), rtol=1e-12)  # sums of 100 terms
            np.testing.assert_allclose(
                found.norm_ratio[key][n], np.linalg.norm(some[key]) / np.linalg.norm(full[key]), rtol=1e-12
            )
        for name, keys in (("all", list(net.shapes)), ("layers", [k for k in net.shapes if "readout" not in k])):
            joined = [np.concatenate([g[k].ravel() for k in keys]) for g in (some, full)]
            np.testing.assert_allclose(found.cosine[name][n], cosine(*joined), rtol=1e-12)


def test_with_one_step_between_sweeps_it_is_the_sum_of_the_lags_within_reach():
    net, params, batch, _ = setting(GRU())
    found = truncation(net, params, batch, mean_squared_error, range(1, 9), k1=1)
    lags = temporal_components(net, params, batch, mean_squared_error).by_lag
    for key, parts in lags.items():
        sums = np.cumsum(parts, axis=0)
        np.testing.assert_allclose(found.cosine[key], [cosine(some, sums[-1]) for some in sums], rtol=1e-11)  # reordered sums


def test_the_truncated_gradient_of_the_linear_neuron_is_its_share_of_the_steps():
    # dy_T/dw = (T - 1) w^(T-2): each step back is one equal term, and a reach of k holds k of the T - 1 of them.
    T, w = 12, 0.9
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), w), "0.b": np.zeros(1)}
    x = np.zeros((T, 1, 1))
    x[0] = 1.0
    found = truncation(net, params, Batch(x, np.ones((1, 1))), mean_squared_error, (1, 4, 11, 12), k1=1)
    np.testing.assert_allclose(found.norm_ratio["0.U"], [1.0 / 11.0, 4.0 / 11.0, 1.0, 1.0], rtol=1e-12)
    np.testing.assert_array_equal(found.cosine["0.U"], 1.0)
    assert np.isnan(found.cosine["0.W"][0])  # nothing of the first input is left: 0 has no angle
    assert found.norm_ratio["0.W"][0] == 0.0


@pytest.mark.parametrize("ensemble", [0, 1, 2])
@pytest.mark.parametrize("readout", ["every", "last"])
def test_each_sequence_by_itself_is_a_batch_of_its_own(readout, ensemble):
    net, params, batch, initial = setting(LSTM(), readout, ensemble=ensemble)
    together = truncation(net, params, batch, mean_squared_error, (2, 5), by_sequence=True, initial_states=initial)
    for b in range(4):
        one = Batch(batch.inputs[..., b : b + 1, :], batch.targets[..., b : b + 1, :])
        start = {"1": initial["1"][b : b + 1]}
        for member in range(2 if ensemble else 1):
            own = {k: v[member] if k == "0.U" and ensemble else v for k, v in params.items()}
            picked = Batch(one.inputs[:, member], np.take(one.targets, member, axis=-3)) if ensemble == 2 else one
            alone = truncation(net, own, picked, mean_squared_error, (2, 5), initial_states=start)
            for key in net.shapes:
                values = together.sequence_cosine[key]
                found = values[:, b, member] if ensemble and values.ndim == 3 and values.shape[2] == 2 else values[:, b]
                if not ensemble or key == "0.U":  # what an ensemble shares has the gradient of the sum
                    np.testing.assert_allclose(found.ravel(), alone.cosine[key], rtol=1e-10, err_msg=key)


def test_near_1_no_digits_are_lost():
    # A contracting network: truncation at 14 of 15 steps costs 1 - cos far below 1e-16 in the plain formula's noise.
    net = Network(Elman("linear"), 1, 2)
    params = {"0.W": np.ones((2, 1)), "0.U": np.array([[0.02, 0.01], [0.0, 0.01]]), "0.b": np.zeros(2)}
    rng = np.random.default_rng(0)
    batch = Batch(rng.normal(size=(6, 1, 1)), rng.normal(size=(6, 1, 2)))
    found = truncation(net, params, batch, mean_squared_error, (1, 2, 3, 4), k1=1)
    gaps = 1.0 - found.cosine["0.U"]
    assert (gaps >= 0.0).all()
    assert (np.diff(gaps) < 0.0).all()
    assert gaps[0] > 1e-6
    assert gaps[3] < 1e-9


def test_vanished_gradients_still_have_an_angle():
    net = Network(Elman("linear"), 1, 2, readout="last")
    params = {"0.W": np.array([[1.0], [2.0]]), "0.U": 1e-3 * np.eye(2), "0.b": np.zeros(2)}
    x = np.zeros((60, 1, 1))
    x[0] = 1.0
    found = truncation(net, params, Batch(x, np.ones((1, 2))), mean_squared_error, (10, 59), k1=1)
    # gradients of U of the order of 1e-174: their squares are 0 in floats
    np.testing.assert_allclose(found.norm_ratio["0.U"], [10.0 / 59.0, 1.0], rtol=1e-9)
    np.testing.assert_allclose(found.cosine["0.U"], 1.0, rtol=1e-12)


def test_explosion_is_told():
    net = Network(Elman("linear"), 1, 1)
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 1e200), "0.b": np.zeros(1)}
    found = truncation(net, params, Batch(np.ones((5, 1, 1)), np.ones((5, 1, 1))), mean_squared_error, (1, 5))
    assert found.status.code == "overflow"


def test_bad_arguments_are_refused_by_name():
    net, params, batch, _ = setting(Elman("tanh"))
    for reach in ([], [9], [0]):
        with pytest.raises(ValueRangeError, match="reach"):
            truncation(net, params, batch, mean_squared_error, reach)
    with pytest.raises(DTypeError, match=r"reach is 3; expected numbers of steps; try \[3\]"):
        truncation(net, params, batch, mean_squared_error, 3)
    with pytest.raises(ValueRangeError, match="k1 is 3; expected at most the smallest reach, 2"):
        truncation(net, params, batch, mean_squared_error, [2, 4], k1=3)
    ragged = Batch(batch.inputs, batch.targets, lengths=np.array([8, 5, 8, 8]))
    assert truncation(net, params, ragged, mean_squared_error, [2]).status.ok
    with pytest.raises(ValueRangeError, match="the lengths differ"):
        truncation(net, params, ragged, mean_squared_error, [2], by_sequence=True)
    with pytest.raises(ResourceRefused, match="gradients of B = 4 sequences"):
        truncation(net, params, batch, mean_squared_error, [2], by_sequence=True, max_memory=1000)
    calls = []
    truncation(net, params, batch, mean_squared_error, [2, 8], progress=lambda *done: calls.append(done))
    assert calls == [(1, 2), (2, 2)]
