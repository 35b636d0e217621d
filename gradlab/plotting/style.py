"""One style for all figures, at the widths of a journal's column and page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMN = 3.3
"""Width of one column, inches."""
PAGE = 6.9
"""Width of the page, inches."""

COLOURS = {
    "black": "#000000",
    "vermilion": "#D55E00",
    "blue": "#0072B2",
    "green": "#009E73",
    "pink": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "grey": "#777777",
}
"""The palette of Okabe & Ito (2008), safe for colour-blind readers."""

LINES: dict[str, dict[str, Any]] = {
    "first": {"color": COLOURS["vermilion"], "linestyle": "-"},
    "second": {"color": COLOURS["blue"], "linestyle": "--"},
    "third": {"color": COLOURS["black"], "linestyle": ":"},
}
"""Lines that differ in colour and in dashes, so that a print in grey keeps them apart."""


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib with gradlab's style file, and with its settings as they were afterwards."""
    with matplotlib.rc_context(fname=Path(__file__).with_name("gradlab.mplstyle")):
        yield


def new_figure(width: float = COLUMN, height: float = 2.4) -> Figure:
    """An empty figure of `width` x `height` inches; no window, no pyplot."""
    return Figure(figsize=(width, height), layout="constrained")


def panel_label(ax: Axes, letter: str, text: str) -> None:
    """The heading of a panel: "a  text", flush left."""
    ax.set_title(f"$\\bf{{{letter}}}$  {text}", loc="left")


def stamp(figure: Figure, text: str) -> None:
    """A word in the corner that says what a figure must not be taken for."""
    figure.text(0.995, 0.005, text, ha="right", va="bottom", fontsize=7, color="#B00000", alpha=0.9, zorder=10)
