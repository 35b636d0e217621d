"""Pseudospectra against decompositions at every point, and against the distances that are known for normal matrices."""

import importlib

import numpy as np
import pytest

from gradlab import inits
from gradlab.analysis.normality import kreiss_bound, numerical_range
from gradlab.analysis.pseudospectra import pseudospectrum, smallest_singular_values
from gradlab.errors import DTypeError, ResourceRefused, ShapeError, ValueRangeError


def direct(matrix, z):
    return np.linalg.svd(z[..., None, None] * np.eye(len(matrix)) - matrix, compute_uv=False)[..., -1]


def matrices(n):
    rng = np.random.default_rng(n)
    G = rng.normal(size=(n, n)) / np.sqrt(n)
    return {
        "Gaussian": G,
        "symmetric": G + G.T,
        "orthogonal": inits.orthogonal()(rng, (n, n)),
        "Jordan": 0.5 * np.eye(n) + 0.4 * np.eye(n, k=1),
        "complex": G + 1j * rng.normal(size=(n, n)) / np.sqrt(n),
        "clustered": 0.9 * np.eye(n),
    }


@pytest.mark.parametrize("kind", matrices(3))
@pytest.mark.parametrize("n", [3, 40])
def test_every_point_has_the_singular_value_that_a_decomposition_of_it_gives(n, kind):
    A = matrices(n)[kind]
    found = pseudospectrum(A, points=12)
    exact = direct(A, found.x + 1j * found.y[:, None])
    assert found.smallest.shape == (12, 12)
    # Inverse iteration is good to 1e-6 at the worst; a decomposition of its own has the rounding of the norm.
    np.testing.assert_allclose(found.smallest, np.maximum(exact, found.floor), rtol=1e-6, atol=100.0 * float(found.floor))


@pytest.mark.parametrize("n", [5, 50])
def test_of_a_normal_matrix_it_is_the_distance_to_the_nearest_eigenvalue(n):
    A = matrices(n)["orthogonal"]
    found = pseudospectrum(A, points=15)
    z = found.x + 1j * found.y[:, None]
    distance = np.abs(z[..., None] - np.linalg.eigvals(A)).min(axis=-1)
    np.testing.assert_allclose(found.smallest, distance, rtol=1e-6)
    np.testing.assert_allclose(np.abs(found.eigenvalues), 1.0, rtol=1e-13)


def test_a_nilpotent_block_of_2_has_the_closed_form_at_every_point():
    # zI - [[0, a], [0, 0]]: the product of the singular values is |z|^2, the sum of their squares 2 |z|^2 + a^2.
    a = 3.0
    found = pseudospectrum(np.array([[0.0, a], [0.0, 0.0]]), (-2.0, 2.0, -1.0, 1.0), 21)
    r2 = found.x**2 + found.y[:, None] ** 2
    larger = 0.5 * (a + np.sqrt(a * a + 4.0 * r2))
    np.testing.assert_allclose(found.smallest, np.maximum(r2 / larger, found.floor), rtol=1e-12, atol=1e-15)
    assert found.status.code == "rank-deficient"  # the point 0 is the eigenvalue
    assert found.smallest[10, 10] == found.floor


def test_below_the_rounding_of_the_matrix_nothing_is_claimed():
    # A Jordan block of 60: at z = 0.1 the smallest singular value is about 1e-60, far below what floats can hold of A.
    A = np.eye(60, k=1)
    found = pseudospectrum(A, (-1.5, 1.5, -1.5, 1.5), 25)
    assert (found.smallest >= found.floor).all()
    assert found.smallest[12, 12] == found.floor
    np.testing.assert_allclose(found.floor, np.finfo(float).eps * np.sqrt(59.0), rtol=1e-14)
    assert found.status.code == "rank-deficient"
    outside = np.abs(found.x + 1j * found.y[:, None]) > 1.2
    exact = direct(A, found.x + 1j * found.y[:, None])
    np.testing.assert_allclose(found.smallest[outside], exact[outside], rtol=1e-6)


def test_points_that_do_not_converge_are_decomposed_instead(monkeypatch):
    from scipy.linalg import schur

    A = matrices(40)["symmetric"]
    z = np.array([0.1 + 0.2j, -0.5j, 1.5 + 0.0j])
    monkeypatch.setattr(importlib.import_module("gradlab.analysis.pseudospectra"), "MOST", 2)
    found = smallest_singular_values(schur(A, output="complex")[0], z)
    np.testing.assert_allclose(found, direct(A, z), rtol=1e-11)


def test_several_matrices_share_a_grid_and_keep_their_axes():
    A = np.random.default_rng(2).normal(size=(2, 3, 4, 4))
    together = pseudospectrum(A, points=6)
    assert together.smallest.shape == (2, 3, 6, 6)
    assert together.eigenvalues.shape == (2, 3, 4)
    assert together.floor.shape == (2, 3)
    extent = (together.x[0], together.x[-1], together.y[0], together.y[-1])
    for index in np.ndindex(2, 3):
        single = pseudospectrum(A[index], extent, 6)
        np.testing.assert_array_equal(together.smallest[index], single.smallest)
        eigenvalues = np.linalg.eigvals(A[index])
        inside = (eigenvalues.real > extent[0]) & (eigenvalues.real < extent[1]) & (np.abs(eigenvalues.imag) < extent[3])
        assert inside.all()  # the default grid holds the numerical ranges


def test_tiny_and_huge_matrices_have_the_same_picture():
    A = matrices(20)["Gaussian"]
    reference = pseudospectrum(A, points=8)
    for exponent in (-900, 900):
        scaled = pseudospectrum(np.ldexp(A, exponent), points=8)
        np.testing.assert_allclose(np.ldexp(scaled.smallest, -exponent), reference.smallest, rtol=1e-6)
    zero = pseudospectrum(np.zeros((3, 3)), (-1.0, 1.0, -1.0, 1.0), 4)
    np.testing.assert_allclose(zero.smallest, np.abs(zero.x + 1j * zero.y[:, None]), rtol=1e-15)


def test_what_is_no_matrix_no_grid_or_too_large_is_refused():
    with pytest.raises(ShapeError, match=r"expected \(..., S, S\)"):
        pseudospectrum(np.zeros((2, 3)))
    with pytest.raises(ValueRangeError, match="1 non-finite values"):
        pseudospectrum(np.array([[np.nan]]))
    with pytest.raises(DTypeError, match=r"plain numpy\.ndarray"):
        pseudospectrum([[1.0]])
    with pytest.raises(ValueRangeError, match="left < right"):
        pseudospectrum(np.eye(2), (1.0, -1.0, 0.0, 1.0))
    with pytest.raises(ResourceRefused, match="1 grids of 5000 x 5000"):
        pseudospectrum(np.eye(2), points=5000, max_memory=10**6)


@pytest.mark.parametrize("S", [3, 20])
@pytest.mark.parametrize("scale", [1e-200, 1e-40, 0.0])
def test_far_from_a_small_matrix_it_is_the_distance_to_0(S, scale):
    A = scale * np.random.default_rng(0).normal(size=(S, S))
    found = pseudospectrum(A, (-1.0, 1.0, -1.0, 1.0), points=4)  # no point at 0
    np.testing.assert_allclose(found.smallest, np.abs(found.x + 1j * found.y[:, None]), rtol=1e-14)  # |z| +- norm(A)


@pytest.mark.parametrize("scale", [1.7e308, 5e-324])
def test_matrices_without_room_for_what_is_made_of_them_are_refused(scale):
    A = np.full((3, 3), scale)
    for call in (pseudospectrum, numerical_range, kreiss_bound):
        with pytest.raises(
            ValueRangeError, match=r"matrix has a norm of 10\^-?3\d\d\.\d; expected 1e-280 to 1e\+300, or 0; scale"
        ):
            call(A)


@pytest.mark.parametrize("extent", ["ab", (1.0, 2.0, 3.0), 7.0])
def test_an_extent_that_is_no_box_is_refused(extent):
    with pytest.raises(ShapeError, match=r"extent is .*; expected \(left, right, bottom, top\)"):
        pseudospectrum(np.eye(2), extent)
