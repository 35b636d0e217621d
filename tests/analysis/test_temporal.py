"""The gradient by steps, lags and pairs: its parts add up, and each of them is what a complex step of unshared weights says."""

import numpy as np
import pytest

from gradlab import GRU, LSTM, SCRN, Batch, Elman, Network, bptt, cells, mean_squared_error
from gradlab._derivatives import complex_step_jacobian
from gradlab.analysis import gradient_flow, temporal
from gradlab.analysis.temporal import flow_map, temporal_components
from gradlab.backward import KEEP
from gradlab.errors import ResourceRefused, ValueRangeError


class UserCell:
    """A cell of a user, differentiated from its step."""

    def __repr__(self):
        return "UserCell()"

    def init(self, rng, input_size, hidden_size):
        return {"W": rng.normal(size=(hidden_size, input_size)), "U": 0.5 * rng.normal(size=(hidden_size, hidden_size))}

    def step(self, params, x_t, s_prev, t):
        return np.tanh(x_t @ params["W"].T + s_prev @ params["U"].T)


def setting(cell, readout="every", layers=2, ensemble=False, ragged=False, T=5, seed=0):
    rng = np.random.default_rng(seed)
    net = Network(cell, 2, 4, output_size=2, num_layers=layers, readout=readout)
    params = {k: rng.uniform(-0.9, 0.9, s) for k, s in net.shapes.items()}
    if ensemble:
        first = next(k for k in params if k.startswith("0."))
        params[first] = params[first] * np.array([1.0, 0.5]).reshape(2, 1, 1)
    targets = rng.normal(size=(T, 3, 2) if readout == "every" else (3, 2))
    batch = Batch(rng.normal(size=(T, 3, 2)), targets, lengths=np.array([T, T - 2, T - 1]) if ragged else None)
    initial = {layer.name: rng.normal(size=(3, layer.state_size)) for layer in net.layers}
    return net, params, batch, initial


# ---- sums ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [*cells.ALL, UserCell()], ids=repr)
@pytest.mark.parametrize("readout", ["every", "last"])
def test_parts_by_step_and_by_lag_add_up_to_the_gradient_for_every_cell(cell, readout):
    net, params, batch, initial = setting(cell, readout, ensemble=True, ragged=True)
    gradients = bptt(net, params, batch, mean_squared_error, initial_states=initial).gradients
    parts = temporal_components(net, params, batch, mean_squared_error, initial_states=initial)
    assert parts.status.ok
    assert sorted(parts.by_step) == sorted(k for k in gradients if not k.startswith("readout."))
    for split in (parts.by_step, parts.by_lag):
        for key, rows in split.items():
            assert rows.shape == (5, *gradients[key].shape)
            # the same terms in another order: roundings of the largest entry
            assert np.abs(rows.sum(axis=0) - gradients[key]).max() <= 1e-12 * np.abs(gradients[key]).max(), key


@pytest.mark.parametrize("cell", [LSTM(peepholes=True), GRU(), SCRN(2), Elman("tanh")], ids=repr)
def test_the_map_adds_up_to_the_total_adjoint_that_training_follows(cell):
    net, params, batch, initial = setting(cell, ensemble=True, ragged=True)
    flow = gradient_flow(bptt(net, params, batch, mean_squared_error, initial_states=initial))
    found = flow_map(net, params, batch, mean_squared_error, initial_states=initial)
    assert sorted(found.log_total) == sorted(flow.log_total) == sorted(found.log_norm)
    for key, total in found.log_total.items():
        np.testing.assert_allclose(total, flow.log_total[key], rtol=0, atol=1e-12)  # in ln: relative, sums of 5 terms


def test_with_one_unit_and_losses_of_one_sign_the_norms_themselves_add_up():
    rng = np.random.default_rng(1)
    net = Network(Elman("tanh"), 1, 1)
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 0.7), "0.b": np.zeros(1)}
    batch = Batch(rng.normal(size=(8, 3, 1)), np.full((8, 3, 1), -2.0))  # every error is positive, and so is every slope
    found = flow_map(net, params, batch, mean_squared_error)
    flow = gradient_flow(bptt(net, params, batch, mean_squared_error))
    columns = np.exp(found.log_norm["0"]).sum(axis=0)
    np.testing.assert_allclose(columns, np.exp(flow.log_total["0"]), rtol=1e-13)  # exp and ln of numbers of order 1


def test_the_lags_that_truncation_keeps_are_its_gradient():
    from gradlab import truncated_bptt

    net, params, batch, initial = setting(GRU(), T=7)
    by_lag = temporal_components(net, params, batch, mean_squared_error, initial_states=initial).by_lag
    for k2 in (1, 3, 7):
        kept = truncated_bptt(net, params, batch, mean_squared_error, 1, k2, initial_states=initial).gradients
        for key in by_lag:
            assert np.abs(by_lag[key][:k2].sum(axis=0) - kept[key]).max() <= 1e-12 * np.abs(kept[key]).max()  # reordered sums


# ---- single parts -------------------------------------------------------------------------------------------------


def unshared(cell, params, x, s, key, weights, targets):
    """L_t for every t, of a net whose parameter `key` has a value of its own at each step, weights (T, *shape)."""
    T, B = x.shape[:2]
    losses = []
    for k in range(T):
        s = cell.step(params | {key: weights[k]}, x[k], s, k)
        y = cell.output(s, s)
        losses.append(((y - targets[k]) ** 2).sum() / (T * B * y.shape[-1]))
    return np.array(losses)


@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM(), GRU(reset="before")], ids=repr)
@pytest.mark.parametrize("key", ["U", "b"])
def test_each_pair_is_the_derivative_of_one_loss_by_the_weights_of_one_step(cell, key):
    rng = np.random.default_rng(2)
    net = Network(cell, 2, 2)
    params = {k: rng.uniform(-0.9, 0.9, s) for k, s in net.shapes.items()}
    T = 4
    x, targets = rng.normal(size=(T, 3, 2)), rng.normal(size=(T, 3, 2))
    parts = temporal_components(net, params, Batch(x, targets), mean_squared_error)
    own = {k.removeprefix("0."): v for k, v in params.items()}
    same = np.repeat(own[key][None], T, axis=0)
    start = np.zeros((3, net.layers[0].state_size))
    exact = complex_step_jacobian(lambda w: unshared(cell, own, x, start, key, w, targets), same)  # (t, k, *shape)
    norms = np.sqrt((exact.reshape(T, T, -1) ** 2).sum(axis=-1))
    later = np.triu(np.ones((T, T), bool), 1)
    assert (parts.log_pairs[f"0.{key}"][later] == -np.inf).all()
    np.testing.assert_allclose(np.exp(parts.log_pairs[f"0.{key}"]), norms, rtol=1e-12)  # short chains of well-scaled numbers
    np.testing.assert_allclose(parts.by_step[f"0.{key}"], exact.sum(axis=0), rtol=0, atol=1e-14)  # entries of order 0.1
    for lag in range(T):
        direct = sum(exact[k + lag, k] for k in range(T - lag))
        np.testing.assert_allclose(parts.by_lag[f"0.{key}"][lag], direct, rtol=0, atol=1e-14)


@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM()], ids=repr)
def test_each_entry_of_the_map_is_the_product_of_jacobians_on_the_immediate_partial(cell):
    net, params, batch, initial = setting(cell, layers=1, T=6)
    record = bptt(net, params, batch, mean_squared_error, KEEP, initial_states=initial)
    found = flow_map(net, params, batch, mean_squared_error, initial_states=initial).log_norm["0"]
    J, e = record.layers["0"].jacobians, record.layers["0"].immediate
    for t in range(1, 7):
        carried = e[t]
        for k in range(t, -1, -1):
            np.testing.assert_allclose(np.exp(found[t - 1, k]), np.linalg.norm(carried, axis=-1), rtol=1e-12)  # 6 products
            if k:
                carried = np.einsum("bij,bi->bj", J[k - 1], carried)
        assert (found[t - 1, t + 1 :] == -np.inf).all()


@pytest.mark.parametrize(("w", "T", "total"), [(1.01, 1000, 2.052563129e7), (0.99, 1000, 0.0440037508), (1.0, 1000, 999.0)])
def test_the_linear_neuron_spreads_its_gradient_evenly_over_its_steps(w, T, total):
    # y_T = w^(T-1) for the input 1, 0, 0, ...: each of the T - 1 factors contributes w^(T-2).
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), w), "0.b": np.zeros(1)}
    x = np.zeros((T, 1, 1))
    x[0] = 1.0

    def output_itself(outputs, targets, mask):
        return outputs[0, 0], np.ones_like(outputs)

    parts = temporal_components(net, params, Batch(x, np.zeros((1, 1))), output_itself, parameters=["0.U"])
    np.testing.assert_allclose(parts.by_step["0.U"][1:, 0, 0], w ** (T - 2), rtol=1e-12)  # 1000 products
    assert parts.by_step["0.U"][0, 0, 0] == 0.0  # h_0 = 0
    np.testing.assert_allclose(parts.by_lag["0.U"][:-1, 0, 0], w ** (T - 2), rtol=1e-12)
    np.testing.assert_allclose(parts.by_step["0.U"].sum(), total, rtol=1e-8)  # the digits of the table
    found = flow_map(net, params, Batch(x, np.zeros((1, 1))), output_itself).log_norm["0"]
    np.testing.assert_allclose(found[-1, :, 0], np.arange(T, -1, -1) * np.log(w), rtol=1e-12, atol=1e-13)
    assert (found[:-1] == -np.inf).all()  # the loss of the last step is all there is


def test_what_has_vanished_below_the_squares_of_floats_is_not_zero_in_the_map():
    net = Network(Elman("linear"), 1, 1)
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 0.1), "0.b": np.zeros(1)}
    found = flow_map(net, params, Batch(np.ones((250, 1, 1)), np.zeros((250, 1, 1))), mean_squared_error).log_norm["0"][..., 0]
    np.testing.assert_allclose(found[-1, 0] - found[-1, -1], -250.0 * np.log(10.0), rtol=1e-12)  # 1e-250: its square is 0


def test_a_loss_behind_the_end_of_a_row_has_no_part():
    net, params, batch, initial = setting(LSTM(), ragged=True)
    found = flow_map(net, params, batch, mean_squared_error, initial_states=initial).log_norm["1"]
    for row, length in enumerate((5, 3, 4)):
        assert np.isfinite(found[:length, 0, row]).all()
        assert (found[length:, :, row] == -np.inf).all()


# ---- how it is computed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 9000])
def test_chunks_change_nothing(monkeypatch, chunk):
    net, params, batch, initial = setting(LSTM(), ensemble=True, T=6)
    whole = temporal_components(net, params, batch, mean_squared_error, initial_states=initial)
    whole_map = flow_map(net, params, batch, mean_squared_error, initial_states=initial)
    monkeypatch.setattr(temporal, "CHUNK", chunk)
    calls = []
    some = temporal_components(
        net, params, batch, mean_squared_error, initial_states=initial, progress=lambda *done: calls.append(done)
    )
    assert calls[-1] == (6, 6)
    assert len(calls) > 1
    some_map = flow_map(net, params, batch, mean_squared_error, initial_states=initial)
    for key in whole.by_lag:
        np.testing.assert_allclose(some.by_lag[key], whole.by_lag[key], rtol=0, atol=1e-14)  # blocked otherwise
        np.testing.assert_allclose(some.log_pairs[key], whole.log_pairs[key], rtol=1e-12)
    for key in whole_map.log_norm:
        np.testing.assert_allclose(some_map.log_norm[key], whole_map.log_norm[key], rtol=1e-12)
        np.testing.assert_allclose(some_map.log_total[key], whole_map.log_total[key], rtol=1e-12, atol=1e-14)  # ln 1 = 0


def test_inputs_and_parameters_are_not_modified():
    net, params, batch, _ = setting(GRU())
    before = {k: v.copy() for k, v in params.items()}, batch.inputs.copy()
    temporal_components(net, params, batch, mean_squared_error)
    flow_map(net, params, batch, mean_squared_error)
    for key, value in params.items():
        np.testing.assert_array_equal(value, before[0][key])
    np.testing.assert_array_equal(batch.inputs, before[1])


def test_an_explosion_is_reported_and_raises_no_warning():
    net = Network(Elman("linear"), 1, 1)
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 1e100), "0.b": np.zeros(1)}
    batch = Batch(np.full((8, 1, 1), 1e-300), np.ones((8, 1, 1)))
    assert temporal_components(net, params, batch, mean_squared_error).status.code == "overflow"
    assert flow_map(net, params, batch, mean_squared_error).status.code == "overflow"


def test_what_has_no_lag_and_what_does_not_fit_is_refused():
    net, params, batch, _ = setting(LSTM())
    with pytest.raises(ValueRangeError, match=r"parameters are \['readout.V'\]; expected some of 0.W"):
        temporal_components(net, params, batch, mean_squared_error, parameters=["readout.V"])
    alone = temporal_components(net, params, batch, mean_squared_error, parameters="0.U")
    assert list(alone.by_lag) == ["0.U"]
    with pytest.raises(ResourceRefused, match="T = 5 steps and lags"):
        temporal_components(net, params, batch, mean_squared_error, max_memory=1000)
    with pytest.raises(ResourceRefused, match="the map of T = 5"):
        flow_map(net, params, batch, mean_squared_error, max_memory=1000)
    both = Network(LSTM(), 2, 4, output_size=2, bidirectional=True)
    with pytest.raises(ValueRangeError, match="net is bidirectional"):
        flow_map(both, both.init(np.random.default_rng(0)), batch, mean_squared_error)
