"""The one table of gates: every permutation by name, and back."""

import numpy as np
import pytest

import gradlab
from gradlab.adapters._layout import GATES, blocks, from_gradlab, gates_of, to_gradlab
from gradlab.errors import ShapeError, ValueRangeError

CELLS = {"RNN": [gradlab.Elman()], "LSTM": [gradlab.LSTM()], "GRU": [gradlab.GRU(reset="after"), gradlab.GRU(reset="before")]}
CASES = [(source, kind, cell) for source in GATES for kind, cells in CELLS.items() for cell in cells]
H, D = 3, 2


def stacked(order, columns):
    """Blocks whose entries say which gate they belong to: 100 times the letter's number."""
    shape = (H, *columns)
    return np.concatenate([100.0 * ord(gate) + np.arange(np.prod(shape)).reshape(shape) for gate in order])


def test_the_orders_are_those_that_the_frameworks_document():
    assert GATES["torch"]["LSTM"] == tuple("ifgo")  # nn.LSTM: W_ii|W_if|W_ig|W_io
    assert GATES["torch"]["GRU"] == tuple("rzn")  # nn.GRU: W_ir|W_iz|W_in
    assert GATES["onnx"]["LSTM"] == tuple("iofg")  # LSTM: W[iofc]
    assert GATES["onnx"]["GRU"] == tuple("zrn")  # GRU: W[zrh]
    assert GATES["keras"]["LSTM"] == tuple("ifgo")  # i, f, c, o
    assert GATES["keras"]["GRU"] == tuple("zrn")  # z, r, h


@pytest.mark.parametrize(("source", "kind", "cell"), CASES, ids=repr)
def test_every_gate_arrives_under_its_own_name(source, kind, cell):
    order = GATES[source][kind]
    b_x, b_h = stacked(order, ()), 0.5 * stacked(order, ())
    params = to_gradlab(cell, order, stacked(order, (D,)), stacked(order, (H,)), b_x, b_h)
    own = gates_of(cell)
    np.testing.assert_array_equal(params["W"], stacked(own, (D,)))
    np.testing.assert_array_equal(params["U"], stacked(own, (H,)))
    summed = 1.5 * stacked(own, ())
    if "b_hn" in params:
        np.testing.assert_array_equal(params["b_hn"], 0.5 * stacked("n", ()))
        summed[2 * H :] = stacked("n", ())
    np.testing.assert_array_equal(params["b"], summed)
    assert list(params) == list(cell.init(np.random.default_rng(0), D, H))


@pytest.mark.parametrize(("source", "kind", "cell"), CASES, ids=repr)
def test_export_then_import_is_the_identity(source, kind, cell):
    rng = np.random.default_rng(0)
    own = {key: rng.normal(size=value.shape) for key, value in cell.init(rng, D, H).items()}
    order = GATES[source][kind]
    back = to_gradlab(cell, order, *from_gradlab(cell, order, own))
    assert back.keys() == own.keys()
    for key, value in own.items():
        np.testing.assert_array_equal(back[key], value)
        assert not np.shares_memory(back[key], value)


def test_a_cell_with_other_gates_or_letters_cannot_be_exported():
    rng = np.random.default_rng(0)
    for cell in (gradlab.LSTM(coupled=True), gradlab.LSTM(peepholes=True)):
        with pytest.raises(ValueRangeError, match="this layout holds i, f, g, o alone"):
            from_gradlab(cell, GATES["torch"]["LSTM"], cell.init(rng, D, H))


def test_rows_that_do_not_split_are_refused():
    with pytest.raises(ShapeError, match="7 rows cannot be split into the gates r, z, n"):
        blocks(np.zeros((7, 2)), "rzn")
