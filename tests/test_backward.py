"""Backpropagation through time against answers known in closed form."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradlab
from gradlab import (
    LSTM,
    Batch,
    Elman,
    Network,
    Workspace,
    __version__,
    bptt,
    cells,
    forward,
    inits,
    mean_squared_error,
    softmax_cross_entropy,
)
from gradlab.analysis import memory_horizon
from gradlab.analysis.flow import gradient_flow
from gradlab.backward import DEFAULT_KEEP, KEEP, sweep_levels
from gradlab.errors import ResourceRefused, ValueRangeError
from gradlab.objective import read_out_vjp

CELLS = [Elman("tanh"), Elman("sigmoid"), Elman("relu"), Elman("linear"), LSTM()]


def total(outputs, targets, mask):
    """The sum of all outputs, one for each ensemble member: its derivative is 1 everywhere."""
    own = tuple(range(-2 if targets.ndim == 2 else -3, 0))
    return outputs.sum(axis=own), np.ones_like(outputs)


def setting(cell, readout="every", T=5, B=3, D=2, H=4, layers=1, output_size=2, seed=0):
    rng = np.random.default_rng(seed)
    net = Network(cell, D, H, output_size=output_size, num_layers=layers, readout=readout)
    p = net.layers[-1].output_size if output_size is None else output_size
    params = {k: rng.uniform(-0.7, 0.7, shape) for k, shape in net.shapes.items()}
    targets = rng.normal(size=(T, B, p) if readout == "every" else (B, p))
    return net, params, Batch(rng.normal(size=(T, B, D)), targets)


def close(value, reference, rtol):
    """max|a - b| <= rtol max|b|, and something was compared."""
    assert value.shape == reference.shape
    assert value.size > 0
    assert np.abs(value - reference).max() <= rtol * np.abs(reference).max()


# ---- the linear neuron ------------------------------------------------------------------------------------


def neuron(w, T):
    """y_T of y_t = w y_{t-1} + x_t for the input 1, 0, 0, ..."""
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), w), "0.b": np.zeros(1)}
    x = np.zeros((T, 1, 1))
    x[0] = 1.0
    return bptt(net, params, Batch(x, np.zeros((1, 1))), total, KEEP)


@pytest.mark.parametrize(("w", "y", "slope"), [(1.01, 20751.639245, 2.052563129e7), (0.99, 4.360732e-5, 0.0440037508)])
def test_linear_neuron_after_1000_steps_has_the_known_value_and_slope(w, y, slope):
    record = neuron(w, 1000)
    value, gradient = float(record.outputs[0, 0]), float(record.gradients["0.U"][0, 0])
    # 1000 products and as many sums, each rounded by at most 1.1e-16.
    np.testing.assert_allclose(value, w**999, rtol=1e-12)
    np.testing.assert_allclose(gradient, 999 * w**998, rtol=1e-12)
    np.testing.assert_allclose(value, y, rtol=2e-7)  # printed with 7 to 11 digits
    np.testing.assert_allclose(gradient, slope, rtol=1e-9)  # printed with 9 or 10 digits
    assert float(record.loss) == value
    # dL/dh_t = w^(T-t) for every t, dL/dx_t the same.
    np.testing.assert_allclose(record.layers["0"].series("adjoints")[:, 0, 0], w ** np.arange(1000, -1, -1.0), rtol=1e-12)
    np.testing.assert_allclose(record.input_gradient[:, 0, 0], w ** np.arange(999, -1, -1.0), rtol=1e-12)


def test_linear_neuron_at_w_1_has_slope_999_exactly():
    record = neuron(1.0, 1000)
    assert record.outputs[0, 0] == 1.0
    assert record.gradients["0.U"][0, 0] == 999.0


def test_linear_neuron_at_w_0_01_underflows_to_zero_without_a_flag():
    record = neuron(0.01, 1000)
    assert record.outputs[0, 0] == 0.0
    assert record.gradients["0.U"][0, 0] == 0.0
    assert record.status.ok  # zero is a number
    # ln|dL/dh_t| = (T - t) ln w as far down as float64 reaches.
    flow = gradient_flow(record).log_total["0"][:, 0]
    np.testing.assert_allclose(flow[-150:], np.arange(149, -1, -1.0) * np.log(0.01), rtol=1e-12, atol=1e-12)  # 150 products
    assert (flow[:830] == -np.inf).all()


def test_one_step_of_one_unit_equals_the_chain_rule_by_hand():
    net = Network(Elman("tanh"), 1, 1, output_size=1, readout="last")
    params = {k: np.full(s, v) for (k, s), v in zip(net.shapes.items(), (0.5, -0.3, 0.1, 2.0, -1.0), strict=True)}
    record = bptt(
        net, params, Batch(np.full((1, 1, 1), 0.8), np.full((1, 1), 0.25)), mean_squared_error, KEEP, initial_states=START
    )
    h = np.tanh(0.5 * 0.8 - 0.3 * 0.6 + 0.1)
    y = 2.0 * h - 1.0
    dy = 2.0 * (y - 0.25)
    da = dy * 2.0 * (1.0 - h * h)
    expected = {"0.W": da * 0.8, "0.U": da * 0.6, "0.b": da, "readout.V": dy * h, "readout.b_y": dy}
    assert record.status.ok
    np.testing.assert_allclose(record.loss, (y - 0.25) ** 2, rtol=1e-14)  # ten roundings
    for key, value in expected.items():
        np.testing.assert_allclose(record.gradients[key].ravel(), [value], rtol=1e-14, err_msg=key)
    layer = record.layers["0"]
    np.testing.assert_allclose(layer.series("jacobians").ravel(), [-0.3 * (1.0 - h * h)], rtol=1e-14)
    np.testing.assert_allclose(layer.series("adjoints").ravel(), [-0.3 * da, 2.0 * dy], rtol=1e-14)
    np.testing.assert_allclose(layer.series("immediate").ravel(), [0.0, 2.0 * dy], rtol=1e-14)
    np.testing.assert_allclose(record.input_gradient.ravel(), [0.5 * da], rtol=1e-14)


START = {"0": np.full((1, 1), 0.6)}


# ---- norms ------------------------------------------------------------------------------------------------


def test_orthogonal_linear_net_preserves_gradient_norm_at_every_lag():
    rng = np.random.default_rng(0)
    T, B, H = 300, 4, 16
    net = Network(Elman("linear"), 2, H, output_size=3, readout="last")
    params = net.init(rng, recurrent_init=inits.orthogonal())
    record = bptt(net, params, Batch(rng.normal(size=(T, B, 2)), rng.normal(size=(B, 3))), mean_squared_error)
    norms = np.linalg.norm(record.layers["0"].series("adjoints"), axis=-1)
    # U is orthogonal to some 1e-15, and 300 products add up at most 300 times that.
    np.testing.assert_allclose(norms, np.broadcast_to(norms[-1], norms.shape), rtol=1e-12)
    assert (norms > 0.0).all()


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_scaled_orthogonal_linear_net_changes_the_norm_by_the_gain_each_step(gain):
    rng = np.random.default_rng(1)
    T, H = 100, 8
    net = Network(Elman("linear"), 2, H, readout="last")
    params = net.init(rng, recurrent_init=inits.orthogonal(gain))
    record = bptt(net, params, Batch(rng.normal(size=(T, 2, 2)), rng.normal(size=(2, H))), mean_squared_error)
    flow = gradient_flow(record).log_total["0"]
    lag = np.arange(T, -1, -1.0)[:, None]
    np.testing.assert_allclose(flow - flow[-1], np.broadcast_to(lag * np.log(gain), flow.shape), atol=1e-12)  # as above


def test_lstm_without_recurrent_weights_carries_the_gradient_by_its_forget_gates_alone():
    net, params, batch = setting(LSTM(), "last", T=30, output_size=None)
    params["0.U"][...] = 0.0
    layer = bptt(net, params, batch, total, KEEP).layers["0"]
    H = 4
    f, o, c = layer.gates["f"], layer.gates["o"], layer.series("states", "c")
    product = np.eye(2 * H)[None].repeat(3, axis=0)
    for J in layer.series("jacobians"):
        product = J @ product
    # dc_T/dc_0 = prod f_t, a diagonal matrix; 30 products.
    close(product[:, :H, :H], np.prod(f, axis=0)[:, :, None] * np.eye(H), 1e-14)
    np.testing.assert_array_equal(product[:, :, H:], 0.0)  # nothing reads h
    # With dL/dh_T = 1: dL/dc_0 = o_T tanh'(c_T) prod f_t, entry by entry.
    expected = o[-1] / np.cosh(c[-1]) ** 2 * np.prod(f, axis=0)
    np.testing.assert_allclose(layer.series("adjoints", "c")[0], expected, rtol=1e-13)


@pytest.mark.parametrize(("bias", "steps"), [(0.0, 1.442695), (1.0, 3.192219), (2.0, 7.878482), (4.0, 55.09664)])
def test_forget_bias_sets_the_memory_horizon_of_an_idle_lstm(bias, steps):
    # W = U = 0: f = sigmoid(b_f), so the gradient decays by a factor e in -1/ln f steps.
    net = Network(LSTM(), 1, 1, readout="last")
    params = {k: np.zeros(s) for k, s in net.shapes.items()}
    params["0.b"][1] = bias
    T = 200
    record = bptt(net, params, Batch(np.zeros((T, 1, 1)), np.zeros((1, 1))), total)
    flow = gradient_flow(record).log_total["0/c"][:T]  # dL/dc_t through later steps; c_T itself reaches the loss through h_T
    np.testing.assert_allclose(memory_horizon(flow).median, steps, rtol=1e-6)  # tabulated with seven digits
    np.testing.assert_allclose(np.diff(flow[:, 0]), -np.log(1.0 / (1.0 + np.exp(-bias))), rtol=1e-12)  # exact per step


def test_a_gradient_of_1e_minus_250_is_recorded_with_all_its_digits():
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 0.1), "0.b": np.zeros(1)}
    record = bptt(net, params, Batch(np.ones((250, 1, 1)), np.zeros((1, 1))), total)
    np.testing.assert_allclose(record.layers["0"].series("adjoints")[0, 0, 0], 1e-250, rtol=1e-13)  # 250 products


@pytest.mark.parametrize("cell", CELLS, ids=repr)
@pytest.mark.parametrize("readout", ["every", "last"])
def test_adjoints_follow_the_recursion_with_the_recorded_jacobians(cell, readout):
    net, params, batch = setting(cell, readout, layers=2)
    for layer in bptt(net, params, batch, mean_squared_error, KEEP).layers.values():
        J, e, delta = layer.series("jacobians"), layer.series("immediate"), layer.series("adjoints")
        close(delta[:-1], e[:-1] + np.einsum("tbij,tbi->tbj", J, delta[1:]), 1e-14)  # sums of at most 8 terms
        np.testing.assert_array_equal(delta[-1], e[-1])


def test_a_loss_at_the_last_step_has_no_immediate_partial_before_it():
    net, params, batch = setting(LSTM(), "last", layers=2)
    record = bptt(net, params, batch, mean_squared_error)
    top, bottom = record.layers["1"], record.layers["0"]
    np.testing.assert_array_equal(top.series("immediate")[:-1], 0.0)
    np.testing.assert_array_equal(top.series("immediate", "c"), 0.0)
    assert (top.series("immediate", "h")[-1] != 0.0).all()
    assert (bottom.series("immediate", "h")[1:] != 0.0).all()  # what arrives from above at every step
    np.testing.assert_array_equal(bottom.series("immediate")[0], 0.0)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_reading_out_at_the_last_step_equals_masking_all_others(cell):
    net, params, batch = setting(cell, "last")
    every = Network(cell, 2, 4, output_size=2)
    targets, mask = np.zeros((5, 3, 2)), np.zeros((5, 3))
    targets[-1], mask[-1] = batch.targets, 1.0
    last = bptt(net, params, batch, mean_squared_error, KEEP)
    masked = bptt(every, params, Batch(batch.inputs, targets, mask), mean_squared_error, KEEP)
    np.testing.assert_allclose(last.loss, masked.loss, rtol=1e-14)  # the same mean in another order
    np.testing.assert_array_equal(last.outputs, masked.outputs[-1])
    for key in params:
        close(last.gradients[key], masked.gradients[key], 1e-14)
    close(last.layers["0"].series("adjoints"), masked.layers["0"].series("adjoints"), 1e-14)


def test_a_masked_sequence_has_exactly_no_gradient():
    net, params, batch = setting(LSTM())
    mask = np.ones((5, 3))
    mask[:, 1] = 0.0
    record = bptt(net, params, Batch(batch.inputs, batch.targets, mask), mean_squared_error, KEEP)
    np.testing.assert_array_equal(record.layers["0"].series("adjoints")[:, 1], 0.0)
    np.testing.assert_array_equal(record.input_gradient[:, 1], 0.0)
    kept = [0, 2]
    alone = bptt(net, params, Batch(batch.inputs[:, kept], batch.targets[:, kept]), mean_squared_error)
    for key in params:
        close(record.gradients[key], alone.gradients[key], 1e-14)  # the same terms in another order


@pytest.mark.parametrize("cell", CELLS, ids=repr)
@pytest.mark.parametrize("readout", ["every", "last"])
def test_a_single_step_works(cell, readout):
    net, params, batch = setting(cell, readout, T=1, B=1)
    record = bptt(net, params, batch, mean_squared_error, KEEP)
    assert record.status.ok
    layer = record.layers["0"]
    np.testing.assert_array_equal(layer.series("adjoints")[1], layer.series("immediate")[1])
    expected = np.einsum("bij,bi->bj", layer.series("jacobians")[0], layer.series("adjoints")[1])
    np.testing.assert_allclose(layer.series("adjoints")[0], expected, rtol=1e-13, atol=1e-16)  # four products


def test_cutting_the_sequence_in_two_and_carrying_state_and_adjoint_changes_nothing():
    net, params, batch = setting(LSTM(), T=7, output_size=None)
    whole = bptt(net, params, batch, total, KEEP)
    first = forward(net, params, batch.inputs[:3])
    second = bptt(
        net, params, Batch(batch.inputs[3:], batch.targets[3:]), total, KEEP, initial_states={"0": first.states["0"][-1]}
    )
    np.testing.assert_allclose(second.outputs, whole.outputs[3:], rtol=1e-13)  # products of other block sizes
    carried = second.layers["0"].series("adjoints")[0]
    close(carried + whole.layers["0"].series("immediate")[3], whole.layers["0"].series("adjoints")[3], 1e-14)


# ---- ensembles --------------------------------------------------------------------------------------------


def members_of(net, params, batch, loss=mean_squared_error, E=3):
    """Each member alone: a parameter or input with an ensemble axis gives its slice, the others are shared."""
    out = []
    for e in range(E):
        own = {k: v[e] if v.ndim > len(net.shapes[k]) else v for k, v in params.items()}
        x = batch.inputs[:, e] if batch.inputs.ndim == 4 else batch.inputs
        every = net.readout == "every"
        targets = (batch.targets[:, e] if every else batch.targets[e]) if batch.inputs.ndim == 4 else batch.targets
        out.append(bptt(net, own, Batch(x, targets), loss, KEEP))
    return out


@pytest.mark.parametrize("readout", ["every", "last"])
@pytest.mark.parametrize("keys", [("0.U",), ("0.W", "0.b"), ("readout.V",), ("1.U", "readout.b_y"), "all"], ids=str)
@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM()], ids=repr)
def test_members_equal_a_loop_and_shared_parameters_get_the_sum(cell, keys, readout):
    net, params, batch = setting(cell, readout, layers=2)
    factors = np.array([1.0, -0.5, 0.25])
    chosen = list(params) if keys == "all" else keys
    params = {k: v * factors.reshape(-1, *(1,) * v.ndim) if k in chosen else v for k, v in params.items()}
    together = bptt(net, params, batch, mean_squared_error, KEEP)
    alone = members_of(net, params, batch)
    # Blocked products in another order: rounding of the largest entry.
    close(together.loss, np.array([float(r.loss) for r in alone]), 1e-14)
    for key in params:
        gradients = np.stack([r.gradients[key] for r in alone])
        close(together.gradients[key], gradients if key in chosen else gradients.sum(axis=0), 1e-13)
    close(together.input_gradient, sum(r.input_gradient for r in alone), 1e-13)
    if keys == "all":
        for name, layer in together.layers.items():
            for series in ("states", "adjoints", "jacobians"):
                close(layer.series(series), np.stack([r.layers[name].series(series) for r in alone], axis=1), 1e-13)


@pytest.mark.parametrize("readout", ["every", "last"])
@pytest.mark.parametrize("own_u", [False, True], ids=["shared", "own U"])
@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM()], ids=repr)
def test_members_may_read_their_own_sequences(cell, own_u, readout):
    net, params, batch = setting(cell, readout)
    rng = np.random.default_rng(9)
    if own_u:
        params["0.U"] = params["0.U"] * np.array([1.0, -0.5, 0.25]).reshape(3, 1, 1)
    shape = (5, 3, 3, 2) if readout == "every" else (3, 3, 2)  # (T, E, B, p) or (E, B, p)
    batch = Batch(rng.normal(size=(5, 3, 3, 2)), rng.normal(size=shape))
    together = bptt(net, params, batch, mean_squared_error, KEEP)
    alone = members_of(net, params, batch)
    close(together.loss, np.array([float(r.loss) for r in alone]), 1e-14)
    for key in params:
        gradients = np.stack([r.gradients[key] for r in alone])
        close(together.gradients[key], gradients if key == "0.U" and own_u else gradients.sum(axis=0), 1e-13)
    close(together.input_gradient, np.stack([r.input_gradient for r in alone], axis=1), 1e-13)


def test_two_ensemble_axes_broadcast_against_each_other():
    net, params, batch = setting(Elman("tanh"))
    gains, shifts = np.array([0.5, 1.0]), np.array([-1.0, 0.0, 1.0])
    grid = params | {"0.U": params["0.U"] * gains[:, None, None, None], "0.b": params["0.b"] + shifts[None, :, None]}
    assert grid["0.U"].shape == (2, 1, 4, 4)
    together = bptt(net, grid, batch, mean_squared_error)
    assert together.loss.shape == (2, 3)
    total_u = np.zeros((2, 1, 4, 4))
    for i, g in enumerate(gains):
        for j, s in enumerate(shifts):
            single = bptt(net, params | {"0.U": g * params["0.U"], "0.b": params["0.b"] + s}, batch, mean_squared_error)
            np.testing.assert_allclose(together.loss[i, j], single.loss, rtol=1e-13)  # another blocking of the same sums
            total_u[i, 0] += single.gradients["0.U"]
    close(together.gradients["0.U"], total_u, 1e-13)


def test_initial_states_may_have_ensemble_axes():
    net, params, batch = setting(LSTM())
    s = np.random.default_rng(2).normal(size=(3, 3, 8))
    together = bptt(net, params, batch, mean_squared_error, initial_states={"0": s})
    for e in range(3):
        single = bptt(net, params, batch, mean_squared_error, initial_states={"0": s[e]})
        np.testing.assert_allclose(together.loss[e], single.loss, rtol=1e-13)  # another blocking of the same sums
        close(together.layers["0"].series("adjoints")[:, e], single.layers["0"].series("adjoints"), 1e-13)


# ---- second derivatives -----------------------------------------------------------------------------------


def labels_of(batch):
    return Batch(batch.inputs, np.random.default_rng(4).integers(0, 2, batch.inputs.shape[:2]))


@pytest.mark.parametrize("cell", [Elman("tanh"), Elman("sigmoid"), LSTM()], ids=repr)
@pytest.mark.parametrize("loss", [mean_squared_error, softmax_cross_entropy], ids=lambda f: f.__name__)
def test_hessian_vector_product_by_complex_step_equals_the_difference_of_gradients(cell, loss):
    net, params, batch = setting(cell, layers=2)
    batch = batch if loss is mean_squared_error else labels_of(batch)
    rng = np.random.default_rng(5)
    v = {k: rng.normal(size=p.shape) for k, p in params.items()}
    h, step = 1e-30, 1e-5
    product = {
        k: g.imag / h for k, g in bptt(net, {k: p + 1j * h * v[k] for k, p in params.items()}, batch, loss).gradients.items()
    }
    up, down = (bptt(net, {k: p + s * v[k] for k, p in params.items()}, batch, loss).gradients for s in (step, -step))
    for key in params:
        # Central differences: step^2 |third derivative| = 1e-10 and rounding 1e-16/step = 1e-11, relative.
        close(product[key], (up[key] - down[key]) / (2.0 * step), 1e-6)
    # <u, Hv> = <v, Hu>, which no difference could show to this accuracy.
    u = {k: rng.normal(size=p.shape) for k, p in params.items()}
    other = {
        k: g.imag / h for k, g in bptt(net, {k: p + 1j * h * u[k] for k, p in params.items()}, batch, loss).gradients.items()
    }
    one, two = (sum((a[k] * b[k]).sum() for k in params) for a, b in ((u, product), (v, other)))
    size = sum(np.abs(u[k] * product[k]).sum() for k in params)
    assert abs(one - two) <= 1e-13 * size  # rounding of sums of some hundred terms


def test_hessian_of_a_linear_neuron_is_known():
    w, T, h = 0.9, 12, 1e-30
    net = Network(Elman("linear"), 1, 1, readout="last")
    x = np.zeros((T, 1, 1))
    x[0] = 1.0
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), w + 1j * h), "0.b": np.zeros(1)}
    gradients = bptt(net, params, Batch(x, np.zeros((1, 1))), total).gradients
    np.testing.assert_allclose(gradients["0.U"].imag / h, (T - 1) * (T - 2) * w ** (T - 3), rtol=1e-13)  # y'' of w^(T-1)


# ---- what leaves the range of floats ----------------------------------------------------------------------


def exploding(layers=1):
    rng = np.random.default_rng(0)
    net = Network(Elman("relu"), 2, 8, output_size=1, num_layers=layers)
    params = {k: 1e3 * v for k, v in net.init(rng).items()}
    return net, params, Batch(rng.normal(size=(400, 2, 2)), np.zeros((400, 2, 1)))


@pytest.mark.parametrize("mode", ["warn", "raise"])
def test_an_explosion_forward_is_reported_with_layer_and_step_and_nothing_else_happens(mode):
    net, params, batch = exploding()
    with np.errstate(all=mode):
        before = np.geterr()
        record = bptt(net, params, batch, mean_squared_error, KEEP)
        assert np.geterr() == before
    states = record.layers["0"].series("states")
    first = int(np.argmax(~np.isfinite(states).all(axis=(1, 2))))
    assert 50 < first < 400  # each step multiplies by about 1e3, so about 100 steps
    assert record.status.code == "overflow"
    assert record.status.detail == f"forward: state of layer 0 non-finite from t = {first} on"
    flow = gradient_flow(record).log_total["0"]
    assert not np.isfinite(flow).all()


def test_an_explosion_in_the_upper_layer_names_that_layer():
    net, params, batch = setting(Elman("relu"), T=20, layers=2, output_size=None)
    params = {k: np.abs(v) for k, v in params.items()}
    params["1.U"] = 1e200 * params["1.U"]
    record = bptt(net, params, Batch(np.abs(batch.inputs), batch.targets), mean_squared_error)
    assert record.status.detail.startswith("forward: state of layer 1 non-finite from t = ")


@pytest.mark.parametrize("mode", ["warn", "raise"])
def test_an_explosion_backward_alone_names_layer_and_step(mode):
    # Input and state are 0, so the forward pass is finite; the gradient grows by 1e100 a step.
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 1e100), "0.b": np.zeros(1)}
    with np.errstate(all=mode):
        record = bptt(net, params, Batch(np.zeros((10, 1, 1)), np.ones((1, 1))), total)
    np.testing.assert_array_equal(record.layers["0"].series("states"), 0.0)
    # delta_t = 1e100^(10 - t): beyond 1.8e308 at t = 6.
    assert str(record.status) == "overflow: backward: adjoint of layer 0 non-finite from t = 6 down"


def test_without_adjoints_a_backward_explosion_is_still_reported():
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 1e100), "0.b": np.zeros(1)}
    record = bptt(net, params, Batch(np.zeros((10, 1, 1)), np.ones((1, 1))), total, keep=())
    assert record.status.code == "overflow"


@pytest.mark.parametrize("what", ["adjoints", "input_gradient"])
def test_no_kept_array_is_non_finite_under_the_status_ok(what):
    net = Network(Elman("linear"), 1, 1, readout="last")

    def loss(outputs, targets, mask):
        return 10.0 * outputs.sum(), np.full_like(outputs, 10.0)

    # One step from the state 0: dL/dU = 10 h_0 = 0 and dL/db = 10 are finite, but 10 * 1e308 is not.
    values = {"0.W": 1.0, "0.U": 1e308, "0.b": 0.0} if what != "input_gradient" else {"0.W": 1e308, "0.U": 0.0, "0.b": 0.0}
    params = {k: np.full(s, values[k]) for k, s in net.shapes.items()}
    record = bptt(net, params, Batch(np.full((1, 1, 1), 1e-3), np.zeros((1, 1))), loss, KEEP)
    kept = record.input_gradient if what == "input_gradient" else record.layers["0"].series(what)
    assert np.isinf(kept).any()
    assert record.status.code == "overflow"


@pytest.mark.parametrize("mode", ["warn", "raise"])
def test_members_that_explode_to_both_sides_raise_no_warning_in_the_shared_gradient(mode):
    # dL/dW of the shared W is the sum over members: +inf and -inf.
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((2, 1, 1), 1e10), "0.b": np.zeros(1)}

    def loss(outputs, targets, mask):
        sign = np.array([1.0, -1.0]).reshape(2, 1, 1)
        return (sign * outputs).sum(axis=(-2, -1)), sign * np.ones_like(outputs)

    with np.errstate(all=mode):
        record = bptt(net, params, Batch(np.full((32, 1, 1), 1e-12), np.ones((1, 1))), loss)
    assert record.status.code == "overflow"


def test_a_non_finite_parameter_is_refused_by_name_and_place():
    net, params, batch = setting(Elman("tanh"))
    params["0.U"][0, 1] = np.nan
    with pytest.raises(
        gradlab.GradlabError, match=r'params\["0\.U"\] has 1 non-finite values, the first at index \(0, 1\) \(nan\)'
    ):
        bptt(net, params, batch, mean_squared_error)


@pytest.mark.parametrize("mode", ["warn", "raise"])
def test_harmless_underflow_is_no_error_in_a_program_that_asked_for_floating_point_errors(mode):
    rng = np.random.default_rng(0)
    net = Network(LSTM(), 2, 4, output_size=1, readout="last")
    params = {k: 1e-3 * v for k, v in net.init(rng, forget_bias=-5.0).items()}
    batch = Batch(rng.normal(size=(500, 2, 2)), rng.normal(size=(2, 1)))
    with np.errstate(all=mode):
        record = bptt(net, params, batch, mean_squared_error, KEEP)
        flow = gradient_flow(record)
    assert record.status.ok
    assert (flow.log_total["0"][0] < -300.0).all()


# ---- resources --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "H"), [(Elman(), 256), (LSTM(), 128)], ids=["Elman", "LSTM"])
def test_jacobians_that_do_not_fit_are_refused_before_anything_is_allocated(cell, H):
    net = Network(cell, 1, H)
    params = {k: np.zeros(s) for k, s in net.shapes.items()}
    start = time.perf_counter()
    with pytest.raises(ResourceRefused, match=r"T = 10000, B = 32, S = 256 needs 156 GiB, the limit is 4 GiB; use .*jacobians\("):
        bptt(
            net,
            params,
            Batch(np.zeros((10000, 32, 1)), np.zeros((10000, 32, H))),
            total,
            (*DEFAULT_KEEP, "jacobians"),
            max_memory=2**32,
        )
    assert time.perf_counter() - start < 2.0  # the pass itself would take longer


@pytest.mark.parametrize("itemsize", [4, 8, 16])
def test_the_refusal_counts_members_layers_and_bytes(itemsize):
    dtype = {4: np.float32, 8: np.float64, 16: np.complex128}[itemsize]
    net = Network(Elman(), 2, 4, num_layers=2)
    params = {k: np.zeros(s, dtype) for k, s in net.shapes.items()}
    params["1.U"] = np.zeros((3, 4, 4), dtype)
    batch = Batch(np.zeros((5, 2, 2), np.float32), np.zeros((5, 2, 4)))
    needed = 5 * 2 * 3 * (4 * 4) * 2 * itemsize
    keep = ("jacobians",)
    assert bptt(net, params, batch, mean_squared_error, keep, max_memory=needed).layers["1"].jacobians.nbytes == needed // 2
    with pytest.raises(ResourceRefused, match=r"use gradlab\.analysis\.jacobians"):
        bptt(net, params, batch, mean_squared_error, keep, max_memory=needed - 1)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_a_workspace_changes_no_number_and_is_overwritten_by_the_next_call(cell):
    net, params, batch = setting(cell, T=6)
    other = Batch(-2.0 * batch.inputs, batch.targets)
    workspace = Workspace()
    plain, plain_other = (bptt(net, params, b, mean_squared_error, KEEP) for b in (batch, other))
    first = bptt(net, params, batch, mean_squared_error, KEEP, workspace=workspace)
    for series in ("states", "immediate", "adjoints", "jacobians"):
        np.testing.assert_array_equal(first.layers["0"].series(series), plain.layers["0"].series(series))
    gradients = {k: v.copy() for k, v in first.gradients.items()}
    second = bptt(net, params, other, mean_squared_error, KEEP, workspace=workspace)
    np.testing.assert_array_equal(second.layers["0"].series("adjoints"), plain_other.layers["0"].series("adjoints"))
    np.testing.assert_array_equal(first.layers["0"].series("states"), second.layers["0"].series("states"))  # overwritten
    for key in params:
        np.testing.assert_array_equal(first.gradients[key], gradients[key])  # gradients last
        np.testing.assert_array_equal(second.gradients[key], plain_other.gradients[key])


def test_a_workspace_serves_shorter_longer_and_narrower_passes():
    net, params, batch = setting(LSTM(), T=6)
    workspace = Workspace()
    for T, dtype in ((6, np.float64), (3, np.float64), (9, np.float64), (6, np.float32), (6, np.complex128), (6, np.float64)):
        x = np.resize(batch.inputs, (T, 3, 2)).astype(np.float64 if dtype is np.complex128 else dtype)
        own = {k: v.astype(dtype) for k, v in params.items()}
        b = Batch(x, np.resize(batch.targets, (T, 3, 2)).astype(x.dtype))
        reused = bptt(net, own, b, mean_squared_error, workspace=workspace)
        fresh = bptt(net, own, b, mean_squared_error)
        for key in params:
            np.testing.assert_array_equal(reused.gradients[key], fresh.gradients[key], strict=True)


# ---- the rest of the interface ----------------------------------------------------------------------------


def test_progress_is_told_after_each_layer():
    net, params, batch = setting(Elman(), layers=3)
    told = []
    bptt(net, params, batch, mean_squared_error, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_exception_in_progress_reaches_the_caller_and_leaves_the_error_state():
    net, params, batch = setting(Elman())
    before = np.geterr()

    def stop(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bptt(net, params, batch, mean_squared_error, progress=stop)
    assert np.geterr() == before


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_float32_stays_float32_and_is_near_float64(cell):
    net, params, batch = setting(cell, layers=2)
    wide = bptt(net, params, batch, mean_squared_error, KEEP)
    single = Batch(batch.inputs.astype(np.float32), batch.targets.astype(np.float32))
    record = bptt(net, {k: v.astype(np.float32) for k, v in params.items()}, single, mean_squared_error, KEEP)
    layer = record.layers["0"]
    arrays = [record.outputs, record.input_gradient, record.loss, *record.gradients.values(), *layer.gates.values()]
    arrays += [layer.series(s) for s in ("states", "immediate", "adjoints", "jacobians")]
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
    for key in params:
        close(record.gradients[key], wide.gradients[key], 1e-5)  # 100 roundings of 6e-8


def test_the_loss_of_a_float32_network_with_labels_is_float32():
    net, params, batch = setting(Elman())
    labels = labels_of(batch)
    record = bptt(
        net,
        {k: v.astype(np.float32) for k, v in params.items()},
        Batch(labels.inputs.astype(np.float32), labels.targets),
        softmax_cross_entropy,
    )
    assert record.gradients["0.U"].dtype == np.float32
    assert record.loss.dtype == np.float32


@pytest.mark.parametrize("keep", [("states", "velocity"), "states", ("jacobian",), [""]], ids=str)
def test_unknown_things_to_keep_are_refused_by_name(keep):
    net, params, batch = setting(Elman())
    with pytest.raises(
        ValueRangeError, match=r"keep is .*; expected a sequence of names out of states, gates, immediate, adjoints, jacobians"
    ):
        bptt(net, params, batch, mean_squared_error, keep)


@pytest.mark.parametrize("name", KEEP)
def test_only_what_was_asked_for_is_kept(name):
    net, params, batch = setting(LSTM())
    record = bptt(net, params, batch, mean_squared_error, (name,))
    layer = record.layers["0"]
    kept = {s for s in ("states", "immediate", "adjoints", "jacobians") if getattr(layer, s) is not None}
    kept |= {"gates"} if layer.gates else set()
    kept |= {"input_gradient"} if record.input_gradient is not None else set()
    assert kept == {name}


def test_gradients_do_not_depend_on_what_is_kept():
    net, params, batch = setting(LSTM(), layers=2)
    everything = bptt(net, params, batch, mean_squared_error, KEEP).gradients
    nothing = bptt(net, params, batch, mean_squared_error, ()).gradients
    for key in params:
        np.testing.assert_array_equal(nothing[key], everything[key])


def test_provenance_names_versions_cell_and_what_the_caller_adds():
    net, params, batch = setting(LSTM())
    provenance = bptt(net, params, batch, mean_squared_error, provenance={"seed": 7, "cell": "mine"}).provenance
    assert provenance["gradlab"] == __version__
    assert provenance["numpy"] == np.__version__
    assert provenance["seed"] == 7
    assert provenance["cell"] == "mine"  # what the caller says wins
    assert bptt(net, params, batch, mean_squared_error).provenance["cell"] == "LSTM()"


def test_inputs_that_are_not_contiguous_give_the_same_numbers():
    net, params, batch = setting(LSTM())
    wide = np.zeros((10, 3, 4))
    wide[::2, :, ::2] = batch.inputs
    strided = {k: np.asfortranarray(v) for k, v in params.items()}
    record = bptt(net, strided, Batch(wide[::2, :, ::2], batch.targets), mean_squared_error, KEEP)
    plain = bptt(net, params, batch, mean_squared_error, KEEP)
    for key in params:
        close(record.gradients[key], plain.gradients[key], 1e-14)  # BLAS may take another path


@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM()], ids=repr)
def test_two_threads_that_share_a_network_get_what_one_gets(cell):
    net, params, _ = setting(cell, T=20, layers=2)
    rng = np.random.default_rng(8)
    batches = [Batch(rng.normal(size=(20, 3, 2)), rng.normal(size=(20, 3, 2))) for _ in range(50)]
    gate = threading.Barrier(2)

    def run(batch):
        if batch is batches[0] or batch is batches[1]:
            gate.wait(10)
        return bptt(net, params, batch, mean_squared_error, KEEP)

    fresh = Network(cell, 2, 4, output_size=2, num_layers=2)
    serial = [bptt(fresh, params, batch, mean_squared_error, KEEP) for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        for one, other in zip(serial, pool.map(run, batches), strict=True):
            np.testing.assert_array_equal(other.loss, one.loss)
            for key in params:
                np.testing.assert_array_equal(other.gradients[key], one.gradients[key])
            np.testing.assert_array_equal(other.layers["1"].series("adjoints"), one.layers["1"].series("adjoints"))


@pytest.mark.parametrize("lengths", [None, np.array([6, 3, 5])], ids=["equal", "ragged"])
@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_an_adjoint_of_the_last_step_alone_gives_what_zeros_before_it_give(cell, lengths):
    net = Network(cell, 2, 4, num_layers=2, output_size=1, readout="last")
    rng = np.random.default_rng(0)
    params = {key: np.stack([value, 0.5 * value]) for key, value in net.init(rng).items()}
    run = forward(net, params, rng.normal(size=(6, 3, 2)), lengths=lengths)
    found = []
    for short in (True, False):
        gradients, dy = read_out_vjp(net, run, np.ones((2, 3, 1)), short=short)
        assert len(dy["1"]) == (1 if short and lengths is None else 6)
        layers, dx = sweep_levels(net, run, dy, ("immediate", "adjoints", "input_gradient"), gradients)
        found.append([dx, *gradients.values(), *(getattr(layers[k], name) for k in "01" for name in ("immediate", "adjoints"))])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
