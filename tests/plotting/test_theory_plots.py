"""Plots of laws, of how even the steps are, and of gates and units: they show the numbers and drop nothing in silence."""

import matplotlib
import numpy as np
import pytest

from gradlab import GRU, LSTM, Batch, Elman, Network, analysis, bptt, mean_squared_error, plotting
from gradlab.backward import KEEP
from gradlab.errors import ValueRangeError


def drawn(draw):
    """The axes after `draw`, laid out; every setting of matplotlib is as before."""
    before = dict(dict.items(matplotlib.rcParams.copy()))
    with plotting.style():
        figure = plotting.new_figure()
        ax = figure.subplots()
        draw(ax)
        figure.draw_without_rendering()
    assert dict(dict.items(matplotlib.rcParams.copy())) == before
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    return ax


def texts(ax):
    return [text.get_text() for text in ax.texts]


def recorded(cell, value=None, T=9, readout="last"):
    rng = np.random.default_rng(0)
    net = Network(cell, 2, 6, output_size=1, readout=readout)
    params = net.init(rng)
    if value is not None:
        params = {key: np.full_like(array, value) for key, array in params.items()}
    batch = Batch(rng.normal(size=(T, 7, 2)), rng.normal(size=(7, 1)))
    return net, params, bptt(net, params, batch, mean_squared_error, KEEP)


def test_the_circle_of_the_circular_law_has_its_radius():
    ax = drawn(lambda ax: plotting.plot_circular_law(ax, analysis.circular_law(1.5)))
    x, y = ax.get_lines()[0].get_data()
    np.testing.assert_allclose(np.hypot(x, y), 1.5, rtol=1e-15)
    assert ax.get_aspect() == 1.0


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_the_density_of_marchenko_and_pastur_covers_its_support_and_its_mass(ratio):
    law = analysis.marchenko_pastur(ratio, 2.0)
    ax = drawn(lambda ax: plotting.plot_marchenko_pastur(ax, law))
    x, density = ax.get_lines()[0].get_data()
    assert law.low < x[0] < law.low + 1e-3
    assert law.high - 1e-3 < x[-1] < law.high
    assert np.isfinite(density).all()
    # The points are (1 - cos)/2, dense at both edges; at the hard edge of ratio 1 a sqrt singularity has its first point at 5e-5.
    assert abs(np.trapezoid(density, x) - (1.0 - law.atom)) < 0.01


def test_the_critical_line_is_drawn_in_order_and_what_is_not_there_is_counted():
    found = analysis.critical_line(np.array([0.05, 0.0, 0.2]))
    ax = drawn(lambda ax: plotting.plot_critical_line(ax, found))
    weight, bias = ax.get_lines()[0].get_data()
    np.testing.assert_array_equal(bias, [0.0, 0.05, 0.2])
    np.testing.assert_allclose(weight[:2], [1.0, 1.760955], atol=1e-6)  # published value of the ground truth
    none = drawn(lambda ax: plotting.plot_critical_line(ax, analysis.critical_line(np.array([0.0, 0.1]), "relu")))
    assert texts(none) == ["1 biases without a critical weight"]


def test_the_memory_of_a_delay_line_stands_at_its_lags():
    found = analysis.fisher_memory(np.eye(4, k=-1), np.eye(4)[0], 6)
    ax = drawn(lambda ax: plotting.plot_fisher_memory(ax, found, "delay line"))
    lag, information = ax.get_lines()[0].get_data()
    np.testing.assert_array_equal(lag, np.arange(7))
    np.testing.assert_array_equal(information, found.curve)
    assert information[3] > 0.0 == information[4]  # four units hold four steps


def test_the_numerical_range_is_a_closed_curve_of_the_radius_found():
    found = analysis.numerical_range(np.stack([np.diag([1.0, 0.5]), np.array([[0.0, 2.0], [0.0, 0.0]])]))
    ax = drawn(lambda ax: plotting.plot_numerical_range(ax, found, (1,)))
    x, y = ax.get_lines()[0].get_data()
    assert (x[0], y[0]) == (x[-1], y[-1])
    np.testing.assert_allclose(np.hypot(x, y), 1.0, rtol=1e-12)  # of [[0, 2], [0, 0]] it is the unit disc


def test_the_conditioning_of_each_step_is_drawn_and_singular_steps_are_counted():
    values = np.array([[1.0, 0.1], [1.0, 1e-3], [1.0, 0.0]])
    found = analysis.conditioning(values)
    ax = drawn(lambda ax: plotting.plot_conditioning(ax, found))
    step, decades = ax.get_lines()[0].get_data()
    np.testing.assert_array_equal(step, [1, 2])
    np.testing.assert_allclose(decades, [1.0, 3.0], rtol=1e-14)
    assert texts(ax) == ["1 steps not finite"]
    for what in ("effective_rank", "stable_rank", "isometry_spread"):
        ax = drawn(lambda ax, what=what: plotting.plot_conditioning(ax, found, what))
        np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), getattr(found, what))
    with pytest.raises(ValueRangeError, match="what is 'rank'; expected one of"):
        plotting.plot_conditioning(ax, found, "rank")


def test_the_flow_at_each_gate_is_a_line_in_decades():
    net, params, record = recorded(LSTM())
    found = analysis.gate_flow(net, params, record)
    ax = drawn(lambda ax: plotting.plot_gate_flow(ax, found))
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert set(lines) == {"i", "f", "g", "o"}
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines.values()}) == 4
    step, decades = lines["g"].get_data()
    np.testing.assert_array_equal(step, np.arange(1, 10))
    np.testing.assert_allclose(decades, np.median(found.log_norm["0/g"], axis=-1) / np.log(10.0), rtol=1e-14)
    assert 1 not in lines["f"].get_xdata()  # c_0 = 0: exactly no gradient
    with pytest.raises(ValueRangeError, match="layer is '7'; expected one of 0"):
        plotting.plot_gate_flow(ax, found, "7")


def test_dead_and_stuck_units_are_bars_of_their_share():
    _, _, record = recorded(Elman("relu"), -1.0)  # all inputs of positive sum are cut off
    found = analysis.unit_activity(record)
    ax = drawn(lambda ax: plotting.plot_unit_activity(ax, found))
    widths = [bar.get_width() for container in ax.containers for bar in container]
    assert widths == [100.0 * found.stuck["0/h"].mean(), 100.0 * found.dead["0/h"].mean()]
    _, _, gated = recorded(GRU())
    ax = drawn(lambda ax: plotting.plot_unit_activity(ax, analysis.unit_activity(gated)))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0/h", "0/r", "0/z", "0/n"]


def test_the_horizon_stands_on_the_flow_with_its_interval():
    _, _, record = recorded(Elman())
    flow = analysis.gradient_flow(record)
    horizon = flow.memory_horizon("0")

    def draw(ax):
        plotting.plot_gradient_flow(ax, flow.log_total["0"], "tanh", color="black")
        plotting.plot_memory_horizon(ax, horizon)

    ax = drawn(draw)
    assert horizon.status.ok
    assert texts(ax)[-1].startswith(f"horizon {horizon.median:.3g} steps")
    assert any(np.ptp(line.get_xdata()) == 0.0 and line.get_xdata()[0] == horizon.median for line in ax.get_lines())
    endless = analysis.memory_horizon(np.zeros((9, 7)))
    ax = drawn(lambda ax: plotting.plot_memory_horizon(ax, endless) or ax.set_ylabel("flow"))
    assert texts(ax) == ["beyond-range"]
    assert not ax.get_lines()
    assert not ax.patches


@pytest.mark.parametrize("shape", [(2, 3, 3), (1, 1, 1)])
def test_results_without_a_number_are_drawn_empty_and_counted(shape):
    J = np.full(shape, np.nan)
    spectra = analysis.jacobian_spectra(J)
    n = shape[0]
    ax = drawn(lambda ax: plotting.plot_singular_values(ax, spectra, "NaN"))
    assert texts(ax) == [f"{n} matrices not finite"]
    ax = drawn(lambda ax: plotting.plot_transient_growth(ax, analysis.product_growth(J), "NaN"))
    assert texts(ax)[0] == f"{n} steps not finite"
    ax = drawn(lambda ax: plotting.plot_conditioning(ax, analysis.conditioning(spectra.singular_values)))
    assert texts(ax) == [f"{n} steps not finite"]


def test_truncation_of_a_gradient_that_is_zero_is_drawn_empty_and_counted():
    net, params, record = recorded(LSTM(), 0.0)
    batch = Batch(record.inputs, np.zeros((7, 1)))
    found = analysis.truncation(net, params, batch, mean_squared_error, [1, 3, 9])
    ax = drawn(lambda ax: plotting.plot_truncation(ax, found))
    assert "3 reaches without an angle" in texts(ax)
