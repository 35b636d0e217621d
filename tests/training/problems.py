"""Networks and streams of batches that the tests of training share."""

import numpy as np

from gradlab import Batch, Elman, Network, mean_squared_error
from gradlab.tasks import adding
from gradlab.training import train


def neuron():
    """y = V h + b_y with h = b, one step, no input: a network whose output is linear in b_y."""
    net = Network(Elman("linear"), 1, 1, output_size=1, readout="last")
    params = {key: np.zeros(shape) for key, shape in net.shapes.items()}
    return net, params, Batch(np.zeros((1, 1, 1)), np.full((1, 1), 3.0))


def setting(cell, E=None, seed=0, length=12, rows=8):
    """A small network on the adding problem, its parameters (of E members, all different), and a way to draw batches."""
    rng = np.random.default_rng(seed)
    net = Network(cell, 2, 4, output_size=1, readout="last")
    params = net.init(rng)
    if E:
        params = {k: v * rng.uniform(0.5, 1.5, (E, *(1,) * v.ndim)) for k, v in params.items()}
    return net, params, lambda rng: adding.sample(rng, rows, length)


def member(params, e):
    return {key: value[e] for key, value in params.items()}


def run(net, params, sample, updates=5, seed=3, loss=mean_squared_error, **options):
    """`train` on one stream seeded with `seed`; a Batch stands for itself again and again."""
    draw = (lambda rng: sample) if isinstance(sample, Batch) else sample
    return train(net, params, draw, loss, updates, np.random.default_rng(seed), **options)
