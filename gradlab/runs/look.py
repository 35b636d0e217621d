"""How figures look: the paper's style, or another one of the same numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.errors import FormatError

FORMATS = ("pdf", "png", "svg")
STYLES = ("paper", "slides")
PAPER = ("pdf", "png")
"""What every computation writes."""

BOLDER = 1.5
"""Lines on slides, as multiples of those on paper. Text keeps its share: 8 points of 6.9 inches are 15 on a slide."""
PIXELS = 1920
"""Width of a PNG for slides: that of a projector."""


@dataclass(frozen=True)
class Look:
    """`width`: inches, None for that of the analysis. `mplstyle`: a matplotlib style file, applied over gradlab's own."""

    style: str = "paper"
    width: float | None = None
    formats: tuple[str, ...] = PAPER
    mplstyle: Path | None = None

    @property
    def name(self) -> str:
        """A name for a folder; empty if figures look as in the paper."""
        own = [] if self.mplstyle is None else [self.mplstyle.stem.lstrip(".") or "own"]
        slides = [] if self.style == "paper" else [self.style]
        width = [] if self.width is None else [f"{self.width:g}in"]
        return "-".join([*slides, *own, *width])

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Matplotlib with these settings, and with its own ones afterwards. Error: FormatError if the file has none."""
        import matplotlib

        from gradlab import plotting

        with plotting.style(), matplotlib.rc_context(self._own(matplotlib)):
            yield

    def _own(self, matplotlib: Any) -> Any:
        if self.mplstyle is None:
            return {}
        said: list[str] = []
        log, catch = logging.getLogger("matplotlib"), _Said(said)
        log.addHandler(catch)
        spread, log.propagate = log.propagate, False
        try:
            found = matplotlib.rc_params_from_file(self.mplstyle, use_default_template=False)
        except (OSError, ValueError) as error:
            said = [str(error)]
        finally:
            log.removeHandler(catch)
            log.propagate = spread
        if said:
            raise FormatError(f"{self.mplstyle}: no matplotlib style file ({' '.join(said[0].split())[:200]})")
        return dict(found)

    def fit(self, figure: Any) -> None:
        """Give a figure its width, and its height in proportion (text keeps its size in points), and its lines their weight."""
        if self.width is not None:
            width, height = figure.get_size_inches()
            figure.set_size_inches(self.width, height * self.width / width)
        if self.style == "slides":
            _embolden(figure)

    def dots(self, figure: Any) -> dict[str, Any]:
        """Arguments of savefig: how fine a PNG is."""
        return {"dpi": (PIXELS + 0.5) / figure.get_size_inches()[0]} if self.style == "slides" else {}  # pixels are rounded down


def _embolden(figure: Any) -> None:
    """Make curves, their entries in legends, and what is drawn as collections bolder; ticks and axes stay as they are."""
    from matplotlib.collections import Collection
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

    drawn = [artist for ax in figure.axes for artist in (*ax.lines, *ax.collections)]
    told = [part for legend in figure.findobj(Legend) for part in legend.findobj(lambda a: isinstance(a, Line2D | Collection))]
    for artist in {id(artist): artist for artist in (*drawn, *told)}.values():
        artist.set_linewidth(BOLDER * np.asarray(artist.get_linewidth()))


class _Said(logging.Handler):
    """Keeps what is logged: matplotlib only logs what is wrong with a style file."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())
