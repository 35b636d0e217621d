"""Evidence for the tests of flow and structure: one pass of a network, and networks with nothing wrong."""

import numpy as np

from gradlab import (
    GRU,
    LSTM,
    SCRN,
    Batch,
    Clockwork,
    Elman,
    Network,
    bptt,
    inits,
    irnn,
    mean_squared_error,
    softmax_cross_entropy,
)
from gradlab.backward import KEEP
from gradlab.diagnosis.circumstances import Circumstances
from gradlab.diagnosis.evidence import Evidence, Look
from gradlab.diagnosis.unit_loss import unit_gradient

MEASURED = tuple(name for name in KEEP if name != "jacobians")


def evidence_of(net, params, batch, loss=None, bare=False, initial_states=None, **told):
    """What `diagnose` would show the rules; `bare`: the record alone."""
    record = bptt(net, params, batch, loss or unit_gradient(batch, 0), MEASURED, initial_states=initial_states)
    look = Look(record) if bare else Look(record, "", net, params, batch=batch, loss=loss, assumed_loss=loss is None)
    return Evidence((look,), None, Circumstances(**told))


def orthogonal(n, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def noise(T, B=8, D=2, seed=1):
    return np.random.default_rng(seed).normal(size=(T, B, D))


def linear(gain, H=6, T=60, B=8, layers=1, bidirectional=False, lengths=None, factors=None):
    """A linear net whose recurrent matrices are multiples of orthogonal ones: `factors` by layer, else `gain`."""
    net = Network(Elman("linear"), 2, H, 1, num_layers=layers, bidirectional=bidirectional, readout="last")
    params = net.init(np.random.default_rng(0))
    for k, layer in enumerate(net.layers):
        params[f"{layer.name}.U"] = (factors or {}).get(layer.name, gain) * orthogonal(H, k)
    return net, params, Batch(noise(T, B), np.ones((B, 1)), lengths=lengths)


def recalling(T):
    """A forget bias that keeps for T steps."""
    return {"forget_bias": float(inits.forget_bias(T))}


def healthy():
    """{name: (net, params, batch, loss)} of networks that a warning would wrong."""
    rng = np.random.default_rng(11)
    orth = {"recurrent_init": inits.orthogonal()}
    kinds = {
        "orthogonal Elman, T = 50": (Elman(), 2, 24, 50, {}, orth),
        "critical Elman, small inputs": (
            Elman(), 2, 48, 50, {}, {"recurrent_init": inits.critical_tanh(), "input_init": inits.normal(0.1)},
        ),
        "LSTM, forget bias for T = 60": (LSTM(), 2, 24, 60, {}, recalling(60)),
        "peephole LSTM": (LSTM(peepholes=True), 2, 16, 40, {}, recalling(40)),
        "coupled LSTM": (LSTM(coupled=True), 2, 16, 40, {}, recalling(40)),
        "LSTM, torch's default, T = 10": (LSTM(), 2, 24, 10, {}, {"forget_bias": 0.0}),
        "GRU, default, T = 20": (GRU(), 2, 24, 20, {}, {}),
        "Elman, default, T = 10": (Elman(), 3, 24, 10, {}, {}),
        "IRNN": (irnn(), 2, 40, 60, {}, {}),
        "IRNN, two layers": (irnn(), 2, 32, 30, {"num_layers": 2}, {}),
        "SCRN": (SCRN(10), 2, 24, 40, {}, {}),
        "Clockwork": (Clockwork((1, 2, 4, 8)), 2, 24, 40, {}, orth),
        "bidirectional stack": (LSTM(), 3, 12, 25, {"num_layers": 2, "bidirectional": True}, recalling(25)),
        "four orthogonal layers": (Elman(), 3, 16, 25, {"num_layers": 4}, orth),
        "ReLU, half of the units off": (Elman("relu"), 4, 32, 25, {}, {"recurrent_init": inits.orthogonal(2.0**0.5)}),
        "cross-entropy at every step": (LSTM(), 5, 20, 50, {"readout": "every", "output_size": 5}, {}),
        "GRU at every step, T = 40": (GRU(), 5, 20, 40, {"readout": "every", "output_size": 5}, {}),
        "one unit": (LSTM(), 1, 1, 12, {}, recalling(12)),
    }  # fmt: skip
    found = {}
    for name, (cell, D, H, T, shape, options) in kinds.items():
        net = Network(cell, D, H, **({"output_size": 1, "readout": "last"} | shape))
        params = net.init(rng, **options)
        if net.readout == "every":
            labels = rng.integers(0, 5, (T + 1, 8))
            found[name] = (net, params, Batch(np.eye(5)[labels[:-1]], labels[1:]), softmax_cross_entropy)
        else:
            found[name] = (net, params, Batch(rng.normal(size=(T, 8, D)), rng.normal(size=(8, 1))), mean_squared_error)
    lengths = np.array([30, 12, 5, 30, 22, 9, 30, 17])
    net, params, batch, loss = found["LSTM, forget bias for T = 60"]
    found["ragged"] = (net, params, Batch(batch.inputs[:30], batch.targets, lengths=lengths), loss)
    gru = Network(GRU(), 2, 24, 1, readout="last")
    params = gru.init(rng)
    params["0.b"][24:48] = inits.forget_bias(80)
    found["GRU that keeps for 80 steps"] = (gru, params, Batch(noise(80), np.ones((8, 1))), mean_squared_error)
    return found
