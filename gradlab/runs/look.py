"""How figures look: the paper's style, or another one of the same numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradlab.errors import FormatError

FORMATS = ("pdf", "png", "svg")
STYLES = ("paper", "slides")
PAPER = ("pdf", "png")
"""What every computation writes."""

SLIDE = 5.6
"""Width in inches of the canvas of a page-wide figure on slides: text and lines are a fifth larger relative to it."""
PIXELS = 1920
"""Width of a PNG for slides."""


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
        """Give a figure its width, and its height in proportion. Text keeps its size in points."""
        from gradlab import plotting

        width, height = figure.get_size_inches()
        new = self.width or (width * SLIDE / plotting.PAGE if self.style == "slides" else None)
        if new is not None:
            figure.set_size_inches(new, height * new / width)

    def dots(self, figure: Any) -> dict[str, Any]:
        """Arguments of savefig: how fine a PNG is."""
        return {"dpi": (PIXELS + 0.5) / figure.get_size_inches()[0]} if self.style == "slides" else {}  # pixels are rounded down


class _Said(logging.Handler):
    """Keeps what is logged: matplotlib only logs what is wrong with a style file."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())
