"""Non-normality of matrices whose answers are known, and 0 for every normal one."""

import numpy as np
import pytest

from gradlab import inits
from gradlab.analysis.fisher import fisher_memory
from gradlab.analysis.normality import kreiss_bound, non_normality, numerical_range
from gradlab.analysis.products import jacobian_product
from gradlab.analysis.transient_growth import power_growth, product_growth
from gradlab.errors import NumericalError, ShapeError, ValueRangeError


def normal_matrices(rng, n=8):
    """One of each kind: orthogonal, symmetric, skew, rotation blocks, unitary diagonalised."""
    G = rng.normal(size=(n, n))
    Q = inits.orthogonal()(rng, (n, n))
    blocks = np.zeros((n, n))
    for k in range(0, n, 2):
        angle, size = rng.uniform(0.0, 6.0), rng.uniform(0.3, 0.95)
        blocks[k : k + 2, k : k + 2] = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.stack([Q, (G + G.T) / n, (G - G.T) / n, Q @ blocks @ Q.T, np.eye(n)])


NILPOTENT = np.array([[0.0, 1.0], [0.0, 0.0]])
JORDAN = np.array([[0.9, 5.0], [0.0, 0.9]])


# ---- Henrici ---------------------------------------------------------------------------------------------------


def test_normal_matrices_have_a_departure_of_0():
    found = non_normality(normal_matrices(np.random.default_rng(0)))
    assert (found.departure < 1e-13).all()  # the Schur factor carries rounding of norm 3 only
    assert (found.ratio < 1e-13).all()
    assert found.status.ok


def test_the_departure_of_a_triangle_is_the_norm_of_what_is_above_its_diagonal():
    T = np.triu(np.random.default_rng(1).normal(size=(6, 6)))
    T[np.diag_indices(6)] = np.arange(6.0)
    Q = inits.orthogonal()(np.random.default_rng(2), (6, 6))
    found = non_normality(np.stack([T, Q @ T @ Q.T]))
    np.testing.assert_allclose(found.departure, np.linalg.norm(np.triu(T, 1)), rtol=1e-12)  # invariant under rotation
    np.testing.assert_allclose(found.ratio * np.linalg.norm(T), found.departure, rtol=1e-12)


def test_the_ratio_of_a_large_gaussian_matrix_is_the_root_of_one_half():
    N = 400
    found = non_normality(np.random.default_rng(3).normal(size=(N, N)) / np.sqrt(N))
    np.testing.assert_allclose(found.ratio, np.sqrt(0.5), rtol=0.01)  # Ginibre limit, 1 % at N = 400
    np.testing.assert_allclose(found.numerical_abscissa, np.sqrt(2.0), rtol=0.03)  # a semicircle of variance 1/2


def test_departures_are_exact_at_the_ends_of_the_range_and_other_dtypes_give_the_same():
    A = np.random.default_rng(4).normal(size=(5, 5))
    found = non_normality(A)
    for exponent in (-900, 900):
        scaled = non_normality(np.ldexp(A, exponent))
        np.testing.assert_allclose(np.ldexp(scaled.departure, -exponent), found.departure, rtol=1e-13)
        np.testing.assert_allclose(np.ldexp(scaled.numerical_abscissa, -exponent), found.numerical_abscissa, rtol=1e-13)
    np.testing.assert_allclose(non_normality(A.astype(np.float32)).departure, found.departure, rtol=1e-6)
    np.testing.assert_allclose(non_normality(1j * A).departure, found.departure, rtol=1e-12)


def test_a_matrix_that_is_not_finite_is_nan_beside_good_ones():
    A = np.stack([NILPOTENT, np.full((2, 2), np.inf), np.zeros((2, 2))]).reshape(3, 1, 2, 2)
    found = non_normality(A)
    np.testing.assert_allclose(found.departure[:, 0], [1.0, np.nan, 0.0])
    np.testing.assert_allclose(found.ratio[:, 0], [1.0, np.nan, 0.0])
    np.testing.assert_allclose(found.numerical_abscissa[:, 0], [0.5, np.nan, 0.0])
    assert str(found.status) == "overflow: 1 of 3 matrices are not finite, the first is 1"
    with pytest.raises(ShapeError, match="at least one"):
        non_normality(np.zeros((0, 2, 2)))


# ---- numerical range ----------------------------------------------------------------------------------------------------


def test_the_numerical_range_of_a_normal_matrix_is_no_larger_than_its_eigenvalues():
    matrices = normal_matrices(np.random.default_rng(5))
    found = numerical_range(matrices)
    radius = np.abs(np.linalg.eigvals(matrices)).max(axis=-1)
    np.testing.assert_allclose(found.radius, radius, rtol=1e-12)  # a convex hull of eigenvalues
    assert (found.upper >= found.radius).all()
    assert (found.upper <= radius / np.cos(np.pi / 64) * (1.0 + 1e-12)).all()


@pytest.mark.parametrize("n", [2, 5, 20])
def test_the_numerical_radius_of_a_shift_is_the_cosine_of_pi_over_n_plus_1(n):
    found = numerical_range(np.eye(n, k=1))
    np.testing.assert_allclose(found.radius, np.cos(np.pi / (n + 1)), rtol=1e-13)  # Haagerup & de la Harpe 1992
    np.testing.assert_allclose(np.abs(found.boundary), found.radius, rtol=1e-12)  # a disc
    np.testing.assert_allclose(found.abscissa, found.radius, rtol=1e-12)


def test_the_radius_is_found_between_the_angles_of_the_grid():
    # Normal with one far eigenvalue at an angle that no grid of 8 hits: the radius is its modulus.
    z = 2.0 * np.exp(0.4j)
    found = numerical_range(np.diag([z, 0.1, -0.2j]), angles=8)
    np.testing.assert_allclose(found.radius, 2.0, rtol=1e-13)
    assert found.upper >= 2.0
    assert abs(found.boundary).max() <= 2.0 + 1e-12


def test_powers_stay_below_twice_the_numerical_radius_to_the_power():
    A = np.random.default_rng(6).normal(size=(10, 6, 6)) / np.sqrt(6)
    w = numerical_range(A).radius
    growth = power_growth(A, 12).log_norm
    assert (growth <= np.log(2.0) + np.arange(13)[:, None] * np.log(w) + 1e-12).all()  # Berger 1965


# ---- Kreiss constant -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "constant"), [(2.0, 1.0), (2.5, 1.025), (10.0, 2.6), (100.0, 25.01), (1e4, 2500.0001)])
def test_the_kreiss_constant_of_the_nilpotent_matrix_is_a_quarter_a_plus_1_over_a(a, constant):
    found = kreiss_bound(a * NILPOTENT)
    np.testing.assert_allclose(found.value, constant, rtol=1e-7)
    assert found.value <= constant * (1.0 + 1e-12)  # a lower bound, with rounding
    if a > 2.0:  # the place it names has the value it names
        direct = (abs(found.where) - 1.0) / np.linalg.svd(found.where * np.eye(2) - a * NILPOTENT, compute_uv=False)[-1]
        np.testing.assert_allclose(found.value, direct, rtol=1e-7)


@pytest.mark.parametrize("a", [0.0, 1.0, 2.0])
def test_it_is_1_where_no_power_grows(a):
    assert kreiss_bound(a / 2.0 * NILPOTENT).value == 1.0
    matrices = normal_matrices(np.random.default_rng(7))
    scaled = 0.99 * matrices / np.maximum(np.abs(np.linalg.eigvals(matrices)).max(axis=-1), 1.0)[:, None, None]
    assert (kreiss_bound(scaled).value == 1.0).all()


def test_an_orthogonal_matrix_on_the_circle_has_1_and_one_outside_of_it_infinity():
    Q = inits.orthogonal()(np.random.default_rng(8), (20, 20))
    found = kreiss_bound(np.stack([Q, 1.01 * Q]))
    np.testing.assert_array_equal(found.value, [1.0, np.inf])
    assert np.isnan(found.where).all()


@pytest.mark.parametrize("n", [6, 30])
def test_powers_reach_the_kreiss_bound(n):
    # Kreiss 1962, Spijker 1991: K <= sup |A^k| <= e n K; what was found is at most K.
    rng = np.random.default_rng(n)
    for gain in (0.7, 0.9):
        Q = inits.orthogonal()(rng, (n, n))
        A = Q @ (np.diag(rng.uniform(-gain, gain, n)) + np.triu(0.7 * rng.normal(size=(n, n)), 1)) @ Q.T
        found = kreiss_bound(A)
        peak = np.exp(power_growth(A, 300).log_peak)
        assert 1.0 <= found.value <= peak * (1.0 + 1e-9)
        assert peak <= np.e * n * found.value
        z = found.where
        direct = (abs(z) - 1.0) / np.linalg.svd(z * np.eye(n) - A, compute_uv=False)[-1]
        np.testing.assert_allclose(found.value, direct, rtol=1e-6)  # lowered by the rounding that K = 4e4 amplifies


def test_a_complex_matrix_and_its_conjugate_have_the_same_constant():
    A = 0.9 * np.eye(3, dtype=complex) * np.exp(0.5j) + np.triu(np.random.default_rng(9).normal(size=(3, 3)), 1)
    values = kreiss_bound(np.stack([A, A.conj()])).value
    np.testing.assert_allclose(values[0], values[1], rtol=1e-8)
    assert values[0] > 1.5


# ---- transient growth ----------------------------------------------------------------------------------------------------


def test_the_jordan_block_peaks_at_19_379_in_step_9_and_is_below_1_from_step_55():
    found = power_growth(JORDAN, 400)
    np.testing.assert_allclose(np.exp(found.log_peak), 19.379, rtol=1e-4)  # the digits of the table
    assert (found.peak_step, found.below_one) == (9, 55)
    assert found.status.ok
    # J^t = [[.9^t, 5 t .9^(t-1)], [0, .9^t]]: its largest singular value in closed form.
    t = np.arange(1, 401)
    d, u = 0.9**t, 5.0 * t * 0.9 ** (t - 1)
    exact = np.log(0.5 * (np.hypot(u, 2.0 * d) + u))
    np.testing.assert_allclose(found.log_norm[1:], exact, rtol=1e-11, atol=1e-12)  # 400 products


def test_growth_is_exact_far_beyond_the_range_of_floats():
    found = power_growth(np.stack([1e-3 * np.eye(2), 1e3 * np.eye(2)]), 500)
    np.testing.assert_allclose(found.log_norm[-1], [-500.0 * np.log(1e3), 500.0 * np.log(1e3)], rtol=1e-13)
    np.testing.assert_array_equal(found.below_one, [1.0, np.inf])
    np.testing.assert_array_equal(found.peak_step, [0, 500])
    assert str(found.status) == "beyond-range: 1 of 2 products are at their largest at the last step"
    assert power_growth(NILPOTENT, 3).log_norm.tolist() == [0.0, 0.0, -np.inf, -np.inf]


def test_products_of_different_jacobians_grow_like_their_product_at_every_step():
    J = np.random.default_rng(10).normal(size=(40, 3, 4, 4))
    found = product_growth(iter(J))
    for t in (1, 7, 40):
        np.testing.assert_allclose(found.log_norm[t], jacobian_product(J[:t]).log_largest, rtol=1e-12, atol=1e-12)
    assert (found.log_norm[0] == 0.0).all()
    np.testing.assert_array_equal(found.peak_step, found.log_norm.argmax(axis=0))
    J[5, 1, 0, 0] = np.inf
    bad = product_growth(J)
    assert str(bad.status) == "overflow: the product is not finite from step 6 on"
    np.testing.assert_array_equal(bad.log_norm[:, 2], found.log_norm[:, 2])


def test_no_factors_and_no_steps_are_refused():
    with pytest.raises(ShapeError, match="empty"):
        product_growth([])
    with pytest.raises(ValueRangeError, match="steps is 0"):
        power_growth(JORDAN, 0)


# ---- Fisher memory ----------------------------------------------------------------------------------------------------


def test_every_normal_network_remembers_a_total_of_1():
    rng = np.random.default_rng(11)
    matrices = normal_matrices(rng)
    W = 0.95 * matrices / np.abs(np.linalg.eigvals(matrices)).max(axis=-1)[:, None, None]
    found = fisher_memory(W, rng.normal(size=8), lags=800)
    np.testing.assert_allclose(found.total, 1.0, rtol=1e-10)  # Ganguli, Huh & Sompolinsky 2008
    np.testing.assert_allclose(found.curve.sum(axis=0), 1.0, rtol=1e-10)  # 0.95^1600 is nothing
    assert found.status.ok


def test_the_memory_of_an_orthogonal_network_decays_by_its_gain():
    Q = 0.9 * inits.orthogonal()(np.random.default_rng(12), (5, 5))
    found = fisher_memory(Q, np.ones(5), lags=30)
    # C = I/(1 - g^2), so J(k) = (1 - g^2) g^(2k).
    np.testing.assert_allclose(found.curve, 0.19 * 0.81 ** np.arange(31), rtol=1e-12)


def test_a_delay_line_with_gain_remembers_more_than_any_normal_network():
    n, gain = 10, 1.5
    W = gain * np.eye(n, k=-1)
    found = fisher_memory(W, np.eye(n)[0], lags=n)
    # W^k e_0 = gain^k e_k; C = diag(1 + gain^2 + ... + gain^(2j)).
    exact = gain ** (2.0 * np.arange(n)) / np.cumsum(gain ** (2.0 * np.arange(n)))
    np.testing.assert_allclose(found.curve[:n], exact, rtol=1e-12)
    assert found.curve[n] == 0.0
    np.testing.assert_allclose(found.total, exact.sum(), rtol=1e-12)
    assert 1.0 < found.total <= n


def test_a_network_without_a_stationary_state_or_an_input_is_refused():
    with pytest.raises(ValueRangeError, match="spectral radius 1"):
        fisher_memory(np.eye(3), np.ones(3))
    with pytest.raises(ValueRangeError, match="v is 0"):
        fisher_memory(0.5 * np.eye(3), np.zeros(3))
    with pytest.raises(ShapeError, match="v has shape"):
        fisher_memory(0.5 * np.eye(3), np.ones(2))
    with pytest.raises(NumericalError, match="beyond the range"):
        fisher_memory(1e200 * np.eye(3, k=1), np.ones(3))
    assert fisher_memory(1e9 * np.eye(3, k=1), np.ones(3)).status.code == "rank-deficient"


def test_the_kreiss_constant_of_an_unstable_matrix_is_infinite_and_told():
    found = kreiss_bound(np.stack([np.diag([0.5, 1.1]), np.diag([0.5, 0.9])]))
    np.testing.assert_array_equal(found.value, [np.inf, 1.0])
    assert str(found.status).startswith("beyond-range: 1 of 2 matrices have an eigenvalue outside of the unit circle")


def test_the_upper_end_holds_a_radius_that_the_search_misses():
    # The vertex at angle pi/8 sticks out so little that no direction of the grid of 8 points to it, nor that of the vertex found.
    vertices = np.array([1.0, 1.005 * np.exp(1j * np.pi / 8.0), np.exp(1j * np.pi / 4.0)])
    found = numerical_range(np.diag(np.concatenate([vertices, -vertices, -vertices[::-1] * 1j])), angles=8)
    np.testing.assert_allclose(found.radius, 1.0, rtol=1e-12)
    assert 1.005 <= found.upper <= 1.0 / np.cos(np.pi / 8.0) * (1.0 + 1e-12)
    assert numerical_range(np.diag(vertices), angles=64).radius > 1.005 - 1e-12
