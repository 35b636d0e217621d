"""Reports of checks as one page of HTML: nothing is loaded from elsewhere, nothing runs, foreign text is escaped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gradlab._files import write_bytes
from gradlab._version import __version__
from gradlab.errors import DTypeError
from gradlab.report.gates import SHADES, gate_map, place
from gradlab.report.text import number, printable, size

SHOWN = 12
"""Rows of a table of findings that are open at once; the others unfold."""
MOST = 2000
"""Rows of a table of findings on a page at all."""


def write_html(path: str | os.PathLike[str], reports: Sequence[Mapping[str, Any]]) -> None:
    """Write reports of checks to `path` as one page.

    `reports`: what `as_json()` of a `gradlab.checks.CellReport` or `GradientReport` returns, or what was read back from JSON.
    Equal reports give equal bytes. Errors: DTypeError for anything else, ResourceRefused if the file cannot be written.
    """
    write_bytes(path, page(reports).encode("utf-8", "backslashreplace"))


def page(reports: Sequence[Mapping[str, Any]]) -> str:
    """The page that `write_html` writes."""
    if isinstance(reports, Mapping) or not isinstance(reports, Sequence):
        raise DTypeError(f"reports is a {type(reports).__name__}; expected a list of what as_json() of a report returns")
    for k, report in enumerate(reports):
        if not isinstance(report, Mapping) or not {"subject", "verdict"} <= set(report):
            raise DTypeError(f"reports[{k}] is a {type(report).__name__}; expected the dict that as_json() of a report returns")
    own = environment()
    own.filters |= {"number": number, "size": size, "place": place}
    own.globals |= {"gate_map": gate_map, "shown": SHOWN, "most": MOST, "shades": _shades()}
    counts = Counter(str(report["verdict"]) for report in reports)
    words = [(word, counts[word]) for word in ("FAIL", "UNRESOLVED", "PASS") if counts[word]]
    return own.get_template("checks.html").render(reports=reports, words=words, version=__version__)


def environment() -> Environment:
    """Templates of this folder: all text is escaped, what is undefined is an error."""
    return Environment(
        loader=PackageLoader("gradlab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shades() -> list[tuple[int, str]]:
    """(shade, which errors it stands for)."""
    below = [f"up to {limit:.0e}" for limit in SHADES]
    return list(enumerate([*below, f"above {SHADES[-1]:.0e}"], start=1))


def _shown(value: Any) -> Any:
    """Whatever a template prints: control characters have no place in HTML. What is markup already came from the template."""
    return value if isinstance(value, (int, Markup)) else printable(value)
