"""A whole training script, watched with two lines: proved in both precisions, diagnosed, and a chaotic model told apart."""

import numpy as np
import pytest

import gradlab

torch = pytest.importorskip("torch")

from diagnosis import train_characters as script  # noqa: E402  (it needs torch)


def watched(dtype=None, updates=4):
    torch.manual_seed(0)
    model = script.Characters(96, 3)
    if dtype is not None:
        model = model.to(dtype)
    with gradlab.adapters.watch(model, every=2) as seen:
        script.train(model, updates)
    return model, seen


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("float64", 1e-11)])
def test_the_replay_of_a_packed_bidirectional_model_with_dropout_is_proved_by_every_weight_gradient(dtype, limit):
    model, seen = watched(getattr(torch, dtype))
    proof = seen["lstm"].proof
    assert proof.verdict == "proved"
    weights = {name for name, _ in model.lstm.named_parameters()}
    assert weights <= set(proof.deviations)
    assert proof.worst <= limit


def test_training_is_bit_for_bit_what_it_is_without_gradlab():
    torch.manual_seed(0)
    alone = script.Characters(96, 3)
    loss = script.train(alone, 4)
    model, _ = watched()
    for mine, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert np.isfinite(loss)


def test_the_diagnosis_names_the_layers_by_their_paths_and_the_forget_gate_that_is_closed():
    _, seen = watched()
    found = gradlab.diagnose(seen)
    # torch starts forget gates at about 1/2: a gradient halves at each of up to 60 characters.
    places = {str(one.place.layer) for one in found["forget-closed"]}
    assert places == {"lstm.0.forward", "lstm.0.backward", "lstm.1.forward", "lstm.1.backward"}
    assert all(one.place.gate == "f" for one in found["forget-closed"])
    assert not found.assumptions


def test_the_remedy_of_the_diagnosis_makes_its_finding_go_away():
    torch.manual_seed(0)
    model = script.Characters(96, 3)
    with torch.no_grad():
        for name, value in model.lstm.named_parameters():
            if name.startswith("bias_ih"):
                H = model.lstm.hidden_size
                value[H : 2 * H] = float(np.log(60.0))
    with gradlab.adapters.watch(model) as seen:
        script.train(model, 1)
    assert not gradlab.diagnose(seen)["forget-closed"]


def test_a_chaotic_model_is_shown_as_ill_conditioned_and_not_refused():
    torch.manual_seed(0)
    rnn = torch.nn.RNN(3, 64, batch_first=True)
    with torch.no_grad():
        rnn.weight_hh_l0.normal_(0.0, 3.0 / 8.0)  # gain 3: chaos (Sompolinsky, Crisanti & Sommers 1988)
    with gradlab.adapters.watch(rnn) as seen:
        out, _ = rnn(torch.randn(4, 200, 3))
        out[:, -1].pow(2).sum().backward()
    assert seen["model"].proof.verdict == "ill-conditioned"
    found = gradlab.diagnose(seen)
    assert found["sensitive"]
    assert not found.healthy
