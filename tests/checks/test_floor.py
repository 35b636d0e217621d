"""Digits that are lost, on one side or on both: saturation, the ends of the range of floats, float32. Nothing of it is a PASS."""

from dataclasses import replace

import numpy as np
import pytest
from hand_written import AccurateTanh, Linear, Tanh, one_layer

from gradlab import cells
from gradlab.checks import check_example, check_gradient, check_vjp, random_example

# ---- floor: digits lost in saturation ----------------------------------------------------------------------


def saturated(cell, at, readout="every"):
    """Two tanh units driven to pre-activations near `at`, three steps, the loss at every one or at the last."""
    cotangent = np.ones((3, 1, 2)) if readout == "every" else np.ones((1, 2))
    x = np.array([0.5, -0.3, 0.8]).reshape(3, 1, 1)
    return one_layer(cell, np.full((2, 1), 0.1), np.full((2, 2), 0.3), [at, at], x, cotangent, readout=readout)


AT = [5.0, 9.0, 12.0, 15.0, 20.0, 30.0, 40.0]


@pytest.mark.parametrize("readout", ["every", "last"])
@pytest.mark.parametrize("at", AT)
def test_a_backward_pass_that_keeps_its_digits_passes_in_saturation(at, readout):
    assert check_example(saturated(AccurateTanh(), at, readout)).verdict == "PASS"
    assert check_example(saturated(cells.Elman("tanh"), at, readout)).verdict == "PASS"


@pytest.mark.parametrize("readout", ["every", "last"])
@pytest.mark.parametrize("factor", [0.0, -1.0, 2.0])
@pytest.mark.parametrize("at", AT)
def test_a_wrong_gradient_never_passes_in_saturation(at, factor, readout):
    assert check_example(saturated(AccurateTanh(a=factor), at, readout)).verdict != "PASS"


@pytest.mark.parametrize("at", [9.0, 15.0, 20.0, 40.0])
def test_the_textbook_slope_is_not_called_right_in_saturation(at):
    # 1 - tanh^2 is wrong by 3e-9 at 9, by 2e-4 at 15, and reads 0 from 20 on: nothing that 1e-9 of S may pass.
    assert check_example(saturated(Tanh(), at)).verdict != "PASS"


@pytest.mark.parametrize("readout", ["every", "last"])
@pytest.mark.parametrize("at", [9.0, 12.0, 15.0, 20.0, 40.0])
def test_the_textbook_slope_is_unresolved_in_saturation_and_not_called_wrong(at, readout):
    report = check_example(saturated(Tanh(), at, readout))
    assert (report.verdict, report.reasons) == ("UNRESOLVED", ("floor",))
    report.raise_for_failure(allow={"floor"})


def test_the_floor_excuses_no_defect_where_nothing_saturates():
    report = check_example(random_example(Tanh(U=1.0 + 1e-8)))
    assert (report.verdict, report.reasons) == ("FAIL", ())


@pytest.mark.xfail(
    strict=True, reason="the bound multiplies the largest state of all steps with the largest adjoint of all steps"
)
def test_the_floor_excuses_no_missing_gradient_where_gradients_explode():
    # A linear net is exact to some roundings whatever its size; here dU is 0 in place of numbers up to 1e12.
    example = random_example(Linear(U=0.0), scale=1e3)
    assert check_example(random_example(Linear(), scale=1e3)).verdict == "PASS"
    assert check_example(example).verdict == "FAIL"


def test_single_steps_accuse_a_missing_gradient_whatever_the_size_of_the_loss():
    example = random_example(Tanh(U=0.0))
    large = replace(example, cotangent=1e20 * example.cotangent)
    assert check_example(example).one_step == ("wrong where it is made: d0.U, every step",)
    assert check_example(large).one_step == ("wrong where it is made: d0.U, every step",)


def test_a_huge_cotangent_is_judged_too():
    example = random_example(Tanh(U=0.0))
    huge = replace(example, cotangent=1e200 * example.cotangent)
    assert check_example(huge).verdict != "PASS"


def test_a_vanished_gradient_under_a_large_cotangent_keeps_its_digits():
    def vjp(x, g):
        return g * 1e-115 / np.cosh(x) ** 2

    report = check_vjp(lambda x: 1e-115 * np.tanh(x), vjp, np.array([0.3, 1.1]), cotangent=np.full(2, 1e30))
    assert report.verdict == "PASS"


# ---- float32 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [cells.LSTM(), cells.Elman("tanh"), Tanh()], ids=repr)
def test_an_example_in_float32_is_not_called_wrong(cell):
    e = random_example(cell)
    lower = {kind: {k: v.astype(np.float32) for k, v in getattr(e, kind).items()} for kind in ("params", "initial")}
    report = check_example(replace(e, x=e.x.astype(np.float32), **lower))
    assert report.verdict != "FAIL"


def linear_in_float32(x):
    if np.iscomplexobj(x):
        raise TypeError("real numbers only")
    return (np.float32(100.0) * x.astype(np.float32)).sum()


def tanh_in_float32(x):
    if np.iscomplexobj(x):
        raise TypeError("real numbers only")
    return np.tanh(x.astype(np.float32)).sum()


def test_float32_certifies_nothing():
    report = check_gradient(linear_in_float32, lambda x: np.full(2, 100.0 * (1.0 + 5e-7)), np.zeros(2))
    assert report.verdict == "UNRESOLVED"


def test_rounding_of_float32_is_no_kink():
    report = check_gradient(tanh_in_float32, lambda x: 0.0 * x, np.linspace(-1.0, 1.0, 7))
    assert report.counts.kinks == 0


@pytest.mark.xfail(
    strict=True, reason="a float32 model behind .item() or .astype(float) is not seen; Richardson's estimate is too small"
)
def test_a_right_gradient_of_a_hidden_float32_function_is_not_called_wrong():
    rng = np.random.default_rng(0)
    points = [rng.uniform(-1.0, 1.0, 5) for _ in range(10)]
    assert "FAIL" not in {
        check_gradient(lambda x: float(tanh_in_float32(x)), lambda x: 1.0 / np.cosh(x) ** 2, x).verdict for x in points
    }
