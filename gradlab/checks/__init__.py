"""Checks of hand-written gradients against exact differentiation.

`check_cell` for a cell, `check_gradient` and `check_vjp` for any function of arrays, `check_example` for one network on given
numbers; `gradlab.checks.strategies` has hypothesis strategies that draw such examples, and the pytest plugin a fixture and a
marker `gradcheck`. A check passes only by a relative criterion: a gradient of 1e-11 is judged on its own scale.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.checks import strategies as strategies
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
    from gradlab.checks.rerun import replay

_HOME = {
    "CONTRACT": "contract",
    "CellReport": "cell",
    "CheckResult": "cell",
    "Comparison": "comparison",
    "Example": "example",
    "GradientReport": "report",
    "Report": "report",
    "block_products": "blocks",
    "check_cell": "cell",
    "check_example": "network",
    "check_gradient": "functions",
    "check_vjp": "functions",
    "code_of": "replaying",
    "compare": "comparison",
    "complex_step_gradient": "gradients",
    "example_from": "replaying",
    "network_gradient": "gradients",
    "random_example": "example",
    "replay": "rerun",
    "richardson_gradient": "gradients",
}

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


def __getattr__(name: str) -> Any:
    """Load names on first use (PEP 562): pytest imports this package for its plugin, in every session."""
    if name in _HOME:
        value = getattr(importlib.import_module(f"gradlab.checks.{_HOME[name]}"), name)
    elif name == "strategies":  # needs hypothesis, and so is no part of __all__
        value = importlib.import_module("gradlab.checks.strategies")
    else:
        raise AttributeError(f"module 'gradlab.checks' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
