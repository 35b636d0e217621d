"""Slices through loss surfaces, held against losses whose shape is known in closed form."""

import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab import GRU, LSTM, Batch, Elman, Jordan, Network, bptt, cells, mean_squared_error, softmax_cross_entropy
from gradlab._math import sigmoid
from gradlab.analysis import gradient_flow, jacobian_product, jacobians
from gradlab.analysis.surface_directions import gradient_direction, named_weights, normalised, random_direction
from gradlab.analysis.surfaces import loss_between, loss_surface
from gradlab.analysis.trajectory import trajectory_pca
from gradlab.backward import KEEP
from gradlab.errors import DTypeError, NumericalError, ResourceRefused, ShapeError, ValueRangeError

A = np.linspace(-1.0, 1.0, 5)


def setting(cell=None, T=6, B=3, seed=0, **options):
    rng = np.random.default_rng(seed)
    net = Network(cell or LSTM(), 2, 4, **({"output_size": 2} | options))
    params = {key: rng.uniform(-0.8, 0.8, shape) for key, shape in net.shapes.items()}
    p = net.top_size if net.output_size is None else net.output_size
    targets = rng.normal(size=(T, B, p) if net.readout == "every" else (B, p))
    return net, params, Batch(rng.normal(size=(T, B, 2)), targets), rng


def loss_at(net, params, batch, directions, coefficients, loss=mean_squared_error, **options):
    moved = {k: v + sum(c * d[k] for c, d in zip(coefficients, directions, strict=True) if k in d) for k, v in params.items()}
    return float(bptt(net, moved, batch, loss, (), **options).loss)


def pascanu():
    """x_t = w sig(x_{t-1}) + b from x_0 = 0.5 over 50 steps, E = (sig(x_50) - 0.7)^2; w = b = 0: coordinates are weights."""
    net = Network(Elman("sigmoid"), 1, 1, readout="last")
    params = {"0.W": np.zeros((1, 1)), "0.U": np.zeros((1, 1)), "0.b": np.zeros(1)}
    batch = Batch(np.zeros((50, 1, 1)), np.full((1, 1), 0.7))
    return net, params, batch, {"0": sigmoid(np.full((1, 1), 0.5))}, named_weights(net, ("0.U", (0, 0)), ("0.b", 0))


# ---- known surfaces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", [0.0, 0.6])
def test_a_quadratic_loss_is_its_paraboloid(coupling):
    # A linear unit that reads x = 1 once: h = W 1 + b, so L = (W + b - y)^2, and the read-out is not there.
    net = Network(Elman("linear"), 1, 1)
    params = {"0.W": np.full((1, 1), 0.3), "0.U": np.zeros((1, 1)), "0.b": np.full(1, -0.2)}
    batch = Batch(np.ones((1, 1, 1)), np.full((1, 1, 1), 0.7))
    d1, d2 = named_weights(net, ("0.W", (0, 0)), ("0.b", 0))
    d1 = d1 | {"0.b": np.full(1, coupling)}
    a, b = np.linspace(-2.0, 1.0, 7), np.linspace(-1.0, 3.0, 5)
    found = loss_surface(net, params, batch, mean_squared_error, [d1, d2], a, b, with_gradient=True)
    error = 0.3 - 0.2 - 0.7 + (1.0 + coupling) * a[None, :] + b[:, None]
    np.testing.assert_allclose(found.loss, error**2, rtol=0, atol=1e-14)  # a few roundings of numbers up to 16
    # dL/dW = dL/db = 2 error; the gradient by U is 2 error h_0 = 0.
    np.testing.assert_allclose(found.gradient_norm, 2.0 * np.sqrt(2.0) * np.abs(error), rtol=1e-13, atol=1e-14)
    assert found.status.ok


def test_the_wall_of_a_logistic_unit_stands_where_theory_puts_it():
    net, params, batch, start, (dw, db) = pascanu()
    wall = 0.5 - 5.0 * sigmoid(np.asarray(0.5))  # x_0 is the unstable fixed point: b = 0.5 - w sig(0.5)
    across = loss_surface(
        net,
        params,
        batch,
        mean_squared_error,
        [dw, db],
        np.array([5.0]),
        wall + np.array([-1e-3, 0.0, 1e-3]),
        initial_states=start,
    )
    # Derived values of E at b = wall -+ 1e-3, printed to 6 digits, and on the wall, (sig(0.5) - 0.7)^2.
    np.testing.assert_allclose(across.loss[[0, 2], 0], [0.341649, 0.010047], atol=5e-7)
    # On the wall an error of 1e-16 grows by l^50 = 3179 and 18156 per unit of b: 1e-9 leaves room for both.
    np.testing.assert_allclose(across.loss[1, 0], (sigmoid(np.asarray(0.5)) - 0.7) ** 2, rtol=1e-9)


def test_the_gradient_beside_the_wall_is_the_largest_one():
    net, params, batch, start, (dw, db) = pascanu()
    wall = 0.5 - 5.0 * sigmoid(np.asarray(0.5))
    beside = wall + np.linspace(-1e-4, 1e-4, 2001)
    params["0.U"][...] = 5.0
    found = loss_surface(net, params, batch, mean_squared_error, [db], beside, with_gradient=True, initial_states=start)
    top = int(np.argmax(found.gradient_norm))
    assert found.gradient_norm[top] == pytest.approx(6773.13, rel=1e-3)  # derived; the scan's step is 1e-7
    assert beside[top] - wall == pytest.approx(-4.47e-5, rel=1e-2)
    # On the wall: dE/dw = -411.870634, dE/db = -661.682801, derived, and exact only at the exact b.
    assert found.gradient_norm[1000] == pytest.approx(np.hypot(411.870634, 661.682801), rel=1e-6)
    assert dw["0.U"].shape == (1, 1)


def test_along_the_wall_every_slope_is_the_same_and_the_gradient_their_geometric_series():
    net, params, batch, start, _ = pascanu()
    params["0.U"][...], params["0.b"][...] = 5.0, 0.5 - 5.0 * sigmoid(np.asarray(0.5))
    np.testing.assert_allclose(params["0.b"], -2.6122966560, rtol=0, atol=5e-11)  # derived, printed to ten digits
    record = bptt(net, params, batch, mean_squared_error, KEEP, initial_states=start)
    slope = 1.1750185610
    product = jacobian_product(jacobians(net, params, record))
    # On the wall an error of one rounding in x_t grows by the slope at each step: 3e-13 in x_50.
    np.testing.assert_allclose(np.exp(product.log_norm / 50.0), slope, rtol=1e-9)
    np.testing.assert_allclose(np.exp(product.log_norm), 3178.603422, rtol=1e-8)
    last = 2.0 * (sigmoid(np.asarray(0.5)) - 0.7) * 0.2350037122  # dE/dx_50
    np.testing.assert_allclose(record.gradients["0.b"] / last, 18155.808180, rtol=1e-8)
    np.testing.assert_allclose(record.gradients["0.b"], -661.682801, rtol=1e-8)
    np.testing.assert_allclose(record.gradients["0.U"], -411.870634, rtol=1e-8)
    flow = gradient_flow(record).slope("0")
    np.testing.assert_allclose(flow.slope, np.log(slope), rtol=1e-9)


def test_a_coarse_grid_misses_the_ridge_beside_the_wall():
    # Measured once with plain NumPy: median, largest norm and largest loss of 301 x 501 points; the ridge reaches 6773.
    net, params, batch, start, directions = pascanu()
    w, b = np.linspace(4.0, 7.0, 301), np.linspace(-4.0, -1.5, 501)
    found = loss_surface(net, params, batch, mean_squared_error, directions, w, b, with_gradient=True, initial_states=start)
    np.testing.assert_allclose(np.median(found.gradient_norm), 0.0472, rtol=0, atol=5e-5)  # as printed
    np.testing.assert_allclose([found.gradient_norm.max(), found.loss.max()], [3320.0, 0.4632], rtol=1e-3)
    assert found.status.ok


def test_descent_from_above_the_wall_reads_the_same_two_plateaus_as_the_map():
    # Iterating the map by hand, without a network: every cell of a coarse grid.
    net, params, batch, start, directions = pascanu()
    w, b = np.linspace(4.0, 7.0, 16), np.linspace(-4.0, -1.5, 11)
    found = loss_surface(net, params, batch, mean_squared_error, directions, w, b, initial_states=start, threads=2)
    x = np.full((11, 16), 0.5)
    for _ in range(50):
        x = w[None, :] * sigmoid(x) + b[:, None]
    np.testing.assert_allclose(found.loss, (sigmoid(x) - 0.7) ** 2, rtol=0, atol=1e-10)  # 1e-16 times at most 1e4 near the wall


# ---- every cell, every shape ------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_the_centre_is_the_loss_and_each_cell_of_the_grid_that_of_its_parameters(cell):
    net, params, batch, rng = setting(cell)
    directions = [random_direction(rng, net, params, biases="scale", normalise="layer") for _ in range(2)]
    a, b = np.array([-0.5, 0.0, 0.7]), np.array([0.0, 0.4])
    found = loss_surface(net, params, batch, mean_squared_error, directions, a, b)
    loss = float(bptt(net, params, batch, mean_squared_error, ()).loss)
    assert found.centre == pytest.approx(
        loss, rel=1e-13
    )  # two roundings apart: the pass without slopes groups its sums otherwise
    assert found.loss[0, 1] == found.centre  # bit for bit: adding 0 changes nothing
    for i, j in np.ndindex(2, 3):
        assert found.loss[i, j] == pytest.approx(loss_at(net, params, batch, directions, (a[j], b[i])), rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2},
        {"bidirectional": True},
        {"bidirectional": True, "num_layers": 2, "readout": "last"},
        {"output_size": None},
        {"output_size": None, "readout": "last"},
    ],
    ids=str,
)
def test_every_shape_of_network_with_ragged_rows_and_an_initial_state(options):
    net, params, batch, rng = setting(GRU(), **options)
    batch = Batch(batch.inputs, batch.targets, lengths=np.array([6, 2, 4]))
    start = {layer.name: rng.normal(size=(3, layer.state_size)) for layer in net.layers}
    d = random_direction(rng, net, params, normalise="none", biases="scale")
    found = loss_surface(net, params, batch, mean_squared_error, [d], A, initial_states=start, first_step=3)
    for value, a in zip(found.loss, A, strict=True):
        want = loss_at(net, params, batch, [d], [a], initial_states=start, first_step=3)
        assert value == pytest.approx(want, rel=1e-12)


def test_a_cell_with_init_and_step_alone_has_a_surface():
    class Own:
        def init(self, rng, input_size, hidden_size):
            return {"M": rng.normal(size=(hidden_size, hidden_size)), "w": rng.normal(size=(hidden_size, input_size))}

        def step(self, params, x_t, s_prev, t):
            return np.tanh(x_t @ params["w"].T + s_prev @ params["M"].T)  # .T: right for one network only

    net, params, batch, rng = setting(Own())
    d = random_direction(rng, net, params)
    found = loss_surface(net, params, batch, mean_squared_error, [d], A)
    for value, a in zip(found.loss, A, strict=True):
        assert value == pytest.approx(loss_at(net, params, batch, [d], [a]), rel=1e-12)


def test_a_built_in_cell_with_a_step_of_the_users_own_runs_as_the_user_wrote_it():
    class Own(Elman):
        def step(self, params, x_t, s_prev, t):
            raise AssertionError("the closed forms are what this network runs")

    net, params, batch, rng = setting(Own())
    d = random_direction(rng, net, params)
    found = loss_surface(net, params, batch, mean_squared_error, [d], A)
    assert found.loss[4] == pytest.approx(loss_at(net, params, batch, [d], [1.0]), rel=1e-12)


@pytest.mark.parametrize("with_gradient", [False, True])
def test_each_member_of_an_ensemble_has_its_own_surface(with_gradient):
    net, params, batch, rng = setting()
    params["0.U"] = params["0.U"] * np.array([1.0, -0.5, 0.2]).reshape(3, 1, 1)  # the other parameters are shared
    d = {"0.U": rng.normal(size=net.shapes["0.U"]), "0.b": rng.normal(size=(3, 16))}
    found = loss_surface(net, params, batch, mean_squared_error, [d], A, with_gradient=with_gradient)
    assert found.loss.shape == (5, 3)
    for k in range(3):
        one = {key: value[k] if key == "0.U" else value for key, value in params.items()}
        own = {"0.U": d["0.U"], "0.b": d["0.b"][k]}
        alone = loss_surface(net, one, batch, mean_squared_error, [own], A, with_gradient=with_gradient)
        np.testing.assert_allclose(found.loss[:, k], alone.loss, rtol=1e-13)
        np.testing.assert_allclose(found.centre[k], alone.centre, rtol=1e-13)
        if with_gradient:
            np.testing.assert_allclose(found.gradient_norm[:, k], alone.gradient_norm, rtol=1e-12)


def test_members_that_read_their_own_sequences_have_their_own_surface():
    net, params, _, rng = setting(readout="last")
    x, y = rng.normal(size=(6, 2, 3, 2)), rng.normal(size=(2, 3, 2))
    d = random_direction(rng, net, params)
    found = loss_surface(net, params, Batch(x, y), mean_squared_error, [d], A)
    for k in range(2):
        alone = loss_surface(net, params, Batch(x[:, k], y[k]), mean_squared_error, [d], A)
        np.testing.assert_allclose(found.loss[:, k], alone.loss, rtol=1e-13)


def test_the_gradient_norm_is_that_of_all_parameters_in_each_cell():
    net, params, batch, rng = setting()
    d = {"readout.V": rng.normal(size=(2, 4))}  # moves one parameter; the others are shared by all cells
    found = loss_surface(net, params, batch, mean_squared_error, [d], A, with_gradient=True)
    for value, norm, a in zip(found.loss, found.gradient_norm, A, strict=True):
        record = bptt(net, params | {"readout.V": params["readout.V"] + a * d["readout.V"]}, batch, mean_squared_error, ())
        assert value == pytest.approx(float(record.loss), rel=1e-13)
        assert norm == pytest.approx(np.sqrt(sum((g**2).sum() for g in record.gradients.values())), rel=1e-12)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["filter", "layer", "none"]), st.sampled_from(["zero", "copy", "scale"]))
@settings(max_examples=15, deadline=None)
def test_swapping_the_directions_transposes_the_surface_and_the_axis_is_the_slice(seed, normalise, biases):
    net, params, batch, rng = setting(seed=seed)
    d1, d2 = (random_direction(rng, net, params, normalise=normalise, biases=biases) for _ in range(2))
    b = np.array([-0.3, 0.0, 0.2])
    one = loss_surface(net, params, batch, mean_squared_error, [d1, d2], A, b)
    other = loss_surface(net, params, batch, mean_squared_error, [d2, d1], b, A)
    np.testing.assert_allclose(one.loss, other.loss.T, rtol=1e-11)  # theta + (x + y) and theta + (y + x) round apart
    line = loss_surface(net, params, batch, mean_squared_error, [d1], A)
    np.testing.assert_allclose(one.loss[1], line.loss, rtol=1e-12)


# ---- what must not happen ---------------------------------------------------------------------------------


@pytest.mark.parametrize("with_gradient", [False, True])
def test_parameters_directions_and_batch_are_bit_identical_afterwards(with_gradient):
    net, params, batch, rng = setting()
    d = random_direction(rng, net, params)
    everything = [*params.values(), *d.values(), batch.inputs, batch.targets]
    before = [value.tobytes() for value in everything]
    for value in everything:
        value.flags.writeable = False
    loss_surface(net, params, batch, mean_squared_error, [d, d], A, A, with_gradient=with_gradient)
    loss_between(net, params, params | d, batch, mean_squared_error, A, with_gradient=with_gradient)
    assert [value.tobytes() for value in everything] == before


@pytest.mark.parametrize("with_gradient", [False, True])
def test_neither_chunks_nor_threads_change_a_bit(with_gradient, monkeypatch):
    net, params, batch, rng = setting()
    d1, d2 = (random_direction(rng, net, params) for _ in range(2))
    whole = loss_surface(net, params, batch, mean_squared_error, [d1, d2], A, A, with_gradient=with_gradient)
    monkeypatch.setattr("gradlab.analysis._grid.BLOCK", 600)  # three cells at a time
    for threads in (1, 2):
        found = loss_surface(net, params, batch, mean_squared_error, [d1, d2], A, A, with_gradient=with_gradient, threads=threads)
        np.testing.assert_array_equal(found.loss, whole.loss)
        if with_gradient:
            np.testing.assert_array_equal(found.gradient_norm, whole.gradient_norm)


def test_cells_that_are_not_finite_are_counted_and_marked():
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.zeros((1, 1)), "0.b": np.zeros(1)}
    batch = Batch(np.ones((40, 1, 1)), np.zeros((1, 1)))
    (d,) = named_weights(net, ("0.U", (0, 0)))
    a = np.array([0.5, 1.0, 1e4, 1e6, 1e9])  # h_40 is about w^39, squared: 1e312 for w = 1e4
    found = loss_surface(net, params, batch, mean_squared_error, [d], a)
    np.testing.assert_array_equal(found.finite, [True, True, False, False, False])
    assert found.nonfinite == 3
    assert found.status.code == "overflow"
    assert "3 of 5 cells" in found.status.detail
    assert found.loss[1] == 1600.0  # h_40 = 40 for w = 1


@pytest.mark.parametrize("size", [1e2, 1e4, 1e300])
def test_saturated_gates_are_those_of_the_instrumented_pass(size):
    net, params, batch, rng = setting()
    d = {"0.b": size * rng.choice([-1.0, 1.0], 16)}
    found = loss_surface(net, params, batch, mean_squared_error, [d], np.array([0.0, 1.0]))
    assert found.loss[1] == pytest.approx(loss_at(net, params, batch, [d], [1.0]), rel=1e-13)


def test_the_loss_alone_is_never_differentiated_through_time(monkeypatch):
    net, params, batch, rng = setting()
    monkeypatch.setattr(LSTM, "step_vjp", None)
    monkeypatch.setattr(LSTM, "step_into", None)  # the pass that prepares a backward one
    assert loss_surface(net, params, batch, mean_squared_error, [random_direction(rng, net, params)], A).status.ok


def test_only_what_a_direction_moves_is_made_anew(monkeypatch):
    net, params, batch, _ = setting(LSTM(peepholes=True))
    seen = []
    step = LSTM.step
    monkeypatch.setattr(
        LSTM, "step", lambda self, p, *rest: seen.append({k: v.shape for k, v in p.items()}) or step(self, p, *rest)
    )
    loss_surface(net, params, batch, mean_squared_error, named_weights(net, ("0.U", (3, 1))), A)
    assert {tuple(shapes[key] for key in ("U", "W", "b", "p_i")) for shapes in seen} == {
        ((6, 16, 4), (1, 16, 2), (1, 16), (1, 4))
    }


def test_progress_ends_at_all_cells_and_is_told_by_the_callers_thread():
    net, params, batch, rng = setting()
    told = []
    loss_surface(
        net,
        params,
        batch,
        mean_squared_error,
        [random_direction(rng, net, params)],
        A,
        threads=2,
        progress=lambda done, total: told.append((done, total, threading.current_thread() is threading.main_thread())),
    )
    assert told[-1] == (6, 6, True)  # with the centre
    assert all(main for *_, main in told)


@pytest.mark.parametrize("with_gradient", [False, True])
def test_a_surface_stays_within_the_memory_it_is_given(with_gradient):
    net, params, batch, rng = setting(T=30, B=8)
    directions = [random_direction(rng, net, params) for _ in range(2)]
    a = np.linspace(-1.0, 1.0, 12)
    limit = 1_000_000
    loss_surface(net, params, batch, mean_squared_error, directions, a[:2], a[:2], with_gradient=with_gradient)  # imports
    tracemalloc.start()
    loss_surface(net, params, batch, mean_squared_error, directions, a, a, with_gradient=with_gradient, max_memory=limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < limit  # a cell takes about 50 kB, 200 kB with its gradient, and there are 144


def test_float32_parameters_give_a_float32_surface():
    net, params, batch, rng = setting()
    small = {key: value.astype(np.float32) for key, value in params.items()}
    batch = Batch(batch.inputs.astype(np.float32), batch.targets.astype(np.float32))
    d = random_direction(rng, net, params)
    found = loss_surface(net, small, batch, mean_squared_error, [d], A)
    assert found.loss.dtype == np.float32
    np.testing.assert_allclose(found.loss, loss_surface(net, params, batch, mean_squared_error, [d], A).loss, rtol=1e-5)


def test_other_losses_and_masks_are_those_of_training():
    net, params, batch, rng = setting()
    labels, mask = rng.integers(0, 2, (6, 3)), rng.integers(0, 2, (6, 3)).astype(bool)
    mask[0, 0] = True
    batch = Batch(batch.inputs, labels, mask)
    d = random_direction(rng, net, params)
    found = loss_surface(net, params, batch, softmax_cross_entropy, [d], A)
    for value, a in zip(found.loss, A, strict=True):
        assert value == pytest.approx(loss_at(net, params, batch, [d], [a], softmax_cross_entropy), rel=1e-12)


# ---- directions -------------------------------------------------------------------------------------------


def relu_pair(k):
    """The same function twice: W, b of a ReLU layer times k, the read-out over k. U stays: h scales, and U maps h to h."""
    net, params, batch, _ = setting(Elman("relu"))
    scaled = params | {"0.W": k * params["0.W"], "0.b": k * params["0.b"], "readout.V": params["readout.V"] / k}
    return net, params, scaled, batch


@pytest.mark.parametrize("k", [0.01, 3.0, 250.0])
@pytest.mark.parametrize("biases", ["zero", "copy", "scale"])
@pytest.mark.parametrize("normalise", ["filter", "layer"])
def test_rescaling_a_whole_relu_layer_leaves_the_normalised_surface_unchanged(k, biases, normalise):
    net, params, scaled, batch = relu_pair(k)
    surfaces = []
    for theta in (params, scaled):
        rng = np.random.default_rng(7)  # the same draws
        directions = [random_direction(rng, net, theta, normalise=normalise, biases=biases) for _ in range(2)]
        surfaces.append(loss_surface(net, theta, batch, mean_squared_error, directions, A, A).loss)
    np.testing.assert_allclose(surfaces[1], surfaces[0], rtol=1e-12)  # rounding of a 6-step pass


def test_rescaling_a_whole_relu_layer_changes_the_raw_surface():
    net, params, scaled, batch = relu_pair(3.0)
    directions = [random_direction(np.random.default_rng(7), net, params, normalise="none", biases="scale") for _ in range(2)]
    one, other = (loss_surface(net, theta, batch, mean_squared_error, directions, A, A) for theta in (params, scaled))
    assert one.centre == pytest.approx(float(other.centre), rel=1e-12)
    assert np.abs(other.loss / one.loss - 1.0).max() > 0.5


def test_rescaling_a_single_relu_unit_changes_even_the_filter_normalised_surface():
    # Its outgoing weights are entries of several rows, so that the rows' norms do not scale with them.
    net, params, batch, _ = setting(Elman("relu"))
    k = np.array([10.0, 1.0, 1.0, 1.0])
    scaled = params | {
        "0.W": params["0.W"] * k[:, None],
        "0.b": params["0.b"] * k,
        "0.U": params["0.U"] * k[:, None] / k,
        "readout.V": params["readout.V"] / k,
    }
    surfaces = []
    for theta in (params, scaled):
        d = random_direction(np.random.default_rng(7), net, theta)
        surfaces.append(loss_surface(net, theta, batch, mean_squared_error, [d], A))
    assert surfaces[0].centre == pytest.approx(float(surfaces[1].centre), rel=1e-12)
    assert np.abs(surfaces[1].loss / surfaces[0].loss - 1.0).max() > 1e-2


@pytest.mark.parametrize("cell", [LSTM(peepholes=True), GRU(), Jordan(2)], ids=repr)
def test_filter_normalisation_gives_every_row_of_every_gate_the_norm_of_its_parameters(cell):
    net, params, _, rng = setting(cell, num_layers=2)
    d = random_direction(rng, net, params, biases="scale")
    for key, value in params.items():
        if value.ndim == 2:
            np.testing.assert_allclose(np.linalg.norm(d[key], axis=-1), np.linalg.norm(value, axis=-1), rtol=1e-14)
        else:
            n = 4 if value.size % 4 == 0 else value.size  # H = 4: a gate's block of the bias
            norms = [np.linalg.norm(v.reshape(-1, n), axis=-1) for v in (d[key], value)]
            np.testing.assert_allclose(*norms, rtol=1e-14)


def test_the_bias_policies_are_zero_a_copy_and_the_scale_of_the_gate():
    net, params, _, rng = setting()
    raw = {key: rng.normal(size=value.shape) for key, value in params.items()}
    zero, copy, none = (normalised(raw, net, params, *how) for how in (("filter", "zero"), ("layer", "copy"), ("none", "scale")))
    assert not zero["0.b"].any()
    np.testing.assert_array_equal(copy["0.b"], params["0.b"])
    np.testing.assert_array_equal(none["0.b"], raw["0.b"])
    np.testing.assert_array_equal(none["0.U"], raw["0.U"])
    assert np.linalg.norm(copy["0.U"]) == pytest.approx(np.linalg.norm(params["0.U"]), rel=1e-14)


def test_rows_of_zeros_and_of_any_size_normalise_without_a_warning():
    net, params, _, rng = setting()
    params["0.U"][0] = 0.0
    params["0.U"][1] = 1e-300
    params["0.U"][2] = 1e300
    d = random_direction(rng, net, params)["0.U"]
    assert not d[0].any()
    assert np.linalg.norm(d[1] * 1e300) == pytest.approx(2.0, rel=1e-13)  # four entries of 1e-300
    assert np.linalg.norm(d[2] * 1e-300) == pytest.approx(2.0, rel=1e-13)
    with pytest.raises(NumericalError, match="row of zeros where the parameters have none"):
        normalised({"0.U": np.zeros((16, 4))}, net, params)


def test_the_gradient_direction_is_the_steepest_one():
    net, params, batch, rng = setting()
    up = gradient_direction(net, params, batch, mean_squared_error)
    assert np.sqrt(sum((v**2).sum() for v in up.values())) == pytest.approx(1.0, rel=1e-14)
    h = np.array([-1e-5, 1e-5])

    def slope(d):
        low, high = loss_surface(net, params, batch, mean_squared_error, [d], h).loss
        return (high - low) / 2e-5

    record = bptt(net, params, batch, mean_squared_error, ())
    norm = np.sqrt(sum((g**2).sum() for g in record.gradients.values()))
    assert slope(up) == pytest.approx(norm, rel=1e-7)  # central differences at 1e-5
    d = random_direction(rng, net, params, normalise="none", biases="scale")
    size = np.sqrt(sum((v**2).sum() for v in d.values()))
    assert abs(slope({k: v / size for k, v in d.items()})) < norm
    assert set(gradient_direction(net, params, batch, mean_squared_error, keys=["0.U"])) == {"0.U"}


def test_a_hessian_eigenvector_shows_its_eigenvalue_as_the_curvature_of_the_slice():
    # L = mean of (W x + b - y)^2 over a batch: the Hessian by (W, b) is 2 mean of (x, 1)(x, 1)^T, exactly quadratic.
    rng = np.random.default_rng(0)
    net = Network(Elman("linear"), 2, 1)
    params = {"0.W": rng.normal(size=(1, 2)), "0.U": np.zeros((1, 1)), "0.b": rng.normal(size=1)}
    batch = Batch(rng.normal(size=(1, 20, 2)), rng.normal(size=(1, 20, 1)))
    rows = np.concatenate([batch.inputs[0], np.ones((20, 1))], axis=-1)
    values, vectors = np.linalg.eigh(2.0 * rows.T @ rows / 20)
    for value, v in zip(values, vectors.T, strict=True):
        low, middle, high = loss_surface(
            net, params, batch, mean_squared_error, [{"0.W": v[None, :2], "0.b": v[2:]}], np.array([-1.0, 0.0, 1.0])
        ).loss
        assert high + low - 2.0 * middle == pytest.approx(value, rel=1e-12)


# ---- trajectories -----------------------------------------------------------------------------------------


def test_a_trajectory_in_a_plane_is_explained_whole_and_projects_without_error():
    net, params, batch, rng = setting()
    d1, d2 = (random_direction(rng, net, params, biases="scale") for _ in range(2))
    where = rng.normal(size=(9, 2))
    path = [{k: v + a * d1[k] + b * d2[k] for k, v in params.items()} for a, b in where]
    found = trajectory_pca(net, path)
    assert found.explained_variance_ratio.sum() == pytest.approx(1.0, abs=1e-14)
    assert found.projection_error.max() <= 1e-14 * found.distance.max()
    assert found.status.ok
    assert found.coordinates[-1] == pytest.approx(0.0, abs=1e-14)  # the origin is the last snapshot
    # The surface at a snapshot's coordinates is its loss.
    a, b = found.coordinates[3]
    seen = loss_surface(net, found.origin, batch, mean_squared_error, found.directions, np.array([a]), np.array([b]))
    assert seen.loss[0, 0] == pytest.approx(float(bptt(net, path[3], batch, mean_squared_error, ()).loss), rel=1e-12)


def test_principal_directions_are_orthonormal_and_the_error_is_what_is_left():
    net, params, _, rng = setting()
    path = {key: v + np.cumsum(rng.normal(size=(30, *v.shape)), axis=0) for key, v in params.items()}
    found = trajectory_pca(net, path, 3, origin="mean")
    flat = np.stack([np.concatenate([d[key].ravel() for key in params]) for d in found.directions])
    np.testing.assert_allclose(flat @ flat.T, np.eye(3), atol=1e-14)
    # Pythagoras: the way from the origin is the way in the plane and the way off it.
    np.testing.assert_allclose(found.distance**2, (found.coordinates**2).sum(axis=-1) + found.projection_error**2, rtol=1e-12)
    off = 1.0 - (found.projection_error**2).sum() / (found.distance**2).sum()  # about the mean: the share explained
    assert found.explained_variance_ratio.sum() == pytest.approx(off, rel=1e-12)


def test_a_random_walk_in_many_dimensions_has_six_over_pi_squared_on_its_first_component():
    # Antognini & Sohl-Dickstein (2018): 6/(pi k)^2 for infinitely many dimensions and steps; 3 % for 6800 and 60.
    net = Network(Elman(), 2, 80, output_size=1)
    rng = np.random.default_rng(3)
    path = {key: np.cumsum(rng.normal(size=(60, *shape)), axis=0) for key, shape in net.shapes.items()}
    found = trajectory_pca(net, path)
    np.testing.assert_allclose(found.explained_variance_ratio, 6.0 / (np.pi * np.array([1.0, 2.0])) ** 2, rtol=0.03)


def test_a_trajectory_on_a_line_says_that_its_second_direction_is_arbitrary():
    net, params, _, rng = setting()
    d = random_direction(rng, net, params)
    found = trajectory_pca(net, [{k: v + a * d[k] for k, v in params.items()} for a in (0.0, 1.0, 2.5)])
    assert found.status.code == "rank-deficient"
    assert found.explained_variance_ratio[0] == pytest.approx(1.0, abs=1e-14)
    with pytest.raises(ValueRangeError, match="does not move"):
        trajectory_pca(net, [params] * 4)


# ---- between two solutions --------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [-1000, 900])
def test_a_trajectory_at_the_ends_of_the_range_has_the_same_plane(exponent):
    net, params, _, rng = setting()
    walk = [{key: value + 0.1 * k * rng.normal(size=value.shape) for key, value in params.items()} for k in range(5)]
    one, other = (trajectory_pca(net, [{k: np.ldexp(v, e) for k, v in p.items()} for p in walk]) for e in (0, exponent))
    np.testing.assert_allclose(
        other.explained_variance_ratio, one.explained_variance_ratio, rtol=1e-12
    )  # powers of two are exact
    for name in ("coordinates", "projection_error", "distance"):
        np.testing.assert_allclose(np.ldexp(getattr(other, name), -exponent), getattr(one, name), rtol=1e-12, atol=1e-14)
    far = [{key: np.full_like(value, sign * 1.7e308) for key, value in params.items()} for sign in (1.0, -1.0, 1.0)]
    with pytest.raises(ValueRangeError, match="trajectory, from its"):
        trajectory_pca(net, far)


def test_the_line_between_two_solutions_ends_at_their_losses_bit_for_bit():
    net, first, batch, rng = setting()
    second = {key: rng.uniform(-0.8, 0.8, v.shape) for key, v in first.items()}
    alpha = np.linspace(-0.5, 1.5, 9)
    found = loss_between(net, first, second, batch, mean_squared_error, alpha)
    d = {key: second[key] - first[key] for key in first}
    for value, at in zip(found.loss, alpha, strict=True):
        assert value == pytest.approx(loss_at(net, first, batch, [d], [at]), rel=1e-12)
    for end, theta, at in zip(found.ends, (first, second), (2, 6), strict=True):
        assert end == pytest.approx(float(bptt(net, theta, batch, mean_squared_error, ()).loss), rel=1e-13)
        assert found.loss[at] == end


def test_the_barrier_is_zero_on_a_convex_loss_and_known_on_a_double_well():
    # h = W V 1: (W V - 1)^2 has its minima on W V = 1; between (1, 1) and (-1, -1) lies W = V = 0 with the loss 1.
    net = Network(Elman("linear"), 1, 1, output_size=1)
    batch = Batch(np.ones((1, 1, 1)), np.ones((1, 1, 1)))

    def theta(w):
        return {"0.W": np.full((1, 1), w), "0.U": np.zeros((1, 1)), "0.b": np.zeros(1)} | {
            "readout.V": np.full((1, 1), w),
            "readout.b_y": np.zeros(1),
        }

    found = loss_between(net, theta(1.0), theta(-1.0), batch, mean_squared_error, np.linspace(0.0, 1.0, 11))
    assert found.barrier == pytest.approx(1.0, abs=1e-15)
    convex = {"0.W": np.full((1, 1), 3.0)}
    found = loss_between(net, theta(1.0), theta(1.0) | convex, batch, mean_squared_error, np.linspace(-0.5, 1.5, 11))
    assert found.barrier == 0.0


# ---- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"directions": []}, ValueRangeError, "directions has 0 entries; expected one, for a"),
        ({"directions": {"0.U": np.ones((16, 4))}}, DTypeError, r"directions is a dict; expected .* try \[direction\]"),
        ({"directions": [{"0.X": np.ones(3)}]}, ValueRangeError, r"directions\[0\] has the keys \['0.X'\]; expected some of"),
        ({"directions": [{"0.U": np.ones((4, 16))}]}, ShapeError, r'directions\[0\]\["0.U"\] has shape \(4, 16\)'),
        ({"directions": [{"0.U": np.full((16, 4), np.nan)}]}, ValueRangeError, r'directions\[0\]\["0.U"\] has 64 non-finite'),
        ({"a": np.zeros((2, 2))}, ShapeError, r"a has shape \(2, 2\); expected \(n,\)"),
        ({"a": np.array([0.0, np.inf])}, ValueRangeError, "a has 1 non-finite"),
        ({"b": A}, ValueRangeError, "directions has 1 entries; expected two"),
        ({"max_memory": 1000}, ResourceRefused, "one point of the surface with T = 6, B = 3 needs .* on each of 1 thread"),
        ({"threads": 0}, ValueRangeError, "threads is 0"),
        ({"a": np.array([1e308]), "directions": [{"0.U": np.full((16, 4), 10.0)}]}, NumericalError, "0.U leaves the range"),
        ({"loss": lambda y, t, m: (np.zeros(()), np.zeros_like(y))}, ShapeError, r"loss returned a value of shape \(\)"),
        ({"params": {"0.U": np.ones((16, 4))}}, ValueRangeError, "params lacks"),
        ({"batch": np.ones((6, 3, 2))}, DTypeError, "batch is a ndarray"),
        ({"initial_states": [1.0]}, DTypeError, "initial_states is a list"),
        ({"with_gradient": 1}, DTypeError, "with_gradient is 1"),
    ],
    ids=lambda value: str(value)[:16].partition("<")[0],
)
def test_bad_input_is_refused_by_name(change, error, message):
    net, params, batch, _ = setting()
    given = {"params": params, "batch": batch, "loss": mean_squared_error, "directions": [{"0.U": np.ones((16, 4))}], "a": A}
    with pytest.raises(error, match=message):
        loss_surface(net, **(given | change))


def test_a_second_solution_that_is_none_is_refused_by_name():
    net, params, batch, _ = setting()
    for second, error, message in (
        ([params], DTypeError, "second is a list"),
        ({"0.U": params["0.U"]}, ValueRangeError, "second lacks"),
        (params | {"0.U": np.ones(3)}, ShapeError, r'second\["0.U"\] has shape \(3,\)'),
    ):
        with pytest.raises(error, match=message):
            loss_between(net, params, second, batch, mean_squared_error, A)


def test_complex_parameters_are_refused():
    net, params, batch, _ = setting()
    with pytest.raises(DTypeError, match="expected real parameters"):
        loss_surface(net, params | {"0.U": params["0.U"] + 0j}, batch, mean_squared_error, [{"0.U": np.ones((16, 4))}], A)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda n, p, r: named_weights(n, ("0.X", 0)), ValueRangeError, "expected one of the keys"),
        (lambda n, p, r: named_weights(n, ("0.U", 3)), ValueRangeError, r"expected 2 integers, 0.U has the shape \(16, 4\)"),
        (lambda n, p, r: named_weights(n, ("0.U", (16, 0))), ValueRangeError, "expected an index inside the shape"),
        (lambda n, p, r: named_weights(n, "0.U"), DTypeError, "name is '0.U'"),
        (lambda n, p, r: named_weights(n, ("0.b", True)), ValueRangeError, "expected 1 integers"),
        (lambda n, p, r: random_direction(7, n, p), DTypeError, "default_rng"),
        (lambda n, p, r: random_direction(r, n, p, normalise="row"), ValueRangeError, "normalise is 'row'"),
        (lambda n, p, r: random_direction(r, n, p, biases="ignore"), ValueRangeError, "biases is 'ignore'"),
        (lambda n, p, r: random_direction(r, n, p, keys="0.U"), ValueRangeError, "keys is '0.U'"),
        (lambda n, p, r: trajectory_pca(n, [p]), ShapeError, "1 snapshot"),
        (lambda n, p, r: trajectory_pca(n, [p, {"0.U": 1}]), DTypeError, r'trajectory\[1\]\["0.U"\]'),
        (lambda n, p, r: trajectory_pca(n, [p, p], 2), ValueRangeError, "k is 2; expected 1 to 1"),
        (lambda n, p, r: trajectory_pca(n, p), ShapeError, r'trajectory\["0.W"\] has shape'),
        (lambda n, p, r: trajectory_pca(n, 3), DTypeError, "trajectory is a int"),
        (lambda n, p, r: trajectory_pca(n, [p] * 50, max_memory=100), ResourceRefused, "PCA of 50 snapshots"),
    ],
)
def test_bad_directions_are_refused_by_name(call, error, message):
    net, params, _, rng = setting()
    with pytest.raises(error, match=message):
        call(net, params, rng)


def test_a_gradient_of_zero_is_no_direction():
    net, params, batch, _ = setting(output_size=None)
    quiet = {key: np.zeros_like(value) for key, value in params.items()}
    with pytest.raises(NumericalError, match="the gradient has the norm 0"):
        gradient_direction(net, quiet, Batch(batch.inputs, np.zeros((6, 3, 4))), mean_squared_error)
