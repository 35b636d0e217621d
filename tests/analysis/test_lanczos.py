"""Spectra of symmetric operators against matrices whose spectrum is prescribed, and operators that are none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab.analysis.curvature import extreme_eigenvalues, hessian_trace, sharpness
from gradlab.analysis.lanczos import checked_operator, quadrature, tridiagonal
from gradlab.analysis.spectral_densities import spectral_density
from gradlab.errors import DTypeError, NumericalError, ResourceRefused, ShapeError, ValueRangeError


def symmetric(rng, values):
    """A dense matrix with these eigenvalues, and its eigenvectors in columns."""
    Q = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    A = (Q * values) @ Q.T
    return 0.5 * (A + A.T), Q


def lanczos(A, start, steps):
    """Nodes and weights from one start vector."""
    operator = checked_operator(lambda v: A @ v, len(A), np.random.default_rng(0))
    nodes, weights = quadrature(*tridiagonal(operator, start[None], steps))
    return nodes[0] * operator.unit, weights[0]


# ---- quadrature -------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
@settings(max_examples=30)
def test_moments_are_exact_to_degree_2m_minus_1_and_no_further(seed, m):
    rng = np.random.default_rng(seed)
    A, Q = symmetric(rng, rng.uniform(-1.0, 1.0, 40))
    z = rng.normal(size=40)
    z /= np.linalg.norm(z)
    nodes, weights = lanczos(A, z, m)
    assert (weights >= 0.0).all()
    values, shares = np.diag(Q.T @ A @ Q), (Q.T @ z) ** 2
    for degree in range(2 * m):
        # Both are sums of 40 terms of at most 1; the largest power of a node rounds 15 times.
        np.testing.assert_allclose((weights * nodes**degree).sum(), (shares * values**degree).sum(), rtol=0, atol=1e-13)
    # The error of degree 2m is (beta_1 ... beta_m)^2, and each beta is about half the radius: 0.25^m.
    beyond = (weights * nodes ** (2 * m)).sum() - (shares * values ** (2 * m)).sum()
    assert beyond < -1e-3 * 0.25**m


def test_the_spectrum_is_exact_once_the_steps_are_as_many_as_distinct_eigenvalues():
    rng = np.random.default_rng(0)
    distinct = np.array([-2.0, 0.5, 0.75, 3.0])
    A, Q = symmetric(rng, np.repeat(distinct, [10, 20, 5, 1]))
    z = rng.normal(size=36)
    shares = (Q.T @ z) ** 2 / (z @ z)
    want = [part.sum() for part in np.split(shares, [10, 30, 35])]
    nodes, weights = lanczos(A, z, 4)
    np.testing.assert_allclose(nodes, distinct, rtol=1e-13)  # a few roundings; the gaps are of order 1
    np.testing.assert_allclose(weights, want, rtol=1e-12)
    # Further steps find nothing: what is added has no weight.
    nodes, weights = lanczos(A, z, 9)
    heavy = weights > 1e-12
    np.testing.assert_allclose(nodes[heavy], distinct, rtol=1e-13)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-14)  # a column of an orthogonal matrix, squared


def test_full_orthogonalisation_finds_every_eigenvalue_once():
    # A separated eigenvalue converges first; without re-orthogonalisation it comes back as a ghost, again and again.
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(0.0, 1.0, 99), [50.0]])
    A, _ = symmetric(rng, values)
    nodes, _ = lanczos(A, rng.normal(size=100), 100)
    np.testing.assert_allclose(nodes, np.sort(values), rtol=0, atol=1e-12)  # rounding of a matrix of norm 50


def test_probes_run_side_by_side_as_they_do_alone():
    rng = np.random.default_rng(0)
    A, _ = symmetric(rng, rng.normal(size=30))
    operator = checked_operator(lambda v: A @ v, 30, rng)
    start = rng.normal(size=(5, 30))
    start[2] = np.eye(30)[0]
    alpha, beta = tridiagonal(operator, start, 7)
    for k in range(5):
        one = tridiagonal(operator, start[k : k + 1], 7)
        np.testing.assert_allclose(alpha[k], one[0][0], rtol=0, atol=1e-12)  # another order of sums, 7 steps long
        np.testing.assert_allclose(beta[k], one[1][0], rtol=0, atol=1e-12)


# ---- density ----------------------------------------------------------------------------------------------


def test_the_density_integrates_to_one_and_its_weights_sum_to_one():
    rng = np.random.default_rng(0)
    A, _ = symmetric(rng, rng.normal(size=60))
    found = spectral_density(lambda v: A @ v, size=60, rng=rng, probes=5, steps=10)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1.0, rtol=1e-14)  # a column of an orthogonal matrix, squared
    # Five widths of margin hold all but 6e-7, and the trapezoidal rule on Gaussians is exact to far less.
    np.testing.assert_allclose(np.trapezoid(found.density, found.grid), 1.0, rtol=1e-6)
    assert found.status.ok


def test_the_density_of_a_diagonal_matrix_is_exact_from_one_probe():
    # Random signs give every coordinate the same share, so the weights are multiplicities.
    d = np.repeat([-1.0, 0.0, 2.0], [1, 6, 3])
    found = spectral_density(lambda v: d * v, size=10, rng=np.random.default_rng(0), probes=1, steps=3, width=0.1)
    np.testing.assert_allclose(found.nodes, [[-1.0, 0.0, 2.0]], rtol=0, atol=1e-14)  # a few roundings
    np.testing.assert_allclose(found.weights, [[0.1, 0.6, 0.3]], rtol=0, atol=1e-14)
    bells = np.exp(-0.5 * ((found.grid[:, None] - [-1.0, 0.0, 2.0]) / 0.1) ** 2) / (0.1 * np.sqrt(2.0 * np.pi))
    np.testing.assert_allclose(found.density, bells @ [0.1, 0.6, 0.3], rtol=0, atol=1e-12)  # nodes off by 1e-15, slope 10
    assert found.status.code == "too-short"
    assert np.isnan(found.standard_error).all()


def test_moments_of_the_density_are_those_of_the_spectrum_within_their_errors():
    rng = np.random.default_rng(0)
    values = rng.normal(size=200)
    A, _ = symmetric(rng, values)
    found = spectral_density(lambda v: A @ v, size=200, rng=rng, probes=30, steps=4)
    assert found.moment(0) == (pytest.approx(1.0, abs=1e-14), pytest.approx(0.0, abs=1e-14))
    for degree in range(1, 8):
        value, error = found.moment(degree)
        assert abs(value - (values**degree).mean()) <= 4.0 * error  # 7 moments; 4 standard errors are passed 1 in 10^4
    with pytest.raises(ValueRangeError, match="degree is 8; expected at most 7"):
        found.moment(8)


def test_a_grid_and_a_width_of_ones_own_are_used():
    grid = np.array([0.0, 1.0])
    found = spectral_density(lambda v: v, size=4, rng=np.random.default_rng(0), grid=grid, width=0.5)
    want = np.exp([-2.0, 0.0]) / (0.5 * np.sqrt(2.0 * np.pi))
    np.testing.assert_allclose(found.density, want, rtol=1e-13)  # the one eigenvalue 1
    with pytest.raises(ShapeError, match=r"grid has shape \(0,\)"):
        spectral_density(lambda v: v, size=4, rng=np.random.default_rng(0), grid=np.zeros(0))
    with pytest.raises(ShapeError, match="grid has shape"):
        spectral_density(lambda v: v, size=4, rng=np.random.default_rng(0), grid=np.zeros((2, 2)))


def test_lanczos_vectors_that_do_not_fit_are_refused_before_they_are_made():
    with pytest.raises(ResourceRefused, match="64 Lanczos vectors of size n = 1000"):
        spectral_density(lambda v: v, size=1000, rng=np.random.default_rng(0), max_memory=10**5)


# ---- trace ------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
@settings(max_examples=30)
def test_one_probe_gives_the_trace_of_a_diagonal_matrix_exactly(seed, n):
    rng = np.random.default_rng(seed)
    d = rng.normal(size=n)
    found = hessian_trace(lambda v: d * v, size=n, rng=rng, probes=1)
    np.testing.assert_allclose(found.value, d.sum(), rtol=0, atol=1e-14 * n)  # two orders of one sum
    assert found.status.code == "too-short"
    assert np.isnan(found.standard_error)


def test_the_variance_of_the_trace_is_twice_the_squares_off_the_diagonal():
    rng = np.random.default_rng(0)
    A, _ = symmetric(rng, rng.normal(size=12))
    probes = 8000
    found = hessian_trace(lambda v: A @ v, size=12, rng=rng, probes=probes)
    variance = 2.0 * ((A**2).sum() - (np.diag(A) ** 2).sum())
    # The variance of a sample of a law with kurtosis below 6 is known to sqrt(5/8000) = 2.5 %; three of those.
    np.testing.assert_allclose(found.samples.var(ddof=1), variance, rtol=0.075)
    np.testing.assert_allclose(found.standard_error, np.sqrt(found.samples.var(ddof=1) / probes), rtol=1e-12)
    assert abs(found.value - np.trace(A)) <= 4.0 * np.sqrt(variance / probes)


def test_progress_counts_probes():
    seen = []
    hessian_trace(lambda v: v, size=3, rng=np.random.default_rng(0), probes=3, progress=lambda *done: seen.append(done))
    spectral_density(lambda v: v, size=3, rng=np.random.default_rng(0), probes=2, progress=lambda *done: seen.append(done))
    assert (seen[:3], seen[-1]) == ([(1, 3), (2, 3), (3, 3)], (2, 2))


# ---- eigenvalues ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 10, 33, 120])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_eigenvalues_and_vectors_of_both_ends_have_the_prescribed_spectrum_at_every_scale(n, scale):
    rng = np.random.default_rng(n)
    values = np.sort(rng.normal(size=n))
    A, Q = symmetric(rng, values)
    k = min(3, n)
    found = extreme_eigenvalues(lambda v: scale * (A @ v), k, size=n, rng=rng)
    assert found.status.ok
    size = np.abs(values).max()
    for pairs, want, columns in (
        (found.largest, values[::-1][:k], Q[:, ::-1][:, :k]),
        (found.smallest, values[:k], Q[:, :k]),
    ):
        # The error of a value is at most its residual, 1e-10 of the largest modulus.
        np.testing.assert_allclose(pairs.values / scale, want, rtol=0, atol=1e-10 * size)
        assert (pairs.residuals / scale <= 1e-9 * size).all()
        residuals = np.linalg.norm(pairs.vectors @ A - (pairs.values / scale)[:, None] * pairs.vectors, axis=1)
        np.testing.assert_allclose(pairs.residuals / scale, residuals, rtol=0, atol=1e-13)  # roundings of order 1
        np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(k), rtol=0, atol=1e-8)
        # A vector is known to residual/gap, and no gap of these spectra is below 1e-4.
        np.testing.assert_allclose(np.abs(np.einsum("kn,nk->k", pairs.vectors, columns)), 1.0, rtol=0, atol=1e-8)


def test_eigenvalues_next_to_zero_converge_as_well_as_large_ones():
    # ARPACK's own criterion is relative to each value: of 0 it never meets it.
    d = np.concatenate([np.zeros(90), np.linspace(1.0, 2.0, 10)])
    found = extreme_eigenvalues(lambda v: d * v, 2, size=100, rng=np.random.default_rng(0))
    assert found.status.ok
    np.testing.assert_allclose(found.smallest.values, 0.0, atol=1e-14)  # rounding of norm 2, shifted by 4
    np.testing.assert_allclose(found.largest.values, [2.0, 2.0 - 1.0 / 9.0], rtol=1e-13)


@pytest.mark.parametrize("value", [1.0, -3.0, 0.0])
def test_a_multiple_of_the_identity_has_one_eigenvalue_as_often_as_asked(value):
    found = extreme_eigenvalues(lambda v: value * v, 3, size=50, rng=np.random.default_rng(0))
    for pairs in (found.largest, found.smallest):
        np.testing.assert_allclose(pairs.values, value, rtol=1e-13)  # a few roundings
        np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(3), rtol=0, atol=1e-12)
    assert found.status.ok


def test_one_end_alone_is_found_alone():
    d = np.arange(100.0)
    found = extreme_eigenvalues(lambda v: d * v, 2, size=100, rng=np.random.default_rng(0), ends="smallest")
    np.testing.assert_allclose(found.smallest.values, [0.0, 1.0], rtol=0, atol=1e-8)  # 1e-10 of 99
    assert found.largest.values.size == found.largest.residuals.size == found.largest.vectors.size == 0


def test_too_few_restarts_are_reported_and_missing_values_are_nan():
    # 1999 eigenvalues crowd together below the top one: 1e-6 apart, Lanczos needs hundreds of steps to tell them apart.
    d = np.concatenate([np.linspace(0.0, 1.0, 1999), [1.0 + 1e-6]])
    found = extreme_eigenvalues(lambda v: d * v, 2, size=2000, rng=np.random.default_rng(0), ends="largest", restarts=1)
    assert found.status.code == "nonconverged"
    assert "largest: 0 of 2 eigenvalues converged in 1 restarts" in found.status.detail
    assert np.isnan(found.largest.values).all()
    assert np.isnan(found.largest.residuals).all()
    edge = sharpness(lambda v: d * v, 0.1, size=2000, rng=np.random.default_rng(0), restarts=1)
    assert np.isnan(edge.value)
    assert not edge.status.ok


def test_a_tolerance_below_rounding_is_reported_with_the_residual():
    rng = np.random.default_rng(0)
    A, _ = symmetric(rng, rng.normal(size=20))
    found = extreme_eigenvalues(lambda v: A @ v, 1, size=20, rng=rng, tol=1e-22)
    assert found.status.code == "nonconverged"
    assert "the largest residual is" in found.status.detail
    assert (found.largest.residuals < 1e-14).all()


def test_an_eigenvalue_that_drowns_in_the_rounding_of_the_others_has_an_error_above_itself():
    d = np.concatenate([[-1e30, 1.0], np.zeros(98)])
    A = np.diag(d)
    A[0, 1] = A[1, 0] = 1e15
    found = extreme_eigenvalues(lambda v: A @ v, 1, size=100, rng=np.random.default_rng(0), ends="largest")
    assert found.largest.residuals[0] >= 1e14  # 2e-16 of 1e30 is what one rounding takes
    assert abs(found.largest.values[0] - 2.0) <= found.largest.residuals[0]  # 1 + 1e30/1e30


def test_results_are_the_same_for_the_same_generator():
    rng = np.random.default_rng(0)
    A, _ = symmetric(rng, rng.normal(size=80))
    a, b = (extreme_eigenvalues(lambda v: A @ v, 2, size=80, rng=np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(a.largest.vectors, b.largest.vectors)
    np.testing.assert_array_equal(a.smallest.values, b.smallest.values)


# ---- operators that break their contract ------------------------------------------------------------------

CALLS = {
    "eigenvalues": lambda operator: extreme_eigenvalues(operator, size=40, rng=np.random.default_rng(0)),
    "trace": lambda operator: hessian_trace(operator, size=40, rng=np.random.default_rng(0)),
    "density": lambda operator: spectral_density(operator, size=40, rng=np.random.default_rng(0)),
    "sharpness": lambda operator: sharpness(operator, 0.1, size=40, rng=np.random.default_rng(0)),
}


@pytest.fixture(params=CALLS)
def call(request):
    return CALLS[request.param]


MATRIX = symmetric(np.random.default_rng(1), np.random.default_rng(2).normal(size=40))[0]


def test_an_operator_that_is_not_symmetric_is_reported_with_both_numbers(call):
    slightly = MATRIX.copy()
    slightly[3, 7] *= 1.01  # one entry of 1600, by one per cent
    with pytest.raises(
        NumericalError, match=r"is not symmetric: for random unit vectors <u, A v> = (-?[\d.e-]+) and <v, A u> = (-?[\d.e-]+)"
    ) as told:
        call(lambda v: slightly @ v)
    left, right = (float(text.split("= ")[1]) for text in str(told.value).split("; |A")[0].split(" and "))
    u, v = np.random.default_rng(0).normal(size=(2, 40))
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    np.testing.assert_allclose([left, right], [u @ slightly @ v, v @ slightly @ u], rtol=1e-12)  # sums of 40 terms


def test_an_operator_of_another_shape_is_reported(call):
    with pytest.raises(ShapeError, match=r"operator returned shape \(40, 1\) for a vector of shape \(40,\)"):
        call(lambda v: (MATRIX @ v)[:, None])


def test_an_operator_that_is_not_finite_is_reported(call):
    with pytest.raises(NumericalError, match="operator returned 1 non-finite values"):
        call(lambda v: np.where(np.arange(40) == 3, np.nan, MATRIX @ v))


def test_an_operator_that_changes_from_call_to_call_is_reported(call):
    rng = np.random.default_rng(0)

    def noisy(v):
        g = rng.normal(size=40)
        return MATRIX @ v + 1e-3 * g * (g @ v)  # symmetric every time, and linear

    with pytest.raises(NumericalError, match=r"does not give the same twice: .* A u once more differs by [\d.]+"):
        call(noisy)


def test_an_operator_that_is_not_linear_is_reported(call):
    with pytest.raises(NumericalError, match="operator is not linear"):
        call(lambda v: v * np.linalg.norm(v))


def test_an_operator_that_returns_no_array_is_reported(call):
    with pytest.raises(DTypeError, match=r"operator\(v\) is a builtins.list"):
        call(lambda v: list(v))
    with pytest.raises(DTypeError, match=r"operator\(v\) has dtype complex128"):
        call(lambda v: v + 0j)


def test_an_operator_may_return_the_same_buffer_every_time():
    buffer = np.empty(40)
    found = extreme_eigenvalues(lambda v: np.matmul(MATRIX, v, out=buffer), size=40, rng=np.random.default_rng(0))
    np.testing.assert_allclose(found.largest.values[0], np.linalg.eigvalsh(MATRIX)[-1], rtol=1e-9)  # 1e-10 and room
    trace = hessian_trace(lambda v: np.multiply(np.arange(40.0), v, out=buffer), size=40, rng=np.random.default_rng(0))
    np.testing.assert_allclose(trace.value, 780.0, rtol=1e-13)  # a diagonal: exact


def test_bad_arguments_are_refused_by_name():
    rng = np.random.default_rng(0)
    with pytest.raises(DTypeError, match="operator is array"):
        hessian_trace(np.eye(3), size=3, rng=rng)
    with pytest.raises(DTypeError, match="size is None; expected the number of rows"):
        hessian_trace(lambda v: v, rng=rng)
    with pytest.raises(ValueRangeError, match="k is 4; expected at most the size of the operator, 3"):
        extreme_eigenvalues(lambda v: v, 4, size=3, rng=rng)
    with pytest.raises(ValueRangeError, match="ends is 'top'"):
        extreme_eigenvalues(lambda v: v, size=3, rng=rng, ends="top")
    with pytest.raises(ValueRangeError, match="learning_rate is 0"):
        sharpness(lambda v: v, 0.0, size=3, rng=rng)
    with pytest.raises(DTypeError, match=r"rng is 0; expected a numpy\.random\.Generator"):
        hessian_trace(lambda v: v, size=3, rng=0)
    for name, value in (("probes", 0), ("steps", 0), ("width", 0.0)):
        with pytest.raises(ValueRangeError, match=f"{name} is 0"):
            spectral_density(lambda v: v, size=3, rng=rng, **{name: value})


def test_a_width_below_the_spacing_of_the_grid_is_told():
    d, rng = np.arange(1.0, 11.0), np.random.default_rng(0)
    for width, grid, code in (
        (0.02, None, "ok"),
        (1e-3, None, "coarse"),
        (1e-300, None, "coarse"),
        (0.5, d, "ok"),
        (0.4, d, "coarse"),
    ):
        found = spectral_density(lambda v: d * v, size=10, rng=rng, width=width, grid=grid, steps=10, probes=2)
        assert found.status.code == code
        assert np.isfinite(found.density).all()


@pytest.mark.parametrize("exponent", [-700, 700])
def test_errors_scale_with_the_operator_where_squares_leave_the_range(exponent):
    A, _ = symmetric(np.random.default_rng(1), np.linspace(-1.0, 3.0, 12))
    one, other = (
        hessian_trace(lambda v, M=M: M @ v, size=12, rng=np.random.default_rng(0), probes=5) for M in (A, np.ldexp(A, exponent))
    )
    assert other.value == np.ldexp(one.value, exponent)
    assert other.standard_error == np.ldexp(one.standard_error, exponent)
    one, other = (
        spectral_density(lambda v, M=M: M @ v, size=12, rng=np.random.default_rng(0), probes=3)
        for M in (A, np.ldexp(A, exponent))
    )
    np.testing.assert_allclose(np.ldexp(other.density, exponent), one.density, rtol=1e-9, atol=1e-12)  # e^-12.5 at the ends
    np.testing.assert_allclose(np.ldexp(other.standard_error, exponent), one.standard_error, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [5e-324, 1.7e308])
def test_an_operator_at_the_ends_of_the_range_is_refused_with_its_size(scale):
    for call in (extreme_eigenvalues, hessian_trace, spectral_density):
        with pytest.raises(NumericalError, match=r"operator maps random unit vectors to norms of 10\^-?3\d\d; scale it"):
            call(lambda v: scale * v, size=1, rng=np.random.default_rng(0))
