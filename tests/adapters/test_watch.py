"""`watch`: what a user's own training script did, replayed and proved, without touching it."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradlab
from gradlab.adapters import watch
from gradlab.analysis import jacobians

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'gradlab[torch]'")
pytestmark = pytest.mark.peer

LIMITS = {torch.float64: 1e-11, torch.float32: 1e-5}


def close(a, b, bound):
    b = b.detach().numpy() if isinstance(b, torch.Tensor) else b
    assert a.shape == b.shape
    assert np.abs(a - b).max(initial=0.0) <= bound * np.abs(b).max(initial=0.0)


def fresh(factory, dtype=torch.float64, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory().to(dtype)


def noise(*shape, seed=1, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


class Reader(torch.nn.Module):
    """A user's character model: embedding, dropout, two bidirectional layers on packed sequences, a linear read-out."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(17, 6)
        self.dropout = torch.nn.Dropout(0.2)
        self.encoder = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(6, 8, 2, bidirectional=True, dropout=0.3, batch_first=True)})
        self.out = torch.nn.Linear(16, 17)

    def forward(self, text, lengths):
        rnn = torch.nn.utils.rnn
        x = self.dropout(self.embedding(text))
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, (h, _) = self.encoder["lstm"](packed)
        y, _ = rnn.pad_packed_sequence(y, batch_first=True)
        return self.out(y), h


TEXT = torch.from_numpy(np.random.default_rng(3).integers(0, 17, (4, 12)))
LENGTHS = torch.tensor([12, 4, 9, 1])


def read(model):
    y, h = model(TEXT, LENGTHS)
    return torch.nn.functional.cross_entropy(y.flatten(0, 1), TEXT.flatten()) + h.pow(2).mean()


def train(model, updates=3):
    """The user's script, clipping included; what it computed."""
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    seen = []
    for _ in range(updates):
        optimiser.zero_grad()
        loss = read(model)
        loss.backward()
        seen += [loss.detach().clone(), *(p.grad.clone() for p in model.parameters())]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimiser.step()
    return [*seen, *(p.detach().clone() for p in model.parameters()), torch.get_rng_state()]


@st.composite
def cases(draw):
    kind = draw(st.sampled_from(["tanh", "relu", "LSTM", "GRU"]))
    form = draw(st.sampled_from(["padded", "packed", "sorted", "single"]))
    return {
        "kind": kind,
        "form": form,
        "layers": draw(st.integers(1, 3)),
        "both": draw(st.booleans()),
        "batch_first": draw(st.booleans()) if form != "single" else False,
        "bias": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.4, 1.0])),
        "states": draw(st.booleans()),
        "reads": draw(st.sampled_from(["outputs", "final", "both"])),
        "dtype": draw(st.sampled_from([torch.float64, torch.float32])),
        "T": draw(st.integers(1, 6)),
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=80)
@given(case=cases())
def test_every_layer_in_every_form_is_proved_and_its_input_and_state_gradients_are_torchs(case):
    dtype, kind, T = case["dtype"], case["kind"], case["T"]
    B = 1 if case["form"] == "single" else 3
    options = {"nonlinearity": kind} if kind in ("tanh", "relu") else {}
    with torch.random.fork_rng():
        torch.manual_seed(case["seed"])
        module = getattr(torch.nn, "RNN" if options else kind)(
            2,
            3,
            case["layers"],
            bias=case["bias"],
            bidirectional=case["both"],
            batch_first=case["batch_first"],
            dropout=case["dropout"] if case["layers"] > 1 else 0.0,
            **options,
        ).to(dtype)
        x = noise(T, B, 2, seed=case["seed"], dtype=dtype).requires_grad_()
        rows = case["layers"] * (1 + case["both"])
        h, c = (noise(rows, B, 3, seed=k, dtype=dtype).requires_grad_() for k in (7, 8))
        read, rnn = x.transpose(0, 1) if case["batch_first"] else x, torch.nn.utils.rnn
        start = h
        lengths = torch.tensor([T, T, 1]) if case["form"] == "sorted" else torch.tensor([1, T, (T + 1) // 2])
        if case["form"] in ("packed", "sorted"):
            read = rnn.pack_padded_sequence(read, lengths, case["batch_first"], enforce_sorted=case["form"] == "sorted")
        elif case["form"] == "single":
            read, start = read[:, 0], h[:, 0]
        start = (start, c if start is h else c[:, 0]) if kind == "LSTM" else start
        with watch(module, keep=("states", "adjoints", "input_gradient")) as seen:
            y, final = module(read, start) if case["states"] else module(read)
            y = y.data if isinstance(y, rnn.PackedSequence) else y
            final = final if kind == "LSTM" else (final,)
            loss = 0.0 * y.sum()
            if case["reads"] != "final":
                loss = loss + y.sin().sum()
            if case["reads"] != "outputs":
                loss = loss + sum((part**2).sum() for part in final)
            loss.backward()
    (one,) = seen.results
    assert one.proof.verdict == "proved", one
    assert one.proof.worst <= LIMITS[dtype]
    assert not one.proof.unproved
    assert set(one.proof.deviations) >= {name for name, _ in module.named_parameters()}
    bound = 100 * LIMITS[dtype]  # of all entries together, not of a sum over steps: single entries may cancel
    close(one.record.input_gradient, x.grad, bound)
    if case["states"]:
        for k, layer in enumerate(one.record.layers.values()):
            close(layer.series("adjoints", "h")[0], h.grad[k], bound)
            if kind == "LSTM":
                close(layer.series("adjoints", "c")[0], c.grad[k], bound)


@pytest.mark.parametrize("dtype", LIMITS)
def test_a_larger_model_is_proved_in_two_added_lines_before_clipping(dtype):
    model = fresh(Reader, dtype)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        with watch(model, history=9) as seen:
            train(model)
    assert [look[0].update for look in seen.looks] == [0, 1, 2]
    for look in seen.looks:
        (one,) = look
        assert one.name == "encoder.lstm"
        assert one.proof.verdict == "proved"
        assert one.proof.worst <= LIMITS[dtype]
        assert len(one.proof.deviations) == 3 + 16
    record = one.record
    assert list(record.layers) == ["0.forward", "0.backward", "1.forward", "1.backward"]
    np.testing.assert_array_equal(record.lengths, LENGTHS)
    assert record.provenance["mode"] == "train"
    assert np.isnan(record.loss)
    assert record.status.ok
    assert "proved (largest deviation" in str(seen)
    for name, layer in record.layers.items():  # the streamed Jacobians are those of the dropped-out pass: they carry the adjoints
        for t, J in enumerate(one.jacobians(name), start=1):
            alive = record.lengths >= t
            carried = np.einsum("bij,bi->bj", J, layer.adjoints[t]) + layer.immediate[t - 1]
            assert np.abs(carried - layer.adjoints[t - 1])[alive].max() <= LIMITS[dtype] * np.abs(layer.adjoints).max()


@pytest.mark.parametrize("every", [1, 2])
def test_the_script_computes_the_same_bits_and_draws_the_same_numbers_with_and_without(every):
    runs = []
    for watched in (False, True):
        model = fresh(Reader, torch.float32)
        with torch.random.fork_rng():
            torch.manual_seed(11)
            if watched:
                with watch(model, every=every) as seen:
                    runs.append(train(model, 4))
            else:
                runs.append(train(model, 4))
    assert seen.updates == 4
    assert seen.results
    assert len(runs[0]) == len(runs[1])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def hooks(model):
    modules = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return modules + sum(len(p._backward_hooks or ()) for p in model.parameters())


def test_all_hooks_are_gone_after_the_block_also_when_it_raises():
    model = fresh(Reader)
    with watch(model, every=3):
        train(model, 2)
        assert hooks(model)
    assert hooks(model) == 0

    def fail():
        with watch(model):
            read(model).backward()
            raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        fail()
    assert hooks(model) == 0
    loss = read(model)
    with watch(model):
        later = read(model)
    (loss + later).backward()  # a graph made inside, used outside: nothing left in it looks


def test_between_looks_no_module_has_a_hook_and_every_nth_backward_pass_is_looked_at():
    model = fresh(Reader)
    with watch(model, every=3, history=9) as seen:
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        for update in range(7):
            captured = any(m._forward_hooks for m in model.modules())
            assert captured is (update % 3 == 0)
            optimiser.zero_grad()
            read(model).backward()
            optimiser.step()
    assert [look[0].update for look in seen.looks] == [0, 3, 6]
    assert seen.updates == 7
    assert all(one.proof.verdict == "proved" for look in seen.looks for one in look)


def test_a_graph_that_is_dropped_takes_what_was_captured_with_it():
    model = fresh(Reader)
    with watch(model) as seen:
        kept = []
        for _ in range(3):
            loss = read(model)
            kept.append(weakref.ref(seen._tracker._made[-1][1]()))
            del loss
        gc.collect()
        assert [call() for call in kept] == [None] * 3
    assert seen.notes == ("encoder.lstm: no gradient arrived: its outputs were detached, or no loss was made of them (3 calls)",)


class Twice(torch.nn.Module):
    def __init__(self, kind="GRU"):
        super().__init__()
        self.rnn = getattr(torch.nn, kind)(3, 4)

    def forward(self, x):
        y, h = self.rnn(x)
        z, _ = self.rnn(x.flip(0), h)
        return y, z


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_module_called_twice_gives_a_record_for_each_call_and_the_sum_is_proved(kind):
    model = fresh(lambda: Twice(kind))
    with watch(model) as seen:
        y, z = model(noise(5, 2, 3))
        (y.sin().sum() + z.pow(2).sum()).backward()
    first, second = seen.results
    assert (first.call, second.call) == (0, 1)
    for one in seen.results:
        assert one.proof.verdict == "proved"
    total = first.record.gradients["0.W"] + second.record.gradients["0.W"]
    close(total, model.rnn.weight_ih_l0.grad, 1e-11)
    assert np.abs(first.record.gradients["0.W"] - total).max() > 0.01 * np.abs(total).max()
    assert seen["rnn"] is second


def test_accumulated_backward_passes_are_looked_at_one_by_one():
    model = fresh(Twice)
    with watch(model, history=5) as seen:
        losses = [sum(part.sin().sum() for part in model(noise(5, 2, 3, seed=k))) for k in range(3)]  # three forwards first
        grads = []
        for loss in losses:
            loss.backward()
            grads.append(model.rnn.weight_hh_l0.grad.clone())
    assert len(seen.looks) == 3
    for k, look in enumerate(seen.looks):
        assert [one.proof.verdict for one in look] == ["proved", "proved"]
        own = grads[k] - (grads[k - 1] if k else 0.0)
        close(sum(one.record.gradients["0.U"] for one in look), own, 1e-11)


def test_two_backward_passes_through_one_graph_are_two_looks():
    model = fresh(Twice)
    with watch(model, history=5) as seen:
        y, z = model(noise(5, 2, 3))
        y.sum().backward(retain_graph=True)
        z.sum().backward()
    first, second = seen.looks
    assert len(first) == 1  # the second call is no part of y
    assert len(second) == 2
    assert {one.proof.verdict for look in seen.looks for one in look} == {"proved"}


@pytest.mark.parametrize("told", [1024.0, lambda: 1024.0])
def test_loss_scaling_is_divided_out(told):
    plain, scaled = fresh(Twice), fresh(Twice)
    records = []
    for model, factor, option in ((plain, 1.0, 1.0), (scaled, 1024.0, told)):
        with watch(model, loss_scale=option, keep=("input_gradient",)) as seen:
            (factor * sum(part.sin().sum() for part in model(noise(5, 2, 3)))).backward()
        records.append(seen.results[0].record)
    a, b = records
    for x, y in (
        (a.gradients["0.U"], b.gradients["0.U"]),
        (a.layers["0"].adjoints, b.layers["0"].adjoints),
        (a.layers["0"].immediate, b.layers["0"].immediate),
        (a.layers["0"].states, b.layers["0"].states),
        (a.input_gradient, b.input_gradient),
    ):
        np.testing.assert_array_equal(x, y)  # a power of two


def test_gradients_are_taken_before_the_users_own_hooks_clip_them():
    model = fresh(Twice)
    for p in model.parameters():
        p.register_hook(lambda g: g.clamp(-1e-3, 1e-3))
    with watch(model) as seen:
        y, _ = model(noise(5, 2, 3))
        y.register_hook(lambda g: g.clamp(-0.5, 0.5))  # this one does reach the layer
        y.sum().backward()
    assert seen["rnn"].proof.verdict == "proved"
    assert np.abs(seen["rnn"].record.gradients["0.W"]).max() > 1e-3
    assert model.rnn.weight_ih_l0.grad.abs().max() <= 1e-3


def test_frozen_weights_are_unproved_and_the_rest_is_proved():
    model = fresh(lambda: Twice("LSTM"))
    model.rnn.weight_hh_l0.requires_grad_(False)
    with watch(model) as seen:
        model(noise(5, 2, 3))[0].sum().backward()
    proof = seen["rnn"].proof
    assert proof.verdict == "proved"
    assert dict(proof.unproved) == {"weight_hh_l0": "frozen"}
    model.requires_grad_(False)
    with watch(model) as seen:
        model(noise(5, 2, 3).requires_grad_())[0].sum().backward()
    assert seen["rnn"].proof.verdict == "unproved"
    assert set(seen["rnn"].proof.deviations) == {"outputs", "h_n", "c_n"}


def test_frozen_recurrent_layers_in_a_model_that_trains_are_counted_by_its_other_weights():
    model = fresh(Reader)
    model.encoder.requires_grad_(False)
    with watch(model, every=2, history=5) as seen:
        for _ in range(3):
            read(model).backward()
    assert [look[0].update for look in seen.looks] == [0, 2]


def test_weights_no_gradient_was_asked_for_are_unproved():
    model = fresh(Twice)
    x = noise(5, 2, 3).requires_grad_()
    with watch(model) as seen:
        torch.autograd.grad(model(x)[0].sum(), x)
    assert set(seen["rnn"].proof.unproved.values()) == {"no gradient was asked for"}
    assert seen["rnn"].proof.verdict == "unproved"


@pytest.mark.parametrize("share", [("weight_hh_l0",), ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")])
def test_an_l2_penalty_in_the_loss_is_told_from_the_layers_gradient(share):
    model = fresh(Twice)
    with watch(model) as seen:
        penalty = sum(getattr(model.rnn, name).pow(2).sum() for name in share)
        (model(noise(5, 2, 3))[0].sum() + 0.05 * penalty).backward()
    proof = seen["rnn"].proof
    assert proof.verdict == "proved"
    assert set(proof.penalties) == set(share)
    assert all(abs(k - 0.1) <= 1e-11 for k in proof.penalties.values())
    assert "0.1 times the weight: an L2 penalty" in str(proof)


def test_a_weight_with_another_use_is_unproved_where_its_layers_other_gradients_agree():
    model = fresh(Twice)
    with watch(model) as seen:
        U = model.rnn.weight_hh_l0
        (model(noise(5, 2, 3))[0].sum() + (U.T @ U).pow(2).sum()).backward()
    proof = seen["rnn"].proof
    assert proof.verdict == "proved"
    assert "another use of the weight" in proof.unproved["weight_hh_l0"]
    assert "weight_hh_l0" not in proof.deviations


def test_calls_that_no_gradient_reaches_are_said():
    model = fresh(Twice)
    with watch(model) as seen:
        with torch.no_grad():
            model(noise(5, 2, 3))
        y, z = model(noise(5, 2, 3))
        del z
        y.sum().backward()
    assert len(seen.results) == 1
    said = " ".join(seen.notes)
    assert "rnn: no gradient can arrive: torch.no_grad" in said
    assert "(2 calls)" in said
    assert "rnn: no gradient arrived: its outputs were detached" in said
    with pytest.raises(gradlab.GradlabError, match="nothing was seen of 'decoder'"):
        _ = seen["decoder"]


def test_outputs_changed_in_place_are_followed_where_autograd_does_and_said_where_it_hides_them():
    for kind, batch_first, sees in (("GRU", False, True), ("GRU", True, True), ("LSTM", True, False)):  # the last is a view
        with torch.random.fork_rng():
            module = getattr(torch.nn, kind)(3, 4, batch_first=batch_first).double()
        with watch(module) as seen:
            y, _ = module(noise(5, 2, 3))
            y.mul_(2.0)
            y.pow(2).sum().backward()
        assert [one.proof.verdict for one in seen.results] == ["proved"] * sees
        assert any("changed in place" in note for note in seen.notes) is not sees


def test_evaluation_mode_draws_no_masks_and_is_proved():
    model = fresh(Reader).eval()
    with watch(model) as seen:
        read(model).backward()
    one = seen["encoder.lstm"]
    assert one.proof.verdict == "proved"
    assert one.record.provenance["mode"] == "eval"
    for _, J in zip(range(2), jacobians(one.net, one.params, one.record, "1.backward"), strict=False):
        assert J.shape == (4, 16, 16)


def test_weights_are_taken_as_they_were_whatever_changes_them_and_when():
    model, other = fresh(Twice), fresh(Twice, seed=1)
    with watch(model, history=5) as seen:
        model(noise(5, 2, 3))  # no loss of it
        model.load_state_dict(other.state_dict())
        for _ in range(3):
            model.zero_grad()
            model(noise(5, 2, 3))[0].sum().backward()
            for p in model.parameters():
                p.data -= 0.1 * p.grad  # past autograd's count of versions
    assert [one.proof.verdict for look in seen.looks for one in look] == ["proved"] * 3


def test_an_input_that_is_not_finite_is_a_note_and_not_an_error():
    model = fresh(Twice)
    x = noise(5, 2, 3)
    x[3, 1, 0] = np.nan
    with watch(model) as seen:
        model(x)[0].sum().backward()
    assert seen.results == ()
    assert any("index (3, 1, 0)" in note for note in seen.notes)


def test_a_forward_pass_that_overflows_gives_a_record_that_says_where():
    module = torch.nn.RNN(3, 4, nonlinearity="relu")
    with torch.no_grad():
        module.weight_hh_l0.copy_(1e6 * torch.eye(4))
    with watch(module) as seen:
        module(noise(20, 2, 3, dtype=torch.float32))[0].sum().backward()
    one = seen["model"]
    assert one.proof.verdict == "unproved"
    assert one.record.status.code == "overflow"
    assert "from t = " in one.record.status.detail


class Memo:
    """A monitor that insists, as bounded ones do, on the same names and shapes in every row."""

    def __init__(self):
        self.rows = []

    def record(self, update, **measured):
        assert "loss" not in measured  # nobody knows it
        flat = {f"{k}/{n}": np.asarray(v) for k, row in measured.items() if isinstance(row, dict) for n, v in row.items()}
        flat |= {k: np.asarray(v) for k, v in measured.items() if not isinstance(v, dict)}
        if self.rows:
            assert {k: v.shape for k, v in flat.items()} == {k: v.shape for k, v in self.rows[0][1].items()}
        self.rows.append((update, flat))


def test_a_monitor_is_fed_rows_of_one_form_whatever_the_length_of_the_batch():
    model, memo = fresh(Twice), Memo()
    with watch(model, every=2, monitor=memo) as seen:
        for T in (6, 1, 4, 1, 9):
            y, _ = model(noise(T, 2, 3))
            y[-1].sum().backward()
    assert [update for update, _ in memo.rows] == [0, 2, 4]
    norms = [row["adjoint_norms/rnn.0"] for _, row in memo.rows]
    assert [len(n) for n in norms] == [7, 7, 7]
    assert np.isnan(norms[1][:2]).all()
    assert np.isfinite(norms[1][2:]).all()
    last = seen["rnn"].record.layers["0"].adjoints
    # the row's last entry is T, whatever T is: rms over the two rows, against plain arithmetic
    expected = np.sqrt((last[-1] ** 2).sum(-1).mean())
    assert abs(norms[2][-1] - expected) <= 1e-12 * expected
    row = memo.rows[0][1]
    assert 0.0 <= row["saturated/rnn.0/z"] <= 1.0
    assert row["gradients/rnn.0.U"].shape == (12, 4)
