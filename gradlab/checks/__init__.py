"""Checks of hand-written gradients against exact differentiation.

`check_cell` for a cell, `check_gradient` and `check_vjp` for any function of arrays, `check_example` for one network on given
numbers; `gradlab.checks.strategies` has hypothesis strategies that draw such examples. A check passes only by a relative
criterion: a gradient of 1e-11 is judged on its own scale.
"""

from __future__ import annotations

from typing import Any

from gradlab.checks.blocks import block_products
from gradlab.checks.cell import CellReport, CheckResult, check_cell
from gradlab.checks.comparison import Comparison, compare
from gradlab.checks.contract import CONTRACT
from gradlab.checks.example import Example, random_example
from gradlab.checks.functions import check_gradient, check_vjp
from gradlab.checks.gradients import complex_step_gradient, network_gradient, richardson_gradient
from gradlab.checks.network import check_example
from gradlab.checks.replaying import code_of, example_from
from gradlab.checks.report import GradientReport, Report

__all__ = [
    "CONTRACT",
    "CellReport",
    "CheckResult",
    "Comparison",
    "Example",
    "GradientReport",
    "Report",
    "block_products",
    "check_cell",
    "check_example",
    "check_gradient",
    "check_vjp",
    "code_of",
    "compare",
    "complex_step_gradient",
    "example_from",
    "network_gradient",
    "random_example",
    "replay",
    "richardson_gradient",
]


def replay(code: str, cell: Any) -> GradientReport:
    """Check the example of a report's replay line again, over `cell`. Error: FormatError for a damaged code."""
    return check_example(example_from(code, cell))
