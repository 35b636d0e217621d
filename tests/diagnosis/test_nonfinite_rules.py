"""Numbers that are not finite, planted at a known place of a pass or a history; finite ones, however large, are left alone."""

from dataclasses import replace

import numpy as np
import pytest

from gradlab import GRU, LSTM, Batch, Elman, Network, bptt, inits, mean_squared_error
from gradlab.backward import DEFAULT_KEEP
from gradlab.diagnosis.evidence import Evidence, Look
from gradlab.diagnosis.history import History
from gradlab.diagnosis.rules_nonfinite import nonfinite, nonfinite_statistic
from gradlab.training import Monitor


def network(cell, D=3, H=6, **options):
    return Network(cell, D, H, 2, **{"readout": "last"} | options)


def passed(net, params, *, T=20, B=5, lengths=None, loss=mean_squared_error):
    rng = np.random.default_rng(4)
    lead = (T, B) if net.readout == "every" else (B,)
    batch = Batch(rng.standard_normal((T, B, net.input_size)), rng.standard_normal((*lead, 2)), lengths=lengths)
    return Look(bptt(net, params, batch, loss, DEFAULT_KEEP), net=net, params=params, batch=batch, loss=loss)


def found_in(*looks, history=None):
    return list(nonfinite(Evidence(tuple(looks), history)))


def gained(net, layer, gain):
    params = net.init(np.random.default_rng(0), recurrent_init=inits.orthogonal())
    params[f"{layer}.U"] *= gain
    return params


# ---- a pass -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["0.forward", "0.backward", "1.backward"])
@pytest.mark.parametrize("bare", [False, True])
def test_states_that_overflow_are_placed_at_layer_direction_and_step(layer, bare):
    net = network(Elman("linear"), num_layers=2, bidirectional=True, readout="every")
    look = passed(net, gained(net, layer, 1e20))
    look = Look(look.record) if bare else look
    (found,) = found_in(look)
    states = look.record.layers[layer].states
    first = next(t for t in range(21) if not np.isfinite(states[t]).all())
    backward = layer.endswith("backward")
    assert (found.code, found.severity, found.place.phase) == ("nonfinite", "error", "forward")
    assert (found.place.layer, found.place.direction) == (layer, layer.partition(".")[2])
    assert found.place.timestep == (20 - first if backward else first - 1)
    assert nonfinite_statistic(Evidence((look,))) == 1.0


def test_the_reverse_direction_counts_from_each_rows_own_end():
    net = network(Elman("linear"), bidirectional=True)
    lengths = np.array([3, 16, 20, 4, 18])  # the first three steps are finite: row 1 goes first
    params = gained(net, "0.backward", 1e25)
    look = passed(net, params, lengths=lengths)
    bad = ~np.isfinite(look.record.layers["0.backward"].states).all(axis=-1)
    t = int(np.argmax(bad.any(axis=1)))
    row = int(np.argmax(bad[t]))
    (found,) = found_in(look)
    assert found.place.timestep == lengths[row] - t


@pytest.mark.parametrize("cell", [LSTM(), LSTM(coupled=True), GRU(), GRU(reset="before")], ids=str)
def test_the_gate_that_left_first_is_named(cell):
    """Opposite infinities meet in the pre-activation of one gate: W x_1 = inf, U h_0 = -inf."""
    for k, gate in enumerate(cell.gates):
        net = network(cell)
        params = net.init(np.random.default_rng(0))
        params["0.W"][:] = 0.1
        params["0.W"][k * 6 : (k + 1) * 6], params["0.U"][k * 6 : (k + 1) * 6] = 1e200, -1.7e308
        batch, start = Batch(np.full((20, 5, 3), 1e200), np.zeros((5, 2))), {"0": np.ones((5, net.layers[0].state_size))}
        record = bptt(net, params, batch, mean_squared_error, initial_states=start)
        (found,) = found_in(Look(record, net=net, params=params))
        assert (found.place.gate, found.place.timestep) == (gate, 0)


def test_an_adjoint_that_overflows_is_placed_at_its_last_step():
    net = network(Elman("linear"), num_layers=3)
    params = gained(net, "1", 1e30)
    params["1.W"] *= 0.0  # states stay at 0, and the gradient explodes all the same
    look = passed(net, params)
    adjoints = look.record.layers["1"].adjoints
    last = max(t for t in range(21) if not np.isfinite(adjoints[t]).all())
    (found,) = found_in(look)
    assert (found.place.layer, found.place.phase, found.place.timestep) == ("1", "backward", last - 1)


@pytest.mark.parametrize("backward", [False, True])
def test_the_losss_own_gradient_is_told_from_the_carried_one(backward):
    def loss(outputs, targets, mask=None):
        value, d_outputs = mean_squared_error(outputs, targets, mask)
        d_outputs = d_outputs.copy()
        d_outputs[7, 2] = np.nan
        return value, d_outputs

    net = network(LSTM(), readout="every", bidirectional=backward)
    found = found_in(passed(net, net.init(np.random.default_rng(0)), loss=loss))
    assert {one.place.timestep for one in found} == {7}  # in both directions, which are causes side by side
    assert all("own gradient" in one.message and one.place.phase == "backward" for one in found)


def test_a_loss_that_is_none_is_named_without_a_layer():
    net = network(GRU())
    for bad in (np.nan, np.inf):

        def loss(outputs, targets, mask=None, bad=bad):
            value, d_outputs = mean_squared_error(outputs, targets, mask)
            return value * bad, d_outputs * bad

        look = passed(net, net.init(np.random.default_rng(0)), loss=loss)
        for one in (look, Look(look.record)):
            (found,) = found_in(one)
            assert (found.place.layer, found.place.phase) == ("", "forward")
            assert "loss" in found.message


def test_outputs_that_overflow_in_the_read_out_are_named_by_its_weights():
    net = network(Elman(), readout="every")
    params = net.init(np.random.default_rng(0))
    params["0.b"][:] = 5.0
    params["readout.V"][:] = 1.7e308  # a sum of six
    (found,) = found_in(passed(net, params))
    assert (found.place.parameter, found.place.timestep, found.place.phase) == ("readout.V", 0, "forward")


def test_inputs_come_before_weights_before_states():
    net = network(LSTM())
    look = passed(net, net.init(np.random.default_rng(0)))
    x, params = look.record.inputs.copy(), {key: value.copy() for key, value in look.params.items()}
    x[6, 2, 1], params["0.U"][8, 3] = np.inf, np.nan
    layer = look.record.layers["0"]
    broken = replace(layer, states=np.where(np.arange(21)[:, None, None] > 9, np.nan, layer.states))
    worse = replace(look.record, layers={"0": broken})
    (one,) = found_in(Look(replace(worse, inputs=x), "encoder", net, params))
    assert (one.place.layer, one.place.timestep, one.place.parameter) == ("encoder", 6, "")
    (two,) = found_in(Look(worse, "encoder", net, params))
    assert (two.place.parameter, two.place.gate, two.place.layer) == ("encoder.0.U", "f", "encoder.0")  # rows 6..11 of 24
    (three,) = found_in(Look(worse, "encoder", net, look.params))
    assert (three.place.layer, three.place.timestep) == ("encoder.0", 9)


def test_inputs_behind_the_end_of_a_sequence_are_never_read():
    net = network(LSTM())
    lengths = np.array([20, 15, 12, 20, 9])
    look = passed(net, net.init(np.random.default_rng(0)), lengths=lengths)
    x = np.where(np.arange(20)[:, None, None] < lengths[:, None], look.record.inputs, np.nan)
    assert not found_in(Look(replace(look.record, inputs=x)))


def test_a_gradient_of_a_parameter_alone_is_named():
    net = network(LSTM(), num_layers=2)
    look = passed(net, net.init(np.random.default_rng(0)))
    gradients = {key: value * (np.nan if key in ("0.W", "1.U") else 1.0) for key, value in look.record.gradients.items()}
    (found,) = found_in(Look(replace(look.record, gradients=gradients)))
    assert (found.place.parameter, found.place.layer, found.place.phase) == ("1.U", "1", "backward")


def test_the_unknown_loss_of_a_watched_model_is_no_finding():
    net = network(LSTM())
    look = passed(net, net.init(np.random.default_rng(0)))
    assert not found_in(Look(replace(look.record, loss=np.asarray(np.nan)), net=net, params=look.params))


@pytest.mark.parametrize("cell", [LSTM(), GRU(), Elman(), Elman("relu")], ids=str)
@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e100])
def test_huge_but_finite_numbers_are_none(cell, scale):
    net = network(cell)
    params = net.init(np.random.default_rng(0))
    params["readout.V"] *= scale
    assert not found_in(passed(net, params))


def test_records_that_lack_series_and_ensembles_do_no_harm():
    net = network(LSTM())
    params = net.init(np.random.default_rng(0))
    look = passed(net, params)
    thin = replace(
        look.record, layers={"0": replace(look.record.layers["0"], states=None, adjoints=None, gates={}, immediate=None)}
    )
    assert not found_in(Look(thin))
    stacked = params | {"0.U": np.stack([params["0.U"], 0.0 * params["0.U"], params["0.U"]])}
    assert not found_in(passed(net, stacked))
    linear = network(Elman("linear"))
    values = gained(linear, "0", 1e25)
    values["0.U"] = np.stack([0.0 * values["0.U"], values["0.U"]])
    one = passed(linear, values)
    assert [(found.place.layer, found.place.phase) for found in found_in(one)] == [("0", "forward")]
    assert not found_in(Look(replace(look.record, layers={})))


# ---- a history --------------------------------------------------------------------------------------------------------


def history(**series):
    monitor = Monitor(every=1)
    for k in range(12):
        monitor.record(k, **{name: make(k) for name, make in series.items()})
    return History.of(monitor)


def test_the_first_update_is_named_and_the_loss_before_what_follows_from_it():
    bad = history(loss=lambda k: 1.0 if k < 7 else np.nan, gradients=lambda k: {"0.U": np.full((2, 2), 1.0 if k < 7 else np.nan)})
    (found,) = found_in(history=bad)
    assert (found.place.update, found.place.parameter) == (7, "")
    assert "loss" in found.message


def test_a_gradient_that_goes_first_is_named_with_its_parameter():
    def gradients(k):
        return {"0.U": np.full((2, 2), np.nan if k > 4 else 1.0), "1.W": np.full(3, np.inf if k > 4 else 1.0), "1.b": np.ones(3)}

    bad = history(loss=lambda k: 1.0 if k < 6 else np.nan, gradients=gradients)
    (found,) = found_in(history=bad)
    assert (found.place.update, found.place.parameter, found.place.layer, found.place.phase) == (5, "1.W", "1", "backward")


def test_an_adjoint_names_its_layer():
    bad = history(
        loss=lambda k: 1.0, adjoint_norms=lambda k: {"0": np.ones(4), "1.forward": np.full(4, np.inf if k == 3 else 0.0)}
    )
    (found,) = found_in(history=bad)
    assert (found.place.update, found.place.layer, found.place.direction) == (3, "1.forward", "forward")


def test_what_starts_from_zero_or_is_zero_is_in_order():
    healthy = history(
        loss=lambda k: 1e300,
        params=lambda k: {"0.b": np.full(3, float(k))},  # |change|/|0| is inf at the first update
        new_params=lambda k: {"0.b": np.full(3, k + 1.0)},
        adjoint_norms=lambda k: {"0": np.zeros(4)},  # ln 0 = -inf
    )
    assert not found_in(history=healthy)
    assert not found_in(history=History({}))


def test_a_parameter_that_leaves_is_named():
    bad = history(
        loss=lambda k: 1.0,
        params=lambda k: {"0.U": np.ones(2)},
        new_params=lambda k: {"0.U": np.full(2, np.nan if k == 8 else 2.0)},
    )
    (found,) = found_in(history=bad)
    assert (found.place.update, found.place.parameter, found.place.layer) == (8, "0.U", "0")


def test_a_pass_and_a_history_are_two_sources():
    net = network(Elman("linear"))
    look = passed(net, gained(net, "0", 1e25))
    assert len(found_in(look, history=history(loss=lambda k: np.inf))) == 2
