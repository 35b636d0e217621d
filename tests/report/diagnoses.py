"""Diagnoses for the tests of reports: real ones, and one with every kind of text and number."""

import functools

import numpy as np

import gradlab
from gradlab.diagnosis import Diagnosis, Finding, Number, Place
from gradlab.diagnosis.demos import DEMOS

INF = float("inf")


@functools.cache
def demo(name):
    return gradlab.diagnose(**DEMOS[name].arguments())


@functools.cache
def deep():
    """Two bidirectional layers, ragged rows, with findings in one gate."""
    rng = np.random.default_rng(0)
    net = gradlab.Network(gradlab.LSTM(), 3, 8, 2, num_layers=2, bidirectional=True)
    params = net.init(rng, forget_bias=1.0)
    params["1.backward.b"][8:16] = -4.0
    lengths = rng.integers(20, 41, 8)
    lengths[0] = 40
    return gradlab.diagnose(net, params, rng.normal(size=(40, 8, 3)), lengths=lengths)


def made(text="it is so", severity="error", layer="0"):
    """Findings made by hand: `text` wherever text goes, numbers of every kind."""
    numbers = {
        "gain": Number(-41.25, "nats", (-42.0, -40.5), -6.9),
        text: Number(INF, text, (-INF, INF), INF),
        "none": Number(float("nan")),
    }
    place = Place(layer, "backward", text, 3, 17, 5, text, "forward")
    findings = (Finding("vanishing", severity, place, text, numbers), Finding("no-such-code", "info", Place(), text))
    evidence = demo("vanishing").evidence
    return Diagnosis(text, findings, (text,), {text: text}, evidence, {text: text})
