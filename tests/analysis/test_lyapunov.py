"""Lyapunov exponents of maps, flows, random products and networks whose exponents are known, and of what has none."""

import functools
import importlib
import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab import GRU, LSTM, SCRN, Clockwork, Elman, Jordan, Network, inits, irnn
from gradlab.analysis._lyapunov_care import step_with_care
from gradlab.analysis._lyapunov_meter import Blocks
from gradlab.analysis._lyapunov_qr import Frame, Growth
from gradlab.analysis.driven_lyapunov import network_lyapunov
from gradlab.analysis.lyapunov import lyapunov_spectrum
from gradlab.analysis.lyapunov_map import lyapunov_of_map, runge_kutta
from gradlab.analysis.mean_field_theory import random_tanh_map
from gradlab.analysis.stacked_jacobian import network_jacobian
from gradlab.analysis.theory import gaussian_product_exponents
from gradlab.backward import bptt
from gradlab.batch import Batch
from gradlab.errors import DTypeError, GradlabError, NumericalError, ResourceRefused, ShapeError, ValueRangeError
from gradlab.forward_pass import forward
from gradlab.losses import mean_squared_error

network_module = importlib.import_module("gradlab.analysis.driven_lyapunov")
pushes_module = importlib.import_module("gradlab.analysis._lyapunov_pushes")


def rng(seed=0):
    return np.random.default_rng(seed)


def log_det(J):
    """Mean ln |det J_t| over time, for every member."""
    return np.linalg.slogdet(np.asarray(J))[1].mean(axis=0)


def cycle(J, periods):
    return list(J) * periods


# ---- exact identities ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 9, 500])
@pytest.mark.parametrize("gain", [1e-300, 0.5, 1.0, 3.0, 1e300])
def test_a_gain_times_orthogonal_matrices_has_all_exponents_ln_g_at_any_length(T, gain):
    J = [gain * inits.orthogonal()(rng(t), (5, 5)) for t in range(T)]
    result = lyapunov_spectrum(J, rng=rng())
    np.testing.assert_allclose(result.exponents, np.log(gain), rtol=1e-13, atol=1e-13)  # rounding of 5 x 5 algebra
    assert result.status.code == ("too-short" if T == 1 else "ok")
    assert result.steps + result.transient == T


def test_a_diagonal_map_has_the_logarithms_of_its_entries():
    result = lyapunov_spectrum(itertools.repeat(np.diag([0.8, 1.1]), 2000), rng=rng(), transient=200)
    # The vectors have aligned to (0.8/1.1)^200 = 1e-28; then one rounding a step.
    np.testing.assert_allclose(result.exponents, np.log([1.1, 0.8]), rtol=1e-13)
    assert result.interval > 5  # 0.32 nats a step between the two, 10 nats to lose


@pytest.mark.parametrize("T", [1, 7, 300])
@pytest.mark.parametrize("S", [1, 2, 6, 40])
def test_all_exponents_together_are_the_mean_log_determinant(T, S):
    J = rng(S).normal(size=(T, 3, S, S))
    result = lyapunov_spectrum(J, rng=rng(), transient=0)
    bound = 1e-12 * np.abs(result.exponents).sum(axis=-1)  # 100 to 1000 roundings, of the sum of their sizes
    assert (np.abs(result.exponents.sum(axis=-1) - log_det(J)) <= bound).all()
    assert (np.diff(result.exponents, axis=-1) <= 0.0).all()


@given(
    seed=st.integers(0, 10**6),
    S=st.integers(1, 5),
    T=st.integers(1, 40),
    lead=st.sampled_from([(), (2,), (2, 3)]),
    decades=st.floats(-120.0, 120.0),
    spread=st.floats(0.0, 3.0),
)
def test_the_determinant_identity_holds_for_any_random_product(seed, S, T, lead, decades, spread):
    draw = rng(seed)
    J = draw.normal(size=(T, *lead, S, S)) * 10.0 ** (decades + spread * draw.normal(size=(T, *lead, 1, 1)))
    result = lyapunov_spectrum(J, rng=draw, transient=0)
    assert (np.abs(result.exponents.sum(axis=-1) - log_det(J)) <= 1e-9 * np.abs(result.exponents).sum(axis=-1) + 1e-13).all()
    # A gain adds its logarithm to each exponent; powers of two are exact.
    shifted = lyapunov_spectrum(np.ldexp(J, 40), rng=rng(seed), transient=0)
    again = lyapunov_spectrum(J, rng=rng(seed), transient=0)
    np.testing.assert_allclose(shifted.exponents, again.exponents + 40.0 * np.log(2.0), rtol=1e-8, atol=1e-9)


def periodic(seed=3):
    """Three Jacobians whose product has the eigenvalues 2, -1/2, 1/4, 1/10, and these."""
    draw, values = rng(seed), np.array([2.0, -0.5, 0.25, 0.1])
    J1, J2, V = draw.normal(size=(3, 4, 4))
    product = V @ np.diag(values) @ np.linalg.inv(V)
    return [J1, J2, product @ np.linalg.inv(J2 @ J1)], values


def test_a_periodic_sequence_has_the_eigenvalues_of_its_period():
    J, values = periodic()
    result = lyapunov_spectrum(cycle(J, 200), rng=rng(), transient=150)
    # Aligned to (1/2)^50 per pair of neighbours; blocks end inside a period, so count whole periods: 450 steps.
    np.testing.assert_allclose(result.exponents, np.log(np.abs(values)) / 3.0, rtol=1e-10)  # condition of V about 1e3


def test_backward_with_transposes_is_the_same_spectrum_and_forward_with_transposes_is_another():
    J, values = periodic()
    transposed = [M.T for M in J]
    backward = lyapunov_spectrum(cycle(transposed[::-1], 200), rng=rng(), transient=150)
    np.testing.assert_allclose(backward.exponents, np.log(np.abs(values)) / 3.0, rtol=1e-10)  # as above
    wrong = lyapunov_spectrum(cycle(transposed, 200), rng=rng(), transient=150)
    assert np.abs(wrong.exponents - backward.exponents).max() > 0.05  # the product J1 J2 J3 has other eigenvalues,
    np.testing.assert_allclose(wrong.exponents.sum(), backward.exponents.sum(), rtol=1e-12)  # and the same determinant


def test_state_and_pre_activation_have_the_same_exponents_up_to_one_over_t():
    gaps = []
    for T in (500, 2000):
        draw = rng(4)
        U = draw.normal(size=(5, 5))
        slopes = 1.0 / np.cosh(draw.normal(size=(T + 1, 5, 1))) ** 2
        state = lyapunov_spectrum(slopes[1:] * U, rng=rng(), transient=0)  # D_t U
        pre = lyapunov_spectrum(U * np.swapaxes(slopes[:-1], -1, -2), rng=rng(), transient=0)  # U D_{t-1}
        gaps.append(T * np.abs(state.exponents - pre.exponents).max())
    assert 0.0 < max(gaps) < 15.0  # the two products differ by one factor D and one U: a few nats, at any T


# ---- maps and flows --------------------------------------------------------------------------------------------


def test_the_logistic_map_at_four_has_the_exponent_ln_2():
    def step(s):
        return 4.0 * s * (1.0 - s)

    T, s0 = 2000, np.sin(rng(1).uniform(0.0, np.pi / 2.0, (100, 1))) ** 2  # from the invariant density
    result = lyapunov_of_map(step, lambda s: (4.0 - 8.0 * s)[..., None], s0, T, rng=rng(), transient=0)
    last = s0
    for _ in range(T):
        last = step(last)
    # x = sin^2 theta turns the map into theta -> 2 theta, so |f'(x_t)| = 2 r(x_{t+1})/r(x_t) with r = sqrt(x (1 - x)).
    exact = np.log(2.0) + 0.5 * np.log(last * (1.0 - last) / (s0 * (1.0 - s0))) / T
    np.testing.assert_allclose(result.exponents, exact, rtol=0, atol=1e-8)  # rounding where x is within 1e-7 of 1
    assert abs(result.mean[0] - np.log(2.0)) < 2e-4  # ln r scatters by 0.9: 1.3/(2000 sqrt(100)) = 6e-5
    assert result.unit == "nats per step"


def test_the_henon_map_has_its_published_exponents_and_dimension():
    a, b = 1.4, 0.3

    def step(s):
        x, y = s[..., 0], s[..., 1]
        return np.stack([1.0 - a * x * x + y, b * x], axis=-1)

    def jacobian(s):
        J = np.zeros((*s.shape, 2))
        J[..., 0, 0], J[..., 0, 1], J[..., 1, 0] = -2.0 * a * s[..., 0], 1.0, b
        return J

    s0 = rng(2).uniform(-0.1, 0.1, (40, 2))
    result = lyapunov_of_map(step, jacobian, s0, 2600, rng=rng(), transient=100)
    np.testing.assert_allclose(result.exponents.sum(axis=-1), np.log(0.3), rtol=1e-13)  # det J = -b at every point
    np.testing.assert_allclose(result.mean, [0.41922, -1.62319], rtol=0, atol=3e-3)  # 1e5 steps in all
    assert (4.0 * result.mean_error < 6e-3).all()
    np.testing.assert_allclose(result.kaplan_yorke.mean(), 1.25827, rtol=0, atol=3e-3)
    np.testing.assert_array_equal(result.entropy, result.exponents[..., 0])  # the only positive one


def test_the_lorenz_flow_has_its_published_exponents_and_the_trace_of_its_field():
    def field(s):
        x, y, z = s[..., 0], s[..., 1], s[..., 2]
        return np.stack([10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z], axis=-1)

    def field_jacobian(s):
        A = np.zeros((*s.shape, 3))
        A[..., 0, 0], A[..., 0, 1], A[..., 1, 1], A[..., 2, 2] = -10.0, 10.0, -1.0, -8.0 / 3.0
        A[..., 1, 0], A[..., 1, 2], A[..., 2, 0], A[..., 2, 1] = 28.0 - s[..., 2], -s[..., 0], s[..., 1], s[..., 0]
        return A

    dt = 0.005
    step, jacobian = runge_kutta(field, field_jacobian, dt)
    s0 = np.array([1.0, 1.0, 20.0]) + rng(3).normal(size=(40, 3))
    result = lyapunov_of_map(step, jacobian, s0, 6500, rng=rng(), dt=dt, transient=1500)  # 1000 units of time in all
    assert result.unit == "nats per unit of time"
    np.testing.assert_allclose(result.mean, [0.9056, 0.0, -14.5723], rtol=0, atol=0.02)
    assert (result.mean_error < 0.02).all()
    np.testing.assert_allclose(result.exponents.sum(axis=-1), -41.0 / 3.0, rtol=0, atol=1e-4)  # the method's own error
    assert abs(result.kaplan_yorke.mean() - 2.06215) < 0.01


def test_the_step_of_the_flow_is_differentiated_exactly():
    def field(s):
        return np.stack([np.sin(s[..., 1]), s[..., 0] * s[..., 1]], axis=-1)

    def field_jacobian(s):
        row = np.stack([np.zeros_like(s[..., 0]), np.cos(s[..., 1])], axis=-1)
        return np.stack([row, s[..., ::-1]], axis=-2)

    step, jacobian = runge_kutta(field, field_jacobian, 0.3)
    s = rng(5).normal(size=(4, 2))
    columns = [np.imag(step(s + 1e-200j * e)) / 1e-200 for e in np.eye(2)]
    np.testing.assert_allclose(jacobian(s), np.stack(columns, axis=-1), rtol=1e-13)  # complex step
    step, _ = runge_kutta(lambda s: -s, lambda s: -np.ones((*s.shape, 1)), 0.3)
    # Of order four: 1 - h + ... + h^4/24 misses exp(-h) by h^5/120, up to a factor 1 - h/6.
    np.testing.assert_allclose(step(np.ones(1)) - np.exp(-0.3), 0.3**5 / 120.0, rtol=0.3 / 6.0)


@pytest.mark.parametrize("N", [2, 5])
def test_products_of_gaussian_matrices_have_newmans_exponents(N):
    J = rng(6).normal(size=(1000, 60, N, N)) / np.sqrt(N)
    result = lyapunov_spectrum(J, rng=rng(), transient=20)
    exact = gaussian_product_exponents(N)
    if N == 2:
        np.testing.assert_allclose(exact, [-0.288608, -0.981755], rtol=0, atol=1e-6)
    assert (np.abs(result.mean - exact) <= 4.0 * result.mean_error).all()  # four standard errors,
    assert (result.mean_error < 0.005).all()  # which are small


# ---- random networks -------------------------------------------------------------------------------------------


def tanh_network(N, gains, T, k, seed=0, transient=300):
    net = Network(Elman(), 1, N)
    draw = rng(seed)
    U = np.stack([inits.gaussian(g)(draw, (N, N)) for g in gains])
    params = {"0.W": np.zeros((N, 1)), "0.U": U, "0.b": np.zeros(N)}
    start = {"0": draw.normal(size=(len(gains), 1, N))}
    inputs = np.zeros((T, 1, 1))
    return network_lyapunov(net, params, inputs, k, rng=draw, initial_states=start, transient=transient)["0"]


@pytest.mark.parametrize(("gain", "tolerance"), [(1.5, 0.03), (3.0, 0.02)])
def test_a_wide_random_network_has_the_exponent_of_mean_field_theory(gain, tolerance):
    result = tanh_network(400, [gain] * 5, 1100, 1, seed=1)
    # finite networks stay below: 0.011 (0.005) at 1.5, 0.007 (0.002) at 3 for N = 400; median of five
    assert abs(np.median(result.exponents) - random_tanh_map(gain).largest) < tolerance
    assert result.status.ok


def test_the_spectrum_of_a_wide_random_network_follows_free_probability():
    N, k = 150, 60
    result = tanh_network(N, [3.0], 500, k, seed=0, transient=150)
    theory = random_tanh_map(3.0).spectrum((np.arange(k) + 0.5) / N)
    # Free products are an approximation where all Jacobians share U: 0.04 at N = 200; here 0.02 to 0.09 over six seeds.
    assert np.abs(result.exponents[0, 0] - theory)[5:].max() < 0.06
    assert theory[5] - theory[-1] > 0.6  # the range that they follow


def test_below_the_edge_the_exponent_is_that_of_the_origin():
    result = tanh_network(30, [0.5, 0.8], 900, 3, seed=3, transient=400)
    for member, gain in enumerate((0.5, 0.8)):
        U = tanh_matrix(30, (0.5, 0.8), member)
        radius = np.abs(np.linalg.eigvals(U)).max()
        # The leading eigenvalues turn the vectors round: the mean over 500 steps is off by a fraction of a nat over them.
        assert abs(result.exponents[member, 0, 0] - np.log(radius)) < 5e-3, gain


def tanh_matrix(N, gains, member, seed=3):
    draw = rng(seed)
    return [inits.gaussian(g)(draw, (N, N)) for g in gains][member]


# ---- networks --------------------------------------------------------------------------------------------------


class Leaky:
    """A user's cell: h_t = h_{t-1}/2 + tanh(U h_{t-1} + x_t)/2, nothing but `init` and `step`."""

    def __repr__(self):
        return "Leaky()"

    def init(self, rng, input_size, hidden_size):
        return {"W": rng.normal(size=(hidden_size, input_size)), "U": rng.normal(size=(hidden_size, hidden_size))}

    def step(self, params, x_t, s_prev, t):
        return 0.5 * s_prev + 0.5 * np.tanh(x_t @ params["W"].T + s_prev @ params["U"].T)


CELLS = [
    Elman(),
    Elman("relu"),
    LSTM(),
    LSTM(peepholes=True),
    LSTM(coupled=True),
    LSTM(forget_gate=False),
    GRU(),
    SCRN(3),
    Clockwork((1, 2)),
    Jordan(3),
    Leaky(),
]


@pytest.mark.parametrize("cell", CELLS, ids=repr)
@pytest.mark.parametrize("k", [2, None])
def test_a_network_has_the_exponents_of_its_jacobians(cell, k, monkeypatch):
    monkeypatch.setattr(network_module, "CHUNK", 2000)  # a few steps: many chunks
    monkeypatch.setattr(pushes_module, "FEW", 3000)
    monkeypatch.setattr(pushes_module, "FEW_TAPES", 3000)
    draw = rng(7)
    net = Network(cell, 2, 4)
    params = {key: np.stack([value, 1.3 * value]) for key, value in net.init(draw).items()}  # an ensemble of two
    x = draw.normal(size=(60, 3, 2))
    straight = network_lyapunov(net, params, x, k, rng=rng(8), transient=4)["0"]
    stored = lyapunov_spectrum(forward(net, params, x).runs["0"].jacobians(), k, rng=rng(8), transient=4)
    assert straight.exponents.shape == (2, 3, k or stored.exponents.shape[-1])
    # Chunks and products round differently, and the flow of the vectors amplifies it: 1e-9 relative to sizes of about 1.
    np.testing.assert_allclose(straight.exponents, stored.exponents, rtol=1e-9, atol=1e-9)
    assert straight.status.code == stored.status.code
    assert straight.steps == 56


def test_an_lstm_without_recurrent_weights_keeps_its_cells_and_forgets_its_outputs():
    net = Network(LSTM(), 2, 3)
    params = net.init(rng(), forget_bias=1.0)
    params["0.U"][...] = 0.0
    params["0.W"][3:6] = 0.0  # the forget gate sees its bias alone
    result = network_lyapunov(net, params, rng(1).normal(size=(50, 2, 2)), rng=rng())["0"]
    # J = [[f I, 0], [G f, 0]]: ln f for each cell, and nothing of h_{t-1} arrives; a Jacobian without c would have only -inf.
    np.testing.assert_allclose(result.exponents[..., :3], -np.log1p(np.exp(-1.0)), rtol=0, atol=5e-2)  # G turns the vectors once
    assert np.isneginf(result.exponents[..., 3:]).all()
    assert result.status.code == "rank-deficient"
    assert not np.isnan(result.exponents).any()


def test_scrn_has_the_exponent_of_its_context_as_often_as_it_has_context_units():
    net = Network(SCRN(4, alpha=0.95), 2, 3)
    params = net.init(rng(2), recurrent_init=inits.gaussian(2.0))
    x = rng(3).normal(size=(1500, 1, 2))
    result = network_lyapunov(net, params, x, rng=rng(), transient=200)["0"]
    run = forward(net, params, x).runs["0"]
    hidden = lyapunov_spectrum(run.jacobians()[..., 4:, 4:], rng=rng(), transient=200)  # the products of diag(h') R
    np.testing.assert_allclose(result.exponents[0, :4], np.log(0.95), rtol=0, atol=1e-8)  # P tilts the vectors by 1e-3: 1e-6/1300
    np.testing.assert_allclose(result.exponents[0, 4:], hidden.exponents[0], rtol=0, atol=5e-3)  # a few nats over 1300 steps


def test_the_exponents_of_a_stack_are_those_of_its_layers():
    draw, T = rng(4), 1500
    net = Network(Elman(), 2, 3, num_layers=2)
    params = net.init(draw, recurrent_init=inits.gaussian(0.9))
    x = draw.normal(size=(T, 1, 2))
    layers = network_lyapunov(net, params, x, rng=rng(), transient=100)
    record = bptt(net, params, Batch(x, np.zeros((T, 1, 3))), mean_squared_error, keep=("states",))
    joint = lyapunov_spectrum(network_jacobian(net, params, record).matrix, rng=rng(), transient=100)
    union = np.sort(np.concatenate([own.exponents[0] for own in layers.values()]))[::-1]
    np.testing.assert_allclose(joint.exponents[0], union, rtol=0, atol=5e-3)  # what the coupling does ends within a few steps
    # Layers of different sizes of state: each gives what it has.
    mixed = Network([LSTM(), Elman()], 2, 3)
    found = network_lyapunov(mixed, mixed.init(draw), x[:30], 5, rng=rng())
    assert found["0"].exponents.shape == (1, 5)
    assert found["1"].exponents.shape == (1, 3)


# In float32 the two round differently by some 1e-7 a step, which grows while the exponents are above 0; in float64 as above.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_lstms_in_levels_and_directions_have_the_exponents_of_their_jacobians(dtype, tolerance):
    net = Network(LSTM(), 2, 3, bidirectional=True, num_layers=2)
    params = {key: value.astype(dtype) for key, value in net.init(rng()).items()}
    x = rng(1).normal(size=(40, 2, 2)).astype(dtype)
    found = network_lyapunov(net, params, x, rng=rng(2), transient=0)
    for name, run in forward(net, params, x).runs.items():
        stored = lyapunov_spectrum(run.jacobians().astype(float), rng=rng(2), transient=0)
        if name == "0.forward":  # the others draw their first vectors later
            np.testing.assert_allclose(found[name].exponents, stored.exponents, rtol=0, atol=tolerance)
        assert found[name].exponents.dtype == np.float64
        np.testing.assert_allclose(found[name].exponents.sum(axis=-1), stored.exponents.sum(axis=-1), rtol=0, atol=tolerance)


def test_both_directions_of_a_bidirectional_network_have_spectra_of_their_own():
    net = Network(GRU(), 2, 3, bidirectional=True, num_layers=2)
    params, x = net.init(rng(5)), rng(6).normal(size=(40, 2, 2))
    found = network_lyapunov(net, params, x, rng=rng(), transient=0)
    runs = forward(net, params, x).runs
    assert list(found) == ["0.forward", "0.backward", "1.forward", "1.backward"]
    for name, own in found.items():
        det = log_det(runs[name].jacobians())
        np.testing.assert_allclose(own.exponents.sum(axis=-1), det, rtol=1e-11)  # rounding: sums of size 1


def test_a_clock_goes_on_across_chunks(monkeypatch):
    net = Network(Clockwork(), 1, 8)
    params, x = net.init(rng(7)), rng(8).normal(size=(64, 1, 1))
    whole = network_lyapunov(net, params, x, rng=rng(), first_step=3)["0"]
    stored = lyapunov_spectrum(forward(net, params, x, first_step=3).runs["0"].jacobians(), rng=rng())
    np.testing.assert_allclose(whole.exponents, stored.exponents, rtol=1e-10, atol=1e-12)  # other sizes of matrix product
    monkeypatch.setattr(network_module, "CHUNK", 1)
    chunked = network_lyapunov(net, params, x, rng=rng(), first_step=3)["0"]
    np.testing.assert_allclose(chunked.exponents, whole.exponents, rtol=1e-10, atol=1e-12)


def test_the_memory_does_not_grow_with_the_number_of_steps(monkeypatch):
    monkeypatch.setattr(network_module, "CHUNK", 2**17)
    net = Network(Elman(), 1, 64)
    params, peaks = net.init(rng(9), recurrent_init=inits.gaussian(1.5)), []
    for T in (400, 3200):
        x = np.zeros((T, 1, 1))
        tracemalloc.start()
        network_lyapunov(net, params, x, 8, rng=rng())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]  # eight times the steps; the states alone would be 8 * 64 * 3200 = 1.6 MB
    assert peaks[0] < 2e6


def test_a_refusal_comes_before_the_work_and_names_the_numbers():
    net = Network(GRU(), 1, 64)
    with pytest.raises(ResourceRefused, match="k = 64 tangent vectors"):
        network_lyapunov(net, net.init(rng()), np.zeros((10, 2, 1)), rng=rng(), max_memory=2**20)
    with pytest.raises(ResourceRefused, match="interval = 10000000000"):
        lyapunov_spectrum((np.eye(30) for _ in range(5)), rng=rng(), interval=10**10)


# ---- the interval between factorisations ---------------------------------------------------------------------------


def gaussian(T=400, S=6):
    return rng(10).normal(size=(T, S, S))


def saturating(T=400, S=6):
    return 1.0 / np.cosh(3.0 * rng(11).normal(size=(T, S, 1))) ** 2 * rng(12).normal(size=(T, S, S))


def lost_and_found(T=100, small=1e-9):
    """Each second step expands what the one before has nearly lost: at the end of a block nothing is to be seen of it."""
    draw, J = rng(13), []
    for _ in range(T // 2):
        A, B = inits.orthogonal()(draw, (2, 2)), inits.orthogonal()(draw, (2, 2))
        J += [A @ np.diag([1.0, small]) @ B, B.T @ np.diag([1.0, 0.9 / small]) @ A.T]
    return J


def slow(T=1200):
    """Two directions that part by 0.7 nats a step: rounding takes over gradually, from 40 steps on."""
    return gaussian(T, 2)


def lost_for_good(T=100):
    """The same, and below the last digit: each single Jacobian is singular to working precision."""
    return lost_and_found(T, 1e-13)


@functools.cache
def with_interval_one(make):
    return lyapunov_spectrum(make(), rng=rng(), transient=0, interval=1)


@pytest.mark.parametrize("make", [gaussian, slow, saturating, lost_and_found, lost_for_good])
@pytest.mark.parametrize("interval", [2, 3, 5, 8, 13, 30, 40, 48, 56, 100, 400])
def test_no_interval_can_be_asked_for_that_breaks_the_smallest_exponent(make, interval):
    J, truth = make(), with_interval_one(make)
    try:
        result = lyapunov_spectrum(J, rng=rng(), transient=0, interval=interval)
    except NumericalError:
        return
    if make is lost_for_good:
        assert result.status.code == truth.status.code == "rank-deficient"
        return
    # ln |det| is exact here, and the other exponents hardly round: what is left for the smallest is known.
    exact = 0.5 * np.log(0.9) if make is lost_and_found else log_det(J)
    assert abs(result.exponents.sum() - exact) < 1e-3
    assert abs(result.exponents[-1] - truth.exponents[-1]) < 1e-3
    assert result.interval == min(interval, len(J))


def test_long_intervals_are_refused_and_the_named_one_is_accepted():
    J = gaussian()[:60]
    with pytest.raises(NumericalError, match="interval is 60") as caught:
        lyapunov_spectrum(J, rng=rng(), transient=0, interval=60)
    safe = int(str(caught.value).split("safe interval there is ")[1].split(";")[0])
    assert 1 < safe < 30
    result = lyapunov_spectrum(J, rng=rng(), transient=0, interval=safe)
    assert abs(result.exponents.sum() - log_det(J)) < 1e-3
    with pytest.raises(NumericalError, match="largest safe interval"):
        lyapunov_spectrum(J, rng=rng(), transient=0, interval=2 * safe + 1)


@pytest.mark.parametrize("make", [gaussian, saturating, lost_and_found])
def test_the_adaptive_interval_gives_what_an_interval_of_one_gives(make):
    J = make()
    adaptive = lyapunov_spectrum(J, rng=rng(), transient=0)
    every = lyapunov_spectrum(J, rng=rng(), transient=0, interval=1)
    # 1e-10 nats a block at most, unless a single Jacobian takes more: 1e-9 costs nine digits.
    np.testing.assert_allclose(adaptive.exponents, every.exponents, rtol=0, atol=1e-6 if make is lost_and_found else 1e-10)
    assert adaptive.rounding > 0.0
    assert (adaptive.rounding <= (1e-5 if make is lost_and_found else 1e-10)).all()


def test_the_estimated_rounding_error_bounds_the_true_one():
    draw = rng(14)
    for S, n in itertools.product((2, 5, 20), (2, 4, 8, 16)):
        frame = Frame((), S, S, draw)
        J = draw.normal(size=(n, S, S))
        block = frame.try_block([lambda Z, M=M: M @ Z for M in J])
        Q, exact = frame.Q, np.zeros(S)
        for M in J:
            Q, R = np.linalg.qr(M @ Q)
            exact += np.log(np.abs(np.diagonal(R)))
        error = np.abs(block.log - exact).max()
        assert error <= float(block.error) + 1e-13, (S, n)  # the step-by-step sums round as well
        assert float(block.error) > 0.01 or float(block.error) < 1e5 * max(error, 1e-15), (S, n)  # and not absurdly


def test_a_spectrum_without_spread_takes_long_intervals_and_one_with_a_wide_one_short():
    narrow = lyapunov_spectrum(np.stack([inits.orthogonal()(rng(t), (8, 8)) for t in range(600)]), rng=rng())
    wide = lyapunov_spectrum(gaussian(600, 30), rng=rng())
    assert narrow.interval >= 16
    assert wide.interval <= 3
    few = lyapunov_spectrum(gaussian(600, 30), 3, rng=rng())
    assert few.interval >= 16  # the first three of thirty lie close together


# ---- singular, graded and non-finite Jacobians -----------------------------------------------------------------------


def test_directions_that_a_singular_jacobian_removes_have_the_exponent_minus_infinity():
    result = lyapunov_spectrum([np.diag([1.1, 0.0, 0.9])] * 400, rng=rng(), transient=200)
    np.testing.assert_allclose(result.exponents[:2], np.log([1.1, 0.9]), rtol=1e-12)  # aligned to (0.9/1.1)^200 = 1e-17
    assert result.exponents[2] == -np.inf
    assert result.status.code == "rank-deficient"
    assert "1 of 3 exponents" in result.status.detail
    for name in ("exponents", "finite_time", "history", "kaplan_yorke", "entropy", "rounding"):
        assert not np.isnan(getattr(result, name)).any(), name
    assert np.isnan(result.standard_error[2])
    np.testing.assert_allclose(result.kaplan_yorke, 1.0 + np.log(1.1) / -np.log(0.9), rtol=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_products_of_low_rank_have_as_many_finite_exponents_as_their_rank(rank):
    draw = rng(15)
    J = draw.normal(size=(150, 5, rank)) @ draw.normal(size=(150, rank, 5))
    result = lyapunov_spectrum(J, rng=rng())
    np.testing.assert_array_equal(np.isneginf(result.exponents), np.arange(5) >= rank)
    assert result.status.code == "rank-deficient"
    top = lyapunov_spectrum(J, rank, rng=rng()) if rank else result
    assert top.status.ok or rank == 0
    np.testing.assert_allclose(top.exponents[:rank], result.exponents[:rank], rtol=0, atol=0.1)  # other random vectors


def test_dependence_that_no_diagonal_entry_shows_is_seen():
    n = 60
    J = np.eye(n) - np.triu(np.ones((n, n)), 1)  # within 2^-58 of a singular matrix, though its determinant is 1 (Wilkinson)
    log, error, Q, order = step_with_care(J, np.eye(n))
    assert np.isneginf(log[-1])
    np.testing.assert_array_equal(order[:30], np.arange(30))  # while the first thirty columns keep seven digits
    np.testing.assert_allclose(log[:30], 0.0, atol=1e-6)
    assert 0.0 < error <= 1.1e-3
    np.testing.assert_allclose(Q.T @ Q, np.eye(n), rtol=0, atol=1e-13)


def test_a_column_that_dies_between_others_leaves_their_growth_as_it_is():
    J = rng(31).normal(size=(3, 3)) * np.array([1.0, 0.0, 1000.0])
    with np.errstate(divide="ignore"):  # the logarithm of 0 is what is looked for
        log, error, Q, order = step_with_care(J, np.eye(3))
    alive = np.linalg.qr(J[:, [0, 2]])
    np.testing.assert_allclose(log[:2], np.log(np.abs(np.diagonal(alive[1]))), rtol=1e-13)
    np.testing.assert_allclose(np.abs((Q[:, :2] * alive[0]).sum(axis=0)), 1.0, rtol=1e-13)
    assert log[2] == -np.inf
    np.testing.assert_array_equal(order, [0, 2, 1])
    assert error < 1e-13


def test_one_singular_jacobian_removes_one_direction_for_good():
    J = rng(16).normal(size=(300, 4, 4))
    J[200, 2] = 0.0
    result = lyapunov_spectrum(J, rng=rng())
    np.testing.assert_array_equal(np.isneginf(result.exponents), [False, False, False, True])
    whole = lyapunov_spectrum(rng(16).normal(size=(300, 4, 4)), rng=rng())
    np.testing.assert_allclose(result.exponents[:3], whole.exponents[:3], rtol=0, atol=0.05)  # one step of 270 differs
    early = lyapunov_spectrum(J[195:], rng=rng(), transient=10)  # the same step in the transient does not count
    assert early.status.ok


def test_a_direction_that_dies_leaves_its_rank_to_those_that_live():
    T, draw = 400, rng(29)
    turn = inits.orthogonal()(draw, (3, 3))
    aligned, killed = [np.diag([2.0, 1.0, 0.5])] * T, [np.diag([1.0, 0.0, 1.0]), turn @ np.diag([8.0, 1.0, 1.0])]
    later = list(draw.normal(size=(T, 3, 3)))
    whole = lyapunov_spectrum(later, rng=rng(), transient=0).exponents
    for interval in (None, 1, 4):
        result = lyapunov_spectrum(aligned + killed + later, rng=rng(), transient=0, interval=interval)
        # What grew by 2 and by 1/2 lives on; any two vectors of a random product grow by its first two exponents.
        expected = (np.log([2.0, 0.5]) + whole[:2]) * T / (2 * T + 2)
        np.testing.assert_allclose(result.exponents[:2], expected, rtol=0, atol=0.01)  # a few nats of 800 steps
        assert result.exponents[2] == -np.inf
        assert result.status.code == "rank-deficient"


def test_a_relu_network_at_its_start_has_exponents_zero_and_minus_infinity():
    net = Network(irnn(), 2, 6)
    params = net.init(rng(17))
    result = network_lyapunov(net, params, rng(18).normal(size=(40, 1, 2)), rng=rng(), transient=0)["0"]
    assert set(np.unique(np.where(np.abs(result.exponents) < 0.2, 0.0, result.exponents))) <= {0.0, -np.inf}
    assert np.isneginf(result.exponents).any()


@pytest.mark.parametrize("decades", [5, 20, 80, 200])
@pytest.mark.parametrize("axis", ["rows", "columns", "both"])
def test_units_far_in_saturation_keep_their_digits(decades, axis):
    draw = rng(19)
    J = draw.normal(size=(60, 8, 8))
    if axis != "columns":
        J *= 10.0 ** (-decades * draw.random((60, 8, 1)))  # diag(f') U with f' down to 1e-200
    if axis != "rows":
        J *= 10.0 ** (-0.3 * decades * draw.random((60, 1, 8)))  # what a forget gate near 0 does to c_{t-1}
    result = lyapunov_spectrum(J, rng=rng(), transient=0)
    assert result.status.ok
    np.testing.assert_allclose(result.exponents.sum(), log_det(J), rtol=1e-12)  # LU knows graded rows, a plain QR does not
    assert (result.rounding < 1e-9).all()


def test_an_lstm_far_in_saturation_keeps_the_digits_of_all_its_exponents():
    draw = rng(0)
    net = Network(LSTM(), 2, 24)
    params = net.init(draw, recurrent_init=inits.gaussian(20.0))
    J = forward(net, params, draw.normal(size=(100, 1, 2))).runs["0"].jacobians()
    assert np.linalg.cond(J[:, 0]).max() > 1e15  # no product of such matrices has any digits of the smallest
    result = lyapunov_spectrum(J, rng=rng(), transient=0)
    np.testing.assert_allclose(result.exponents.sum(axis=-1), log_det(J), rtol=1e-9)  # LU rounds as well: 1e-10 by det A det K
    assert result.status.ok


@pytest.mark.parametrize("decades", [0, 5, 15, 40, 120])
def test_every_exponent_keeps_its_digits_where_scales_come_and_go(decades):
    draw, values = rng(30), np.array([2.0, -0.5, 0.25, 0.1])
    V, G = draw.normal(size=(2, 4, 4))
    D = 10.0 ** (-decades * draw.random(4))
    period = V @ np.diag(values) @ np.linalg.inv(V)
    # The first step scales four directions apart by up to 120 decades, the second puts them together again.
    J = [D[:, None] * G, period @ (np.linalg.inv(G) / D)]
    result = lyapunov_spectrum(J * 150, rng=rng(), transient=200)
    np.testing.assert_allclose(result.exponents, 0.5 * np.log(np.abs(values)), rtol=0, atol=1e-10)  # condition 1e3 of V and G
    assert result.status.ok


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("transient", [0, 120])
@pytest.mark.parametrize("interval", [None, 1, 3])
def test_a_jacobian_that_is_not_finite_is_reported_with_its_step_and_spoils_no_other_member(bad, transient, interval):
    J = rng(20).normal(size=(200, 4, 3, 3))
    clean = lyapunov_spectrum(J, rng=rng(), transient=transient)
    J[77, 1, 2, 2], J[110, 3, 0, 0] = bad, bad
    result = lyapunov_spectrum(J, rng=rng(), transient=transient, interval=interval)
    assert str(result.status).startswith("overflow: a Jacobian is not finite at step 78, in 2 of 4")
    assert np.isnan(result.exponents[[1, 3]]).all()
    assert np.isnan(result.mean).all()
    assert np.isnan(result.kaplan_yorke[1])
    np.testing.assert_array_equal(np.isnan(result.rounding), [False, True, False, True])
    # Other intervals: 1e-10 nats a block, 1e-3 at most where 3 is asked for.
    np.testing.assert_allclose(result.exponents[[0, 2]], clean.exponents[[0, 2]], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.kaplan_yorke[[0, 2]], clean.kaplan_yorke[[0, 2]], rtol=1e-8)


def test_a_state_that_escapes_is_reported_with_its_step():
    # x -> 2 x^2 from 1 doubles its logarithm: 2^(2^t - 1) leaves the range of floats at t = 11; from 0.4 it falls to 0.
    result = lyapunov_of_map(lambda s: 2.0 * s * s, lambda s: 4.0 * s[..., None], np.array([[1.0], [0.25]]), 20, rng=rng())
    assert "not finite at step 11, in 1 of 2" in result.status.detail
    assert np.isnan(result.exponents[0, 0])
    linear = lyapunov_of_map(lambda s: 1e200 * s, lambda s: np.full((1, 1), 1e200), np.ones(1), 9, rng=rng())
    assert "not finite at step 2," in linear.status.detail  # the Jacobian itself stays finite


@pytest.mark.parametrize("scale", [1e290, 1e-290])
def test_jacobians_at_the_ends_of_the_range_neither_overflow_nor_vanish(scale):
    J = rng(21).normal(size=(50, 3, 3))
    result = lyapunov_spectrum(scale * J, rng=rng(), transient=0)
    assert result.status.ok
    np.testing.assert_allclose(result.exponents.sum(), log_det(J) + 3.0 * np.log(scale), rtol=1e-12)
    unscaled = lyapunov_spectrum(J, rng=rng(), transient=0)
    np.testing.assert_allclose(result.exponents - np.log(scale), unscaled.exponents, rtol=0, atol=1e-9)
    apart = lyapunov_spectrum([np.diag([1e-200, 1e200])] * 30, rng=rng(), transient=2)
    np.testing.assert_allclose(apart.exponents, np.log([1e200, 1e-200]), rtol=1e-14)


# ---- errors, histories, derived quantities ------------------------------------------------------------------------------


def test_the_standard_errors_are_those_of_independent_steps():
    # J ~ N(0, 1): ln |J| has mean -(euler gamma + ln 2)/2 and variance pi^2/8.
    T, members = 3000, 50
    result = lyapunov_spectrum(rng(22).normal(size=(T, members, 1, 1)), rng=rng(), transient=0)
    true_error = np.pi / np.sqrt(8.0) / np.sqrt(T)
    deviation = (result.exponents[:, 0] + 0.5 * (np.euler_gamma + np.log(2.0))) / true_error
    assert abs(np.sqrt(np.mean(deviation**2)) - 1.0) < 0.3  # 50 draws: 10 % standard deviation
    # From 20 to 40 blocks: 11 to 16 % for one member, so 5 % for the mean of 50 is four of its standard deviations at least.
    assert abs(result.standard_error.mean() / true_error - 1.0) < 0.1
    assert abs(result.mean_error[0] / (true_error / np.sqrt(members)) - 1.0) < 0.4
    np.testing.assert_allclose(result.mean[0], result.exponents.mean(), rtol=1e-13)


@pytest.mark.parametrize("T", [3, 40, 41, 777, 5000])
@pytest.mark.parametrize("blocks", [2, 20])
def test_blocks_are_bounded_in_number_and_add_up(T, blocks):
    J = rng(23).normal(size=(T, 2, 2, 2))
    result = lyapunov_spectrum(J, rng=rng(), transient=0, blocks=blocks)
    n = len(result.block_steps)
    assert n <= 2 * blocks
    assert n >= min(T, blocks) - (T > 40)  # the last merge may leave one short
    assert result.block_steps.sum() == result.steps == T
    weights = result.block_steps / T
    np.testing.assert_allclose(np.einsum("n,nlk->lk", weights, result.finite_time), result.exponents, rtol=1e-12)
    np.testing.assert_array_equal(result.history[-1], result.exponents)
    np.testing.assert_allclose(result.history[0], result.finite_time[0], rtol=1e-14)
    first = int(result.block_steps[0])
    own = lyapunov_spectrum(J[:first], rng=rng(), transient=0)
    np.testing.assert_allclose(result.finite_time[0].sum(axis=-1), own.exponents.sum(axis=-1), rtol=0, atol=1e-10)


def test_the_transient_is_a_tenth_at_most_unless_it_is_given():
    J = rng(24).normal(size=(1000, 2, 2))
    assert 0 < lyapunov_spectrum(J, rng=rng()).transient <= 100
    result = lyapunov_spectrum(iter(J), rng=rng(), transient=123)
    assert (result.transient, result.steps) == (123, 877)
    np.testing.assert_allclose(result.exponents.sum(), log_det(J[123:]), rtol=1e-11)  # exactly these steps count
    for stream in (J, list(J), iter(J), tuple(J)):
        np.testing.assert_array_equal(lyapunov_spectrum(stream, rng=rng()).exponents, lyapunov_spectrum(J, rng=rng()).exponents)


def diagonal_spectrum(exponents, k=None):
    """The result for a diagonal map, whose vectors have aligned before anything counts."""
    return lyapunov_spectrum([np.diag(np.exp(exponents))] * 600, k, rng=rng(), transient=500)


def test_dimension_and_entropy_follow_from_the_exponents():
    result = diagonal_spectrum([0.5, 0.1, -1.0, -2.0])
    np.testing.assert_allclose(result.kaplan_yorke, 2.0 + 0.6 / 1.0, rtol=1e-12)
    np.testing.assert_allclose(result.entropy, 0.6, rtol=1e-12)
    assert diagonal_spectrum([-0.1, -0.5]).kaplan_yorke == 0.0
    assert diagonal_spectrum([0.5, 0.1]).kaplan_yorke == 2.0  # volume grows: the whole space
    assert np.isnan(diagonal_spectrum([0.5, 0.1, -1.0], k=2).kaplan_yorke)  # it takes the third to know
    np.testing.assert_allclose(diagonal_spectrum([0.5, -1.0, -2.0], k=2).kaplan_yorke, 1.5, rtol=1e-12)
    assert np.isnan(diagonal_spectrum([0.5, 0.1, -1.0]).standard_error).sum() == 0


def test_the_first_k_are_the_first_of_all():
    J = rng(25).normal(size=(800, 6, 6))
    whole, few = lyapunov_spectrum(J, rng=rng()), lyapunov_spectrum(J, 2, rng=rng())
    # Other first vectors, which differ for the first steps only.
    np.testing.assert_allclose(few.exponents, whole.exponents[:2], rtol=0, atol=0.02)


def test_unitary_matrices_with_a_gain_are_a_spectrum_too():
    draw = rng(26)
    J = [1.5 * np.linalg.qr(draw.normal(size=(3, 3)) + 1j * draw.normal(size=(3, 3)))[0] for _ in range(100)]
    np.testing.assert_allclose(lyapunov_spectrum(J, rng=rng()).exponents, np.log(1.5), rtol=1e-13)
    J = draw.normal(size=(50, 3, 3)) + 1j * draw.normal(size=(50, 3, 3))
    result = lyapunov_spectrum(J, rng=rng(), transient=0)
    np.testing.assert_allclose(result.exponents.sum(), log_det(J), rtol=1e-11)


def test_float32_jacobians_are_read_in_their_own_precision_and_multiplied_in_double():
    J = rng(27).normal(size=(100, 4, 4)).astype(np.float32)
    result = lyapunov_spectrum(J, rng=rng(), transient=0)
    assert result.exponents.dtype == np.float64
    np.testing.assert_allclose(result.exponents.sum(), log_det(J.astype(float)), rtol=1e-11)


def test_a_generator_that_writes_to_one_array_is_read_correctly_and_nothing_is_modified():
    J = rng(28).normal(size=(200, 3, 3))
    before = J.copy()

    def reusing():
        own = np.empty((3, 3))
        for M in J:
            own[...] = M
            yield own

    np.testing.assert_array_equal(lyapunov_spectrum(reusing(), rng=rng()).exponents, lyapunov_spectrum(J, rng=rng()).exponents)
    np.testing.assert_array_equal(J, before)


def test_progress_is_told_to_the_end():
    calls = []
    lyapunov_spectrum(gaussian(100, 2), rng=rng(), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (100, 100)
    assert len(calls) >= 20
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    lyapunov_spectrum(iter(gaussian(100, 2)), rng=rng(), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (100, None)


def wrong_shape(t):
    return np.eye(3) if t == 2 else np.eye(2)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: lyapunov_spectrum([], rng=rng()), ShapeError, "jacobians is empty"),
        (lambda: lyapunov_spectrum([np.ones((2, 3))], rng=rng()), ShapeError, r"jacobians\[0\] has shape \(2, 3\)"),
        (lambda: lyapunov_spectrum((wrong_shape(t) for t in range(4)), rng=rng()), ShapeError, r"jacobians\[2\] has shape"),
        (lambda: lyapunov_spectrum([[[1.0]]], rng=rng()), DTypeError, r"jacobians\[0\]"),
        (lambda: lyapunov_spectrum(3, rng=rng()), DTypeError, "jacobians is a int"),
        (lambda: lyapunov_spectrum([np.eye(2)], 3, rng=rng()), ValueRangeError, "k is 3; expected at most S = 2"),
        (lambda: lyapunov_spectrum([np.eye(2)], 0, rng=rng()), ValueRangeError, "k is 0"),
        (lambda: lyapunov_spectrum([np.eye(2)], rng=0), DTypeError, "rng is 0"),
        (lambda: lyapunov_spectrum([np.eye(2)] * 5, rng=rng(), transient=5), ValueRangeError, "transient is 5 of 5"),
        (lambda: lyapunov_spectrum(iter([np.eye(2)] * 5), rng=rng(), transient=5), ValueRangeError, "transient is 5 of 5"),
        (lambda: lyapunov_spectrum([np.eye(2)], rng=rng(), transient=-1), ValueRangeError, "transient is -1"),
        (lambda: lyapunov_spectrum([np.eye(2)], rng=rng(), interval=0), ValueRangeError, "interval is 0"),
        (lambda: lyapunov_spectrum([np.eye(2)], rng=rng(), blocks=1), ValueRangeError, "blocks is 1"),
        (lambda: lyapunov_of_map(np.sin, np.cos, np.ones(2), 3, rng=rng()), ShapeError, r"expected \(2,\) and \(2, 2\)"),
        (lambda: lyapunov_of_map(np.sin, np.cos, np.array([np.nan]), 3, rng=rng()), ValueRangeError, "s0 has 1 non-finite"),
        (lambda: lyapunov_of_map(np.sin, np.cos, np.ones(1), 0, rng=rng()), ValueRangeError, "steps is 0"),
        (lambda: lyapunov_of_map(np.sin, np.cos, np.ones(1), 3, rng=rng(), dt=0.0), ValueRangeError, "dt is 0"),
        (lambda: lyapunov_of_map(1, np.cos, np.ones(1), 3, rng=rng()), DTypeError, "step is 1"),
        (lambda: runge_kutta(np.sin, np.cos, -1.0), ValueRangeError, "dt is -1"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call()
    assert isinstance(caught.value, GradlabError)


@pytest.mark.parametrize("blocks", [2, 20])
@pytest.mark.parametrize("steps", [1, 39, 40, 41, 300])
def test_steps_that_are_planned_end_in_the_same_blocks_of_time(steps, blocks):
    grown = rng(30).normal(size=(steps, 3))
    found = []
    for planned in (None, steps):
        meter_blocks = Blocks(blocks, planned)
        for log in grown:
            meter_blocks.add(Growth(1, log, np.zeros(()), np.zeros((3, 3))))
        found.append(meter_blocks)
    assert found[0].steps == found[1].steps
    np.testing.assert_allclose(found[0].sums, found[1].sums, atol=1e-13)  # sums of 300 normal numbers in another order
