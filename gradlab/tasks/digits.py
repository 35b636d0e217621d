"""Handwritten digits read pixel by pixel, as scikit-learn bundles them (no network): 1797 images of 8 x 8.

One pixel a step, row by row or in an order drawn once from a generator ("permuted"), values 0 to 1; the digit is asked after
all 64. A small sibling of the 784-step task of Le, Jaitly & Hinton (2015), whose numbers do not carry over. The last fifth
of the images, by other writers than the first, is the test split. Needs scikit-learn: pip install "gradlab[data]".
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_array, require_count, require_generator, require_one_of
from gradlab.batch import Batch
from gradlab.errors import ResourceRefused, ValueRangeError
from gradlab.tasks.base import Task, largest_output

Array = npt.NDArray[Any]

PIXELS = 64
CLASSES = 10
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Digits:
    """Images (n, 64) with values in [0, 1], row by row, and their labels 0..9 (n,)."""

    training: Array
    training_labels: Array
    test: Array
    test_labels: Array

    def sample(
        self,
        rng: np.random.Generator,
        batch: int,
        split: Literal["training", "test"] = "training",
        order: Array | None = None,
    ) -> Batch:
        """`batch` images drawn with replacement: inputs (64, B, 1), targets (B,). `order`: see `permutation`."""
        require_generator("rng", rng)
        images, _ = self._part(split)
        return self._batch(split, rng.integers(0, len(images), require_count("batch", batch)), order)

    def whole(self, split: Literal["training", "test"] = "test", order: Array | None = None) -> Batch:
        """Every image of a split, in its order."""
        return self._batch(split, np.arange(len(self._part(split)[0])), order)

    def _part(self, split: str) -> tuple[Array, Array]:
        training = require_one_of("split", split, ("training", "test")) == "training"
        return (self.training, self.training_labels) if training else (self.test, self.test_labels)

    def _batch(self, split: str, which: Array, order: Array | None) -> Batch:
        images, labels = self._part(split)
        chosen = images[which] if order is None else images[which][:, _require_order(order)]
        return Batch(np.ascontiguousarray(chosen.T)[..., None], labels[which])

    @cached_property
    def baseline(self) -> float:
        """Cross-entropy in nats of giving each test label its share in the training labels, one added to each count."""
        shares = (np.bincount(self.training_labels, minlength=CLASSES) + 1.0) / (len(self.training_labels) + CLASSES)
        return float(-np.log(shares[self.test_labels]).mean())


def permutation(rng: np.random.Generator) -> Array:
    """An order of the 64 pixels: draw it once and use it for both splits."""
    return require_generator("rng", rng).permutation(PIXELS)


def _require_order(order: object) -> Array:
    order = require_array("order", order, "int")
    if order.shape != (PIXELS,) or order.dtype.kind not in "iu" or not np.array_equal(np.sort(order), np.arange(PIXELS)):
        raise ValueRangeError(f"order holds {order.size} entries; expected each of 0..{PIXELS - 1} once; try permutation(rng)")
    return order


@cache
def load() -> Digits:
    """The images of the installed scikit-learn. Error: ResourceRefused where it is missing."""
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ResourceRefused('digits need scikit-learn, which is not installed; try pip install "gradlab[data]"') from error
    bundle = datasets.load_digits()
    images = np.asarray(bundle.data, dtype=np.float64) / 16.0
    labels = np.asarray(bundle.target, dtype=np.int64)
    cut = len(images) - int(TEST_SHARE * len(images))
    parts = (images[:cut], labels[:cut], images[cut:], labels[cut:])
    for part in parts:
        part.flags.writeable = False
    return Digits(*parts)


def _task(name: str, order: Array | None) -> Task:
    def law(rng: np.random.Generator, B: int, T: int) -> Batch:
        if T != PIXELS:
            raise ValueRangeError(f"length is {T}; expected {PIXELS}, one step a pixel")
        return load().sample(rng, B, "training", order)

    return Task(
        name=name,
        source="scikit-learn's bundled digits (Alpaydin & Kaynak 1998), one pixel a step",
        input_size=1,
        output_size=CLASSES,
        readout="last",
        loss="softmax_cross_entropy",
        criterion="the largest output is the target's",
        law=law,
        chance=lambda length: load().baseline,
        correct=largest_output,
        minimum=PIXELS,
    )


TASK = _task("digits", None)


def permuted(order: Array) -> Task:
    """The task with the pixels in this order: `permuted(permutation(rng))`."""
    return _task("digits_permuted", _require_order(order).copy())
