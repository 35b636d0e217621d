"""The analyses: one file is one claim and one figure. `ALL` is the order of the table."""

from __future__ import annotations

from typing import cast

from analyses import error_surface, gradient_checkers, gradient_flow, simplest_example, speed
from gradlab.runs import Analysis

ALL: dict[str, Analysis] = {
    module.__name__.rpartition(".")[2]: cast("Analysis", module)
    for module in (simplest_example, error_surface, gradient_flow, gradient_checkers, speed)
}
