"""One behavioural contract over every cell and option: each closed form against exact differentiation of the cell's `step`."""

import pytest
from hypothesis import given, settings
from strategies import examples

from gradlab import cells
from gradlab.checks import CONTRACT

# Relative to the sum of absolute terms; float64 sums of some tens of terms through 3 layers keep 1e-13 or better.
BOUND = 1e-11


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
@given(example=examples(cells.ALL))
@settings(max_examples=40)
def test_every_cell_keeps_the_contract(check, example):
    assert example.rtol == BOUND
    assert check(example) is None  # a check raises GradientMismatch


@given(example=examples(cells.ALL))
@settings(max_examples=200)
def test_every_gradient_of_a_network_equals_the_complex_step(example):
    for key, (exact, scale) in example.oracle.items():
        if key in example.params:
            example.expect(f"gradient of {key}", example.record.gradients[key], exact, scale)
    example.expect("gradient of x", example.record.input_gradient, *example.oracle["x"])


def test_cells_all_holds_every_option_once():
    names = [repr(cell) for cell in cells.ALL]
    assert len(set(names)) == len(names)
    for option in (
        "peepholes=True",
        "coupled=True",
        "forget_gate=False",
        "reset='before'",
        "reset='after'",
        "Jordan",
        "Clockwork",
    ):
        assert any(option in name for name in names)
    for activation in ("tanh", "sigmoid", "relu", "leaky_relu", "hard_tanh", "linear"):
        assert f"Elman({activation!r})" in names
    assert any("learned=True" in name and "context='previous'" in name for name in names)
