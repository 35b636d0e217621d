"""What may withhold a verdict and what may not: each reason with the case it is for, and the defect it must not excuse."""

import numpy as np
import pytest
from hand_written import Linear, Relu, Tanh, one_layer, scalar

from gradlab import cells
from gradlab.checks import check_example, check_gradient, random_example
from gradlab.checks.doubts import conditioning
from gradlab.checks.untied import untied
from gradlab.errors import GradientMismatch

# ---- kinks ------------------------------------------------------------------------------------------------

ONE_AT_ZERO = np.array([-1.3, 0.0, 0.7])


def relu_slope(at_zero):
    return lambda x: (x > 0) + at_zero * (x == 0)


@pytest.mark.parametrize("spelled", ["np.maximum", "np.where"])
@pytest.mark.parametrize("at_zero", [0.0, 0.5, 1.0])
def test_every_slope_between_those_on_both_sides_passes_at_a_kink(spelled, at_zero):
    f = {"np.maximum": lambda x: np.maximum(x, 0.0).sum(), "np.where": lambda x: np.where(x.real > 0, x, 0.0).sum()}[spelled]
    report = check_gradient(f, relu_slope(at_zero), ONE_AT_ZERO)
    assert report.verdict == "PASS"
    central = report.oracle.startswith("Richardson") and at_zero == 0.5  # the central difference of a kink is the mean
    assert report.counts.kinks == (0 if central else 1)


@pytest.mark.parametrize("at_zero", [-1e-3, 1.001, 2.0])
def test_a_slope_outside_of_those_on_both_sides_fails_at_a_kink(at_zero):
    report = check_gradient(lambda x: np.maximum(x, 0.0).sum(), relu_slope(at_zero), ONE_AT_ZERO)
    assert (report.verdict, report.counts.failed, report.findings[0].index) == ("FAIL", 1, (1,))


@pytest.mark.parametrize(("policy", "verdict"), [("interval", "PASS"), ("unresolved", "UNRESOLVED"), ("fail", "FAIL")])
def test_the_caller_says_what_a_kink_is_worth(policy, verdict):
    in_function = check_gradient(lambda x: np.maximum(x, 0.0).sum(), relu_slope(0.0), ONE_AT_ZERO, kink=policy)
    in_network = check_example(scalar(Relu(), [1.0, 0.0, 2.0]), kink=policy)
    for report in (in_function, in_network):
        assert report.verdict == verdict
        assert (report.counts.kinks > 0) == (verdict == "PASS")
        assert report.reasons == (("kink",) if verdict == "UNRESOLVED" else ())


def test_a_kink_in_a_network_is_counted_at_its_step_alone():
    # x = 0 at step 1: np.maximum has the complex slope 1 there, the vjp 0. dx, db and ds_prev differ (W = U = 1); dW = x da = 0.
    report = check_example(scalar(Relu(), [1.0, 0.0, 2.0], u=0.0))
    assert (report.verdict, report.counts.failed) == ("PASS", 0)
    assert report.counts.kinks >= 3
    withheld = check_example(scalar(Relu(), [1.0, 0.0, 2.0], u=0.0), kink="unresolved")
    places = {(one.place, one.step) for one in withheld.findings if not one.quantity.endswith(" summed")}
    assert places == {("dx", 1), ("d0.U", 1), ("d0.b", 1)}


def test_a_defect_beside_a_kink_still_fails():
    report = check_example(scalar(Relu(W=1.0 + 1e-6), [1.0, 0.0, 2.0]))
    assert report.verdict == "FAIL"
    assert {one.place for one in report.findings} == {"d0.W"}


@pytest.mark.parametrize(
    ("x", "factor"), [(1e-3, 1.00001), (1e-5, 1.001), (1e-8, 0.0), (1e-8, 2.0), (1e-8, -1.0), (1e-8, 1.01), (1e-9, 1.3)]
)
def test_a_smooth_function_has_no_kink(x, factor):
    report = check_gradient(lambda x: (x * x).sum(), lambda x: factor * 2.0 * x, np.array([x]), control=False)
    assert (report.verdict, report.counts.kinks) == ("FAIL", 0)


class Square(Tanh):
    def f(self, z, t):
        return z * z

    def slope(self, z, t):
        return 2.0 * z


def test_a_smooth_network_has_no_kink():
    report = check_example(scalar(Square(a=1.001), [1e-5]))
    assert report.verdict == "FAIL"
    assert report.counts.kinks == 0


@pytest.mark.xfail(strict=True, reason="Richardson across a kink nearer than its smallest step is sure of the mean slope")
@pytest.mark.parametrize("x", [1e-8, -1e-8])
def test_near_a_kink_half_a_slope_does_not_pass(x):
    # At +-1e-8 the derivative is 1 or 0 and nothing else; 0.5 is what a central difference across the kink says.
    report = check_gradient(lambda x: np.where(x.real > 0, x, 0.0).sum(), lambda x: np.full_like(x, 0.5), np.array([x]))
    assert report.verdict != "PASS"


def test_a_kink_at_a_large_number_is_one():
    report = check_gradient(lambda x: np.maximum(x - 1e10, 0.0).sum(), lambda x: (x > 1e10) * 1.0, np.array([1e10]))
    assert (report.verdict, report.counts.kinks) == ("PASS", 1)


def test_a_kink_among_many_entries_does_not_make_a_right_gradient_wrong():
    x = np.linspace(0.1, 2.0, 2500)
    x[7] = 0.0
    assert check_gradient(lambda x: np.maximum(x, 0.0).sum(), lambda x: (x > 0) * 1.0, x).verdict != "FAIL"


# ---- nonfinite, nondeterministic ---------------------------------------------------------------------------


def test_a_forward_pass_that_overflows_is_unresolved_and_the_step_is_named():
    report = check_example(random_example(cells.Elman("linear"), scale=1e160))
    assert (report.verdict, report.reasons) == ("UNRESOLVED", ("nonfinite",))
    assert "not finite from step 2 on" in report.note


class Exploding(Linear):
    def f(self, z, t):
        return 1e200 * z

    def slope(self, z, t):
        return np.full_like(z, 1e200)


def test_an_overflow_in_the_oracle_raises_no_warning():
    report = check_example(random_example(Exploding()))
    assert (report.verdict, report.reasons) == ("UNRESOLVED", ("nonfinite",))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_backward_pass_that_is_not_finite_where_the_truth_is_fails(value):
    assert check_example(random_example(Tanh(s=value))).verdict == "FAIL"


INFINITE = np.inf


@pytest.mark.parametrize("value", [np.nan, INFINITE])
def test_a_gradient_that_is_not_finite_where_the_truth_is_fails(value):
    assert check_gradient(lambda x: np.tanh(x).sum(), lambda x: np.full_like(x, value), ONE_AT_ZERO).verdict == "FAIL"


def test_a_function_that_is_not_finite_is_unresolved():
    report = check_gradient(lambda x: np.tanh(x).sum() * np.inf, lambda x: x, ONE_AT_ZERO)
    assert (report.verdict, report.reasons) == ("UNRESOLVED", ("nonfinite",))


class Dropout(Tanh):
    """A mask redrawn at every call, in `step` or in `vjp` alone."""

    def __init__(self, where):
        super().__init__()
        self.where, self.rng = where, np.random.default_rng(0)

    def masked(self, value):
        return value * self.rng.integers(0, 2, value.shape)

    def f(self, z, t):
        return self.masked(np.tanh(z)) if self.where == "step" else np.tanh(z)

    def slope(self, z, t):
        return self.masked(super().slope(z, t)) if self.where == "vjp" else super().slope(z, t)


@pytest.mark.parametrize("where", ["step", "vjp"])
def test_a_mask_redrawn_at_every_call_is_unresolved_and_named(where):
    report = check_example(random_example(Dropout(where)))
    assert report.verdict == "UNRESOLVED"
    assert "nondeterministic" in report.reasons
    assert "freeze every generator" in report.note
    with pytest.raises(GradientMismatch):
        report.raise_for_failure(allow={"floor"})


def test_a_mask_redrawn_at_every_call_is_named_by_richardson_too():
    report = check_example(random_example(Dropout("step")), oracle="richardson")
    assert "nondeterministic" in report.reasons


# ---- ill-conditioned ---------------------------------------------------------------------------------------


class WrongAdjoint(cells.Elman):
    """Carries the adjoint back wrong by a thousandth."""

    def step_vjp(self, p, a_t, s_prev, s_t, delta, da_out, ds_out, t):
        super().step_vjp(p, a_t, s_prev, s_t, delta, da_out, ds_out, t)
        ds_out *= 1.001


def chaotic(cell):
    """A tanh net of gain 4 without input: after 60 steps a rounding has grown by a factor of some 1e7."""
    rng = np.random.default_rng(1)
    U = 4.0 * rng.normal(size=(6, 6)) / np.sqrt(6.0)
    s_0, cotangent = rng.uniform(-1.0, 1.0, (1, 6)), rng.uniform(0.5, 1.0, (1, 6))
    return one_layer(cell, np.zeros((6, 1)), U, np.zeros(6), np.ones((60, 1, 1)), cotangent, s_0, readout="last")


def test_a_chaotic_sequence_is_not_called_wrong_and_its_single_steps_are_checked():
    example = chaotic(cells.Elman("tanh"))
    assert conditioning(untied(example)) > 1e-12
    report = check_example(example)
    assert report.verdict == "UNRESOLVED"
    assert "ill-conditioned" in report.reasons
    assert "single steps were checked instead" in report.note
    report.raise_for_failure(allow={"ill-conditioned", "floor"})


def test_a_defect_of_a_thousandth_is_found_in_a_chaotic_sequence_where_it_is_made():
    report = check_example(chaotic(WrongAdjoint("tanh")))
    assert report.verdict == "FAIL"
    assert report.one_step == ("wrong where it is made: ds_prev 0, every step",)


def test_a_chaotic_tanh_net_has_no_kinks():
    assert check_example(chaotic(cells.Elman("tanh"))).counts.kinks == 0


def test_where_nothing_is_wrong_the_report_does_not_say_so():
    assert "wrong" not in str(check_example(chaotic(cells.Elman("tanh"))))


# ---- allow -------------------------------------------------------------------------------------------------


def test_an_unresolved_report_raises_unless_its_reason_is_allowed():
    report = check_gradient(lambda x: np.maximum(x, 0.0).sum(), relu_slope(0.0), ONE_AT_ZERO, kink="unresolved")
    report.raise_for_failure(allow={"kink"})
    for allow in ((), {"floor"}, ["nonfinite", "floor"]):
        with pytest.raises(GradientMismatch, match=r"UNRESOLVED \(kink\)"):
            report.raise_for_failure(allow=allow)
