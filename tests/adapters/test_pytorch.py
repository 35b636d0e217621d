"""torch's recurrent modules as gradlab networks: the same function, and the same gradients."""

import numpy as np
import pytest

import gradlab
from gradlab.adapters.pytorch import from_module, spec_of
from gradlab.adapters.replay import Replayable, replay
from gradlab.errors import DTypeError, ValueRangeError

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'gradlab[torch]'")
pytestmark = pytest.mark.peer

# Two correct float64 implementations differ by rounding alone, which up to 3 layers and 8 steps amplify little.
BOUND = 1e-12

KINDS = ("tanh", "relu", "LSTM", "GRU")


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max(initial=0.0) <= BOUND * np.abs(theirs).max(initial=0.0)


def random_module(rng, kind):
    """A module with every option drawn; weights of order one, so that a gate in a wrong place shows."""
    D = int(rng.integers(1, 5))
    H = D if rng.integers(3) == 0 else int(rng.integers(1, 6))
    options = {"nonlinearity": kind} if kind in ("tanh", "relu") else {}
    module = getattr(torch.nn, "RNN" if options else kind)(
        D,
        H,
        int(rng.integers(1, 4)),
        bias=bool(rng.integers(4)),
        batch_first=bool(rng.integers(2)),
        bidirectional=bool(rng.integers(2)),
        **options,
    ).double()
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.from_numpy(rng.normal(0.0, 0.7, tuple(weight.shape))))
    return module


def by_layer(net, h, c):
    """torch's states as gradlab's."""
    found = {}
    for k, layer in enumerate(net.layers):
        own = h[k] if c is None else torch.cat([c[k], h[k]], -1)
        found[layer.name] = own.detach().numpy()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_states_and_gradients_equal_those_of_fused_modules_with_every_option(kind):
    for seed in range(25):
        rng = np.random.default_rng([seed, len(kind)])
        module = random_module(rng, kind)
        got = from_module(module)
        assert got.batch_first is module.batch_first
        T, B = int(rng.integers(1, 8)), int(rng.integers(1, 5))
        lengths = rng.integers(1, T + 1, B) if rng.integers(2) else None
        if lengths is not None:
            lengths[rng.integers(B)] = T
        x = torch.from_numpy(rng.normal(size=(T, B, module.input_size))).requires_grad_()
        layers = len(got.net.layers)
        h, c = (torch.from_numpy(rng.normal(size=(layers, B, module.hidden_size))).requires_grad_() for _ in range(2))
        given = (h, c) if kind == "LSTM" else h
        rnn = torch.nn.utils.rnn
        read = x.transpose(0, 1) if module.batch_first else x
        if lengths is not None:
            read = rnn.pack_padded_sequence(read, torch.from_numpy(lengths), module.batch_first, enforce_sorted=False)
        y, final = module(read, given)
        if lengths is not None:
            y, _ = rnn.pad_packed_sequence(y, module.batch_first, total_length=T)
        y = y.transpose(0, 1) if module.batch_first else y
        dy = torch.from_numpy(rng.normal(size=tuple(y.shape)))
        final = final if kind == "LSTM" else (final,)
        d_final = [torch.from_numpy(rng.normal(size=tuple(part.shape))) for part in final]
        torch.autograd.backward([y, *final], [dy, *d_final])

        cells = (c, h) if kind == "LSTM" else (None, h)
        initial = by_layer(got.net, cells[1], cells[0])
        d_last = by_layer(got.net, d_final[0], d_final[1] if kind == "LSTM" else None)
        call = Replayable(got.net, got.params, x.detach().numpy(), initial, lengths, {}, dy.numpy(), d_last)
        record = replay(call, ("states", "adjoints", "input_gradient"))
        close(record.outputs, y)
        close(record.input_gradient, x.grad)
        H = module.hidden_size
        for k, layer in enumerate(record.layers.values()):
            close(layer.states[-1][:, -H:], final[0][k])
            close(layer.adjoints[0][:, -H:], h.grad[k])
            if kind == "LSTM":
                close(layer.states[-1][:, :H], final[1][k])
                close(layer.adjoints[0][:, :H], c.grad[k])
        found = spec_of(torch, module).torch_gradients(record.gradients)
        theirs = dict(module.named_parameters())
        assert found.keys() == theirs.keys()
        for name, weight in theirs.items():
            close(found[name], weight.grad)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_one_step_of_a_cell_and_its_gradients_are_those_of_torch(kind, bias):
    rng = np.random.default_rng(len(kind))
    options = {"nonlinearity": kind} if kind in ("tanh", "relu") else {}
    for D, H in ((3, 4), (3, 3)):
        module = getattr(torch.nn, ("RNN" if options else kind) + "Cell")(D, H, bias=bias, **options).double()
        got = from_module(module)
        x = torch.from_numpy(rng.normal(size=(2, D)))
        h, c = (torch.from_numpy(rng.normal(size=(2, H))) for _ in range(2))
        out = module(x, (h, c) if kind == "LSTM" else h)
        out = out if kind == "LSTM" else (out,)
        back = [torch.from_numpy(rng.normal(size=(2, H))) for _ in out]
        torch.autograd.backward(out, back)
        state = np.concatenate([part.numpy() for part in ((c, h) if kind == "LSTM" else (h,))], -1)
        d_last = np.concatenate([part.numpy() for part in reversed(back)], -1)
        call = Replayable(got.net, got.params, x.numpy()[None], {"0": state}, None, {}, None, {"0": d_last})
        record = replay(call)
        close(record.layers["0"].states[1], torch.cat(tuple(reversed(out)), -1))
        for name, gradient in spec_of(torch, module).torch_gradients(record.gradients).items():
            close(gradient, getattr(module, name).grad)


def test_the_imported_network_says_what_it_was_and_what_was_decided():
    got = from_module(torch.nn.GRU(3, 4, 2, dropout=0.25, bidirectional=True))
    assert got.source == "torch.nn.GRU"
    assert got.dtype == np.float32
    assert {value.dtype for value in got.params.values()} == {np.dtype(np.float64)}
    text = "; ".join(got.notes)
    assert 'reset="after"' in text
    assert "b_hn" in text
    assert "dropout 0.25 between layers is left out" in text
    assert got.net.cell.__class__ is gradlab.GRU
    assert from_module(torch.nn.LSTM(3, 4), dtype=np.float32).params["0.W"].dtype == np.float32


def test_parameters_are_copies_and_half_precision_weights_are_widened():
    module = torch.nn.LSTM(3, 4).bfloat16()
    got = from_module(module)
    assert "bfloat16" in " ".join(got.notes)
    before = got.params["0.W"].copy()
    np.testing.assert_array_equal(before, module.weight_ih_l0.detach().double().numpy())
    with torch.no_grad():
        module.weight_ih_l0.zero_()
    np.testing.assert_array_equal(got.params["0.W"], before)


def test_a_projected_lstm_is_refused_by_name():
    with pytest.raises(ValueRangeError, match="proj_size=2"):
        from_module(torch.nn.LSTM(3, 4, proj_size=2))


@pytest.mark.parametrize("thing", [torch.nn.Linear(2, 2), "lstm.pt", {"weight_ih_l0": 0}])
def test_anything_else_is_refused_with_its_type(thing):
    with pytest.raises(DTypeError, match=type(thing).__name__):
        from_module(thing)
