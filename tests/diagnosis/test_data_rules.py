"""Inputs of the wrong scale and padding that counts, planted; ordinary data are left alone."""

from dataclasses import replace

import numpy as np
import pytest

import gradlab
from gradlab import GRU, LSTM, SCRN, Batch, Clockwork, Elman, Jordan, Network, bptt, inits, irnn, mean_squared_error, tasks
from gradlab.backward import DEFAULT_KEEP
from gradlab.diagnosis.evidence import Evidence, Look
from gradlab.diagnosis.rules_data import input_scale, input_scale_statistic, uneven_statistic
from gradlab.diagnosis.rules_padding import padding_counted, padding_counted_statistic


def seen(net, batch, *, params=None, loss=mean_squared_error, bare=False, **more):
    params = net.init(np.random.default_rng(0)) if params is None else params
    record = bptt(net, params, batch, loss, DEFAULT_KEEP)
    look = Look(record, **more) if bare else Look(record, net=net, params=params, batch=batch, loss=loss, **more)
    return Evidence((look,))


def network(cell, D=4, H=16, **options):
    return Network(cell, D, H, 1, **{"readout": "last"} | options)


def batch_of(net, x, **more):
    lead = x.shape[:2] if net.readout == "every" else x.shape[1:2]
    return Batch(x, np.random.default_rng(8).standard_normal((*lead, net.output_size)), **more)


def noise(T=40, B=12, D=4, seed=0):
    return np.random.default_rng([7, seed]).standard_normal((T, B, D))


def grave(findings):
    return [one for one in findings if one.severity != "info"]


# ---- scale ------------------------------------------------------------------------------------------------------------

SQUASHING = (LSTM(), LSTM(coupled=True), GRU(), Elman(), Elman("sigmoid"), Clockwork((1, 2)), Jordan(3))


@pytest.mark.parametrize("cell", SQUASHING, ids=str)
@pytest.mark.parametrize("factor", [1e3, 1e-5, 1e200, 1e-200])
def test_inputs_far_too_large_or_small_are_named_with_their_layer(cell, factor):
    net = network(cell, num_layers=2)
    (found,) = grave(input_scale(seen(net, batch_of(net, factor * noise()))))
    assert (found.code, found.place.layer, found.place.gate) == ("input-scale", "0", "")
    assert ("saturate" in found.message) == (factor > 1.0)


def test_the_number_is_the_root_mean_square_of_the_input_term():
    net = network(Elman())
    params = net.init(np.random.default_rng(0))
    x = noise(T=200)
    params["0.W"] = np.eye(16, 4) + np.eye(16, 4, -4) + np.eye(16, 4, -8) + np.eye(16, 4, -12)  # each unit reads one feature
    evidence = seen(net, batch_of(net, 10.0 * x), params=params)
    want = 10.0 * np.median(np.sqrt(np.square(x).mean(axis=(0, 1)))) / 2.18  # tanh'(2.18) = 0.05
    np.testing.assert_allclose(input_scale_statistic(evidence, evidence.layers[0]), want, rtol=1e-12)  # sums of 2400 terms


def test_both_directions_are_named_and_a_module_by_its_path():
    net = network(LSTM(), bidirectional=True)
    found = grave(input_scale(seen(net, batch_of(net, 1e3 * noise()), name="encoder")))
    assert [(one.place.layer, one.place.direction) for one in found] == [
        ("encoder.0.forward", "forward"),
        ("encoder.0.backward", "backward"),
    ]


def test_biases_are_no_inputs():
    net = network(LSTM())
    params = net.init(np.random.default_rng(0), forget_bias=12.0)
    params["0.b"][:16] = -12.0
    assert not list(input_scale(seen(net, batch_of(net, noise()), params=params)))


def test_assumed_inputs_are_not_judged():
    net = network(LSTM())
    evidence = seen(net, batch_of(net, 1e6 * noise()), assumed_inputs=True)
    assert not list(input_scale(evidence))
    assert not list(padding_counted(evidence))


def test_what_a_relu_net_adds_up_may_be_small():
    """The IRNN of Le, Jaitly & Hinton (2015) starts with W of 0.001: homogeneous, so the scale is no matter."""
    net = network(irnn())
    for factor in (1e-3, 1.0, 1e3):
        assert not grave(input_scale(seen(net, batch_of(net, factor * noise()))))


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_a_feature_of_another_scale_is_named_by_its_index(bare, factor):
    net = network(Elman("relu"), bidirectional=True)  # it has no range, so nothing else is wrong
    evidence = seen(net, batch_of(net, noise() * [1.0, 1.0, factor, 1.0]), bare=bare)
    (found,) = grave(input_scale(evidence))
    assert found.place.layer == "0"
    assert ("feature 2 is" if factor > 1.0 else "as feature 2 (") in found.message
    assert 0.3e4 < found.numbers["ratio"].value < 3e4  # of weights drawn alike
    assert uneven_statistic(evidence, evidence.layers[0]) == found.numbers["ratio"].value


def test_weights_that_make_up_for_the_scales_are_in_order():
    net = network(Elman("relu"))
    params = net.init(np.random.default_rng(0))
    params["0.W"][:, 2] *= 1e-4
    assert not list(input_scale(seen(net, batch_of(net, noise() * [1.0, 1.0, 1e4, 1.0]), params=params)))


def test_rare_symbols_are_not_small():
    net = network(LSTM(), D=4, H=2)
    symbols = np.random.default_rng(0).integers(0, 3, (3000, 16))
    symbols[500, 3] = 3  # once in 48000 steps: over all of them its root mean square is 126 times smaller
    assert not list(input_scale(seen(net, batch_of(net, np.eye(4)[symbols]))))


def test_a_constant_feature_is_an_info():
    net = network(LSTM())
    x = noise()
    x[..., 1] = 0.7
    (found,) = input_scale(seen(net, batch_of(net, x)))
    assert found.severity == "info"
    assert "(1)" in found.message


def test_no_input_at_all_is_an_info():
    net = network(LSTM())
    (found,) = input_scale(seen(net, batch_of(net, 0.0 * noise())))
    assert found.severity == "info"


# ---- padding ----------------------------------------------------------------------------------------------------------

LENGTHS = np.array([40, 17, 33, 21, 28, 35, 25, 19, 38, 30, 23, 27])


def padded(x, value=0.0):
    return np.where(np.arange(len(x))[:, None, None] < LENGTHS[:, None], x, value)


@pytest.mark.parametrize("cell", [LSTM(), Elman(), GRU(), SCRN(4)], ids=str)
@pytest.mark.parametrize("readout", ["last", "every"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_padding_is_placed_where_the_earliest_begins(cell, readout, value):
    net = network(cell, readout=readout, num_layers=2)
    evidence = seen(net, batch_of(net, padded(noise(), value)))
    (found,) = padding_counted(evidence)
    assert (found.severity, found.place.timestep) == ("warning", LENGTHS.min())
    share = np.where(40 - LENGTHS >= 3, 40 - LENGTHS, 0).mean() / 40  # one or two equal steps prove nothing
    np.testing.assert_allclose(next(iter(found.numbers.values())).value, share, rtol=1e-12)
    assert padding_counted_statistic(evidence, evidence.looks[0]) == next(iter(found.numbers.values())).value


def test_it_is_seen_in_a_bare_record_and_in_two_directions():
    for bidirectional in (False, True):
        net = network(LSTM(), bidirectional=bidirectional)
        for bare in (False, True):
            (found,) = padding_counted(seen(net, batch_of(net, padded(noise())), bare=bare))
            assert found.place.timestep == LENGTHS.min()


def test_lengths_or_a_mask_put_it_right():
    net = network(LSTM(), readout="every")
    x = padded(noise())
    assert list(padding_counted(seen(net, batch_of(net, x))))
    assert not list(padding_counted(seen(net, batch_of(net, x, lengths=LENGTHS))))
    assert not list(padding_counted(seen(net, batch_of(net, x, mask=np.arange(40)[:, None] < LENGTHS))))


def test_a_padding_symbol_that_also_occurs_is_found():
    net = network(LSTM(), D=6)
    symbols = np.random.default_rng(0).integers(0, 6, (40, 12))
    symbols[np.arange(40)[:, None] >= LENGTHS] = 0
    (found,) = padding_counted(seen(net, batch_of(net, np.eye(6)[symbols])))
    assert abs(found.place.timestep - LENGTHS.min()) <= 1  # the symbol may stand there by itself


@pytest.mark.parametrize("T", [6, 60])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.8, 0.95])
def test_symbols_that_repeat_are_no_padding(kept, T):
    """Binary sequences that keep their value with this probability end in runs too."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = 1.0 - 2.0 * (np.cumsum(rng.random((T, 16, 1)) > kept, axis=0) % 2)
        net = network(LSTM(), D=1, H=2)
        assert not list(padding_counted(seen(net, batch_of(net, x))))


def test_runs_as_long_as_others_in_the_data_are_no_padding():
    """Program text: single spaces and indentation by the dozen. A text that is cut off may end in either."""
    symbols = np.random.default_rng(0).integers(0, 4, (200, 12))
    symbols[80:90], symbols[90] = 0, 1
    symbols[-12:, ::2], symbols[-13] = 0, 1
    net = network(LSTM(), H=2)
    assert not list(padding_counted(seen(net, batch_of(net, np.eye(4)[symbols]))))
    symbols[-60:, ::3], symbols[-61] = 0, 1
    assert list(padding_counted(seen(net, batch_of(net, np.eye(4)[symbols]))))


def test_a_constant_end_that_all_sequences_share_is_no_alarm():
    net = network(LSTM())
    for first in (4, 20, 37):
        x = noise()
        x[first:] = 0.0
        assert not grave(padding_counted(seen(net, batch_of(net, x))))
    assert not list(padding_counted(seen(net, batch_of(net, 0.0 * noise()))))


@pytest.mark.parametrize("name", sorted(set(tasks.ALL) - {"digits"}))  # which needs an optional library
def test_the_tasks_of_the_papers_have_neither_fault(name):
    task = tasks.ALL[name]
    batch = task.sample(np.random.default_rng(0), 16, max(task.minimum, 20))
    for cell, options in ((LSTM(), {}), (Elman(), {"recurrent_init": inits.orthogonal()})):
        net = Network(cell, task.input_size, 8, task.output_size, readout=task.readout)
        evidence = seen(net, batch, params=net.init(np.random.default_rng(0), **options), loss=getattr(gradlab, task.loss))
        assert not grave(input_scale(evidence))
        assert not list(padding_counted(evidence))


# ---- both -------------------------------------------------------------------------------------------------------------


def test_the_scale_of_the_loss_changes_nothing():
    net = network(LSTM(), readout="every")
    batch = batch_of(net, padded(1e3 * noise()))
    found = []
    for scale in (1e-6, 1.0, 1e6):

        def loss(outputs, targets, mask=None, scale=scale):
            value, d_outputs = mean_squared_error(outputs, targets, mask)
            return scale * value, scale * d_outputs

        evidence = seen(net, batch, loss=loss)
        found.append([str(one) for rule in (input_scale, padding_counted) for one in rule(evidence)])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 2


@pytest.mark.parametrize(("T", "B"), [(1, 1), (2, 1), (1, 4), (3, 2), (40, 1)])
def test_no_rule_raises_on_small_batches_or_on_numbers_that_are_not_finite(T, B):
    net = network(LSTM(), H=1)
    evidence = seen(net, batch_of(net, noise(T, B)))
    look = evidence.looks[0]
    broken = replace(look.record, inputs=np.full_like(look.record.inputs, np.nan))
    poisoned = {key: np.full_like(value, np.nan) for key, value in look.params.items()}
    for one in (look, Look(broken), replace(look, record=broken), replace(look, params=poisoned)):
        for rule in (input_scale, padding_counted):
            assert not grave(rule(Evidence((one,))))
