"""A unit gradient carried back through one layer, against exact powers, closed forms and products of Jacobians."""

import numpy as np
import pytest

from gradlab import GRU, LSTM, SCRN, Clockwork, Elman, Jordan, Network, forward
from gradlab.analysis.carried import carried_gradient
from gradlab.errors import DTypeError, ValueRangeError

LOG_FLOAT32 = 5e-6


def orthogonal(rng, n):
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def run_of(cell, T=7, B=3, H=4, D=2, lengths=None, seed=0, **params):
    rng = np.random.default_rng(seed)
    net = Network(cell, D, H)
    theta = net.init(rng) | {f"0.{key}": value for key, value in params.items()}
    return forward(net, theta, rng.normal(size=(T, B, D)), lengths=lengths).runs["0"]


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_a_multiple_of_an_orthogonal_matrix_gives_its_power_over_ten_thousand_steps(gain):
    U = gain * orthogonal(np.random.default_rng(1), 4)
    # states that decay: the linear net's Jacobian does not depend on them, and at gain 2 they would overflow
    run = run_of(Elman("linear"), T=10_000, B=2, W=np.zeros((4, 2)), U=U)
    found = carried_gradient(run, rng=np.random.default_rng(0), directions=1)
    lags = np.arange(10_001)
    # ln of a product of 10 000 factors, each exact to 4 roundings, out of 6931 nats
    np.testing.assert_allclose(found.log_gain, np.broadcast_to(lags[:, None] * np.log(gain), (10_001, 2)), rtol=0, atol=2e-11)
    assert found.status.ok
    assert found.directions == 1


def test_the_powers_of_a_jordan_block_are_those_of_the_closed_form():
    a, b, T = 0.9, 5.0, 60
    run = run_of(Elman("linear"), T=T, B=3, H=2, U=np.array([[a, b], [0.0, a]]))
    found = carried_gradient(run, rng=np.random.default_rng(5), directions=2)
    v = np.random.default_rng(5).standard_normal((2, 3, 2))
    v /= np.linalg.norm(v, axis=-1, keepdims=True)
    k = np.arange(T + 1.0)[:, None, None]
    # (J^T)^k v = (a^k v_1, k b a^(k-1) v_1 + a^k v_2)
    size = (a**k * v[..., 0]) ** 2 + (k * b * a ** (k - 1) * v[..., 0] + a**k * v[..., 1]) ** 2
    expected = 0.5 * np.log(size.mean(axis=1))
    np.testing.assert_allclose(found.log_gain, expected, rtol=0, atol=1e-12)  # 60 factors of a few roundings
    assert found.log_gain.mean(axis=1).argmax() in (8, 9, 10, 11)  # the norm of the powers peaks at 9


CELLS = [Elman(), LSTM(), LSTM(peepholes=True, coupled=True), GRU(), SCRN(3), Clockwork((1, 2)), Jordan(3), Jordan(3, mu=0.5)]


@pytest.mark.parametrize("lengths", [None, np.array([7, 1, 4])], ids=["equal", "ragged"])
@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_it_is_the_product_of_the_jacobians_and_the_parts_make_the_whole(cell, lengths):
    run = run_of(cell, lengths=lengths)
    found = carried_gradient(run, rng=np.random.default_rng(2), directions=1)
    J, (T1, B, S) = run.jacobians(), run.states.shape
    v = np.random.default_rng(2).standard_normal((1, B, S))[0]
    if isinstance(cell, LSTM):
        v[:, : S // 2] = 0.0  # the loss sees h alone
    for b, n in enumerate([T1 - 1] * B if lengths is None else lengths):
        delta, ours = v[b] / np.linalg.norm(v[b]), found.log_gain[:, b]
        assert ours[0] == pytest.approx(0.0, abs=1e-15)  # of a unit vector, a rounding or two
        for lag in range(1, n + 1):
            delta = J[n - lag, b].T @ delta
            assert ours[lag] == pytest.approx(np.log(np.linalg.norm(delta)), abs=1e-11)  # 7 products
        assert np.isnan(ours[n + 1 :]).all()
        whole = np.logaddexp.reduce([2.0 * part[: n + 1, b] for part in found.log_parts.values()]) / 2.0
        np.testing.assert_allclose(whole, ours[: n + 1], rtol=0, atol=1e-13)  # Pythagoras


def test_the_cell_of_an_lstm_without_weights_keeps_its_forget_gate_per_step_and_h_keeps_nothing():
    H, f = 3, 0.8
    bias = np.zeros(4 * H)
    bias[H : 2 * H] = np.log(f / (1.0 - f))
    zero = {"W": np.zeros((4 * H, 2)), "U": np.zeros((4 * H, H)), "b": bias}
    found = carried_gradient(run_of(LSTM(), T=40, H=H, **zero), rng=np.random.default_rng(0))
    c, h = found.log_parts["c"], found.log_parts["h"]
    assert np.isneginf(c[0]).all()
    assert (np.abs(h[0]) < 1e-15).all()
    assert np.isneginf(h[1:]).all()  # no recurrent weights
    # c_T = 0 (g = 0): dh/dc = o = 1/2, then f a step
    expected = np.log(0.5) + np.arange(1, 41)[:, None] * np.log(f)
    np.testing.assert_allclose(c[1:], np.broadcast_to(expected, c[1:].shape), rtol=0, atol=1e-13)  # 40 factors


def test_each_row_of_a_ragged_batch_is_that_of_its_own_steps_alone():
    lengths = np.array([9, 3, 6])
    rng = np.random.default_rng(3)
    net = Network(GRU(), 2, 5)
    params, x = net.init(rng), rng.normal(size=(9, 3, 2))
    ragged = carried_gradient(forward(net, params, x, lengths=lengths).runs["0"], rng=np.random.default_rng(0))
    for b, n in enumerate(lengths):
        alone = carried_gradient(forward(net, params, x[:n]).runs["0"], rng=np.random.default_rng(0))
        np.testing.assert_allclose(
            ragged.log_gain[: n + 1, b], alone.log_gain[:, b], rtol=0, atol=1e-12
        )  # products blocked otherwise
        assert np.isnan(ragged.log_gain[n + 1 :, b]).all()


def test_the_reverse_direction_goes_from_its_own_end():
    rng = np.random.default_rng(4)
    net = Network(Elman(), 2, 4, bidirectional=True)
    params, x = net.init(rng), rng.normal(size=(6, 2, 2))
    both = forward(net, params, x).runs
    alone = Network(Elman(), 2, 4)
    same = forward(alone, {f"0.{k}": params[f"0.backward.{k}"] for k in "WUb"}, x[::-1]).runs["0"]
    one, other = (carried_gradient(run, rng=np.random.default_rng(0)) for run in (both["0.backward"], same))
    np.testing.assert_allclose(one.log_gain, other.log_gain, rtol=0, atol=1e-13)


class Own:
    """Elman's step and nothing else; says how often it was called."""

    def __init__(self):
        self.calls = 0

    def init(self, rng, input_size, hidden_size):
        return Elman().init(rng, input_size, hidden_size)

    def step(self, params, x_t, s_prev, t):
        self.calls += 1
        return Elman().step(params, x_t, s_prev, t)


def test_a_users_cell_gives_the_same_and_is_not_differentiated_by_its_parameters():
    own, rng = Own(), np.random.default_rng(6)
    params, x = Network(Elman(), 2, 4).init(rng), rng.normal(size=(8, 3, 2))
    run = forward(Network(own, 2, 4), params, x).runs["0"]
    before = own.calls
    mine = carried_gradient(run, rng=np.random.default_rng(0))
    theirs = carried_gradient(forward(Network(Elman(), 2, 4), params, x).runs["0"], rng=np.random.default_rng(0))
    np.testing.assert_allclose(mine.log_gain, theirs.log_gain, rtol=0, atol=1e-12)  # a complex step is exact to rounding
    assert own.calls - before < 8 * 8  # not one for each of 28 parameters, 4 directions, 8 steps


def test_single_precision_carries_as_far_as_double():
    rng = np.random.default_rng(7)
    net = Network(Elman("linear"), 1, 4)
    params = net.init(rng) | {"0.U": 0.5 * orthogonal(rng, 4)}
    low = {key: value.astype(np.float32) for key, value in params.items()}
    found = carried_gradient(forward(net, low, np.zeros((400, 2, 1), np.float32)).runs["0"], rng=np.random.default_rng(0))
    # 2^-400 is far below float32; relative errors of 400 products of single precision add up to 400 eps
    np.testing.assert_allclose(found.log_gain[-1], 400 * np.log(0.5), rtol=0, atol=400 * LOG_FLOAT32)


def test_what_is_cut_off_reads_minus_infinity():
    found = carried_gradient(run_of(Elman("linear"), U=np.zeros((4, 4))), rng=np.random.default_rng(0))
    assert np.isneginf(found.log_gain[1:]).all()
    assert found.status.ok


def test_a_jacobian_that_is_not_finite_is_told():
    class Broken(Own):
        def vjp(self, params, x_t, s_prev, delta, t):
            return {k: np.zeros_like(v) for k, v in params.items()}, 0.0 * x_t, delta * (np.nan if t == 2 else 1.0)

    found = carried_gradient(run_of(Broken()), rng=np.random.default_rng(0))
    assert found.status.code == "overflow"
    assert np.isfinite(found.log_gain[:5]).all()  # lags 0 to 4 do not pass step 2 of 7
    assert np.isnan(found.log_gain[5:]).all()


def test_what_is_no_pass_and_ensembles_are_refused_by_name():
    with pytest.raises(DTypeError, match="expected one of gradlab"):
        carried_gradient(np.zeros(3), rng=np.random.default_rng(0))
    net = Network(Elman(), 2, 3)
    params = net.init(np.random.default_rng(0))
    run = forward(net, params | {"0.U": np.stack([params["0.U"]] * 2)}, np.zeros((4, 2, 2))).runs["0"]
    with pytest.raises(ValueRangeError, match="one network"):
        carried_gradient(run, rng=np.random.default_rng(0))
