"""Products of many Jacobians with known norms, far beyond the range of floats."""

import itertools

import numpy as np
import pytest

from gradlab import LSTM, Batch, Network, bptt, inits, mean_squared_error
from gradlab.analysis import jacobian_product, product_growth
from gradlab.analysis.products import path_products
from gradlab.errors import DTypeError, GradlabError, ShapeError

LN2 = np.log(2.0)


def value(product):
    """The product as a plain matrix, where it fits."""
    return product.mantissa * 2.0 ** product.exponent[..., None, None].astype(float)


def test_a_hundred_thousand_orthogonal_factors_leave_ln_g_a_step():
    rng, T, gains = np.random.default_rng(0), 100_000, np.array([0.5, 2.0, 1.1])
    pool = [gains[:, None, None] * inits.orthogonal()(rng, (4, 4)) for _ in range(500)]
    product = jacobian_product(itertools.islice(itertools.cycle(pool), T))
    assert product.steps == T
    assert product.status.ok
    # Each factor is orthogonal to 1e-15, so 1e5 of them drift by 1e-10 at most; relative to 1e4 and 7e4 nats.
    np.testing.assert_allclose(product.log_largest, T * np.log(gains), rtol=1e-9)
    np.testing.assert_allclose(product.log_norm, T * np.log(gains) + 0.5 * np.log(4.0), rtol=1e-9)  # four equal singular values


@pytest.mark.parametrize("rho", [0.8, 1.5])
def test_five_thousand_gaussian_factors_grow_by_the_known_exponent(rho):
    # N x N Gaussians of variance rho^2/N: lambda_1 = ln rho + [ln(2/N) + digamma(N/2)]/2; digamma(4) = 1.2561176684318.
    rng, T, N = np.random.default_rng(1), 5000, 8
    product = jacobian_product(rng.normal(size=(T, N, N)) * rho / np.sqrt(N))
    expected = np.log(rho) + 0.5 * (np.log(2.0 / N) + 1.2561176684318)
    # Each step scatters by sqrt(trigamma(4))/2 = 0.27: four standard deviations of the mean of 5000.
    assert abs(product.log_largest / T - expected) <= 4.0 * 0.27 / np.sqrt(T)


def test_a_diagonal_map_has_its_own_logarithms_at_any_length():
    J = np.diag([1.1, 0.8])
    for T in (1, 10, 1000, 20_000):
        product = jacobian_product(J for _ in range(T))
        # One rounding in each step's product and none in the scaling.
        np.testing.assert_allclose(product.log_largest, T * np.log(1.1), rtol=1e-13)
        np.testing.assert_allclose(
            product.log_norm, product.log_largest if T > 999 else np.log(np.hypot(1.1**T, 0.8**T)), rtol=1e-12
        )


def test_one_factor_is_its_own_product():
    J = np.random.default_rng(2).normal(size=(5, 5))
    product = jacobian_product([J])
    np.testing.assert_array_equal(value(product), J)  # scaling by powers of two is exact
    np.testing.assert_allclose(product.log_largest, np.log(np.linalg.norm(J, 2)), rtol=1e-14)  # the same SVD, scaled
    np.testing.assert_allclose(product.log_norm, np.log(np.linalg.norm(J)), rtol=1e-14)
    assert product.steps == 1


def test_the_first_factor_acts_first():
    J1, J2, J3 = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [3.0, 1.0]]), np.array([[0.0, 1.0], [5.0, 0.0]])
    product = value(jacobian_product([J1, J2, J3]))
    np.testing.assert_array_equal(product, J3 @ J2 @ J1)  # small integers: exact
    assert not np.array_equal(product, J1 @ J2 @ J3)


def test_a_zero_factor_makes_the_product_exactly_zero():
    product = jacobian_product([np.eye(3), np.zeros((3, 3)), 5.0 * np.eye(3)])
    np.testing.assert_array_equal(product.mantissa, 0.0)
    assert product.log_norm == product.log_largest == -np.inf
    assert product.status.ok  # zero is a number


def test_a_nilpotent_matrix_vanishes_exactly_at_its_size():
    N = np.diag(np.ones(3), 1)
    for T, log in ((1, 0.0), (2, 0.0), (3, 0.0), (4, -np.inf), (9, -np.inf)):
        product = jacobian_product([N] * T)
        assert product.log_largest == log  # entries 0 and 1, singular values 0 and 1
    assert not np.isnan(product.log_norm)


@pytest.mark.parametrize("scale", [1e300, 1e-300, 1e200, 5e-324])
def test_factors_at_the_ends_of_the_range_neither_overflow_nor_vanish(scale):
    rng = np.random.default_rng(3)
    Q = [inits.orthogonal()(rng, (3, 3)) if scale > 1e-300 else np.eye(3)[rng.permutation(3)] for _ in range(50)]
    product = jacobian_product(scale * q for q in Q)
    np.testing.assert_allclose(product.log_largest, 50 * np.log(scale), rtol=1e-14)  # orthogonal to 1e-15
    assert product.status.ok


def test_minus_the_identity_has_norm_one_forever():
    product = jacobian_product([-np.eye(4)] * 1001)
    assert product.log_largest == 0.0
    np.testing.assert_array_equal(value(product), -np.eye(4))


def test_a_non_normal_matrix_shows_its_transient_growth():
    J = np.array([[0.9, 100.0], [0.0, 0.9]])
    logs = [float(jacobian_product([J] * t).log_largest) for t in (*range(1, 30), 399)]
    # J^t = [[.9^t, 100 t .9^(t-1)], [0, .9^t]]: 387 at t = 9 or 10 though the spectral radius is 0.9.
    assert int(np.argmax(logs)) + 1 in (9, 10)
    np.testing.assert_allclose(np.exp(max(logs)), 387.42, rtol=1e-4)  # five digits
    np.testing.assert_allclose(logs[-1], np.log(100.0 * 399) + 398 * np.log(0.9), rtol=1e-6)  # diagonal: 1e-5 of it


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_factor_that_is_not_finite_is_reported_with_its_step_and_without_a_warning(bad, step):
    factors = [np.array([[0.5, 1.0], [-1.0, 0.25]]) for _ in range(5)]
    factors[step - 1][0, 1] = bad
    product = jacobian_product(factors)
    assert str(product.status) == f"overflow: Jacobian of step {step} is not finite"
    assert np.isnan(product.log_largest)
    assert not np.isfinite(product.log_norm)
    assert product.steps == 5


def test_a_bad_member_does_not_spoil_the_others():
    factors = np.tile(2.0 * np.eye(2), (4, 3, 1, 1))
    factors[2, 1] = np.nan
    product = jacobian_product(factors)
    assert product.status.code == "overflow"
    np.testing.assert_allclose(product.log_norm[[0, 2]], 4.0 * LN2 + 0.5 * LN2, rtol=1e-14)  # two entries of 16
    np.testing.assert_allclose(product.log_largest[[0, 2]], 4.0 * LN2, rtol=1e-14)
    assert np.isnan(product.log_largest[1])


def test_leading_axes_are_products_of_their_own():
    factors = np.random.default_rng(4).normal(size=(30, 2, 3, 4, 4))
    together = jacobian_product(factors)
    for index in np.ndindex(2, 3):
        single = jacobian_product(factors[(slice(None), *index)])
        np.testing.assert_allclose(together.log_largest[index], single.log_largest, rtol=1e-13)  # 30 products, another kernel
        assert together.exponent[index] == single.exponent


def test_complex_factors_multiply_like_complex_numbers():
    z = np.exp(0.3 + 0.7j)
    product = jacobian_product([np.array([[z]])] * 2000)
    np.testing.assert_allclose(product.log_largest, 2000 * 0.3, rtol=1e-13)  # 2000 roundings, relative to 600
    # The angle of the mantissa is that of z^2000.
    np.testing.assert_allclose(np.exp(1j * np.angle(product.mantissa[0, 0])), np.exp(1j * 0.7 * 2000), rtol=1e-11)


def test_float32_factors_reach_beyond_float32():
    product = jacobian_product([np.float32(0.5) * np.eye(2, dtype=np.float32)] * 10_000)
    np.testing.assert_allclose(product.log_largest, -10_000 * LN2, rtol=1e-12)  # powers of two: only the logarithm rounds


def test_entries_that_vanish_beside_larger_ones_raise_no_floating_point_error():
    with np.errstate(all="raise"):
        product = jacobian_product([np.diag([1.0, 1e-200])] * 3)
    assert product.log_largest == 0.0


def test_factors_are_not_modified():
    J = np.random.default_rng(5).normal(size=(3, 2, 2))
    before = J.copy()
    jacobian_product(J)
    np.testing.assert_array_equal(J, before)


def test_an_iterator_is_read_once_and_never_held_whole():
    alive = 0

    def stream():
        nonlocal alive
        for _ in range(100):
            alive += 1
            yield np.eye(2)

    assert jacobian_product(stream()).steps == alive == 100
    with pytest.raises(GradlabError, match="empty"):
        jacobian_product(iter(()))


# ---- backward, and along single parts ------------------------------------------------------------------------------


def test_factors_that_come_last_step_first_give_the_same_product():
    factors = np.random.default_rng(6).normal(size=(300, 2, 4, 4))
    forward, backward = jacobian_product(factors), jacobian_product(factors[::-1], reverse=True)
    np.testing.assert_allclose(backward.log_norm, forward.log_norm, rtol=1e-13)  # 300 products, associated otherwise
    np.testing.assert_allclose(value(backward), value(forward), rtol=1e-9)  # entries that cancel
    factors[7, 1, 2, 2] = np.nan
    assert jacobian_product(factors).status.detail == "Jacobian of step 8 is not finite"
    assert jacobian_product(factors[::-1], reverse=True).status.detail == "Jacobian of step 8 is not finite"


def lstm_record(T=300, scale=1.0, **options):
    rng = np.random.default_rng(7)
    net = Network(LSTM(**options), 2, 3, output_size=1)
    params = {k: scale * rng.uniform(-0.8, 0.8, s) for k, s in net.shapes.items()}
    params["0.b"] = rng.uniform(1.0, 3.0, params["0.b"].shape)
    return net, params, Batch(rng.normal(size=(T, 2, 2)), rng.normal(size=(T, 2, 1)))


def test_without_recurrent_weights_the_c_path_is_the_product_of_the_forget_gates_and_all_there_is():
    net, params, batch = lstm_record()
    params["0.U"] = np.zeros_like(params["0.U"])
    layer = bptt(net, params, batch, mean_squared_error, ("gates", "jacobians")).layers["0"]
    paths = path_products(layer.jacobians, layer.parts)
    log_f = np.log(layer.gates["f"]).sum(axis=0)  # (B, H), from -10 to -60
    c = paths.products["c"]
    with np.errstate(divide="ignore"):
        logs = np.log(np.diagonal(c.mantissa, axis1=-2, axis2=-1)) + c.exponent[:, None] * LN2
    np.testing.assert_allclose(logs, log_f, rtol=1e-12)  # 300 products, in logarithms
    off = c.mantissa - np.einsum("bi,ij->bij", np.diagonal(c.mantissa, axis1=-2, axis2=-1), np.eye(3))
    assert not off.any()
    full = paths.products["full"]
    np.testing.assert_array_equal(full.mantissa[:, :3, :3] * 2.0 ** (full.exponent - c.exponent)[:, None, None], c.mantissa)
    assert not paths.products["h"].mantissa.any()  # dh_t/dh_{t-1} = 0
    assert (paths.log_gain["h"][1:] == -np.inf).all()


def test_paths_are_the_products_of_blocks_and_differ_from_the_blocks_of_the_product():
    net, params, batch = lstm_record(T=20, peepholes=True)
    layer = bptt(net, params, batch, mean_squared_error, ("jacobians",)).layers["0"]
    paths = path_products(layer.jacobians, layer.parts)
    J = layer.jacobians
    for name, at in (("c", slice(0, 3)), ("h", slice(3, 6)), ("full", slice(0, 6))):
        direct = np.broadcast_to(np.eye(at.stop - at.start), (2, at.stop - at.start, at.stop - at.start))
        for t in range(20):
            direct = J[t][:, at, at] @ direct
            rms = np.sqrt((np.linalg.svd(direct, compute_uv=False) ** 2).mean(axis=-1))
            np.testing.assert_allclose(np.exp(paths.log_gain[name][t + 1]), rms, rtol=1e-11)  # 20 products
        np.testing.assert_allclose(value(paths.products[name]), direct, rtol=1e-10, atol=1e-15)
        assert (paths.log_gain[name][0] == 0.0).all()
    assert np.abs(value(paths.products["full"])[:, :3, :3] - value(paths.products["c"])).max() > 1e-3
    back = path_products(J[::-1], layer.parts, reverse=True)
    np.testing.assert_allclose(value(back.products["h"]), value(paths.products["h"]), rtol=1e-10, atol=1e-15)


def test_a_path_that_is_no_part_of_the_state_is_refused():
    with pytest.raises(GradlabError, match=r'parts\["c"\] is \(0, 5\); expected columns of a state of 4'):
        path_products([np.eye(4)], {"c": (0, 5)})
    with pytest.raises(GradlabError, match="another name"):
        path_products([np.eye(4)], {"full": (0, 2)})
    with pytest.raises(GradlabError, match="empty"):
        path_products([], {"c": (0, 2)})


@pytest.mark.parametrize("call", [jacobian_product, lambda J: path_products(J, {"h": (0, 1)}), product_growth])
@pytest.mark.parametrize(
    ("factor", "error"),
    [
        (np.array([[1, 2], [3, None]]), DTypeError),
        (np.eye(2, dtype=bool), DTypeError),
        (np.eye(2, dtype=np.longdouble), DTypeError),
        (np.ones(2), ShapeError),
        (np.ones((2, 3)), ShapeError),
        (np.zeros((0, 2, 2)), ShapeError),
        (np.zeros((0, 0)), ShapeError),
    ],
)
def test_a_factor_that_is_no_matrix_of_numbers_is_refused_with_its_place(call, factor, error):
    with pytest.raises(error, match=r"jacobians\[0\] has"):
        call([factor, factor])


def test_what_holds_no_factors_is_refused_by_name():
    with pytest.raises(DTypeError, match="jacobians is a int; expected an iterable of arrays"):
        jacobian_product(3)
