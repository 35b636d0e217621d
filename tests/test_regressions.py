"""Defects that reviews found, each with the smallest case that showed it."""

import numpy as np
import pytest

import gradlab
from gradlab import GRU, LSTM, Batch, Clockwork, Elman, Network, bptt, cells, forward
from gradlab.cells import activations
from gradlab.checks import check_cell, compare
from gradlab.errors import ResourceRefused, ShapeError, ValueRangeError
from gradlab.losses import mean_squared_error, softmax_cross_entropy


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", activations.ALL.values(), ids=lambda a: a.name)
def test_an_activation_writes_every_entry_whatever_the_strides(activation, dtype):
    # np.negative of NumPy 2.4 leaves entries unwritten where input and output both have strides of some lengths.
    for stride in range(1, 21):
        for n in (1, 2, 3, 5, 8, 13):
            z = np.linspace(-2.0, 2.0, stride * n).astype(dtype)[::stride]
            y, dy = (np.full(stride * n, 9.0, dtype)[::stride] for _ in range(2))
            flat_y, flat_dy = np.empty(n, dtype), np.empty(n, dtype)
            activation.value_and_slope(z, y, dy)
            activation.value_and_slope(z.copy(), flat_y, flat_dy)
            assert np.allclose(y, flat_y, rtol=1e-6, atol=0.0), (stride, n)  # SIMD and scalar loops round apart
            assert np.allclose(dy, flat_dy, rtol=1e-6, atol=0.0), (stride, n)


@pytest.mark.parametrize("T", range(1, 12))
def test_an_ensemble_of_single_sigmoid_units_equals_a_loop(T):
    rng = np.random.default_rng(T)
    net = Network(Elman("sigmoid"), 1, 1)
    U, x = rng.normal(size=(4, 1, 1)), rng.normal(size=(T, 1, 1))
    rest = {"0.W": rng.normal(size=(1, 1)), "0.b": rng.normal(size=1)}
    together = forward(net, {"0.U": U, **rest}, x).outputs
    for member in range(4):
        alone = forward(net, {"0.U": U[member], **rest}, x).outputs
        assert np.abs(together[:, member] - alone).max() <= 1e-15


@pytest.mark.parametrize("at", [-1e4, -760.0, -720.0, 720.0, 1e4])
@pytest.mark.parametrize("cell", [GRU(), GRU(reset="before"), LSTM(coupled=True)], ids=repr)
def test_saturated_gates_are_finite_in_complex128_too(cell, at):
    rng = np.random.default_rng(0)
    net = Network(cell, 2, 3)
    params = net.init(rng)
    params["0.b"] = np.full_like(params["0.b"], at)
    batch = Batch(rng.normal(size=(4, 2, 2)), rng.normal(size=(4, 2, 3)))
    real = bptt(net, params, batch, mean_squared_error)
    wide = bptt(net, {k: v.astype(complex) for k, v in params.items()}, batch, mean_squared_error)
    assert real.status.ok
    assert wide.status.ok
    for key in params:
        assert np.allclose(wide.gradients[key].real, real.gradients[key], rtol=1e-9, atol=1e-300), key


@pytest.mark.parametrize("margin", [1.0, 20.0, 40.0, 300.0])
def test_the_gradient_of_a_confident_answer_keeps_its_digits(margin):
    outputs, targets = np.array([[margin, 0.0]]), np.array([0])
    value, d = softmax_cross_entropy(outputs, targets)
    p_other = np.exp(-margin) / (1.0 + np.exp(-margin))
    assert np.allclose(d, [[-p_other, p_other]], rtol=1e-14, atol=0.0)
    assert np.isclose(value, np.log1p(np.exp(-margin)), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("shape", [(5, 3), (3,), (5, 1), (1, 3), (6, 3)])
def test_a_mask_of_a_ragged_batch_has_one_entry_for_each_target(shape):
    rng = np.random.default_rng(0)
    net = Network(LSTM(), 2, 3)
    batch = Batch(rng.normal(size=(5, 5, 3, 2)), rng.normal(size=(5, 5, 3, 3)), np.ones(shape), np.array([5, 2, 3]))
    with pytest.raises(ShapeError, match="mask has shape"):
        bptt(net, net.init(rng), batch, mean_squared_error)


def test_what_stands_in_the_targets_behind_the_end_of_a_row_does_not_matter():
    rng = np.random.default_rng(0)
    net = Network(LSTM(), 2, 3, output_size=4)
    params, x, lengths = net.init(rng), rng.normal(size=(5, 2, 2)), np.array([5, 2])
    numbers, labels = rng.normal(size=(5, 2, 4)), rng.integers(0, 4, (5, 2))
    odd_numbers, odd_labels = numbers.copy(), labels.copy()
    odd_numbers[2:, 1], odd_labels[2:, 1] = np.nan, -100
    for loss, plain, odd in (
        (mean_squared_error, numbers, odd_numbers),
        (softmax_cross_entropy, labels, odd_labels),
    ):
        a, b = (bptt(net, params, Batch(x, targets, lengths=lengths), loss) for targets in (plain, odd))
        assert a.loss == b.loss
        assert all(np.array_equal(a.gradients[key], b.gradients[key]) for key in params)


def test_a_clock_goes_on_in_the_backward_pass_of_a_later_chunk():
    rng = np.random.default_rng(0)
    net = Network(Clockwork((1, 4)), 2, 4)
    params, x, targets = net.init(rng), rng.normal(size=(8, 2, 2)), rng.normal(size=(8, 2, 4))
    whole = bptt(net, params, Batch(x, targets), mean_squared_error)
    middle = forward(net, params, x[:3]).final_states
    late = bptt(net, params, Batch(x[3:], targets[3:]), mean_squared_error, initial_states=middle, first_step=3)
    assert np.array_equal(late.layers["0"].states, whole.layers["0"].states[3:])
    assert late.first_step == 3
    jacobians = list(gradlab.analysis.jacobians(net, params, late))  # the replay starts its clock there too
    assert np.array_equal(jacobians[0][:, 2:, 2:], np.broadcast_to(np.eye(2), (2, 2, 2)))  # t = 3: the slow units rest
    with pytest.raises(gradlab.GradlabError, match=r"first_step is 1\.5"):
        forward(net, params, x, first_step=1.5)


def test_a_scale_that_is_not_finite_never_passes():
    one = np.ones(1)
    assert not compare("x", one, 2 * one, np.array([np.inf])).passed
    assert not compare("x", one, 2 * one, np.array([-1.0])).passed


class Transposing:
    """Writes params["W"].T, which is wrong with an ensemble axis, and silently so where all sizes agree."""

    def init(self, rng, input_size, hidden_size):
        return {"W": rng.normal(size=(hidden_size, input_size)), "U": rng.normal(size=(hidden_size, hidden_size))}

    def step(self, params, x_t, s_prev, t):
        return np.tanh(x_t @ params["W"].T + s_prev @ params["U"].T)


def test_a_user_cell_that_knows_no_ensembles_runs_them_right():
    rng = np.random.default_rng(0)
    net = Network(Transposing(), 3, 3)
    own = [net.init(rng) for _ in range(3)]
    batch = Batch(rng.normal(size=(4, 3, 3)), rng.normal(size=(4, 3, 3)))
    together = bptt(net, {k: np.stack([p[k] for p in own]) for k in own[0]}, batch, mean_squared_error)
    for member, params in enumerate(own):
        alone = bptt(net, params, batch, mean_squared_error)
        assert abs(together.loss[member] / alone.loss - 1.0) < 1e-14
        for key in params:
            assert np.allclose(together.gradients[key][member], alone.gradients[key], rtol=1e-12, atol=1e-16)


def test_check_cell_names_what_is_wrong_and_passes_what_is_right():
    report = check_cell(Transposing())
    assert (report.verdict, report.subject) == ("PASS", "Transposing()")
    assert [text.partition(":")[0] for text in report.without] == ["complex equals real", "second derivatives"]

    class Wrong(Transposing):
        def vjp(self, params, x_t, s_prev, delta, t):
            return {"W": delta.T @ x_t, "U": delta.T @ s_prev}, delta @ params["W"], delta @ params["U"]

    wrong = check_cell(Wrong())
    assert wrong.verdict == "FAIL"
    with pytest.raises(gradlab.errors.GradientMismatch, match=r"wrong where it is made: d0\.W, every step"):
        wrong.raise_for_failure()


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda W, U, x, s: (W, x, s), "returned ndarray|expected the tuple|DTypeError"),
        (lambda W, U, x, s: ({"W": W}, x, s), r"returned gradients of \['W'\]"),
        (lambda W, U, x, s: ({"W": U, "U": U}, x, s), r'returned dtheta\["W"\] of shape'),
        (lambda W, U, x, s: ({"W": W, "U": U}, s, x), "returned dx_t of shape"),
        (lambda W, U, x, s: ({"W": W, "U": U}, x), "expected the tuple"),
    ],
)
def test_a_vjp_that_returns_something_else_is_told_so(returned, words):
    class Odd(Transposing):
        def vjp(self, params, x_t, s_prev, delta, t):
            return returned(params["W"], params["U"], x_t, s_prev)

    rng = np.random.default_rng(0)
    net = Network(Odd(), 2, 3)
    batch = Batch(rng.normal(size=(2, 1, 2)), rng.normal(size=(2, 1, 3)))
    with pytest.raises(gradlab.GradlabError, match=words):
        bptt(net, net.init(rng), batch, mean_squared_error)


def test_a_horizon_of_a_loss_at_every_step_says_that_it_means_nothing():
    rng = np.random.default_rng(0)
    net = Network(GRU(), 2, 4, num_layers=2)
    batch = Batch(rng.normal(size=(9, 2, 2)), rng.normal(size=(9, 2, 4)))
    record = bptt(net, net.init(rng), batch, mean_squared_error)
    found = gradlab.analysis.gradient_flow(record).memory_horizon("1/h")
    assert found.status.code == "many-origins"
    last = Batch(batch.inputs, batch.targets, np.arange(9)[:, None] * np.ones(2) == 8)
    record = bptt(net, net.init(rng), last, mean_squared_error)
    assert gradlab.analysis.gradient_flow(record).memory_horizon("1/h").status.code in ("ok", "beyond-range")
    with pytest.raises(ValueRangeError, match="key is '2/h'; expected one of 0, 0/h, 1, 1/h"):
        gradlab.analysis.gradient_flow(record).memory_horizon("2/h")


def test_layers_come_back_from_a_file_in_their_order(tmp_path):
    rng = np.random.default_rng(0)
    net = Network(GRU(), 2, 2, num_layers=11, bidirectional=True)
    batch = Batch(rng.normal(size=(2, 1, 2)), rng.normal(size=(2, 1, 4)))
    record = bptt(net, net.init(rng), batch, mean_squared_error)
    record.save(tmp_path / "run.npz")
    assert list(gradlab.Record.load(tmp_path / "run.npz").layers) == list(record.layers) == [layer.name for layer in net.layers]


@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_jacobians_take_little_more_memory_than_they_fill(cell):
    import tracemalloc

    rng = np.random.default_rng(0)
    net = Network(cell, 8, 48)
    params, x = net.init(rng), rng.normal(size=(120, 16, 8))
    run = next(iter(forward(net, params, x).runs.values()))
    tracemalloc.start()
    size = run.jacobians().nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= size + 8 * 2**24  # a few windows of 16 MiB, whatever the sequence


def test_the_jacobian_of_a_stack_is_refused_before_it_is_made():
    rng = np.random.default_rng(0)
    net = Network(LSTM(), 2, 16, num_layers=2)
    params = net.init(rng)
    batch = Batch(rng.normal(size=(20, 4, 2)), rng.normal(size=(20, 4, 16)))
    record = bptt(net, params, batch, mean_squared_error)
    with pytest.raises(ResourceRefused, match="the Jacobian of a stack of S = 64 needs"):
        gradlab.analysis.network_jacobian(net, params, record, max_memory=10_000)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Clockwork(4), "periods is 4; expected a sequence"),
        (lambda: LSTM(peepholes="no"), "peepholes is 'no'; expected True or False"),
        (lambda: gradlab.SCRN(learned="no"), "learned is 'no'; expected True or False"),
        (lambda: gradlab.irnn(float("nan")), "factor is nan"),
        (lambda: Elman(W=3), r"W is 3; expected a function \(rng, shape\)"),
        (lambda: LSTM().init(np.random.default_rng(0), 1, 1, forget_bias="a"), "forget_bias is 'a'"),
        (
            lambda: Network(LSTM(), 1, 1).init(np.random.default_rng(0), recurrent_init="orthogonal"),
            "recurrent_init is 'orthogonal'",
        ),
        (
            lambda: Network(LSTM(), 1, 1).init(np.random.default_rng(0), recurrent_init=gradlab.inits.orthogonal),
            r"try orthogonal\(\)",
        ),
        (lambda: Network(LSTM(), 1, 8.0), "hidden_size is 8.0; expected an integer >= 1; try 8"),
    ],
)
def test_odd_arguments_are_one_clear_error(make, words):
    with pytest.raises(gradlab.GradlabError, match=words):
        make()
