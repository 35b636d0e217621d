"""Jacobians written in place are those of the formula, for every cell, ensemble, length and dtype."""

import numpy as np
import pytest

from gradlab import LSTM, Elman, Network, cells, forward, forward_pass
from gradlab.cells.base import Cell
from gradlab.cells.completed import as_cell
from gradlab.cells.differentiation import state_jacobian
from gradlab.errors import DTypeError, ValueRangeError

LENGTHS = np.array([7, 5, 1, 7])
DTYPES = {"float64": 1e-14, "float32": 1e-5, "complex128": 1e-14}
"""Sums of up to 4 products in another order, and slopes taken in another way: some rounding errors."""


def layer_pass(cell, lead=(), dtype="float64", lengths=None, alone=()):
    """One layer's pass: parameters with ensemble axes `lead`, those in `alone` with axes of size 1."""
    rng = np.random.default_rng(0)
    net = Network(cell, 2, 4)
    params = {}
    for key, shape in net.shapes.items():
        own = tuple(1 for _ in lead) if key in alone else lead
        params[key] = rng.uniform(-1.0, 1.0, (*own, *shape)).astype(dtype)
    if dtype == "complex128":
        params = {key: value + 0.1j * rng.uniform(-1.0, 1.0, value.shape) for key, value in params.items()}
    x = rng.normal(size=(7, 4, 2)).astype("float32" if dtype == "float32" else "float64")
    initial = {"0": rng.uniform(-1.0, 1.0, (*lead, 4, net.layers[0].state_size)).astype(x.dtype)}
    return forward(net, params, x, initial, lengths=lengths, first_step=3).runs["0"], params


def formula(run):
    """All steps in one call, the identity where there is none."""
    J = run.layer.cell.jacobian(run.p, run.tape, run.states[:-1], run.states[1:], run.t)
    if run.mask is not None:
        exists = run.mask.reshape(len(run.t), *(1,) * (J.ndim - 4), -1, 1, 1)
        J = np.where(exists, J, np.eye(J.shape[-1], dtype=J.dtype))
    return J


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_all_jacobians_are_those_of_the_formula_bit_for_bit(cell, lead, dtype, monkeypatch):
    for lengths in (None, LENGTHS):
        run, _ = layer_pass(cell, lead, dtype, lengths)
        expected = formula(run)
        for window in (1, 2 * expected[0].nbytes, 2**22):  # one step at a time, two and the odd one, all at once
            monkeypatch.setattr(forward_pass, "WINDOW", window)
            np.testing.assert_array_equal(run.jacobians(), expected, strict=True)


@pytest.mark.parametrize("lead", [(), (2, 3)], ids=str)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal", "ragged"])
@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_all_jacobians_equal_the_complex_step_of_one_step(cell, lengths, lead):
    run, params = layer_pass(cell, lead, lengths=lengths)
    own = {key.removeprefix("0."): value for key, value in params.items()}
    J = run.jacobians()
    for k, t in enumerate(run.t):
        exact = state_jacobian(cell, own, run.x[k], run.states[k], int(t))
        if run.mask is not None:
            exact[..., ~run.mask[k], :, :] = np.eye(exact.shape[-1])
        assert np.abs(J[k] - exact).max() <= 1e-14 * np.abs(exact).max()  # measured: 9e-16; the target is 1e-9


LSTMS = [cell for cell in cells.ALL if isinstance(cell, LSTM)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alone", [(), ("0.U",), ("0.W", "0.b")], ids=str)
@pytest.mark.parametrize("cell", LSTMS, ids=repr)
def test_the_blocks_of_an_lstm_are_what_its_layer_makes_of_an_input_in_the_place_of_h(cell, alone, dtype):
    run, _ = layer_pass(cell, (2, 3), dtype, alone=alone)
    # h_{t-1} enters through U as x_t does through W: the right half of J is the input's Jacobian with U for W.
    G = cell.input_jacobian(dict(run.p, W=run.p["U"]), run.tape, run.states[:-1], run.states[1:], run.t)
    J = run.jacobians()
    assert np.abs(J[..., 4:] - G).max() <= DTYPES[dtype] * np.abs(G).max()
    off = J[..., :4].copy()
    for rows in (slice(0, 4), slice(4, 8)):
        off[..., rows, :][..., np.arange(4), np.arange(4)] = 0.0
    assert not off.any()  # c_{t-1} of one unit reaches no other


@pytest.mark.parametrize("cell", LSTMS, ids=repr)
def test_memory_that_is_not_contiguous_is_written_too(cell):
    run, _ = layer_pass(cell, (3,))
    wide = np.zeros((7, 2, 3, 4, 8, 9))
    out = wide[:, 1, ..., 1:]
    cell.jacobian_into(run.p, run.tape, run.states[:-1], run.states[1:], run.t, out)
    np.testing.assert_array_equal(out, formula(run))
    assert not wide[:, 0].any()
    assert not wide[..., 0].any()


@pytest.mark.parametrize("cell", [LSTM(), Elman("relu")], ids=repr)
def test_threads_give_the_same_bits(cell, monkeypatch):
    monkeypatch.setattr(forward_pass, "WINDOW", 1)
    run, _ = layer_pass(cell, lengths=LENGTHS)
    np.testing.assert_array_equal(run.jacobians(threads=3), run.jacobians(), strict=True)
    for wrong in (0, -1):
        with pytest.raises(ValueRangeError, match="threads"):
            run.jacobians(threads=wrong)
    with pytest.raises(DTypeError, match="threads"):
        run.jacobians(threads=1.5)


def test_threads_keep_the_callers_error_state(monkeypatch):
    monkeypatch.setattr(forward_pass, "WINDOW", 1)

    class Overflowing(LSTM):
        def jacobian(self, p, a, s_prev, s, t):
            return np.full((*s.shape, s.shape[-1]), 1e308) * 10.0

    run, _ = layer_pass(Overflowing())
    with np.errstate(over="ignore"):
        assert (run.jacobians(threads=2) == np.inf).all()
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        run.jacobians(threads=2)


def test_what_fails_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(forward_pass, "WINDOW", 1)

    class Failing(LSTM):
        def jacobian(self, p, a, s_prev, s, t):
            raise ArithmeticError(f"step {int(t[0])}")

    run, _ = layer_pass(Failing())
    with pytest.raises(ArithmeticError, match="step 3"):
        run.jacobians(threads=2)


class Plain:
    """A user's cell: `init` and `step` alone."""

    def init(self, rng, input_size, hidden_size):
        return Elman().init(rng, input_size, hidden_size)

    def step(self, params, x_t, s_prev, t):
        return np.tanh(x_t @ params["W"].T + s_prev @ params["U"].T + params["b"])


class OwnFormula(Plain):
    """Another that has a formula of its own, which need not be right to be used."""

    def jacobian(self, p, a, s_prev, s, t):
        return np.full((*s.shape, s.shape[-1]), 7.0)


class OwnMemory(OwnFormula):
    """And one that writes its Jacobians itself."""

    def jacobian_into(self, p, a, s_prev, s, t, out):
        assert not out.any()
        out[...] = 9.0


class SubclassOfLSTM(LSTM):
    """A formula of its own above the inherited way to write it."""

    def jacobian(self, p, a, s_prev, s, t):
        return np.full((*s.shape, s.shape[-1]), 7.0)


def test_a_users_cell_without_it_has_the_jacobians_of_its_step():
    run, _ = layer_pass(Plain())
    ours, _ = layer_pass(as_cell(Plain()))
    elman = forward(Network(Elman(), 2, 4), {f"0.{k}": v for k, v in ours.p["params"].items()}, ours.x, {"0": ours.states[0]})
    expected = elman.runs["0"].jacobians()
    for found in (run, ours):
        assert np.abs(found.jacobians() - expected).max() <= 1e-14 * np.abs(expected).max()  # rounding


@pytest.mark.parametrize(("cell", "value"), [(OwnFormula(), 7.0), (OwnMemory(), 9.0), (SubclassOfLSTM(), 7.0)])
def test_the_formula_that_a_users_cell_brings_is_the_one_that_is_used(cell, value):
    run, _ = layer_pass(cell)
    assert (run.jacobians() == value).all()


def test_only_a_cell_with_a_formula_of_its_own_loses_an_inherited_way_to_write_it():
    class Renamed(LSTM):
        pass

    assert Renamed.jacobian_into is LSTM.jacobian_into
    assert SubclassOfLSTM.jacobian_into is Cell.jacobian_into
    assert LSTM.jacobian_into is not Cell.jacobian_into


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("cell", [Elman(), Elman("relu"), *LSTMS], ids=repr)
def test_products_with_tangent_vectors_are_those_of_the_jacobians(cell, lead, dtype):
    for alone in ((), ("0.U",)):
        run, _ = layer_pass(cell, lead, dtype, alone=alone)
        Z = np.random.default_rng(1).normal(size=(*run.states.shape[1:], 3)).astype(dtype)
        products = list(cell.jacobian_products(run.p, run.tape))
        assert len(products) == len(run.t)
        for J, product in zip(run.jacobians(), products, strict=True):
            expected = J @ Z
            assert np.abs(product(Z) - expected).max() <= DTYPES[dtype] * np.abs(expected).max()
