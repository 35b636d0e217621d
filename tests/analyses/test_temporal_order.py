"""Temporal order: every word of the verdict from counts that are known, exact losses, and ways of training that differ alone."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from analyses import _members, _temporal_order_figure, temporal_order
from gradlab import plotting

RATES, SEEDS = (0.03, 0.1), 10
WAYS = tuple(temporal_order.WAYS)


def planted(counts, at_other_rate=(0, 0, 0, 0)):
    """Arrays of a run in which so many seeds succeed, way by way, at the second rate and at the first."""
    result = {
        "learning_rates": np.array(RATES),
        "length": np.array(50),
        "updates": np.array(400),
        "window": np.array(100),
        "goal": np.array(0.01),
        "clip_norm": np.array(1.0),
        "zero_loss": np.array(math.log(4.0)),
        "scalar_omega": np.array(0.0441),
    }
    for way, *won in zip(WAYS, at_other_rate, counts, strict=True):
        wrong = np.full((2, SEEDS), 0.5)
        for k in range(2):
            wrong[k, : won[k]] = 0.001
        loss = np.linspace(1.4, 0.1 + wrong, 4)  # (windows, rate, seed)
        loss[3][wrong < 0.01] = np.nan  # who succeeds stops
        result |= {
            f"{way}_loss": loss,
            f"{way}_gradient_norm": 3.0 * loss,
            f"{way}_share_clipped": np.full((2, SEEDS), 0.25),
            f"{way}_validation_updates": np.array([200, 400]),
            f"{way}_validation": np.stack([np.full_like(wrong, 0.7), wrong]),
            f"{way}_test": 1.1 * wrong,
            f"{way}_not_finite": np.array(0),
        }
    return result


@pytest.mark.parametrize(
    ("counts", "word", "told"),
    [
        ((0, 5, 10, 3), "confirmed", ""),  # 0 against 5 of 10: p = 0.033; 5 against 10 likewise
        ((0, 5, 9, 3), "inconclusive", "significant alone: clipping over nothing"),  # 5 against 9: p = 0.14
        ((4, 5, 10, 3), "inconclusive", "significant alone: clipping and regulariser over clipping"),
        ((3, 4, 5, 3), "inconclusive", "no step is significant"),
        ((10, 10, 10, 10), "inconclusive", "no step is significant"),
        ((8, 2, 2, 0), "contradicted", ""),
        ((2, 9, 3, 0), "inconclusive", "significant alone: clipping over nothing"),  # one half holds, the other is reversed
    ],
)
def test_the_verdict_follows_the_counts(counts, word, told):
    verdict = temporal_order.check(planted(counts))
    assert verdict.word == word
    assert told in verdict.sentence
    assert verdict.broken == ()
    for (way, label), won in zip(temporal_order.WAYS.items(), counts, strict=True):
        assert verdict.numbers[f"{label}: successes"] == won, way
        assert verdict.numbers[f"{label}: 95 % interval of the share, low"] <= won / SEEDS
    assert all(math.isfinite(value) for value in verdict.numbers.values())


def test_an_order_that_turns_round_with_the_learning_rate_depends_on_it():
    verdict = temporal_order.check(planted((0, 8, 9, 0), at_other_rate=(7, 0, 0, 0)))
    assert verdict.word == "depends"
    assert "learning rate" in verdict.sentence


def test_the_rate_is_chosen_in_validation_and_what_counts_is_the_test():
    result = planted((0, 5, 10, 3))
    result["both_test"][0] = 0.0  # would be better, but validation did not see it
    result["both_test"][1, 0] = 0.02  # the 1 % are not reached on fresh sequences
    verdict = temporal_order.check(result)
    assert verdict.numbers["clipping and regulariser: chosen learning rate"] == 0.1
    assert verdict.numbers["clipping and regulariser: successes"] == 9
    assert verdict.numbers["clipping and regulariser: successes at rate 0.03"] == 10


def test_one_per_cent_wrong_is_no_success():
    result = planted((0, 5, 10, 3))
    result["both_test"][1] = 0.01
    assert temporal_order.check(result).numbers["clipping and regulariser: successes"] == 0


@pytest.mark.parametrize("name", ["zero_loss", "scalar_omega"])
@pytest.mark.parametrize("error", [1e-9, math.nan])
def test_a_planted_wrong_number_breaks_its_ground_truth(name, error):
    result = planted((0, 5, 10, 3))
    result[name] = result[name] + error
    assert len(temporal_order.check(result).broken) == 1


def test_the_exact_facts_are_measured_right():
    found = temporal_order.calibration()
    # 1e-13: a few roundings
    assert found["zero_loss"] == pytest.approx(2.0 * math.log(2.0), rel=1e-13)
    assert found["scalar_omega"] == pytest.approx(0.21**2, rel=1e-13)  # (1.21 - 1)^2


def test_a_constant_answer_is_wrong_on_all_sequences_of_other_classes():
    net = temporal_order.network(3)
    params = {key: np.zeros(shape) for key, shape in net.shapes.items()} | {"readout.b_y": np.array([0.0, 0.0, 1.0, 0.0])}
    batch = temporal_order.TASK.sample(np.random.default_rng(1), 1201, 20)  # more than two forward passes
    plain = sum(label != 2 for label in batch.targets.tolist()) / 1201
    assert temporal_order.wrong(net, params, batch) == plain
    # a guess is wrong in 3 of 4; five standard errors
    assert abs(plain - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 1201)


def test_windows_are_reduced_and_what_had_stopped_stays_unseen():
    rows = np.arange(14.0).reshape(7, 2)
    rows[4:, 1] = np.nan
    found = temporal_order.thinned(rows, 2, np.mean)
    np.testing.assert_array_equal(found, [[1.0, 2.0], [5.0, 6.0], [9.0, np.nan]])
    held = _temporal_order_figure.carried(found)
    np.testing.assert_array_equal(held[-1], [9.0, 6.0])
    assert np.isnan(found[-1, 1])  # the arrays themselves are left alone


@pytest.fixture
def tiny(monkeypatch):
    changes = {"seeds": 2, "updates": 20, "validate_every": 10, "validation_sequences": 50, "test_sequences": 600}
    monkeypatch.setitem(
        temporal_order.PARAMETERS, "quick", {**temporal_order.PARAMETERS["quick"], **changes, "hidden_size": 6, "window": 5}
    )


def computed(seed=1):
    return temporal_order.compute(np.random.default_rng(np.random.SeedSequence(seed)), "quick")


def test_the_ways_of_training_start_alike_and_differ_in_clipping_and_regulariser_alone(tiny, monkeypatch):
    seen = []

    def recorded(net, params, sample, loss, updates, rng, *, own=temporal_order.gradlab.training.train, **settings):
        seen.append((params, [sample(rng).targets for _ in range(3)], settings))
        return own(net, params, sample, loss, updates, rng, **settings)

    monkeypatch.setattr(temporal_order.gradlab.training, "train", recorded)
    computed()
    first = seen[0]
    for params, targets, settings in seen:
        assert all(np.array_equal(params[key], first[0][key]) for key in params)
        np.testing.assert_array_equal(targets, first[1])
        np.testing.assert_array_equal(settings["learning_rate"], first[2]["learning_rate"])
    used = [(settings["clip"] is not None, settings["regulariser"] is not None) for *_, settings in seen]
    assert used == [(False, False), (True, False), (True, True), (False, True)]


def test_a_small_run_has_every_array_and_holds_its_ground_truths(tiny):
    result = computed()
    verdict = temporal_order.check(result)
    assert verdict.broken == ()
    for way in WAYS:
        assert result[f"{way}_loss"].shape == (4, 2, 2)
        assert np.isfinite(result[f"{way}_gradient_norm"]).all()
        assert 0.0 <= result[f"{way}_test"].min() <= result[f"{way}_test"].max() <= 1.0
    assert (result["plain_share_clipped"] == 0.0).all()
    # twenty updates from tiny weights: still near the guess
    np.testing.assert_allclose(result["plain_loss"][0], math.log(4.0), atol=0.05)


def test_the_same_seed_gives_the_same_arrays_and_another_one_others(tiny):
    one, same, other = computed(), computed(), computed(2)
    assert [name for name in one if not np.array_equal(one[name], same[name], equal_nan=True)] == []
    assert not np.array_equal(one["plain_loss"], other["plain_loss"])


def test_the_published_run_has_ten_seeds_at_the_length_of_the_claim():
    p = temporal_order.PARAMETERS["full"]
    assert p["seeds"] >= 10
    assert p["length"] == 50
    assert p["goal"] == 0.01
    assert p["validate_every"] % p["window"] == 0  # who stops leaves no half-filled window


def test_the_figure_shows_every_way_with_its_interval():
    with plotting.style():
        figure = temporal_order.draw(planted((0, 5, 10, 3)))
    assert isinstance(figure, Figure)
    axes = {ax.get_ylabel(): ax for ax in figure.axes}
    share, norms = axes["successful seeds (%)"], axes["largest gradient norm"]
    assert len(share.containers) == len(WAYS) * len(RATES)
    low, high = share.containers[3].lines[2][0].get_segments()[0][:, 1]  # clipping at the second rate
    np.testing.assert_allclose((low, high), 100 * np.array(_members.interval(5, 10)), rtol=1e-9)
    assert [text.get_text() for text in norms.get_legend().get_texts()] == list(temporal_order.WAYS.values())
    losses = [ax for ax in figure.axes if ax not in (share, norms)]
    assert len(losses) == len(WAYS)
    np.testing.assert_allclose(losses[0].lines[0].get_ydata()[0], 1.4)
