"""Numbers and foreign text as reports show them."""

from __future__ import annotations

from typing import Any


def printable(value: Any) -> str:
    """Text from outside with control characters escaped, on one line: no terminal obeys it, no page is broken by it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def number(value: Any) -> str:
    """A derivative, with enough digits to see a fault of 1e-9. What is not finite is a word in plain data."""
    return f"{float(value):.10e}"


def size(value: Any) -> str:
    """An error, of which the order of magnitude matters."""
    return f"{float(value):.1e}"
