"""Figures as SVG inside a page: colours that follow the page into the dark, an alternative text, no request, equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from gradlab.plotting import COLOURS, new_figure, style
from gradlab.report.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 3.4
"""Inches: the column of a phone, where the letters of a figure then have their own size."""

# A light page has the palette itself; the style sheet has lighter colours of the same names for a dark one.
NAMED = {value.lower(): f"var(--fig-{name})" for name, value in COLOURS.items() if name not in ("black", "grey")}
NAMED |= {"#000000": "var(--ink)", "#ffffff": "var(--card)", "#777777": "var(--faint)", "#555555": "var(--faint)"}
NAMED |= {"#bbbbbb": "var(--empty)"}


def drawn(draw: Callable[[Any], None], height: float = 2.3, width: float = WIDTH) -> Figure:
    """A figure with one panel, drawn by `draw(ax)`."""
    with style(), np.errstate(all="ignore"):  # ticks of numbers near the end of the range of floats overflow
        figure = new_figure(width, height)
        figure.patch.set_alpha(0.0)  # the page shines through
        ax = figure.add_subplot()
        ax.set_facecolor("none")
        draw(ax)
    return figure


def inline(figure: Figure, name: str, text: str) -> Markup:
    """`figure` as an <svg> for a page. `name`: its id, unique on the page; `text`: what it shows, for those who do not see it."""
    buffer = io.BytesIO()
    with style(), np.errstate(all="ignore"):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, facecolor="none")
    svg = buffer.getvalue().decode("utf-8")
    svg = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="([\d. ]+)"', svg)
    body = svg[svg.index(">") + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # matplotlib numbers its groups in each figure from 1
    body = body.replace("xlink:href", "href")
    body = re.sub(r'(\bid=")(?=[^"])', rf"\g<1>{name}-", body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"(?<=data:image/png;base64,)\s+", "", body)
    body = re.sub(r' d="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", " ".join(found[0].split())).join((" ", "")), body)
    body = re.sub(r"#[0-9a-fA-F]{6}", lambda found: NAMED.get(found[0].lower(), found[0]), body)
    body = re.sub(r">\s+<", "><", body)
    head = f'<svg id="{name}" role="img" aria-label="{escape(printable(text))}" viewBox="{box[1] if box else ""}">'
    return Markup(head + body + "</svg>")
