"""The adding problem: every word of the verdict from counts that are known, chance exact, and a net that adds without error."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from analyses import adding
from gradlab import plotting, runs
from gradlab.tasks import adding as task

LENGTHS, RATES, SEEDS = (100, 150), (0.003, 0.01, 0.03), 5
BEST = 1  # the rate at which the planted counts hold; at others nobody succeeds


def planted(counts):
    """Arrays of a run in which `counts[cell][length]` seeds succeed."""
    result = {
        "lengths": np.array(LENGTHS),
        "learning_rates": np.array(RATES),
        "goal": np.array(0.01),
        "constant_error": np.array(1.0 / 6.0),
        "constant_sequences": np.array(20000),
        "parameters": np.array([1233, 1153, 1153]),
        "updates": np.array(300),
        **{f"exact_error_{T}": np.array(0.0) for T in LENGTHS},
        **{f"constant_validation_{T}": np.array(0.15) for T in LENGTHS},
    }
    for name in adding.CELLS:
        for T, won in zip(LENGTHS, counts[name], strict=True):
            last = np.full((len(RATES), SEEDS), 0.16)
            last[BEST, :won] = 0.002
            curves = np.stack([np.full(last.shape, 0.17), 0.5 * (0.17 + last), last])
            result |= {
                f"{name}_{T}_updates": np.array([100, 200, 300]),
                f"{name}_{T}_validation": curves,
                f"{name}_{T}_test": 1.1 * last,
                f"{name}_{T}_stopped": np.zeros(last.shape, bool),
            }
    return result


@pytest.mark.parametrize(
    ("lstm", "irnn", "tanh", "word"),
    [
        ((5, 5), (5, 5), (0, 0), "confirmed"),
        ((4, 5), (5, 5), (0, 1), "confirmed"),
        ((5, 5), (0, 1), (0, 0), "contradicted"),  # 5 against 1 of 5: p = 0.048
        ((5, 5), (5, 0), (0, 0), "depends"),  # on the length
        ((5, 5), (2, 2), (0, 0), "inconclusive"),  # 5 against 2: p = 0.17
        ((5, 5), (5, 5), (5, 5), "inconclusive"),  # tanh is not worse
        ((0, 0), (0, 0), (0, 0), "inconclusive"),
        ((5, 0), (0, 0), (0, 0), "inconclusive"),  # at 150 nobody succeeds
    ],
)
def test_the_verdict_follows_the_counts(lstm, irnn, tanh, word):
    verdict = adding.check(planted({"lstm": lstm, "irnn": irnn, "tanh": tanh}))
    assert verdict.word == word
    assert verdict.broken == ()
    for T, counts in zip(LENGTHS, zip(lstm, irnn, tanh, strict=True), strict=True):
        assert f"T = {T}: LSTM {counts[0]}, IRNN {counts[1]}, tanh Elman {counts[2]} of 5 seeds" in verdict.sentence
    assert all(math.isfinite(value) for value in verdict.numbers.values())


def test_the_rate_is_chosen_in_validation_and_what_counts_is_the_test():
    result = planted({"lstm": (5, 5), "irnn": (5, 5), "tanh": (0, 0)})
    result["lstm_100_test"][BEST] = 0.02  # fine in validation, not on fresh sequences
    result["lstm_100_test"][2] = 0.001  # the other way round: must not be picked
    verdict = adding.check(result)
    assert verdict.numbers["LSTM, T = 100: chosen learning rate"] == RATES[BEST]
    assert verdict.numbers["LSTM, T = 100: successes"] == 0
    assert verdict.numbers["LSTM, T = 100: successes at rate 0.03"] == 5


def test_of_rates_with_equal_counts_the_lower_median_is_chosen():
    result = planted({"lstm": (0, 0), "irnn": (0, 0), "tanh": (0, 0)})
    result["tanh_150_validation"][-1, 2] = 0.15
    assert adding.chosen_rate(result, "tanh", 150) == 2


def test_a_member_that_stopped_or_diverged_is_a_failure_and_leaves_all_numbers_finite_but_its_error():
    result = planted({"lstm": (5, 5), "irnn": (5, 5), "tanh": (0, 0)})
    result["irnn_100_validation"][:, 0] = np.nan
    result["irnn_100_validation"][0, 0] = np.inf
    result["irnn_100_test"][0] = np.inf
    result["irnn_100_stopped"][0] = True
    verdict = adding.check(result)
    assert verdict.word == "confirmed"
    assert verdict.numbers["IRNN, T = 100: successes at rate 0.003"] == 0
    assert verdict.numbers["IRNN, T = 100: stopped by a number that is not finite, any rate"] == SEEDS


@pytest.mark.parametrize("name", ["constant_error", "exact_error_100", "exact_error_150"])
@pytest.mark.parametrize("error", [0.01, math.nan])
def test_a_planted_wrong_number_breaks_its_ground_truth(name, error):
    result = planted({"lstm": (5, 5), "irnn": (5, 5), "tanh": (0, 0)})
    result[name] = result[name] + error
    assert len(adding.check(result).broken) == 1


@pytest.mark.parametrize("length", [2, 7, 100])
def test_two_relu_units_add_without_error(length):
    batch = task.sample(np.random.default_rng(length), 450, length)  # more than one forward pass
    # 1e-28: the square of a rounding error of 1e-14
    assert adding.errors(*adding.exact_net(), batch) < 1e-28


def test_the_error_of_a_constant_answer_is_what_a_plain_mean_gives():
    net, params = adding.exact_net()
    constant = {key: np.zeros_like(value) for key, value in params.items()} | {"readout.b_y": np.array([1.0])}
    batch = task.sample(np.random.default_rng(3), 401, 5)
    plain = math.fsum((y - 1.0) ** 2 for y in batch.targets[:, 0].tolist()) / 401
    assert adding.errors(net, constant, batch) == pytest.approx(plain, rel=1e-12)  # sums in another order


@pytest.mark.parametrize("readout", [(1.0, 1.0), (1.0, -1.0)])  # inf, and inf - inf
def test_an_output_beyond_the_floats_is_an_infinite_error(readout):
    net, params = adding.exact_net()
    batch = task.sample(np.random.default_rng(3), 5, 50)
    params |= {"0.U": np.full((2, 2), 1e200), "readout.V": np.array([readout])}
    assert adding.errors(net, params, batch) == np.inf


def test_the_nets_have_parameters_of_one_order_in_the_published_run():
    p = adding.PARAMETERS["full"]
    sizes = [adding._members.parameter_count(adding.network(name, p["hidden_size"][name])) for name in adding.CELLS]
    assert sizes == [1233, 1153, 1153]
    assert p["seeds"] >= 5
    assert p["lengths"] == [100, 150]


@pytest.fixture
def tiny(monkeypatch):
    changes = {"lengths": [3], "seeds": 2, "updates": 60, "validate_every": 20, "test_sequences": 250, "validation_sequences": 40}
    sizes = {"hidden_size": dict.fromkeys(adding.CELLS, 8), "batch": 16, "learning_rates": [0.01, 0.05]}
    monkeypatch.setitem(adding.PARAMETERS, "quick", {**adding.PARAMETERS["quick"], **changes, **sizes})


def computed(seed=1):
    return runs.computed(adding, np.random.SeedSequence(seed), "quick")


def test_a_small_run_has_every_array_and_holds_its_ground_truths(tiny):
    result, calls = computed(), []
    verdict = adding.check(result)
    assert verdict.broken == ()
    for name in adding.CELLS:
        assert result[f"{name}_3_test"].shape == (2, 2)
        assert np.isfinite(result[f"{name}_3_test"]).all()
        np.testing.assert_array_equal(result[f"{name}_3_updates"], [20, 40, 60])
    # three steps apart is easy: sixty updates lower the error of the best member far below the constant's
    assert result["lstm_3_test"].min() < 0.5 * task.BASELINE
    runs.computed(adding, np.random.SeedSequence(1), "quick", lambda done, total: calls.append(done / total))
    assert calls == sorted(calls)
    assert calls[-1] == 1.0


def test_the_same_seed_gives_the_same_arrays_and_another_one_others(tiny):
    one, same, other = computed(), computed(), computed(2)
    assert [name for name in one if not np.array_equal(one[name], same[name], equal_nan=True)] == []
    assert not np.array_equal(one["lstm_3_validation"], other["lstm_3_validation"])


def test_all_cells_read_the_same_sequences_and_two_seeds_different_ones(tiny, monkeypatch):
    drawn, original = {}, adding._members.side_by_side
    trained = []

    def recorded(batches, every, dtype):
        drawn.setdefault(trained[-1], []).append([batch.targets for batch in batches])
        return original(batches, every, dtype)

    def train(name, *args, own=adding.train):
        trained.append(name)
        return own(name, *args)

    monkeypatch.setattr(adding._members, "side_by_side", recorded)
    monkeypatch.setattr(adding, "train", train)
    computed()
    np.testing.assert_array_equal(drawn["lstm"], drawn["irnn"])
    np.testing.assert_array_equal(drawn["lstm"], drawn["tanh"])
    assert not np.array_equal(drawn["lstm"][0][0], drawn["lstm"][0][1])
    assert not np.array_equal(drawn["lstm"][0], drawn["lstm"][1])


def test_the_figure_shows_every_seed_and_the_counts():
    result = planted({"lstm": (5, 5), "irnn": (2, 0), "tanh": (0, 0)})
    with plotting.style():
        figure = adding.draw(result)
    assert isinstance(figure, Figure)
    *panels, table = figure.axes
    assert len(panels) == len(LENGTHS) * len(adding.CELLS)
    titles = [ax.get_title(loc="left") for ax in panels]
    assert titles[1].endswith("IRNN, $T$ = 100: 2 of 5")
    for ax, won in zip(panels, (5, 2, 0, 5, 0, 0), strict=True):
        assert len([line for line in ax.lines if len(line.get_xdata()) == 3]) == SEEDS
        assert len([line for line in ax.lines if line.get_marker() == "o"]) == won
    cells = {place: cell.get_text() for place, cell in table.tables[0].get_celld().items()}
    assert cells[2, BEST].get_text() == "2 of 5"
    assert cells[2, BEST].get_weight() == "bold"
    assert cells[2, 0].get_weight() != "bold"
