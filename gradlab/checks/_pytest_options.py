"""What can be set for gradient checks under pytest, and which setting wins: call, marker, command line, ini file.

Standard library and pytest only: this is loaded in every session.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from gradlab.errors import ValueRangeError

# The words of `oracle.CHOICES`, `doubts.KINKS` and `judgement.REASONS`, again: those modules load NumPy. A test compares them.
ORACLES = ("auto", "complex", "richardson")
KINKS = ("interval", "unresolved", "fail")
REASONS = ("kink", "floor", "nonfinite", "nondeterministic", "oracle-disagrees", "ill-conditioned")

SELFTESTS = ("item", "always", "never")
PROFILES = {"gradlab-quick": 20, "gradlab-thorough": 1000, "gradlab-nightly": 10_000}
"""Profiles of hypothesis and their `max_examples`."""
SUFFIXES = (".json", ".html")


@dataclass(frozen=True)
class Settings:
    """What the command line and the ini file say. `checks`: options of the checks, as a marker has them."""

    checks: dict[str, Any] = field(default_factory=dict)
    selftest: str = "item"
    report: Path | None = None
    profile: str | None = None


def tolerance(name: str, value: Any) -> float:
    """A number between 0 and 1; text will do."""
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not (math.isfinite(number) and 0.0 < number < 1.0):
        raise ValueRangeError(f"{name} is {value!r}; expected a number above 0 and below 1, such as 1e-9")
    return number


def reasons(name: str, value: Any) -> tuple[str, ...]:
    """Reasons, as text with commas or as a collection of words."""
    words = [value] if isinstance(value, str) else list(value) if isinstance(value, Collection) else [value]
    found = [part.strip() for word in words for part in (word.split(",") if isinstance(word, str) else [repr(word)])]
    found = [word for word in found if word]
    for word in found:
        if word not in REASONS:
            raise ValueRangeError(f"{name} has {word!r}; expected reasons out of {', '.join(REASONS)}")
    return tuple(dict.fromkeys(found))


def one_of(words: Collection[str]) -> Callable[[str, Any], str]:
    """A reader of one of `words`."""

    def read(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueRangeError(f"{name} is {value!r}; expected one of {', '.join(words)}")
        return value

    return read


def _file(name: str, value: Any) -> Path:
    path = Path(value).absolute()
    if path.suffix not in SUFFIXES:
        raise ValueRangeError(f"{name} is {value!r}; expected a file that ends in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ValueRangeError(f"{name} is {value!r}; there is no folder {str(path.parent)!r}; make it first")
    return path


CHECK_OPTIONS: dict[str, Callable[[str, Any], Any]] = {
    "rtol": tolerance,
    "oracle": one_of(ORACLES),
    "kink": one_of(KINKS),
    "allow": reasons,
}
"""Options of the marker and of a call of the fixture, with what reads them."""

_READERS: dict[str, Callable[[str, Any], Any]] = {
    "oracle": one_of(ORACLES),
    "rtol": tolerance,
    "allow": reasons,
    "selftest": one_of(SELFTESTS),
    "report": _file,
    "profile": one_of(tuple(PROFILES)),
}
_HELP = {
    "oracle": ("NAME", f"what gradients are held against: {', '.join(ORACLES)}"),
    "rtol": ("NUMBER", "relative tolerance of gradients, of the sum of absolute terms; default 1e-9"),
    "allow": ("REASON,...", f"reasons for which UNRESOLVED does not fail a test: {', '.join(REASONS)}"),
    "selftest": (
        "WHEN",
        "negative control, which alters the checked gradients and demands FAIL: item (default: once in every test, until its "
        "alterations could be seen; the same tests have it however they are spread over processes), always, never",
    ),
    "report": ("FILE", "write all reports to FILE.json or FILE.html"),
    "profile": ("NAME", f"profile of hypothesis: {', '.join(f'{name} ({n} examples)' for name, n in PROFILES.items())}"),
}


def add_options(parser: pytest.Parser) -> None:
    """`--gradlab-x` and its twin `gradlab_x` in the ini file."""
    group = parser.getgroup("gradlab", "gradient checks (gradlab)")
    for name, (metavar, text) in _HELP.items():
        group.addoption(f"--gradlab-{name}", dest=f"gradlab_{name}", metavar=metavar, default=None, help=text)
        kind: Literal["args", "string"] = "args" if name == "allow" else "string"
        parser.addini(f"gradlab_{name}", f"as --gradlab-{name}", type=kind, default=None)


def settings_of(config: pytest.Config) -> Settings:
    """The command line's settings, then the ini file's. Error: pytest.UsageError."""
    found: dict[str, Any] = {}
    for key, read in _READERS.items():
        value, name = config.getoption(f"gradlab_{key}", None), f"--gradlab-{key}"
        if value is None:
            value, name = config.getini(f"gradlab_{key}"), f"gradlab_{key} in {config.inipath}"
            if key == "report" and value:
                value = str(config.rootpath / value)
        if value is not None and value not in ("", []):
            try:
                found[key] = read(name, value)
            except ValueRangeError as error:
                raise pytest.UsageError(str(error)) from None
    path: Path | None = found.get("report")
    if path is not None and path.suffix == ".html" and importlib.util.find_spec("gradlab.report") is None:
        raise pytest.UsageError(f"--gradlab-report is {str(path)!r}; this gradlab writes no HTML; try {path.stem}.json")
    return Settings({key: found.pop(key) for key in tuple(found) if key in CHECK_OPTIONS}, **found)


def marked(item: pytest.Item) -> dict[str, Any]:
    """Options of the markers `gradcheck` of a test, the closest one first. Error: ValueRangeError that names the test."""
    found: dict[str, Any] = {}
    for mark in item.iter_markers("gradcheck"):
        where = f"the marker gradcheck of {item.nodeid}"
        if mark.args:
            raise ValueRangeError(f"{where} has the argument {mark.args[0]!r}; expected keywords: {', '.join(CHECK_OPTIONS)}")
        for key, value in mark.kwargs.items():
            if key not in CHECK_OPTIONS:
                raise ValueRangeError(f"{where} has the keyword {key!r}; expected {', '.join(CHECK_OPTIONS)}")
            read = CHECK_OPTIONS[key](f"{where}: {key}", value)
            found.setdefault(key, read)
    return found


def load_profile(config: pytest.Config, name: str) -> None:
    """Register gradlab's profiles of hypothesis and load one; one that hypothesis' own option names is not overruled."""
    own = config.getoption("--hypothesis-profile", None)
    if own is not None:
        if config.getoption("gradlab_profile", None) is None:
            return
        raise pytest.UsageError(f"--gradlab-profile is {name!r} and --hypothesis-profile is {own!r}; give one of them")
    try:
        settings = importlib.import_module("hypothesis").settings
    except ImportError as error:
        raise pytest.UsageError(f"--gradlab-profile is {name!r}; it needs hypothesis; try pip install 'gradlab[test]'") from error
    # Each inherits from the profile in force, which may be one of a conftest, so that only these two settings differ.
    for one, examples in PROFILES.items():
        settings.register_profile(one, max_examples=examples, deadline=None)
    settings.load_profile(name)
