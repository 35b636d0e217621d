"""Top singular values and eigenvalues without a matrix are those of the matrix."""

import numpy as np
import pytest

from gradlab import GRU, LSTM, SCRN, Batch, Clockwork, Elman, Jordan, Network, bptt, inits, mean_squared_error
from gradlab.analysis import jacobian_product
from gradlab.analysis.matrix_free import jacobian_operator
from gradlab.analysis.wide_spectra import top_spectrum
from gradlab.errors import DTypeError, NumericalError, ShapeError, ValueRangeError

CELLS = [
    LSTM(peepholes=True),
    LSTM(coupled=True),
    GRU(),
    GRU(reset="before"),
    Elman("relu"),
    SCRN(4),
    Clockwork((1, 2, 4)),
    Jordan(7, mu=0.5),
]


def setting(cell, T=12, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    net = Network(cell, 3, 10, num_layers=2)
    params = {k: scale * v for k, v in net.init(rng).items()}
    shared = "0.R" if isinstance(cell, SCRN) else "0.U"
    params[shared] = params[shared] * np.array([2.0, 3.0]).reshape(2, 1, 1)
    batch = Batch(rng.normal(size=(T, 3, 3)), np.zeros((T, 3, net.top_size)), lengths=np.array([T, T - 3, T - 1]))
    return net, params, bptt(net, params, batch, mean_squared_error, ("states", "jacobians"))


@pytest.mark.parametrize("cell", CELLS, ids=repr)
@pytest.mark.parametrize(("first", "stop"), [(4, 5), (0, None)])
def test_the_operator_multiplies_like_the_product_of_the_recorded_jacobians(cell, first, stop):
    net, params, record = setting(cell)
    rng = np.random.default_rng(1)
    for layer in "01":
        operator = jacobian_operator(net, params, record, layer, first=first, stop=stop, sequence=1, member=(1,))
        product = jacobian_product(record.layers[layer].jacobians[first : stop or 9, 1, 1])  # 9: the row's own length
        matrix = product.mantissa * 2.0 ** float(product.exponent - operator.exponent)
        v = rng.normal(size=(operator.size, 3))
        size = np.abs(matrix).max() * np.abs(v).max() * operator.size
        assert np.abs(operator.forward(v) - matrix @ v).max() <= 1e-13 * size  # 12 products
        assert np.abs(operator.backward(v) - matrix.T @ v).max() <= 1e-13 * size


@pytest.mark.parametrize("cell", [LSTM(), GRU(), Elman("tanh")], ids=repr)
@pytest.mark.parametrize("kind", ["singular", "eigen"])
def test_top_values_without_a_matrix_are_those_of_the_product(cell, kind):
    net, params, record = setting(cell)
    operator = jacobian_operator(net, params, record, first=2, stop=6, member=(0,))
    found = top_spectrum(operator, 4, kind, rng=np.random.default_rng(0))
    product = jacobian_product(record.layers["0"].jacobians[2:6, 0, 0])
    matrix = product.mantissa
    exact = np.linalg.svd(matrix, compute_uv=False) if kind == "singular" else np.abs(np.linalg.eigvals(matrix))
    exact = np.log(np.sort(exact)[::-1][:4]) + product.exponent * np.log(2.0)
    np.testing.assert_allclose(found.log_values, exact, rtol=0, atol=1e-9)  # ARPACK at full precision, times conditions of 1e4
    assert (found.residuals < 1e-12).all()
    assert found.status.ok
    assert (np.diff(found.log_values) <= 1e-9).all()


def test_a_window_of_700_steps_has_its_largest_singular_value_in_logarithms():
    T, n = 700, 6
    Q = inits.orthogonal()(np.random.default_rng(3), (n, n))
    net = Network(Elman("linear"), 1, n)
    params = {"0.W": np.zeros((n, 1)), "0.U": 0.2 * Q, "0.b": np.zeros(n)}
    record = bptt(net, params, Batch(np.zeros((T, 1, 1)), np.zeros((T, 1, n))), mean_squared_error, ("states",))
    found = top_spectrum(jacobian_operator(net, params, record), 2, rng=np.random.default_rng(0))
    np.testing.assert_allclose(found.log_values, T * np.log(0.2), rtol=1e-10)  # -1127 nats: below every float
    assert found.status.ok


def test_a_wide_matrix_has_the_spectrum_that_lapack_gives():
    A = np.random.default_rng(4).normal(size=(200, 200))
    rng = np.random.default_rng(0)
    singular = top_spectrum(A, 5, rng=rng)
    np.testing.assert_allclose(singular.values, np.linalg.svd(A, compute_uv=False)[:5], rtol=1e-12)
    eigen = top_spectrum(A, 5, "eigen", rng=rng)
    np.testing.assert_allclose(np.abs(eigen.values), np.sort(np.abs(np.linalg.eigvals(A)))[::-1][:5], rtol=1e-10)
    again = top_spectrum(A, 5, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(again.values, singular.values)  # the same start, the same bits


def test_degenerate_operators_are_no_crash():
    rng = np.random.default_rng(5)
    np.testing.assert_allclose(top_spectrum(0.9 * inits.orthogonal()(rng, (30, 30)), 4, rng=rng).values, 0.9, rtol=1e-12)
    zero = top_spectrum(np.zeros((9, 9)), 3, rng=rng)
    assert (zero.values == 0.0).all()
    assert (zero.log_values == -np.inf).all()
    np.testing.assert_allclose(top_spectrum(np.eye(9), 3, "eigen", rng=rng).values, 1.0, rtol=1e-12)


@pytest.mark.parametrize("kind", ["singular", "eigen"])
def test_what_does_not_converge_is_told_and_is_nan(kind):
    found = top_spectrum(
        np.random.default_rng(6).normal(size=(300, 300)), 5, kind, rng=np.random.default_rng(0), max_iterations=1
    )
    assert found.status.code == "nonconverged"
    missing = np.isnan(found.values)
    assert missing.any()
    np.testing.assert_array_equal(missing, np.isnan(found.residuals))
    strict = top_spectrum(np.random.default_rng(6).normal(size=(60, 60)), 3, kind, rng=np.random.default_rng(0), tolerance=1e-30)
    assert strict.status.code == "nonconverged"
    assert "0 of 3" in strict.status.detail


def test_bad_arguments_are_refused_by_name():
    net, params, record = setting(LSTM())
    with pytest.raises(ValueRangeError, match=r"member is \(\); expected one index"):
        jacobian_operator(net, params, record)
    with pytest.raises(ValueRangeError, match="sequence is 3"):
        jacobian_operator(net, params, record, member=(0,), sequence=3)
    with pytest.raises(ValueRangeError, match="stop is 12; expected 0 <= first < stop <= 9"):
        jacobian_operator(net, params, record, member=(0,), sequence=1, stop=12)
    with pytest.raises(ValueRangeError, match="layer is '5'"):
        jacobian_operator(net, params, record, "5", member=(0,))
    rng = np.random.default_rng(0)
    with pytest.raises(ValueRangeError, match="k is 9; expected at most S - 2 = 8"):
        top_spectrum(np.eye(10), 9, rng=rng)
    with pytest.raises(ShapeError, match=r"operator has shape \(2, 3\)"):
        top_spectrum(np.zeros((2, 3)), 1, rng=rng)
    with pytest.raises(ValueRangeError, match="kind is 'all'"):
        top_spectrum(np.eye(10), 2, "all", rng=rng)
    with pytest.raises(DTypeError, match="rng is 0"):
        top_spectrum(np.eye(10), 2, rng=0)
    small = Network(Elman("relu"), 1, 2)
    narrow = {k: v.astype(np.float32) for k, v in small.init(rng).items()}
    x = np.ones((4, 1, 1), np.float32)
    record = bptt(small, narrow, Batch(x, np.zeros((4, 1, 2), np.float32)), mean_squared_error, ("states",))
    with pytest.raises(DTypeError, match="float32; expected float64"):
        jacobian_operator(small, narrow, record)
    wild = {"0.W": np.ones((2, 1)), "0.U": np.full((2, 2), 1e200), "0.b": np.ones(2)}
    record = bptt(small, wild, Batch(np.ones((4, 1, 1)), np.zeros((4, 1, 2))), mean_squared_error, ("states",))
    with pytest.raises(NumericalError, match="not finite in the window"):
        jacobian_operator(small, wild, record)


@pytest.mark.parametrize("kind", ["singular", "eigen"])
@pytest.mark.parametrize("exponent", [-1000, 1000])
def test_wide_matrices_at_the_ends_of_the_range_keep_their_spectrum(kind, exponent):
    A = np.random.default_rng(0).normal(size=(30, 30))
    one, other = (top_spectrum(M, 3, kind, rng=np.random.default_rng(1)) for M in (A, np.ldexp(A, exponent)))
    assert one.status.ok
    assert other.status.ok
    np.testing.assert_allclose(other.log_values - exponent * np.log(2.0), one.log_values, rtol=0, atol=1e-12)  # eps of 693
