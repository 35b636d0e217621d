"""Vanishing, exploding, transient growth and short horizons: planted at known places, absent where nothing is wrong."""

import numpy as np
import pytest
from flow_cases import MEASURED, evidence_of, healthy, linear, noise, recalling

from gradlab import GRU, LSTM, Batch, Elman, Network, bptt, mean_squared_error, softmax_cross_entropy
from gradlab.diagnosis.evidence import Evidence, Look
from gradlab.diagnosis.gain import collapse, gain_of
from gradlab.diagnosis.growth import TRANSIENT, growth_of
from gradlab.diagnosis.rules_flow import EXPLODED, exploding, exploding_statistic, transient_growth, transient_statistic
from gradlab.diagnosis.rules_memory import GONE, LOST, horizon_statistic, short_horizon, vanishing, vanishing_statistic

RULES = (transient_growth, exploding, vanishing, short_horizon)


def findings(evidence, rules=RULES):
    with np.errstate(all="ignore"):
        return [one for rule in rules for one in rule(evidence)]


def codes(evidence):
    return [one.code for one in findings(evidence)]


# ---- vanishing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "T", "severity"), [(0.6, 60, "warning"), (0.7, 60, "warning"), (0.3, 40, "error")])
def test_a_linear_net_vanishes_where_its_power_falls_below_the_spacing_of_float32(gain, T, severity):
    evidence = evidence_of(*linear(gain, T=T))
    (found,) = findings(evidence)
    lag = int(np.ceil(LOST.value / np.log(gain)))  # gain^lag < 2^-23
    assert (found.code, found.severity) == ("vanishing", severity)
    assert found.place.layer == "0"
    assert found.place.lag == lag
    assert found.place.timestep == T - lag - 1  # state T - lag was made from input T - lag - 1
    assert found.numbers["gain"].value == pytest.approx((T - 1) * np.log(gain), abs=1e-9)  # 60 products
    assert found.numbers["slope"].value == pytest.approx(np.log(gain), abs=1e-9)
    assert vanishing_statistic(evidence, evidence.layers[0]) == found.numbers["gain"].value


def test_a_shorter_sequence_is_no_vanishing():
    assert codes(evidence_of(*linear(0.6, T=20))) == []


@pytest.mark.parametrize("sick", ["0.forward", "0.backward", "1.forward", "1.backward"])
def test_the_layer_and_direction_that_vanishes_is_named_alone(sick):
    net, params, batch = linear(1.0, T=50, layers=2, bidirectional=True, factors={sick: 0.4})
    (found,) = findings(evidence_of(net, params, batch))
    assert (found.place.layer, found.place.direction) == (sick, sick.partition(".")[2])
    lag = int(np.ceil(LOST.value / np.log(0.4)))
    # the reverse direction ends at input 0, and its lags count from there
    assert found.place.timestep == (lag if "backward" in sick else 50 - lag - 1)
    assert found.severity == "warning"  # below float64 too, but the other layers carry


def test_rows_of_unequal_lengths_are_judged_at_their_own_first_input():
    lengths = np.array([60, 60, 60, 60, 60, 20, 10, 3])
    (found,) = findings(evidence_of(*linear(0.6, lengths=lengths)))
    assert found.numbers["gain"].value == pytest.approx(59 * np.log(0.6), abs=1e-9)  # of the five that vanish
    assert "5 of 8 sequences" in found.message
    short = np.array([20, 20, 20, 20, 20, 20, 10, 60])
    assert codes(evidence_of(*linear(0.6, lengths=short))) == []  # one of eight


def resetting(T, at, rows=None, B=8, H=5, bidirectional=False):
    """An LSTM that keeps everything, and closes its forget gate where the second input is 1. No recurrent weights."""
    net = Network(LSTM(), 2, H, 1, bidirectional=bidirectional, readout="last")
    params = net.init(np.random.default_rng(0), forget_bias=8.0)
    for layer in net.layers:
        params[f"{layer.name}.U"][:] = 0.0
        params[f"{layer.name}.W"][H : 2 * H] = [0.0, -60.0]
    x = noise(T, B) * [1.0, 0.0]
    x[at, slice(None) if rows is None else rows, 1] = 1.0
    return net, params, Batch(x, None)


@pytest.mark.parametrize(("T", "at"), [(60, 17), (60, 50), (200, 90)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_step_that_resets_the_state_is_named(T, at, bidirectional):
    found = findings(evidence_of(*resetting(T, at, bidirectional=bidirectional)))
    assert [one.code for one in found] == ["vanishing"] * (1 + bidirectional)
    assert {one.place.timestep for one in found} == {at}  # the input that closes the gate, in either direction
    assert all("one step" in one.message and "in c" in one.message for one in found)


def test_a_reset_in_part_of_the_batch_is_worth_knowing_and_no_more():
    (found,) = findings(evidence_of(*resetting(60, 30, rows=slice(0, 3))))
    assert (found.severity, found.place.timestep) == ("info", 30)
    assert "3 of 8 sequences" in found.message
    assert codes(evidence_of(*resetting(60, 30, rows=slice(0, 1)))) == []


def test_what_many_nearer_outputs_train_is_one_degree_less_grave():
    net, params, batch = linear(0.6)
    every = Network(net.cell, 2, 6, 3)
    labels = np.random.default_rng(0).integers(0, 3, batch.inputs.shape[:2])
    own = {key: value for key, value in params.items() if not key.startswith("readout")}
    own |= {k: v for k, v in every.init(np.random.default_rng(0)).items() if k.startswith("readout")}
    reading = Batch(batch.inputs, labels)
    assert [one.severity for one in findings(evidence_of(every, own, reading, softmax_cross_entropy))] == ["info"]
    told = findings(evidence_of(every, own, reading, softmax_cross_entropy, dependency=50))
    assert [(one.code, one.severity) for one in told] == [("vanishing", "warning"), ("short-horizon", "warning")]


def test_beyond_the_dependency_forgetting_is_allowed():
    assert codes(evidence_of(*linear(0.6), dependency=5)) == []
    assert codes(evidence_of(*linear(0.6), dependency=40)) == ["vanishing", "short-horizon"]


def test_a_bare_record_of_a_loss_at_the_end_shows_the_same_place():
    net, params, batch = linear(0.6)
    (whole,) = findings(evidence_of(net, params, batch, mean_squared_error))
    (bare,) = findings(evidence_of(net, params, batch, mean_squared_error, bare=True))
    assert bare.place == whole.place
    # a multiple of an orthogonal matrix treats all directions alike
    assert bare.numbers["gain"].value == pytest.approx(whole.numbers["gain"].value, abs=1e-9)


def test_a_bare_record_of_a_loss_at_every_step_says_nothing():
    net = Network(Elman(), 2, 4, 1)
    batch = Batch(noise(60), np.zeros((60, 8, 1)))
    assert codes(evidence_of(net, net.init(np.random.default_rng(0)), batch, mean_squared_error, bare=True)) == []


# ---- one step that does it, in a cell of the user's ---------------------------------------------------------


class Scaling:
    """s_t = x_t s_{t-1} + 1: the Jacobian is the input."""

    def init(self, rng, input_size, hidden_size):
        return {"W": np.ones((hidden_size, input_size))}

    def step(self, params, x_t, s_prev, t):
        return (x_t @ params["W"].T) * s_prev + 1.0


@pytest.mark.parametrize("at", [4, 20, 33])
@pytest.mark.parametrize(("factor", "code"), [(1e5, "exploding"), (1e-9, "vanishing"), (0.0, "vanishing")])
def test_a_single_step_of_a_users_cell_is_named(at, factor, code):
    net = Network(Scaling(), 1, 1)
    x = np.ones((40, 6, 1))
    x[at] = factor
    (found,) = findings(evidence_of(net, net.init(np.random.default_rng(0)), Batch(x, None)))
    assert (found.code, found.place.timestep, found.place.lag) == (code, at, 40 - at)
    assert "one step" in found.message


def test_the_largest_pair_of_steps_must_hold_half_of_the_loss():
    steady = -np.arange(30.0)
    assert collapse(steady) is None
    jump = steady - 40.0 * (np.arange(30) > 11)
    assert collapse(jump) == 11
    assert collapse(jump[:4]) is None  # too few to tell
    assert collapse(np.zeros(9)) is None
    dead = np.where(np.arange(30) > 11, -np.inf, steady)
    assert collapse(dead) == 11
    under = np.where(np.arange(90) > 80, -np.inf, -np.arange(90.0))
    assert collapse(under) is None  # below the smallest float: it vanished step by step


# ---- exploding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "T", "severity"), [(1.2, 50, "warning"), (1.5, 60, "error"), (2.0, 12, "warning")])
@pytest.mark.parametrize("H", [3, 20])
def test_a_linear_net_explodes_where_its_power_passes_a_hundred(gain, T, severity, H):
    evidence = evidence_of(*linear(gain, H=H, T=T))
    (found,) = findings(evidence)
    lag = int(np.ceil(EXPLODED.value / np.log(gain)))
    assert (found.code, found.severity, found.place.lag) == ("exploding", severity, lag)
    assert found.place.timestep == T - lag - 1
    assert found.numbers["gain"].value == pytest.approx((T - 1) * np.log(gain), abs=1e-9)
    assert found.numbers["radius"].value == pytest.approx(gain, rel=1e-12)  # of a multiple of an orthogonal matrix


@pytest.mark.parametrize("sick", ["0.backward", "1.forward"])
def test_the_layer_and_direction_that_explodes_is_named_alone(sick):
    net, params, batch = linear(0.95, T=40, layers=2, bidirectional=True, factors={sick: 1.3})
    (found,) = findings(evidence_of(net, params, batch))
    lag = int(np.ceil(EXPLODED.value / np.log(1.3)))
    assert (found.place.layer, found.place.lag) == (sick, lag)
    assert found.place.timestep == (lag if "backward" in sick else 40 - lag - 1)


@pytest.mark.parametrize("cell", [Elman(), LSTM(), GRU()], ids=repr)
def test_chaotic_cells_explode(cell):
    rng = np.random.default_rng(0)
    net = Network(cell, 2, 48)
    params = net.init(rng, recurrent_init=lambda g, shape: g.normal(0.0, 6.0 / np.sqrt(shape[1]), shape))
    found = findings(evidence_of(net, params, Batch(0.1 * noise(100), None)))
    assert [one.code for one in found] == ["exploding"]


def test_a_few_rows_that_lead_the_batch_are_told():
    net = Network(Scaling(), 1, 1)
    x = np.ones((30, 12, 1))
    x[10:20, :2] = 4.0
    evidence = evidence_of(net, net.init(np.random.default_rng(0)), Batch(x, None))
    (found,) = findings(evidence)
    assert found.code == "exploding"
    assert "2 of 12 sequences" in found.message
    assert exploding_statistic(evidence, evidence.layers[0]) == 0.0  # the median row


def test_adjoints_beyond_the_range_of_floats_explode_in_a_bare_record():
    net, params, batch = linear(30.0, T=40)
    low = {key: value.astype(np.float32) for key, value in params.items()}
    low["0.W"][:] = 0.0  # states stay 0, and 30^-lag leaves the range of float32 after 26 steps
    small = Batch(batch.inputs.astype(np.float32), batch.targets.astype(np.float32))
    evidence = evidence_of(net, low, small, mean_squared_error, bare=True)
    (found,) = findings(evidence)
    assert (found.code, found.severity) == ("exploding", "error")
    gain = findings(evidence_of(net, low, small, mean_squared_error))[0]  # with the network: the same, to the end
    assert gain.numbers["gain"].value == pytest.approx(39 * np.log(30.0), abs=1e-4)  # 39 products of single precision


# ---- transient growth ------------------------------------------------------------------------------------------


def shear(a, b, H, T, rotate=False, small=1.0):
    """A linear net with a on the diagonal of U and b above it."""
    net = Network(Elman("linear"), 2, H)
    params = net.init(np.random.default_rng(0))
    params["0.U"] = a * np.eye(H) + b * np.eye(H, k=1)
    if rotate:
        Q = np.linalg.qr(np.random.default_rng(2).normal(size=(H, H)))[0]
        params["0.U"] = Q @ params["0.U"] @ Q.T
    return net, params, Batch(small * noise(T, B=16), None)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_a_jordan_block_grows_and_decays(rotate, scale):
    evidence = evidence_of(*shear(0.9, 5.0, 2, 120, rotate, scale))
    (found,) = findings(evidence)
    assert (found.code, found.severity) == ("transient-growth", "warning")
    assert abs(found.place.lag - 9) <= 2  # the norm of the powers peaks at 9, of a random direction near it
    assert found.numbers["radius"].value == pytest.approx(0.9, rel=1e-6)  # a double eigenvalue has half of the digits
    assert found.numbers["henrici"].value == pytest.approx(5.0 / np.sqrt(2 * 0.81 + 25.0), rel=1e-12)
    assert found.numbers["gain"].value < np.log(19.4)  # the norm of the powers peaks at 19.379
    assert transient_statistic(evidence, evidence.layers[0]) == found.numbers["gain"].value > TRANSIENT.value


@pytest.mark.parametrize(("a", "b", "H", "T"), [(0.5, 1.0, 8, 60), (0.3, 1.5, 12, 20), (0.6, 1.0, 16, 80)])
def test_growth_beyond_a_hundredfold_is_transient_if_the_radius_says_so(a, b, H, T):
    found = findings(evidence_of(*shear(a, b, H, T)))
    assert [one.code for one in found if one.code != "vanishing"] == ["transient-growth"]


def test_growth_with_a_radius_above_one_is_not_transient():
    found = findings(evidence_of(*shear(1.05, 2.0, 3, 120)))
    assert [one.code for one in found] == ["exploding"]


def test_a_normal_matrix_has_no_transient():
    assert codes(evidence_of(*linear(0.9, T=100))) == []


# ---- the horizon ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps", [4, 8])
def test_a_dependency_beyond_the_horizon_is_told(keeps):
    H = 6
    net = Network(LSTM(), 2, H, 1, readout="last")
    params = net.init(np.random.default_rng(0), **recalling(keeps))
    params["0.U"][:] = 0.0
    params["0.W"][H : 2 * H] = 0.0
    batch = Batch(noise(90), np.ones((8, 1)))
    horizon = keeps * np.log(100.0)  # in c: f = exp(-1/keeps) a step, from lag 1 on
    for needed in (round(0.7 * horizon), round(1.5 * horizon)):
        evidence = evidence_of(net, params, batch, dependency=needed)
        found = findings(evidence, (short_horizon,))
        assert [one.code for one in found] == ["short-horizon"] * int(needed > horizon)
        ratio = horizon_statistic(evidence, evidence.layers[0])
        assert ratio == pytest.approx(horizon / needed, rel=1e-9)  # interpolation is exact for a straight line
    assert found[0].numbers["horizon"].value == pytest.approx(horizon, rel=1e-9)


def test_the_layer_that_remembers_longest_decides():
    net, params, batch = linear(0.5, layers=2, factors={"1": 1.0})
    assert findings(evidence_of(net, params, batch, dependency=50), (short_horizon,)) == []


# ---- what is not to be found --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", healthy())
def test_healthy_networks_are_left_alone(name):
    assert [one for one in findings(evidence_of(*healthy()[name])) if one.severity != "info"] == []


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("case", ["vanishing", "exploding", "bare"])
def test_the_size_of_the_loss_changes_nothing(case, scale):
    net, params, batch = linear(1.3 if case == "exploding" else 0.55)

    def scaled(outputs, targets, mask=None):
        value, d = mean_squared_error(outputs, targets, mask)
        return scale * value, scale * d

    one, other = (findings(evidence_of(net, params, batch, loss, bare=case == "bare")) for loss in (mean_squared_error, scaled))
    assert len(one) == 1
    if case == "bare":  # adjoints were multiplied: numbers agree to their rounding
        assert [(f.code, f.severity, f.place) for f in one] == [(f.code, f.severity, f.place) for f in other]
        assert one[0].numbers["gain"].value == pytest.approx(other[0].numbers["gain"].value, rel=1e-12)
    else:
        assert one == other


@pytest.mark.parametrize("T", [1, 2, 3])
@pytest.mark.parametrize("cell", [Elman(), LSTM(), GRU(), Scaling()], ids=["Elman", "LSTM", "GRU", "user"])
def test_a_few_steps_of_one_unit_in_one_sequence_raise_nothing(cell, T):
    net = Network(cell, 1, 1, 1, readout="last")
    params = net.init(np.random.default_rng(0))
    batch = Batch(np.ones((T, 1, 1)), np.ones((1, 1)))
    for bare in (False, True):
        assert findings(evidence_of(net, params, batch, mean_squared_error, bare=bare, dependency=2)) == []


def test_states_and_records_with_nothing_to_see_raise_nothing():
    net = Network(Elman("linear"), 1, 2, 1, readout="last")
    params = net.init(np.random.default_rng(0)) | {"0.U": 1e200 * np.eye(2)}
    batch = Batch(np.ones((5, 3, 1)), np.ones((3, 1)))
    for bare in (False, True):  # states overflow: another rule's subject
        assert findings(evidence_of(net, params, batch, mean_squared_error, bare=bare)) == []
    few = bptt(net, net.init(np.random.default_rng(0)), batch, mean_squared_error, ())
    assert findings(Evidence((Look(few),))) == []
    assert findings(Evidence()) == []


def test_ensembles_are_judged_by_their_records():
    net, params, batch = linear(0.55)
    pair = params | {"0.U": np.stack([params["0.U"], params["0.U"]])}
    record = bptt(net, pair, batch, mean_squared_error, MEASURED)
    (found,) = findings(Evidence((Look(record, "", net, pair),)))
    assert found.code == "vanishing"


def test_growth_whose_radius_cannot_be_known_is_not_called_transient():
    evidence = evidence_of(*shear(0.9, 5.0, 2, 120))
    seen = evidence.layers[0]
    gain = gain_of(evidence, seen)
    object.__setattr__(seen.look, "runs", {})  # as if there were no pass, or its Jacobians were too large
    assert growth_of(seen, gain).radius is None
    assert not growth_of(seen, gain).transient
    fresh = evidence_of(*shear(0.9, 5.0, 2, 120)).layers[0]
    assert growth_of(fresh, gain).transient


def test_thresholds_say_where_they_come_from():
    assert np.exp(LOST.value) == pytest.approx(2.0**-23, rel=1e-15)
    assert np.exp(GONE.value) == pytest.approx(2.0**-52, rel=1e-15)
    assert all(one.why for one in (LOST, GONE, EXPLODED, TRANSIENT))
