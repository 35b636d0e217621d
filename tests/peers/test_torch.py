"""The engine against torch.nn in float64: outputs, final states and every gradient."""

import numpy as np
import pytest

import gradlab

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")
pytestmark = pytest.mark.peer

# Two correct float64 implementations differ by rounding only: max|a-b| <= BOUND * max|b| for each array. The largest
# of the cases below is 6e-14 (4 layers amplify rounding); the bound leaves room for another BLAS.
BOUND = 1e-12

KINDS = {
    "tanh": (torch.nn.RNN, gradlab.Elman("tanh")),
    "relu": (torch.nn.RNN, gradlab.Elman("relu")),
    "lstm": (torch.nn.LSTM, gradlab.LSTM()),
    "gru": (torch.nn.GRU, gradlab.GRU(reset="after")),
}
CASES = [(kind, seed) for kind in KINDS for seed in range(52)]


class Pair:
    """The same random network twice: torch's module and gradlab's network with its parameters."""

    def __init__(self, kind, seed):
        rng = self.rng = np.random.default_rng([seed, len(kind)])
        module, cell = KINDS[kind]
        self.kind, self.H = kind, int(rng.integers(1, 8))
        self.T, self.B, D = (int(n) for n in rng.integers([1, 1, 1], [10, 5, 6]))
        self.layers, both = int(rng.integers(1, 5)), bool(rng.integers(2))
        options = {"nonlinearity": kind} if kind in ("tanh", "relu") else {}
        self.module = module(D, self.H, self.layers, bidirectional=both, **options).double()
        self.net = gradlab.Network(cell, D, self.H, num_layers=self.layers, bidirectional=both)
        self.names = {}  # our layer name -> torch's suffix
        for k in range(self.layers):
            if both:
                self.names |= {f"{k}.forward": f"_l{k}", f"{k}.backward": f"_l{k}_reverse"}
            else:
                self.names[str(k)] = f"_l{k}"
        scale = 1.0 / np.sqrt(self.H)
        self.params = {}
        with torch.no_grad():
            for name, suffix in self.names.items():
                weights = {}
                for theirs in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    tensor = getattr(self.module, theirs + suffix)
                    weights[theirs] = rng.normal(0.0, scale, tuple(tensor.shape))
                    tensor.copy_(torch.from_numpy(weights[theirs]))
                b = weights["bias_ih"] + weights["bias_hh"]
                own = {"W": weights["weight_ih"], "U": weights["weight_hh"], "b": b}
                if kind == "gru":  # the candidate's second bias sits inside r * (...)
                    b[2 * self.H :] = weights["bias_ih"][2 * self.H :]
                    own["b_hn"] = weights["bias_hh"][2 * self.H :].copy()
                self.params |= {f"{name}.{key}": value for key, value in own.items()}
        self.x = rng.normal(size=(self.T, self.B, D))
        self.s_0 = {layer.name: rng.normal(size=(self.B, layer.state_size)) for layer in self.net.layers}
        self.lengths = None
        if rng.integers(2):
            self.lengths = rng.integers(1, self.T + 1, self.B)
            self.lengths[rng.integers(self.B)] = self.T  # packing drops steps that no row has
        self.weight = rng.normal(size=(self.T, self.B, self.net.top_size))

    def run_torch(self):
        """Outputs, and leaves with gradients: x, h_0, c_0."""
        x = torch.from_numpy(self.x.copy()).requires_grad_()
        h_0 = torch.from_numpy(np.stack([self.s_0[name][:, -self.H :] for name in self.names])).requires_grad_()
        c_0 = torch.from_numpy(np.stack([self.s_0[name][:, : self.H] for name in self.names])).requires_grad_()
        start = (h_0, c_0) if self.kind == "lstm" else h_0
        if self.lengths is None:
            y, final = self.module(x, start)
        else:
            packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.from_numpy(self.lengths), enforce_sorted=False)
            y, final = self.module(packed, start)
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=self.T)
        (y * torch.from_numpy(self.weight)).sum().backward()
        return y, final, x, h_0, c_0

    def run_gradlab(self):
        def loss(outputs, targets, mask):
            return (outputs * targets).sum(), targets.copy()

        batch = gradlab.Batch(self.x, self.weight, lengths=self.lengths)
        keep = ("states", "adjoints", "input_gradient")
        return gradlab.bptt(self.net, self.params, batch, loss, keep, initial_states=self.s_0)


def relative(ours, theirs):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert theirs.size > 0
    size = np.abs(theirs).max()
    gap = np.abs(ours - theirs).max()
    return gap / size if size else gap


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_outputs_final_states_and_all_gradients_equal_torch(kind, seed):
    pair = Pair(kind, seed)
    y, final, x, h_0, c_0 = pair.run_torch()
    record = pair.run_gradlab()
    assert relative(record.outputs, y) <= BOUND
    assert relative(record.input_gradient, x.grad) <= BOUND
    H = pair.H
    for k, (name, suffix) in enumerate(pair.names.items()):
        layer, module = record.layers[name], pair.module
        h_n = final[0][k] if kind == "lstm" else final[k]
        assert relative(layer.series("states", "h")[-1], h_n) <= BOUND
        assert relative(layer.series("adjoints", "h")[0], h_0.grad[k]) <= BOUND
        if kind == "lstm":
            assert relative(layer.series("states", "c")[-1], final[1][k]) <= BOUND
            assert relative(layer.series("adjoints", "c")[0], c_0.grad[k]) <= BOUND
        for ours, theirs in (("W", "weight_ih"), ("U", "weight_hh"), ("b", "bias_ih")):
            gradient = record.gradients[f"{name}.{ours}"]
            assert relative(gradient, getattr(module, theirs + suffix).grad) <= BOUND, f"{name}.{ours}"
        # A merged bias has the gradient that both of theirs have; the GRU's second candidate bias its own.
        second = record.gradients[f"{name}.b"].copy()
        if kind == "gru":
            second[2 * H :] = record.gradients[f"{name}.b_hn"]
        assert relative(second, getattr(module, "bias_hh" + suffix).grad) <= BOUND, f"{name}, second bias"


def test_the_cases_cover_depth_directions_and_ragged_batches():
    pairs = [Pair(kind, seed) for kind, seed in CASES]
    assert len(pairs) >= 200
    for kind in KINDS:
        own = [pair for pair in pairs if pair.kind == kind]
        assert {pair.layers for pair in own} == {1, 2, 3, 4}
        assert {pair.net.bidirectional for pair in own} == {False, True}
        assert sum(pair.lengths is not None and len(set(pair.lengths)) > 1 for pair in own) >= 10


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
