"""The replay of a call from the gradients that arrived: held against complex steps, without any framework."""

from dataclasses import replace

import numpy as np
import pytest

import gradlab
from gradlab.adapters.replay import Replayable, Steps, passes_by_layer, replay, replay_steps
from gradlab.backward import sweep_levels
from gradlab.errors import NumericalError, ResourceRefused
from gradlab.forward_pass import forward
from gradlab.objective import split_outputs

# A complex step has no truncation error: what is left is rounding in sums of some hundred terms.
BOUND = 1e-12
STEP = 1e-30

CELLS = {
    "elman": gradlab.Elman(),
    "lstm": gradlab.LSTM(),
    "gru": gradlab.GRU(reset="after"),
    "peephole": gradlab.LSTM(peepholes=True),
}
RAGGED = np.array([5, 2, 4])


def random_call(cell, *, layers=2, both=True, lengths=RAGGED, masks=(), seed=0):
    rng = np.random.default_rng(seed)
    T, B, D, H = 5, 3, 2, 3
    net = gradlab.Network(CELLS[cell], D, H, num_layers=layers, bidirectional=both)
    params = {key: rng.normal(0.0, 0.7, shape) for key, shape in net.shapes.items()}
    states = [{layer.name: rng.normal(size=(B, layer.state_size)) for layer in net.layers} for _ in range(2)]
    drawn = {k: rng.integers(0, 2, (T, B, net.top_size)) / 0.5 for k in masks}
    dy = rng.normal(size=(T, B, net.top_size))
    return Replayable(net, params, rng.normal(size=(T, B, D)), states[0], lengths, drawn, dy, states[1])


def value(call, params, initial):
    """The loss whose gradients at outputs and final states are `dy` and `final`; forward alone."""
    runs = passes_by_layer(replace(call, params=params, initial=initial))
    exists = np.ones(call.dy.shape[:2]) if call.lengths is None else np.arange(len(call.dy))[:, None] < call.lengths
    dy = split_outputs(call.net.levels[-1], call.dy * exists[:, :, None], call.lengths)
    total = sum((runs[name].outputs() * own).sum() for name, own in dy.items())
    return total + sum((run.states[-1] * call.final[name]).sum() for name, run in runs.items())


def derivative(call, kind, key):
    """The derivative with respect to one parameter or initial state, entry by entry."""
    given = {
        "params": {k: v.astype(complex) for k, v in call.params.items()},
        "initial": {k: v.astype(complex) for k, v in call.initial.items()},
    }
    found = np.empty(given[kind][key].shape)
    for index in np.ndindex(found.shape):
        moved = given[kind][key].copy()
        moved[index] += 1j * STEP
        found[index] = value(call, **{**given, kind: {**given[kind], key: moved}}).imag / STEP
    return found


def close(ours, exact):
    assert ours.shape == exact.shape
    assert np.abs(ours - exact).max() <= BOUND * np.abs(exact).max()


@pytest.mark.parametrize("masks", [(), (0,)])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_from_outputs_and_final_states_equal_complex_steps_for_ragged_rows_and_masks(cell, masks):
    call = random_call(cell, masks=masks)
    record = replay(call)
    for key in ("0.forward.U", "0.backward.b", "1.backward.W", "1.forward.b"):
        close(record.gradients[key], derivative(call, "params", key))
    for name in ("0.backward", "1.forward"):
        close(record.layers[name].series("adjoints")[0], derivative(call, "initial", name))


def test_final_states_of_three_levels_with_a_mask_behind_the_first_alone_reach_all_levels():
    call = random_call("gru", layers=3, both=False, masks=(0,))
    record = replay(call)
    for key in ("0.W", "1.U", "2.b_hn"):
        close(record.gradients[key], derivative(call, "params", key))


def test_the_engine_adds_the_gradient_of_final_states_to_the_last_adjoint_of_every_row():
    call = random_call("lstm", masks=())
    net = call.net
    run = forward(net, call.params, call.x, call.initial, lengths=call.lengths)
    dy = split_outputs(net.levels[-1], np.zeros_like(run.outputs), run.lengths)
    layers, _ = sweep_levels(net, run, dy, ("adjoints", "immediate"), {}, final={"1.forward": call.final["1.forward"]})
    top = layers["1.forward"]
    np.testing.assert_array_equal(top.adjoints[-1], call.final["1.forward"])
    np.testing.assert_array_equal(top.immediate[-1], call.final["1.forward"])
    np.testing.assert_array_equal(top.adjoints[RAGGED[1], 1], call.final["1.forward"][1])  # a copied state has the same adjoint
    assert not layers["1.backward"].adjoints.any()
    assert layers["0.backward"].adjoints.any()


def test_what_stands_behind_the_end_of_a_row_counts_for_nothing():
    call = random_call("gru")
    beside = call.dy.copy()
    beside[3:, 1] = 1e6
    first, second = replay(call), replay(replace(call, dy=beside))
    for key in first.gradients:
        np.testing.assert_array_equal(first.gradients[key], second.gradients[key])


def test_the_loss_of_a_replay_is_nan_and_its_status_speaks_of_states_and_gradients():
    call = random_call("elman")
    record = replay(call)
    assert np.isnan(record.loss)
    assert record.status.ok
    wide = {key: 1e200 * value for key, value in call.params.items()}
    net = gradlab.Network(gradlab.Elman("relu"), 2, 3, num_layers=2, bidirectional=True)
    assert replay(replace(call, net=net, params=wide)).status.code == "overflow"


def test_a_level_that_overflows_below_a_mask_is_said_with_its_step():
    call = random_call("elman", masks=(0,))
    net = gradlab.Network(gradlab.Elman("relu"), 2, 3, num_layers=2, bidirectional=True)
    wide = {key: 1e200 * value for key, value in call.params.items()}
    with pytest.raises(NumericalError, match=r"reaches layer 1\.forward is non-finite from step \d on"):
        replay(replace(call, net=net, params=wide))


def test_jacobians_that_would_not_fit_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr("gradlab._memory.memory_limit", lambda asked=None: 100)
    with pytest.raises(ResourceRefused, match=r"Watched\.jacobians"):
        replay(random_call("lstm"), ("jacobians",))


@pytest.mark.parametrize("cell", CELLS)
def test_steps_known_by_themselves_give_the_record_of_the_whole_sequence(cell):
    call = random_call(cell, layers=1, both=False, lengths=None)
    whole = replay(call, ("states", "gates", "immediate", "adjoints", "jacobians", "input_gradient"))
    layer = whole.layers["0"]
    steps = Steps(call.net, call.params, call.x, layer.states[:-1], layer.states[1:], layer.adjoints[1:])
    record, after = replay_steps(steps, ("states", "gates", "immediate", "adjoints", "jacobians", "input_gradient"))
    found = record.layers["0"]
    close(after, layer.states[1:])
    for name in ("states", "adjoints", "jacobians"):
        close(found.series(name), layer.series(name))
    # e_t is a difference of two adjoints here: BOUND of the adjoints, not of itself
    assert np.abs(found.immediate - layer.immediate).max() <= BOUND * np.abs(layer.adjoints).max()
    for gate, series in layer.gates.items():
        close(found.gates[gate], series)
    for key, gradient in whole.gradients.items():
        close(record.gradients[key], gradient)
    close(record.input_gradient, whole.input_gradient)
    close(record.outputs, whole.outputs)
