"""Laws of random matrices, bounds on gradients and mean-field theory, against closed forms, samples and published values."""

import numpy as np
import pytest

from gradlab import inits
from gradlab.analysis.mean_field_theory import critical_line, gaussian_mean, mean_field, random_tanh_map
from gradlab.analysis.theory import (
    circular_law,
    fuss_catalan,
    gaussian_product_exponents,
    hochreiter_bound,
    marchenko_pastur,
    pascanu_bounds,
)
from gradlab.cells import activations
from gradlab.errors import DTypeError, GradlabError, ShapeError, ValueRangeError


def rng(seed=0):
    return np.random.default_rng(seed)


# ---- random matrices -------------------------------------------------------------------------------------------


def test_the_circular_law_describes_a_large_gaussian_matrix():
    law = circular_law(1.5)
    values = np.linalg.eigvals(inits.gaussian(1.5)(rng(1), (400, 400)))
    # The radius of a finite matrix is 1 + 0.02 and scatters by 0.03 (Rider 2003), both of them upwards.
    assert -0.03 < np.abs(values).max() / law.edge - 1.0 < 0.12
    for radius in (0.3, 0.75, 1.2):
        # Ginibre eigenvalues repel: their number in a disc scatters by less than 1 % of N.
        assert abs((np.abs(values) < radius).mean() - law.share_within(radius)) < 0.02
    grid = np.linspace(-2.0, 2.0, 801)
    density = law.density(grid + 1j * grid[:, None])
    np.testing.assert_allclose(density.sum() * 0.005**2, 1.0, rtol=1e-3)  # the circle on a grid of 0.005
    np.testing.assert_allclose(density.max(), 1.0 / (np.pi * 2.25), rtol=1e-14)
    assert law.share_within(1.5) == law.share_within(9.0) == 1.0


@pytest.mark.parametrize("variance", [1.0, 2.5])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 2.0])
def test_the_marchenko_pastur_density_has_the_moments_of_the_law(ratio, variance):
    law = marchenko_pastur(ratio, variance)
    assert law.low == pytest.approx(variance * (1.0 - np.sqrt(ratio)) ** 2, abs=1e-14)
    assert law.high == pytest.approx(variance * (1.0 + np.sqrt(ratio)) ** 2)
    # x = low + (high - low) sin^2 theta: the integrand is analytic and periodic, so midpoints converge exponentially.
    theta = (np.arange(4000) + 0.5) * np.pi / 8000
    x = law.low + (law.high - law.low) * np.sin(theta) ** 2
    weight = (law.high - law.low) * np.sin(2.0 * theta) * np.pi / 8000
    np.testing.assert_allclose((law.density(x) * weight).sum(), 1.0 - law.atom, rtol=1e-10)
    for n in range(1, 6):
        np.testing.assert_allclose((law.density(x) * x**n * weight).sum(), law.moment(n), rtol=1e-10)
    np.testing.assert_array_equal(law.density(np.array([law.low - 0.1, law.high + 0.1])), 0.0)


def test_marchenko_pastur_moments_and_edges_are_the_known_ones():
    for y in (0.5, 1.7):
        law = marchenko_pastur(y)
        np.testing.assert_allclose([law.moment(n) for n in (1, 2, 3)], [1.0, 1.0 + y, 1.0 + 3.0 * y + y * y], rtol=1e-14)
    assert marchenko_pastur(1.7).atom == pytest.approx(1.0 - 1.0 / 1.7)
    square = marchenko_pastur(1.0, 9.0)
    assert (square.low, np.sqrt(square.high)) == (0.0, 6.0)  # smax of gain 3 is 2 g
    assert square.density(np.array([0.0]))[0] == np.inf
    X = rng(2).normal(size=(1000, 500))
    values = np.linalg.eigvalsh(X.T @ X / 1000)
    law = marchenko_pastur(0.5)
    np.testing.assert_allclose([values.min(), values.max()], [law.low, law.high], rtol=0, atol=0.1)  # Tracy-Widom: -0.03 (0.03)
    np.testing.assert_allclose((values**3).mean(), law.moment(3), rtol=0.01)  # linear statistics scatter by 1/N


def test_products_of_two_gaussians_reach_six_and_three_quarters():
    law = fuss_catalan(2)
    assert law.edge == pytest.approx(27.0 / 4.0, rel=1e-15)
    assert [law.moment(n) for n in (1, 2, 3)] == [1.0, 3.0, 12.0]
    assert fuss_catalan(1).edge == marchenko_pastur(1.0).high == 4.0
    assert [fuss_catalan(1).moment(n) for n in range(1, 5)] == [1.0, 2.0, 5.0, 14.0]  # Catalan numbers
    assert fuss_catalan(1).moment(3) == marchenko_pastur(1.0).moment(3)
    draw = inits.gaussian()
    squares = np.linalg.svd(draw(rng(3), (300, 300)) @ draw(rng(4), (300, 300)), compute_uv=False) ** 2
    np.testing.assert_allclose([squares.mean(), (squares**2).mean()], [1.0, 3.0], rtol=0.05)  # 400: 1.005, 3.04
    assert 6.2 < squares.max() < 7.0


def test_gaussian_products_have_the_exponents_of_newman():
    np.testing.assert_allclose(gaussian_product_exponents(2), [-0.288608, -0.981755], rtol=0, atol=1e-6)
    np.testing.assert_allclose(gaussian_product_exponents(1), [-0.5 * (np.euler_gamma + np.log(2.0))], rtol=1e-14)  # E ln |z|
    large = gaussian_product_exponents(2000, 3.0)
    np.testing.assert_allclose(large.mean(), np.log(3.0) - 0.5, rtol=0, atol=2e-3)  # up to ln N/N
    # exp of the spectrum becomes triangular: lambda(x) = ln g + ln(1 - x)/2
    x = (np.arange(2000) + 0.5) / 2000
    np.testing.assert_allclose(large[:1800], np.log(3.0) + 0.5 * np.log1p(-x[:1800]), rtol=0, atol=3e-3)


# ---- bounds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_no_network_below_the_bound_of_pascanu_lets_a_gradient_grow(activation):
    draw, chosen = rng(5), activations.ALL[activation]
    U = draw.normal(size=(60, 6, 6)) * draw.uniform(0.05, 1.0, (60, 1, 1)) / chosen.max_slope
    bounds = pascanu_bounds(U, activation)
    np.testing.assert_allclose(bounds.size, np.linalg.svd(U)[1][:, 0], rtol=1e-13)
    np.testing.assert_allclose(bounds.limit, {"sigmoid": 4.0}.get(activation, 1.0))
    assert 5 < bounds.vanishes.sum() < 55
    np.testing.assert_array_equal(bounds.vanishes, ~bounds.may_explode)
    product, h, vanished = np.broadcast_to(np.eye(6), U.shape), draw.normal(size=(60, 6, 1)), 0
    for t in range(1, 41):
        a = U @ h
        h, slope = np.empty_like(a), np.empty_like(a)
        chosen.value_and_slope(a, h, slope)
        product = slope * U @ product
        norm = np.linalg.norm(product, 2, axis=(-2, -1))
        assert (norm <= np.exp(t * bounds.rate) * (1.0 + 1e-12)).all()  # at every step, for every network
        vanished = norm < 1e-3
    assert (vanished & bounds.may_explode).any()  # exceeding the bound is not sufficient for exploding


def test_a_linear_network_is_judged_by_its_spectral_radius():
    U = np.array([[0.9, 100.0], [0.0, 0.9]])
    linear, tanh = pascanu_bounds(U, "linear"), pascanu_bounds(U)
    assert linear.size == pytest.approx(0.9)
    assert linear.vanishes
    assert not linear.may_explode
    assert tanh.may_explode  # one step can multiply by 100
    edge = pascanu_bounds(np.eye(3))
    assert not edge.vanishes
    assert not edge.may_explode
    assert edge.rate == 0.0
    assert pascanu_bounds(np.zeros((2, 2))).rate == -np.inf


def test_the_error_flow_stays_below_the_bound_of_hochreiter_and_schmidhuber():
    draw, n, lags = rng(6), 5, np.arange(1, 31)
    U = draw.uniform(-1.0, 1.0, (40, n, n)) * draw.uniform(0.1, 1.6, (40, 1, 1))
    bound = hochreiter_bound(U, lags)
    np.testing.assert_allclose(bound.tau, n * np.abs(U).max(axis=(1, 2)) / 4.0, rtol=1e-14)
    np.testing.assert_array_equal(bound.vanishes, np.abs(U).max(axis=(1, 2)) < 4.0 / n)
    assert 5 < bound.vanishes.sum() < 40
    np.testing.assert_allclose(np.exp(bound.log_bound[:, 2]), n * bound.tau**3, rtol=1e-13)
    flow = np.broadcast_to(np.eye(n), U.shape)
    for k in range(len(lags)):
        a = draw.normal(size=(40, n, 1))
        slope = 1.0 / (2.0 + np.exp(a) + np.exp(-a))
        flow = slope * U @ flow
        largest = np.log(np.abs(flow).max(axis=(1, 2)))
        assert (largest <= bound.log_bound[:, k] - 2.0 * np.log(n) + 1e-12).all()  # even tau^q/n, by counting paths
    all_equal = np.full((n, n), 0.5)  # for which that is attained, at zero pre-activation
    attained = np.log(np.linalg.matrix_power(0.25 * all_equal, 7)[0, 0])
    np.testing.assert_allclose(attained, hochreiter_bound(all_equal, np.array([7])).log_bound[0] - 2.0 * np.log(n), rtol=1e-13)


# ---- mean field ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [0.0, 1e-8, 0.3, 7.0, 1e3, 1e6])
def test_gaussian_means_are_accurate_however_steep_the_function(q):
    sech2 = gaussian_mean(lambda a: 1.0 / np.cosh(np.minimum(np.abs(a), 300.0)) ** 2, q)
    tanh2 = gaussian_mean(lambda a: np.tanh(a) ** 2, q)
    np.testing.assert_allclose(sech2 + tanh2, 1.0, rtol=1e-13)  # a constant integrates to 1
    # E[z f(z)] = E[f'(z)] (Stein): with a = sqrt(q) z, E[a tanh a] = q E[sech^2 a].
    np.testing.assert_allclose(gaussian_mean(lambda a: a * np.tanh(a), q), q * sech2, rtol=1e-12)
    np.testing.assert_allclose(gaussian_mean(lambda a: a**4, q), 3.0 * q * q, rtol=1e-12)
    relu = gaussian_mean(lambda a: np.maximum(a, 0.0) ** 2, q, kinks=(0.0,))
    np.testing.assert_allclose(relu, 0.5 * q, rtol=1e-12)


def test_gaussian_means_agree_with_adaptive_quadrature():
    from scipy.integrate import quad

    for q in (0.05, 50.0):
        for f in (lambda a: np.tanh(a) ** 2, lambda a: np.cosh(a) ** -4.0):

            def integrand(z, f=f, q=q):
                return f(np.sqrt(q) * z) * np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)

            pieces = [quad(integrand, a, b, epsabs=0.0, epsrel=1e-11)[0] for a, b in ((0.0, 0.3), (0.3, 2.0), (2.0, 9.0))]
            np.testing.assert_allclose(gaussian_mean(f, q), 2.0 * sum(pieces), rtol=1e-10)


def test_the_fixed_point_solves_its_equation_on_a_whole_grid():
    sw, sb = np.linspace(0.2, 4.0, 9)[:, None], np.array([0.0, 0.05, 2.0])
    for activation in ("tanh", "sigmoid", "hard_tanh"):
        found = mean_field(sw, sb, activation)
        chosen = activations.ALL[activation]
        kinks = (-1.0, 1.0) if activation == "hard_tanh" else ()
        mapped = sw * gaussian_mean(lambda a, f=chosen: f.value(a) ** 2, found.variance, kinks) + sb
        np.testing.assert_allclose(found.variance, mapped, rtol=1e-11, atol=1e-28)  # critical points flatten the root
        assert found.status.ok
    tanh = mean_field(sw, sb)
    np.testing.assert_array_equal(tanh.variance[:2, 0], 0.0)  # below weight variance 1 the origin attracts
    assert (tanh.variance[3:, 0] > 0.0).all()
    np.testing.assert_allclose(tanh.chi[:2, 0], sw[:2, 0], rtol=1e-14)
    np.testing.assert_allclose(tanh.depth_scale, -1.0 / np.log(tanh.chi), rtol=1e-14)
    assert (np.sign(tanh.depth_scale) == np.sign(1.0 - tanh.chi)).all()


def test_relu_and_linear_networks_have_closed_forms():
    sw = np.array([0.5, 1.0, 1.5, 2.0, 2.5])
    relu = mean_field(sw, 0.1, "relu")
    np.testing.assert_allclose(relu.variance[:3], 0.1 / (1.0 - sw[:3] / 2.0), rtol=1e-12)
    np.testing.assert_array_equal(relu.variance[3:], np.inf)
    np.testing.assert_allclose(relu.chi, sw / 2.0, rtol=1e-13)
    assert relu.status.code == "beyond-range"
    assert "2 of 5" in relu.status.detail
    np.testing.assert_allclose(mean_field(0.5, 0.1, "linear").variance, 0.2, rtol=1e-12)
    np.testing.assert_allclose(critical_line(0.0, "relu").weight_variance, 2.0, rtol=1e-13)  # He et al. 2015
    none = critical_line(np.array([0.0, 0.1]), "relu")
    assert np.isnan(none.weight_variance[1])
    assert none.status.code == "nonconverged"


def test_the_critical_line_of_tanh_passes_through_the_known_points():
    line = critical_line(np.array([0.0, 0.05, 1.0]))
    np.testing.assert_allclose(line.weight_variance[:2], [1.0, 1.760955], rtol=0, atol=1e-6)
    np.testing.assert_allclose(line.variance[:2], [0.0, 0.570048], rtol=0, atol=1e-6)
    back = mean_field(line.weight_variance[1:], line.bias_variance[1:])
    np.testing.assert_allclose(back.chi, 1.0, rtol=0, atol=1e-11)
    np.testing.assert_allclose(back.variance, line.variance[1:], rtol=1e-10)
    steps = np.array([0.99, 1.01])
    assert (np.sign(mean_field(line.weight_variance[1] * steps, 0.05).chi - 1.0) == [-1.0, 1.0]).all()


def test_wide_random_layers_have_the_variance_and_chi_of_theory():
    draw, N, sw, sb = rng(7), 1000, 2.0, 0.1
    theory, h = mean_field(sw, sb), draw.normal(size=N)
    chi = []
    for _ in range(12):  # new weights in every layer
        a = draw.normal(0.0, np.sqrt(sw / N), (N, N)) @ h + draw.normal(0.0, np.sqrt(sb), N)
        h = np.tanh(a)
        chi.append(sw * np.mean((1.0 - h**2) ** 2))
    # Averages over N units scatter by 1/sqrt(N) = 3 %, over the last six layers by half of it.
    np.testing.assert_allclose(np.mean(chi[6:]), theory.chi, rtol=0.05)


# ---- the random map ---------------------------------------------------------------------------------------------------


def test_the_random_tanh_map_has_the_values_of_its_theory():
    found = random_tanh_map(np.array([1.2, 1.5, 3.0]))
    # Solved independently by scipy's brentq and quad.
    np.testing.assert_allclose(found.variance, [0.249513, 0.793354, 6.305391], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.largest, [0.016476, 0.065217, 0.310249], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.mean[1:], [-0.714346, -2.272805], rtol=0, atol=1e-6)
    below = random_tanh_map(0.7)  # the origin attracts: the eigenvalues of J, by the circular law
    np.testing.assert_allclose([below.variance, below.largest], [0.0, np.log(0.7)], rtol=1e-13)
    np.testing.assert_allclose(below.mean, np.log(0.7) - 0.5, rtol=1e-13)  # E ln|z| in the unit disc is -1/2
    # In steep saturation E[sech^4] tends to 4/(3 sqrt(2 pi Delta)), Delta to g^2.
    steep = random_tanh_map(1e4)
    np.testing.assert_allclose(steep.largest, 0.5 * np.log(1e4 * 4.0 / 3.0 / np.sqrt(2.0 * np.pi)), rtol=1e-4)  # 1/g


def test_the_spectrum_of_the_map_has_its_ends_and_its_mean():
    found = random_tanh_map(np.array([0.8, 1.5, 3.0]))
    x = (np.arange(500) + 0.5) / 500
    spectrum = found.spectrum(x)
    assert spectrum.shape == (3, 500)
    np.testing.assert_allclose(spectrum[0], np.log(0.8) + 0.5 * np.log1p(-x), rtol=1e-10)  # eigenvalues of J: uniform on a disc
    np.testing.assert_allclose(found.spectrum(1e-9)[:, 0], found.largest, rtol=0, atol=1e-7)
    assert (np.diff(spectrum, axis=-1) < 0.0).all()
    # The midpoint rule on a logarithmic end, -ln(1 - x): (ln 2)/2 of one cell, 1/500, and more where d is steep.
    np.testing.assert_allclose(spectrum.mean(axis=-1), found.mean, rtol=0, atol=3e-3)


def test_noise_reduces_chaos():
    inputs = np.array([0.0, 0.25, 2.0])
    found = random_tanh_map(2.0, inputs)
    np.testing.assert_allclose(
        found.variance, 4.0 * gaussian_mean(lambda a: np.tanh(a) ** 2, found.variance) + inputs, rtol=1e-12
    )
    assert (np.diff(found.largest) < 0.0).all()
    # One network of 400 units, driven: the variance of its pre-activations is that of theory.
    draw, N = rng(8), 400
    J, h, seen = inits.gaussian(2.0)(draw, (N, N)), draw.normal(size=N), []
    for t in range(200):
        a = J @ h + draw.normal(0.0, np.sqrt(2.0), N)
        h = np.tanh(a)
        seen.append((np.mean(a**2), 0.5 * np.log(4.0 * np.mean((1.0 - h**2) ** 2)))) if t > 50 else None
    variance, largest = np.mean(seen, axis=0)
    np.testing.assert_allclose(variance, found.variance[2], rtol=0.03)  # 1/sqrt(400) for the one matrix
    np.testing.assert_allclose(largest, found.largest[2], rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: circular_law(0.0), ValueRangeError, "gain is 0"),
        (lambda: marchenko_pastur(-1.0), ValueRangeError, "ratio is -1"),
        (lambda: marchenko_pastur(1.0).moment(0), ValueRangeError, "n is 0"),
        (lambda: fuss_catalan(0), ValueRangeError, "factors is 0"),
        (lambda: gaussian_product_exponents(1.5), DTypeError, "size is 1.5"),
        (lambda: pascanu_bounds(np.ones((2, 3))), ShapeError, r"U has shape \(2, 3\)"),
        (lambda: pascanu_bounds(np.full((2, 2), np.nan)), ValueRangeError, "U has 4 non-finite"),
        (lambda: pascanu_bounds(np.eye(2), "gelu"), ValueRangeError, "activation is 'gelu'"),
        (lambda: hochreiter_bound(np.eye(2), np.array([0])), ValueRangeError, "lags is"),
        (lambda: mean_field(-1.0), ValueRangeError, "weight_variance is -1"),
        (lambda: mean_field(1.0, np.inf), ValueRangeError, "bias_variance is inf"),
        (lambda: random_tanh_map(0.0), ValueRangeError, "gain is 0"),
        (lambda: random_tanh_map(2.0).spectrum(1.0), ValueRangeError, "fraction is 1"),
        (lambda: mean_field("x"), DTypeError, "weight_variance"),
        (lambda: mean_field(1e300), ValueRangeError, r"weight_variance is 1e\+300; expected .* at most 1e\+12"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call()
    assert isinstance(caught.value, GradlabError)


def test_the_bound_of_a_matrix_whose_norm_is_beyond_the_range_of_floats_keeps_its_rate():
    bounds = pascanu_bounds(np.full((2, 4, 4), 1.7e308) * np.array([1.0, 0.0])[:, None, None])
    np.testing.assert_allclose(bounds.rate, [np.log(4.0) + np.log(1.7e308), -np.inf], rtol=1e-15)
    assert bounds.may_explode.tolist() == [True, False]
    assert bounds.vanishes.tolist() == [False, True]
