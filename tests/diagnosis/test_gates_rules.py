"""Planted gates and units: stuck, closed and dead ones at known places; healthy ones are left alone."""

import numpy as np
import pytest

from gradlab import (
    GRU,
    LSTM,
    SCRN,
    Batch,
    Clockwork,
    Elman,
    Jordan,
    LayerRecord,
    Network,
    Record,
    bptt,
    cells,
    inits,
    irnn,
    mean_squared_error,
)
from gradlab.backward import DEFAULT_KEEP
from gradlab.diagnosis.catalogue_gates import GATES
from gradlab.diagnosis.circumstances import Circumstances
from gradlab.diagnosis.evidence import Evidence, Look
from gradlab.diagnosis.rules_dead import dead_relu, dead_relu_statistic
from gradlab.diagnosis.rules_forgetting import LOST, forget_closed, forget_closed_statistic
from gradlab.diagnosis.rules_gates import saturated, saturated_statistic

RULES = (saturated, forget_closed, dead_relu)


def rows(cell, gate, H):
    k = cell.gates.index(gate)
    return slice(k * H, (k + 1) * H)


def batch_for(net, T=30, B=8, *, seed=0, x=None, lengths=None):
    rng = np.random.default_rng([5, seed])
    x = rng.standard_normal((T, B, net.input_size)) if x is None else x
    lead = x.shape[:2] if net.readout == "every" else x.shape[1:2]
    return Batch(x, rng.standard_normal((*lead, net.output_size or net.top_size)), lengths=lengths)


def seen(net, params, batch=None, *, scale=1.0, bare=False, told=None, **more):
    """The evidence of one pass; `bare`: of a record alone."""
    batch = batch_for(net) if batch is None else batch

    def loss(outputs, targets, mask=None):
        value, d_outputs = mean_squared_error(outputs, targets, mask)
        return scale * value, scale * d_outputs

    record = bptt(net, params, batch, loss, DEFAULT_KEEP)
    look = Look(record) if bare else Look(record, net=net, params=params, batch=batch, loss=loss, **more)
    return Evidence((look,), circumstances=told or Circumstances())


def network(cell, D=4, H=12, **options):
    return Network(cell, D, H, 1, **{"readout": "last"} | options)


def in_order(net, seed=0, memory=100.0):
    """Parameters with orthogonal U and gates that keep for `memory` steps."""
    params = net.init(np.random.default_rng([9, seed]), recurrent_init=inits.orthogonal())
    for layer in net.layers:
        keep = next((gate for gate in ("f", "z") if gate in layer.cell.gates), None)
        if keep is not None:
            params[f"{layer.name}.b"][rows(layer.cell, keep, layer.hidden_size)] = inits.forget_bias(memory)
    return params


def grave(findings):
    return [one for one in findings if one.severity != "info"]


# ---- saturated --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "gate", "bias"),
    [
        (LSTM(), "i", -9.0),
        (LSTM(), "i", 9.0),
        (LSTM(), "f", -8.0),
        (LSTM(), "g", 7.0),
        (LSTM(), "o", -8.0),
        (LSTM(peepholes=True), "o", 9.0),
        (LSTM(coupled=True), "g", -6.0),
        (LSTM(forget_gate=False), "o", -9.0),
        (GRU(), "r", -9.0),
        (GRU(reset="before"), "n", 6.0),
        (GRU(), "z", -9.0),
    ],
    ids=str,
)
def test_a_gate_that_is_stuck_is_named_and_no_other(cell, gate, bias):
    net = network(cell)
    params = in_order(net)
    params["0.b"][rows(cell, gate, 12)] = bias
    (found,) = grave(saturated(seen(net, params)))
    assert (found.code, found.place.layer, found.place.gate, found.place.timestep) == ("saturated", "0", gate, None)
    share = next(iter(found.numbers.values()))
    assert share.value > 0.99  # sigma(-6) = 0.0025 and tanh(4.5) are flat, and the rest of a_t is below 3 in size
    assert share.interval is not None
    assert share.interval[0] <= share.value <= share.interval[1]


@pytest.mark.parametrize(("bias", "alarm"), [(-12.0, True), (0.0, False)])
@pytest.mark.parametrize("layer", ["0.forward", "1.backward"])
def test_a_stuck_gate_is_placed_in_its_layer_and_direction(layer, bias, alarm):
    net = network(LSTM(), num_layers=2, bidirectional=True)
    params = in_order(net)
    params[f"{layer}.b"][rows(LSTM(), "o", 12)] = bias
    found = grave(saturated(seen(net, params, name="encoder.rnn")))
    assert [(one.place.layer, one.place.direction, one.place.gate) for one in found] == [
        (f"encoder.rnn.{layer}", layer.partition(".")[2], "o")
    ] * alarm


@pytest.mark.parametrize(
    ("cell", "bias"),
    [(Elman(), 6.0), (Elman("sigmoid"), 9.0), (Elman("hard_tanh"), 5.0), (Clockwork((1, 2, 4)), 6.0), (Jordan(3), 6.0)],
    ids=str,
)
def test_units_without_gates_are_called_h(cell, bias):
    net = network(cell)
    params = in_order(net)
    params["0.b"][:] = bias * np.resize([1.0, -1.0], 12)
    (found,) = grave(saturated(seen(net, params)))
    assert (found.place.layer, found.place.gate) == ("0", "h")


def test_the_units_of_an_scrn_are_its_hidden_ones():
    net = network(SCRN(3), D=1)
    params = in_order(net)
    params["0.A"][:], params["0.R"][:], params["0.P"][:] = 8.0, 0.0, 0.0
    x = 1.0 + 0.1 * np.random.default_rng(0).standard_normal((30, 8, 1))  # the units stay near sigma(8)
    (found,) = grave(saturated(seen(net, params, batch_for(net, x=x))))
    assert (found.place.layer, found.place.gate) == ("0", "h")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_gate_that_is_shut_for_a_while_is_placed_at_its_first_step(bidirectional):
    T, first, stop = 60, 21, 44
    net = network(LSTM(), readout="every", bidirectional=bidirectional)
    params = in_order(net)
    x = np.random.default_rng(3).standard_normal((T, 8, 4))
    x[:, :, 3], x[first:stop, :, 3] = 0.0, 1.0
    for layer in net.layers:
        params[f"{layer.name}.W"][:, 3] = 0.0
        params[f"{layer.name}.W"][rows(LSTM(), "o", 12), 3] = -12.0
    found = grave(saturated(seen(net, params, batch_for(net, x=x))))
    assert [(one.place.layer, one.place.gate, one.place.timestep) for one in found] == [
        (layer.name, "o", first) for layer in net.layers
    ]
    assert found[0].numbers["steps"].value == stop - first


def test_the_stretch_of_a_reverse_direction_with_unequal_lengths_is_placed_where_the_data_have_it():
    T, first, stop = 50, 10, 30
    net = network(GRU(), readout="every", bidirectional=True)
    params = in_order(net, memory=5.0)
    x = np.random.default_rng(3).standard_normal((T, 8, 4))
    x[:, :, 3], x[first:stop, :, 3] = 0.0, 1.0
    for layer in net.layers:
        params[f"{layer.name}.W"][:, 3] = 0.0
        params[f"{layer.name}.W"][rows(GRU(), "n", 12), 3] = 9.0
    found = grave(saturated(seen(net, params, batch_for(net, x=x, lengths=np.array([50, 40, 35, 44, 50, 33, 38, 41])))))
    assert {one.place.layer for one in found} == {"0.forward", "0.backward"}
    assert all(abs(one.place.timestep - first) <= 2 for one in found)  # of n, r n and the state: a step or two to settle


def test_open_f_and_z_are_memory():
    for cell, gate in ((LSTM(), "f"), (GRU(), "z"), (LSTM(coupled=True), "f")):
        net = network(cell)
        params = in_order(net)
        params["0.b"][rows(cell, gate, 12)] = 9.0
        assert not list(saturated(seen(net, params)))


@pytest.mark.parametrize("steps", [100, 1000])
def test_chrono_gates_are_not_stuck(steps):
    """Tallec & Ollivier (2018): b_f = ln U[1, T_max - 1], b_i = -b_f. The input gates are as good as closed, on purpose."""
    net = network(LSTM(), H=32)
    params = net.init(np.random.default_rng(0))
    b = np.log(np.random.default_rng(1).uniform(1.0, steps - 1.0, 32))
    params["0.b"][32:64], params["0.b"][:32] = b, -b
    assert not list(saturated(seen(net, params, batch_for(net, T=80))))


def test_a_unit_that_switches_between_both_ends_computes():
    net = network(Elman())
    params = in_order(net)
    params["0.U"][:] = 0.0
    params["0.W"][:] = [200.0, 0.0, 0.0, 0.0]  # every unit is the sign of the first input
    evidence = seen(net, params)
    (found,) = saturated(evidence)
    assert found.severity == "info"
    assert "switching" in found.message
    assert saturated_statistic(evidence.layers[0])["h"] == 0.0


def test_a_latch_that_stores_another_bit_in_each_sequence_computes():
    net = network(Elman(), D=1)
    params = in_order(net)
    params["0.U"], params["0.W"] = 4.0 * np.eye(12), np.full((12, 1), 8.0)
    x = np.zeros((40, 8, 1))
    x[0, :, 0] = np.resize([1.0, -1.0], 8)  # and then h = tanh(4 h) holds +-0.9993 for good
    assert not grave(saturated(seen(net, params, batch_for(net, x=x))))


def test_a_gate_that_opens_once_in_each_sequence_computes():
    """The input gate of the adding problem: closed but for the marked steps, however long the sequence."""
    T, B = 200, 8
    net = network(LSTM(), D=2)
    params = in_order(net)
    x = np.random.default_rng(0).uniform(0.0, 1.0, (T, B, 2))
    x[:, :, 1] = 0.0
    x[np.random.default_rng(1).integers(0, T, B), np.arange(B), 1] = 1.0
    params["0.b"][rows(LSTM(), "i", 12)], params["0.b"][rows(LSTM(), "f", 12)] = -8.0, 3.0
    params["0.W"][rows(LSTM(), "i", 12), 1] = 10.0
    assert not grave(saturated(seen(net, params, batch_for(net, x=x))))


def test_without_a_network_the_function_comes_from_the_record():
    net = network(Elman())
    params = in_order(net)
    params["0.b"][:] = 7.0
    assert [one.place.gate for one in grave(saturated(seen(net, params, bare=True)))] == ["h"]
    states = np.zeros((31, 8, 12))  # of nobody knows what: values between 0 and 1, never 0
    states[1:] = 0.999
    record = Record(np.zeros(()), np.zeros(()), {}, {"0": LayerRecord({"h": (0, 12)}, states=states)}, np.zeros((30, 8, 4)))
    assert not list(saturated(Evidence((Look(record),))))


# ---- forget gate closed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "gate", "bias", "T"),
    [
        (LSTM(), "f", 0.0, 100),
        (LSTM(), "f", -3.0, 40),
        (GRU(), "z", 0.0, 100),
        (GRU(), "z", -2.0, 40),
        (LSTM(coupled=True), "f", -1.0, 60),
    ],
    ids=str,
)
def test_a_closed_gate_is_named_with_its_time_constant(cell, gate, bias, T):
    net = network(cell, num_layers=2)
    params = in_order(net)
    params["1.W"] *= 0.0
    params["1.U"][rows(cell, gate, 12)] = 0.0
    params["1.b"][rows(cell, gate, 12)] = bias
    found = [one for one in grave(forget_closed(seen(net, params, batch_for(net, T=T)))) if one.place.layer == "1"]
    assert [one.place.gate for one in found] == [gate]
    tau = inits.forget_time_constant(bias)  # -1/ln sigma(b), exact: nothing else enters the gate
    assert abs(found[0].numbers["time constant"].value - tau) < 1e-9 * tau
    lost = found[0].numbers["loss through the gate"]
    assert abs(lost.value - T / tau) < 1e-9 * T / tau


def test_the_same_gate_is_long_enough_for_a_short_sequence_or_dependency():
    net = network(LSTM(), H=32)
    params = net.init(np.random.default_rng(0), forget_bias=0.0)
    assert grave(forget_closed(seen(net, params, batch_for(net, T=100))))
    assert not list(forget_closed(seen(net, params, batch_for(net, T=10))))
    assert not list(forget_closed(seen(net, params, batch_for(net, T=100), told=Circumstances(dependency=10))))
    (found,) = grave(forget_closed(seen(net, params, batch_for(net, T=100), told=Circumstances(dependency=60))))
    assert found.numbers["steps to bridge"].value == 60.0


def test_one_unit_that_remembers_is_enough():
    net = network(LSTM())
    params = in_order(net)
    params["0.b"][rows(LSTM(), "f", 12)] = -1.0
    assert grave(forget_closed(seen(net, params, batch_for(net, T=100))))
    params["0.b"][12] = inits.forget_bias(100.0)
    params["0.U"][12] = params["0.W"][12] = 0.0
    evidence = seen(net, params, batch_for(net, T=100))
    assert not list(forget_closed(evidence))
    assert forget_closed_statistic(evidence, evidence.layers[0]) == 0.0  # 1 nat, and the gradient is not lost


def test_a_gate_is_not_blamed_for_what_it_does_not_explain():
    """A GRU whose candidate carries the gradient: z near 0, and n = tanh(U_n h) with an orthogonal U_n."""
    net = network(GRU())
    params = in_order(net)
    params["0.W"] *= 0.01
    params["0.b"][rows(GRU(), "z", 12)] = -9.0
    params["0.b"][rows(GRU(), "r", 12)] = 9.0
    assert not list(forget_closed(seen(net, params, batch_for(net, T=60))))


def test_a_loss_at_every_step_makes_it_an_info_until_the_dependency_is_told():
    net = network(LSTM(), readout="every")
    params = net.init(np.random.default_rng(0), forget_bias=-1.0)
    evidence = seen(net, params, batch_for(net, T=60))
    assert [one.severity for one in forget_closed(evidence)] == ["info"]
    told = seen(net, params, batch_for(net, T=60), told=Circumstances(dependency=50))
    assert [one.severity for one in forget_closed(told)] == ["warning"]


def test_a_length_that_nobody_asked_for_makes_it_an_info_unless_nothing_is_kept_at_all():
    net = network(LSTM())
    for bias, severity in ((0.0, "info"), (-3.0, "warning")):  # 1.4 steps, and 0.3
        params = net.init(np.random.default_rng(0), forget_bias=bias)
        evidence = seen(net, params, batch_for(net, T=100), assumed_inputs=True)
        assert [one.severity for one in forget_closed(evidence)] == [severity]


def test_a_bare_record_is_judged_by_its_adjoints_or_says_less():
    net = network(LSTM())
    params = net.init(np.random.default_rng(0), forget_bias=-1.0)
    batch = batch_for(net, T=60)
    whole, bare = seen(net, params, batch), seen(net, params, batch, bare=True)
    assert [one.severity for one in forget_closed(bare)] == ["warning"]
    a, b = (forget_closed_statistic(one, one.layers[0]) for one in (whole, bare))
    assert a == b > LOST.value


# ---- dead ReLU --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "share", "severity"),
    [
        (Elman("relu"), 0.75, "warning"),
        (Elman("relu"), 1.0, "error"),
        (Clockwork((1, 2), "relu"), 0.75, "warning"),
        (Jordan(3, activation="relu"), 0.75, "warning"),
        (Elman("relu"), 0.25, "info"),
    ],
    ids=str,
)
@pytest.mark.parametrize("bare", [False, True], ids=["network", "record"])
def test_dead_units_are_counted_exactly(cell, share, severity, bare):
    if bare and isinstance(cell, Jordan):
        pytest.skip("the hidden units of a Jordan net are no state, so a bare record does not hold them")
    net = network(cell, H=16, num_layers=2)
    params = in_order(net)
    for name in "01":
        params[f"{name}.b"][:] = 5.0  # alive for sure
    params["1.U"] *= 0.1
    params["1.b"][: int(16 * share)] = -1e3
    evidence = seen(net, params, bare=bare)
    (found,) = dead_relu(evidence)
    assert (found.severity, found.place.layer) == (severity, "1")
    assert next(iter(found.numbers.values())).value == share == dead_relu_statistic(evidence.layers[1])
    gradient = evidence.looks[0].record.gradients
    if not isinstance(cell, Jordan):
        assert not gradient["1.W"][: int(16 * share)].any()  # exactly nothing reaches them


def test_leaky_and_other_units_are_never_dead():
    for name in ("leaky_relu", "tanh", "linear", "sigmoid"):
        net = network(Elman(name))
        params = {key: 0.0 * value for key, value in in_order(net).items()}
        assert not list(dead_relu(seen(net, params)))


def test_units_that_are_0_half_of_the_time_are_alive():
    net = network(Elman("relu"), H=32)
    params = in_order(net)
    params["0.U"] *= 0.1
    evidence = seen(net, params)
    assert 0.3 < (evidence.looks[0].record.layers["0"].states[1:] == 0.0).mean() < 0.7
    assert not list(dead_relu(evidence))


def test_few_steps_prove_no_death():
    net = network(Elman("relu"))
    params = in_order(net)
    params["0.b"][:] = -1e3
    assert [one.severity for one in dead_relu(seen(net, params, batch_for(net, T=3, B=2)))] == ["info"]


# ---- all three --------------------------------------------------------------------------------------------------------

HEALTHY = {
    "Elman, orthogonal": (Elman(), {"recurrent_init": inits.orthogonal()}, 60),
    "Elman, critical": (Elman(), {"input_init": inits.glorot(), "recurrent_init": inits.gaussian()}, 60),
    "hard tanh": (Elman("hard_tanh"), {"recurrent_init": inits.orthogonal(0.9)}, 40),
    "ReLU, identity": (Elman("relu"), {"recurrent_init": inits.identity(0.9)}, 40),
    "IRNN": (irnn(), {}, 60),
    "LSTM, long memory": (LSTM(), {"forget_bias": inits.forget_bias(60.0)}, 60),
    "LSTM, default, short": (LSTM(), {"forget_bias": 0.0}, 15),
    "LSTM, bias 1": (LSTM(), {}, 30),
    "peepholes": (LSTM(peepholes=True), {"forget_bias": 4.0}, 40),
    "coupled": (LSTM(coupled=True), {"forget_bias": 4.0}, 40),
    "no forget gate": (LSTM(forget_gate=False), {}, 60),
    "GRU, short": (GRU(), {}, 15),
    "SCRN": (SCRN(8), {}, 60),
    "Clockwork": (Clockwork((1, 2, 4, 8)), {}, 40),
    "Jordan": (Jordan(4), {}, 30),
    "sigmoid": (Elman("sigmoid"), {}, 30),
}


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize(("layers", "both", "symbols"), [(1, False, False), (3, True, False), (2, False, True)])
def test_a_healthy_network_raises_no_alarm(name, layers, both, symbols):
    cell, options, T = HEALTHY[name]
    net = network(cell, D=5, H=16, num_layers=layers, bidirectional=both)
    params = net.init(np.random.default_rng(2), **options)
    x = np.eye(5)[np.random.default_rng(3).integers(0, 5, (T, 8))] if symbols else None
    evidence = seen(net, params, batch_for(net, T=T, x=x))
    assert not [str(one) for rule in RULES for one in grave(rule(evidence))]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_changes_nothing(scale):
    for cell, gate, bias in ((LSTM(), "o", -9.0), (GRU(), "z", -4.0), (LSTM(), "f", -2.0)):
        net = network(cell)
        params = in_order(net)
        params["0.b"][rows(cell, gate, 12)] = bias
        for bare in (False, True):
            one, other = (seen(net, params, batch_for(net, T=50), scale=s, bare=bare) for s in (1.0, scale))
            a, b = ([str(f) for rule in RULES for f in rule(evidence)] for evidence in (one, other))
            assert a == b
            assert a


@pytest.mark.parametrize("cell", cells.ALL, ids=str)
@pytest.mark.parametrize(("T", "B", "H"), [(1, 1, 1), (2, 3, 1), (5, 1, 2)])
def test_no_rule_raises_on_the_smallest_of_networks(cell, T, B, H):
    net = Network(cell, 2, H, 1, num_layers=2, bidirectional=True)
    params = net.init(np.random.default_rng(0))
    for bare in (False, True):
        evidence = seen(net, params, batch_for(net, T=T, B=B), bare=bare)
        assert not [str(one) for rule in RULES for one in grave(rule(evidence))]


class Bare:
    """A user's cell that is only a step."""

    def init(self, rng, input_size, hidden_size):
        return {"A": rng.standard_normal((hidden_size, input_size)), "M": np.eye(hidden_size), "c": np.zeros(hidden_size)}

    def step(self, params, x_t, s_prev, t):
        return np.tanh(x_t @ params["A"].T + s_prev @ params["M"].T + params["c"])


def test_the_units_of_a_users_cell_are_judged_by_their_values():
    net = network(Bare(), H=4)
    params = net.init(np.random.default_rng(0))
    params |= {"0.A": 0.1 * params["0.A"], "0.M": 0.5 * np.eye(4), "0.c": np.array([5.0, -5.0, 5.0, -5.0])}
    assert [one.place.gate for one in grave(saturated(seen(net, params)))] == ["h"]
    assert not [one for rule in RULES for one in rule(seen(net, params | {"0.c": np.zeros(4)}))]


def test_no_rule_raises_on_numbers_that_are_not_finite_or_on_ensembles():
    net = network(LSTM())
    params = in_order(net)
    evidence = seen(net, params)
    record = evidence.looks[0].record
    layer = record.layers["0"]
    broken = {gate: np.where(np.arange(30)[:, None, None] > 5, np.nan, value) for gate, value in layer.gates.items()}
    states = np.where(np.arange(31)[:, None, None] > 5, np.nan, layer.states)
    bad = Record(record.loss, record.outputs, {}, {"0": LayerRecord(layer.parts, states, broken)}, record.inputs)
    poisoned = params | {"0.U": np.full_like(params["0.U"], np.nan)}
    stacked = params | {"0.U": np.stack([params["0.U"]] * 3)}
    ensemble = bptt(net, stacked, batch_for(net), mean_squared_error)
    for look in (Look(bad), Look(bad, net=net, params=poisoned), Look(ensemble), Look(ensemble, net=net, params=stacked)):
        assert not [one for rule in RULES for one in rule(Evidence((look,)))]


def test_every_code_stands_in_the_catalogue_with_code_that_parses():
    assert set(GATES) == {"saturated", "forget-closed", "dead-relu", "nonfinite", "input-scale", "padding-counted"}
    for entry in GATES.values():
        assert all((entry.title, entry.meaning, entry.remedy, entry.pytorch, entry.keras, entry.reference))
        for text in (entry.pytorch, entry.keras):
            compile(text, "catalogue", "exec")
