"""Pictures: readable at their printed size, grey where a number is missing, and no trace left in matplotlib."""

import os
import re
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from runs import quick
from runs.toys import toy

from analyses import ALL
from gradlab import plotting
from gradlab._files import write_npz
from gradlab.runs import store

ROOT = Path(__file__).resolve().parent.parent.parent
GREY = tuple(round(255 * part) for part in to_rgb("#BBBBBB"))


def settings():
    """All of rcParams; reading one by one would choose a backend."""
    return dict(dict.items(matplotlib.rcParams.copy()))


def state():
    return settings(), list(warnings.filters), np.geterr(), dict(os.environ)


def drawn(stem, result=None):
    """The figure of an analysis on its quick result, laid out."""
    with plotting.style():
        figure = ALL[stem].draw(quick.result(stem) if result is None else result)
        figure.draw_without_rendering()
    return figure


@pytest.fixture(scope="module")
def figures():
    return {stem: drawn(stem) for stem in ALL}


# ---- style ------------------------------------------------------------------------------------------------


def test_the_style_holds_inside_and_every_setting_is_as_before_outside():
    before = settings()
    with plotting.style():
        assert matplotlib.rcParams["font.size"] == 8.0
        assert matplotlib.rcParams["pdf.fonttype"] == 42  # outlines that journals accept
        assert settings() != before
    assert settings() == before


def test_the_settings_come_back_after_an_exception_and_after_changes_inside():
    before = settings()

    def fail():
        with plotting.style(), plotting.style():
            matplotlib.rcParams["font.size"] = 30.0
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert settings() == before


def test_the_settings_of_the_user_have_no_part_in_a_figure():
    with plotting.style():
        expected = settings()
    with matplotlib.rc_context({"font.size": 31.0, "axes.grid": True, "savefig.bbox": "tight", "lines.linewidth": 9.0}):
        mine = settings()
        with plotting.style():
            assert settings() == expected
        assert settings() == mine


def test_the_curves_of_one_axes_differ_in_colour_and_in_dashes():
    for one, other in (("first", "second"), ("first", "third"), ("second", "third")):
        assert plotting.LINES[one]["color"] != plotting.LINES[other]["color"]
        assert plotting.LINES[one]["linestyle"] != plotting.LINES[other]["linestyle"]


# ---- the figures of the analyses --------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ALL)
def test_drawing_changes_no_array_and_no_global_state(stem):
    result, untouched = quick.result(stem), quick.result(stem)
    for array in result.values():
        array.flags.writeable = False
    before = state()
    ALL[stem].draw(result)
    assert state() == before
    for name, array in untouched.items():
        np.testing.assert_array_equal(result[name], array, strict=True)


@pytest.mark.parametrize("stem", ALL)
def test_a_figure_that_cannot_be_drawn_leaves_the_settings_as_they_were(stem):
    before = settings()
    with pytest.raises(KeyError):
        store.draw_figures(ALL[stem], {}, "full")
    assert settings() == before


@pytest.mark.parametrize("stem", ALL)
def test_a_figure_is_one_column_or_one_page_wide(figures, stem):
    width, height = figures[stem].get_size_inches()
    assert width in (3.3, 6.9)
    assert 1.0 <= height <= 8.0  # fits a page with its caption


@pytest.mark.parametrize("stem", ALL)
def test_no_text_is_smaller_than_six_points(figures, stem):
    texts = [text for text in figures[stem].findobj(Text) if text.get_visible() and text.get_text().strip()]
    assert len(texts) > 5
    assert {text.get_text(): text.get_fontsize() for text in texts if text.get_fontsize() < 6.0} == {}


def named(axis):
    """Whether an axis has a label, or words instead of numbers at its ticks."""
    ticks = [tick.get_text() for tick in axis.get_ticklabels() if tick.get_text()]
    return bool(axis.get_label_text()) or (bool(ticks) and all(re.search("[A-Za-z]{3}", text) for text in ticks))


@pytest.mark.parametrize("stem", ALL)
def test_every_axis_says_what_it_shows(figures, stem):
    assert figures[stem].axes
    for place, ax in enumerate(figures[stem].axes):
        axes = [ax.yaxis] if ax.get_label() == "<colorbar>" else [ax.xaxis, ax.yaxis]
        axes += [ax.zaxis] if hasattr(ax, "zaxis") else []
        axes = axes if ax.axison else []  # a table has none
        # Small multiples that share an axis say it once.
        shared = {"x": ax.get_shared_x_axes(), "y": ax.get_shared_y_axes()}
        silent = [axis.axis_name for axis in axes if not named(axis)]
        silent = [
            name
            for name in silent
            if name not in shared or not any(named(getattr(one, f"{name}axis")) for one in shared[name].get_siblings(ax))
        ]
        assert silent == [], f"panel {place}"


@pytest.mark.parametrize("stem", ALL)
def test_nothing_of_a_figure_is_cut_off_at_its_edge(figures, stem):
    figure = figures[stem]
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    point = 1.0 / 72.0  # the blank edge of a letter
    assert min(box.x0, box.y0) >= -point
    assert box.x1 <= width + point
    assert box.y1 <= height + point


def test_a_figure_is_stored_at_its_printed_size():
    with plotting.style():
        figure = plotting.new_figure(plotting.COLUMN, 1.5)
        figure.subplots().plot([0, 1])
        png = store.figure_bytes(figure, "png")
        pdf = store.figure_bytes(figure, "pdf")
    assert struct.unpack(">II", png[16:24]) == (990, 450)  # 300 dots an inch, nothing cropped
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", pdf)
    assert [float(size) for size in box.groups()] == pytest.approx([3.3 * 72, 1.5 * 72], abs=0.01)  # points, two decimals


def texts_of_stored(monkeypatch, scale):
    seen = []
    monkeypatch.setattr(store, "figure_bytes", lambda figure, kind: seen.append(figure) or b"")
    assert set(store.draw_figures(toy(), {"x": np.zeros(5)}, scale)) == {"pdf", "png"}
    return [text.get_text() for figure in seen for text in figure.texts]


def test_quick_figures_are_stamped_in_both_files_and_full_ones_in_none(monkeypatch):
    quick_texts = texts_of_stored(monkeypatch, "quick")
    assert len(quick_texts) == 2
    assert all(text.startswith("quick") for text in quick_texts)
    assert texts_of_stored(monkeypatch, "full") == []


def test_the_stamp_is_inside_the_figure_and_large_enough_to_read():
    with plotting.style():
        figure = plotting.new_figure()
        plotting.stamp(figure, "quick: a small run, not for citation")
        (text,) = figure.texts
        box = text.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert text.get_fontsize() >= 6.0
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= box.y0


PYPLOT = """
import sys
from pathlib import Path
from analyses import ALL
from gradlab.runs import store
from gradlab import plotting
import matplotlib
before = dict(dict.items(matplotlib.rcParams.copy()))
for stem, analysis in ALL.items():
    result, scale = store.load_result(Path(sys.argv[1]), stem)
    with plotting.style():
        figure = analysis.draw(result)
        plotting.stamp(figure, "quick")
    assert "matplotlib.pyplot" not in sys.modules, f"after draw of {stem}"
for kind in ("pdf", "png"):
    store.figure_bytes(figure, kind)
    assert "matplotlib.pyplot" not in sys.modules, f"after {kind}"
assert dict(dict.items(matplotlib.rcParams.copy())) == before
"""


def test_no_figure_imports_pyplot_or_chooses_a_backend(tmp_path):
    for stem in ALL:
        header = {"schema": 1, "kind": "gradlab.analysis", "analysis": stem, "scale": "quick"}
        write_npz(tmp_path / f"{stem}.npz", header, quick.result(stem))
    argv = [sys.executable, "-c", PYPLOT, str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_gradients_that_vanish_or_stay_are_drawn_without_a_warning():
    result = quick.result("gradient_flow")
    flat, gone = np.zeros_like(result["lstm_before_h"]), result["elman_after_h"]
    gone[:40] = -np.inf  # an exact zero at every lag from 21 on
    figure = drawn("gradient_flow", result | {"lstm_before_h": flat, "elman_after_h": gone})  # horizons inf
    figure.savefig(os.devnull, format="png")  # a warning would be an error
    assert any(line.get_xydata().size for ax in figure.axes for line in ax.lines)


def test_the_relief_shows_no_point_of_a_path_outside_the_grid():
    result = quick.result("error_surface")
    low, high = result["w"][0], result["w"][-1]
    result["path_w"][0, 5:] = high + 3.0
    result["path_w"][1, 7:] = low - 3.0
    figure = drawn("error_surface", result)
    (relief,) = [ax for ax in figure.axes if hasattr(ax, "zaxis")]
    assert len(relief.lines) == 2
    for line in relief.lines:
        w = np.asarray(line.get_data_3d()[0], dtype=float)
        assert np.isfinite(w).any()
        assert [value for value in w[np.isfinite(w)] if not low <= value <= high] == []


# ---- surfaces ---------------------------------------------------------------------------------------------


def pixels(values):
    """The colour in the middle of every cell of `plot_surface`, (len(y), len(x), 3), and its axes."""
    y, x = (np.arange(float(size)) for size in values.shape)
    with plotting.style():
        figure = Figure(figsize=(2.0, 2.0), dpi=100, layout="constrained")
        ax = figure.subplots()
        plotting.plot_surface(ax, x, y, values, "value")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    image = np.asarray(canvas.buffer_rgba())
    found = np.empty((*values.shape, 3), dtype=int)
    for row in range(len(y)):
        for col in range(len(x)):
            across, up = ax.transData.transform((x[col], y[row]))
            found[row, col] = image[image.shape[0] - 1 - int(up), int(across), :3]
    return found


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_cell_that_is_not_finite_is_grey_and_every_other_is_coloured(bad):
    values = np.arange(12.0).reshape(3, 4)
    values[1, 2] = bad
    found = pixels(values)
    assert tuple(found[1, 2]) == GREY
    others = [tuple(found[row, col]) for row in range(3) for col in range(4) if (row, col) != (1, 2)]
    assert len(set(others)) == 11  # eleven values, eleven colours: the range is that of the finite ones
    assert GREY not in others


@pytest.mark.parametrize(
    "values",
    [
        np.full((3, 4), np.nan),
        np.full((3, 4), np.inf),
        np.full((3, 4), 2.0),
        np.zeros((3, 4)),
        np.array([[np.nan, 1.0], [np.inf, 1.0]]),
    ],
    ids=["all NaN", "all infinite", "all equal", "all zero", "one value and gaps"],
)
def test_a_surface_without_range_is_drawn_and_its_gaps_are_grey(values):
    found = pixels(values)
    for place in np.ndindex(values.shape):
        assert (tuple(found[place]) == GREY) == (not np.isfinite(values[place]))


def test_a_surface_that_spans_the_range_of_floats_is_drawn():
    found = pixels(np.array([[-1e308, 0.0], [1e308, np.nan]]))
    assert tuple(found[1, 1]) == GREY
    assert len({tuple(found[place]) for place in np.ndindex(2, 2)}) == 4


def test_a_surface_is_drawn_the_right_way_up():
    values = np.zeros((3, 4))
    values[2, 1] = 1.0  # y = 2, x = 1
    found = pixels(values).sum(axis=-1)  # cividis grows lighter
    assert np.unravel_index(found.argmax(), found.shape) == (2, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["one", "all"])
def test_a_relief_with_gaps_is_drawn_without_a_warning_and_without_its_gaps(bad, where):
    values = np.arange(12.0).reshape(3, 4)
    values[(1, 2) if where == "one" else ...] = bad
    with plotting.style():
        figure = Figure(figsize=(2.0, 2.0))
        ax = figure.add_subplot(projection="3d")
        plotting.plot_surface_3d(ax, np.arange(4.0), np.arange(3.0), values)
        FigureCanvasAgg(figure).draw()
    assert np.isfinite(ax.get_zlim()).all()
    assert np.isfinite(values).sum() == (11 if where == "one" else 0)  # the argument is not modified


def test_a_surface_does_not_modify_its_values():
    values = np.array([[np.nan, 1.0], [2.0, np.inf]])
    values.flags.writeable = False
    before = values.copy()
    pixels(values)  # writing to it would raise
    np.testing.assert_array_equal(values, before)


# ---- curves -----------------------------------------------------------------------------------------------


def test_a_band_shows_the_median_and_the_whole_range_of_its_seeds():
    curves = np.array([[1.0, 5.0, 2.0], [3.0, 4.0, 9.0], [2.0, 6.0, 8.0]])
    ax = Figure().subplots()
    plotting.band(ax, np.arange(3.0), curves, "seeds", **plotting.LINES["first"])
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_ydata(), [2.0, 5.0, 8.0])
    assert line.get_label() == "seeds"
    (area,) = ax.collections
    outline = area.get_paths()[0].vertices
    for x, low, high in ((0.0, 1.0, 3.0), (1.0, 4.0, 6.0), (2.0, 2.0, 9.0)):
        heights = outline[outline[:, 0] == x, 1]
        assert (heights.min(), heights.max()) == (low, high)


def test_a_reference_line_is_drawn_across_the_axes_at_its_height_and_named():
    ax = Figure().subplots()
    plotting.reference_line(ax, 0.25, "a quarter", 0.1)
    (line,) = ax.lines
    assert list(line.get_ydata()) == [0.25, 0.25]
    assert list(line.get_xdata()) == [0.0, 1.0]  # of the width of the axes
    assert [text.get_text() for text in ax.texts] == ["a quarter"]
