"""Spectra of matrices that are known, that are not normal, and that LAPACK cannot do."""

import numpy as np
import pytest

from gradlab.analysis import jacobian_spectra


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
