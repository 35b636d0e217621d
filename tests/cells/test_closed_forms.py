"""What the papers prove about each cell, as tests."""

import numpy as np
import pytest

import gradlab
from gradlab import Batch, Clockwork, Elman, Jordan, Network, bptt, cells, forward
from gradlab.cells.gru import GRU
from gradlab.cells.lstm import LSTM
from gradlab.cells.scrn import SCRN

# Two orders of the same few sums: some ulps of the largest entry.
ROUNDING = 1e-14


def data(seed=0, T=7, B=3, D=2):
    rng = np.random.default_rng(seed)
    return rng, rng.normal(size=(T, B, D))


def drawn(net, rng, scale=0.8):
    return {key: rng.uniform(-scale, scale, shape) for key, shape in net.shapes.items()}


def record(net, params, x, seed=1, **options):
    """Everything recorded, for the loss sum(outputs * weight) with a random weight."""
    outputs = forward(net, params, x, options.get("initial_states"), lengths=options.get("lengths")).outputs
    weight = np.random.default_rng(seed).normal(size=outputs.shape)

    def loss(y, targets, mask):
        return (y * weight).sum(), weight.copy()

    keep = ("states", "gates", "immediate", "adjoints", "jacobians", "input_gradient")
    batch = Batch(x, weight, lengths=options.pop("lengths", None))
    return bptt(net, params, batch, loss, keep, **options)


def close(a, b):
    assert a.shape == b.shape
    assert a.size > 0
    assert np.abs(a - b).max() <= ROUNDING * np.abs(b).max()


@pytest.mark.parametrize("cell", [LSTM(), LSTM(peepholes=True), LSTM(coupled=True), LSTM(forget_gate=False)], ids=repr)
def test_without_recurrent_weights_the_cell_path_is_the_product_of_the_forget_gates(cell):
    rng, x = data()
    net = Network(cell, 2, 4)
    params = drawn(net, rng)
    params["0.U"][:] = 0.0
    for key in params:
        if ".p_" in key:
            params[key][:] = 0.0
    made = record(net, params, x)
    H, J = 4, made.layers["0"].jacobians
    product = np.eye(8)
    for J_t in J[:, 1]:
        product = J_t @ product
    expected = np.prod(made.layers["0"].gates["f"][:, 1], axis=0)
    close(np.diag(product[:H, :H]), expected)
    assert not product[:H, H:].any()


def test_without_a_forget_gate_the_cell_path_is_the_identity():
    rng, x = data()
    net = Network(LSTM(forget_gate=False), 2, 3)
    params = drawn(net, rng)
    params["0.U"][:] = 0.0
    J = record(net, params, x).layers["0"].jacobians
    assert np.array_equal(J[:, :, :3, :3], np.broadcast_to(np.eye(3), (7, 3, 3, 3)))


@pytest.mark.parametrize("cell", [c for c in cells.ALL if isinstance(c, LSTM)], ids=repr)
def test_the_determinant_of_the_lstm_jacobian_is_that_of_its_two_paths(cell):
    # J = [[A, B], [G A, G B + K]], so det J = det A det K (Schur complement); K = diag(tanh(c) o') U_o.
    rng, x = data()
    net = Network(cell, 2, 3)
    params = drawn(net, rng)
    made = record(net, params, x).layers["0"]
    s, gates, J = made.states, made.gates, made.jacobians
    K = (np.tanh(s[1:, ..., :3]) * gates["o"] * (1 - gates["o"]))[..., None] * params["0.U"][-3:]
    det = np.linalg.det(J[..., :3, :3]) * np.linalg.det(K)
    # Determinants of 6 x 6 matrices lose about three digits to cancellation.
    assert np.allclose(np.linalg.det(J), det, rtol=1e-10, atol=0.0)


def test_peepholes_at_zero_give_the_plain_lstm():
    rng, x = data()
    plain, peep = Network(LSTM(), 2, 4), Network(LSTM(peepholes=True), 2, 4)
    params = drawn(plain, rng)
    zero = {f"0.p_{gate}": np.zeros(4) for gate in "ifo"}
    a, b = record(plain, params, x), record(peep, params | zero, x)
    assert np.array_equal(a.outputs, b.outputs)
    for key in params:
        close(b.gradients[key], a.gradients[key])
    assert all(np.abs(b.gradients[key]).max() > 0 for key in zero)


def test_nothing_flows_from_a_peephole_into_the_block_input():
    rng, x = data()
    net = Network(LSTM(peepholes=True), 2, 3)
    params = drawn(net, rng)
    other = params | {f"0.p_{gate}": params[f"0.p_{gate}"] + 1.0 for gate in "ifo"}
    start = {"0": rng.normal(size=(3, 6))}
    a = record(net, params, x[:1], initial_states=start).layers["0"].gates
    b = record(net, other, x[:1], initial_states=start).layers["0"].gates
    assert np.array_equal(a["g"], b["g"])
    assert not any(np.allclose(a[gate], b[gate]) for gate in "ifo")


def test_the_output_gate_sees_the_new_cell_and_the_others_the_old_one():
    rng, x = data(T=1)
    net = Network(LSTM(peepholes=True), 2, 3)
    params = drawn(net, rng)
    start = {"0": rng.normal(size=(3, 6))}
    made = record(net, params, x, initial_states=start).layers["0"]
    pre = x[0] @ params["0.W"].T + start["0"][:, 3:] @ params["0.U"].T + params["0.b"]
    c_old, c_new = start["0"][:, :3], made.states[1][:, :3]
    for k, gate, c in ((0, "i", c_old), (1, "f", c_old), (3, "o", c_new)):
        z = pre[:, 3 * k : 3 * k + 3] + params[f"0.p_{gate}"] * c
        close(made.gates[gate][0], 1 / (1 + np.exp(-z)))


def test_coupled_gates_equal_an_lstm_whose_input_gate_is_one_minus_forget():
    # sigmoid(-a) = 1 - sigmoid(a): an LSTM with the rows of i set to minus those of f is the coupled one.
    rng, x = data()
    coupled, plain = Network(LSTM(coupled=True), 2, 3), Network(LSTM(), 2, 3)
    params = drawn(coupled, rng)
    tied = {key: np.concatenate([-v[:3], v]) for key, v in params.items()}
    a, b = record(coupled, params, x), record(plain, tied, x)
    close(a.outputs, b.outputs)
    close(a.layers["0"].jacobians, b.layers["0"].jacobians)
    for key in params:
        tied_gradient = b.gradients[key]
        close(a.gradients[key][:3], tied_gradient[3:6] - tied_gradient[:3])  # chain rule through both copies
        close(a.gradients[key][3:], tied_gradient[6:])
    assert np.abs(a.layers["0"].gates["i"] + a.layers["0"].gates["f"] - 1.0).max() <= 2.3e-16  # one rounding


def test_coupled_and_no_forget_gate_exclude_each_other():
    with pytest.raises(gradlab.errors.ValueRangeError, match="coupled is True and forget_gate is False"):
        LSTM(coupled=True, forget_gate=False)


def test_jordan_with_identity_read_out_is_the_elman_net():
    rng, x = data()
    elman, jordan = Network(Elman("tanh"), 2, 4), Network(Jordan(4), 2, 4)
    params = drawn(elman, rng)
    a, b = record(elman, params, x), record(jordan, params | {"0.V": np.eye(4), "0.b_y": np.zeros(4)}, x)
    close(b.outputs, a.outputs)
    close(b.layers["0"].jacobians, a.layers["0"].jacobians)
    for key in params:
        close(b.gradients[key], a.gradients[key])


@pytest.mark.parametrize("p", [1, 2, 3])
def test_the_memory_of_a_jordan_net_has_at_most_the_rank_of_its_outputs(p):
    rng, x = data()
    net = Network(Jordan(p, output_activation="tanh"), 2, 6)
    params = drawn(net, rng)
    run = forward(net, params, x).runs["0"]
    J = run.layer.cell.hidden_jacobian(run.p, run.tape)
    singular = np.linalg.svd(J, compute_uv=False)
    assert (singular[..., p:] <= 1e-12 * singular[..., :1]).all()  # rounding of the largest
    assert (singular[..., p - 1] > 1e-6 * singular[..., 0]).all()  # and not less: the bound is reached

    # The same matrix by differences of the hidden units themselves.
    h_before = run.tape[2, 0, 0, 6:12]

    def next_hidden(h):
        y = np.tanh(params["0.V"] @ h + params["0.b_y"])
        return np.tanh(params["0.W"] @ x[3, 0] + params["0.U"] @ y + params["0.b"])

    by_steps = np.stack([np.imag(next_hidden(h_before + 1e-200j * unit)) / 1e-200 for unit in np.eye(6)], axis=-1)
    close(J[2, 0], by_steps)


def test_a_jordan_net_with_decay_emits_its_output_not_its_state():
    rng, x = data()
    net = Network(Jordan(2, mu=0.6), 2, 3)
    params = drawn(net, rng)
    run = forward(net, params, x)
    s, y = run.states["0"], run.outputs
    previous = np.zeros((3, 2))
    for t in range(7):
        h = np.tanh(x[t] @ params["0.W"].T + previous @ params["0.U"].T + params["0.b"])
        expected = h @ params["0.V"].T + params["0.b_y"]
        close(y[t], expected)
        previous = 0.6 * previous + expected
        close(s[t + 1], previous)


def test_the_two_grus_coincide_without_second_bias_and_with_one_reset_gate_for_all_units():
    rng, x = data()
    after, before = Network(GRU(reset="after"), 2, 4), Network(GRU(reset="before"), 2, 4)
    params = drawn(before, rng)
    for key in ("0.W", "0.U", "0.b"):
        params[key][:4] = params[key][:1]  # every unit's reset gate reads the same
    a, b = record(after, params | {"0.b_hn": np.zeros(4)}, x), record(before, params, x)
    close(a.outputs, b.outputs)
    params["0.W"][1] += 0.5  # no longer the same gate for all units
    a, b = record(after, params | {"0.b_hn": np.zeros(4)}, x), record(before, params, x)
    assert np.abs(a.outputs - b.outputs).max() > 1e-3


@pytest.mark.parametrize("reset", ["after", "before"])
def test_an_open_update_gate_keeps_the_state_and_its_jacobian_is_the_identity(reset):
    rng, x = data()
    net = Network(GRU(reset=reset), 2, 3)
    params = drawn(net, rng)
    params["0.b"][3:6] = 800.0  # z = 1 to the last bit, 1 - z = exp(-800) = 0
    start = {"0": rng.normal(size=(3, 3))}
    made = record(net, params, x, initial_states=start)
    assert np.array_equal(made.layers["0"].states[-1], start["0"])
    assert np.array_equal(made.layers["0"].jacobians, np.broadcast_to(np.eye(3), (7, 3, 3, 3)))


def test_fast_clockwork_units_never_reach_slower_ones():
    rng, x = data(T=16)
    cell = Clockwork((1, 2, 4, 8))
    net = Network(cell, 2, 8)
    params = drawn(net, rng)
    start = rng.normal(size=(3, 8))
    base = forward(net, params, x, {"0": start}).states["0"]
    for module, end in enumerate(cell.module_ends(8)):
        kicked = start.copy()
        kicked[:, end - 2 : end] += 1.0
        moved = forward(net, params, x, {"0": kicked}).states["0"]
        assert np.array_equal(moved[:, :, end:], base[:, :, end:])
        if module:
            assert not np.array_equal(moved[:, :, : end - 2], base[:, :, : end - 2])  # slow feeds fast


def test_a_resting_clockwork_module_copies_its_value_and_its_gradient():
    rng, x = data(T=8)
    net = Network(Clockwork((1, 4)), 2, 4)
    made = record(net, drawn(net, rng), x).layers["0"]
    for t in range(8):
        slow = slice(2, 4)
        if t % 4:
            assert np.array_equal(made.states[t + 1][:, slow], made.states[t][:, slow])
            assert np.array_equal(made.jacobians[t][:, slow], np.broadcast_to(np.eye(4)[slow], (3, 2, 4)))
        else:
            assert not np.array_equal(made.states[t + 1][:, slow], made.states[t][:, slow])


def test_a_clockwork_whose_modules_all_tick_at_one_is_a_masked_elman_net():
    rng, x = data()
    clock, elman = Network(Clockwork((1, 1)), 2, 4), Network(Elman(), 2, 4)
    params = drawn(clock, rng)
    masked = params | {"0.U": params["0.U"] * clock.layers[0].cell.connections(4)}
    a, b = record(clock, params, x), record(elman, masked, x)
    close(a.outputs, b.outputs)
    close(a.layers["0"].jacobians, b.layers["0"].jacobians)
    connections = clock.layers[0].cell.connections(4)
    close(a.gradients["0.U"][connections], b.gradients["0.U"][connections])
    assert not a.gradients["0.U"][~connections].any()


def test_the_clock_goes_on_across_chunks():
    rng, x = data(T=8)
    net = Network(Clockwork((1, 4)), 2, 4)
    params = drawn(net, rng)
    whole = forward(net, params, x)
    first = forward(net, params, x[:3])
    second = forward(net, params, x[3:], first.final_states, first_step=3)
    assert np.array_equal(second.states["0"], whole.states["0"][3:])


@pytest.mark.parametrize("context", ["current", "previous"])
def test_scrn_context_forgets_at_exactly_its_decay(context):
    rng, x = data(T=40)
    net = Network(SCRN(3, context=context), 2, 4)
    params = drawn(net, rng)
    J = record(net, params, x).layers["0"].jacobians[:, 0]
    product = np.eye(7)
    for J_t in J:
        product = J_t @ product
    assert np.array_equal(product[:3, 3:], np.zeros((3, 4)))
    # 40 multiplications by 0.95: 40 roundings.
    assert np.abs(np.diag(product[:3, :3]) / 0.95**40 - 1.0).max() < 40 * 2.3e-16
    half_life = -40 * np.log(2.0) / np.log(product[0, 0])  # of the product itself
    assert abs(half_life - 13.513407) < 1e-6  # the six printed digits


def test_a_learned_scrn_decay_starts_at_alpha_and_has_one_value_a_unit():
    rng, x = data()
    fixed, learned = Network(SCRN(3), 2, 4), Network(SCRN(3, learned=True), 2, 4)
    params = drawn(fixed, rng)
    own = learned.init(rng)["0.beta"]
    close(1 / (1 + np.exp(-own)), np.full(3, 0.95))
    a, b = record(fixed, params, x), record(learned, params | {"0.beta": own}, x)
    assert np.abs(a.outputs - b.outputs).max() < 1e-14  # alpha = sigmoid(beta) rounds once
    assert b.gradients["0.beta"].shape == (3,)
    assert np.abs(b.gradients["0.beta"]).min() > 0


def test_the_two_scrn_contexts_differ_by_one_step_of_the_context():
    rng, x = data()
    params = drawn(Network(SCRN(2), 2, 3), rng)
    current, previous = (forward(Network(SCRN(2, context=c), 2, 3), params, x) for c in ("current", "previous"))
    assert np.array_equal(current.states["0"][..., :2], previous.states["0"][..., :2])
    assert np.abs(current.states["0"][1:, ..., 2:] - previous.states["0"][1:, ..., 2:]).min() > 1e-6


def test_irnn_starts_with_singular_values_of_exactly_zero_and_one():
    rng, x = data(T=20)
    cell = gradlab.irnn()
    net = Network(cell, 2, 50)
    params = net.init(rng)
    assert np.array_equal(params["0.U"], np.eye(50))
    assert not params["0.b"].any()
    assert abs(params["0.W"].std() / 0.001 - 1.0) < 0.3  # 100 draws: 5 standard errors are 0.35
    J = record(net, params, x).layers["0"].jacobians
    singular = np.linalg.svd(J, compute_uv=False)
    assert set(np.unique(singular)) == {0.0, 1.0}
    assert np.array_equal(gradlab.irnn(0.01).init(rng, 2, 3)["U"], 0.01 * np.eye(3))


def test_orthogonal_linear_net_preserves_gradient_norm_at_every_lag():
    rng, x = data(T=200)
    net = Network(Elman("linear"), 2, 8, readout="last")
    params = net.init(rng, recurrent_init=gradlab.inits.orthogonal())
    delta = record(net, params, x).layers["0"].adjoints
    norms = np.linalg.norm(delta, axis=-1)
    assert np.abs(norms / norms[-1] - 1.0).max() < 1e-12  # 200 orthogonal products, some ulps each


@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_two_halves_of_a_bidirectional_net_are_two_nets_on_flipped_input(cell):
    rng, x = data()
    both, one = Network(cell, 2, 3, bidirectional=True), Network(cell, 2, 3)
    params = drawn(both, rng)
    forward_params = {f"0.{k.split('.')[-1]}": v for k, v in params.items() if ".forward." in k}
    backward_params = {f"0.{k.split('.')[-1]}": v for k, v in params.items() if ".backward." in k}
    y = forward(both, params, x).outputs
    ahead = forward(one, forward_params, x).outputs
    behind = forward(one, backward_params, x[::-1]).outputs[::-1]
    assert np.array_equal(y, np.concatenate([ahead, behind], axis=-1))


def test_in_a_bidirectional_net_the_future_matters():
    rng, x = data()
    net = Network(LSTM(), 2, 3, bidirectional=True)
    params = drawn(net, rng)

    def first_output(v):
        return forward(net, params, v).outputs[0]

    changed = x.copy()
    changed[-1] += 1.0
    moved = first_output(changed) - first_output(x)
    assert not moved[:, :3].any()
    assert (np.abs(moved[:, 3:]) > 0).all()
