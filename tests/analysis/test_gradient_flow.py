"""Norms of gradients over time against direct computation, and memory horizons of curves whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab import LSTM, Batch, Elman, Network, bptt, mean_squared_error
from gradlab.analysis import flow_slope, gate_flow, gate_saturation, gradient_flow, memory_horizon, unit_activity
from gradlab.analysis.flow import median_interval
from gradlab.backward import KEEP
from gradlab.errors import DTypeError, ShapeError, ValueRangeError

E1 = float(np.exp(-1.0))


def record_of(cell, readout="every", layers=2, T=6, keep=KEEP):
    rng = np.random.default_rng(0)
    net = Network(cell, 2, 3, output_size=2, num_layers=layers, readout=readout)
    targets = rng.normal(size=(T, 4, 2) if readout == "every" else (4, 2))
    return bptt(net, net.init(rng), Batch(rng.normal(size=(T, 4, 2)), targets), mean_squared_error, keep)


@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM()], ids=repr)
def test_every_norm_equals_the_norm_computed_directly(cell):
    record = record_of(cell)
    flow = gradient_flow(record)
    parts = ["h"] if isinstance(cell, Elman) else ["c", "h"]
    assert sorted(flow.log_total) == sorted([k for n in "01" for k in (n, *(f"{n}/{p}" for p in parts))])
    for key in flow.log_total:
        name, _, part = key.partition("/")
        for ours, series in ((flow.log_total, "adjoints"), (flow.log_immediate, "immediate")):
            direct = np.sqrt((record.layers[name].series(series, part or None) ** 2).sum(axis=-1))
            assert ours[key].shape == (7, 4)
            # exp and ln of numbers of order 1 to 10: a few roundings of that size.
            np.testing.assert_allclose(np.exp(ours[key]), direct, rtol=1e-14, err_msg=key)


def test_parts_add_up_to_the_whole_state():
    flow = gradient_flow(record_of(LSTM()))
    total = 0.5 * np.logaddexp(2.0 * flow.log_total["1/c"], 2.0 * flow.log_total["1/h"])
    np.testing.assert_allclose(total, flow.log_total["1"], rtol=1e-13)  # Pythagoras, in logarithms of order 1 to 10


def test_what_is_exactly_zero_reads_minus_infinity():
    flow = gradient_flow(record_of(LSTM(), "last"))
    assert (flow.log_immediate["1"][:-1] == -np.inf).all()  # the loss reads the last step only
    assert (flow.log_immediate["1/c"] == -np.inf).all()  # and of it h only
    assert (flow.log_total["1/c"][-1] == -np.inf).all()
    assert np.isfinite(flow.log_total["1/c"][:-1]).all()


def test_a_gradient_of_1e_minus_250_is_not_zero_and_one_of_1e_minus_400_is():
    net = Network(Elman("linear"), 1, 2, readout="last")
    params = {"0.W": np.ones((2, 1)), "0.U": 0.1 * np.eye(2), "0.b": np.zeros(2)}
    flows = {}
    for T in (250, 400):
        record = bptt(net, params, Batch(np.zeros((T, 1, 1)), np.array([[-3.0, -4.0]])), mean_squared_error, KEEP)
        flows[T] = gradient_flow(record).log_total["0"][:, 0]
    # d loss/dh_T = (3, 4), of norm 5; each step back is a factor 0.1.
    lag = np.arange(250, -1, -1.0)
    np.testing.assert_allclose(flows[250], np.log(5.0) - lag * np.log(10.0), rtol=1e-13, atol=1e-13)  # 250 products
    assert flows[400][0] == -np.inf  # 1e-400 is below every float64
    assert flows[400][100] > -745.0


def test_the_status_of_the_record_is_handed_on():
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 1e100), "0.b": np.zeros(1)}
    record = bptt(net, params, Batch(np.zeros((9, 1, 1)), np.ones((1, 1))), mean_squared_error, KEEP)
    flow = gradient_flow(record)
    assert flow.status.code == "overflow"
    # d loss/dh_9 = -2, times 1e100 a step: finite for three steps, with exact logarithms.
    np.testing.assert_allclose(flow.log_total["0"][-4:, 0], np.log(2.0) + np.arange(3, -1, -1.0) * np.log(1e100), rtol=1e-14)
    assert (flow.log_total["0"][:-4] == np.inf).all()


def test_an_explosion_in_a_complex_pass_warns_of_nothing():
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 1e100 + 1e70j), "0.b": np.zeros(1)}
    record = bptt(net, params, Batch(np.zeros((9, 1, 1)), np.ones((1, 1))), mean_squared_error, KEEP)
    assert not np.isfinite(gradient_flow(record).log_total["0"][0]).any()


@pytest.mark.parametrize("missing", ["adjoints", "immediate"])
def test_a_record_without_adjoints_or_immediate_partials_is_refused_by_name(missing):
    record = record_of(Elman(), keep=tuple(k for k in KEEP if k != missing))
    with pytest.raises(ValueRangeError, match=f"{missing} was not kept"):
        gradient_flow(record)


def test_ensemble_axes_stay_where_they_are():
    rng = np.random.default_rng(1)
    net = Network(Elman("tanh"), 2, 3, output_size=1)
    params = net.init(rng)
    gains = np.array([0.5, 1.0, 1.5])
    stacked = params | {"0.U": gains[:, None, None] * params["0.U"]}
    batch = Batch(rng.normal(size=(5, 4, 2)), rng.normal(size=(5, 4, 1)))
    flow = gradient_flow(bptt(net, stacked, batch, mean_squared_error)).log_total["0"]
    assert flow.shape == (6, 3, 4)
    for e, gain in enumerate(gains):
        single = gradient_flow(bptt(net, params | {"0.U": gain * params["0.U"]}, batch, mean_squared_error)).log_total["0"]
        np.testing.assert_allclose(flow[:, e], single, rtol=1e-12, atol=1e-13)  # sums blocked otherwise


# ---- memory horizon ----------------------------------------------------------------------------------------


def decaying(tau, T, start=0.0):
    """ln norm of exp(-lag/tau), rows from t = 0 to T: lag T - t."""
    return start - np.arange(T, -1, -1.0) / tau


@given(tau=st.floats(1.0, 90.0), start=st.floats(-500.0, 500.0))
def test_the_horizon_of_an_exponential_decay_is_its_time_constant(tau, start):
    horizon = memory_horizon(decaying(tau, 100, start)[:, None])
    # Interpolation is linear in ln norm, so exact; rounding of 500 relative to a slope of 1/90.
    np.testing.assert_allclose(horizon.lags, [tau], rtol=1e-10)
    assert horizon.median == horizon.low == horizon.high == horizon.lags[0]
    assert horizon.status.ok
    assert horizon.level == E1


@pytest.mark.parametrize("level", [0.5, 0.1, 1e-3])
def test_the_horizon_of_another_level_scales_with_its_logarithm(level):
    horizon = memory_horizon(decaying(5.0, 100)[:, None], level)
    np.testing.assert_allclose(horizon.median, -5.0 * np.log(level), rtol=1e-13)  # one division


def test_a_gradient_that_never_decays_has_an_infinite_horizon_and_says_so():
    for flow in (np.zeros((11, 3)), decaying(1e6, 10)[:, None], -decaying(3.0, 10)[:, None]):
        horizon = memory_horizon(flow)
        assert (horizon.lags == np.inf).all()
        assert horizon.median == np.inf
        assert horizon.status.code == "beyond-range"
        assert "after 10 steps" in horizon.status.detail


@pytest.mark.parametrize("steps", [1, 2])
def test_one_or_two_steps_are_too_short_to_say(steps):
    horizon = memory_horizon(decaying(0.5, steps)[:, None])
    assert horizon.status.code == "too-short"
    assert f"{steps} step" in horizon.status.detail
    np.testing.assert_allclose(horizon.median, 0.5, rtol=1e-13)  # still the best that can be said


def test_a_curve_that_comes_back_counts_until_it_stays_below():
    # By lag: 0, -5, -5, -0.5, -5, -5: below 1/e at once, back at lag 3, below for good at 3 + 0.5/4.5.
    by_lag = np.array([0.0, -5.0, -5.0, -0.5, -5.0, -5.0])
    np.testing.assert_allclose(memory_horizon(by_lag[::-1, None]).median, 3.0 + 0.5 / 4.5, rtol=1e-13)


def test_a_gradient_that_falls_to_exactly_zero_has_its_horizon_there():
    by_lag = np.array([0.0, -0.2, -0.4, -np.inf, -np.inf, -np.inf])
    horizon = memory_horizon(by_lag[::-1, None])
    assert horizon.median == 2.0
    assert horizon.status.ok


def test_a_part_that_the_loss_does_not_read_is_measured_from_its_first_gradient():
    # The cell of an LSTM: zero at lag 0, then decaying with tau = 4 from lag 1 on; the time constant is still 4.
    by_lag = np.concatenate([[-np.inf], -np.arange(60) / 4.0])
    np.testing.assert_allclose(memory_horizon(by_lag[::-1, None]).median, 4.0, rtol=1e-13)  # one division


def test_a_gradient_that_is_zero_at_every_lag_has_no_horizon():
    horizon = memory_horizon(np.full((11, 2), -np.inf))
    assert np.isnan(horizon.lags).all()
    assert horizon.status.code == "no-gradient"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [slice(0, 3), slice(8, 11), slice(4, 6), slice(0, 11)], ids=["far", "near", "middle", "all"])
def test_a_flow_that_left_the_range_of_floats_never_has_a_finite_horizon_in_good_order(value, rows):
    flow = decaying(2.0, 10)[:, None].copy()
    flow[rows] = value
    horizon = memory_horizon(flow)
    assert not (horizon.status.ok and np.isfinite(horizon.median))


def test_median_and_quartiles_are_over_the_sequences():
    taus = np.array([2.0, 4.0, 6.0, 8.0, 10.0])
    flow = np.stack([decaying(tau, 100) for tau in taus], axis=-1)
    horizon = memory_horizon(flow)
    np.testing.assert_allclose(horizon.lags, taus, rtol=1e-12)  # one division
    assert [round(v, 9) for v in (horizon.low, horizon.median, horizon.high)] == [4.0, 6.0, 8.0]
    flow[:, 3:] = 0.0
    horizon = memory_horizon(flow)
    assert horizon.high == np.inf
    assert horizon.status.ok  # the median is still known


def test_ensemble_axes_of_a_flow_stay_in_front_of_the_sequences():
    taus = np.array([[2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    horizon = memory_horizon(-np.arange(50, -1, -1.0)[:, None, None] / taus)
    np.testing.assert_allclose(horizon.lags, taus, rtol=1e-12)  # one division


def test_the_horizon_of_a_linear_network_is_that_of_its_weight():
    w = 0.9
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), w), "0.b": np.zeros(1)}
    record = bptt(net, params, Batch(np.ones((60, 3, 1)), np.zeros((3, 1))), mean_squared_error)
    horizon = memory_horizon(gradient_flow(record).log_total["0"])
    np.testing.assert_allclose(horizon.lags, -1.0 / np.log(w), rtol=1e-11)  # 60 products


def test_vanished_parts_beside_large_ones_raise_no_floating_point_error():
    net = Network(Elman("linear"), 1, 2, readout="last")
    params = {"0.W": np.ones((2, 1)), "0.U": np.diag([1.0, 0.1]), "0.b": np.zeros(2)}
    record = bptt(net, params, Batch(np.zeros((300, 1, 1)), np.ones((1, 2))), mean_squared_error)
    with np.errstate(all="raise"):
        flow = gradient_flow(record).log_total["0"]
    np.testing.assert_allclose(flow[0, 0], 0.0, atol=1e-15)  # |(-1, -1e-300)| = 1: the mean over two features of 2 (0 - 1)


# ---- its interval, and the slope of a recorded flow -----------------------------------------------------------------------


@pytest.mark.parametrize(("n", "rank"), [(6, 1), (9, 2), (20, 6), (25, 8), (50, 18)])
def test_the_interval_of_the_median_stands_on_the_order_statistics_of_the_sign_test(n, rank):
    # Ranks of the 95 % interval as in the tables of the sign test (Conover 1999, table A3): n = 20 gives 6 and 15.
    taus = np.arange(2.0, 2.0 + n)
    flow = np.stack([decaying(tau, 200) for tau in np.random.default_rng(0).permutation(taus)], axis=-1)
    horizon = memory_horizon(flow)
    np.testing.assert_allclose(horizon.interval, [taus[rank - 1], taus[n - rank]], rtol=1e-12)  # one division
    assert horizon.confidence == 0.95


def test_five_sequences_do_not_bound_a_median_with_95_percent():
    assert memory_horizon(np.stack([decaying(tau, 100) for tau in (2.0, 3.0, 4.0, 5.0, 6.0)], axis=-1)).interval == (0.0, np.inf)
    assert memory_horizon(
        np.stack([decaying(tau, 100) for tau in (2.0, 3.0, 4.0, 5.0, 6.0)], axis=-1), confidence=0.9
    ).interval == (
        pytest.approx(2.0, rel=1e-12),
        pytest.approx(6.0, rel=1e-12),
    )


def test_the_interval_holds_the_median_as_often_as_it_says():
    # 20 exponential variates, median ln 2: the exact coverage of ranks 6 and 15 is 0.9586.
    draws = np.random.default_rng(1).exponential(size=(4000, 20))
    inside = [low <= np.log(2.0) <= high for low, high in (median_interval(row, 0.95) for row in draws)]
    assert abs(np.mean(inside) - 0.9586) < 5.0 * np.sqrt(0.9586 * 0.0414 / 4000)  # 5 standard errors


def test_the_slope_of_a_recorded_flow_is_that_of_its_weight_and_many_origins_are_told():
    w = 0.9
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), w), "0.b": np.zeros(1)}
    flow = gradient_flow(bptt(net, params, Batch(np.ones((60, 3, 1)), np.zeros((3, 1))), mean_squared_error))
    found = flow.slope("0/h")
    np.testing.assert_allclose(found.slope, np.log(w), rtol=1e-12)  # 60 products
    np.testing.assert_allclose(found.half_life, np.log(2.0) / -np.log(w), rtol=1e-12)
    assert found.status.ok
    every = gradient_flow(record_of(Elman("tanh")))
    assert every.slope("1").status.code == every.memory_horizon("1").status.code == "many-origins"
    with pytest.raises(ValueRangeError, match="key is '7'"):
        flow.slope("7")


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    with pytest.raises(ValueRangeError, match="confidence is"):
        memory_horizon(decaying(3.0, 10)[:, None], confidence=confidence)


def test_a_flow_beyond_the_range_of_floats_says_so_before_it_speaks_of_origins():
    net = Network(Elman("linear"), 1, 1)  # a loss at every step: many origins
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 1e80), "0.b": np.zeros(1)}
    record = bptt(net, params, Batch(np.ones((5, 2, 1)), np.zeros((5, 2, 1))), mean_squared_error, KEEP)
    flow = gradient_flow(record)
    assert flow.slope("0").status.code == flow.memory_horizon("0").status.code == "overflow"
    healthy = bptt(
        net, params | {"0.U": np.ones((1, 1))}, Batch(np.ones((5, 2, 1)), np.zeros((5, 2, 1))), mean_squared_error, KEEP
    )
    assert gradient_flow(healthy).slope("0").status.code == "many-origins"


@pytest.mark.parametrize("measure", [flow_slope, memory_horizon])
@pytest.mark.parametrize(
    ("flow", "error"),
    [
        (np.ones((5, 2)) + 0j, DTypeError),
        (np.array([["a"] * 2] * 5), DTypeError),
        (np.array([[None] * 2] * 5), DTypeError),
        ([1.0, 2.0, 3.0], DTypeError),
        (np.ones(1), ShapeError),
        (np.ones((5, 0)), ShapeError),
    ],
)
def test_what_is_no_flow_is_refused_by_name(measure, flow, error):
    with pytest.raises(error, match=r"log_total (has|is)"):
        measure(flow)


def test_levels_and_lags_that_are_none_are_refused_by_name():
    with pytest.raises(DTypeError, match="level is 'half'; expected a share between 0 and 1"):
        memory_horizon(np.zeros((5, 2)), level="half")
    with pytest.raises(ValueRangeError, match=r"lags is \(0, 1, 2\); expected the first and the last one"):
        flow_slope(np.zeros((5, 2)), lags=(0, 1, 2))


def test_what_is_no_record_is_refused_by_name():
    net = Network(LSTM(), 2, 3)
    calls = (gradient_flow, gate_saturation, unit_activity, lambda r: gate_flow(net, {}, r))
    for call in calls:
        for record in (None, {"layers": {}}):
            with pytest.raises(DTypeError, match=r"record is a (NoneType|dict); expected a gradlab.Record"):
                call(record)
