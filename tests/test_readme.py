"""The README tells the truth: its examples run and print what it says, its figure table is the stored one."""

import contextlib
import importlib.util
import io
import re
import warnings
from pathlib import Path

import pytest

from analyses import ALL
from gradlab.runs.store import load_summary
from gradlab.runs.table import BEGIN, END, markdown

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_python_example_prints_what_stands_below_it():
    blocks = re.findall(r"```python\n((?:(?!```).)*)```\n(?:\n```\n((?:(?!```).)*)```)?", README, flags=re.DOTALL)
    assert len(blocks) == 12
    assert sum(bool(expected) for _, expected in blocks) == 10
    scope = {}
    for code, expected in blocks:
        if "import torch" in code and importlib.util.find_spec("torch") is None:
            continue  # the README says which need torch
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "README.md", "exec"), scope)
        assert printed.getvalue() == expected


def test_the_figure_table_is_that_of_the_stored_results():
    table = README.partition(BEGIN)[2].partition(END)[0].strip()
    assert table == markdown(ALL, ROOT / "figures", "figures")


@pytest.mark.parametrize("stem", ALL)
def test_every_figure_of_the_table_is_stored_from_a_full_run(stem):
    summary = load_summary(ROOT / "figures", stem)
    assert summary["scale"] == "full"
    assert summary["claim"] == ALL[stem].CLAIM
    assert summary["parameters"] == dict(ALL[stem].PARAMETERS["full"])
    for kind in ("png", "pdf", "npz"):
        assert (ROOT / "figures" / f"{stem}.{kind}").stat().st_size > 1000


def test_every_relative_link_leads_to_a_file():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith(("http", "#"))]
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_importing_the_public_names_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import gradlab

        assert all(getattr(gradlab, name) is not None for name in gradlab.__all__)
