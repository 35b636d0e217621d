"""Gates with values that are known: saturated shares, time constants, dead and stuck units, and the gradient at each gate."""

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
    Network,
    Record,
    bptt,
    cells,
    inits,
    irnn,
    mean_squared_error,
)
from gradlab._math import sigmoid
from gradlab.analysis.gate_gradients import gate_flow
from gradlab.analysis.gates import gate_saturation, gate_time_constants, unit_activity
from gradlab.backward import KEEP
from gradlab.errors import ValueRangeError
from gradlab.record import LayerRecord


def recorded(gates=None, states=None, parts=None, lengths=None):
    """A record that holds what it is given and nothing else: gates (T, *E, B, H)."""
    like = next(iter(gates.values())) if gates else states[1:]
    layer = LayerRecord(parts or {}, states=states, gates=gates or {})
    return Record(
        np.zeros(()), np.zeros(()), {}, {"0": layer}, np.zeros((*like.shape[:1], *like.shape[-2:-1], 1)), lengths=lengths
    )


def passed(cell, params=None, T=6, B=3, H=4, D=2, lengths=None, seed=0, scale=1.0, keep=KEEP, **network):
    rng = np.random.default_rng(seed)
    net = Network(cell, D, H, **network)
    values = {k: scale * rng.uniform(-0.9, 0.9, s) for k, s in net.shapes.items()} if params is None else params(net)
    batch = Batch(rng.normal(size=(T, B, D)), rng.normal(size=(T, B, net.output_size or net.top_size)), lengths=lengths)
    return net, values, bptt(net, values, batch, mean_squared_error, keep)


# ---- saturation -----------------------------------------------------------------------------------------------


def test_shares_count_the_steps_on_each_side_unit_by_unit():
    f = np.zeros((10, 2, 3))
    f[..., 0] = 0.5  # never
    f[:3, :, 1], f[3:, :, 1] = 0.05, 0.95  # 30 % closed, 70 % open
    f[..., 2] = np.linspace(0.0, 0.19, 20).reshape(10, 2)  # 0, 0.01, ..., 0.19: 11 of 20 at most 0.1
    found = gate_saturation(recorded({"f": f}))
    np.testing.assert_allclose(found.left["0/f"], [0.0, 0.3, 0.55], rtol=1e-15)
    np.testing.assert_allclose(found.right["0/f"], [0.0, 0.7, 0.0], rtol=1e-15)
    np.testing.assert_allclose(found.left_share["0/f"], 0.85 / 3.0, rtol=1e-15)  # one rounding each
    assert found.samples == 20
    strict = gate_saturation(recorded({"f": f}), low=0.01, high=0.99)
    np.testing.assert_allclose(strict.left["0/f"], [0.0, 0.0, 0.1], rtol=1e-15)


def test_candidates_from_minus_one_to_one_have_their_thresholds_at_the_same_share_of_the_range():
    g = np.array([-0.9, -0.7, 0.0, 0.7, 0.9]).reshape(5, 1, 1)
    found = gate_saturation(recorded({"g": g, "i": np.abs(g)}))
    assert (found.left["0/g"], found.right["0/g"]) == (0.2, 0.2)  # at -0.8 and 0.8
    assert (found.left["0/i"], found.right["0/i"]) == (0.2, 0.4)  # at 0.1 and 0.9
    named = gate_saturation(recorded({"g": g}), signed=())
    assert named.left["0/g"] == 0.6


def test_steps_that_do_not_exist_do_not_count():
    f = np.full((4, 2, 1), 0.5)
    f[2:, 1] = 1.0  # behind the end of the second row
    f[0, 1] = 0.0
    found = gate_saturation(recorded({"f": f}, lengths=np.array([4, 2])))
    assert found.samples == 6
    np.testing.assert_allclose([found.left["0/f"][0], found.right["0/f"][0]], [1.0 / 6.0, 0.0], rtol=1e-15)


@pytest.mark.parametrize("cell", [LSTM(), LSTM(coupled=True), LSTM(forget_gate=False), GRU(), GRU(reset="before")], ids=repr)
def test_every_cell_with_gates_reports_all_of_them_and_ensembles_keep_their_axes(cell):
    net, params, _ = passed(cell)
    params["0.U"] = params["0.U"] * np.array([1.0, 0.0]).reshape(2, 1, 1)
    rng = np.random.default_rng(1)
    record = bptt(net, params, Batch(rng.normal(size=(5, 3, 2)), rng.normal(size=(5, 3, 4))), mean_squared_error)
    found = gate_saturation(record)
    assert sorted(found.left) == sorted(f"0/{gate}" for gate in ("ifgo" if isinstance(cell, LSTM) else "rzn"))
    for key, left in found.left.items():
        assert left.shape == (2, 4)
        assert found.left_share[key].shape == (2,)
        assert ((left >= 0.0) & (left + found.right[key] <= 1.0)).all()
    if not cell.gates.count("f") and isinstance(cell, LSTM):
        assert (found.right["0/f"] == 1.0).all()  # f = 1


# ---- time constants ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bias", "tau"), [(0.0, 1.442695), (1.0, 3.192219), (2.0, 7.878482), (4.0, 55.09664), (10.0, 22026.97)])
def test_a_forget_bias_alone_has_its_time_constant(bias, tau):
    def params(net):
        values = {k: np.zeros(s) for k, s in net.shapes.items()}
        values["0.b"][4:8] = bias
        return values

    found = gate_time_constants(passed(LSTM(), params, keep=("gates",))[2])
    np.testing.assert_allclose(found.time_constants["0/f"], tau, rtol=1e-6)  # the digits of the table
    # -ln f = ln(1 + exp(-bias)); f = 1 - 5e-5 has lost 4 of its 16 digits.
    np.testing.assert_allclose(found.rates["0/f"], np.log1p(np.exp(-bias)), rtol=1e-11)
    np.testing.assert_allclose(found.errors["0/f"], 0.0, atol=1e-16)
    assert found.beyond["0/f"] == (1.0 if tau > 6.0 else 0.0)
    assert found.steps == 6


def test_the_rate_is_that_of_the_product_of_the_gates():
    _, _, record = passed(LSTM(), T=9)
    f = record.layers["0"].gates["f"]
    found = gate_time_constants(record)
    product = f.prod(axis=0)  # dc_T/dc_0 along the cell path
    np.testing.assert_allclose(found.rates["0/f"], -np.log(product).mean(axis=0) / 9.0, rtol=1e-13)  # sums of 9 logarithms
    spread = (-np.log(product) / 9.0).std(axis=0, ddof=1) / np.sqrt(3.0)
    np.testing.assert_allclose(found.errors["0/f"], spread, rtol=1e-11)
    np.testing.assert_allclose(found.time_constants["0/f"] * found.rates["0/f"], 1.0, rtol=1e-15)


def test_gates_that_are_0_or_1_forget_at_once_or_never():
    f = np.ones((5, 2, 3))
    f[..., 1] = 0.0
    f[..., 2] = np.exp(-1.0)
    found = gate_time_constants(recorded({"f": f}))
    np.testing.assert_allclose(found.time_constants["0/f"], [np.inf, 0.0, 1.0], rtol=1e-15)
    np.testing.assert_allclose(found.beyond["0/f"], 1.0 / 3.0)
    assert found.status.ok


def test_the_update_gate_of_the_gru_keeps_and_ragged_rows_count_by_their_steps():
    z = np.full((4, 2, 1), np.exp(-0.5))
    z[1:, 1] = 0.0  # behind the end of the second row
    z[0, 1] = np.exp(-3.0)
    found = gate_time_constants(recorded({"z": z, "r": z}, lengths=np.array([4, 1])))
    assert list(found.rates) == ["0/z"]
    np.testing.assert_allclose(found.rates["0/z"], (4 * 0.5 + 3.0) / 5.0, rtol=1e-15)
    assert list(gate_time_constants(recorded({"z": z, "r": z}), "r").rates) == ["0/r"]


def test_a_record_without_gates_or_without_that_gate_is_refused():
    bare = passed(Elman("tanh"))[2]
    for function in (gate_saturation, gate_time_constants):
        with pytest.raises(ValueRangeError, match="record has no gates"):
            function(bare)
    with pytest.raises(ValueRangeError, match=r"gate is 'q'; expected one of those in the record, 0/r, 0/z, 0/n"):
        gate_time_constants(passed(GRU())[2], "q")
    for low, high in ((0.9, 0.1), (0.0, 0.5), (0.5, 1.0)):
        with pytest.raises(ValueRangeError, match="low is"):
            gate_saturation(passed(GRU())[2], low, high)


def test_gates_that_are_not_finite_are_told():
    f = np.full((3, 1, 2), 0.5)
    f[1, 0, 1] = np.nan
    assert gate_saturation(recorded({"f": f})).status.code == "overflow"
    assert gate_time_constants(recorded({"f": f})).status.code == "overflow"


# ---- dead and stuck units ----------------------------------------------------------------------------------------------


def test_a_relu_that_is_never_active_is_dead_and_a_tanh_that_is_always_negative_is_not():
    def params(net):
        values = net.init(np.random.default_rng(0))
        values["0.b"][:] = [-100.0, 1.0, 1.0, -100.0]
        return values

    relu = unit_activity(passed(Elman("relu"), params)[2])
    np.testing.assert_array_equal(relu.dead["0/h"], [True, False, False, True])
    np.testing.assert_array_equal(relu.stuck["0/h"], [True, False, False, True])
    tanh = unit_activity(passed(Elman("tanh"), params)[2])
    assert not tanh.dead["0/h"].any()
    np.testing.assert_array_equal(tanh.stuck["0/h"], [True, False, False, True])  # at -1 throughout


def test_the_identity_network_with_positive_inputs_has_no_dead_unit():
    net = Network(irnn(), 1, 5)
    params = net.init(np.random.default_rng(0)) | {"0.W": np.full((5, 1), 0.1)}
    record = bptt(net, params, Batch(np.ones((6, 2, 1)), np.zeros((6, 2, 5))), mean_squared_error)
    assert not unit_activity(record).dead["0/h"].any()


def test_stuck_is_relative_to_the_widest_range_and_the_initial_state_does_not_count():
    states = np.zeros((6, 2, 3))
    states[1:, :, 0] = np.linspace(0.0, 100.0, 10).reshape(5, 2)
    states[1:, :, 1] = np.linspace(0.0, 0.9, 10).reshape(5, 2)  # 0.9 % of the widest
    states[1:, :, 2] = np.linspace(5.0, 6.1, 10).reshape(5, 2)  # 1.1 %
    states[0] = -1000.0
    found = unit_activity(recorded(states=states, parts={"h": (0, 3)}))
    np.testing.assert_array_equal(found.stuck["0/h"], [False, True, False])
    np.testing.assert_allclose(found.ranges["0/h"], [100.0, 0.9, 1.1], rtol=1e-14)
    scaled = unit_activity(recorded(states=1e-9 * states, parts={"h": (0, 3)}))
    np.testing.assert_array_equal(scaled.stuck["0/h"], found.stuck["0/h"])  # scale-free


def test_gates_are_stuck_relative_to_their_own_range():
    gates = {"i": np.full((4, 2, 2), 0.5), "g": np.full((4, 2, 2), -0.5)}
    gates["i"][0, 0] += [0.011, 0.009]
    gates["g"][0, 0] += [0.021, 0.019]
    record = recorded(gates, states=np.random.default_rng(0).normal(size=(5, 2, 2)), parts={"h": (0, 2)})
    found = unit_activity(record)
    np.testing.assert_array_equal(found.stuck["0/i"], [False, True])
    np.testing.assert_array_equal(found.stuck["0/g"], [False, True])


def test_padding_wakes_no_unit():
    states = np.zeros((5, 2, 2))
    states[1:, 0, 0] = [1.0, 2.0, 3.0, 4.0]
    states[3:, 1, 1] = 7.0  # behind the end of the second row
    found = unit_activity(recorded(states=states, parts={"h": (0, 2)}, lengths=np.array([4, 2])))
    np.testing.assert_array_equal(found.dead["0/h"], [False, True])


def test_a_record_without_states_and_a_threshold_that_is_no_share_are_refused():
    record = passed(LSTM(), keep=("gates",))[2]
    with pytest.raises(ValueRangeError, match="states was not kept"):
        unit_activity(record)
    with pytest.raises(ValueRangeError, match=r"threshold is 1\.5"):
        unit_activity(passed(LSTM())[2], 1.5)


# ---- gradient at the gates -----------------------------------------------------------------------------------------------


def own_inputs(cell, rows, H, rng):
    """A net in which each pre-activation has an input of its own, W = I: dL/dx_t is then the adjoint of the pre-activations."""
    net = Network(cell, rows, H, output_size=2)
    params = {k: rng.uniform(-0.9, 0.9, s) for k, s in net.shapes.items()}
    return net, params


@pytest.mark.parametrize("lengths", [None, np.array([5, 3])])
@pytest.mark.parametrize("cell", [c for c in cells.ALL if isinstance(c, (LSTM, GRU, Elman, Clockwork))], ids=repr)
def test_the_adjoint_of_each_gate_is_the_gradient_of_an_input_of_its_own(cell, lengths):
    rng = np.random.default_rng(4)
    H = 4
    names = cell.gates or ("a",)
    net, params = own_inputs(cell, len(names) * H, H, rng)
    params["0.W"] = np.eye(len(names) * H)
    batch = Batch(rng.normal(size=(5, 2, len(names) * H)), rng.normal(size=(5, 2, 2)), lengths=lengths)
    record = bptt(net, params, batch, mean_squared_error, ("states", "adjoints", "input_gradient"))
    found = gate_flow(net, params, record)
    assert sorted(found.log_norm) == sorted(f"0/{name}" for name in names)
    for k, name in enumerate(names):
        direct = np.linalg.norm(record.input_gradient[..., k * H : (k + 1) * H], axis=-1)
        np.testing.assert_allclose(np.exp(found.log_norm[f"0/{name}"]), direct, rtol=1e-12, err_msg=name)  # one product with I


def test_the_hidden_pre_activations_of_scrn_and_jordan_are_found_too():
    rng = np.random.default_rng(5)
    net, params = own_inputs(SCRN(2), 4, 4, rng)
    params |= {"0.A": np.eye(4), "0.B": np.zeros((2, 4))}
    batch = Batch(rng.normal(size=(5, 2, 4)), rng.normal(size=(5, 2, 2)))
    record = bptt(net, params, batch, mean_squared_error, ("states", "adjoints", "input_gradient"))
    found = gate_flow(net, params, record).log_norm
    np.testing.assert_allclose(np.exp(found["0/a"]), np.linalg.norm(record.input_gradient, axis=-1), rtol=1e-12)
    net, params = own_inputs(Jordan(3, mu=0.5), 4, 4, rng)
    params["0.W"] = np.eye(4)
    record = bptt(net, params, batch, mean_squared_error, ("states", "adjoints", "input_gradient"))
    found = gate_flow(net, params, record).log_norm
    np.testing.assert_allclose(np.exp(found["0/a"]), np.linalg.norm(record.input_gradient, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(
        np.exp(found["0/a_y"]), np.linalg.norm(record.layers["0"].adjoints[1:], axis=-1), rtol=1e-12
    )  # g' = 1


def test_a_saturated_gate_passes_what_its_slope_lets_through():
    # Only the bias of the output gate differs: the adjoint of that gate falls with its slope, sigmoid'.
    flows = []
    for bias in (0.0, 30.0):
        net = Network(LSTM(), 2, 3, readout="last")
        params = net.init(np.random.default_rng(0), recurrent_init=inits.identity(0.0))
        params["0.b"][9:] = bias
        params["0.W"][9:] = 0.0
        batch = Batch(np.random.default_rng(1).normal(size=(4, 1, 2)), np.full((1, 3), 1e3))
        record = bptt(net, params, batch, mean_squared_error)
        flows.append(gate_flow(net, params, record).log_norm["0/o"][-1, 0])
    drop = np.log(sigmoid(np.array(30.0)) * sigmoid(np.array(-30.0)) / 0.25)
    np.testing.assert_allclose(flows[1] - flows[0], drop, rtol=1e-3)  # the error of the output, 1e3, changes by 0.1 %


def test_layers_directions_and_ensembles_each_have_their_flow():
    net, params, record = passed(LSTM(), num_layers=2, bidirectional=True, lengths=np.array([6, 2, 4]))
    found = gate_flow(net, params, record).log_norm
    assert len(found) == 16
    for key, flow in found.items():
        assert flow.shape == (6, 3), key
        assert (flow[2:, 1] == -np.inf).all()  # steps that do not exist
        assert np.isfinite(flow[1, 1])
        assert np.isfinite(flow[0, 1]) != key.endswith("/f")  # c_0 = 0 hides the first forget gate


def test_a_cell_without_pre_activations_of_its_own_is_refused_by_name():
    class Mine:
        def init(self, rng, input_size, hidden_size):
            return {"U": 0.1 * rng.normal(size=(hidden_size, hidden_size))}

        def step(self, params, x_t, s_prev, t):
            return np.tanh(x_t + s_prev @ params["U"].T)

    net = Network(Mine(), 3, 3)
    params = net.init(np.random.default_rng(0))
    record = bptt(net, params, Batch(np.ones((3, 1, 3)), np.zeros((3, 1, 3))), mean_squared_error)
    with pytest.raises(ValueRangeError, match=r"Mine\(\) is differentiated from its step"):
        gate_flow(net, params, record)
