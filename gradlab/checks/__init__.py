"""Checks of hand-written gradients against exact differentiation."""

from __future__ import annotations

from gradlab.checks.cell import CellReport, CheckResult, check_cell
from gradlab.checks.comparison import Comparison, compare
from gradlab.checks.contract import CONTRACT, Example
from gradlab.checks.gradients import complex_step_gradient, network_gradient, richardson_gradient

__all__ = [
    "CONTRACT",
    "CellReport",
    "CheckResult",
    "Comparison",
    "Example",
    "check_cell",
    "compare",
    "complex_step_gradient",
    "network_gradient",
    "richardson_gradient",
]
