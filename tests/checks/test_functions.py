"""`check_gradient` and `check_vjp` against derivatives that are known in closed form, and against every way of being wrong."""

import numpy as np
import pytest

from gradlab.checks import check_gradient, check_vjp
from gradlab.errors import DTypeError, GradientMismatch, ShapeError, ValueRangeError

rng = np.random.default_rng(0)
A, B = rng.uniform(0.5, 1.5, (3, 4)), rng.uniform(0.5, 1.5, (4, 2))
SPD = np.eye(3) + 0.2 * np.ones((3, 3)) + np.diag([0.0, 0.5, 1.0])
X = np.array([0.3, 1.1, 0.7])


def softmax(x):
    e = np.exp(x)
    return e / e.sum()


SCALAR = {
    "product of tanh": (lambda x: np.tanh(x).prod(), lambda x: np.tanh(x).prod() / np.tanh(x) / np.cosh(x) ** 2, X),
    "log of a determinant": (lambda x: np.log(np.linalg.det(x)), lambda x: np.linalg.inv(x).T, SPD),
    "quadratic form": (lambda x: x @ SPD @ x, lambda x: 2.0 * SPD @ x, X),
    "log-sum-exp": (lambda x: np.log(np.exp(x).sum()), softmax, X),
    "a number": (lambda x: x**3, lambda x: 3.0 * x**2, np.array(0.7)),
}


@pytest.mark.parametrize("name", SCALAR)
def test_a_gradient_in_closed_form_passes(name):
    f, grad, x = SCALAR[name]
    report = check_gradient(f, grad, x)
    assert (report.verdict, report.counts.passed, report.counts.entries) == ("PASS", x.size, x.size)
    assert report.counts.worst < 1e-13  # a few roundings; an inverse of a well-conditioned 3x3 matrix costs some more
    assert report.control.rejected > 0
    assert report.control.missed == ()


@pytest.mark.parametrize("factor", [0.0, -1.0, 2.0, 1.0 + 1e-6], ids=str)
@pytest.mark.parametrize("name", SCALAR)
def test_one_wrong_entry_is_rejected_and_is_the_one_that_is_named(name, factor):
    f, grad, x = SCALAR[name]
    last = tuple(n - 1 for n in x.shape)

    def wrong(x):
        found = np.array(grad(x))
        found[last] *= factor
        return found

    report = check_gradient(f, wrong, x)
    assert (report.verdict, report.counts.failed) == ("FAIL", 1)
    assert [(one.place, one.index) for one in report.findings] == [("dx", last)]
    assert report.findings[0].oracle == pytest.approx(grad(x)[last], rel=1e-13)
    with pytest.raises(GradientMismatch, match=r"gradlab FAIL"):
        report.raise_for_failure(allow={"floor", "kink"})


@pytest.mark.parametrize("power", [-11, -50, -120, -150, -200, -250, -280])
def test_a_vanished_gradient_is_judged_on_its_own_scale(power):
    size = 10.0**power

    def judge(factor):
        return check_gradient(lambda x: size * np.tanh(x).sum(), lambda x: factor * size / np.cosh(x) ** 2, X)

    assert judge(1.0).verdict == "PASS"
    assert {judge(factor).verdict for factor in (0.0, -1.0, 2.0, 1.0 + 1e-6)} == {"FAIL"}


def test_a_dict_of_arrays_is_judged_array_by_array():
    x = {"a": X, "b": np.full(3, 1e-11)}

    def f(p):
        return (np.tanh(p["a"]) * p["b"]).sum()

    def grad(p, b=1.0):
        return {"a": p["b"] / np.cosh(p["a"]) ** 2, "b": b * np.tanh(p["a"])}

    assert check_gradient(f, grad, x).verdict == "PASS"
    report = check_gradient(f, lambda p: grad(p, 1.0 + 1e-8), x)
    assert (report.verdict, report.clean) == ("FAIL", ("a",))
    assert {one.quantity for one in report.findings} == {"b"}


@pytest.mark.parametrize("wrong", [None, 0, 1])
def test_the_vjp_of_a_matrix_product_is_judged_argument_by_argument(wrong):
    def vjp(a, b, g):
        found = [g @ b.T, a.T @ g]
        if wrong is not None:
            found[wrong] = found[wrong] * (1.0 + 1e-6)
        return tuple(found)

    report = check_vjp(np.matmul, vjp, A, B, names=["A", "B"])
    assert report.verdict == ("PASS" if wrong is None else "FAIL")
    assert {one.quantity for one in report.findings} == (set() if wrong is None else {"AB"[wrong]})


def test_a_derivative_that_is_exactly_zero_must_be_exactly_zero():
    f = lambda x: x[0] ** 2 + 0.0 * x[1]  # noqa: E731
    right = check_gradient(f, lambda x: np.array([2.0 * x[0], 0.0]), X[:2])
    assert (right.verdict, right.counts.exact_zeros) == ("PASS", 1)
    assert check_gradient(f, lambda x: np.array([2.0 * x[0], 1e-8]), X[:2]).verdict == "FAIL"
    assert check_gradient(f, lambda x: np.array([2.0 * x[0], 1e-200]), X[:2]).verdict != "PASS"


def test_a_gradient_that_is_small_by_cancellation_is_judged_by_what_cancels():
    # d/dx of the two outputs (x, -x) with cotangent (1, 1 - 2^-40): 2^-40 is what is left of terms of size 1.
    cotangent = np.array([1.0, 1.0 - 2.0**-40])
    right = check_vjp(lambda x: np.stack([x, -x]), lambda x, g: g[0] - g[1], np.array(1.0), cotangent=cotangent)
    assert right.verdict == "PASS"
    off = check_vjp(lambda x: np.stack([x, -x]), lambda x, g: g[0] - g[1] + 1e-8, np.array(1.0), cotangent=cotangent)
    assert off.verdict == "FAIL"


@pytest.mark.parametrize("factor", [1.0, 1.0 + 1e-4, 0.0])
def test_many_entries_are_judged_along_random_directions(factor):
    x = np.linspace(-1.0, 1.0, 2500)

    def grad(x):
        found = 1.0 / np.cosh(x) ** 2
        found[1234] *= factor
        return found

    report = check_gradient(lambda x: np.tanh(x).sum(), grad, x)
    assert report.verdict == ("PASS" if factor == 1.0 else "FAIL")


def test_a_report_says_when_only_directions_were_compared():
    report = check_gradient(lambda x: np.tanh(x).sum(), lambda x: 1.0 / np.cosh(x) ** 2, np.linspace(-1.0, 1.0, 2500))
    assert "random direction" in " ".join([report.oracle, report.size, report.note or "", str(report.counts)])


def test_an_argument_changed_in_place_is_refused():
    with pytest.raises(ValueRangeError, match="changed x in place"):
        check_gradient(lambda x: np.clip(x, 0.0, 1.0, out=x).sum(), lambda x: (x < 1) * 1.0, np.array([0.5, 2.0]))


def test_an_argument_changed_in_place_is_refused_by_check_vjp_too():
    x = np.array([0.5, 2.0])
    with pytest.raises(ValueRangeError, match="in place"):
        check_vjp(lambda x: np.clip(x, 0.0, 1.0, out=x), lambda x, g: g * (x < 1), x)


def spoil_the_cotangent(x, g):
    g[...] = 0.0
    return np.zeros_like(x)


def work_in_the_cotangent(x, g):
    g /= np.cosh(x) ** 2
    return g


def test_a_vjp_that_zeroes_its_cotangent_does_not_pass():
    try:
        verdict = check_vjp(np.tanh, spoil_the_cotangent, X).verdict
    except ValueRangeError:
        return
    assert verdict == "FAIL"


def test_a_right_vjp_that_works_in_its_cotangent_is_not_called_wrong():
    try:
        verdict = check_vjp(np.tanh, work_in_the_cotangent, X).verdict
    except ValueRangeError:
        return
    assert verdict == "PASS"


@pytest.mark.parametrize("factor", [1.0, 0.0])
def test_a_function_that_returns_the_same_buffer_at_every_call_is_judged_right(factor):
    buffer = np.empty(3)

    def f(x):
        np.tanh(x, out=buffer)  # refuses complex numbers, so that Richardson is the oracle
        return buffer

    report = check_vjp(f, lambda x, g: factor * g / np.cosh(x) ** 2, X)
    assert report.verdict == ("PASS" if factor else "FAIL")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: check_gradient(3, np.sign, X), DTypeError, "f is 3"),
        (lambda: check_gradient(np.sum, None, X), DTypeError, "grad is None"),
        (lambda: check_gradient(np.tanh, np.sign, X), ShapeError, "expected a scalar; check_vjp"),
        (lambda: check_gradient(np.sum, lambda x: np.ones(4), X), ShapeError, r"gradient of x has shape \(4,\); expected \(3,\)"),
        (lambda: check_gradient(np.sum, np.sign, np.zeros(0)), DTypeError, "at least one"),
        (lambda: check_gradient(np.sum, np.sign, np.array([1j])), DTypeError, "expected real numbers"),
        (lambda: check_gradient(np.sum, np.sign, np.array([1.0, np.nan])), ValueRangeError, "non-finite"),
        (lambda: check_gradient(np.sum, np.sign, X, rtol=np.inf), ValueRangeError, "rtol is inf"),
        (lambda: check_gradient(np.sum, np.sign, X, oracle="exact"), ValueRangeError, "oracle is 'exact'"),
        (lambda: check_gradient(np.sum, np.sign, X, kink="no"), ValueRangeError, "kink is 'no'"),
        (lambda: check_gradient(lambda p: p["a"].sum(), lambda p: {"b": 1.0}, {"a": X}), DTypeError, r"grad\(x\) gave \['b'\]"),
        (lambda: check_vjp(np.tanh, lambda x, g: g), ShapeError, "args is empty"),
        (lambda: check_vjp(np.add, lambda a, b, g: g, X, X), ShapeError, "returned 1 arrays for 2 arguments"),
        (lambda: check_vjp(np.tanh, lambda x, g: g, X, cotangent=np.ones(2)), ShapeError, "cotangent has shape"),
        (lambda: check_vjp(np.tanh, lambda x, g: g, X, names=["a", "b"]), ShapeError, "names has 2 entries"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: check_gradient(lambda p: 0.0, lambda p: {}, {}), id="empty dict"),
        pytest.param(lambda: check_vjp(lambda x: x[:0], lambda x, g: 0.0 * x, X), id="no outputs"),
        pytest.param(lambda: check_vjp(np.tanh, lambda x, g: 0.0 * x, X, cotangent=np.zeros(3)), id="cotangent of zeros"),
        pytest.param(lambda: check_vjp(lambda x: (1 + 2j) * x, lambda x, g: g, X), id="complex outputs"),
        pytest.param(lambda: check_vjp(np.tanh, lambda x, g: x, X, cotangent=np.full(3, 1j)), id="complex cotangent"),
        pytest.param(lambda: check_vjp(np.tanh, lambda x, g: x, X, cotangent=np.array(["a"] * 3)), id="text as cotangent"),
        pytest.param(lambda: check_gradient(np.sum, lambda x: np.ones(3) + 1j, X), id="complex gradient"),
        pytest.param(lambda: check_vjp(np.add, lambda a, b, g: (g, g), X, X, names=["a", "a"]), id="one name twice"),
        pytest.param(lambda: check_gradient(lambda x: None, np.sign, X), id="f returns None"),
        pytest.param(lambda: check_gradient(np.sum, lambda x: np.ones(3), X, rtol=-1.0), id="negative rtol"),
    ],
)
def test_what_cannot_be_judged_is_refused_and_never_passes(call):
    with pytest.raises((ShapeError, DTypeError, ValueRangeError)):
        call()


# ---- wrapped frameworks -----------------------------------------------------------------------------------


def torch_tanh(torch, dtype, factor):
    """(f, vjp) of NumPy arrays around torch.tanh in `dtype`."""

    def f(x):
        return torch.tanh(torch.tensor(x, dtype=dtype)).numpy()

    def vjp(x, g):
        t = torch.tensor(x, dtype=dtype, requires_grad=True)
        torch.tanh(t).backward(torch.tensor(g, dtype=dtype))
        return factor * t.grad.numpy()

    return f, vjp


@pytest.mark.peer
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.0 + 1e-6, "FAIL"), (0.0, "FAIL")])
def test_a_torch_function_in_float64_is_judged_as_any_other(factor, verdict):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")
    report = check_vjp(*torch_tanh(torch, torch.float64, factor), np.linspace(-1.0, 1.0, 7))
    assert report.verdict == verdict
    assert report.oracle.startswith("Richardson")  # torch.tensor(x, dtype=float64) refuses complex numbers, or drops them


@pytest.mark.peer
def test_a_torch_function_in_float32_is_unresolved_and_the_note_says_why():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")
    report = check_vjp(*torch_tanh(torch, torch.float32, 1.0), np.linspace(-1.0, 1.0, 7))
    assert (report.verdict, report.reasons) == ("UNRESOLVED", ("floor",))
    assert "float32" in report.note
    assert ".double()" in report.note


@pytest.mark.peer
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.0 + 1e-6, "FAIL")])
def test_a_jax_function_in_float64_is_judged_by_complex_steps(factor, verdict):
    jax = pytest.importorskip("jax", reason="jax is not installed: pip install jax==0.10.2")
    with jax.enable_x64(True):

        def vjp(x, g):
            return factor * np.asarray(jax.vjp(jax.numpy.tanh, x)[1](jax.numpy.asarray(g))[0])

        report = check_vjp(lambda x: np.asarray(jax.numpy.tanh(x)), vjp, np.linspace(-1.0, 1.0, 7))
    assert report.verdict == verdict
    assert report.oracle.startswith("complex step")


@pytest.mark.peer
def test_a_jax_function_in_float32_is_unresolved_for_what_it_is():
    jax = pytest.importorskip("jax", reason="jax is not installed: pip install jax==0.10.2")

    def vjp(x, g):
        return np.asarray(jax.vjp(jax.numpy.tanh, x.astype(np.float32))[1](g.astype(np.float32))[0])

    report = check_vjp(lambda x: np.asarray(jax.numpy.tanh(x)), vjp, np.linspace(-1.0, 1.0, 7))
    assert report.verdict == "UNRESOLVED"
    assert "float32" in report.note
    assert report.reasons == ("floor",)
