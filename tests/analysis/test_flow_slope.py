"""The slope of a gradient flow: exact on exact decays, with an interval that holds the truth as often as it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab import SCRN, Batch, Network, bptt, mean_squared_error
from gradlab.analysis.products import path_products
from gradlab.analysis.slopes import flow_slope
from gradlab.errors import ShapeError, ValueRangeError


def by_time(by_lag):
    """(lags, ...) as a flow: rows in the order of time."""
    return np.asarray(by_lag)[::-1].copy()


@given(slope=st.floats(-50.0, 50.0), start=st.floats(-300.0, 300.0), lags=st.integers(3, 60))
def test_an_exponential_decay_or_growth_has_its_own_slope(slope, start, lags):
    found = flow_slope(by_time(start + slope * np.arange(lags))[:, None])
    assert abs(found.slope - slope) <= 1e-12 * (abs(slope) * lags + abs(start)) + 1e-300  # rounding of what is fitted
    assert found.interval[0] <= found.slope <= found.interval[1]
    assert found.interval[1] - found.interval[0] <= 1e-10 * (abs(slope) * lags + abs(start)) + 1e-300
    assert found.status.ok


def test_the_half_life_of_the_scrn_context_is_13_513407_steps():
    rng = np.random.default_rng(0)
    net = Network(SCRN(3), 2, 5, output_size=1)
    params = net.init(rng)
    batch = Batch(rng.normal(size=(60, 2, 2)), rng.normal(size=(60, 2, 1)))
    layer = bptt(net, params, batch, mean_squared_error, ("jacobians",)).layers["0"]
    gain = path_products(layer.jacobians, layer.parts).log_gain["q"]
    found = flow_slope(by_time(gain))
    np.testing.assert_allclose(found.half_life, 13.513407, rtol=1e-7)  # the digits of ln 2/-ln 0.95
    np.testing.assert_allclose(found.slope, np.log(0.95), rtol=1e-12)


@pytest.mark.parametrize(("sequences", "lags"), [(1, 5), (1, 60), (2, 20), (12, 40)])
def test_the_interval_holds_the_rate_of_a_random_walk_as_often_as_it_says(sequences, lags):
    rng = np.random.default_rng(sequences + lags)
    trials, inside = 1500, 0
    for _ in range(trials):
        walk = np.cumsum(rng.normal(-0.1, 0.3, (lags, sequences)), axis=0)
        low, high = flow_slope(by_time(walk), confidence=0.9).interval
        inside += low <= -0.1 <= high
    assert abs(inside / trials - 0.9) < 5.0 * np.sqrt(0.09 / trials)  # 5 standard errors of a share


def test_the_textbook_error_of_a_fit_would_be_far_too_small():
    # Why the error is taken from increments: for a random walk the residuals of the fit are not independent.
    rng = np.random.default_rng(3)
    slopes, errors, naive = [], [], []
    for _ in range(400):
        y = np.cumsum(rng.normal(size=100))
        found = flow_slope(by_time(y)[:, None])
        x = np.arange(100.0) - 49.5
        rest = y - y.mean() - found.slope * x
        slopes.append(found.slope)
        errors.append(found.errors[0])
        naive.append(np.sqrt((rest**2).sum() / 98 / (x**2).sum()))
    spread = np.std(slopes)
    assert abs(np.mean(errors) / spread - 1.0) < 0.15  # 400 draws: 4 % of sampling error
    assert np.mean(naive) < 0.4 * spread


def test_each_sequence_has_its_slope_and_the_mean_its_interval():
    slopes = np.array([[-0.1, -0.2, -0.3], [0.1, 0.2, 0.3]])
    found = flow_slope(by_time(np.arange(20.0)[:, None, None] * slopes))
    np.testing.assert_allclose(found.slopes, slopes, rtol=1e-12)  # a line
    np.testing.assert_allclose(found.slope, 0.0, atol=1e-15)
    assert found.half_life == np.inf or found.half_life > 1e12
    single = flow_slope(by_time(np.arange(20.0)[:, None] * slopes[0]))
    # Student's t of 2 degrees, 4.302653, times 0.1/sqrt(3).
    np.testing.assert_allclose(single.interval, -0.2 + np.array([-1.0, 1.0]) * 4.302653 * 0.1 / np.sqrt(3.0), rtol=1e-6)
    np.testing.assert_allclose(single.half_life_interval, [np.log(2.0) / -single.interval[0], np.inf])


def test_lags_without_a_gradient_are_left_out_and_told_where_they_come_later():
    by_lag = -0.5 * np.arange(12.0)
    late = by_lag.copy()
    late[0] = -np.inf  # the cell of an LSTM: the loss reads it only through h, one step later
    found = flow_slope(by_time(late)[:, None])
    np.testing.assert_allclose(found.slope, -0.5, rtol=1e-13)
    assert found.status.ok
    gone = late.copy()
    gone[9:] = -np.inf
    found = flow_slope(by_time(gone)[:, None])
    np.testing.assert_allclose(found.slope, -0.5, rtol=1e-13)
    assert str(found.status) == "underflow: the gradient is exactly zero further back in 1 sequences, e.g. at lag 9"
    hole = by_lag.copy()
    hole[5] = -np.inf
    np.testing.assert_allclose(flow_slope(by_time(hole)[:, None]).slope, -0.5, rtol=1e-13)


def test_the_standard_error_holds_where_lags_are_missing():
    draw, T, n = np.random.default_rng(7), 40, 4000
    walk = np.cumsum(np.vstack([np.zeros((1, n)), draw.normal(-0.1, 0.3, (T, n))]), axis=0)
    walk[3:20] = -np.inf  # a gap of 18 steps: its increment has 18 times the variance
    walk[27] = -np.inf
    found = flow_slope(by_time(walk))
    # The scatter of 4000 slopes is known to 1/sqrt(8000) = 1 %; the mean square of the errors to 0.5 %.
    assert abs(np.sqrt((found.errors**2).mean()) / found.slopes.std() - 1.0) < 0.04
    assert abs(found.slope + 0.1) < 4.0 * found.slopes.std() / np.sqrt(n)


def test_only_the_lags_that_are_asked_for_count():
    by_lag = np.where(np.arange(30) < 10, -1.0 * np.arange(30), -10.0 - 0.1 * (np.arange(30) - 10.0))
    flow = by_time(by_lag)[:, None]
    np.testing.assert_allclose(flow_slope(flow, lags=(0, 10)).slope, -1.0, rtol=1e-13)
    np.testing.assert_allclose(flow_slope(flow, lags=(10, 29)).slope, -0.1, rtol=1e-12)
    assert flow_slope(flow, lags=(10, 29)).lags == (10, 29)
    for lags in ((0, 30), (5, 6), (7, 3)):
        with pytest.raises(ValueRangeError, match="lags are"):
            flow_slope(flow, lags=lags)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_flow_that_left_the_range_of_floats_has_no_slope(bad):
    flow = by_time(-np.arange(9.0))[:, None].repeat(2, axis=1)
    flow[4, 1] = bad
    found = flow_slope(flow)
    assert found.status.code == "overflow"
    assert np.isnan(found.slope)
    np.testing.assert_allclose(found.slopes[0], -1.0, rtol=1e-13)
    assert np.isnan(found.slopes[1])


def test_too_few_lags_are_told():
    flow = np.full((6, 1), -np.inf)
    flow[-2:] = 0.0
    assert flow_slope(flow).status.code == "too-short"
    assert np.isnan(flow_slope(flow).slope)
    with pytest.raises(ShapeError, match="T >= 2"):
        flow_slope(np.zeros((2, 1)))
