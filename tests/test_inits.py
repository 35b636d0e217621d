"""Each initialisation has the spectrum that its docstring promises."""

import numpy as np
import pytest
from scipy.integrate import quad

from gradlab import LSTM, Elman, Network, forward, inits, irnn
from gradlab.errors import DTypeError, ShapeError, ValueRangeError

ANY_SHAPE = [inits.gaussian, inits.glorot, inits.orthogonal, inits.identity, inits.uniform_fan_in]
SHAPES = [(4, 4), (6, 3), (3, 6), (1, 5), (5, 1), (1, 1)]


def henrici(matrix):
    """Departure from normality, sqrt(|A|^2 - sum |lambda|^2)/|A|."""
    square = np.linalg.norm(matrix) ** 2
    return np.sqrt(max(square - (np.abs(np.linalg.eigvals(matrix)) ** 2).sum(), 0.0) / square)


@pytest.mark.parametrize("gain", [1.0, 0.5, 3.0])
def test_gaussian_has_spectral_radius_gain_and_largest_singular_value_twice_that(gain):
    matrix = inits.gaussian(gain)(np.random.default_rng(0), (500, 500))
    # Limits for N -> infinity; finite N = 500 is within 5 %.
    assert abs(np.abs(np.linalg.eigvals(matrix)).max() / gain - 1.0) <= 0.05
    assert abs(np.linalg.norm(matrix, 2) / (2.0 * gain) - 1.0) <= 0.05
    assert abs((np.abs(np.linalg.eigvals(matrix)) ** 2).mean() / gain**2 - 0.5) <= 0.025  # circular law, within 5 %
    assert abs(henrici(matrix) / np.sqrt(0.5) - 1.0) <= 0.01


def test_gaussian_scales_by_the_number_of_columns():
    matrix = inits.gaussian(2.0)(np.random.default_rng(0), (1000, 40))
    # Standard deviation 2/sqrt(40); of 40 000 samples known to 1/sqrt(80 000) = 0.35 %, here 4 of those.
    assert abs(matrix.std() / (2.0 / np.sqrt(40.0)) - 1.0) <= 0.015


@pytest.mark.parametrize("gain", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (400, 40)])
def test_glorot_is_uniform_with_the_variance_of_its_paper(gain, shape):
    matrix = inits.glorot(gain)(np.random.default_rng(0), shape)
    variance = 2.0 * gain**2 / sum(shape)
    # The sample variance of n uniform numbers scatters by sqrt(0.8/n) relative: 0.7 % for 16 000, here 4 of those.
    assert abs(matrix.var() / variance - 1.0) <= 0.03
    bound = np.sqrt(3.0 * variance)
    assert np.abs(matrix).max() <= bound * (1.0 + 1e-15)  # one rounding
    assert np.abs(matrix).max() >= 0.999 * bound  # thousands of samples reach the end
    assert abs(matrix.mean()) <= 4.0 * np.sqrt(variance / matrix.size)


@pytest.mark.parametrize("gain", [1.0, 0.25, 7.0])
@pytest.mark.parametrize("shape", [*SHAPES, (64, 64), (100, 10), (10, 100)])
def test_every_singular_value_of_orthogonal_is_the_gain(gain, shape):
    matrix = inits.orthogonal(gain)(np.random.default_rng(1), shape)
    assert matrix.shape == shape
    # Householder QR is orthogonal to a modest multiple of rounding, 1e-15 for these sizes.
    np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False), gain, rtol=1e-13)
    gram = matrix @ matrix.T if shape[0] <= shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, gain**2 * np.eye(min(shape)), rtol=0, atol=1e-13 * gain**2)


def test_an_orthogonal_matrix_is_normal():
    assert henrici(inits.orthogonal()(np.random.default_rng(2), (100, 100))) <= 1e-7  # the square root of rounding


def test_orthogonal_matrices_are_rotations_and_reflections_equally_often():
    rng, n = np.random.default_rng(3), 4000
    draws = np.stack([inits.orthogonal()(rng, (2, 2)) for _ in range(n)])
    share = (np.linalg.det(draws) > 0.0).mean()
    assert abs(share - 0.5) <= 4.0 * 0.5 / np.sqrt(n)  # four standard deviations of a fair coin
    # Haar: the first column is uniform on the circle. Without the signs of R, LAPACK's columns fill half of it.
    angles = np.arctan2(draws[:, 1, 0], draws[:, 0, 0])
    counts, _ = np.histogram(angles, 8, (-np.pi, np.pi))
    chi2 = ((counts - n / 8) ** 2 / (n / 8)).sum()
    assert chi2 <= 24.3  # 99.9 % of the chi-squared distribution with 7 degrees of freedom


def test_entries_of_orthogonal_matrices_have_mean_zero_and_variance_one_over_n():
    rng, n, N = np.random.default_rng(4), 3000, 5
    draws = np.stack([inits.orthogonal()(rng, (N, N)) for _ in range(n)])
    # Four standard deviations of the mean, entry by entry.
    assert np.abs(draws.mean(axis=0)).max() <= 4.0 * np.sqrt(1.0 / N / n)
    # Var(q^2) = 2 (N - 1)/(N^2 (N + 2)) on the sphere.
    assert np.abs((draws**2).mean(axis=0) - 1.0 / N).max() <= 4.0 * np.sqrt(2.0 * (N - 1) / (N**2 * (N + 2)) / n)


@pytest.mark.parametrize("factor", [1.0, 0.01])
@pytest.mark.parametrize("shape", SHAPES)
def test_identity_has_its_factor_on_the_diagonal(factor, shape):
    expected = np.zeros(shape)
    expected[np.arange(min(shape)), np.arange(min(shape))] = factor
    np.testing.assert_array_equal(inits.identity(factor)(np.random.default_rng(0), shape), expected)


@pytest.mark.parametrize("make", ANY_SHAPE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_generator_gives_the_same_matrix_and_gain_scales_it(make, shape):
    one, other = (make()(np.random.default_rng(5), shape) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(
        make(3.0)(np.random.default_rng(5), shape), 3.0 * one, rtol=0, atol=1e-15 * 3.0 * np.abs(one).max()
    )  # roundings of the largest
    if make is not inits.identity:
        rng = np.random.default_rng(5)
        first, second = make()(rng, shape), make()(rng, shape)
        assert shape == (1, 1) or np.abs(first - second).max() > 0.0


def test_a_gated_cell_draws_each_gate_on_its_own():
    net = Network(LSTM(), 3, 8)
    params = net.init(np.random.default_rng(6), input_init=inits.orthogonal(2.0), recurrent_init=inits.orthogonal())
    for key, gain in (("0.U", 1.0), ("0.W", 2.0)):
        for k in range(4):
            gate = params[key][8 * k : 8 * (k + 1)]
            np.testing.assert_allclose(np.linalg.svd(gate, compute_uv=False), gain, rtol=1e-13)  # as above
    assert np.abs(params["0.U"][:8] - params["0.U"][8:16]).max() > 0.1  # not one matrix four times


@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM()], ids=repr)
def test_the_default_is_uniform_within_one_over_the_root_of_the_hidden_size(cell):
    params = Network(cell, 40, 100, output_size=30).init(np.random.default_rng(7))
    for key in ("0.W", "0.U", "readout.V"):
        assert np.abs(params[key]).max() <= 0.1
        assert np.abs(params[key]).max() >= 0.0995  # 3000 samples all miss the outer 0.5 % once in 3 million
        # Uniform: standard deviation 0.1/sqrt(3), known to sqrt(0.2/3000) = 0.8 % from 3000 samples, here 4 of those.
        assert abs(params[key].std() / (0.1 / np.sqrt(3.0)) - 1.0) <= 0.033


@pytest.mark.parametrize("bias", [None, 0.0, 2.5])
def test_only_the_forget_gate_of_an_lstm_starts_with_a_bias(bias):
    options = {} if bias is None else {"forget_bias": bias}
    b = Network(LSTM(), 2, 3).init(np.random.default_rng(8), **options)["0.b"]
    np.testing.assert_array_equal(b, [0.0] * 3 + [1.0 if bias is None else bias] * 3 + [0.0] * 6)


def test_parameters_may_be_drawn_in_float32():
    wide, single = (Network(LSTM(), 2, 3, output_size=1).init(np.random.default_rng(9), dtype=d) for d in (float, np.float32))
    for key, value in wide.items():
        np.testing.assert_array_equal(single[key], value.astype(np.float32), strict=True)


def radius(matrix):
    return np.abs(np.linalg.eigvals(matrix)).max()


@pytest.mark.parametrize("shape", [(400, 400), (50, 800), (800, 50)])
def test_uniform_fan_in_fills_one_over_the_root_of_the_columns(shape):
    matrix = inits.uniform_fan_in(2.0)(np.random.default_rng(0), shape)
    bound = 2.0 / np.sqrt(shape[1])
    assert 0.999 * bound <= np.abs(matrix).max() <= bound
    assert abs(matrix.var() / (bound**2 / 3.0) - 1.0) <= 0.02  # four standard deviations sqrt(0.8/40 000)


def test_the_spectral_radius_of_a_square_uniform_fan_in_is_the_gain_over_the_root_of_three():
    # The circular law holds for every law of the entries with this variance; N = 500 is within 5 %.
    matrix = inits.uniform_fan_in()(np.random.default_rng(1), (500, 500))
    assert abs(radius(matrix) * np.sqrt(3.0) - 1.0) <= 0.05
    assert abs(np.linalg.norm(matrix, 2) * np.sqrt(3.0) / 2.0 - 1.0) <= 0.05


def test_uniform_and_normal_have_the_same_scale_at_every_shape():
    for shape in ((300, 300), (20, 4000), (4000, 20)):
        n = shape[0] * shape[1]
        flat = inits.uniform(0.1)(np.random.default_rng(2), shape)
        assert 0.0999 <= np.abs(flat).max() <= 0.1
        assert abs(flat.std() / (0.1 / np.sqrt(3.0)) - 1.0) <= 4.0 * np.sqrt(0.2 / n)  # four standard deviations
        bell = inits.normal(0.3)(np.random.default_rng(3), shape)
        assert abs(bell.std() / 0.3 - 1.0) <= 4.0 / np.sqrt(2.0 * n)
        assert abs((bell**4).mean() / (3.0 * 0.3**4) - 1.0) <= 4.0 * np.sqrt(96.0 / 9.0 / n)  # the fourth moment of a Gaussian


@pytest.mark.parametrize("target", [0.95, 1.0, 3.0, 0.0])
@pytest.mark.parametrize("n", [1, 2, 15, 16, 120])
@pytest.mark.parametrize("make", [inits.spectral_radius, inits.sparse], ids=lambda f: f.__name__)
def test_the_spectral_radius_is_exactly_what_was_asked(make, n, target):
    matrix = make(target)(np.random.default_rng(n), (n, n))
    assert abs(radius(matrix) - target) <= 1e-11 * target  # rounding times the eigenvalues' condition


def test_the_default_sparse_init_is_smart_tanh():
    n = 200
    matrix = inits.sparse()(np.random.default_rng(4), (n, n))
    assert abs(radius(matrix) - 0.95) <= 1e-12  # as above
    np.testing.assert_array_equal((matrix != 0).sum(axis=0), 15)  # outgoing weights of each unit: U[:, j] acts on h_j
    # Incoming weights are Binomial(n, 15/n): not 15 each.
    incoming = (matrix != 0).sum(axis=1)
    assert incoming.std() > 2.0
    assert abs(incoming.var() / (15.0 * (1.0 - 15.0 / n)) - 1.0) <= 4.0 * np.sqrt(2.0 / n)
    values = matrix[matrix != 0]
    assert abs((values**4).mean() / (values**2).mean() ** 2 / 3.0 - 1.0) <= 4.0 * np.sqrt(96.0 / 9.0 / values.size)  # Gaussian
    assert abs(values.std() * np.sqrt(15.0) / 0.95 - 1.0) <= 0.1  # the circular law with variance 15/n: 10 % at n = 200


def test_every_place_of_a_sparse_matrix_is_equally_likely():
    rng, n, draws = np.random.default_rng(5), 6, 3000
    counts = sum((inits.sparse(1.0, 4)(rng, (n, n)) != 0).astype(float) for _ in range(draws))
    assert np.abs(counts / draws - 4.0 / 6.0).max() <= 4.5 * np.sqrt(2.0 / 9.0 / draws)  # 36 places, standard deviations


def test_a_small_sparse_matrix_is_full():
    assert (inits.sparse()(np.random.default_rng(6), (10, 10)) != 0).all()


def test_one_nonzero_in_each_column_is_enough_for_a_radius():
    for seed in range(60):  # a map of 5 places into themselves always has a cycle
        matrix = inits.sparse(0.5, 1)(np.random.default_rng(seed), (5, 5))
        assert abs(radius(matrix) - 0.5) <= 1e-12


@pytest.mark.parametrize("make", [inits.spectral_radius, inits.sparse], ids=lambda f: f.__name__)
def test_a_radius_needs_a_square_matrix(make):
    with pytest.raises(ShapeError, match=r"shape is \(3, 4\); expected a square matrix"):
        make()(np.random.default_rng(0), (3, 4))


# ---- the critical point ------------------------------------------------------------------------------------


def expectation(function):
    """E[function(z)], z standard normal, by adaptive quadrature: not the solver's rule."""
    return quad(lambda z: np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi) * function(z), -12.0, 12.0, epsabs=0, epsrel=1e-12)[0]


@pytest.mark.parametrize("bias_variance", [1e-6, 1e-3, 0.05, 0.3, 1.0])
def test_the_critical_point_solves_its_two_equations(bias_variance):
    point = inits.critical_point(bias_variance)
    square = expectation(lambda z: np.tanh(np.sqrt(point.q) * z) ** 2)
    slope = expectation(lambda z: np.cosh(np.sqrt(point.q) * z) ** -4.0)
    tolerance = 1e-11  # ten times what the quadrature was asked for
    assert abs(point.weight_variance * square + bias_variance - point.q) <= tolerance * point.q
    assert abs(point.weight_variance * slope - 1.0) <= tolerance


def test_the_critical_point_at_a_bias_variance_of_a_twentieth_is_the_known_one():
    point = inits.critical_point(0.05)
    assert abs(point.weight_variance - 1.760955) <= 5e-7  # printed digits
    assert abs(point.q - 0.570048) <= 5e-7


def test_without_bias_the_critical_tanh_is_the_gaussian_of_gain_1():
    point = inits.critical_point(0.0)
    assert (point.weight_variance, point.bias_variance, point.q) == (1.0, 0.0, 0.0)
    one, other = (make(np.random.default_rng(7), (20, 30)) for make in (inits.critical_tanh(), inits.gaussian(1.0)))
    np.testing.assert_array_equal(one, other)


def test_near_zero_the_critical_variance_follows_its_cube_root():
    # q^3 = (3/4) sb^2 and sw^2 = 1 + 2 q, up to terms of the next order in q.
    for bias_variance in (1e-9, 1e-12):
        point, q = inits.critical_point(bias_variance), (0.75 * bias_variance) ** (1.0 / 3.0)
        assert abs(point.q / q - 1.0) <= 5.0 * q
        assert abs((point.weight_variance - 1.0) / (2.0 * q) - 1.0) <= 10.0 * q


def test_a_wide_critical_tanh_network_keeps_the_size_of_gradients_on_average():
    n, T = 800, 30
    net = Network(Elman("tanh"), 1, n)
    rng = np.random.default_rng(8)
    point = inits.critical_point(0.05)
    params = net.init(rng, recurrent_init=inits.critical_tanh(0.05), input_init=inits.normal(0.0))
    params = inits.random_bias(rng, params, 0.05)
    h = forward(net, params, np.zeros((T, 1, 1))).outputs[-1, 0]
    pre = np.arctanh(h)
    slopes = 1.0 - h**2
    # Means over 800 units of one network: 1/sqrt(800) = 3.5 % each, and the fixed point itself moves; 15 %.
    assert abs((pre**2).mean() / point.q - 1.0) <= 0.15
    chi = (np.linalg.norm(slopes[:, None] * params["0.U"]) ** 2) / n
    assert abs(chi - 1.0) <= 0.1
    wrong = net.init(np.random.default_rng(8), recurrent_init=inits.gaussian(0.8), input_init=inits.normal(0.0))
    wrong = inits.random_bias(np.random.default_rng(9), wrong, 0.05)
    h = forward(net, wrong, np.zeros((T, 1, 1))).outputs[-1, 0]
    assert np.linalg.norm((1.0 - h**2)[:, None] * wrong["0.U"]) ** 2 / n < 0.7  # the measure tells them apart


@pytest.mark.parametrize("value", [-1e-9, 2e4])
def test_the_bias_variance_has_its_range(value):
    for function in (inits.critical_point, inits.critical_tanh):
        with pytest.raises(ValueRangeError, match=r"bias_variance is .*; expected 0 to 1e4"):
            function(value)
    if value < 0:
        with pytest.raises(ValueRangeError, match=r"variance is .*; expected 0 or more"):
            inits.random_bias(np.random.default_rng(0), {}, value)


def test_large_bias_variances_solve_the_equations_too():
    for bias_variance in (100.0, 1e4):
        point = inits.critical_point(bias_variance)
        z = np.linspace(-12.0, 12.0, 2_000_001)  # a brute sum, steps far below the width 1/sqrt(q) of tanh
        weight = np.exp(-0.5 * z**2)
        weight /= weight.sum()
        value = np.tanh(np.sqrt(point.q) * z)
        assert abs(point.weight_variance * (weight @ value**2) + bias_variance - point.q) <= 1e-9 * point.q
        assert abs(point.weight_variance * (weight @ (1.0 - value**2) ** 2) - 1.0) <= 1e-9


def test_random_biases_replace_the_recurrent_ones_only():
    net = Network([Elman("tanh"), LSTM()], 2, 300, output_size=2)
    params = net.init(np.random.default_rng(10))
    drawn = inits.random_bias(np.random.default_rng(11), params, 0.09)
    assert list(drawn) == list(params)
    for key, value in params.items():
        if key in ("0.b", "1.b"):
            assert drawn[key].shape == value.shape
            assert abs(drawn[key].std() / 0.3 - 1.0) <= 4.0 / np.sqrt(2.0 * value.size)  # four standard deviations
        else:
            assert drawn[key] is value


# ---- forget bias and recipes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bias", "steps"), [(0.0, 1.442695), (1.0, 3.192219), (2.0, 7.878482), (4.0, 55.09664), (10.0, 22026.97)]
)
def test_forget_time_constants_are_the_known_ones(bias, steps):
    assert abs(inits.forget_time_constant(bias) / steps - 1.0) <= 1e-6  # seven printed digits
    assert abs(inits.forget_bias(steps) - bias) <= 1e-6 * max(1.0, bias)


@pytest.mark.parametrize("steps", [0.01, 0.5, 1.0, 100.0, 1e12])
def test_forget_bias_and_time_constant_are_inverse_and_a_cell_forgets_so(steps):
    bias = inits.forget_bias(steps)
    assert abs(inits.forget_time_constant(bias) / steps - 1.0) <= 1e-13  # of exp, log and the condition of both
    if steps in (1.0, 100.0):
        net = Network(LSTM(), 1, 1)
        params = net.init(np.random.default_rng(0), forget_bias=bias)
        params = {k: (v if k == "0.b" else np.zeros_like(v)) for k, v in params.items()}
        h = forward(net, params, np.zeros((100, 1, 1)), initial_states={"0": np.array([[1e-6, 0.0]])}).outputs[:, 0, 0]
        assert abs(h[-1] / h[0] / np.exp(-99.0 / steps) - 1.0) <= 1e-10  # tanh(c) = c to 1e-12


def test_forget_helpers_refuse_what_has_no_answer():
    with pytest.raises(ValueRangeError, match=r"bias is 701\.0; expected at most 700"):
        inits.forget_time_constant(701.0)
    for bad in (0.0, -1.0, np.inf):
        with pytest.raises(ValueRangeError, match=r"steps is .*; expected a finite number > 0"):
            inits.forget_bias(bad)
    with pytest.raises(DTypeError, match=r"nonzeros is 1\.5"):
        inits.sparse(0.9, 1.5)


@pytest.mark.parametrize(("recipe", "std"), [(inits.pascanu_sigmoid, 0.01), (inits.pascanu_tanh, 0.1), (inits.scrn, 0.05)])
def test_gaussian_recipes_give_every_matrix_their_standard_deviation(recipe, std):
    params = Network(Elman("tanh"), 60, 100, output_size=50).init(np.random.default_rng(12), **recipe())
    for key in ("0.W", "0.U", "readout.V"):
        assert abs(params[key].std() / std - 1.0) <= 4.0 / np.sqrt(2.0 * params[key].size)  # four standard deviations
    assert abs(radius(params["0.U"]) / (10.0 * std) - 1.0) <= 0.12  # std sqrt(n); finite n = 100
    assert not params["0.b"].any()


def test_smart_tanh_is_sparse_with_radius_0_95_and_small_elsewhere():
    params = Network(Elman("tanh"), 60, 100, output_size=50).init(np.random.default_rng(13), **inits.pascanu_smart_tanh())
    assert abs(radius(params["0.U"]) - 0.95) <= 1e-12
    np.testing.assert_array_equal((params["0.U"] != 0).sum(axis=0), 15)
    for key in ("0.W", "readout.V"):
        assert abs(params[key].std() / 0.01 - 1.0) <= 4.0 / np.sqrt(2.0 * params[key].size)


@pytest.mark.parametrize("factor", [1.0, 0.01])
def test_the_irnn_recipe_has_identity_and_small_inputs(factor):
    net = Network(Elman("relu"), 40, 100, output_size=1)
    params = net.init(np.random.default_rng(14), **inits.irnn(factor))
    np.testing.assert_array_equal(params["0.U"], factor * np.eye(100))
    assert abs(params["0.W"].std() / 0.001 - 1.0) <= 4.0 / np.sqrt(2.0 * 4000)
    cell = irnn(factor)  # gradlab.irnn is the same, as a cell
    own = Network(cell, 40, 100, output_size=1).init(np.random.default_rng(14))
    np.testing.assert_array_equal(own["0.U"], params["0.U"])
    np.testing.assert_allclose(own["0.W"], params["0.W"], rtol=1e-15)  # one product, one rounding


def test_a_factory_in_place_of_its_init_is_told():
    net = Network(Elman("tanh"), 2, 3)
    for make in inits.FACTORIES:
        with pytest.raises(ValueRangeError, match=f"recurrent_init is the function {make.__name__}; expected what it makes"):
            net.init(np.random.default_rng(0), recurrent_init=make)
