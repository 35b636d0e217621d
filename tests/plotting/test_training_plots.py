"""Pictures of a training run: what is drawn is what the monitor noted, readable at any time of the run."""

import matplotlib
import numpy as np
import pytest

from gradlab import plotting
from gradlab.errors import GradlabError
from gradlab.plotting.training import (
    plot_adjoint_map,
    plot_clipping,
    plot_gate_shares,
    plot_loss_with_jumps,
    plot_sharpness_limit,
    plot_update_ratios,
    training_page,
)
from gradlab.training import Monitor, jumps


@pytest.fixture
def ax():
    with plotting.style():
        figure = plotting.new_figure()
        yield figure.subplots()
        figure.draw_without_rendering()  # whatever was drawn can be laid out


def monitored(E=None, updates=60, path=None, sharpness=False, loss=None):
    """A run of known numbers: the gradient of w is (3, 4) times the update, clipped to 50; adjoints fall by a decade a step."""
    lead = () if E is None else (E,)
    monitor = Monitor(path, every=5, probes={"sharpness": lambda params, record: np.full(lead, 7.0)} if sharpness else None)
    rng = np.random.default_rng(0)
    for k in range(updates):
        size = 5.0 * (k + 1)
        w = np.broadcast_to((k + 1) * np.array([3.0, 4.0]), (*lead, 2))
        value = np.exp(-k / 30.0) * (1.0 + 0.01 * rng.normal(size=lead)) * (5.0 if k == 40 else 1.0)
        adjoints = 10.0 ** -np.arange(11.0)[::-1] * np.array([1.0] * 11)
        adjoints[0] = 0.0
        monitor.record(
            k,
            loss=value if loss is None else np.full(lead, loss[k]),
            gradients={"w": w},
            clipped={"w": w * min(1.0, 50.0 / size)},
            params={"w": w},
            new_params={"w": 1.01 * w},
            learning_rate=np.full(lead, 0.25),
            adjoint_norms={"0": np.broadcast_to(adjoints, (*lead, 11))},
        )
    return monitor


@pytest.mark.parametrize("E", [None, 3])
def test_the_map_shows_each_look_as_a_column_and_zero_as_a_hole(ax, E):
    mesh = plot_adjoint_map(ax, monitored(E))
    shown = mesh.get_array()
    assert shown.shape == (11, 12)  # steps upward, looks to the right
    np.testing.assert_allclose(shown[1:, 0], np.arange(-9.0, 1.0), atol=1e-12)
    assert np.ma.getmaskarray(shown)[0].all()
    assert not np.ma.getmaskarray(shown)[1:].any()
    np.testing.assert_allclose(
        mesh.get_coordinates()[0, [0, 1, -1], 0], [-2.5, 2.5, 57.5]
    )  # halfway between looks at 0, 5, ..., 55
    assert ax.get_xlabel() == "update"
    assert "step" in ax.get_ylabel()


def test_what_is_far_below_the_largest_has_the_darkest_colour(ax):
    shown = plot_adjoint_map(ax, monitored(), decades=4.0).get_array()
    assert shown.min() == pytest.approx(-4.0)


def test_of_an_ensemble_the_median_is_shown_or_one_member(ax):
    monitor = Monitor(every=1)
    levels = np.array([1e-3, 1e-1, 1e0])
    for k in range(3):
        monitor.record(k, loss=np.zeros(3), adjoint_norms={"0": levels[:, None] * np.ones((3, 4))})
    np.testing.assert_allclose(plot_adjoint_map(ax, monitor).get_array(), -1.0, atol=1e-12)
    np.testing.assert_allclose(plot_adjoint_map(ax, monitor, member=0).get_array(), -3.0, atol=1e-12)
    with pytest.raises(GradlabError, match="member is 3; expected None or an index below 3"):
        plot_adjoint_map(ax, monitor, member=3)


@pytest.mark.parametrize("E", [None, 3])
def test_the_loss_is_drawn_with_a_triangle_at_each_jump(ax, E):
    monitor = monitored(E)
    plot_loss_with_jumps(ax, monitor)
    updates, losses = monitor.series("loss")
    (triangles,) = [line for line in ax.lines if line.get_marker() == "v"]
    found = np.argwhere(jumps(losses.reshape(len(losses), -1)))
    assert set(triangles.get_xdata()) == {40}
    assert len(triangles.get_xdata()) == len(found) == (E or 1)
    np.testing.assert_array_equal(np.sort(triangles.get_ydata()), np.sort(np.atleast_1d(losses[40])))
    (curve,) = [line for line in ax.lines if line.get_marker() != "v"]
    np.testing.assert_array_equal(curve.get_ydata(), np.median(losses.reshape(len(losses), -1), axis=1))
    np.testing.assert_array_equal(curve.get_xdata(), updates)
    assert ax.get_yscale() == "log"


def test_a_loss_that_is_not_finite_or_not_positive_is_drawn_too(ax):
    plot_loss_with_jumps(ax, monitored(loss=[1.0] * 30 + [np.nan] + [1.0] * 28 + [np.inf]))
    (triangles,) = [line for line in ax.lines if line.get_marker() == "v"]
    np.testing.assert_array_equal(triangles.get_xdata(), [30, 59])
    assert np.isfinite(triangles.get_ydata()).all()
    ax.clear()
    plot_loss_with_jumps(ax, monitored(loss=np.linspace(1.0, -1.0, 60)))
    assert ax.get_yscale() == "linear"
    ax.clear()
    plot_loss_with_jumps(ax, monitored(loss=[np.nan] * 60))


@pytest.mark.parametrize("E", [None, 3])
def test_the_clipping_panel_shows_both_norms_and_the_share(ax, E):
    plot_clipping(ax, monitored(E))
    before, after = ax.lines[:2]
    np.testing.assert_allclose(before.get_ydata(), 5.0 * np.arange(1, 61), rtol=1e-12)
    np.testing.assert_allclose(after.get_ydata(), np.minimum(5.0 * np.arange(1, 61), 50.0), rtol=1e-12)
    assert ax.get_title(loc="right") == "83 % of updates clipped"  # all but the first ten of sixty
    np.testing.assert_array_equal(ax.lines[2].get_xdata(), np.arange(10, 60))
    assert before.get_color() != after.get_color()


def test_update_ratios_gates_and_the_edge_are_drawn_as_they_were_noted(ax):
    monitor = monitored(sharpness=True)
    plot_update_ratios(ax, monitor)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 0.01, rtol=1e-9)
    ax.clear()
    plot_sharpness_limit(ax, monitor)
    assert {line.get_label(): set(line.get_ydata()) for line in ax.lines} == {"sharpness": {7.0}, "2/learning rate": {8.0}}
    with pytest.raises(GradlabError, match="run holds no gates of layer '0'"):
        plot_gate_shares(ax, monitor)


def test_the_legend_has_a_strip_of_its_own(ax):
    plot_clipping(ax, monitored())
    ax.figure.draw_without_rendering()
    strip = ax.get_legend().get_window_extent().y0
    highest = max(ax.transData.transform((0.0, float(np.max(line.get_ydata()))))[1] for line in ax.lines[:2])
    assert highest <= strip


@pytest.mark.parametrize("sharpness", [False, True])
@pytest.mark.parametrize("E", [None, 3])
def test_the_page_holds_what_was_kept_and_is_drawn_from_the_file_of_a_running_training_too(E, sharpness, tmp_path):
    monitor = monitored(E, path=tmp_path / "run", sharpness=sharpness)
    monitor.flush()
    before = dict(dict.items(matplotlib.rcParams.copy()))  # reading one by one would choose a backend
    written = sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir())
    figure = training_page(monitor if sharpness else tmp_path / "run")
    figure.draw_without_rendering()
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert len(titles) == (5 if sharpness else 4)
    assert "loss" in titles[0]
    assert dict(dict.items(matplotlib.rcParams.copy())) == before
    assert sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir()) == written


def test_a_file_gives_the_curves_of_the_monitor_that_wrote_it(ax, tmp_path):
    monitor = monitored(path=tmp_path / "run")
    monitor.flush()
    for run in (monitor, tmp_path / "run", str(tmp_path / "run.npz")):
        plot_clipping(ax, run)
    for line in range(3):
        for other in (line + 3, line + 6):
            np.testing.assert_array_equal(ax.lines[line].get_xydata(), ax.lines[other].get_xydata())


def test_the_smallest_run_of_one_update_has_a_page():
    monitor = Monitor()
    monitor.record(0, loss=1.0, adjoint_norms={"0": np.zeros(3)})
    training_page(monitor).draw_without_rendering()
    with pytest.raises(GradlabError, match="run holds no updates yet"):
        training_page(Monitor())


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda ax: plot_adjoint_map(ax, Monitor()), "name is 'adjoint/0'; expected"),
        (lambda ax: plot_adjoint_map(ax, monitored(), decades=0.0), "decades is 0.0"),
        (lambda ax: plot_adjoint_map(ax, monitored(), member=-1), "member is -1"),
        (lambda ax: plot_clipping(ax, Monitor()), "run holds no gradients"),
        (lambda ax: plot_update_ratios(ax, Monitor()), "run holds no update ratios"),
        (lambda ax: plot_loss_with_jumps(ax, {"loss": [1.0]}), r"run is .*; expected a gradlab.training.Monitor"),
        (lambda ax: plot_loss_with_jumps(ax, "nowhere.npz"), "no such regular file"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(ax, draw, message):
    with pytest.raises(GradlabError, match=message):
        draw(ax)
