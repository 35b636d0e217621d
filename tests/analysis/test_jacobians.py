"""Jacobians one step at a time are those that a record would hold, and only for the parameters it was made with."""

import numpy as np
import pytest

from gradlab import LSTM, Batch, Elman, Network, bptt, mean_squared_error
from gradlab.analysis import jacobian_product, jacobians
from gradlab.backward import KEEP
from gradlab.errors import GradlabError, ValueRangeError

CELLS = [Elman("tanh"), Elman("relu"), LSTM()]


def setting(cell, ensemble=False, initial=True, layers=2, dtype=float):
    rng = np.random.default_rng(0)
    net = Network(cell, 2, 3, output_size=2, num_layers=layers)
    params = {k: rng.uniform(-0.8, 0.8, s).astype(dtype) for k, s in net.shapes.items()}
    if ensemble:
        params["0.U"] = params["0.U"] * np.array([1.0, -0.5]).reshape(2, 1, 1).astype(dtype)
    x, targets = (rng.normal(size=(6, 4, 2)).astype(np.float32 if dtype is np.float32 else float) for _ in range(2))
    start = {layer.name: rng.uniform(0.2, 1.0, (4, layer.state_size)).astype(dtype) for layer in net.layers} if initial else None
    return net, params, bptt(net, params, Batch(x, targets), mean_squared_error, KEEP, initial_states=start)


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_streamed_jacobians_equal_the_recorded_ones_in_every_layer(cell, initial, ensemble):
    net, params, record = setting(cell, ensemble, initial)
    for name in ("0", "1"):
        recorded = record.layers[name].series("jacobians")
        stream = list(jacobians(net, params, record, name))
        assert len(stream) == 6
        for one, other in zip(stream, recorded, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)  # the same formula on the same numbers


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_streamed_jacobians_keep_the_dtype(dtype):
    net, params, record = setting(LSTM(), dtype=dtype)
    for one, other in zip(jacobians(net, params, record), record.layers["0"].series("jacobians"), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def test_the_product_of_the_stream_carries_the_adjoint_from_end_to_start():
    net = Network(LSTM(), 2, 3, readout="last")
    rng = np.random.default_rng(1)
    params = {k: rng.uniform(-0.8, 0.8, s) for k, s in net.shapes.items()}
    record = bptt(net, params, Batch(rng.normal(size=(20, 2, 2)), rng.normal(size=(2, 3))), mean_squared_error)
    product = jacobian_product(jacobians(net, params, record))
    phi = product.mantissa * 2.0 ** product.exponent[..., None, None].astype(float)
    delta = record.layers["0"].series("adjoints")
    # delta_0 = Phi^T delta_T for a loss at the last step; 20 products.
    carried = np.einsum("bij,bi->bj", phi, delta[-1])
    assert np.abs(carried - delta[0]).max() <= 1e-13 * np.abs(phi).max() * np.abs(delta[-1]).max()


def test_jacobians_come_one_at_a_time():
    net, params, record = setting(LSTM())
    stream = jacobians(net, params, record)
    first = next(stream)
    assert first.shape == (4, 6, 6)
    first[...] = 0.0  # what a caller does to one changes no other
    np.testing.assert_array_equal(next(stream), record.layers["0"].series("jacobians")[1])


@pytest.mark.parametrize("key", ["0.W", "0.U", "0.b", "1.U"])
def test_other_parameters_than_the_records_are_refused(key):
    net, params, record = setting(LSTM())
    changed = params | {key: params[key] + 1e-3}
    with pytest.raises(
        ValueRangeError, match=r"params do not reproduce the recorded states of layer \d; expected those that the record"
    ):
        jacobians(net, changed, record, "1")


def test_a_network_of_another_shape_is_refused():
    net, params, record = setting(Elman("tanh"))
    wide = Network(Elman("tanh"), 2, 5, output_size=2, num_layers=2)
    with pytest.raises(GradlabError):
        jacobians(wide, wide.init(np.random.default_rng(0)), record)
    deep = Network(Elman("tanh"), 2, 3, output_size=2, num_layers=3)
    with pytest.raises(GradlabError, match=r"1\.U"):
        jacobians(net, deep.init(np.random.default_rng(0)) | params, record)


def test_an_unknown_layer_and_a_record_without_states_are_refused():
    net, params, record = setting(Elman("tanh"))
    with pytest.raises(ValueRangeError, match="layer is '2'; expected one of 0, 1"):
        jacobians(net, params, record, "2")
    bare = bptt(net, params, Batch(record.inputs, np.zeros((6, 4, 2))), mean_squared_error, ("adjoints",))
    with pytest.raises(ValueRangeError, match="states was not kept"):
        jacobians(net, params, bare)


def test_a_record_that_was_changed_after_the_pass_is_refused():
    net, params, record = setting(Elman("tanh"))
    record.layers["0"].series("states")[3] += 1e-3
    with pytest.raises(ValueRangeError, match="params do not reproduce"):
        jacobians(net, params, record)


def test_the_states_of_an_overflowing_pass_reproduce_too():
    net = Network(Elman("relu"), 1, 2)
    params = {"0.W": np.ones((2, 1)), "0.U": np.full((2, 2), 1e150), "0.b": np.ones(2)}
    record = bptt(net, params, Batch(np.ones((5, 1, 1)), np.zeros((5, 1, 2))), mean_squared_error)
    assert record.status.code == "overflow"
    np.testing.assert_array_equal(next(jacobians(net, params, record)), np.full((1, 2, 2), 1e150))  # slope 1


def test_a_chaotic_float32_record_reproduces():
    rng = np.random.default_rng(2)
    net = Network(Elman("tanh"), 2, 32)
    params = {k: v.astype(np.float32) for k, v in net.init(rng).items()}
    params["0.U"] = (3.0 * rng.normal(size=(32, 32)) / np.sqrt(32)).astype(np.float32)
    x = rng.normal(size=(300, 4, 2)).astype(np.float32)
    record = bptt(net, params, Batch(x, np.zeros((300, 4, 32), np.float32)), mean_squared_error, ("states",))
    assert sum(1 for _ in jacobians(net, params, record)) == 300
