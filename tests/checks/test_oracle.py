"""Which oracle is used and why: the first lines of a report say so, and what fails its pre-flight is not trusted."""

import numpy as np
import pytest
from hand_written import Tanh
from scipy.special import expit

from gradlab import cells
from gradlab.checks import block_products, check_cell, check_example, check_gradient, random_example
from gradlab.checks.oracle import choose
from gradlab.errors import NumericalError, ValueRangeError

X = np.array([0.3, 1.1, 0.7])


def into_floats(x):
    y = np.zeros(3)
    y[...] = np.tanh(x)
    return y.sum()


def refuses(x):
    if np.iscomplexobj(x):
        raise KeyError("what a user's function may raise")
    return np.tanh(x).sum()


def says_nothing(x):
    if np.iscomplexobj(x):
        raise ValueError
    return np.tanh(x).sum()


def tanh_slope(x):
    return 1.0 / np.cosh(x) ** 2


SIGMOID_SLOPE = lambda x: expit(x) * expit(-x)  # noqa: E731
DISAGREES, REFUSED = "complex step disagrees in the pre-flight", "complex step refused"
NOT_HOLOMORPHIC = {
    "np.abs": (lambda x: np.abs(x).sum(), np.sign, DISAGREES),
    "np.linalg.norm": (np.linalg.norm, lambda x: x / np.linalg.norm(x), DISAGREES),
    "np.vdot": (lambda x: np.vdot(x, x), lambda x: 2.0 * x, DISAGREES),
    "np.sign": (lambda x: (np.sign(x) * x**2).sum(), lambda x: 2.0 * np.abs(x), DISAGREES),
    "softsign with np.abs": (lambda x: (x / (1.0 + np.abs(x))).sum(), lambda x: 1.0 / (1.0 + np.abs(x)) ** 2, DISAGREES),
    ".real": (lambda x: np.tanh(x.real).sum(), tanh_slope, DISAGREES),
    "expit": (lambda x: expit(x).sum(), SIGMOID_SLOPE, REFUSED),
    "np.logaddexp": (lambda x: np.logaddexp(0.0, x).sum(), expit, REFUSED),
    "into a float array": (into_floats, tanh_slope, REFUSED),
    "astype(float)": (lambda x: np.tanh(x.astype(float)).sum(), tanh_slope, REFUSED),
    "np.asarray(dtype=float)": (lambda x: np.tanh(np.asarray(x, dtype=float)).sum(), tanh_slope, REFUSED),
    "any exception": (refuses, tanh_slope, "complex step refused: 'what a user's function may raise'"),
    "an exception without words": (says_nothing, tanh_slope, "complex step refused: ValueError"),
}


@pytest.mark.parametrize("name", NOT_HOLOMORPHIC)
def test_a_function_that_drops_or_refuses_complex_numbers_is_judged_by_richardson_and_the_report_says_why(name):
    f, grad, why = NOT_HOLOMORPHIC[name]
    report = check_gradient(f, grad, X)
    assert report.verdict == "PASS"
    assert report.oracle.startswith("Richardson")
    assert why in report.oracle.replace('"', "'")
    assert report.oracle in str(report).splitlines()[1]
    assert check_gradient(f, lambda x: grad(x) * (1.0 + 1e-6), X).verdict == "FAIL"


@pytest.mark.parametrize("name", [name for name, (_, _, why) in NOT_HOLOMORPHIC.items() if why == DISAGREES])
@pytest.mark.parametrize("factor", [1.0, 0.0])
def test_a_demanded_complex_step_that_disagrees_is_unresolved_and_not_swapped(name, factor):
    f, grad, _ = NOT_HOLOMORPHIC[name]
    report = check_gradient(f, lambda x: factor * grad(x), X, oracle="complex")
    assert (report.verdict, report.reasons) == ("UNRESOLVED", ("oracle-disagrees",))
    assert report.oracle.startswith("complex step")
    assert "asked for, but" in report.oracle


def test_the_numbers_beside_a_complex_step_are_not_those_of_richardson():
    report = check_gradient(lambda x: np.abs(x).sum(), np.sign, X, oracle="complex")
    assert report.findings[0].oracle != pytest.approx(1.0)  # it says 0, or nothing


@pytest.mark.parametrize("name", [name for name, (_, _, why) in NOT_HOLOMORPHIC.items() if why != DISAGREES])
def test_a_demanded_complex_step_that_is_refused_is_unresolved_and_does_not_raise(name):
    f, grad, _ = NOT_HOLOMORPHIC[name]
    report = check_gradient(f, grad, X, oracle="complex")
    assert (report.verdict, report.reasons) == ("UNRESOLVED", ("oracle-disagrees",))


def test_richardson_on_demand_is_used_and_named():
    report = check_gradient(lambda x: np.tanh(x).sum(), tanh_slope, X, oracle="richardson")
    assert report.verdict == "PASS"
    assert report.oracle.startswith("Richardson extrapolation with an error estimate (asked for); resolved to ")
    assert 0.0 < report.counts.worst < 1e-9


def test_a_holomorphic_function_is_judged_by_complex_steps():
    report = check_gradient(lambda x: np.tanh(x).sum(), tanh_slope, X)
    assert report.oracle == "complex step, h=1e-200 (pre-flight: Richardson agrees)"
    demanded = check_gradient(lambda x: np.tanh(x).sum(), tanh_slope, X, oracle="complex")
    assert demanded.oracle == "complex step, h=1e-200 (asked for; pre-flight: Richardson agrees)"


def test_every_piece_has_its_own_pre_flight():
    smooth, edged = np.tanh, lambda z: np.abs(z - 1.0)
    assert choose([smooth], "auto").kind == "complex"
    assert choose([smooth, edged], "auto").kind == "richardson"


# ---- a pre-flight that proves nothing ----------------------------------------------------------------------

BLIND = {
    # Differences over 1e-2 straddle the kink at 0: Richardson's own error estimate is as large as the slope.
    "np.abs near 0": (lambda x: np.abs(x).sum(), np.sign, np.array([7e-4])),
    # Differences over 1e-2 leave the domain: Richardson is NaN.
    "np.abs near the end of the domain": (
        lambda x: (np.sqrt(x) * np.abs(x)).sum(),
        lambda x: 1.5 * np.sqrt(x),
        np.array([1e-3]),
    ),
    # One direction for all entries: 1e8 + 1 agrees with 1e8 to the pre-flight's 1e-7.
    "np.abs beside something large": (
        lambda x: 1e8 * x[0] + np.abs(x[1]),
        lambda x: np.array([1e8, np.sign(x[1])]),
        np.array([1.0, 2.0]),
    ),
    "a little of np.abs": (lambda x: (x + 2e-8 * np.abs(x)).sum(), lambda x: 1.0 + 2e-8 * np.sign(x), np.array([1.0, 2.0])),
    # The derivative is lost beside 1: differences say 0 +- 1e-13, the complex step 0.
    "np.abs below rounding": (lambda x: 1.0 + 1e-20 * np.abs(x).sum(), lambda x: 1e-20 * np.sign(x), np.array([1.0])),
}


UNSEEN = {
    "np.abs near 0": "the pre-flight has found the step that resolves it, and the oracle takes the one of 1e-2 again",
    "a little of np.abs": "complex step and Richardson agree if they are 1e-7 apart, a hundred times rtol",
    "np.abs below rounding": "where S = 0 a number far below rounding is FAIL, and not UNRESOLVED (floor)",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=UNSEEN[name]) if name in UNSEEN else ()) for name in BLIND],
)
def test_a_right_gradient_is_not_called_wrong_where_the_pre_flight_sees_nothing(name):
    f, grad, x = BLIND[name]
    assert check_gradient(f, grad, x).verdict != "FAIL"


@pytest.mark.parametrize("name", ["np.abs near 0", "np.abs beside something large"])
def test_a_missing_derivative_does_not_pass_where_the_pre_flight_sees_nothing(name):
    f, grad, x = BLIND[name]

    def missing(x):
        found = np.array(grad(x))
        found[-1] = 0.0
        return found

    assert check_gradient(f, missing, x).verdict != "PASS"


def test_what_a_wrong_complex_step_says_does_not_pass():
    f, _, x = BLIND["np.abs near the end of the domain"]
    assert check_gradient(f, lambda x: 0.5 * np.sqrt(x), x).verdict != "PASS"


@pytest.mark.parametrize("frequency", [1e4, 1e5])
def test_a_fast_oscillation_does_not_cost_the_complex_step(frequency):
    x = np.array([0.3, 1.1])
    report = check_gradient(lambda x: np.sin(frequency * x).sum(), lambda x: frequency * np.cos(frequency * x), x)
    assert report.counts.kinks == 0
    assert report.verdict == "PASS"


def test_a_function_that_checks_its_domain_is_judged_near_its_end():
    def f(x):
        if (x.real <= 0).any():
            raise ValueError("x must be positive")
        return np.log(x).sum()

    assert check_gradient(f, lambda x: 1.0 / x, np.array([1e-3])).verdict == "PASS"


def test_a_report_by_richardson_says_what_it_could_resolve():
    x = np.array([0.3, 1.1])
    report = check_gradient(lambda x: np.abs(2.0 + np.sin(300.0 * x)).sum(), lambda x: 300.0 * np.cos(300.0 * x), x)
    assert report.verdict == "PASS"
    assert report.counts.worst <= report.rtol or "resolve" in " ".join([report.oracle, report.note or "", str(report.counts)])


# ---- cells -------------------------------------------------------------------------------------------------


class WithAbs(Tanh):
    """tanh, spelled so that a complex step loses its imaginary part; at the steps or values that `when` says."""

    def __init__(self, when=lambda z, t: True, **defects):
        super().__init__(**defects)
        self.when = when

    def f(self, z, t):
        return np.where(self.when(z, t), np.sign(z.real) * np.tanh(np.abs(z)), np.tanh(z))


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.0 + 1e-6, "FAIL")])
def test_a_cell_with_abs_is_judged_by_richardson(factor, verdict):
    report = check_example(random_example(WithAbs(a=factor)))
    assert report.verdict == verdict
    assert report.oracle.startswith(f"Richardson extrapolation with an error estimate ({DISAGREES}")


def test_a_demanded_complex_step_of_a_cell_with_abs_is_unresolved_everywhere():
    report = check_example(random_example(WithAbs()), oracle="complex")
    assert (report.verdict, report.reasons) == ("UNRESOLVED", ("oracle-disagrees",))
    assert report.counts.unresolved["oracle-disagrees"] == report.counts.entries
    whole = check_cell(WithAbs(), oracle="complex")
    assert (whole.verdict, whole.reasons) == ("UNRESOLVED", ("oracle-disagrees",))
    whole.raise_for_failure(allow={"oracle-disagrees"})
    with pytest.raises(NumericalError, match="asked for, but complex step disagrees"):
        block_products(random_example(WithAbs()), np.random.default_rng(0), "complex")


class ForwardOnly:
    def init(self, rng, input_size, hidden_size):
        return Tanh().init(rng, input_size, hidden_size)

    def step(self, params, x_t, s_prev, t):
        return Tanh().step(params, x_t, s_prev, t)


def test_a_cell_without_a_backward_pass_is_not_held_against_itself():
    report = check_example(random_example(ForwardOnly()))
    assert report.verdict == "PASS"
    assert report.oracle.startswith("Richardson extrapolation with an error estimate (the cell has no backward pass of its own")
    assert "no derivative written by hand" in report.note


class RealOnly(Tanh):
    """Refuses complex numbers with an error of its own."""

    def step(self, params, x_t, s_prev, t):
        if any(np.iscomplexobj(value) for value in (x_t, s_prev, *params.values())):
            raise ValueError("real numbers only")
        return super().step(params, x_t, s_prev, t)


def test_a_cell_may_refuse_complex_numbers_by_any_error():
    report = check_cell(RealOnly())
    assert report.verdict == "PASS"
    assert "complex step refused: real numbers only" in report.gradients[0].oracle
    assert check_example(random_example(RealOnly(U=1.0 + 1e-6))).verdict == "FAIL"


def test_a_demanded_complex_step_of_a_cell_that_refuses_it_is_unresolved():
    report = check_example(random_example(RealOnly()), oracle="complex")
    assert (report.verdict, report.reasons) == ("UNRESOLVED", ("oracle-disagrees",))


def test_a_cell_without_a_backward_pass_that_refuses_complex_numbers_is_told_the_remedy():
    cell = RealOnly()
    cell.vjp = None
    with pytest.raises(NumericalError, match="closed form vjp"):
        check_example(random_example(cell))


def test_a_cell_that_drops_complex_numbers_at_odd_steps_is_not_called_wrong():
    assert check_example(random_example(WithAbs(lambda z, t: t % 2 == 1))).verdict != "FAIL"


def test_a_cell_that_drops_complex_numbers_for_some_values_is_not_called_wrong():
    assert check_example(random_example(WithAbs(lambda z, t: z.real < -1.5), scale=2.0)).verdict != "FAIL"


@pytest.mark.parametrize("check", [lambda e: check_example(e, oracle="exact"), lambda e: check_cell(e.net.cell, oracle="exact")])
def test_an_unknown_oracle_is_refused(check):
    with pytest.raises(ValueRangeError, match="oracle is 'exact'"):
        check(random_example(cells.Elman()))


def test_an_unknown_oracle_is_refused_by_the_block_products_too():
    with pytest.raises(ValueRangeError, match="oracle is 'exact'"):
        block_products(random_example(cells.Elman()), np.random.default_rng(0), "exact")
