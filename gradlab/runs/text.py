"""Text that may come from anywhere, for one line of a terminal."""

from __future__ import annotations


def one_line(text: str) -> str:
    """`text` on one line of at most 400 characters, control characters escaped."""
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:2000])
    return clean if len(clean) <= 400 else f"{clean[:397]}..."
