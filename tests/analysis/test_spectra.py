"""Spectra of matrices that are known, that are not normal, and that LAPACK cannot do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradlab import inits
from gradlab.analysis import (
    fisher_memory,
    jacobian_product,
    jacobian_spectra,
    kreiss_bound,
    non_normality,
    pascanu_bounds,
    top_spectrum,
)
from gradlab.analysis.spectra import conditioning
from gradlab.errors import DTypeError, ShapeError, ValueRangeError


def test_known_eigenvalues_and_singular_values_come_in_descending_order():
    spectra = jacobian_spectra(np.diag([1.0, -3.0, 2.0]))
    np.testing.assert_array_equal(spectra.eigenvalues, [-3.0, 2.0, 1.0])
    np.testing.assert_array_equal(spectra.singular_values, [3.0, 2.0, 1.0])
    assert spectra.spectral_radius == 3.0
    assert spectra.status.ok


def test_a_rotation_has_complex_eigenvalues_of_modulus_one():
    angle = 0.7
    J = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    spectra = jacobian_spectra(J)
    # Modulus and angle to rounding of 2 x 2 algebra.
    np.testing.assert_allclose(np.sort_complex(spectra.eigenvalues), np.exp([-1j * angle, 1j * angle]), rtol=1e-14)
    np.testing.assert_allclose(spectra.singular_values, 1.0, rtol=1e-14)
    np.testing.assert_allclose(spectra.spectral_radius, 1.0, rtol=1e-14)


def test_a_non_normal_matrix_has_a_radius_of_0_9_and_a_norm_of_100():
    spectra = jacobian_spectra(np.array([[0.9, 100.0], [0.0, 0.9]]))
    np.testing.assert_allclose(spectra.spectral_radius, 0.9, rtol=1e-14)  # triangular: LAPACK reads the diagonal
    # s1 s2 = det = 0.81, s1^2 + s2^2 = 10001.62.
    largest = np.sqrt(0.5 * (10001.62 + np.sqrt(10001.62**2 - 4.0 * 0.81**2)))
    np.testing.assert_allclose(spectra.singular_values, [largest, 0.81 / largest], rtol=1e-12)  # condition 1e4
    assert largest > 100.0


def test_eigenvalues_of_a_companion_matrix_are_the_roots_of_its_polynomial():
    # (x - 1)(x - 2)(x - 3) = x^3 - 6 x^2 + 11 x - 6
    J = np.array([[6.0, -11.0, 6.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(jacobian_spectra(J).eigenvalues, [3.0, 2.0, 1.0], rtol=1e-12)  # roots of condition 100


def test_sums_of_spectra_are_trace_and_norm():
    J = np.random.default_rng(0).normal(size=(7, 5, 6, 6))
    spectra = jacobian_spectra(J)
    assert spectra.eigenvalues.shape == spectra.singular_values.shape == (7, 5, 6)
    assert spectra.spectral_radius.shape == (7, 5)
    # Backward-stable algorithms: rounding of the norm.
    np.testing.assert_allclose(spectra.eigenvalues.sum(axis=-1), np.trace(J, axis1=-2, axis2=-1), rtol=0, atol=1e-13)
    np.testing.assert_allclose((spectra.singular_values**2).sum(axis=-1), (J**2).sum(axis=(-2, -1)), rtol=1e-13)
    np.testing.assert_array_equal(spectra.spectral_radius, np.abs(spectra.eigenvalues).max(axis=-1))
    assert (np.diff(np.abs(spectra.eigenvalues), axis=-1) <= 0.0).all()
    assert (np.diff(spectra.singular_values, axis=-1) <= 0.0).all()
    assert (spectra.spectral_radius <= spectra.singular_values[..., 0] * (1.0 + 1e-14)).all()  # rounding


def test_zero_and_one_by_one_matrices_are_spectra_too():
    spectra = jacobian_spectra(np.zeros((2, 3, 3)))
    np.testing.assert_array_equal(spectra.eigenvalues, 0.0)
    np.testing.assert_array_equal(spectra.singular_values, 0.0)
    assert spectra.status.ok
    one = jacobian_spectra(np.array([[-2.5]]))
    assert one.eigenvalues[0] == -2.5
    assert one.singular_values[0] == one.spectral_radius == 2.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_matrix_that_is_not_finite_is_nan_and_counted_and_the_others_are_right(bad):
    J = np.tile(np.diag([2.0, 1.0]), (5, 1, 1))
    J[1, 0, 1] = J[3, 1, 1] = bad
    spectra = jacobian_spectra(J)
    for k in (1, 3):
        assert np.isnan(spectra.eigenvalues[k]).all()
        assert np.isnan(spectra.singular_values[k]).all()
        assert np.isnan(spectra.spectral_radius[k])
    for k in (0, 2, 4):
        np.testing.assert_array_equal(spectra.eigenvalues[k], [2.0, 1.0])
        np.testing.assert_array_equal(spectra.singular_values[k], [2.0, 1.0])
    assert str(spectra.status) == "overflow: 2 of 5 Jacobians are not finite, the first is 1"


def test_nothing_but_non_finite_matrices_is_no_crash():
    spectra = jacobian_spectra(np.full((3, 2, 2), np.nan))
    assert np.isnan(spectra.singular_values).all()
    assert spectra.status.code == "overflow"


def refusing(function, refuse):
    """`function`, raising LinAlgError for a stack and for each matrix for which `refuse` says so."""

    def wrapper(a, *args, **kwargs):
        if a.ndim > 2 or refuse(a):
            raise np.linalg.LinAlgError("planted")
        return function(a, *args, **kwargs)

    return wrapper


def test_one_matrix_that_does_not_converge_does_not_take_the_others_with_it(monkeypatch):
    J = np.stack([np.diag([3.0, 1.0]), np.diag([7.0, 1.0]), np.diag([5.0, 2.0])])
    monkeypatch.setattr(np.linalg, "eigvals", refusing(np.linalg.eigvals, lambda a: a[0, 0] == 7.0))
    spectra = jacobian_spectra(J)
    assert str(spectra.status) == "nonconverged: the factorisation of 1 of 3 Jacobians did not converge"
    assert np.isnan(spectra.spectral_radius[1])
    np.testing.assert_array_equal(spectra.spectral_radius[[0, 2]], [3.0, 5.0])
    np.testing.assert_array_equal(spectra.singular_values[[0, 2]], [[3.0, 1.0], [5.0, 2.0]])


def test_a_failing_svd_does_not_take_the_eigenvalues_with_it(monkeypatch):
    J = np.stack([np.diag([3.0, 1.0]), np.diag([7.0, 1.0])])
    monkeypatch.setattr(np.linalg, "svd", refusing(np.linalg.svd, lambda a: True))
    spectra = jacobian_spectra(J)
    np.testing.assert_array_equal(spectra.spectral_radius, [3.0, 7.0])
    # Another driver may still give the singular values; without them the status must say so.
    assert spectra.status.code == "nonconverged" or np.array_equal(spectra.singular_values, [[3.0, 1.0], [7.0, 1.0]])


def test_when_everything_fails_the_status_says_so(monkeypatch):
    for name in ("eigvals", "svd"):
        monkeypatch.setattr(np.linalg, name, refusing(getattr(np.linalg, name), lambda a: True))
    spectra = jacobian_spectra(np.ones((4, 2, 2)))
    assert spectra.status.code == "nonconverged"
    assert np.isnan(spectra.spectral_radius).all()


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_other_dtypes_give_the_same_spectrum(dtype):
    J = np.random.default_rng(1).normal(size=(3, 4, 4))
    one, other = jacobian_spectra(J.astype(dtype)), jacobian_spectra(J)
    tolerance = 1e-5 if dtype is np.float32 else 1e-12  # 100 roundings of the dtype
    np.testing.assert_allclose(one.singular_values, other.singular_values, rtol=tolerance)
    np.testing.assert_allclose(one.spectral_radius, other.spectral_radius, rtol=tolerance)


def test_matrices_at_the_ends_of_the_range_keep_their_spectrum():
    J = np.random.default_rng(2).normal(size=(4, 4))
    reference = jacobian_spectra(J)
    for exponent in (-1000, 1000):
        scaled = jacobian_spectra(np.ldexp(J, exponent))
        np.testing.assert_allclose(
            np.ldexp(scaled.singular_values, -exponent), reference.singular_values, rtol=1e-13
        )  # LAPACK scales
        np.testing.assert_allclose(np.ldexp(scaled.spectral_radius, -exponent), reference.spectral_radius, rtol=1e-13)


def test_jacobians_are_not_modified():
    J = np.random.default_rng(3).normal(size=(3, 4, 4))
    before = J.copy()
    jacobian_spectra(J)
    np.testing.assert_array_equal(J, before)


# ---- random matrices ------------------------------------------------------------------------------------------------


def test_a_large_gaussian_matrix_follows_the_circular_law_with_a_largest_singular_value_of_2():
    N = 500
    spectra = jacobian_spectra(np.random.default_rng(4).normal(size=(N, N)) / np.sqrt(N))
    # Girko 1984, Geman 1980; at N = 500 within 5 % of the limits.
    assert abs(spectra.spectral_radius - 1.0) < 0.05
    assert abs(spectra.singular_values[0] - 2.0) < 0.1
    assert abs((np.abs(spectra.eigenvalues) ** 2).mean() - 0.5) < 0.025  # uniform in the disc
    inside = (np.abs(spectra.eigenvalues) < np.sqrt(0.5)).mean()
    assert abs(inside - 0.5) < 0.05


def test_singular_values_of_a_rectangular_gaussian_matrix_have_the_edges_and_moments_of_marchenko_and_pastur():
    rows, columns = 2000, 1000
    y = columns / rows
    squares = np.linalg.svd(np.random.default_rng(5).normal(size=(rows, columns)) / np.sqrt(rows), compute_uv=False) ** 2
    found = conditioning(np.sqrt(squares))
    np.testing.assert_allclose(np.exp(found.log_mean_square), 1.0, rtol=0.01)  # moments fluctuate by 1/N
    np.testing.assert_allclose(found.isometry_spread, y, rtol=0.02)  # second moment 1 + y over the square of the first
    np.testing.assert_allclose((squares**3).mean(), 1.0 + 3.0 * y + y * y, rtol=0.02)
    # The largest follows Tracy & Widom's law (Johnstone 2001): mean -1.21 and spread 1.27 in these units.
    n, p = np.sqrt(rows - 1.0), np.sqrt(columns)
    unit = (n + p) * (1.0 / n + 1.0 / p) ** (1.0 / 3.0) / rows
    assert -5.5 < (squares.max() - (n + p) ** 2 / rows) / unit < 4.0
    assert abs(squares.max() - (1.0 + np.sqrt(y)) ** 2) < 0.06
    assert abs(squares.min() - (1.0 - np.sqrt(y)) ** 2) < 0.03
    edges = np.log((1.0 + np.sqrt(y)) / (1.0 - np.sqrt(y)))
    assert abs(found.log_condition - edges) < 0.05


def test_a_product_of_two_gaussians_has_the_moments_of_fuss_and_catalan():
    N = 400
    product = jacobian_product(np.random.default_rng(6).normal(size=(2, N, N)) / np.sqrt(N))
    spectra = jacobian_spectra(product.mantissa)
    found = conditioning(spectra.singular_values, product.exponent)
    squares = (spectra.singular_values * 2.0 ** float(product.exponent)) ** 2
    # Moments 1, 3, 12 and upper edge 27/4 in the limit; 5 % at N = 400.
    np.testing.assert_allclose(np.exp(found.log_mean_square), 1.0, rtol=0.05)
    np.testing.assert_allclose(1.0 + found.isometry_spread, 3.0, rtol=0.05)
    np.testing.assert_allclose((squares**3).mean(), 12.0, rtol=0.05)
    np.testing.assert_allclose(squares.max(), 6.75, rtol=0.05)


@pytest.mark.parametrize("factors", [1, 2, 4, 8])
def test_the_isometry_spread_of_gaussian_products_is_their_number_and_of_orthogonal_ones_0(factors):
    N = 300
    rng = np.random.default_rng(factors)
    product = jacobian_product(rng.normal(size=(factors, N, N)) / np.sqrt(N))
    singular = jacobian_spectra(product.mantissa).singular_values
    # Linear network at criticality: L (mu2/mu1^2 - 1 - s1) with s1 = -1 (Pennington, Schoenholz & Ganguli 2017); 15 % at N = 300.
    np.testing.assert_allclose(conditioning(singular, product.exponent).isometry_spread, factors, rtol=0.15)
    rigid = jacobian_product([3.0 * inits.orthogonal()(rng, (50, 50)) for _ in range(factors)])
    found = conditioning(jacobian_spectra(rigid.mantissa).singular_values, rigid.exponent)
    assert found.isometry_spread < 1e-25  # squares of roundings
    np.testing.assert_allclose(found.log_mean_square, 2.0 * factors * np.log(3.0), rtol=1e-13)


# ---- ranks and condition ------------------------------------------------------------------------------------------------


def test_ranks_and_condition_of_matrices_that_are_known():
    found = conditioning(np.array([[1.0, 1.0, 1.0, 1.0], [5.0, 0.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0], [4.0, 2.0, 1.0, 1.0]]))
    # Entropy of (1/2, 1/4, 1/8, 1/8) is 7/4 ln 2.
    np.testing.assert_allclose(found.effective_rank, [4.0, 1.0, 2.0, 2.0**1.75], rtol=1e-14)
    np.testing.assert_allclose(found.stable_rank, [4.0, 1.0, 2.0, 22.0 / 16.0], rtol=1e-14)
    np.testing.assert_allclose(found.log_condition, [0.0, np.inf, np.inf, np.log(4.0)], rtol=1e-14)
    np.testing.assert_allclose(found.log_mean_square, np.log([1.0, 6.25, 2.0, 5.5]), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(found.isometry_spread[:3], [0.0, 3.0, 1.0], rtol=1e-14)
    assert found.status.code == "rank-deficient"


@given(hnp.arrays(float, 5, elements=st.floats(0.0, 1e3)), st.floats(-300.0, 300.0))
def test_ranks_do_not_depend_on_scale_and_lie_between_1_and_the_size(values, decades):
    if values.max() == 0.0:
        return
    values = values / values.max()
    found, scaled = conditioning(values), conditioning(values * 10.0**decades)
    assert 1.0 - 1e-12 <= found.effective_rank <= 5.0 + 1e-12
    assert 1.0 - 1e-12 <= found.stable_rank <= 5.0 + 1e-12
    if values.min() * 10.0**decades > 1e-290:  # no digits lost to subnormal numbers
        for name in ("effective_rank", "stable_rank", "isometry_spread", "log_condition"):
            np.testing.assert_allclose(getattr(found, name), getattr(scaled, name), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            scaled.log_mean_square - found.log_mean_square, 2.0 * decades * np.log(10.0), rtol=1e-12, atol=1e-11
        )


def test_a_zero_matrix_has_rank_0_and_a_bad_one_is_nan_beside_good_ones():
    found = conditioning(np.array([[0.0, 0.0], [np.nan, 1.0], [2.0, 1.0]]))
    assert (found.effective_rank[0], found.stable_rank[0], found.log_condition[0]) == (0.0, 0.0, np.inf)
    assert found.log_mean_square[0] == -np.inf
    assert np.isnan([found.effective_rank[1], found.stable_rank[1], found.log_condition[1], found.isometry_spread[1]]).all()
    np.testing.assert_allclose(found.log_condition[2], np.log(2.0), rtol=1e-15)
    assert str(found.status) == "overflow: 1 of 3 matrices have singular values that are not finite"
    with pytest.raises(ValueRangeError, match="entries below 0"):
        conditioning(np.array([1.0, -1.0]))
    with pytest.raises(ShapeError, match="at least one value"):
        conditioning(np.zeros((3, 0)))


def test_a_spectrum_beyond_the_range_of_floats_is_told():
    J = np.stack([np.eye(3), np.full((3, 3), 1.7e308)])  # the eigenvalue of the second is 5.1e308
    spectra = jacobian_spectra(J)
    assert str(spectra.status).startswith("overflow: 1 of 2 Jacobians have spectra beyond the range of floats")
    np.testing.assert_array_equal(spectra.spectral_radius[0], 1.0)
    departure = non_normality(J)
    assert str(departure.status).startswith("overflow: 1 of 2 matrices have a departure or an abscissa beyond")
    np.testing.assert_array_equal(departure.departure[0], 0.0)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.array([[1, 2], [3, None]]), DTypeError),
        (np.eye(3, dtype=bool), DTypeError),
        (np.eye(3, dtype=np.longdouble), DTypeError),
        (np.zeros((0, 3, 3)), ShapeError),
        (np.zeros((2, 3)), ShapeError),
        ([[1.0]], DTypeError),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused_by_name_everywhere(value, error):
    calls = {
        "jacobians": jacobian_spectra,
        "matrices": non_normality,
        "matrix": kreiss_bound,
        "operator": lambda m: top_spectrum(m, 1, rng=np.random.default_rng(0)),
        "U": pascanu_bounds,
        "W": lambda m: fisher_memory(m, np.ones(3)),
    }
    for name, call in calls.items():
        with pytest.raises(error, match=f"{name} (has|is)"):
            call(value)


def test_half_precision_is_read_as_single():
    J = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float16)
    np.testing.assert_array_equal(jacobian_spectra(J).singular_values, jacobian_spectra(J.astype(np.float32)).singular_values)


@pytest.mark.parametrize("exponent", [np.zeros(3, int), "a", None])
def test_exponents_that_do_not_belong_to_the_matrices_are_refused(exponent):
    with pytest.raises(ShapeError, match=r"exponent is .*; expected a number, or one for each matrix, of shape \(2,\)"):
        conditioning(np.ones((2, 3)), exponent)
