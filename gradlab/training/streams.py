"""Random streams and the batches drawn from them: one for all members, or each its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_generator
from gradlab.batch import Batch
from gradlab.errors import DTypeError, ShapeError, ValueRangeError

Array = npt.NDArray[Any]
Sample = Callable[[np.random.Generator], Batch]
Rng = np.random.Generator | Sequence[np.random.Generator]


def generators_of(rng: Rng, members: tuple[int, ...]) -> list[np.random.Generator]:
    """One generator, or one for each member of the single ensemble axis."""
    if isinstance(rng, np.random.Generator):
        return [rng]
    if isinstance(rng, (str, bytes)) or not isinstance(rng, Sequence):
        return [require_generator("rng", rng)]
    found = [require_generator(f"rng[{k}]", one) for k, one in enumerate(rng)]
    if (len(found),) != members:
        raise ShapeError(f"rng has {len(found)} generators; expected one for each member of the ensemble axes {members}")
    if len({id(one.bit_generator) for one in found}) < len(found):
        raise ValueRangeError("rng holds the same generator twice; expected one for each member; try rng.spawn(n)")
    return found


def draw(sample: Sample, rng: Rng, members: tuple[int, ...]) -> Batch:
    """One batch; with a generator for each member, theirs side by side."""
    if isinstance(rng, np.random.Generator):
        batch = _one(sample, rng)
        own = np.shape(batch.inputs)[1:-2]
        if len(own) > len(members) or any(n not in (1, m) for n, m in zip(own[::-1], members[::-1], strict=False)):
            raise ShapeError(
                f"inputs have ensemble axes {own}, the parameters {members}; expected parameters for each member; "
                "stack one net.init for each"
            )
        return batch
    drawn = [_one(sample, generator) for generator in rng]
    if any(batch.lengths is not None for batch in drawn):
        raise ValueRangeError(
            "sample(rng) gave ragged batches (lengths), and rng has a generator for each member; expected one length for all, "
            "or one generator"
        )
    for name in ("inputs", "targets"):
        shapes = {np.shape(getattr(batch, name)) for batch in drawn}
        if len(shapes) > 1:
            raise ShapeError(
                f"sample(rng) gave members {name} of shapes {sorted(shapes)}; expected one; draw a length outside of it"
            )
    if len({batch.mask is None for batch in drawn}) > 1:
        raise ValueRangeError("sample(rng) gave some members a mask and others None; expected one or the other")
    first = drawn[0]
    every = np.ndim(first.targets) >= 2 and np.shape(first.targets)[:2] == first.inputs.shape[:2]
    axis = 1 if every else 0

    def joined(values: list[Array]) -> Array:
        return np.stack(values, axis=axis)

    mask = None if first.mask is None else joined([np.asarray(batch.mask) for batch in drawn])
    return Batch(np.stack([batch.inputs for batch in drawn], axis=1), joined([batch.targets for batch in drawn]), mask)


def _one(sample: Sample, generator: np.random.Generator) -> Batch:
    batch = sample(generator)
    if not isinstance(batch, Batch):
        raise DTypeError(f"sample(rng) gave {type(batch).__name__}; expected a gradlab.Batch")
    return batch
