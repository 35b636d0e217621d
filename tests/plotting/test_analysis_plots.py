"""Plots of spectra, gates, temporal components and truncation: they show the numbers, with units, and leave no trace."""

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from gradlab import LSTM, Batch, Network, bptt, mean_squared_error, plotting
from gradlab.analysis import jacobian_spectra
from gradlab.analysis.gates import gate_saturation, gate_time_constants
from gradlab.analysis.products import path_products
from gradlab.analysis.pseudospectra import pseudospectrum
from gradlab.analysis.temporal import flow_map, temporal_components
from gradlab.analysis.transient_growth import power_growth
from gradlab.analysis.truncated_gradients import truncation
from gradlab.backward import KEEP
from gradlab.plotting.gates import plot_gate_saturation, plot_time_constants
from gradlab.plotting.spectra import plot_eigenvalues, plot_pseudospectrum, plot_singular_values, plot_transient_growth
from gradlab.plotting.temporal import plot_flow_map, plot_lag_split, plot_paths
from gradlab.plotting.truncation import plot_truncation


@pytest.fixture(scope="module")
def setting():
    rng = np.random.default_rng(0)
    net = Network(LSTM(), 2, 6, output_size=1)
    params = net.init(rng)
    batch = Batch(rng.normal(size=(12, 4, 2)), rng.normal(size=(12, 4, 1)))
    return net, params, batch, bptt(net, params, batch, mean_squared_error, KEEP)


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


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


def test_the_map_shows_losses_upward_and_states_to_the_right_and_grey_where_nothing_is(setting):
    net, params, batch, _ = setting
    result = flow_map(net, params, batch, mean_squared_error)
    ax = drawn(lambda ax: plot_flow_map(ax, result, "0/h"))
    mesh = next(c for c in ax.collections if isinstance(c, QuadMesh))
    shown = mesh.get_array()
    assert shown.shape == (12, 13)
    assert shown.mask[0, 2:].all()
    assert not shown.mask[-1].any()
    np.testing.assert_allclose(shown[3, 2], np.median(result.log_norm["0/h"][3, 2]) / np.log(10.0), rtol=1e-14)


def test_lags_and_paths_are_drawn_in_decades(setting):
    net, params, batch, record = setting
    parts = temporal_components(net, params, batch, mean_squared_error)
    shown = lines(drawn(lambda ax: plot_lag_split(ax, parts, ("0.W", "0.U"))))
    assert list(shown) == ["0.W", "0.U"]
    np.testing.assert_allclose(10.0 ** shown["0.W"].get_ydata()[3], np.linalg.norm(parts.by_lag["0.W"][3]), rtol=1e-12)
    assert len(shown["0.U"].get_xdata()) == 11  # at the largest lag h_0 = 0
    paths = path_products(record.layers["0"].jacobians, record.layers["0"].parts)
    shown = lines(drawn(lambda ax: plot_paths(ax, paths)))
    assert list(shown) == ["full", "c", "h"]
    np.testing.assert_allclose(shown["c"].get_ydata(), np.median(paths.log_gain["c"], axis=1) / np.log(10.0), rtol=1e-12)
    assert len({line.get_linestyle() for line in shown.values()}) == 3  # told apart in grey


def test_gates_are_points_below_the_diagonal_and_a_histogram_of_all_units(setting):
    record = setting[-1]
    saturation = gate_saturation(record)
    shown = lines(drawn(lambda ax: plot_gate_saturation(ax, saturation)))
    assert sorted(shown) == ["f", "g", "i", "o"]
    np.testing.assert_array_equal(shown["o"].get_xdata(), saturation.left["0/o"])
    assert len({line.get_marker() for line in shown.values()}) == 4
    constants = gate_time_constants(record)
    ax = drawn(lambda ax: plot_time_constants(ax, constants, "0/f"))
    assert sum(patch.get_height() for patch in ax.patches) == 6


def test_units_that_never_forget_are_counted_in_the_heading(setting):
    batch = setting[2]
    forever = Network(LSTM(forget_gate=False), 2, 6, output_size=1)
    values = forever.init(np.random.default_rng(0))
    constants = gate_time_constants(bptt(forever, values, batch, mean_squared_error))
    ax = drawn(lambda ax: plot_time_constants(ax, constants, "0/f"))
    assert ax.get_title(loc="left") == "6 never forget, 0 forget at once"
    assert sum(patch.get_height() for patch in ax.patches) == 6


def test_spectra_show_every_value_and_say_what_is_left_out(setting):
    J = setting[-1].layers["0"].jacobians
    spectra = jacobian_spectra(J)
    ax = drawn(lambda ax: plot_eigenvalues(ax, spectra))
    assert len(ax.get_lines()[0].get_xdata()) == J.shape[0] * J.shape[1] * J.shape[2]
    bad = J.copy()
    bad[3, 1] = np.nan
    ax = drawn(lambda ax: plot_eigenvalues(ax, jacobian_spectra(bad)))
    assert [text.get_text() for text in ax.texts] == ["12 not finite"]
    shown = lines(drawn(lambda ax: plot_singular_values(ax, spectra, "J", color="black")))
    np.testing.assert_allclose(shown["J"].get_ydata()[0], np.log10(np.median(spectra.singular_values[..., 0])), rtol=1e-2)
    drawn(lambda ax: plot_singular_values(ax, jacobian_spectra(np.zeros((2, 3, 3))), "zero", color="black"))


def test_the_pseudospectrum_has_level_lines_inside_its_own_extent():
    result = pseudospectrum(np.random.default_rng(1).normal(size=(2, 9, 9)) / 3.0, points=30)
    found = []
    ax = drawn(lambda ax: found.append(plot_pseudospectrum(ax, result, (1,))))
    assert 3 <= len(found[0].levels) <= 11
    assert ax.get_xlim() == pytest.approx((result.x[0], result.x[-1]))
    drawn(lambda ax: plot_pseudospectrum(ax, pseudospectrum(np.zeros((2, 2)), (2.0, 2.1, 2.0, 2.1), 4)))  # nearly flat


def test_transient_growth_is_drawn_at_every_step():
    growth = power_growth(np.array([[0.9, 5.0], [0.0, 0.9]]), 80)
    shown = lines(drawn(lambda ax: plot_transient_growth(ax, growth, "Jordan", color="black")))
    np.testing.assert_allclose(shown["Jordan"].get_ydata()[9], np.log10(19.379), rtol=1e-4)  # the digits of the table
    assert len(shown["Jordan"].get_xdata()) == 81


def test_truncation_is_drawn_by_reach_with_the_spread_of_the_sequences(setting):
    net, params, batch, _ = setting
    result = truncation(net, params, batch, mean_squared_error, (12, 1, 4), by_sequence=True)
    ax = drawn(lambda ax: plot_truncation(ax, result))
    shown = lines(ax)
    assert list(shown) == ["cosine", "norm ratio"]
    np.testing.assert_array_equal(shown["cosine"].get_xdata(), [1.0, 4.0, 12.0])
    np.testing.assert_allclose(shown["cosine"].get_ydata(), result.cosine["layers"][[1, 2, 0]])
    assert len(ax.collections) == 2
    assert not drawn(lambda ax: plot_truncation(ax, truncation(net, params, batch, mean_squared_error, (1, 4)))).collections
