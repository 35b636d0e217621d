"""A gradient that has vanished is judged on its own scale: wrong ones are rejected, the right one passes."""

import math

import numpy as np
import pytest

from analyses._checkers import vanishing
from analyses._planting import step
from gradlab.cells import Elman
from gradlab.checks import check_example, check_gradient, check_vjp

SIZE = 1e-11
WRONG = {"zeroed": 0.0, "negated": -1.0, "doubled": 2.0, "off by 1e-8": 1.0 + 1e-8}
SAID = {"zeroed": "adds nothing", "negated": "wrong sign", "doubled": "off by the factor 2", "off by 1e-8": "factor 1+1.0e-08"}


@pytest.fixture(scope="module", params=range(3))
def net(request):
    """tanh, T = 40, H = 4, spectral radius 0.6, driven so that max |dh_T/dh_0| is 1e-11."""
    return vanishing(np.random.default_rng(request.param), T=40, H=4, radius=0.6, size=SIZE)


def test_the_gradient_is_as_small_as_said(net):
    assert np.abs(np.linalg.eigvals(net.U)).max() == pytest.approx(0.6, rel=1e-12)
    assert np.abs(net.jacobian()).max() == pytest.approx(SIZE, rel=1e-6)  # bisected to 60 bits, times a slope of about 1e2
    assert net.gap() < 1e-13  # 40 products of 4 x 4 matrices against a complex step


def report_of(net, factor):
    """The engine's gradient of the initial state times `factor`."""
    plant = step(lambda v: {"ds": factor * v.ds} if v.t == 0 else {})
    with plant(Elman("tanh"), 1.0) as cell:
        return check_example(net.example(cell), replay=False)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_gradient_of_1e_11_of_the_initial_state_is_rejected_and_named(net, wrong):
    report = report_of(net, WRONG[wrong])
    assert report.verdict == "FAIL"  # and not UNRESOLVED
    assert report.counts.unresolved == {}
    assert {(one.quantity, one.step) for one in report.findings} == {("s 0", 0)}
    assert 0.0 < abs(report.findings[0].oracle) < 3.0 * SIZE  # of two outputs, or four, with weights up to 1.5
    assert report.one_step == ("wrong where it is made: ds_prev 0, step 0",)
    assert SAID[wrong] in report.reading


def test_the_right_gradient_of_1e_11_of_the_initial_state_passes(net):
    report = report_of(net, 1.0)
    assert report.verdict == "PASS"
    assert report.counts.passed == report.counts.entries
    assert report.counts.exact_zeros == 0  # nothing passes for being 0
    assert report.counts.worst < 1e-12


@pytest.mark.parametrize("wrong", WRONG)
def test_a_plain_function_with_a_wrong_vjp_of_1e_11_is_rejected(net, wrong):
    def vjp(h, cotangent):
        return WRONG[wrong] * net.vjp(h, cotangent)[0]

    report = check_vjp(net.f, vjp, net.start)
    assert report.verdict == "FAIL"
    # Of S, which cancellation makes up to ten times larger than the gradient: 1e-8 of it may be below the criterion.
    assert report.counts.failed == (4 if wrong != "off by 1e-8" else pytest.approx(4, abs=3))
    assert SAID[wrong] in report.reading


def test_a_plain_function_with_the_right_vjp_of_1e_11_passes_and_its_control_bites(net):
    report = check_vjp(net.f, net.vjp, net.start)
    assert report.verdict == "PASS"
    assert report.oracle.startswith("complex step")
    assert report.control.rejected == report.control.tried > 0


@pytest.mark.parametrize("wrong", ["right", *WRONG])
def test_richardson_rejects_what_it_can_tell_and_certifies_nothing(net, wrong):
    """A difference of h_T over 1e-2 is 1e-13, with a rounding of 1e-16: three digits. They refute, they do not confirm 1e-9."""
    factor = {"right": 1.0, **WRONG}[wrong]
    report = check_vjp(net.f, lambda h, g: factor * net.vjp(h, g)[0], net.start, oracle="richardson", control=False)
    assert report.counts.passed == 0
    if wrong in ("right", "off by 1e-8"):
        assert (report.verdict, report.reasons) == ("UNRESOLVED", ("floor",))
    else:
        assert report.verdict == "FAIL"


def chain(steps):
    """x -> tanh(x/2), `steps` times: the derivative is about 2^-steps."""

    def f(x):
        for _ in range(steps):
            x = np.tanh(0.5 * x)
        return x

    def log_slope(x):
        total = 0.0
        for _ in range(steps):
            x = math.tanh(0.5 * x)
            total += math.log(0.5 * (1.0 - x) * (1.0 + x))
        return total

    def vjp(x, cotangent):
        return cotangent * np.exp([log_slope(value) for value in x])

    return f, vjp, log_slope


@pytest.mark.parametrize("steps", [40, 400, 420, 900])
def test_gradients_down_to_1e_271_are_told_from_their_doubles(steps):
    """At 420 steps a complex step of 1e-200 underflows; the check takes a larger one."""
    f, vjp, log_slope = chain(steps)
    x = np.array([0.3, -0.7])
    assert log_slope(0.3) / math.log(10.0) == pytest.approx(-steps * math.log10(2.0), abs=0.1)
    assert check_vjp(f, vjp, x, rtol=1e-8).verdict == "PASS"  # exp of a sum near -600 costs three digits of vjp
    for factor in (0.0, -1.0, 2.0, 1.0 + 1e-6):
        report = check_vjp(f, lambda x, g, factor=factor: factor * vjp(x, g), x, rtol=1e-8, control=False)
        assert report.verdict == "FAIL"


def test_below_what_floats_hold_nothing_is_certified():
    f, vjp, _ = chain(1060)  # about 1e-319: subnormal, without its digits
    report = check_vjp(f, lambda x, g: 2.0 * vjp(x, g), np.array([0.3]), control=False)
    assert (report.verdict, report.reasons) == ("UNRESOLVED", ("floor",))
    # To every oracle that floats allow this derivative is exactly 0, and so is a zeroed one: counted apart, as that.
    zeroed = check_vjp(f, lambda x, g: 0.0 * vjp(x, g), np.array([0.3]), control=False)
    assert zeroed.verdict == "UNRESOLVED" or zeroed.counts.exact_zeros == zeroed.counts.entries


@pytest.mark.parametrize("size", [1e-11, 1e-100, 1e-250])
def test_a_scalar_function_with_a_small_gradient_is_no_different(size):
    x = np.linspace(0.5, 1.0, 3)
    assert check_gradient(lambda x: size * (x**3).sum(), lambda x: 3.0 * size * x**2, x).verdict == "PASS"
    for factor in WRONG.values():
        wrong = check_gradient(lambda x: size * (x**3).sum(), lambda x, k=factor: k * 3.0 * size * x**2, x)
        assert wrong.verdict == "FAIL"
