"""Digits pixel by pixel: scikit-learn's own images, split and permuted as promised."""

import sys

import numpy as np
import pytest

from gradlab.errors import DTypeError, ResourceRefused, ValueRangeError
from gradlab.tasks import digits


@pytest.fixture(scope="module")
def bundle():
    return pytest.importorskip("sklearn.datasets", reason="needs scikit-learn").load_digits()


@pytest.fixture(scope="module")
def loaded(bundle):
    return digits.load()


@pytest.fixture
def small():
    images = np.arange(20 * 64, dtype=float).reshape(20, 64)
    return digits.Digits(images[:15], np.arange(15) % 10, images[15:], np.arange(5))


def test_both_splits_together_are_the_bundled_images_in_their_order(loaded, bundle):
    np.testing.assert_array_equal(np.concatenate([loaded.training, loaded.test]) * 16.0, bundle.images.reshape(-1, 64))
    np.testing.assert_array_equal(np.concatenate([loaded.training_labels, loaded.test_labels]), bundle.target)
    assert len(loaded.training) + len(loaded.test) == 1797
    assert len(loaded.test) == 359  # a fifth
    assert loaded.training.min() == 0.0
    assert loaded.training.max() == 1.0
    with pytest.raises(ValueError, match="read-only"):
        loaded.test[0, 0] = 1.0


def test_the_baseline_is_near_that_of_ten_equal_classes(loaded):
    assert abs(loaded.baseline - np.log(10.0)) <= 0.01  # classes are balanced to a few per cent
    shares = (np.bincount(loaded.training_labels) + 1) / (len(loaded.training) + 10)
    count = np.bincount(loaded.test_labels)
    assert abs(loaded.baseline + (count * np.log(shares)).sum() / count.sum()) <= 1e-14  # rounding of a sum of 359
    assert digits.TASK.baseline(64) == loaded.baseline


def test_one_pixel_is_read_a_step_row_by_row(small):
    batch = small.sample(np.random.default_rng(0), 500)
    assert batch.inputs.shape == (64, 500, 1)
    which = batch.inputs[0, :, 0].astype(int) // 64
    np.testing.assert_array_equal(batch.inputs[..., 0].T, small.training[which])
    np.testing.assert_array_equal(batch.targets, small.training_labels[which])
    assert set(which) == set(range(15))
    test = small.sample(np.random.default_rng(0), 100, "test")
    assert test.inputs[0].min() == 15 * 64


def test_an_order_permutes_the_steps_of_every_image_alike(small):
    order = digits.permutation(np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(order), np.arange(64))
    assert not np.array_equal(order, np.arange(64))
    np.testing.assert_array_equal(order, digits.permutation(np.random.default_rng(1)))
    plain, permuted = small.whole("test"), small.whole("test", order)
    np.testing.assert_array_equal(permuted.inputs, plain.inputs[order])
    np.testing.assert_array_equal(permuted.targets, plain.targets)
    np.testing.assert_array_equal(plain.inputs[..., 0].T, small.test)


def test_the_permuted_task_reads_the_images_of_the_plain_one_in_its_order(loaded):
    order = digits.permutation(np.random.default_rng(2))
    task = digits.permuted(order)
    plain, permuted = (t.sample(np.random.default_rng(3), 20, 64) for t in (digits.TASK, task))
    np.testing.assert_array_equal(permuted.inputs, plain.inputs[order])
    assert task.name == "digits_permuted"
    kept = order.copy()
    order[:] = 0  # the task has its own copy
    np.testing.assert_array_equal(task.sample(np.random.default_rng(3), 20, 64).inputs, plain.inputs[kept])


def test_bad_orders_lengths_and_splits_are_refused(small):
    rng = np.random.default_rng(0)
    for order in (np.zeros(64, int), np.arange(63), np.arange(64.0), np.arange(1, 65)):
        with pytest.raises(ValueRangeError, match=r"order holds .* expected each of 0\.\.63 once; try permutation\(rng\)"):
            small.sample(rng, 2, order=order)
    with pytest.raises(DTypeError, match=r"order is a builtins\.list"):
        digits.permuted(list(range(64)))
    with pytest.raises(ValueRangeError, match="length is 65; expected 64, one step a pixel"):
        digits.TASK.sample(rng, 2, 65)
    with pytest.raises(ValueRangeError, match="split is 'validation'; expected one of training, test"):
        small.sample(rng, 2, "validation")


def test_without_scikit_learn_the_install_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # what the import system then says is ImportError
    with pytest.raises(ResourceRefused, match=r'not installed; try pip install "gradlab\[data\]"'):
        digits.load.__wrapped__()


def test_importing_the_tasks_does_not_import_scikit_learn():
    import subprocess

    code = "import sys, gradlab.tasks; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
