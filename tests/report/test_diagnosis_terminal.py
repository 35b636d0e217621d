"""A diagnosis on the terminal: the verdict first, everything that was found, and no control character."""

import io

import numpy as np
import pytest
from report.diagnoses import deep, demo, made
from rich.console import Console

from gradlab.diagnosis import CATALOGUE
from gradlab.diagnosis.compare import compare
from gradlab.report import print_comparison, print_diagnosis
from gradlab.report.sparkline import BLOCKS, PLAIN, sparkline

HOSTILE = "\x1b[31mred\x07\n[bold]x[/bold]\r"


def printed(diagnosis, *, terminal=False, width=120, encoding="utf-8", show=print_diagnosis):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    console = Console(file=stream, force_terminal=terminal, width=width, highlight=False, color_system=None)
    show(console, diagnosis)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("terminal", [False, True])
def test_the_first_line_is_the_verdict_and_all_findings_and_remedies_follow(terminal):
    found = deep()
    out = printed(found, terminal=terminal, width=300)
    assert out.splitlines()[0] == found.verdict
    for one in found.findings:
        assert one.code in out
        assert str(one.place) in out
        assert one.message in out
        assert CATALOGUE[one.code].remedy in out
    for text in (*found.assumptions, *found.silent.values()):
        assert text in out


def test_a_healthy_network_is_healthy_in_one_word():
    assert printed(demo("healthy")).startswith("healthy: ")


def test_each_layer_has_a_sparkline_of_its_gradient():
    lines = printed(deep()).splitlines()
    for name in ("0.forward", "0.backward", "1.forward", "1.backward"):
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert set(line.split()[1]) <= set(BLOCKS + "0x")
        assert len(line.split()[1]) == 40  # one sign a step, up to 56
    assert any("0: exactly zero" in line for line in lines)


def test_a_sparkline_says_where_it_is_largest_zero_broken_and_absent():
    values = np.array([0.0, 1.0, 2.0, -np.inf, np.nan, np.nan])
    bad = np.array([False] * 5 + [True])
    assert sparkline(values, bad, 56) == "▁▅█0 x"
    assert sparkline(values, bad, 56, PLAIN) == "_+@0 x"
    assert sparkline(np.zeros(4), np.zeros(4, bool), 56) == "████"  # flat, not a division by zero
    assert len(sparkline(np.arange(1000.0), np.zeros(1000, bool), 56)) == 56
    rising = sparkline(np.arange(1000.0), np.zeros(1000, bool), 56)
    assert [BLOCKS.index(sign) for sign in rising] == sorted(BLOCKS.index(sign) for sign in rising)


def test_an_encoding_without_blocks_gets_plain_signs():
    out = printed(demo("vanishing"), encoding="ascii")
    assert "\\u2581" not in out
    (line,) = [line for line in out.splitlines() if line.startswith("0  ")]
    assert set(line.split()[1]) <= set(PLAIN)


@pytest.mark.parametrize("terminal", [False, True])
def test_no_terminal_obeys_text_from_outside(terminal):
    out = printed(made(HOSTILE), terminal=terminal, width=300)
    assert "\x1b[31m" not in out.replace("\x1b[0m", "")
    assert "\x07" not in out
    assert "\\x1b[31mred" in out
    assert "[bold]x[/bold]" in out


def test_nothing_is_wider_than_a_table_on_80_columns():
    lines = printed(deep(), terminal=True, width=80).splitlines()
    table = [line for line in lines if line.startswith("  ") and line.strip()]
    assert any("forget-closed" in line for line in table)
    assert all(len(line) <= 80 for line in table)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_comparison_is_told_row_by_row(terminal):
    found = compare(demo("vanishing"), demo("exploding"))
    out = printed(found, terminal=terminal, width=300, show=print_comparison)
    assert out.splitlines()[0] == found.verdict
    assert "new" in out
    assert "gone" in out
    assert "vanishing" in out
    assert "exploding" in out
    nothing = printed(compare(demo("healthy"), demo("healthy")), show=print_comparison)
    assert nothing.startswith("no findings in either")
