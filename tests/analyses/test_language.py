"""Real text: every word of the verdict from numbers that are known, the table of pairs against plain counting, equal nets."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from analyses import _members, _text_measures, language
from gradlab import plotting
from gradlab.tasks import characters, python_syntax

CLASSES = len(python_syntax.CLASSES)


def confusion(shares):
    """Of each seed 7000 characters, 1000 of a class, this share of each class right, the rest taken for the next class."""
    taken = np.zeros((len(shares), CLASSES, CLASSES), int)
    for k, share in enumerate(shares):
        for true in range(CLASSES):
            taken[k, true, true] = round(1000 * share)
            taken[k, true, (true + 1) % CLASSES] += 1000 - round(1000 * share)
    return taken


def planted(nats, one, two):
    """Arrays of a run with these cross-entropies of characters and these shares of labels that are right, one a seed."""
    updates = np.array([50, 100])
    return {
        "text_sha256": np.frombuffer(b"a" * 64, np.uint8),
        "source_sha256": np.frombuffer(b"b" * 64, np.uint8),
        "characters_updates": updates,
        "characters_curve": np.stack([np.full(len(nats), 3.0), np.array(nats)]),
        "characters_nats": np.array(nats),
        "characters_parameters": np.array(47000),
        "characters_baseline": np.array(3.236),
        "bigram_add_one": np.array(2.322),
        "bigram_costs": np.linspace(2.3, 2.4, len(language.SMOOTHINGS)),
        "zero_characters": np.array(math.log(97.0)),
        "zero_syntax": np.array(math.log(7.0)),
        "entropy_difference": np.array(2.4768),
        "own_bigram": np.array(2.4768),
        "majority": np.array(0.25),
        "memoryless_majority": np.array(0.63),
        "memoryless_nats": np.array(0.94),
        "share_nats": np.array(1.65),
        **{
            f"{direction}_{name}": value
            for direction, shares in (("one", one), ("two", two))
            for name, value in (
                ("updates", updates),
                ("curve", np.stack([np.full(len(shares), 1.0), 1.0 - np.array(shares)]) + 0.01),
                ("nats", 1.01 - np.array(shares)),
                ("taken", confusion(shares)),
                ("parameters", np.array(41900)),
            )
        },
    }


@pytest.mark.parametrize(
    ("nats", "one", "two", "word", "told"),
    [
        ((1.9, 2.0), (0.95, 0.96), (0.97, 0.98), "confirmed", "two ahead in 2 of 2 seeds"),
        (
            (2.31, 2.32),
            (0.95, 0.96),
            (0.97, 0.98),
            "contradicted",
            "in no seed beaten: the bigram",
        ),  # below add-one, not the best
        ((1.9, 2.31), (0.95, 0.96), (0.97, 0.98), "inconclusive", "not beaten in every seed: the bigram"),
        ((1.9, 2.0), (0.97, 0.98), (0.95, 0.96), "contradicted", "in no seed beaten: one direction"),
        ((1.9, 2.0), (0.95, 0.98), (0.97, 0.97), "inconclusive", "two ahead in 1 of 2 seeds"),
        ((1.9, 2.0), (0.10, 0.20), (0.97, 0.98), "contradicted", "in no seed beaten: the majority class"),
        ((1.9, 2.0), (0.10, 0.95), (0.97, 0.98), "inconclusive", "not beaten in every seed: the majority class"),
    ],
)
def test_the_verdict_follows_the_numbers(nats, one, two, word, told):
    verdict = language.check(planted(nats, one, two))
    assert verdict.word == word
    assert told in verdict.sentence
    assert verdict.broken == ()
    assert verdict.numbers["syntax: two directions, worst seed"] == pytest.approx(min(two), rel=1e-12)
    assert verdict.numbers["next character: LSTM, median, bits"] == pytest.approx(np.median(nats) / math.log(2.0), rel=1e-12)
    assert all(math.isfinite(value) for value in verdict.numbers.values() if not isinstance(value, str))


@pytest.mark.parametrize("name", ["zero_characters", "zero_syntax", "own_bigram"])
@pytest.mark.parametrize("error", [1e-8, math.nan])
def test_a_planted_wrong_number_breaks_its_ground_truth(name, error):
    result = planted((1.9, 2.0), (0.95, 0.96), (0.97, 0.98))
    result[name] = result[name] + error
    assert len(language.check(result).broken) == 1


def test_the_exact_facts_are_measured_right():
    training = characters.load().training[:50000]
    found = _text_measures.identities(training)
    # 1e-13: a few roundings
    assert found["zero_characters"] == pytest.approx(math.log(97.0), rel=1e-13)
    assert found["zero_syntax"] == pytest.approx(math.log(7.0), rel=1e-13)
    symbols = training.tolist()
    pairs, first = Counter(pairwise(symbols)), Counter(symbols[:-1])
    plain = -math.fsum(n * math.log(n / first[a]) for (a, _), n in pairs.items()) / (len(symbols) - 1)
    # 1e-11: sums of many terms in another order
    assert found["own_bigram"] == pytest.approx(plain, rel=1e-11)
    assert found["entropy_difference"] == pytest.approx(plain, rel=1e-11)


def test_the_bigram_with_one_added_on_all_positions_is_the_tasks_own_baseline():
    text = characters.load()
    every = _text_measures.tiled(text.validation[:-1], text.validation[1:], 1)
    assert every[0].shape == (1, len(text.validation) - 1)
    # 1e-12: sums in another order
    assert _text_measures.bigram(text.training, *every, 1.0) == pytest.approx(text.bigram_baseline, rel=1e-12)


def test_no_other_smoothing_of_the_grid_suits_the_held_out_text_better_and_the_best_is_inside_it():
    text = characters.load()
    held_out = _text_measures.tiled(text.validation[:-1], text.validation[1:], 200)
    costs = [_text_measures.bigram(text.training, *held_out, smoothing) for smoothing in language.SMOOTHINGS[::8]]
    best = int(np.argmin(costs))
    assert 0 < best < len(costs) - 1
    assert costs[best] < _text_measures.bigram(text.training, *held_out, 1.0)


def test_windows_hold_every_position_once_and_each_with_its_successor():
    text = np.arange(23)
    inputs, targets = _text_measures.tiled(text[:-1], text[1:], 5)
    assert inputs.shape == (5, 4)
    np.testing.assert_array_equal(np.sort(inputs.ravel()), np.arange(20))
    np.testing.assert_array_equal(targets, inputs + 1)
    np.testing.assert_array_equal(inputs[:, 1], [5, 6, 7, 8, 9])


def test_cross_entropy_and_confusions_are_those_of_a_plain_loop():
    rng = np.random.default_rng(4)
    net = _text_measures.syntax_net("two", 3)
    params = _members.initial(net, _members.seeds_of(np.random.default_rng(np.random.SeedSequence(1)), 2), 1, np.float64)
    params["readout.V"] = 5.0 * params["readout.V"]
    text, targets = rng.integers(0, 97, (6, 120)), rng.integers(0, CLASSES, (6, 120))  # more than two forward passes
    nats, taken = _text_measures.measured(net, params, text, targets, CLASSES)
    assert nats.shape == (1, 2)
    assert taken.shape == (1, 2, CLASSES, CLASSES)
    outputs = language.gradlab.forward(net, params, characters.one_hot(text)).outputs  # (T, 1, 2, B, p)
    for seed in range(2):
        own = outputs[:, 0, seed]
        cost = [math.log(sum(math.exp(v) for v in own[t, b])) - own[t, b, targets[t, b]] for t in range(6) for b in range(120)]
        counted = np.zeros((CLASSES, CLASSES), int)
        for t in range(6):
            for b in range(120):
                counted[targets[t, b], own[t, b].argmax()] += 1
        assert nats[0, seed] == pytest.approx(math.fsum(cost) / 720, rel=1e-12)  # sums in another order
        np.testing.assert_array_equal(taken[0, seed], counted)


@pytest.mark.parametrize(("scale", "gap"), [("full", 0.002), ("quick", 0.02)])
def test_one_and_two_directions_have_as_many_parameters(scale, gap):
    sizes = language.PARAMETERS[scale]["syntax"]["hidden_size"]
    one, two = (_members.parameter_count(_text_measures.syntax_net(name, sizes[name])) for name in language.DIRECTIONS)
    assert abs(one - two) < gap * one
    if scale == "full":
        assert (one, two) == (41927, 41883)


@pytest.fixture
def tiny(monkeypatch):
    p = language.PARAMETERS["quick"]
    small = {"updates": 4, "batch": 2, "length": 6}
    monkeypatch.setitem(
        language.PARAMETERS,
        "quick",
        {
            **p,
            "characters": {**p["characters"], **small, "hidden_size": 4},
            "syntax": {**p["syntax"], **small, "hidden_size": {"one": 5, "two": 3}},
            "shown_every": 2,
            "held_out_window": 100,
        },
    )
    text, source = characters.load(), python_syntax.load()
    few = replace(text, training=text.training[:20000], validation=text.validation[:3000])
    monkeypatch.setattr(characters, "load", lambda: few)
    cut = {
        f"{split}{what}": getattr(source, f"{split}{what}")[:number]
        for split, number in (("training", 20000), ("validation", 3000))
        for what in ("", "_classes")
    }
    fewer = replace(source, **cut)
    monkeypatch.setattr(python_syntax, "load", lambda: fewer)


def computed(seed=1):
    return language.compute(np.random.default_rng(np.random.SeedSequence(seed)), "quick")


def test_a_small_run_has_every_array_and_holds_its_ground_truths(tiny):
    calls = []
    result = language.compute(
        np.random.default_rng(np.random.SeedSequence(1)), "quick", lambda done, total: calls.append(done / total)
    )
    verdict = language.check(result)
    assert verdict.broken == ()
    assert verdict.numbers["text SHA-256"] == characters.load().sha256
    assert result["characters_curve"].shape == (2, 2)
    assert result["two_taken"].shape == (2, CLASSES, CLASSES)
    assert (result["one_taken"].sum(axis=(1, 2)) == 3000).all()
    # four updates: still near a guess over 97 symbols
    np.testing.assert_allclose(result["characters_nats"], math.log(97.0), atol=0.7)
    assert calls == sorted(calls)
    assert calls[-1] >= 0.99


def test_the_same_seed_gives_the_same_arrays_and_another_one_others(tiny):
    one, same, other = computed(), computed(), computed(2)
    assert [name for name in one if not np.array_equal(one[name], same[name])] == []
    assert not np.array_equal(one["two_curve"], other["two_curve"])
    assert np.array_equal(one["bigram_costs"], other["bigram_costs"])  # a fact of the text


def test_measuring_on_the_way_decides_nothing(tiny, monkeypatch):
    before = computed()
    monkeypatch.setattr(language.Curve, "record", lambda self, update, **measured: self.values.append(np.zeros((1, 2))))
    after = computed()
    np.testing.assert_array_equal(before["characters_nats"], after["characters_nats"])
    np.testing.assert_array_equal(before["two_taken"], after["two_taken"])


def test_the_figure_shows_nets_and_baselines():
    with plotting.style():
        figure = language.draw(planted((1.9, 2.0), (0.95, 0.96), (0.97, 0.98)))
    assert isinstance(figure, Figure)
    left, right, bars, classes = figure.axes
    told = [text.get_text() for text in left.get_legend().get_texts()]
    assert "bigram, best smoothing, 2.300" in told
    assert "bigram, one added, 2.322" in told
    assert {2.3, 2.322, 3.236} <= {float(line.get_ydata()[0]) for line in left.lines}
    assert len(right.get_legend().get_texts()) == 4
    wrong = [line.get_ydata() for line in bars.lines if line.get_marker() in ("o", "s")]
    np.testing.assert_allclose(wrong, [[5.0, 4.0], [3.0, 2.0]], rtol=1e-9)
    assert [label.get_text() for label in classes.get_xticklabels()] == list(python_syntax.CLASSES)
