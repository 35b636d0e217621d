"""One behavioural contract over every cell: each closed form against exact differentiation of the cell's `step`."""

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import examples

from gradlab import cells
from gradlab.checks import CONTRACT

# Relative to the sum of absolute terms; float64 sums of some tens of terms through 3 layers keep 1e-13 or better.
BOUND = 1e-11


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
@given(example=examples(cells.ALL))
@settings(max_examples=60)
def test_every_cell_keeps_the_contract(check, example):
    assert example.rtol == BOUND
    assert check(example) is None  # a check raises GradientMismatch


@given(example=examples(cells.ALL, output_size=2))
@settings(max_examples=200)
def test_every_gradient_of_a_network_with_read_out_equals_the_complex_step(example):
    for key, (exact, scale) in example.oracle.items():
        if key in example.params:
            example.expect(f"gradient of {key}", example.record.gradients[key], exact, scale)
    gradient = example.record.input_gradient
    example.expect("gradient of x", gradient, *example.oracle["x"])


def test_cells_all_holds_every_activation_and_the_lstm():
    assert [repr(cell) for cell in cells.ALL] == [
        "Elman('tanh')",
        "Elman('sigmoid')",
        "Elman('relu')",
        "Elman('linear')",
        "LSTM()",
    ]
    assert np.unique([repr(cell) for cell in cells.ALL]).size == len(cells.ALL)
