"""One set of numbers, several looks: what each changes, where it goes, and that it never replaces what is published."""

import re

import numpy as np
import pytest
from runs.calls import call, data
from runs.toys import toy

from gradlab.runs import Look, main
from gradlab.runs.store import draw_figures

STYLE = "axes.facecolor: yellow\nfont.size: 13\n"


def with_axes(seen=None):
    """A toy whose figure has axes, and that tells which settings it was drawn with."""

    def draw(result):
        import matplotlib
        from matplotlib.figure import Figure

        if seen is not None:
            seen.append((matplotlib.rcParams["axes.facecolor"], matplotlib.rcParams["font.size"]))
        figure = Figure(figsize=(6.9, 2.0), dpi=20)
        figure.add_subplot().plot(result["x"])
        return figure

    return toy(draw=draw)


@pytest.fixture
def run(tmp_path):
    """A function that runs a toy with these arguments, `figures` being the default folder; that folder."""
    folder = tmp_path / "figures"

    def of(*argv, analysis=None):
        return main({"alpha": analysis or with_axes()}, [str(a) for a in argv], folder=folder)

    assert of() == 0
    return of, folder


def width_of_pdf(path):
    return float(re.search(rb"/MediaBox \[ ?0 0 ([0-9.]+)", path.read_bytes())[1]) / 72.0


def size_of_png(path):
    return tuple(int.from_bytes(path.read_bytes()[k : k + 4], "big") for k in (16, 20))


def test_another_look_goes_beside_what_is_published_and_leaves_it_as_it_is(run):
    of, folder = run
    before = data(folder)
    assert of("--redraw", "--style", "slides") == 0
    assert of("--redraw", "--width", "3.3", "--format", "svg") == 0
    assert data(folder) == before
    assert set(data(folder / "slides")) == {"alpha.pdf", "alpha.png"}
    assert set(data(folder / "3.3in")) == {"alpha.svg"}


def test_a_computation_in_another_look_draws_the_published_one_too(run):
    of, folder = run
    before = data(folder)
    assert of("--force", "--style", "slides") == 0
    assert data(folder) == before
    assert set(data(folder / "slides")) == {"alpha.pdf", "alpha.png"}


def test_in_a_folder_of_ones_own_the_look_is_that_of_the_figures_there(tmp_path):
    assert call({"alpha": with_axes()}, tmp_path) == 0
    before = data(tmp_path)
    assert call({"alpha": with_axes()}, tmp_path, "--redraw", "--width", "5") == 0
    after = data(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"alpha.pdf", "alpha.png"}
    assert width_of_pdf(tmp_path / "alpha.pdf") == pytest.approx(5.0, rel=1e-6)  # PDF rounds to 1e-5 points or so


def test_slides_have_bolder_lines_and_1920_pixels_and_the_same_layout(run):
    of, folder = run
    seen = []
    plain = with_axes()

    def draw(result):
        seen.append(plain.draw(result))
        seen[-1].axes[0].legend(seen[-1].axes[0].lines, ["x"])
        return seen[-1]

    for style in ("paper", "slides"):
        assert of("--redraw", "--style", style, analysis=toy(draw=draw)) == 0
    assert width_of_pdf(folder / "slides" / "alpha.pdf") == pytest.approx(6.9, rel=1e-6)
    assert size_of_png(folder / "slides" / "alpha.png") == (1920, int(1920.5 * 2.0 / 6.9))
    paper, slides = ([ax.lines[0], *ax.get_legend().get_lines()] for figure in seen for ax in figure.axes)
    assert [line.get_linewidth() for line in slides] == [1.5 * line.get_linewidth() for line in paper]


def test_a_style_file_of_ones_own_is_applied_to_stored_numbers_and_to_nothing_else(run, tmp_path):
    import matplotlib

    of, folder = run
    mine = tmp_path / "mine.mplstyle"
    mine.write_text(STYLE)
    before, settings, seen = data(folder), dict(dict.items(matplotlib.rcParams.copy())), []
    assert of("--redraw", "--mplstyle", mine, analysis=with_axes(seen)) == 0
    assert seen == [("yellow", 13.0)]
    assert data(folder) == before
    assert set(data(folder / "mine")) == {"alpha.pdf", "alpha.png"}
    assert data(folder / "mine")["alpha.png"] != before["alpha.png"]
    assert dict(dict.items(matplotlib.rcParams.copy())) == settings


@pytest.mark.parametrize("text", ["no style at all\n", "axes.facecolour: yellow\n", "font.size: big\n", "\xff\xfe"], ids=repr)
def test_a_file_that_is_no_style_is_refused_in_one_line_before_anything_is_computed(run, tmp_path, capsys, text):
    of, folder = run
    mine = tmp_path / "mine.mplstyle"
    mine.write_bytes(text.encode("latin-1"))
    before = data(folder)
    capsys.readouterr()
    assert of("--force", "--mplstyle", mine) == 3
    out, err = capsys.readouterr()
    (line,) = err.strip().splitlines()
    assert f"error: {mine}: no matplotlib style file" in line
    assert (out, data(folder)) == ("", before)
    assert of("--redraw", "--mplstyle", tmp_path / "nowhere") == 3
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "look", [Look(formats=("pdf", "png", "svg")), Look("slides", formats=("pdf", "png", "svg")), Look(width=3.0)]
)
def test_every_look_gives_the_same_bytes_twice(look):
    result = {"x": np.arange(5.0)}
    once, again = (draw_figures(with_axes(), result, "full", look, look.formats) for _ in range(2))
    assert once == again
    assert set(once) == set(look.formats)


def test_a_format_more_is_written_beside_pdf_and_png(tmp_path):
    assert call({"alpha": toy()}, tmp_path, "--format", "svg") == 0
    assert {"alpha.pdf", "alpha.png", "alpha.svg"} <= set(data(tmp_path))
