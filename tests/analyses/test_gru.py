"""The GRU against the LSTM: exact counts, also PyTorch's and Keras' own, and every word of the verdict from known numbers."""

import math

import numpy as np
import pytest
from runs import quick

import gradlab
from analyses import _gru_verdict as verdict
from analyses import _members, _trials, gru

STEM = "gru"


def test_every_ground_truth_holds_and_a_third_is_contradicted():
    found = gru.check(quick.result(STEM))
    assert not found.broken
    assert found.word == "contradicted"
    assert found.numbers["word for: a GRU saves a third of the parameters"] == "contradicted"
    assert found.numbers["word for: a GRU is an LSTM with linked input and forget gates"] == "depends"
    assert "a quarter exactly under 3 of 4" in found.sentence
    assert all(math.isfinite(value) for value in found.numbers.values() if isinstance(value, float))


def test_the_saving_is_a_quarter_at_every_size_unless_the_gru_alone_has_two_biases():
    found = gru.counts([1, 3], [1, 7, 30])
    lstm, own = np.moveaxis(found, -1, 0)
    for k, (name, pair) in enumerate(gru.CONVENTIONS.items()):
        if pair[0] == pair[1]:
            np.testing.assert_array_equal(4 * own[k], 3 * lstm[k], err_msg=name)
        else:  # 3(m + n + 2) n against 4(m + n + 1) n
            m, n = np.array([[1], [3]]), np.array([1, 7, 30])
            np.testing.assert_array_equal(own[k] * 4 * (m + n + 1), lstm[k] * 3 * (m + n + 2))


@pytest.mark.peer
@pytest.mark.parametrize(("m", "n"), [(2, 100), (5, 3)])
def test_pytorch_s_own_layers_have_as_many_parameters(m, n):
    torch = pytest.importorskip("torch", reason="needs torch")
    lstm, own = gru.counts([m], [n])[list(gru.CONVENTIONS).index("two biases (PyTorch)"), 0, 0]
    for layer, count in ((torch.nn.LSTM(m, n), lstm), (torch.nn.GRU(m, n), own)):
        assert sum(value.numel() for value in layer.parameters()) == count


def test_a_wrong_count_breaks_a_ground_truth():
    result = quick.result(STEM)
    result["published counts"][0, 1] += 1
    assert len(gru.check(result).broken) == 1


@pytest.mark.parametrize(("name", "value"), [("linked LSTM gap", 1e-9), ("GRU residual", 1e-9), ("LSTM residual", math.nan)])
def test_a_memory_that_is_not_made_as_the_equation_says_breaks_a_ground_truth(name, value):
    assert len(gru.check(quick.with_arrays(STEM, **{name: value})).broken) == 1


def test_an_lstm_whose_gates_are_free_is_told_from_linked_ones():
    found = gru.structure(np.random.default_rng(np.random.SeedSequence(3)), 5)
    assert found["LSTM gap"] > 0.1
    assert found["linked LSTM gap"] < 1e-15  # two roundings
    assert [int(found[f"{name} rank"]) for name in ("LSTM", "linked LSTM", "GRU")] == [10, 10, 5]
    assert [int(found[f"{name} gates"]) for name in ("LSTM", "linked LSTM", "GRU")] == [3, 2, 2]


@pytest.mark.parametrize(
    ("arrays", "word"),
    [({}, "depends"), ({"GRU rank": 26}, "confirmed"), ({"GRU residual": 0.1}, "contradicted")],
)
def test_the_word_for_the_kind_follows_the_state_and_the_weights(arrays, word):
    assert verdict.kind(quick.with_arrays(STEM, **arrays))[0].word == word


@pytest.mark.parametrize(
    ("own", "word"), [([[200, 200]], "confirmed"), ([[200, 225]], "depends"), ([[225, 224]], "contradicted")]
)
def test_the_word_for_the_saving_follows_the_integers(own, word):
    counts = np.stack([np.full((4, 1, 2), 300), np.broadcast_to(own, (4, 1, 2))], axis=-1)
    assert verdict.saving(quick.with_arrays(STEM, counts=counts))[0].word == word


def planted(wrong):
    """A result in which nets have these shares wrong in every seed: GRU, LSTM at bias 0 and at 1, of each task."""
    result = quick.result(STEM)
    rates = len(result["learning rates"])
    for task, (own, zero, one) in zip(gru.TASKS, wrong, strict=True):
        for name in ("test", "validation"):
            result[f"{task} GRU {name}"] = np.full_like(result[f"{task} GRU {name}"], own)
            result[f"{task} LSTM {name}"][..., :rates, :] = zero
            result[f"{task} LSTM {name}"][..., rates:, :] = one
    return result


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (((0.0, 0.0, 0.04), (0.1, 0.1, 0.1)), "confirmed"),  # within 5 points
        (((0.0, 0.5, 0.0), (0.1, 0.1, 0.1)), "depends"),  # the forget bias decides
        (((0.5, 0.0, 0.0), (0.0, 0.5, 0.5)), "depends"),  # the task does
        (((0.5, 0.0, 0.0), (0.5, 0.0, 0.0)), "contradicted"),
        (((0.0, 0.5, 0.5), (0.0, 0.5, 0.5)), "contradicted"),  # better is not about as well either
    ],
)
def test_the_word_for_doing_as_well_follows_the_paired_shares(wrong, word):
    assert verdict.doing(planted(wrong))[0].word == word


def test_seeds_that_disagree_leave_it_open():
    result = planted(((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)))
    result["adding GRU test"][...] = np.resize([0.0, 0.5], result["adding GRU test"].shape)
    assert verdict.doing(result)[0].word == "inconclusive"


def test_the_bias_has_settings_of_its_own_and_validation_chooses_among_them():
    result = planted(((0.0, 0.3, 0.2), (0.0, 0.3, 0.2)))
    assert gru.right(result, "adding", "LSTM 0").tolist() == pytest.approx([0.7] * 6)
    assert gru.right(result, "adding", "LSTM 1").tolist() == pytest.approx([0.8] * 6)


def test_the_gru_s_size_gives_it_about_as_many_parameters():
    for scale in ("full", "quick"):
        for task in gru.TASKS.values():
            lstm = _members.parameter_count(_trials.network(gradlab.LSTM(), task, gru.PARAMETERS[scale]["units"]))
            size = _trials.nearest_size(gradlab.GRU(), task, lstm)
            assert abs(_members.parameter_count(_trials.network(gradlab.GRU(), task, size)) / lstm - 1.0) < 0.03
    assert gru.PARAMETERS["full"]["seeds"] >= 9
