"""Members of an ensemble that are shared among threads: the same bits, the same errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradlab
from gradlab import Batch, Network, Workspace, bptt, cells, forward, mean_squared_error
from gradlab._threads import shares, side_by_side
from gradlab.errors import ShapeError, ValueRangeError

KEEP = ("states", "gates", "immediate", "adjoints", "jacobians", "input_gradient")


def setting(cell, *, lead=(5,), lengths=None, shared=(), own_inputs=False, **options):
    rng = np.random.default_rng(0)
    net = Network(cell, 3, 4, output_size=2, **options)
    params = {key: rng.normal(0.0, 0.5, (() if key in shared else lead) + shape) for key, shape in net.shapes.items()}
    x = rng.normal(size=(6, *(lead if own_inputs else ()), 3, 3))
    targets = rng.normal(size=(6, *(lead if own_inputs else ()), 3, 2))
    return net, params, Batch(x, targets, lengths=lengths)


def same(one, other):
    assert np.array_equal(one.loss, other.loss)
    assert all(np.array_equal(one.gradients[key], other.gradients[key]) for key in one.gradients)
    assert np.array_equal(one.input_gradient, other.input_gradient)
    for name, layer in one.layers.items():
        theirs = other.layers[name]
        for series in ("states", "immediate", "adjoints", "jacobians"):
            assert np.array_equal(layer.series(series), theirs.series(series))
        assert all(np.array_equal(layer.gates[gate], theirs.gates[gate]) for gate in layer.gates)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_threads_change_no_bit(cell, threads):
    net, params, batch = setting(cell)
    same(bptt(net, params, batch, mean_squared_error, KEEP, threads=threads), bptt(net, params, batch, mean_squared_error, KEEP))


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "bidirectional": True},
        {"lengths": np.array([6, 2, 4])},
        {"lead": (2, 3)},
        {"lead": (1,)},
        {"lead": ()},
        {"shared": ("0.U", "readout.V")},
        {"own_inputs": True},
    ],
    ids=str,
)
def test_threads_change_no_bit_of_deep_ragged_shared_or_nested_ensembles(options):
    net, params, batch = setting(cells.LSTM(), **options)
    same(bptt(net, params, batch, mean_squared_error, KEEP, threads=2), bptt(net, params, batch, mean_squared_error, KEEP))


def test_a_workspace_serves_threads_too():
    net, params, batch = setting(cells.GRU())
    workspace = Workspace()
    bptt(net, params, batch, mean_squared_error, KEEP, workspace=workspace, threads=3)
    same(
        bptt(net, params, batch, mean_squared_error, KEEP, workspace=workspace, threads=2),
        bptt(net, params, batch, mean_squared_error, KEEP),
    )


def test_truncation_and_jacobians_work_on_a_pass_that_threads_made():
    net, params, batch = setting(cells.LSTM())
    one, other = (forward(net, params, batch.inputs, threads=threads).runs["0"] for threads in (1, 2))
    assert np.array_equal(one.jacobians(), other.jacobians())
    assert other.window(1, 3).shares == ()


def test_what_leaves_the_range_of_floats_in_a_thread_warns_of_nothing_and_is_found():
    net, params, batch = setting(cells.Elman("linear"))
    params = {key: 1e200 * value for key, value in params.items()}
    assert bptt(net, params, batch, mean_squared_error, threads=2).status.code == "overflow"


class Refusing(gradlab.Cell):
    def init(self, rng, input_size, hidden_size):
        return {"U": rng.normal(size=(hidden_size, hidden_size))}

    def step(self, params, x_t, s_prev, t):
        raise RuntimeError("not today")


def test_an_error_of_a_users_cell_arrives_from_the_thread():
    net = Network(Refusing(), 3, 4)
    with pytest.raises(RuntimeError, match="not today"):
        forward(net, {"0.U": np.zeros((2, 4, 4))}, np.zeros((6, 1, 3)), threads=2)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two", None])
def test_a_number_of_threads_that_is_none_is_refused(threads):
    net, params, batch = setting(cells.Elman())
    with pytest.raises((ValueRangeError, gradlab.errors.DTypeError), match="threads is"):
        bptt(net, params, batch, mean_squared_error, threads=threads)


@given(st.integers(1, 100), st.integers(1, 20))
def test_shares_cover_every_member_once_and_differ_by_one_at_most(members, threads):
    spans = shares(members, threads)
    assert [k for span in spans for k in range(members)[span]] == list(range(members))
    sizes = [span.stop - span.start for span in spans]
    assert max(sizes) - min(sizes) <= 1
    assert len(spans) == min(members, threads)


def test_all_calls_run_and_the_first_error_is_raised():
    done = []

    def fail():
        done.append("failed")
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        side_by_side([fail, lambda: done.append("ran")], 2)
    assert sorted(done) == ["failed", "ran"]


def test_jacobians_are_written_where_they_are_wanted():
    net, params, batch = setting(cells.LSTM(), lengths=np.array([6, 2, 4]))
    run = forward(net, params, batch.inputs, lengths=batch.lengths).runs["0"]
    expected = run.jacobians()
    out = np.full_like(expected, np.nan)
    assert run.jacobians(threads=2, out=out) is out
    assert np.array_equal(out, expected)
    with pytest.raises(ShapeError, match=r"out has shape \(1, 2\)"):
        run.jacobians(out=np.zeros((1, 2)))
