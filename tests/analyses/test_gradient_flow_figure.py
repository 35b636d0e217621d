"""Horizons of the text analysis against a plain loop and against lines of known slope; its verdict in every direction."""

import math

import numpy as np
import pytest
from runs import quick

from analyses import gradient_flow
from gradlab.tasks import characters

STEM = "gradient_flow"
P = gradient_flow.PARAMETERS["quick"]
CURVES = [("elman", "h"), ("lstm", "c"), ("lstm", "h")]
WHEN = ("before", "after")


def horizon(column, level):
    """Steps from the first gradient that is not zero until it has fallen by `level` for good; column: ln norm, t = 0..T."""
    by_lag = [float(value) for value in column[::-1]]
    first = next(lag for lag, value in enumerate(by_lag) if value > -math.inf)
    threshold = by_lag[first] + math.log(level)
    above = [lag for lag, value in enumerate(by_lag) if value >= threshold][-1]
    if above == len(by_lag) - 1:
        return math.inf
    return above - first + (by_lag[above] - threshold) / (by_lag[above] - by_lag[above + 1])


def horizons(flow, level):
    """The median of each seed; of an even number of sequences the lower of the two in the middle."""
    _, seeds, sequences = flow.shape
    columns = [[horizon(flow[:, seed, k], level) for k in range(sequences)] for seed in range(seeds)]
    return [sorted(column)[(sequences - 1) // 2] for column in columns]


def line(reach, steps=60, sequences=3):
    """Flows that fall by e every `reach[seed]` steps: (steps + 1, seeds, sequences)."""
    lag = np.arange(steps, -1, -1.0)
    return np.broadcast_to(-lag[:, None, None] / np.array(reach)[None, :, None], (steps + 1, len(reach), sequences))


def check(elman_before, lstm_before, elman_after, lstm_after, steps=60):
    """The verdict on lines of these horizons to 1/e, one number for each seed."""
    arrays = {
        "elman_before_h": line(elman_before, steps),
        "elman_after_h": line(elman_after, steps),
        "lstm_before_c": line(lstm_before, steps),
        "lstm_after_c": line(lstm_after, steps),
        "lstm_before_h": line(lstm_before, steps),
        "lstm_after_h": line(lstm_after, steps),
    }
    return gradient_flow.check(quick.with_arrays(STEM, **arrays))


def test_both_ground_truths_hold():
    verdict = gradient_flow.check(quick.result(STEM))
    assert verdict.broken == ()
    slope, norm = verdict.ground_truths
    assert slope.expected == pytest.approx(-0.3132616875182228, rel=1e-15)  # ln sig(1)
    assert norm.expected == 1.0


def test_every_horizon_of_the_verdict_is_that_of_a_plain_loop():
    result = quick.result(STEM)
    numbers = gradient_flow.check(result).numbers
    checked = 0
    for name, path in CURVES:
        for when in WHEN:
            for text, level in (("1/e", math.exp(-1.0)), ("1/1000", 1e-3)):
                lags = horizons(result[f"{name}_{when}_{path}"], level)
                label = f"horizon of {name} {path} {when} training, level {text}"
                for word, expected in (("lowest", min(lags)), ("median", float(np.median(lags))), ("highest", max(lags))):
                    # 1e-12: one logarithm and one division in another order
                    assert numbers[f"{label}, {word}"] == pytest.approx(expected, rel=1e-12), label
                    checked += 1
    assert checked == 36


def test_the_sentence_counts_the_seeds_in_which_the_cell_reaches_further():
    result = quick.result(STEM)
    sentence = gradient_flow.check(result).sentence
    for when in WHEN:
        for text, level in (("1/e", math.exp(-1.0)), ("1/1000", 1e-3)):
            elman, lstm = (horizons(result[f"{name}_{when}_{path}"], level) for name, path in CURVES[:2])
            longer = sum(b > a for a, b in zip(elman, lstm, strict=True))
            part = f"{when} training to {text}: {np.median(elman):.1f} and {np.median(lstm):.1f} (longer in {longer} of 2 seeds)"
            assert part in sentence


def test_the_other_numbers_are_those_of_the_arrays():
    result = quick.result(STEM)
    numbers = gradient_flow.check(result).numbers
    assert numbers["text SHA-256"] == characters.load().sha256
    for name in gradient_flow.CELLS:
        best = np.argmin([np.median(row) for row in result[f"{name}_final"]])  # lowest TRAINING loss over the rates
        assert numbers[f"learning rate of {name}"] == P["learning_rates"][best]
        for when in WHEN:
            assert numbers[f"validation loss of {name} {when} training, nats"] == np.median(result[f"{name}_{when}_validation"])
            spectral = result[f"{name}_{when}_spectral_radius"]
            assert spectral.shape == (len(result["jacobian_lags"]), P["seeds"], P["jacobian_sequences"])
            assert numbers[f"spectral radius of {name} {when} training, median"] == np.median(spectral)


def test_a_prediction_by_symbol_shares_costs_what_counting_says():
    corpus = characters.load()
    counts = [1] * 97  # one for each symbol, so that an unseen one costs no infinity
    for symbol in corpus.training.tolist():
        counts[symbol] += 1
    cost = [-math.log(count / sum(counts)) for count in counts]
    expected = math.fsum(cost[symbol] for symbol in corpus.validation.tolist()) / len(corpus.validation)
    # 1e-12: sums of 1e5 terms in another order
    assert float(quick.result(STEM)["baseline"]) == pytest.approx(expected, rel=1e-12)


def test_untrained_nets_guess_and_trained_ones_beat_the_symbol_shares():
    result = quick.result(STEM)
    for name in gradient_flow.CELLS:
        # an untrained read-out is near uniform over 97 symbols; its weights of up to 0.2 on 24 units add their variance
        np.testing.assert_allclose(result[f"{name}_before_validation"], math.log(97), atol=0.15)
        assert (result[f"{name}_after_validation"] < result[f"{name}_before_validation"]).all()
        assert result[f"{name}_loss"].shape == (P["updates"], P["seeds"])


def test_the_flow_starts_where_the_loss_reads_the_state():
    result = quick.result(STEM)
    for when in WHEN:
        assert (result[f"lstm_{when}_c"][-1] == -np.inf).all()  # dL/dc_T = 0: the loss reads c_T only through h_T
        for name in gradient_flow.CELLS:
            assert np.isfinite(result[f"{name}_{when}_h"]).all()
            assert result[f"{name}_{when}_h"].shape == (P["measured_length"] + 1, P["seeds"], P["measured_sequences"])


def tiny(**changes):
    return {
        **P,
        "hidden_size": 3,
        "updates": 4,
        "batch": 2,
        "length": 5,
        "measured_sequences": 2,
        "measured_length": 12,
    } | changes


def test_both_cells_train_on_the_same_windows_and_two_seeds_on_different_ones(monkeypatch):
    drawn, original = [], gradient_flow.windows

    def windows(*args):
        drawn.append(original(*args))
        return drawn[-1]

    monkeypatch.setitem(gradient_flow.PARAMETERS, "quick", tiny())
    monkeypatch.setattr(gradient_flow, "windows", windows)
    gradient_flow.compute(np.random.default_rng(np.random.SeedSequence(1)), "quick")
    held_out, *training = drawn
    assert len(training) == 8  # four updates of each cell
    for elman, lstm in zip(training[:4], training[4:], strict=True):
        np.testing.assert_array_equal(elman.targets, lstm.targets, strict=True)
        assert not np.array_equal(elman.targets[:, 0], elman.targets[:, 1])
    assert not np.array_equal(training[0].targets, training[1].targets)
    assert held_out.targets.shape == (12, 2, 2)


def test_the_same_seed_gives_the_same_arrays_and_another_one_others(monkeypatch):
    monkeypatch.setitem(gradient_flow.PARAMETERS, "quick", tiny())
    one, same, other = (gradient_flow.compute(np.random.default_rng(np.random.SeedSequence(seed)), "quick") for seed in (1, 1, 2))
    assert [name for name in one if not np.array_equal(one[name], same[name])] == []
    assert not np.array_equal(one["elman_after_h"], other["elman_after_h"])
    assert not np.array_equal(one["lstm_loss"], other["lstm_loss"])


def test_a_line_of_known_slope_has_the_horizon_it_was_drawn_with():
    numbers = check([2.0, 3.0], [5.0, 7.0], [1.5, 2.5], [4.0, 6.0]).numbers
    for label, (low, high) in {
        "elman h before": (2.0, 3.0),
        "lstm c before": (5.0, 7.0),
        "elman h after": (1.5, 2.5),
        "lstm c after": (4.0, 6.0),
    }.items():
        for text, factor in (("1/e", 1.0), ("1/1000", math.log(1000.0))):  # the line falls by 1 in `reach` steps
            found = [numbers[f"horizon of {label} training, level {text}, {word}"] for word in ("lowest", "median", "highest")]
            np.testing.assert_allclose(found, [low * factor, 0.5 * (low + high) * factor, high * factor], rtol=1e-12)


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (([2, 2], [5, 5], [2, 2], [5, 5]), "confirmed"),
        (([5, 5], [2, 2], [5, 5], [2, 2]), "contradicted"),
        (([3, 3], [3, 3], [3, 3], [3, 3]), "contradicted"),  # equal gradients: the cell does not reach further
        (([2, 2], [5, 5], [5, 5], [2, 2]), "depends"),  # on training
        (([2, 5], [5, 2], [2, 5], [5, 2]), "depends"),  # on the seed
        (([2, 2, 2], [5, 5, 1], [2, 2, 2], [5, 5, 5]), "depends"),
        (([2, 2, 5], [1, 1, 9], [2, 2, 5], [1, 1, 9]), "contradicted"),  # in most seeds
    ],
)
def test_the_verdict_follows_the_horizons(lines, word):
    assert check(*lines).word == word


def test_a_horizon_beyond_the_sequence_is_longer_than_any_within():
    verdict = check([2.0, 2.0], [1e9, 1e9], [2.0, 2.0], [1e9, 1e9])
    assert verdict.word == "confirmed"
    assert verdict.numbers["horizon of lstm c after training, level 1/1000, median"] == math.inf


@pytest.mark.parametrize(
    ("name", "error", "truth"),
    [
        ("calibration_lstm", 1e-9, "slope of ln|dL/dc| by lag"),
        ("calibration_orthogonal", 1e-11, "1 + slope of ln|dL/dh|"),
        ("calibration_lstm", math.nan, "slope of ln|dL/dc| by lag"),
    ],
)
def test_a_planted_wrong_slope_breaks_its_ground_truth(name, error, truth):
    slope = quick.result(STEM)[name] + error
    (found,) = gradient_flow.check(quick.with_arrays(STEM, **{name: slope})).broken
    assert found.name.startswith(truth)


def test_a_flow_that_is_wrong_by_one_per_cent_a_step_breaks_the_calibration(monkeypatch):
    original = gradient_flow.gradlab.analysis.gradient_flow

    def wrong(record):
        flow = original(record)
        return type(flow)({k: v + 0.01 * np.arange(len(v))[:, None] for k, v in flow.log_total.items()}, flow.log_immediate)

    monkeypatch.setattr(gradient_flow.gradlab.analysis, "gradient_flow", wrong)
    assert len(gradient_flow.check(quick.result(STEM) | gradient_flow.calibration()).broken) == 2
