"""The engine against torch.nn in float64: outputs and every gradient."""

import numpy as np
import pytest

import gradlab

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")
pytestmark = pytest.mark.peer

# Two correct float64 implementations differ by rounding only: max|a-b| <= 1e-12 max|b| for each array.
BOUND = 1e-12


def relative(ours, theirs):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert theirs.size > 0
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["tanh", "relu", "lstm"])
def test_outputs_and_all_gradients_equal_torch(kind, seed):
    rng = np.random.default_rng(seed)
    T, B, D, H = (int(n) for n in rng.integers([1, 1, 1, 1], [12, 5, 6, 8]))
    layers = int(rng.integers(1, 4))
    if kind == "lstm":
        module, cell = torch.nn.LSTM(D, H, layers).double(), gradlab.LSTM()
    else:
        module, cell = torch.nn.RNN(D, H, layers, nonlinearity=kind).double(), gradlab.Elman(kind)
    net = gradlab.Network(cell, D, H, num_layers=layers)
    params = {}
    with torch.no_grad():
        for k in range(layers):
            for ours, theirs in (("W", "weight_ih"), ("U", "weight_hh"), ("b", "bias_ih")):
                value = rng.normal(size=getattr(module, f"{theirs}_l{k}").shape)
                getattr(module, f"{theirs}_l{k}").copy_(torch.from_numpy(value))
                params[f"{k}.{ours}"] = value
            getattr(module, f"bias_hh_l{k}").zero_()
    x, weight = rng.normal(size=(T, B, D)), rng.normal(size=(T, B, H))
    s_0 = {str(k): rng.normal(size=(B, net.layers[k].state_size)) for k in range(layers)}

    x_t = torch.from_numpy(x.copy()).requires_grad_()
    h_0 = torch.from_numpy(np.stack([s_0[str(k)][:, -H:] for k in range(layers)])).requires_grad_()
    c_0 = torch.from_numpy(np.stack([s_0[str(k)][:, :H] for k in range(layers)])).requires_grad_()
    y, _ = module(x_t, (h_0, c_0) if kind == "lstm" else h_0)
    (y * torch.from_numpy(weight)).sum().backward()

    def loss(outputs, targets, mask):
        return (outputs * targets).sum(), targets

    record = gradlab.bptt(
        net, params, gradlab.Batch(x, weight), loss, ("states", "adjoints", "input_gradient"), initial_states=s_0
    )
    assert relative(record.outputs, y) <= BOUND
    assert relative(record.input_gradient, x_t.grad) <= BOUND
    for k in range(layers):
        for ours, theirs in (("W", "weight_ih"), ("U", "weight_hh"), ("b", "bias_ih")):
            assert relative(record.gradients[f"{k}.{ours}"], getattr(module, f"{theirs}_l{k}").grad) <= BOUND, f"{k}.{ours}"
        assert relative(record.layers[str(k)].series("adjoints", "h")[0], h_0.grad[k]) <= BOUND
        if kind == "lstm":
            assert relative(record.layers[str(k)].series("adjoints", "c")[0], c_0.grad[k]) <= BOUND


def test_total_adjoints_equal_the_gradients_that_torch_retains_on_an_unrolled_lstm():
    rng = np.random.default_rng(3)
    T, B, D, H = 9, 2, 3, 4
    cell = torch.nn.LSTMCell(D, H).double()
    net = gradlab.Network(gradlab.LSTM(), D, H, readout="last")
    params = net.init(rng)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.from_numpy(params["0.W"]))
        cell.weight_hh.copy_(torch.from_numpy(params["0.U"]))
        cell.bias_ih.copy_(torch.from_numpy(params["0.b"]))
        cell.bias_hh.zero_()
    x, target = rng.normal(size=(T, B, D)), rng.normal(size=(B, H))
    h = c = torch.zeros(B, H, dtype=torch.float64)
    kept = []
    for t in range(T):
        h, c = cell(torch.from_numpy(x[t]), (h, c))
        h.retain_grad()
        c.retain_grad()
        kept.append((c, h))
    torch.nn.functional.mse_loss(h, torch.from_numpy(target)).backward()
    record = gradlab.bptt(net, params, gradlab.Batch(x, target), gradlab.mean_squared_error)
    layer = record.layers["0"]
    for t, (c_t, h_t) in enumerate(kept, start=1):
        assert relative(layer.series("adjoints", "h")[t], h_t.grad) <= BOUND
        # torch retains dL/dc_t as it arrives from the next step and from h_t together: in our state (c, h) the
        # share through h_t belongs to h, so add it back.
        gates, s = layer.gates, layer.series("states")
        through_h = layer.series("adjoints", "h")[t] * gates["o"][t - 1] * (1.0 - np.tanh(s[t, :, :H]) ** 2)
        assert relative(layer.series("adjoints", "c")[t] + through_h, c_t.grad) <= BOUND
