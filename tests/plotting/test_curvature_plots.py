"""Pictures of curvature show the numbers of their results."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from gradlab.analysis.curvature import Sharpness, extreme_eigenvalues
from gradlab.analysis.spectral_densities import spectral_density
from gradlab.errors import ShapeError
from gradlab.plotting.curvature import plot_sharpness, plot_spectral_density
from gradlab.status import OK, Status

D = np.concatenate([np.linspace(-0.1, 0.1, 50), [1.0, 2.0]])


@pytest.fixture
def ax():
    return Figure().subplots()


def line(ax, label):
    return next(found for found in ax.lines if found.get_label() == label)


def test_the_density_is_drawn_as_it_is_above_a_tenth_of_one_eigenvalue(ax):
    result = spectral_density(lambda v: D * v, size=52, rng=np.random.default_rng(0), probes=3, steps=20)
    plot_spectral_density(ax, result)
    floor = 0.1 / (52 * result.width * np.sqrt(2.0 * np.pi))
    x, y = line(ax, "density").get_data()
    np.testing.assert_array_equal(x, result.grid)
    np.testing.assert_array_equal(y, np.maximum(result.density, floor))
    assert ax.get_yscale() == "log"
    assert ax.get_ylim()[0] == pytest.approx(floor)
    ax.figure.draw_without_rendering()


def test_a_density_of_one_probe_has_no_band_and_is_drawn(ax):
    result = spectral_density(lambda v: D * v, size=52, rng=np.random.default_rng(0), probes=1, steps=20)
    plot_spectral_density(ax, result)
    ax.figure.draw_without_rendering()
    assert np.isfinite(line(ax, "density").get_ydata()).all()


@pytest.mark.parametrize("restarts", [1, 100])
def test_eigenvalues_are_ticks_and_unconverged_ones_are_named_so(ax, restarts):
    d = np.concatenate([np.linspace(0.0, 1.0, 499), [1.0 + 1e-6]]) if restarts == 1 else D
    rng = np.random.default_rng(0)
    result = spectral_density(lambda v: d * v, size=len(d), rng=rng, probes=2, steps=10)
    extremes = extreme_eigenvalues(lambda v: d * v, 2, size=len(d), rng=rng, restarts=restarts)
    assert extremes.status.ok == (restarts == 100)
    plot_spectral_density(ax, result, extremes)
    ticks = line(ax, "eigenvalues" if restarts == 100 else "eigenvalues, not converged")
    expected = np.concatenate([extremes.smallest.values, extremes.largest.values])
    np.testing.assert_array_equal(ticks.get_xdata(), expected[np.isfinite(expected)])
    ax.figure.draw_without_rendering()


def measured(value, eta, status=OK):
    return Sharpness(value, 0.0, np.ones(1), eta, 2.0 / eta, 0.5 * eta * value, status)


def test_sharpness_stands_beside_two_over_the_learning_rate_and_doubts_are_marked(ax):
    results = [measured(1.0, 0.5), measured(3.0, 0.5, Status("nonconverged", "")), measured(5.0, 0.25)]
    plot_sharpness(ax, np.array([0, 10, 20]), results)
    np.testing.assert_array_equal(line(ax, r"sharpness $\lambda_{\max}$").get_ydata(), [1.0, 3.0, 5.0])
    np.testing.assert_array_equal(line(ax, r"$2/\eta$").get_ydata(), [4.0, 4.0, 8.0])
    np.testing.assert_array_equal(line(ax, "not converged").get_xdata(), [10])
    ax.figure.draw_without_rendering()
    with pytest.raises(ShapeError, match=r"updates has shape \(2,\); expected \(3,\)"):
        plot_sharpness(ax, np.array([0, 10]), results)
