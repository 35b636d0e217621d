"""Every task: what its samples look like, that a network fits it, and that its baseline is the loss of its best constant."""

import numpy as np
import pytest

from gradlab import Elman, Network, bptt, losses
from gradlab.errors import DTypeError, ResourceRefused, ShapeError, ValueRangeError
from gradlab.tasks import ALL, Task

REAL = {"characters", "python_syntax", "digits"}
TASKS = [pytest.param(task, id=name) for name, task in ALL.items()]
SYNTHETIC = [pytest.param(task, id=name) for name, task in ALL.items() if name not in REAL]


def length_for(task):
    if task.name == "digits":
        pytest.importorskip("sklearn", reason="needs scikit-learn")
        return 64
    return max(task.minimum, 30)


def test_all_holds_every_variant_under_its_own_name():
    assert set(ALL) == REAL | {
        *("adding_le", "adding_arjovsky", "adding_hochreiter", "adding_pascanu"),
        *("multiplication_hochreiter", "multiplication_pascanu"),
        *("temporal_order_hochreiter_two", "temporal_order_hochreiter_three"),
        *("temporal_order_pascanu", "temporal_order_pascanu_three"),
        *("copy_arjovsky", "memorisation_pascanu", "memorisation_pascanu_two", "permutation_pascanu"),
        *("two_sequence_hochreiter", "two_sequence_hochreiter_3c", "latch_bengio", "timing_gers"),
    }
    assert all(name == task.name for name, task in ALL.items())


@pytest.mark.parametrize("task", TASKS)
def test_a_network_of_the_task_s_sizes_trains_on_its_batches_with_its_loss(task):
    batch = task.sample(np.random.default_rng(0), 4, length_for(task))
    assert batch.inputs.shape[1:] == (4, task.input_size)
    net = Network(Elman("tanh"), task.input_size, 3, output_size=task.output_size, readout=task.readout)
    record = bptt(net, net.init(np.random.default_rng(1)), batch, getattr(losses, task.loss))
    assert record.status.ok
    assert np.isfinite(record.loss)
    assert record.loss > 0.0


@pytest.mark.parametrize("task", TASKS)
def test_the_same_generator_gives_the_same_batch_and_the_next_one_differs(task):
    T = length_for(task)
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    one, two = task.sample(rng, 8, T), task.sample(other, 8, T)
    for part in ("inputs", "targets", "lengths"):
        np.testing.assert_array_equal(getattr(one, part), getattr(two, part), strict=True)
    following = task.sample(rng, 8, T)
    assert following.inputs.shape != one.inputs.shape or not np.array_equal(following.inputs, one.inputs)


@pytest.mark.parametrize("task", TASKS)
def test_a_length_below_the_minimum_is_refused_and_the_minimum_is_accepted(task):
    rng, least = np.random.default_rng(0), task.minimum
    for call in (lambda: task.sample(rng, 2, least - 1), lambda: task.baseline(least - 1)):
        with pytest.raises(ValueRangeError, match=f"length is {least - 1}; expected an integer >= {least}"):
            call()
    if task.name == "digits":
        pytest.importorskip("sklearn", reason="needs scikit-learn")
    for seed in range(20):  # every corner of the laws at their tightest
        batch = task.sample(np.random.default_rng(seed), 50, least)
        assert np.isfinite(batch.inputs).all()
    assert task.baseline(least) > 0.0


@pytest.mark.parametrize("task", TASKS)
def test_bad_arguments_are_refused(task):
    rng = np.random.default_rng(0)
    with pytest.raises(DTypeError, match=r"rng is 0; expected a numpy\.random\.Generator"):
        task.sample(0, 2, 64)
    with pytest.raises(ValueRangeError, match="batch is 0; expected an integer >= 1"):
        task.sample(rng, 0, 64)
    with pytest.raises(DTypeError, match=r"length is 64\.0; expected an integer"):
        task.sample(rng, 2, 64.0)


def test_a_batch_beyond_the_memory_is_refused_before_it_is_drawn():
    with pytest.raises(ResourceRefused, match=r"a batch of 10000000 sequences of length 10000000 needs .*; try fewer or shorter"):
        ALL["adding_pascanu"].sample(np.random.default_rng(0), 10**7, 10**7)


@pytest.mark.parametrize("task", [t for t in SYNTHETIC if t.values[0].loss == "mean_squared_error"])
def test_the_baseline_is_the_variance_of_the_targets(task):
    n = 100_000
    for T in (task.minimum, 40):
        rng = np.random.default_rng(7)
        chunks = [task.sample(rng, n // 5, T).targets for _ in range(5)]  # of several lengths, where the batch has one
        targets = np.concatenate(chunks)
        error = np.square(targets - targets.mean(axis=0)).mean()
        assert abs(error / task.baseline(T) - 1.0) <= 5.0 / np.sqrt(n)  # kurtosis of all is below 3: scatter < sqrt(2/n)


@pytest.mark.parametrize("task", [t for t in SYNTHETIC if t.values[0].loss == "softmax_cross_entropy"])
def test_the_baseline_is_the_cross_entropy_of_the_frequencies_at_each_step(task):
    n, T = 20_000, 12
    targets = task.sample(np.random.default_rng(8), n, T).targets.reshape(-1, n)  # (1 or steps, B)
    entropies = []
    for row in targets:
        shares = np.bincount(row) / n
        entropies.append(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    # The plug-in entropy of k classes is low by (k - 1)/(2 n) and scatters less: 7/40 000 at most.
    assert abs(np.mean(entropies) - task.baseline(T)) <= 5.0 / np.sqrt(n) * task.baseline(T)
    if (
        task.name != "timing_gers"
    ):  # its shares are unequal: their scatter enters to first order, and test_timing has the exact value
        assert abs(np.mean(entropies) - task.baseline(T)) <= 1e-3


def test_baselines_are_the_published_numbers():
    for T, value in ((100, 0.173287), (200, 0.094520), (500, 0.039989), (1000, 0.020387)):
        assert abs(ALL["copy_arjovsky"].baseline(T) - value) <= 5e-7  # six printed digits
    assert ALL["adding_le"].baseline(100) == ALL["adding_arjovsky"].baseline(7) == 1.0 / 6.0
    assert ALL["adding_pascanu"].baseline(100) == 1.0 / 24.0
    assert ALL["multiplication_pascanu"].baseline(100) == 7.0 / 144.0
    assert abs(ALL["temporal_order_pascanu"].baseline(50) - 1.386294) <= 5e-7
    assert abs(ALL["temporal_order_pascanu_three"].baseline(50) - 2.079442) <= 5e-7
    assert ALL["temporal_order_hochreiter_two"].baseline(100) == 3.0 / 16.0
    assert ALL["temporal_order_hochreiter_three"].baseline(100) == 7.0 / 64.0
    assert abs(ALL["memorisation_pascanu"].baseline(100) - 10 * np.log(5) / 120) <= 1e-15
    assert abs(10 * np.log2(5.0) - 23.2) <= 0.05  # bits that the five values hold


@pytest.mark.parametrize("task", SYNTHETIC)
def test_the_perfect_answer_succeeds_and_one_wrong_sequence_fails_alone(task):
    batch = task.sample(np.random.default_rng(9), 6, max(task.minimum, 20))
    goal = task.noise_free(batch)
    outputs = goal.astype(float) if task.loss == "mean_squared_error" else np.eye(task.output_size)[goal]
    np.testing.assert_array_equal(task.success(outputs, goal), np.ones(6, bool), strict=True)
    wrong = outputs.copy()
    wrong[(-1, 2) if task.readout == "every" else 2] = -wrong[(-1, 2) if task.readout == "every" else 2] - 1.0
    if task.loss == "softmax_cross_entropy":
        wrong[(-1, 2) if task.readout == "every" else 2] = np.roll(outputs[(-1, 2) if task.readout == "every" else 2], 1)
    if task.name == "latch_bengio":
        wrong[2] = -outputs[2]
    np.testing.assert_array_equal(task.success(wrong, goal), np.arange(6) != 2)
    nan = outputs.copy()
    nan[..., 3, 0] = np.nan
    np.testing.assert_array_equal(task.success(nan, goal), np.arange(6) != 3)


@pytest.mark.parametrize("name", ["adding_le", "copy_arjovsky", "permutation_pascanu", "temporal_order_hochreiter_two"])
def test_success_of_an_ensemble_is_that_of_each_member(name):
    task, rng = ALL[name], np.random.default_rng(10)
    batch = task.sample(rng, 5, 20)
    goal = batch.targets
    perfect = goal if task.loss == "mean_squared_error" else np.eye(task.output_size)[goal]
    axis = 1 if task.readout == "every" else 0
    members = [perfect, perfect + rng.normal(size=perfect.shape) * 2.0, perfect[..., ::-1, :] + 0.0]
    expected = np.stack([task.success(m, goal) for m in members])
    assert 0 < expected[1:].sum() < 10
    np.testing.assert_array_equal(task.success(np.stack(members, axis=axis), goal), expected)
    each = np.stack([goal] * 3, axis=axis)  # members with sequences of their own
    np.testing.assert_array_equal(task.success(np.stack(members, axis=axis), each), expected)


@pytest.mark.parametrize(
    ("name", "bound", "inclusive"),
    [
        ("adding_hochreiter", 0.04, False),
        ("multiplication_hochreiter", 0.04, False),
        ("adding_pascanu", 0.2, True),
        ("multiplication_pascanu", 0.2, True),
        ("adding_le", 0.1, True),
        ("two_sequence_hochreiter", 0.2, False),
        ("two_sequence_hochreiter_3c", 0.1, False),
        ("temporal_order_hochreiter_two", 0.3, False),
    ],
)
def test_each_variant_has_its_own_tolerance(name, bound, inclusive):
    task = ALL[name]
    goal = np.zeros((4, task.output_size))
    outputs = goal + np.array([0.999, 1.001, -0.999, -1.001])[:, None] * bound
    np.testing.assert_array_equal(task.success(outputs, goal), [True, False, True, False])
    outputs = np.full((1, task.output_size), bound)
    if name.startswith("temporal"):
        outputs[0, 1:] = 0.0  # one bad output is enough
    assert task.success(outputs, goal[:1])[0] == inclusive or inclusive  # 0.2^2 > 0.04 in binary: no claim at the edge


def test_pascanu_s_criterion_is_passed_by_a_constant_on_most_sequences():
    rng = np.random.default_rng(11)
    for name, answer, share in (
        ("adding_pascanu", 0.5, 1.0 - 0.6**2),  # |X1 + X2 - 1| <= 0.4
        ("multiplication_pascanu", 0.25, 0.45 * (1.0 - np.log(0.45)) - 0.05 * (1.0 - np.log(0.05))),  # P(X1 X2 <= x) = x - x ln x
    ):
        targets = ALL[name].sample(rng, 40_000, 10).targets
        passed = ALL[name].success(np.full(targets.shape, answer), targets).mean()
        assert abs(passed - share) <= 4.0 * np.sqrt(share * (1.0 - share) / 40_000)  # four standard deviations


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_never_right(bad):
    for name in ("temporal_order_pascanu", "adding_le", "latch_bengio", "temporal_order_hochreiter_two"):
        task = ALL[name]
        labels = task.loss == "softmax_cross_entropy"
        goal = np.zeros(1, int) if labels else np.full((1, task.output_size), 0.8)
        outputs = np.full((1, task.output_size), 0.8)
        assert task.success(outputs, goal)[0]
        outputs[0, 0] = bad  # argmax would find it at class 0, the target; its sign would be right
        assert not task.success(outputs, goal)[0]


def test_wrong_shapes_are_told():
    adding, copying = ALL["adding_le"], ALL["copy_arjovsky"]
    with pytest.raises(ShapeError, match=r"outputs have shape \(5, 2\); expected \(\*E, B, 1\)"):
        adding.success(np.zeros((5, 2)), np.zeros((5, 1)))
    with pytest.raises(ShapeError, match=r"targets have shape \(4, 1\), outputs \(5, 1\)"):
        adding.success(np.zeros((5, 1)), np.zeros((4, 1)))
    with pytest.raises(ShapeError, match=r"targets have shape \(5,\), outputs \(5, 1\)"):
        adding.success(np.zeros((5, 1)), np.zeros(5))
    with pytest.raises(ShapeError, match=r"outputs have shape \(5, 9\); expected \(T, \*E, B, 9\)"):
        copying.success(np.zeros((5, 9)), np.zeros((5,), int))
    with pytest.raises(ShapeError, match=r"targets have shape \(6, 5\), outputs \(7, 5, 9\)"):
        copying.success(np.zeros((7, 5, 9)), np.zeros((6, 5), int))
    with pytest.raises(DTypeError, match=r"outputs is a builtins\.list"):
        adding.success([[0.0]], np.zeros((1, 1)))


def test_a_task_is_frozen():
    with pytest.raises(AttributeError):
        ALL["adding_le"].minimum = 1
    assert isinstance(ALL["adding_le"], Task)
