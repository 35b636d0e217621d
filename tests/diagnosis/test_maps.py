"""The gradient by layer and step, spectra and exponents, as a report shows them."""

import numpy as np
import pytest

import gradlab
from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.maps import exponents, layer_flows, layer_spectra


def linear(U, *, T=30, B=3, bidirectional=False, lengths=None):
    """A diagnosis of a linear network with recurrent weights U in every layer."""
    net = gradlab.Network(gradlab.Elman("linear"), 2, len(U), None, bidirectional=bidirectional)
    params = net.init(np.random.default_rng(0))
    params = {key: U if key.endswith(".U") else value for key, value in params.items()}
    x = np.random.default_rng(1).normal(size=(T, B, 2))
    return gradlab.diagnose(net, params, x, lengths=lengths).evidence


def turn(H, gain):
    return gain * gradlab.inits.orthogonal()(np.random.default_rng(0), (H, H))


def test_a_scaled_orthogonal_matrix_gives_a_straight_line_of_known_slope():
    (flow,) = layer_flows(linear(turn(4, 0.9)))
    # |dL/ds_t| = 0.9^(T - t), and the unit gradient enters at the last step; rounding of 30 products
    np.testing.assert_allclose(flow.median, np.log(0.9) * np.arange(29, -1, -1), atol=1e-13)
    np.testing.assert_allclose(flow.low, flow.high, atol=1e-13)
    assert not flow.bad.any()


def test_the_backward_direction_stands_in_the_order_of_the_data():
    lengths = np.array([30, 30, 10])
    forward, backward = layer_flows(linear(turn(4, 0.9), bidirectional=True, lengths=lengths))
    assert (forward.direction, backward.direction) == ("forward", "backward")
    # The read-out of the last input sees the backward direction after one step only: all before is exactly zero.
    assert np.isneginf(backward.median[:9]).all()
    assert np.isfinite(backward.median[29])
    assert np.isfinite(forward.median).all()


def test_steps_that_no_sequence_has_are_blank_and_no_zeros():
    lengths = np.array([12, 12, 7])
    evidence = linear(turn(4, 0.9), T=15, lengths=lengths)
    (flow,) = layer_flows(evidence)
    assert np.isnan(flow.median[12:]).all()
    assert np.isfinite(flow.median[:12]).all()
    # The shorter row's end is at step 6: there its gradient is 1, larger than that of the others.
    np.testing.assert_allclose(flow.high[6], 0.0, atol=1e-13)


def test_numbers_that_are_not_finite_are_marked_and_do_not_count():
    evidence = linear(turn(4, 0.9))
    record = evidence.looks[0].record
    record.layers["0"].adjoints[5, 1, 2] = np.nan
    (flow,) = layer_flows(evidence)
    assert np.flatnonzero(flow.bad).tolist() == [4]  # the state behind input 4
    assert np.isfinite(flow.median).all()


def test_spectra_are_those_of_the_matrix_and_their_cost_is_bounded(monkeypatch):
    U = turn(4, 0.9)
    (seen,) = linear(U).layers
    found = layer_spectra(seen)
    assert found.steps == (8, 15, 23, 30) or len(found.steps) == 4
    np.testing.assert_allclose(found.spectra.spectral_radius, 0.9, rtol=1e-12)  # normal: eigenvalues to rounding
    np.testing.assert_allclose(found.spectra.singular_values, 0.9, rtol=1e-12)
    monkeypatch.setattr("gradlab.diagnosis.maps.LARGEST_STATE", 3)
    assert "S = 4" in layer_spectra(seen).reason
    assert layer_spectra(seen).spectra is None


def test_leading_exponents_of_a_scaled_orthogonal_matrix_are_its_logarithm():
    evidence = linear(turn(4, 0.9))
    found = exponents(evidence.looks[0], 0)
    np.testing.assert_allclose(found["0"].exponents, np.log(0.9), rtol=1e-10)  # every vector shrinks equally; rounding of QR


@pytest.mark.parametrize("lengths", [None, np.array([9, 9, 9])])
def test_what_cannot_be_measured_has_a_reason(lengths):
    evidence = linear(turn(4, 0.9), T=9, lengths=lengths)
    assert "too short" in exponents(evidence.looks[0], 0)["0"]
    record = evidence.looks[0].record
    bare = gradlab.diagnose(record).evidence
    (seen,) = bare.layers
    assert "no network" in layer_spectra(seen).reason
    assert "no network" in exponents(bare.looks[0], 0)["0"]
    assert layer_flows(Evidence()) == ()


def test_exponents_are_taken_along_the_longest_sequences():
    lengths = np.array([4, 30, 30, 12, 30, 30])
    evidence = linear(turn(4, 0.9), B=6, lengths=lengths)
    found = exponents(evidence.looks[0], 0)["0"]
    assert found.exponents.shape[0] == 4
    assert found.steps + found.transient == 30
