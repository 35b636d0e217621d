"""Check the example of a report's replay line again."""

from __future__ import annotations

from typing import Any

from gradlab.checks.doubts import Kinks
from gradlab.checks.network import check_example
from gradlab.checks.oracle import Choice
from gradlab.checks.replaying import unpacked
from gradlab.checks.report import GradientReport


def replay(code: str, cell: Any, *, oracle: Choice | None = None, kink: Kinks | None = None) -> GradientReport:
    """Check the example of a report's replay line again, over `cell`, with its own `oracle` and `kink` unless others are given.

    Error: FormatError for a damaged code, or one of another cell.
    """
    example, first, policy = unpacked(code, cell)
    return check_example(example, oracle=first if oracle is None else oracle, kink=policy if kink is None else kink)
