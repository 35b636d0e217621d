"""Trials of cells on a task: equal starts and sequences, sizes that match, errors by the task's own criterion."""

import numpy as np
import pytest

import gradlab
from analyses import _members, _trials
from gradlab.tasks import ALL

ADDING, TIMING, ORDER = ALL["adding_le"], ALL["timing_gers"], ALL["temporal_order_pascanu"]
BUDGET = {"updates": 6, "batch": 4, "clip_norm": 1.0, "stop_below": 0.0, "validate_every": 3}


@pytest.fixture
def seeds():
    return _members.seeds_of(np.random.default_rng(np.random.SeedSequence(5)), 2)


@pytest.mark.parametrize("task", [ADDING, ORDER])
@pytest.mark.parametrize("parameters", [200, 846, 1096])
def test_no_other_size_comes_nearer_to_a_number_of_parameters(task, parameters):
    size = _trials.nearest_size(gradlab.GRU(), task, parameters)
    apart = [abs(_members.parameter_count(_trials.network(gradlab.GRU(), task, n)) - parameters) for n in range(1, 40)]
    assert apart[size - 1] == min(apart)


def test_settings_start_from_the_same_draws_and_differ_by_their_options_alone(seeds):
    net = _trials.network(gradlab.LSTM(), ORDER, 3)
    params, rates = _trials.side_by_side(net, seeds, [(0.1, {"forget_bias": 0.0}), (0.2, {"forget_bias": 2.0})])
    assert rates.tolist() == [[0.1, 0.1], [0.2, 0.2]]
    for key, value in params.items():
        assert value.shape[:2] == (2, 2)
        if key != "0.b":
            np.testing.assert_array_equal(value[0], value[1])
    np.testing.assert_array_equal(
        params["0.b"][1] - params["0.b"][0], np.broadcast_to(np.repeat([0.0, 2.0, 0.0, 0.0], 3), (2, 12))
    )


@pytest.mark.parametrize("task", [ADDING, TIMING, ORDER])
def test_each_member_trains_as_it_would_alone(task, seeds):
    net = _trials.network(gradlab.GRU(), task, 3)
    T = 12
    held_out = task.sample(np.random.default_rng(1), 150, T)  # more than one forward pass
    settings = [(0.01, {}), (0.1, {})]
    together = _trials.train(net, task, T, BUDGET, seeds, settings, held_out, None)
    alone = _trials.train(net, task, T, BUDGET, seeds[1:], settings[1:], held_out, None)
    for key, value in alone.params.items():
        # Sums of single precision in another order, over six updates.
        np.testing.assert_allclose(together.params[key][1, 1], value[0, 0], rtol=2e-3, atol=2e-4)
    kept = _trials.arrays(together, _trials.wrong(net, together.params, task, held_out))
    assert kept["validation"].shape == (2, 2, 2)
    assert kept["updates"].tolist() == [3, 6]
    assert kept["not finite"] == 0


def test_wrong_is_the_share_that_the_task_does_not_call_right():
    net = _trials.network(gradlab.GRU(), ORDER, 2)
    params = {key: np.zeros(shape) for key, shape in net.shapes.items()} | {"readout.b_y": np.array([0.0, 1.0, 0.0, 0.0])}
    batch = ORDER.sample(np.random.default_rng(2), 230, 10)
    assert _trials.wrong(net, params, ORDER, batch) == (batch.targets != 1).mean()
    silent = _trials.network(gradlab.GRU(), TIMING, 2)
    zero = {key: np.zeros(shape) for key, shape in silent.shapes.items()}
    assert _trials.wrong(silent, zero, TIMING, TIMING.sample(np.random.default_rng(2), 130, 20)) == 1.0  # misses every label


def test_the_setting_is_that_of_the_lowest_median_in_validation_then_of_the_lowest_mean():
    last = np.array([[0.0, 0.5, 0.5], [0.1, 0.1, 0.9], [0.1, 0.1, 0.8], [0.0, 0.0, 0.0]])
    validation = np.stack([np.ones((4, 3)), last, np.full((4, 3), np.nan)])  # who stopped keeps its best
    np.testing.assert_array_equal(_trials.best(validation), last)
    assert _trials.chosen(validation, [0, 1, 2]) == 2
    assert _trials.chosen(validation, range(4)) == 3
    assert _trials.chosen(validation, [0, 1]) == 1


def test_of_settings_that_all_end_without_an_error_the_soonest_is_chosen():
    validation = np.zeros((4, 2, 3))
    validation[:2] = 0.7
    validation[1, 1] = 0.0
    validation[2:, 1] = np.nan  # it had stopped
    assert _trials.chosen(validation, [0, 1]) == 1


def test_what_had_stopped_is_drawn_at_its_last_number():
    rows = np.array([[0.5, 0.4], [0.2, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(_trials.carried(rows), [[0.5, 0.4], [0.2, 0.4], [0.2, 0.4]])
    assert np.isnan(rows[1, 1])
