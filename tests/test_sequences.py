"""Ragged batches, carried states, truncation, mixed stacks: what a sequence may be."""

import numpy as np
import pytest

import gradlab
from gradlab import GRU, LSTM, SCRN, Batch, Clockwork, Elman, Jordan, Network, bptt, cells, forward, truncated_bptt
from gradlab.checks.gradients import run_steps
from gradlab.errors import DTypeError, ShapeError, ValueRangeError


def drawn(net, rng, scale=0.8):
    return {key: rng.uniform(-scale, scale, shape) for key, shape in net.shapes.items()}


def squared(y, targets, mask):
    error = y - targets
    return (error * error).sum(), 2.0 * error


def setting(cell, T=6, B=4, **options):
    rng = np.random.default_rng(7)
    net = Network(cell, 2, 3, **options)
    params, x = drawn(net, rng), rng.normal(size=(T, B, 2))
    p = net.output_size or net.top_size
    targets = rng.normal(size=(T, B, p) if net.readout == "every" else (B, p))
    return net, params, x, targets


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_a_row_of_a_ragged_batch_is_what_it_is_alone(cell, bidirectional):
    net, params, x, targets = setting(cell, num_layers=2, bidirectional=bidirectional, output_size=2)
    lengths = np.array([6, 1, 4, 3])
    padded = x.copy()
    for row, length in enumerate(lengths):
        padded[length:, row] = np.nan  # what stands behind the end is never read
    keep = ("states", "adjoints", "jacobians", "input_gradient")
    whole = bptt(net, params, Batch(padded, targets, lengths=lengths), squared, keep)
    total = {key: np.zeros(shape) for key, shape in net.shapes.items()}
    for row, n in enumerate(lengths):
        at = slice(row, row + 1)
        alone = bptt(net, params, Batch(x[:n, at], targets[:n, at]), squared, keep)
        # A row alone and in a batch: BLAS orders its sums differently.
        assert np.allclose(whole.outputs[:n, at], alone.outputs, rtol=1e-12, atol=1e-15)
        assert not whole.outputs[n:, at].any()
        assert np.allclose(whole.input_gradient[:n, at], alone.input_gradient, rtol=1e-10, atol=1e-14)
        assert not whole.input_gradient[n:, at].any()
        for name, layer in alone.layers.items():
            kept = whole.layers[name]
            assert np.allclose(kept.adjoints[: n + 1, at], layer.adjoints, rtol=1e-10, atol=1e-14)
            assert np.array_equal(kept.states[n:, at], np.broadcast_to(kept.states[n, at], kept.states[n:, at].shape))
            identity = np.broadcast_to(np.eye(kept.jacobians.shape[-1]), kept.jacobians[n:, row].shape)
            assert np.array_equal(kept.jacobians[n:, row], identity)
        for key, gradient in alone.gradients.items():
            total[key] += gradient
    for key, gradient in whole.gradients.items():
        assert np.abs(gradient - total[key]).max() <= 1e-12 * np.abs(total[key]).max()


def test_positions_behind_the_end_of_a_row_do_not_count_in_the_mean():
    net, params, x, targets = setting(LSTM(), output_size=2)
    lengths = np.array([6, 1, 4, 3])
    loss = bptt(net, params, Batch(x, targets, lengths=lengths), gradlab.mean_squared_error).loss
    y = run_steps(net, params, x, lengths=lengths)
    squares = [((y[:n, row] - targets[:n, row]) ** 2).sum() for row, n in enumerate(lengths)]
    assert abs(loss / (sum(squares) / (2 * lengths.sum())) - 1.0) < 1e-14


def test_full_lengths_are_no_lengths():
    net, params, x, targets = setting(LSTM(), bidirectional=True)
    a = bptt(net, params, Batch(x, targets), squared)
    b = bptt(net, params, Batch(x, targets, lengths=np.full(4, 6)), squared)
    assert b.lengths is None
    assert all(np.array_equal(a.gradients[key], b.gradients[key]) for key in params)


@pytest.mark.parametrize(
    ("lengths", "error", "words"),
    [
        (np.array([6, 1, 4]), ShapeError, r"lengths has shape \(3,\); expected one entry for each of the B = 4 rows"),
        (np.array([6, 0, 4, 3]), ValueRangeError, "lengths holds 0; expected 1 to T = 6"),
        (np.array([6, 7, 4, 3]), ValueRangeError, "lengths holds 7; expected 1 to T = 6"),
        (np.array([6.0, 1.0, 4.0, 3.0]), DTypeError, "lengths is a float64; expected an array of integers"),
        ([6, 1, 4, 3], DTypeError, "lengths is a list"),
    ],
)
def test_bad_lengths_are_refused(lengths, error, words):
    net, params, x, _ = setting(LSTM())
    with pytest.raises(error, match=words):
        forward(net, params, x, lengths=lengths)


@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_chunks_with_carried_states_equal_the_whole(cell):
    net, params, x, targets = setting(cell, num_layers=2)
    whole = bptt(net, params, Batch(x, targets), squared)
    first = forward(net, params, x[:4])
    second = forward(net, params, x[4:], first.final_states, first_step=4)
    outputs = np.concatenate([first.outputs, second.outputs])
    # One projection over 6 steps or over 4 and 2: other sums in BLAS, some ulps.
    assert np.abs(outputs - whole.outputs).max() <= 1e-14 * np.abs(whole.outputs).max()


@pytest.mark.parametrize("cell", [c for c in cells.ALL if not isinstance(c, Clockwork)], ids=repr)
def test_gradients_carried_back_across_chunks_sum_to_the_whole(cell):
    # A clock would go on in the second chunk; bptt always starts it at 0.
    net, params, x, targets = setting(cell)
    whole = bptt(net, params, Batch(x, targets), squared, ("adjoints",))
    middle = forward(net, params, x[:3]).final_states
    late = bptt(net, params, Batch(x[3:], targets[3:]), squared, ("adjoints", "immediate"), initial_states=middle)

    def with_tail(y, t, mask):
        value, d = squared(y, t, mask)
        return value, d

    delta = whole.layers["0"].adjoints
    # The total adjoint at the seam is that of the second chunk plus what the first one's own loss adds there.
    early = bptt(net, params, Batch(x[:3], targets[:3]), with_tail, ("immediate",), initial_states=None)
    seam = late.layers["0"].adjoints[0] + early.layers["0"].immediate[-1]
    assert np.allclose(seam, delta[3], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
@pytest.mark.parametrize("readout", ["every", "last"])
def test_truncation_at_the_whole_length_is_bptt_bit_for_bit(cell, readout):
    net, params, x, targets = setting(cell, num_layers=2, output_size=2, readout=readout)
    lengths = np.array([6, 2, 4, 3])
    batch = Batch(x, targets, lengths=lengths)
    full, cut = bptt(net, params, batch, squared), truncated_bptt(net, params, batch, squared, 6, 6)
    for key in params:
        assert np.array_equal(cut.gradients[key], full.gradients[key]), key


@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_truncation_with_every_step_of_its_own_and_full_reach_is_bptt(cell):
    net, params, x, targets = setting(cell, num_layers=2, output_size=2)
    full, cut = bptt(net, params, Batch(x, targets), squared), truncated_bptt(net, params, Batch(x, targets), squared, 1, 6)
    for key in params:
        # The same terms summed in another order.
        assert np.abs(cut.gradients[key] - full.gradients[key]).max() <= 1e-12 * np.abs(full.gradients[key]).max(), key


@pytest.mark.parametrize(("k1", "k2"), [(2, 2), (2, 3), (1, 3), (4, 5), (5, 6)])
def test_truncation_keeps_exactly_the_pairs_within_reach(k1, k2):
    # dL/dU = sum over t (loss) >= k (use): the pair counts if k lies within the reach of t's update.
    net, params, x, targets = setting(Elman("tanh"), T=6, B=1)
    made = bptt(net, params, Batch(x, targets), squared, ("states", "immediate", "jacobians"))
    layer = made.layers["0"]
    s, e, J = layer.states[:, 0], layer.immediate[:, 0], layer.jacobians[:, 0]
    expected = np.zeros((3, 3))
    for newest in range(0, 6, k1):
        stop = min(newest + k1, 6)
        for t in range(newest + 1, stop + 1):
            delta = e[t]
            for k in range(t, max(0, stop - k2), -1):
                slope = 1.0 - s[k] ** 2
                expected += np.outer(slope * delta, s[k - 1])
                delta = J[k - 1].T @ delta
    cut = truncated_bptt(net, params, Batch(x, targets), squared, k1, k2).gradients["0.U"]
    assert np.abs(cut - expected).max() <= 1e-13 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("k1", "k2", "options", "words"),
    [
        (3, 2, {}, "k2 is 2 and k1 is 3"),
        (0, 2, {}, "k1 is 0; expected an integer >= 1"),
        (1, 2, {"bidirectional": True}, "net is bidirectional"),
    ],
)
def test_truncation_refuses_what_has_no_meaning(k1, k2, options, words):
    net, params, x, targets = setting(Elman(), **options)
    with pytest.raises(ValueRangeError, match=words):
        truncated_bptt(net, params, Batch(x, targets), squared, k1, k2)


def test_layers_of_different_cells_stack():
    rng = np.random.default_rng(0)
    stack = [Elman("tanh"), GRU(), SCRN(2), Jordan(2, mu=0.3), LSTM(peepholes=True), Clockwork((1, 2))]
    net = Network(stack, 2, 3, bidirectional=True, output_size=1)
    assert [layer.input_size for layer in net.layers[::2]] == [2, 6, 6, 10, 4, 6]
    params, x = drawn(net, rng), rng.normal(size=(5, 2, 2))
    y = forward(net, params, x).outputs
    plain = run_steps(net, params, x)
    assert np.abs(y - plain).max() <= 1e-13 * np.abs(plain).max()
    assert net.num_layers == 6


def test_options_go_to_the_cells_that_have_them_and_a_typo_is_an_error():
    rng = np.random.default_rng(0)
    net = Network([Elman(), LSTM()], 2, 3)
    assert net.init(rng, forget_bias=7.0)["1.b"][3] == 7.0
    with pytest.raises(ValueRangeError, match="forgetbias is an option that no cell"):
        net.init(rng, forgetbias=7.0)


def test_a_deep_stack_runs():
    rng = np.random.default_rng(0)
    net = Network(GRU(), 2, 3, num_layers=12, bidirectional=True)
    params, x = drawn(net, rng), rng.normal(size=(4, 2, 2))
    plain = run_steps(net, params, x)
    assert np.abs(forward(net, params, x).outputs - plain).max() <= 1e-12 * np.abs(plain).max()


@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_the_jacobian_of_a_stack_is_that_of_its_joint_step(cell):
    net, params, x, targets = setting(cell, T=4, B=2, num_layers=3)
    record = bptt(net, params, Batch(x, targets), squared)
    found = gradlab.analysis.network_jacobian(net, params, record)
    assert list(found.spans.values())[-1][1] == found.matrix.shape[-1]
    states = np.concatenate([record.layers[name].states for name in found.spans], axis=-1)
    own = {layer.name: {k.split(".")[1]: v for k, v in params.items() if k.startswith(layer.name)} for layer in net.layers}

    def joint(s, t, row):
        below, parts = x[t, row : row + 1], []
        for layer in net.layers:
            first, end = found.spans[layer.name]
            previous = s[None, first:end]
            now = layer.cell.step(own[layer.name], below, previous, t)
            below = layer.cell.output(now, previous)
            parts.append(now[0])
        return np.concatenate(parts)

    for t in range(4):
        for row in range(2):
            s = states[t, row]
            exact = np.stack([np.imag(joint(s + 1e-200j * unit, t, row)) / 1e-200 for unit in np.eye(len(s))], axis=-1)
            assert np.abs(found.matrix[t, row] - exact).max() <= 1e-13 * np.abs(exact).max()
    for name, (first, end) in found.spans.items():
        assert np.array_equal(found.matrix[..., first:end, first:end], found.diagonal[name])
        assert not found.matrix[..., first:end, end:].any()


def test_a_bidirectional_stack_has_no_joint_jacobian():
    net, params, x, targets = setting(LSTM(), bidirectional=True)
    record = bptt(net, params, Batch(x, targets), squared)
    with pytest.raises(ValueRangeError, match="net is bidirectional"):
        gradlab.analysis.network_jacobian(net, params, record)
    assert len(list(gradlab.analysis.jacobians(net, params, record, "0.backward"))) == 6


def test_every_cell_has_an_exact_hessian_vector_product_by_complex_step():
    for cell in cells.ALL:
        if "relu" in repr(cell) or "hard_tanh" in repr(cell):
            continue  # piecewise linear: finite differences may step over a kink
        net, params, x, targets = setting(cell, num_layers=2, T=4, B=2)
        rng = np.random.default_rng(1)
        v = {key: rng.normal(size=value.shape) for key, value in params.items()}

        def gradient(shift, net=net, params=params, v=v, batch=Batch(x, targets)):  # noqa: B008
            return bptt(net, {k: p + shift * v[k] for k, p in params.items()}, batch, squared, ()).gradients

        exact = {k: np.imag(g) / 1e-30 for k, g in gradient(1e-30j).items()}
        h = 1e-5
        upper, lower = gradient(h), gradient(-h)
        for key in params:
            central = (upper[key] - lower[key]) / (2 * h)
            # Central differences at 1e-5 are right to about 1e-9; the truth is the other side.
            assert np.abs(exact[key] - central).max() <= 1e-6 * max(np.abs(central).max(), 1e-3), (cell, key)
