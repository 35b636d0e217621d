"""Hessians and Hessian-vector products against jax, which differentiates each network anew from its equations."""

import numpy as np
import pytest

import gradlab
from gradlab.analysis.hessian import Hessian, dense_hessian
from gradlab.analysis.hessian_products import hessian_vector_product

jax = pytest.importorskip("jax", reason="jax is not installed: pip install jax==0.10.2")
pytestmark = pytest.mark.peer

# Two correct float64 implementations differ by rounding only: max|a-b| <= BOUND * max|b|.
BOUND = 1e-12
QUICK = {"xla_backend_optimization_level": 0}  # compiling would take longer than all else


@pytest.fixture(autouse=True)
def double_precision():
    """jax computes in float32 unless told otherwise; told so for these tests alone."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def elman(p, x, s):
    h = jax.numpy.tanh(x @ p["0.W"].T + s @ p["0.U"].T + p["0.b"])
    return h, h


def lstm(p, x, s):
    c, h = s
    i, f, g, o = jax.numpy.split(x @ p["0.W"].T + h @ p["0.U"].T + p["0.b"], 4, axis=-1)
    i, f = jax.nn.sigmoid(i + p["0.p_i"] * c), jax.nn.sigmoid(f + p["0.p_f"] * c)
    c = f * c + i * jax.numpy.tanh(g)
    h = jax.nn.sigmoid(o + p["0.p_o"] * c) * jax.numpy.tanh(c)
    return (c, h), h


def gru(after):
    def step(p, x, h):
        a_r, a_z, a_n = jax.numpy.split(x @ p["0.W"].T + p["0.b"], 3, axis=-1)
        U_r, U_z, U_n = jax.numpy.split(p["0.U"], 3)
        r, z = jax.nn.sigmoid(a_r + h @ U_r.T), jax.nn.sigmoid(a_z + h @ U_z.T)
        q = r * (h @ U_n.T + p["0.b_hn"]) if after else (r * h) @ U_n.T
        h = z * h + (1.0 - z) * jax.numpy.tanh(a_n + q)
        return h, h

    return step


def mean_squares(outputs, targets):
    return ((outputs - targets) ** 2).mean()


def cross_entropy(outputs, targets):
    return -jax.numpy.take_along_axis(jax.nn.log_softmax(outputs), targets[..., None], -1).mean()


H = 2
CASES = {
    "elman": (gradlab.Elman(), elman, 1),
    "lstm": (gradlab.LSTM(peepholes=True), lstm, 2),
    "gru after": (gradlab.GRU(reset="after"), gru(True), 1),
    "gru before": (gradlab.GRU(reset="before"), gru(False), 1),
}
LOSSES = {
    "squares": (gradlab.mean_squared_error, mean_squares),
    "cross-entropy": (gradlab.softmax_cross_entropy, cross_entropy),
}


def both(case, loss):
    """The same network and batch twice: gradlab's, and a function of the parameters for jax."""
    cell, step, parts = CASES[case]
    ours, theirs = LOSSES[loss]
    rng = np.random.default_rng(len(case))
    T, B, D, p = 6, 2, 2, 2
    net = gradlab.Network(cell, D, H, output_size=p)
    params = {key: rng.normal(0.0, 0.8, shape) for key, shape in net.shapes.items()}
    x = rng.normal(size=(T, B, D))
    targets = rng.integers(0, p, (T, B)) if loss == "cross-entropy" else rng.normal(size=(T, B, p))
    zeros = np.zeros((B, H))

    def objective(parameters):
        start = zeros if parts == 1 else (zeros, zeros)
        _, h = jax.lax.scan(lambda s, x_t: step(parameters, x_t, s), start, x)
        return theirs(h @ parameters["readout.V"].T + parameters["readout.b_y"], targets)

    return net, params, gradlab.Batch(x, targets), ours, objective


@pytest.mark.parametrize(
    ("case", "loss"), [("elman", "cross-entropy"), ("lstm", "squares"), ("gru after", "squares"), ("gru before", "cross-entropy")]
)
def test_the_dense_hessian_equals_that_of_jax(case, loss):
    net, params, batch, ours, objective = both(case, loss)
    hessian = Hessian(net, params, batch, ours)
    found = dense_hessian(hessian)
    flat = jax.hessian(lambda vector: objective(hessian.vector.unpack(vector)))
    theirs = np.asarray(jax.jit(flat, compiler_options=QUICK)(hessian.vector.pack(params)))
    assert theirs.shape == found.shape == (hessian.size, hessian.size)
    assert np.abs(found - theirs).max() <= BOUND * np.abs(theirs).max()


def test_the_product_equals_the_jvp_of_the_gradient_of_jax():
    net, params, batch, ours, objective = both("lstm", "cross-entropy")
    rng = np.random.default_rng(1)
    v = {key: rng.normal(size=value.shape) for key, value in params.items()}
    found = hessian_vector_product(net, params, batch, ours, v)
    along = jax.jit(lambda p, d: jax.jvp(jax.grad(objective), (p,), (d,))[1], compiler_options=QUICK)
    theirs = {key: np.asarray(value) for key, value in along(params, v).items()}
    size = max(np.abs(value).max() for value in theirs.values())
    for key in params:
        assert np.abs(found[key] - theirs[key]).max() <= BOUND * size, key
