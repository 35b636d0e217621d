"""Reports for people: of checks, on the terminal and as one page of HTML."""

from __future__ import annotations

from gradlab.report.html import write_html
from gradlab.report.terminal import print_report

__all__ = ["print_report", "write_html"]
