"""Networks, parameters and inputs for property tests: small first, so that a failure shrinks to the smallest T."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradlab.checks import Example
from gradlab.network import Network

# Entries of at most 2 in 16-bit steps: no activation saturates so far that the oracle itself loses digits.
ENTRIES = st.floats(-2.0, 2.0, width=16, allow_subnormal=False)


@st.composite
def examples(draw, cells, layers=(1, 2, 3), steps=5):
    """An `Example` over one of `cells`: deep or not, in one or both directions, ragged or not, with a read-out or without."""
    cell = draw(st.sampled_from(cells))
    T, B = draw(st.integers(1, steps)), draw(st.integers(1, 2))
    D, H = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    net = Network(
        cell,
        D,
        H,
        output_size=draw(st.sampled_from([None, 2])),
        num_layers=draw(st.sampled_from(layers)),
        bidirectional=draw(st.booleans()),
        readout=draw(st.sampled_from(["every", "last"])),
    )
    # One generator for the weights, hypothesis for their scale: thousands of single floats would only slow it down.
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1.0, 0.25, 0.0]))
    params = {k: scale * rng.uniform(-2.0, 2.0, shape) for k, shape in net.shapes.items()}
    x = draw(hnp.arrays(np.float64, (T, B, D), elements=ENTRIES))
    lengths = rng.integers(1, T + 1, B) if draw(st.booleans()) else None
    initial = {}
    if draw(st.booleans()):
        initial = {layer.name: rng.uniform(-1.0, 1.0, (B, layer.state_size)) for layer in net.layers}
    p = net.top_size if net.output_size is None else net.output_size
    shape = (T, B, p) if net.readout == "every" else (B, p)
    cotangent = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
    return Example(net, params, x, initial, cotangent, lengths)
