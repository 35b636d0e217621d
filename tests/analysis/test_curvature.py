"""Hessian-vector products against derivatives known in closed form and against two other ways to differentiate the gradient."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings

import gradlab
from gradlab import _math, cells
from gradlab._derivatives import richardson
from gradlab._parameters import ParameterVector
from gradlab.analysis.curvature import extreme_eigenvalues, hessian_trace, sharpness
from gradlab.analysis.hessian import Hessian, dense_hessian
from gradlab.analysis.hessian_products import hessian_vector_product
from gradlab.analysis.spectral_densities import spectral_density
from gradlab.checks.strategies import examples
from gradlab.errors import DTypeError, NumericalError, ResourceRefused, ShapeError, ValueRangeError

MSE = gradlab.mean_squared_error
TINY = np.finfo(float).tiny


def problem(cell, seed=0, T=5, B=3, D=2, H=3, p=2, lengths=None, **options):
    """A small network with parameters of order 1, and a batch for it."""
    rng = np.random.default_rng(seed)
    net = gradlab.Network(cell, D, H, output_size=p, **options)
    params = {key: rng.normal(0.0, 0.7, shape) for key, shape in net.shapes.items()}
    shape = (T, B, p) if net.readout == "every" else (B, p)
    batch = gradlab.Batch(rng.normal(size=(T, B, D)), rng.normal(size=shape), lengths=lengths)
    return net, params, batch, rng


def direction(rng, params):
    return {key: rng.normal(size=value.shape) for key, value in params.items()}


def relative(found, reference):
    """The largest gap over all keys, relative to the largest entry of the reference."""
    size = max(np.abs(value).max() for value in reference.values())
    return max(np.abs(found[key] - reference[key]).max() for key in reference) / size


# ---- the first-order path of activations ------------------------------------------------------------------

ARGUMENTS = [s * z for z in (1e-300, 1e-9, 0.3, 1.0, 5.0, 9.0, 20.0, 40.0, 354.0, 700.0) for s in (1.0, -1.0)]
ARGUMENTS += [float(z) for z in np.random.default_rng(0).uniform(-700.0, 700.0, 100)]


def exact(name, z):
    """First and second derivative in hundreds of digits: with e = exp(-|z|), e/(1 + e)^2 and -sign(z) e (1 - e)/(1 + e)^3."""
    with localcontext() as context:
        context.prec = 400 if abs(z) < 1e-20 else 60
        z = Decimal(z)
        e = (-abs(z) * (2 if name == "tanh" else 1)).exp()
        sign = -1 if z > 0 else 1
        slope, second = e / (1 + e) ** 2, sign * e * (1 - e) / (1 + e) ** 3
        return (4 * slope, 8 * second) if name == "tanh" else (slope, second)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_a_step_through_value_and_slope_gives_both_derivatives_to_14_digits_from_minus_700_to_700(name):
    h = 2.0**-100
    z = np.array(ARGUMENTS) + 1j * h
    y, dy = np.empty_like(z), np.empty_like(z)
    with np.errstate(all="ignore"):  # as the engine does
        {"sigmoid": _math.sigmoid_and_slope, "tanh": _math.tanh_and_slope}[name](z, y, dy)
    for argument, first, second in zip(ARGUMENTS, y.imag, dy.imag, strict=True):
        for found, reference in zip((first, second), exact(name, argument), strict=True):
            if abs(float(reference)) * h > TINY:  # else the step times the derivative is no normal number
                with localcontext() as context:
                    context.prec = 60
                    gap = float(abs(Decimal(found) / Decimal(h) / reference - 1))
                assert gap <= 1e-14, (argument, found)  # a handful of operations, each within one rounding


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_the_real_functions_and_the_complex_ones_meet_where_one_takes_over_from_the_other(name, monkeypatch):
    rng = np.random.default_rng(0)
    z = rng.uniform(-30.0, 30.0, 500) + 1j * rng.uniform(-1.0, 1.0, 500) * _math.FIRST_ORDER
    pair = {"sigmoid": _math.sigmoid_and_slope, "tanh": _math.tanh_and_slope}[name]

    def filled():
        y, dy, rest = np.empty_like(z), np.empty_like(z), np.empty_like(z)
        pair(z, y, dy)
        _math.one_minus_sigmoid(z, *((y, dy) if name == "sigmoid" else (_math.sigmoid(z), _math.sigmoid_slope(z))), rest)
        return y, dy, rest

    fast = filled()
    monkeypatch.setattr(_math, "FIRST_ORDER", -1.0)
    for a, b in zip(fast, filled(), strict=True):
        # What is left out is of size (1e-9)^2; what remains are the roundings of two libraries' exp and tanh.
        np.testing.assert_allclose(a.real, b.real, rtol=1e-14)
        # Next to 0 the slope's slope is a difference of complex products there, and a product of its own here.
        assert (np.abs(a.imag - b.imag) <= 1e-14 * np.abs(b.imag) + 1e-15 * np.abs(b.real * z.imag)).all()


# ---- products: closed forms -------------------------------------------------------------------------------


def last_output(outputs, targets, mask):
    """L = the sum of all outputs: its Hessian is that of the network alone."""
    return outputs.sum(axis=(-2, -1)), np.ones_like(outputs)


def scalar(w, T, b=0.0, activation="linear"):
    net = gradlab.Network(gradlab.Elman(activation), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), w), "0.b": np.full(1, b)}
    return net, params


@pytest.mark.parametrize("w", [0.5, 0.99, 1.01, 2.0, -1.5])
def test_second_derivative_of_a_linear_neuron_is_that_of_a_power(w):
    # y_T = w^(T-1) for the input (1, 0, 0, ...): d2y/dw2 = (T-1)(T-2) w^(T-3).
    T = 700
    net, params = scalar(w, T)
    x = np.zeros((T, 1, 1))
    x[0] = 1.0
    found = hessian_vector_product(net, params, gradlab.Batch(x, np.zeros((1, 1))), last_output, {"0.U": np.ones((1, 1))})
    want = (T - 1) * (T - 2) * w ** (T - 3)
    np.testing.assert_allclose(found["0.U"][0, 0], want, rtol=1e-12)  # 700 multiplications, each rounds once
    np.testing.assert_allclose(found["0.W"][0, 0], (T - 1) * w ** (T - 2), rtol=1e-12)


@pytest.mark.parametrize("T", [50, 300, 800])
def test_products_stay_exact_where_the_tangent_explodes(T):
    # tanh at rest: h_T = b sum_k w^k to first order in b, so d2h_T/(dw db) = sum_k k w^(k-1) = (T-2) 2^(T-1) + 1 at w = 2.
    # A step of 2^-100 would drive the state out of the linear range: 2^300 is beyond it, 2^800 beyond 2^-400 too.
    net, params = scalar(2.0, T, activation="tanh")
    batch = gradlab.Batch(np.zeros((T, 1, 1)), np.zeros((1, 1)))
    found = hessian_vector_product(net, params, batch, last_output, {"0.b": np.ones(1)})
    np.testing.assert_allclose(found["0.U"][0, 0], (T - 2) * 2.0 ** (T - 1) + 1, rtol=1e-13)  # powers of 2 are exact
    np.testing.assert_array_equal(found["0.b"], 0.0)  # tanh'' = 0 at 0


def test_a_tangent_beyond_all_steps_is_an_error_and_no_number():
    T = 960
    net, params = scalar(2.0, T, activation="tanh")
    batch = gradlab.Batch(np.zeros((T, 1, 1)), np.zeros((1, 1)))
    with pytest.raises(NumericalError, match="tangent grows"):
        hessian_vector_product(net, params, batch, last_output, {"0.b": np.ones(1)})


def test_a_loss_that_overflows_is_an_error_that_says_where():
    net, params = scalar(3.0, 700)
    batch = gradlab.Batch(np.ones((700, 1, 1)), np.zeros((1, 1)))
    with pytest.raises(NumericalError, match="overflow: forward: state of layer 0 non-finite from t = "):
        hessian_vector_product(net, params, batch, last_output, {"0.b": np.ones(1)})


# ---- products: every cell ---------------------------------------------------------------------------------

RAGGED = np.array([5, 2, 3])


def gradient(net, params, batch):
    return gradlab.bptt(net, params, batch, MSE, ()).gradients


@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["full", "ragged"])
@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_products_of_every_cell_equal_richardson_and_the_step_through_complex_functions(cell, lengths, monkeypatch):
    net, params, batch, rng = problem(cell, seed=3, lengths=lengths, num_layers=2, bidirectional=lengths is not None)
    v = direction(rng, params)
    found = hessian_vector_product(net, params, batch, MSE, v)
    vector = ParameterVector(net.shapes)

    def along(shift):
        return vector.pack(gradient(net, {key: value + shift * v[key] for key, value in params.items()}, batch))

    # h0 small, so that no kink of a ReLU lies within it; the differences then have 1e-16/1e-5 of rounding.
    estimate, bound = richardson(along, np.zeros(()), np.ones(()), h0=1e-4)
    gap = np.abs(vector.pack(found) - estimate)
    assert (gap <= 1e-8 * np.abs(estimate).max()).all(), gap.max() / np.abs(estimate).max()
    assert bound.max() <= 1e-8 * np.abs(estimate).max()

    monkeypatch.setattr(_math, "FIRST_ORDER", -1.0)  # NumPy's complex tanh and exp from here on
    reference = hessian_vector_product(net, params, batch, MSE, v)
    assert relative(found, reference) <= 1e-13  # a few hundred roundings


@given(example=examples(cells.ALL, layers=(1, 2)))
@settings(max_examples=60)
def test_the_operator_is_symmetric_for_every_cell(example):
    net, params, rng = example.net, example.params, np.random.default_rng(0)

    def loss(outputs, targets, mask):
        return (targets * outputs**2).sum(axis=tuple(range(-targets.ndim, 0))), 2.0 * targets * outputs

    batch = gradlab.Batch(example.x, example.cotangent, lengths=example.lengths)
    u, v = direction(rng, params), direction(rng, params)
    Hu, Hv = (hessian_vector_product(net, params, batch, loss, d, initial_states=example.initial) for d in (u, v))
    left, right = (sum((a[key] * b[key]).sum() for key in params) for a, b in ((u, Hv), (v, Hu)))
    terms = sum(np.abs(a[key] * b[key]).sum() for a, b in ((u, Hv), (v, Hu)) for key in params)
    # A few hundred roundings in every product; entries may cancel in the gradient before the sum over `terms` sees them.
    assert abs(left - right) <= 1e-11 * terms


# ---- products: many, scaled, in other precisions ----------------------------------------------------------


def test_many_directions_at_once_equal_one_after_the_other():
    net, params, batch, rng = problem(gradlab.LSTM(), num_layers=2)
    many = {key: rng.normal(size=(2, 3, *value.shape)) for key, value in params.items()}
    found = hessian_vector_product(net, params, batch, MSE, many)
    for i in range(2):
        for j in range(3):
            one = hessian_vector_product(net, params, batch, MSE, {key: value[i, j] for key, value in many.items()})
            assert relative({key: value[i, j] for key, value in found.items()}, one) <= 1e-13  # BLAS adds in another order


def test_each_network_of_an_ensemble_has_its_own_hessian():
    net, params, batch, rng = problem(gradlab.GRU())
    seeds = {key: rng.normal(0.0, 0.7, (4, *value.shape)) for key, value in params.items()}
    v = direction(rng, params)
    found = hessian_vector_product(net, seeds, batch, MSE, v)
    for k in range(4):
        one = hessian_vector_product(net, {key: value[k] for key, value in seeds.items()}, batch, MSE, v)
        assert relative({key: value[k] for key, value in found.items()}, one) <= 1e-13  # BLAS adds in another order


def test_a_missing_key_stands_for_zeros():
    net, params, batch, rng = problem(gradlab.Elman())
    U = rng.normal(size=params["0.U"].shape)
    found = hessian_vector_product(net, params, batch, MSE, {"0.U": U})
    zeros = {key: np.zeros_like(value) for key, value in params.items()}
    want = hessian_vector_product(net, params, batch, MSE, zeros | {"0.U": U})
    for key in params:
        np.testing.assert_array_equal(found[key], want[key])


@pytest.mark.parametrize("exponent", [-1000, -300, 40, 1000])
def test_the_product_scales_with_the_direction_by_powers_of_two_exactly(exponent):
    net, params, batch, rng = problem(gradlab.LSTM())
    v = direction(rng, params)
    found = hessian_vector_product(net, params, batch, MSE, {key: np.ldexp(value, exponent) for key, value in v.items()})
    want = hessian_vector_product(net, params, batch, MSE, v)
    for key in params:
        np.testing.assert_array_equal(found[key], np.ldexp(want[key], exponent))


def test_the_product_with_zero_is_zero():
    net, params, batch, _ = problem(gradlab.LSTM())
    found = hessian_vector_product(net, params, batch, MSE, {key: np.zeros_like(value) for key, value in params.items()})
    for value in found.values():
        np.testing.assert_array_equal(value, 0.0)


def test_float32_parameters_give_the_product_at_their_values_in_float64():
    net, params, batch, rng = problem(gradlab.LSTM())
    narrow = {key: value.astype(np.float32) for key, value in params.items()}
    v = direction(rng, params)
    found = hessian_vector_product(net, narrow, batch, MSE, v)
    want = hessian_vector_product(net, {key: value.astype(float) for key, value in narrow.items()}, batch, MSE, v)
    for key in params:
        assert found[key].dtype == np.float64
        np.testing.assert_array_equal(found[key], want[key])


def test_parameters_and_directions_are_left_as_they_were():
    net, params, batch, rng = problem(gradlab.LSTM())
    v = direction(rng, params)
    before = {key: value.copy() for key, value in (params | {f"v {key}": value for key, value in v.items()}).items()}
    hessian_vector_product(net, params, batch, MSE, v, workspace=gradlab.Workspace())
    for key, value in (params | {f"v {key}": value for key, value in v.items()}).items():
        np.testing.assert_array_equal(value, before[key])


# ---- the Hessian as operator and matrix -------------------------------------------------------------------


@pytest.fixture(scope="module")
def lstm():
    net, params, batch, _ = problem(gradlab.LSTM(peepholes=True), num_layers=2, H=2, lengths=RAGGED)
    hessian = Hessian(net, params, batch, MSE)
    return hessian, dense_hessian(hessian)


def test_the_dense_hessian_is_symmetric_and_its_columns_are_the_products(lstm):
    hessian, H = lstm
    # Entry [a, b] and [b, a] come from different passes; each is exact to some roundings of the terms it sums.
    np.testing.assert_allclose(H, H.T, rtol=0, atol=1e-14 * np.abs(H).max())
    v = np.random.default_rng(1).normal(size=hessian.size)
    np.testing.assert_allclose(hessian(v), H @ v, rtol=0, atol=1e-13 * np.abs(H @ v).max())  # sums of n = 100 terms
    product = hessian_vector_product(hessian.net, hessian.params, hessian.batch, MSE, hessian.direction(v))
    np.testing.assert_allclose(hessian(v), hessian.vector.pack(product), rtol=0, atol=1e-13 * np.abs(H @ v).max())


@pytest.mark.parametrize(
    "keys",
    [("0.U",), ("1.b", "0.W"), ("0.U/f",), ("readout.V", "0.U/o", "0.U/i", "1.p_f"), ("1.b/g",)],
    ids=lambda keys: "+".join(keys),
)
def test_a_restricted_hessian_is_the_block_of_the_dense_one(lstm, keys):
    hessian, H = lstm
    where = hessian.vector.unpack(np.arange(hessian.size))
    rows = []
    for label in keys:
        key, _, gate = label.partition("/")
        first = 2 * "ifgo".index(gate) if gate else 0  # H = 2 units a gate
        rows.append(where[key][first : first + 2 if gate else None].ravel())
    rows = np.concatenate(rows)
    block = Hessian(hessian.net, hessian.params, hessian.batch, MSE, keys)
    assert block.size == len(rows)
    # Fewer directions a pass: other shapes of matrices in BLAS, so another order of sums.
    np.testing.assert_allclose(dense_hessian(block), H[np.ix_(rows, rows)], rtol=0, atol=1e-14 * np.abs(H).max())


def test_gates_of_a_bidirectional_gru_are_found_by_layer():
    net, params, batch, _ = problem(gradlab.GRU(), H=2, bidirectional=True)
    whole = Hessian(net, params, batch, MSE)
    H, where = dense_hessian(whole), whole.vector.unpack(np.arange(whole.size))
    rows = where["0.backward.U"][2:4].ravel()
    block = dense_hessian(Hessian(net, params, batch, MSE, ("0.backward.U/z",)))
    np.testing.assert_allclose(block, H[np.ix_(rows, rows)], rtol=0, atol=1e-14 * np.abs(H).max())  # as above


def test_products_and_matrices_do_not_depend_on_how_many_directions_go_together(lstm, monkeypatch):
    from gradlab.analysis import hessian as module

    hessian, H = lstm
    assert hessian.at_once > hessian.size
    monkeypatch.setattr(module, "AT_ONCE", 2**17)
    assert 1 < hessian.at_once < hessian.size
    np.testing.assert_allclose(dense_hessian(hessian), H, rtol=0, atol=1e-14 * np.abs(H).max())  # other shapes in BLAS
    monkeypatch.setattr(module, "AT_ONCE", 1)
    assert hessian.at_once == 1
    np.testing.assert_allclose(hessian(np.eye(hessian.size)[:3]), H[:3], rtol=0, atol=1e-14 * np.abs(H).max())


def test_a_vector_becomes_a_direction_and_comes_back(lstm):
    hessian, _ = lstm
    block = Hessian(hessian.net, hessian.params, hessian.batch, MSE, ("0.U/f", "1.b"))
    v = np.random.default_rng(0).normal(size=(3, block.size))
    found = block.direction(v)
    assert set(found) == {"0.U", "1.b"}
    np.testing.assert_array_equal(found["0.U"][:, 2:4].reshape(3, -1), v[:, :4])
    np.testing.assert_array_equal(np.delete(found["0.U"], [2, 3], axis=1), 0.0)


def test_the_operator_keeps_its_point_when_the_parameters_move_on():
    net, params, batch, rng = problem(gradlab.Elman())
    hessian = Hessian(net, params, batch, MSE)
    v = rng.normal(size=hessian.size)
    before = hessian(v)
    params["0.U"] += 1.0
    np.testing.assert_array_equal(hessian(v), before)


def test_eigenvalues_of_both_ends_equal_those_of_the_dense_hessian(lstm):
    hessian, H = lstm
    values, columns = np.linalg.eigh(H)
    found = extreme_eigenvalues(hessian, 4, rng=np.random.default_rng(0))
    assert found.status.ok
    scale = np.abs(values).max()
    # Residuals of 1e-10 bound the error of a value; symmetric eigenvalues are as well conditioned as can be.
    np.testing.assert_allclose(found.largest.values, values[:-5:-1], rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(found.smallest.values, values[:4], rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(found.largest.values, values[:-5:-1], rtol=1e-8)
    np.testing.assert_allclose(found.smallest.values, values[:4], rtol=1e-8)
    assert abs(found.largest.vectors[0] @ columns[:, -1]) > 1.0 - 1e-9
    assert abs(found.smallest.vectors[0] @ columns[:, 0]) > 1.0 - 1e-9
    assert (found.largest.residuals <= 1e-9 * scale).all()


def test_trace_and_density_of_a_network_agree_with_the_dense_hessian(lstm):
    hessian, H = lstm
    trace = hessian_trace(hessian, rng=np.random.default_rng(0), probes=400)
    variance = 2.0 * ((H**2).sum() - (np.diag(H) ** 2).sum())
    # Five standard errors; the sample's own one differs from the truth by 1/sqrt(2 x 400) = 3.5 %, times 4.
    assert abs(trace.value - np.trace(H)) <= 5.0 * np.sqrt(variance / 400)
    np.testing.assert_allclose(trace.standard_error, np.sqrt(variance / 400), rtol=0.2)
    density = spectral_density(hessian, rng=np.random.default_rng(0), probes=400, steps=20)
    # The same signs: the first moment is the same estimate, and differs by roundings.
    np.testing.assert_allclose(density.moment(1)[0], trace.value / hessian.size, rtol=1e-12)
    value, error = density.moment(2)
    assert abs(value - (H**2).sum() / len(H)) <= 5.0 * error


# ---- sharpness: what it is measured for -------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.1, 3.0, 2000.0])
@pytest.mark.parametrize("factor", [0.995, 1.005])
def test_gradient_descent_on_a_quadratic_diverges_iff_the_ratio_is_above_one(a, factor):
    eta = factor * 2.0 / a
    found = sharpness(lambda v: a * v, eta, rng=np.random.default_rng(0), size=1)
    np.testing.assert_allclose([found.value, found.limit, found.ratio], [a, 2.0 / eta, factor], rtol=1e-14)  # 3 roundings
    x = 1.0
    for _ in range(2000):
        x -= eta * a * x  # |1 - eta a|^2000 = 0.99^2000 or 1.01^2000
    assert (abs(x) > 1e6) == (found.ratio > 1.0)
    assert (abs(x) < 1e-6) == (found.ratio < 1.0)


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_gradient_descent_on_the_read_out_diverges_iff_the_learning_rate_exceeds_two_over_sharpness(factor):
    # With the recurrent weights fixed, squared error is a quadratic function of the read-out.
    net, params, batch, rng = problem(gradlab.LSTM())
    keys = ("readout.V", "readout.b_y")
    hessian = Hessian(net, params, batch, MSE, keys)
    top = sharpness(hessian, 1.0, rng=rng).value
    found = sharpness(hessian, factor * 2.0 / top, rng=rng)
    np.testing.assert_allclose(found.ratio, factor, rtol=1e-12)  # the same eigenvalue twice
    step = hessian.direction(found.vector)
    moved = params | {key: params[key] + step[key] for key in keys}
    losses = []
    for _ in range(400):
        record = gradlab.bptt(net, moved, batch, MSE, ())
        losses.append(float(record.loss))
        moved |= {key: moved[key] - found.learning_rate * record.gradients[key] for key in keys}
    # Along the top eigenvector each update multiplies by 1 - 2 factor: 0.96^400 = 8e-8, 1.04^400 = 7e6.
    assert (losses[-1] > 1e3 * losses[0]) == (factor > 1.0)
    assert (losses[-1] <= losses[0]) == (factor < 1.0)


def test_the_hessian_of_least_squares_follows_marchenko_and_pastur():
    # One step of a linear unit without memory: H = (2/N) X^T X for the N rows of X. Moments of X^T X/N for D/N = y tend
    # to 1, 1 + y, 1 + 3y + y^2, its edges to (1 -+ sqrt y)^2 (Marchenko & Pastur 1967).
    rng = np.random.default_rng(0)
    N, D, y = 800, 400, 0.5
    net = gradlab.Network(gradlab.Elman("linear"), D, 1)
    params = {"0.W": rng.normal(size=(1, D)), "0.U": np.zeros((1, 1)), "0.b": np.zeros(1)}
    batch = gradlab.Batch(rng.normal(size=(1, N, D)), rng.normal(size=(1, N, 1)))
    hessian = Hessian(net, params, batch, MSE, ("0.W",))
    found = spectral_density(hessian, rng=rng, probes=40, steps=40, width=0.05)
    moments = [found.moment(k)[0] / 2.0**k for k in (1, 2, 3)]
    # The spectrum of one matrix differs from the limit by 1/N in the moments; the probes add 1/sqrt(40 D) of 1 to 4.
    np.testing.assert_allclose(moments, [1.0, 1.0 + y, 1.0 + 3.0 * y + y**2], rtol=0.03)
    edges = extreme_eigenvalues(hessian, 1, rng=rng, tol=1e-6)
    # Edges fluctuate like N^(-2/3) = 0.01, and lie inside by about as much times (1 + sqrt y)^(4/3).
    np.testing.assert_allclose(edges.largest.values[0] / 2.0, (1.0 + np.sqrt(y)) ** 2, atol=0.05)
    np.testing.assert_allclose(edges.smallest.values[0] / 2.0, (1.0 - np.sqrt(y)) ** 2, atol=0.02)
    x = found.grid / 2.0
    low, high = (1.0 - np.sqrt(y)) ** 2, (1.0 + np.sqrt(y)) ** 2
    inside = (x > low) & (x < high)
    law = np.zeros_like(x)
    law[inside] = np.sqrt((high - x[inside]) * (x[inside] - low)) / (2.0 * np.pi * y * x[inside])
    spacing = x[1] - x[0]
    gap = np.abs(np.cumsum(2.0 * found.density) - np.cumsum(law)).max() * spacing
    assert gap <= 0.05  # distribution functions; the Gaussians' width of 0.025 at a steep edge of height 0.8 gives 0.02


# ---- what must be refused ---------------------------------------------------------------------------------


def test_a_loss_that_drops_imaginary_parts_is_reported():
    net, params, batch, _ = problem(gradlab.Elman())

    def real_only(outputs, targets, mask):
        value, d_outputs = MSE(outputs, targets, mask)
        return value, d_outputs.real  # so the Gauss-Newton part would be missing: symmetric, and wrong

    with pytest.raises(NumericalError, match="not complex-safe"):
        Hessian(net, params, batch, real_only)
    wrong = dense_hessian(Hessian(net, params, batch, real_only, verify=False))
    right = dense_hessian(Hessian(net, params, batch, MSE))
    np.testing.assert_allclose(wrong, wrong.T, rtol=0, atol=1e-14)  # the check of symmetry alone would not see it
    assert np.abs(wrong - right).max() > 0.1 * np.abs(right).max()


def test_a_chaotic_network_is_not_refused_for_what_differences_cannot_see():
    # Perturbations grow by more than 1e10 over the sequence, so differences at any step are noise.
    rng = np.random.default_rng(0)
    net = gradlab.Network(gradlab.Elman(), 1, 20)
    params = {"0.W": np.zeros((20, 1)), "0.U": rng.normal(0.0, 4.0 / np.sqrt(20), (20, 20)), "0.b": 0.1 * rng.normal(size=20)}
    batch = gradlab.Batch(np.zeros((120, 1, 1)), np.zeros((120, 1, 20)))
    hessian = Hessian(net, params, batch, MSE, ("0.b",))
    H = dense_hessian(hessian)
    assert np.abs(H).max() > 1e10
    np.testing.assert_allclose(H, H.T, rtol=0, atol=1e-8 * np.abs(H).max())  # roundings grow with the perturbations


def test_a_user_cell_without_a_closed_form_is_refused_with_the_remedy():
    class Plain:
        def init(self, rng, input_size, hidden_size):
            return {"U": rng.normal(size=(hidden_size, hidden_size))}

        def step(self, params, x_t, s_prev, t):
            return np.tanh(s_prev @ params["U"].T + x_t)

    net = gradlab.Network(Plain(), 2, 2)
    batch = gradlab.Batch(np.ones((3, 1, 2)), np.zeros((3, 1, 2)))
    with pytest.raises(DTypeError, match="second derivatives need the closed form vjp"):
        Hessian(net, net.init(np.random.default_rng(0)), batch, MSE)


def test_a_user_cell_with_a_vjp_has_the_hessian_of_the_built_in_one():
    class Own:
        def init(self, rng, input_size, hidden_size):
            return {"U": rng.normal(size=(hidden_size, hidden_size)), "b": np.zeros(1)}

        def step(self, params, x_t, s_prev, t):
            return np.tanh(s_prev @ params["U"].T + x_t + params["b"])

        def vjp(self, params, x_t, s_prev, delta, t):
            da = delta * (1.0 - self.step(params, x_t, s_prev, t) ** 2)
            return {"U": da.T @ s_prev, "b": da.sum(keepdims=True)[0]}, da, da @ params["U"]

    net = gradlab.Network(Own(), 2, 2)
    rng = np.random.default_rng(0)
    params = net.init(rng)
    batch = gradlab.Batch(rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2)))
    ours = dense_hessian(Hessian(net, params, batch, MSE))
    elman = gradlab.Network(gradlab.Elman(), 2, 2)
    reference = Hessian(elman, {"0.W": np.eye(2), "0.U": params["0.U"], "0.b": np.zeros(2)}, batch, MSE, ("0.U", "0.b"))
    to_ours = np.zeros((6, 5))  # its one bias enters both units
    to_ours[:4, :4] = np.eye(4)
    to_ours[4:, 4] = 1.0
    want = to_ours.T @ dense_hessian(reference) @ to_ours
    np.testing.assert_allclose(ours, want, rtol=0, atol=1e-14 * np.abs(want).max())  # some roundings


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ((), "expected a sequence such as"),
        ("0.U", "expected a sequence such as"),
        (("0.X",), "'0.X'; expected names out of"),
        ((3,), "holds 3; expected names out of"),
        (("0.U/z",), "expected the gates i, f, g, o of W, U or b"),
        (("readout.V/i",), "'readout.V' alone: there are no gates"),
        (("0.U", "0.U"), "expected each entry once"),
        (("0.U/f", "0.U"), "expected each entry once"),
    ],
)
def test_wrong_keys_are_refused_by_name(keys, told):
    net, params, batch, _ = problem(gradlab.LSTM())
    with pytest.raises(ValueRangeError, match=told.replace("(", r"\(")):
        Hessian(net, params, batch, MSE, keys)


def test_bad_arguments_of_a_product_are_refused_by_name():
    net, params, batch, rng = problem(gradlab.Elman())
    v = direction(rng, params)

    def product(**changed):
        given = {"params": params, "batch": batch, "v": v} | changed
        return hessian_vector_product(net, given["params"], given["batch"], MSE, given["v"])

    with pytest.raises(DTypeError, match=r'params\["0.U"\] has dtype complex128'):
        product(params=params | {"0.U": params["0.U"] + 0j})
    with pytest.raises(DTypeError, match=r'v\["0.U"\] has dtype complex128'):
        product(v=v | {"0.U": v["0.U"] + 0j})
    with pytest.raises(DTypeError, match=r"batch\.inputs are complex"):
        product(batch=gradlab.Batch(batch.inputs + 0j, batch.targets))
    with pytest.raises(DTypeError, match="v is a ndarray; expected a dict"):
        product(v=np.zeros(3))
    with pytest.raises(ValueRangeError, match=r"v has the keys \['0.X'\]"):
        product(v={"0.X": np.zeros(3)})
    with pytest.raises(ShapeError, match=r'v\["0.U"\] has shape \(3,\)'):
        product(v={"0.U": np.zeros(3)})
    with pytest.raises(ValueRangeError, match=r'v\["0.b"\] has 1 non-finite values'):
        product(v={"0.b": np.array([1.0, np.nan, 0.0])})
    with pytest.raises(ShapeError, match="do not broadcast"):
        product(v={"0.b": np.zeros((2, 3)), "0.U": np.zeros((4, 3, 3))})


def test_a_hessian_wants_one_network_on_one_batch_and_room_for_its_matrix():
    net, params, batch, rng = problem(gradlab.Elman())
    with pytest.raises(ShapeError, match="expected one network, without ensemble axes"):
        Hessian(net, params | {"0.b": np.zeros((2, 3))}, batch, MSE)
    with pytest.raises(ShapeError, match="without ensemble axes"):
        Hessian(net, params, gradlab.Batch(rng.normal(size=(5, 4, 3, 2)), rng.normal(size=(5, 4, 3, 2))), MSE)
    hessian = Hessian(net, params, batch, MSE)
    with pytest.raises(ShapeError, match="v has shape"):
        hessian(np.zeros(3))
    with pytest.raises(ResourceRefused, match=f"the dense Hessian of n = {hessian.size} parameters needs"):
        dense_hessian(hessian, max_memory=1000)
    with pytest.raises(DTypeError, match=r"hessian is a ndarray; expected gradlab.analysis.Hessian"):
        dense_hessian(np.eye(3))
    with pytest.raises(ShapeError, match="size is 7; expected that of the Hessian"):
        extreme_eigenvalues(hessian, rng=rng, size=7)


# ---- parameters as a vector -------------------------------------------------------------------------------


def test_packing_and_unpacking_are_inverse_and_ensemble_axes_broadcast():
    rng = np.random.default_rng(0)
    vector = ParameterVector({"W": (2, 3), "b": (2,), "c": ()})
    params = {"W": rng.normal(size=(4, 2, 3)), "b": rng.normal(size=2), "c": np.array(7.0)}
    packed = vector.pack(params)
    assert packed.shape == (4, vector.size) == (4, 9)
    back = vector.unpack(packed)
    np.testing.assert_array_equal(back["W"], params["W"])
    np.testing.assert_array_equal(back["b"], np.broadcast_to(params["b"], (4, 2)))
    np.testing.assert_array_equal(packed[:, vector.slices["c"]], 7.0)
    with pytest.raises(ValueRangeError, match=r"params lacks \['c'\]"):
        vector.pack({"W": params["W"], "b": params["b"]})
    with pytest.raises(ShapeError, match="do not broadcast"):
        vector.pack(params | {"b": np.zeros((3, 2))})
    with pytest.raises(ShapeError, match="vector has shape"):
        vector.unpack(np.zeros(8))
