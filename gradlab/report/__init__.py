"""Reports for people: of checks and of diagnoses, on the terminal and as one page of HTML."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.report.diagnosis_page import write_diagnosis
    from gradlab.report.diagnosis_terminal import print_comparison, print_diagnosis
    from gradlab.report.html import write_html
    from gradlab.report.terminal import print_report

_HOME = {
    "print_comparison": "diagnosis_terminal",
    "print_diagnosis": "diagnosis_terminal",
    "print_report": "terminal",
    "write_diagnosis": "diagnosis_page",
    "write_html": "html",
}

__all__ = ["print_comparison", "print_diagnosis", "print_report", "write_diagnosis", "write_html"]


def __getattr__(name: str) -> Any:
    """Load names on first use (PEP 562): a check on the terminal needs no figures."""
    if name not in _HOME:
        raise AttributeError(f"module 'gradlab.report' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gradlab.report.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
