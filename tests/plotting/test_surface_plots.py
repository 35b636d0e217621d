"""Slices, trajectories, fixed points and bifurcations drawn: what is shown is what was computed, and what is lost is counted."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from gradlab import Batch, Elman, Network, mean_squared_error, plotting
from gradlab.analysis.branches import along, bifurcation
from gradlab.analysis.fixed_point_search import fixed_points
from gradlab.analysis.folds import fold_points
from gradlab.analysis.surface_directions import named_weights
from gradlab.analysis.surfaces import loss_between, loss_surface
from gradlab.analysis.trajectory import trajectory_pca
from gradlab.errors import ShapeError, ValueRangeError
from gradlab.plotting.fixed_points import MARKS, plot_bifurcation, plot_fixed_points
from gradlab.plotting.loss_surface import plot_loss_line, plot_loss_slice, plot_loss_surface, plot_trajectory


def one():
    """A linear unit over 40 steps, whose loss overflows for a large recurrent weight."""
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.zeros((1, 1)), "0.b": np.zeros(1)}
    return net, params, Batch(np.ones((40, 1, 1)), np.zeros((1, 1)))


def surface(a, b=None, **options):
    net, params, batch = one()
    directions = named_weights(net, ("0.U", (0, 0)), ("0.b", 0))
    return loss_surface(net, params, batch, mean_squared_error, directions[: 1 if b is None else 2], a, b, **options)


def axes():
    return Figure(layout="constrained").subplots()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def settings():
    return dict(dict.items(matplotlib.rcParams.copy()))


def test_a_map_shows_every_cell_at_its_place_and_counts_those_without_a_number():
    result = surface(np.array([-0.5, 0.0, 1e9]), np.array([-2.0, 1.0]))
    ax = axes()
    mesh = plot_loss_surface(ax, result)
    shown = mesh.get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), ~result.finite)
    np.testing.assert_array_equal(shown.compressed(), result.loss[result.finite])
    assert texts(ax) == ["2 not finite"]
    ax.figure.draw_without_rendering()


def test_decades_of_a_loss_of_zero_are_those_of_the_smallest_one_above():
    result = surface(np.array([0.0, 0.5]), np.array([-1.0, 0.0]))
    assert result.loss[0, 0] == 0.0  # h = 1 - 1
    shown = plot_loss_surface(axes(), result, decades=True).get_array()
    above = result.loss[result.loss > 0.0].min()
    np.testing.assert_allclose(shown, np.log10(np.maximum(result.loss, above)), rtol=1e-14)


def test_the_norm_of_the_gradient_is_drawn_where_it_was_asked_for():
    result = surface(np.array([0.0, 0.5]), np.array([-1.0, 0.0]), with_gradient=True)
    np.testing.assert_array_equal(plot_loss_surface(axes(), result, what="gradient_norm").get_array(), result.gradient_norm)
    with pytest.raises(ValueRangeError, match="what is 'gradient_norm'"):
        plot_loss_surface(axes(), surface(np.array([0.0, 0.5]), np.array([-1.0, 0.0])), what="gradient_norm")


def test_a_slice_has_a_gap_and_a_mark_where_there_is_no_number():
    result = surface(np.array([0.0, 0.5, 1e9, 0.7]))
    ax = axes()
    plot_loss_slice(ax, result, "U")
    curve, alone, lost = ax.get_lines()
    np.testing.assert_array_equal(np.isfinite(curve.get_ydata()), result.finite)
    assert alone.get_xdata().tolist() == [0.7]
    assert lost.get_xdata().tolist() == [1e9]
    assert texts(ax) == ["1 not finite"]


def test_the_line_between_two_solutions_passes_through_both():
    net, params, batch = one()
    result = loss_between(net, params, params | {"0.b": np.ones(1)}, batch, mean_squared_error, np.linspace(-0.5, 1.5, 5))
    ax = axes()
    plot_loss_line(ax, result)
    assert any(np.array_equal(line.get_ydata(), result.ends) for line in ax.get_lines())


def test_one_member_of_an_ensemble_is_drawn_and_another_index_refused():
    net, params, batch = one()
    params["0.W"] = np.array([1.0, 2.0]).reshape(2, 1, 1)
    (d,) = named_weights(net, ("0.b", 0))
    result = loss_surface(net, params, batch, mean_squared_error, [d], np.array([0.0, 1.0]))
    ax = axes()
    plot_loss_slice(ax, result, member=(1,))
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), result.loss[:, 1])
    for member in ((), (2,), (0, 0)):
        with pytest.raises(ShapeError, match="expected an index into the ensemble axes"):
            plot_loss_slice(ax, result, member=member)


def test_a_slice_and_a_map_are_not_taken_for_each_other():
    with pytest.raises(ShapeError, match="try plot_loss_slice"):
        plot_loss_surface(axes(), surface(np.array([0.0, 1.0])))
    with pytest.raises(ShapeError, match="try plot_loss_surface"):
        plot_loss_slice(axes(), surface(np.array([0.0, 1.0]), np.array([0.0, 1.0])))


def test_a_trajectory_carries_the_variance_that_its_plane_explains():
    net, params, _ = one()
    path = [params | {"0.b": np.full(1, b), "0.U": np.full((1, 1), u)} for b, u in ((0.0, 0.0), (3.0, 0.0), (0.0, 1.0))]
    result = trajectory_pca(net, path)
    ax = axes()
    plot_trajectory(ax, result)
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), result.coordinates[:, 0])
    assert f"{100 * result.explained_variance_ratio[0]:.1f} %" in ax.get_xlabel()
    with pytest.raises(ShapeError, match="expected 2"):
        plot_trajectory(ax, trajectory_pca(net, path, 1))


def latch():
    net = Network(Elman("tanh"), 1, 2)
    params = {"0.W": np.zeros((2, 1)), "0.U": np.diag([1.5, 1.25]), "0.b": np.zeros(2)}
    return net, params, np.random.default_rng(0)


def test_fixed_points_of_each_kind_have_their_own_mark():
    net, params, rng = latch()
    result = fixed_points(net, params, np.zeros(1), rng=rng, count=200)
    ax = axes()
    plot_fixed_points(ax, result)
    drawn = {line.get_label(): line for line in ax.get_lines()}
    assert set(drawn) == {"stable (4)", "saddle (4)", "unstable (1)"}  # three points along each of two axes
    stable = result.fixed.points[np.array(result.fixed.stability) == "stable"]
    np.testing.assert_array_equal(np.stack(drawn["stable (4)"].get_data(), axis=-1), stable)
    assert len({(mark["marker"], mark.get("fillstyle")) for mark in MARKS.values()}) == len(MARKS)  # a print in grey
    with pytest.raises(ValueRangeError, match="component is 2; expected 0 to 1"):
        plot_fixed_points(ax, result, (0, 2))


def test_a_bifurcation_draws_each_branch_once_and_its_folds():
    net, params, rng = latch()
    (d,) = named_weights(net, ("0.b", 0))
    values = np.linspace(-0.4, 0.4, 17)
    result = bifurcation(net, along(net, params, d, values), values, np.zeros(1), rng=rng)
    folds = fold_points(net, params, d, np.zeros(1), result)
    ax = axes()
    plot_bifurcation(ax, result, "$b$", folds=folds)
    *branches, marks = ax.get_lines()
    assert len(branches) == result.branches
    assert sum(len(line.get_xdata()) for line in branches) == result.counts.sum()
    np.testing.assert_array_equal(marks.get_xdata(), folds.values)
    dashed = [line.get_linestyle() for line in branches]
    assert {"-", "--"} <= set(dashed)


def test_drawing_changes_no_setting():
    before = settings()
    net, params, rng = latch()
    plot_loss_surface(axes(), surface(np.array([0.0, 1e9]), np.array([-1.0, 1.0])))
    plot_fixed_points(axes(), fixed_points(net, params, np.zeros(1), rng=rng, count=20))
    assert settings() == before
    assert plotting.COLUMN == 3.3
