"""What the tests of the checks judge: a user's cell whose hand-written vjp can be spoiled one factor at a time."""

import numpy as np

from gradlab.checks import Example
from gradlab.network import Network


class Tanh:
    """s_t = f(W x_t + U s_(t-1) + b) with f = tanh, and its vjp in the textbook form 1 - tanh^2.

    `defects` multiply what the vjp returns: "a" the pre-activation's adjoint, "W", "U", "b", "x", "s" one result.
    """

    def __init__(self, **defects):
        self.defects = defects

    def __repr__(self):
        return f"{type(self).__name__}()"

    def init(self, rng, input_size, hidden_size):
        shapes = {"W": (hidden_size, input_size), "U": (hidden_size, hidden_size), "b": (hidden_size,)}
        return {key: rng.uniform(-1.0, 1.0, shape) for key, shape in shapes.items()}

    def f(self, z, t):
        return np.tanh(z)

    def slope(self, z, t):
        return 1.0 - np.tanh(z) ** 2

    def step(self, params, x_t, s_prev, t):
        return self.f(x_t @ params["W"].T + s_prev @ params["U"].T + params["b"], t)

    def vjp(self, params, x_t, s_prev, delta, t):
        by = {name: self.defects.get(name, 1.0) for name in ("a", "W", "U", "b", "x", "s")}
        da = delta * by["a"] * self.slope(x_t @ params["W"].T + s_prev @ params["U"].T + params["b"], t)
        gradients = {"W": by["W"] * (da.T @ x_t), "U": by["U"] * (da.T @ s_prev), "b": by["b"] * da.sum(axis=0)}
        return gradients, by["x"] * (da @ params["W"]), by["s"] * (da @ params["U"])


class AccurateTanh(Tanh):
    """The same, with a slope that keeps its digits in saturation."""

    def slope(self, z, t):
        return 1.0 / np.cosh(z) ** 2


class Relu(Tanh):
    """max(z, 0) with slope 0 at exactly 0, as PyTorch has it. A complex step of np.maximum takes the slope 1 there."""

    def f(self, z, t):
        return np.maximum(z, 0.0)

    def slope(self, z, t):
        return (z > 0) * 1.0


class Linear(Tanh):
    def f(self, z, t):
        return z

    def slope(self, z, t):
        return np.ones_like(z)


def one_layer(cell, W, U, b, x, cotangent, s_0=None, readout="every", **options):
    """An example over one layer, all numbers given."""
    W, U, b, x = (np.asarray(value, float) for value in (W, U, b, x))
    net = Network(cell, W.shape[1], W.shape[0], readout=readout)
    initial = {} if s_0 is None else {"0": np.asarray(s_0, float)}
    return Example(net, {"0.W": W, "0.U": U, "0.b": b}, x, initial, np.asarray(cotangent, float), **options)


def scalar(cell, xs, *, w=1.0, u=0.0, b=0.0, **options):
    """An example of one unit, one input and one row, the loss at every step."""
    T = len(xs)
    return one_layer(cell, [[w]], [[u]], [b], np.reshape(xs, (T, 1, 1)), np.ones((T, 1, 1)), **options)
