"""Parameter counts, under each convention for the biases; and the README's table of cells, row by row."""

import re
from pathlib import Path

import pytest

from gradlab import GRU, LSTM, SCRN, Clockwork, Elman, Jordan, parameter_count
from gradlab.errors import ValueRangeError

M, N = 2, 100  # inputs and units


@pytest.mark.parametrize(
    ("cell", "biases", "expected"),
    [
        (Elman(), "one", N * M + N * N + N),
        (LSTM(), "one", 41200),
        (LSTM(peepholes=True), "one", 41200 + 3 * N),
        (LSTM(coupled=True), "one", 30900),
        (LSTM(coupled=True, peepholes=True), "one", 30900 + 2 * N),
        (LSTM(), "two", 41200 + 4 * N),
        (GRU(), "one", 30900),
        (GRU(reset="before"), "one", 30900),
        (GRU(), "two", 31200),
        (GRU(), "own", 30900 + N),
        (GRU(), "none", 30600),
        (Jordan(5), "one", N * M + N * 5 + N + 5 * N + 5),
        (Clockwork((1, 2, 4, 8)), "one", N * M + N + N * N * 5 // 8),
        (SCRN(10), "own", 10 * M + N * 10 + N * M + N * N),
        (SCRN(10, learned=True), "own", 10 * M + N * 10 + N * M + N * N + 10),
    ],
    ids=str,
)
def test_counts_equal_the_formulas_of_the_papers(cell, biases, expected):
    assert parameter_count(cell, M, N, biases) == expected


def test_a_gru_saves_a_quarter_not_a_third():
    assert parameter_count(GRU(), M, N, "one") / parameter_count(LSTM(), M, N, "one") == 0.75
    two_against_one = parameter_count(GRU(), M, N, "two") / parameter_count(LSTM(), M, N, "one")
    assert abs(two_against_one - 0.757282) < 5e-7  # six printed digits


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueRangeError, match="biases is 'three'"):
        parameter_count(LSTM(), 1, 1, "three")


def rows_of_the_readme():
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = text.partition("<!-- cells: begin -->")[2].partition("<!-- cells: end -->")[0]
    return re.findall(r"^\| `(.+?)` \| .* \| .* \| `(.+?)` \|$", table, flags=re.MULTILINE)


SCOPE = {"Elman": Elman, "Jordan": Jordan, "LSTM": LSTM, "GRU": GRU, "Clockwork": Clockwork, "SCRN": SCRN}


@pytest.mark.parametrize(("expression", "formula"), rows_of_the_readme())
def test_every_row_of_the_readme_s_table_of_cells_is_right(expression, formula):
    import gradlab

    cell = eval(expression, {"gradlab": gradlab, **SCOPE, "irnn": gradlab.irnn})
    for m, n in ((3, 8), (5, 24)):
        assert parameter_count(cell, m, n, "one") == eval(formula, {"D": m, "H": n})


def test_the_readme_s_table_has_every_kind_of_cell():
    rows = [expression for expression, _ in rows_of_the_readme()]
    assert len(rows) >= 12
    for name in ("Elman", "irnn", "Jordan", "LSTM", "GRU", "Clockwork", "SCRN", "peepholes", "coupled", "forget_gate", "before"):
        assert any(name in row for row in rows), name
