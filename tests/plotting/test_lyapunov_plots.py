"""Pictures of Lyapunov exponents: what is drawn is what was measured."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from gradlab import plotting
from gradlab.analysis.lyapunov import lyapunov_spectrum
from gradlab.plotting.lyapunov import plot_exponent_against_gain, plot_lyapunov_convergence, plot_lyapunov_spectrum


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def ax():
    with plotting.style():
        figure = plotting.new_figure()
        yield figure.subplots()
        figure.draw_without_rendering()  # whatever was drawn can be laid out


def points(ax, marker="o"):
    return [line.get_xydata() for line in ax.lines if line.get_marker() == marker]


@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3)])
def test_the_spectrum_shows_every_exponent_with_two_standard_errors(ax, lead):
    result = lyapunov_spectrum(rng(1).normal(size=(200, *lead, 4, 4)), rng=rng())
    plot_lyapunov_spectrum(ax, result)
    members = result.exponents.reshape(-1, 4)
    (drawn,) = points(ax)
    np.testing.assert_array_equal(drawn[:, 0], [1, 2, 3, 4])
    np.testing.assert_allclose(drawn[:, 1], members.mean(axis=0), rtol=1e-13)
    bars = ax.containers[0].lines[2][0].get_segments()
    half = [0.5 * (bar[1, 1] - bar[0, 1]) for bar in bars]
    error = members.std(axis=0, ddof=1) / np.sqrt(len(members)) if len(members) > 1 else result.standard_error.reshape(-1)
    np.testing.assert_allclose(half, 2.0 * error, rtol=1e-9)  # differences of coordinates
    assert "nats per step" in ax.get_ylabel()


def test_exponents_of_minus_infinity_are_marked_at_the_edge_and_nan_is_left_out(ax):
    singular = lyapunov_spectrum([np.diag([1.1, 0.9, 0.0, 0.0])] * 100, rng=rng())
    plot_lyapunov_spectrum(ax, singular)
    np.testing.assert_array_equal(points(ax)[0][:, 0], [1, 2])
    np.testing.assert_array_equal(points(ax, "v")[0][:, 0], [3, 4])
    lost = lyapunov_spectrum([np.full((2, 2), np.nan)] * 5, rng=rng())
    plot_lyapunov_spectrum(ax, lost)
    assert points(ax)[1].size == 0


def test_the_convergence_ends_at_the_estimate(ax):
    result = lyapunov_spectrum(rng(2).normal(size=(500, 2, 3, 3)), rng=rng(), transient=100)
    plot_lyapunov_convergence(ax, result, ranks=(1, 3, 7))
    assert [line.get_label() for line in ax.lines] == [r"$\lambda_{1}$", r"$\lambda_{3}$"]
    for line, rank in zip(ax.lines, (1, 3), strict=True):
        assert line.get_xydata()[-1] == pytest.approx([400, result.exponents[:, rank - 1].mean()])
    assert len({(to_hex(line.get_color()), line.get_linestyle()) for line in ax.lines}) == 2
    assert len({line.get_linestyle() for line in ax.lines}) == 2  # told apart without colour


def test_the_sweep_shows_median_range_and_theory(ax):
    gains, exponents = np.linspace(0.5, 2.0, 4), rng(3).normal(size=(5, 4))
    plot_exponent_against_gain(ax, gains, exponents, "N = 100", theory=np.log(gains))
    median, theory = ax.lines[:2]
    np.testing.assert_array_equal(median.get_ydata(), np.median(exponents, axis=0))
    np.testing.assert_array_equal(theory.get_ydata(), np.log(gains))
    shaded = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (shaded.min(), shaded.max()) == (exponents.min(), exponents.max())
    assert median.get_linestyle() != theory.get_linestyle()
    assert matplotlib.rcParams["font.size"] == 8.0  # inside the style, untouched
