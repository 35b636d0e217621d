"""Tasks: what their random numbers depend on, what they are called, and what is no list of tasks."""

import numpy as np
import pytest
from runs.toys import split, toy

from gradlab.errors import ValueRangeError
from gradlab.runs import computed
from gradlab.runs.plan import canonical, run_one, sequence, tasks_of

SEEDS = sequence(2013, "alpha")


def draws(analysis):
    return [run_one(analysis, task, SEEDS, "full")["x"].tolist() for task in tasks_of(analysis, "full")]


def test_the_numbers_of_a_task_depend_on_its_parameters_and_not_on_its_place_nor_on_the_others():
    three, two = draws(split({"a": 1}, {"a": 2}, {"a": 3})), draws(split({"a": 3}, {"a": 1}))
    assert two == [three[2], three[0]]
    assert len({tuple(x) for x in three}) == 3


def test_a_task_draws_the_same_after_another_one_has_spawned_from_the_same_seeds():
    before = draws(split(3))
    SEEDS.spawn(5)
    assert draws(split(3)) == before


def test_with_common_random_numbers_all_tasks_draw_what_the_whole_analysis_would():
    common = draws(split(3, COMMON_RANDOM_NUMBERS=True))
    rng = np.random.default_rng(SEEDS)
    rng.normal(size=(60, 60))
    assert common == [rng.normal(size=2).tolist()] * 3


def test_a_seed_or_a_name_changes_every_draw():
    tasks = tasks_of(split(2), "full")
    seen = [run_one(split(2), task, sequence(*of), "full")["x"][0] for task in tasks for of in ((1, "a"), (2, "a"), (1, "b"))]
    assert len(set(seen)) == 6


def test_an_analysis_in_one_piece_is_one_task_with_the_settings_of_its_scale():
    (task,) = tasks_of(toy(PARAMETERS={"full": {"size": np.int64(5)}, "quick": {"size": 1}}), "full")
    assert task.parameters == {"size": 5}
    assert task.label == ""


def test_a_task_is_called_by_what_tells_it_from_the_others():
    tasks = tasks_of(split({"T": 100, "cell": "lstm", "n": 3}, {"T": 150, "cell": "lstm", "n": 3}), "full")
    assert [task.label for task in tasks] == ["T=100", "T=150"]
    assert [task.label for task in tasks_of(split({"T": 100}), "full")] == [""]


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([], "gives 0 tasks"),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], "gives 2 tasks, 1 of them different"),
        ([{"a": 0.1}, {"a": np.float64(0.1)}], "1 of them different"),
        ([{"a": float("inf")}], "cannot be written as JSON"),
        ([{"a": np.zeros(2)}], "cannot be written as JSON"),
        ([3.5, {"a": 1}], "other than dicts"),
    ],
    ids=str,
)
def test_what_is_no_list_of_different_tasks_is_refused(tasks, said):
    with pytest.raises(ValueRangeError, match=said):
        tasks_of(toy(tasks=lambda scale: tasks), "full")


def test_every_process_sees_parameters_as_json_gives_them_back():
    (task, _) = tasks_of(split({"sizes": (1, 2)}, {"sizes": (1, 3)}), "full")
    assert task.parameters == {"sizes": [1, 2]}


def test_equal_content_has_one_text_whatever_its_order_and_types_but_minus_zero_is_not_zero():
    assert canonical({"b": np.float64(0.1), "a": np.int32(2)}) == canonical({"a": 2, "b": 0.1})
    assert canonical({"a": -0.0}) != canonical({"a": 0.0})


def test_all_tasks_here_and_now_give_the_collected_arrays_and_tell_how_far_they_are():
    told = []
    result = computed(split(3), SEEDS, "full", lambda done, total: told.append(done / total))
    assert result["x"].tolist() == [x for task in draws(split(3)) for x in task]
    assert told == [1 / 3, 2 / 3, 1.0]
