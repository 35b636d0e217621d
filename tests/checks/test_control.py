"""The negative control: what alters a right backward pass is rejected in its own block, or the check has no power and says so."""

import numpy as np
import pytest
from hand_written import Relu, Tanh, scalar
from hypothesis import given
from hypothesis import strategies as st

from gradlab import cells
from gradlab.checks import check_cell, check_example, check_gradient, random_example
from gradlab.checks.control import Control, negative_control
from gradlab.checks.judgement import FAILED, Quantity
from gradlab.errors import GradientMismatch, ValueRangeError

GATES = {"i": (0, 2), "f": (2, 4)}


def quantity(value, scale=None, estimate=0.0, rtol=1e-9, parts=None):
    """A quantity whose backward pass is right: the oracle says the same."""
    scale = np.abs(value) if scale is None else np.broadcast_to(scale, value.shape)
    return Quantity("0.U", value, value.copy(), scale, np.full(value.shape, estimate), rtol, parts or {})


def numbers(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


# ---- right backward passes ---------------------------------------------------------------------------------


def test_each_block_is_nudged_zeroed_negated_and_transposed_and_steps_rows_and_gates_are_mixed_up():
    # two gates x (nudged, zeroed, negated, transposed), the middle step removed, the rows and the gates swapped
    control = negative_control([quantity(numbers((3, 2, 4, 2)), parts=GATES)])
    assert control == Control(tried=11, rejected=11, void=0, missed=())
    assert control.passed
    # neither steps nor rows nor gates nor squares: nudged, zeroed, negated
    assert negative_control([quantity(numbers((1, 1, 5)))]) == Control(tried=3, rejected=3, void=0, missed=())


@pytest.mark.parametrize(
    ("value", "void"),
    [
        pytest.param(np.zeros((3, 2, 4, 2)), 11, id="exact zeros"),
        pytest.param(np.ones((3, 2, 4, 2)), 4, id="all entries equal: transposed twice, rows and gates swapped"),
        pytest.param(np.repeat(numbers((3, 1, 4, 2)), 2, axis=1), 1, id="equal rows: rows swapped"),
        pytest.param(
            np.concatenate([numbers((1, 2, 4, 2)), np.zeros((2, 2, 4, 2))]), 1, id="a zero step: the middle one removed"
        ),
    ],
)
def test_an_alteration_that_changes_nothing_is_counted_as_void(value, void):
    control = negative_control([quantity(value, parts=GATES)])
    assert (control.tried, control.void, control.rejected, control.missed) == (11, void, 11 - void, ())


def test_what_did_not_pass_is_not_altered():
    failed = quantity(numbers((1, 1, 3)))
    failed.verdict[0, 0, 0] = FAILED
    assert negative_control([failed]).tried == 0


@given(
    st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 2, 3]), st.integers(0, 2**16), st.sampled_from([1e-250, 1e-11, 1.0])
)
def test_whatever_changes_a_right_gradient_is_rejected(T, B, H, seed, size):
    control = negative_control([quantity(size * numbers((T, B, 2 * H, H), seed), parts={"a": (0, H), "b": (H, 2 * H)})])
    assert control.missed == ()
    assert control.rejected + control.void == control.tried
    assert control.void == 0  # numbers of random size and sign: every alteration changes something


@pytest.mark.parametrize("cell", [cells.LSTM(), cells.GRU(), Tanh()], ids=repr)
def test_the_control_of_a_network_rejects_what_it_alters(cell):
    control = check_example(random_example(cell), control=True).control
    assert control.missed == ()
    assert control.rejected >= 21
    assert "rejected in their own block" in str(control)


def test_no_control_is_made_unless_it_is_asked_for():
    assert check_example(random_example(Tanh())).control is None
    assert check_gradient(np.sum, np.ones_like, np.ones(3), control=False).control is None


# ---- checks without power ----------------------------------------------------------------------------------


def blinded(monkeypatch):
    """A harness that passes whatever it is given a second time."""
    monkeypatch.setattr(Quantity, "restored", lambda self, value: self)


def test_a_harness_that_rejects_nothing_is_found_out(monkeypatch):
    blinded(monkeypatch)
    control = negative_control([quantity(numbers((3, 2, 4, 2)), parts=GATES)])
    assert (control.rejected, len(control.missed)) == (0, 11)
    assert not control.passed
    assert "NOT rejected: d0.U [i] times 1 + 1e-06" in str(control)


def test_a_harness_that_rejects_everything_everywhere_is_found_out(monkeypatch):
    def spread(self, value):
        other = Quantity(self.name, value, self.oracle, self.scale, self.estimate, self.rtol, self.parts)
        other.verdict[...] = FAILED
        return other

    monkeypatch.setattr(Quantity, "restored", spread)
    missed = negative_control([quantity(numbers((3, 2, 4, 2)), parts=GATES)]).missed
    assert len(missed) == 9  # two alterations touch everything: rows and gates swapped


def test_a_check_without_power_is_an_error_and_says_so(monkeypatch):
    blinded(monkeypatch)
    for report in (
        check_example(random_example(Tanh()), control=True),
        check_gradient(lambda x: np.tanh(x).sum(), lambda x: 1.0 / np.cosh(x) ** 2, np.array([0.3, 0.7])),
        check_cell(Tanh()),
    ):
        assert report.verdict == "FAIL"
        assert "NOT rejected" in str(report)
        with pytest.raises(GradientMismatch, match="no power"):
            report.raise_for_failure()


@pytest.mark.parametrize(
    "check",
    [
        lambda: check_gradient(lambda x: (x * x).sum(), lambda x: 2.0 * x, np.ones(3), rtol=1e3),
        lambda: check_gradient(lambda x: (x * x).sum(), lambda x: 0.0 * x, np.ones(3), rtol=1e3),
        lambda: check_example(random_example(Tanh(), rtol=1e3), control=True),
        lambda: check_example(random_example(Tanh(a=0.0), rtol=1e3), control=True),
        lambda: check_cell(Tanh(), rtol=1e3),
    ],
    ids=["function", "function without gradient", "network", "network without gradient", "cell"],
)
def test_a_tolerance_that_accepts_everything_is_refused(check):
    with pytest.raises(ValueRangeError, match="rtol is 1000"):
        check()


def test_a_cotangent_of_zeros_does_not_pass_a_wrong_network():
    example = random_example(Tanh(a=2.0))
    example.cotangent[...] = 0.0
    assert check_example(example, control=True).verdict != "PASS"


class ReluOneAtZero(Relu):
    def slope(self, z, t):
        return (z >= 0) * 1.0


@pytest.mark.xfail(
    strict=True, reason="a sum of contributions, each accepted at its kink, need not lie between the sum's own one-sided slopes"
)
def test_a_kink_does_not_cost_the_control_its_power():
    example = random_example(ReluOneAtZero(), scale=0.0)
    report = check_example(example, control=True)
    assert report.counts.kinks > 0
    assert report.control.missed == ()
    assert report.verdict == "PASS"


def test_a_kink_at_one_step_leaves_the_control_of_the_others():
    report = check_example(scalar(ReluOneAtZero(), [1.0, 2.0, 0.0, 1.0]), control=True)
    assert report.verdict == "PASS"
    assert report.control.rejected > 10


# ---- the sum of contributions ------------------------------------------------------------------------------


class ForgetsRows(Tanh):
    """Counts only the first row that has an adjoint: right for every row alone, wrong for two at once."""

    def vjp(self, params, x_t, s_prev, delta, t):
        gradients, dx, ds = super().vjp(params, x_t, s_prev, delta, t)
        row = int(np.argmax(delta.any(axis=1)))
        alone = delta * (np.arange(len(delta)) == row)[:, None]
        return {**gradients, "b": super().vjp(params, x_t, s_prev, alone, t)[0]["b"]}, dx, ds


def test_a_gradient_right_row_by_row_and_wrong_as_a_sum_fails_the_contract():
    report = check_cell(ForgetsRows())
    assert report.verdict == "FAIL"
    assert "gradients are sums of contributions" in {one.name for one in report.results if one.verdict == "FAIL"}


def test_a_gradient_right_row_by_row_and_wrong_as_a_sum_does_not_pass():
    assert check_example(random_example(ForgetsRows())).verdict != "PASS"
