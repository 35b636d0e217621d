"""`watch` on nn.*Cell modules that a user's own loop calls step by step."""

import numpy as np
import pytest

from gradlab.adapters import watch

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'gradlab[torch]'")
pytestmark = pytest.mark.peer

KINDS = ["RNN", "LSTM", "GRU"]
SERIES = ("states", "immediate", "adjoints")


def noise(*shape, seed=1, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


def module(kind, dtype=torch.float64, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return getattr(torch.nn, kind)(3, 4).to(dtype)


def hidden(state):
    return state[0] if isinstance(state, tuple) else state


def unrolled(cell, x, state=None):
    found = []
    for x_t in x:
        state = cell(x_t, state)
        found.append(hidden(state))
    return torch.stack(found), state


def loss_of(y, final):
    parts = final if isinstance(final, tuple) else (final,)
    return y.sin().sum() + sum(part.pow(2).sum() for part in parts)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_over_a_cell_gives_the_record_of_the_fused_layer(kind, dtype):
    cell, fused = module(f"{kind}Cell", dtype), module(kind, dtype)
    fused.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x, rows = noise(6, 2, 3, dtype=dtype), noise(1, 2, 4, dtype=dtype)
    start = (rows, 0.5 * rows) if kind == "LSTM" else rows
    with watch(cell) as stepped:
        own = tuple(part[0] for part in start) if kind == "LSTM" else start[0]
        y, final = unrolled(cell, x, own)
        loss_of(y, final).backward()
    with watch(fused) as whole:
        loss_of(*fused(x, start)).backward()
    (a,), (b,) = stepped.results, whole.results
    limit = 1e-11 if dtype == torch.float64 else 1e-5
    assert a.proof.verdict == b.proof.verdict == "proved"
    assert a.proof.worst <= limit
    ours, theirs = a.record.layers["0"], b.record.layers["0"]
    for name in SERIES:
        size = np.abs(theirs.series("adjoints" if name == "immediate" else name)).max()
        assert ours.series(name).shape == theirs.series(name).shape
        assert np.abs(ours.series(name) - theirs.series(name)).max() <= limit * size, name
    assert not ours.immediate[0].any()
    if kind == "LSTM":  # no loss reads c before the end, and what rounding leaves of nothing is nothing
        assert not ours.series("immediate", "c")[:-1].any()
    for gate, value in theirs.gates.items():
        assert np.abs(ours.gates[gate] - value).max() <= limit
    for key, gradient in b.record.gradients.items():
        assert np.abs(a.record.gradients[key] - gradient).max() <= limit * np.abs(gradient).max()
    (J, *_), (K, *_) = a.jacobians(), b.jacobians()
    assert np.abs(J - K).max() <= limit * np.abs(K).max()


def test_two_cells_in_one_loop_are_two_sequences_of_their_own():
    class Stack(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = module("GRUCell"), torch.nn.LSTMCell(4, 4).double()

        def forward(self, x):
            h, state, found = None, None, 0.0
            for x_t in x:
                h = self.low(x_t, h)
                state = self.high(h, state)
                found = found + state[0].sum()
            return found

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Stack()
    with watch(model) as seen:
        model(noise(5, 2, 3)).backward()
    assert [(one.name, one.record.layers["0"].states.shape) for one in seen.results] == [
        ("low", (6, 2, 4)),
        ("high", (6, 2, 8)),
    ]
    assert {one.proof.verdict for one in seen.results} == {"proved"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_detached_state_ends_a_sequence_and_interleaved_ones_stay_apart(kind):
    cell = module(f"{kind}Cell")
    x = noise(6, 2, 3)
    with watch(cell) as seen:
        total, first, second = 0.0, None, None
        for k in range(6):
            first, second = cell(x[k], first), cell(-x[k], second)
            total = total + hidden(first).sum() + hidden(second).sin().sum()
            if k == 3:
                second = tuple(s.detach() for s in second) if kind == "LSTM" else second.detach()
        total.backward()
    assert [len(one.record.inputs) for one in seen.results] == [6, 4, 2]
    assert {one.proof.verdict for one in seen.results} == {"proved"}
    total = sum(one.record.gradients["0.U"] for one in seen.results)
    theirs = cell.weight_hh.grad.numpy()
    assert np.abs(total - theirs).max() <= 1e-11 * np.abs(theirs).max()


def test_steps_that_the_loss_never_reads_are_no_part_of_the_record():
    cell = module("GRUCell")
    with watch(cell) as seen:
        state, outputs = None, []
        for x_t in noise(7, 2, 3):
            state = cell(x_t, state)
            outputs.append(state)
        outputs[3].sum().backward()
    (one,) = seen.results
    assert one.proof.verdict == "proved"
    assert len(one.record.inputs) == 4
    found = one.record.layers["0"]
    np.testing.assert_array_equal(found.immediate[4], 1.0)
    assert not found.immediate[:4].any()


def test_one_sequence_without_a_batch_axis_is_proved():
    cell = module("LSTMCell")
    with watch(cell) as seen:
        y, final = unrolled(cell, noise(5, 3))
        loss_of(y, final).backward()
    assert seen["model"].proof.verdict == "proved"
    assert seen["model"].record.inputs.shape == (5, 1, 3)
