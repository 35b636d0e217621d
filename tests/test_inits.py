"""Each initialisation has the spectrum that its docstring promises."""

import numpy as np
import pytest

from gradlab import LSTM, Elman, Network, inits

ALL = [inits.gaussian, inits.glorot, inits.orthogonal, inits.identity]
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


@pytest.mark.parametrize("make", ALL, ids=lambda f: f.__name__)
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
