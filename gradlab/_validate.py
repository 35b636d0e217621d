"""Checks of arguments: one clear error that names argument, value, expectation and remedy."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.errors import DTypeError, ShapeError, ValueRangeError

Array = npt.NDArray[Any]


def as_numbers(name: str, value: object, *, allow_complex: bool = True) -> Array:
    """`value` as a float or complex array that gradlab computes with; never a copy unless the dtype changes.

    Integers become float64 and float16 becomes float32, a NumPy scalar an array of shape (): arithmetic with such arrays
    makes scalars of them. Everything that would lose information in silence (masked arrays, matrices, lists, objects,
    booleans, long double) is refused.
    """
    value = require_array(name, np.asarray(value) if isinstance(value, np.number) else value, "float")
    kind = value.dtype.kind
    if kind in "iu":
        return value.astype(np.float64)
    if value.dtype == np.float16:
        return value.astype(np.float32)
    allowed = (np.float32, np.float64, np.complex128) if allow_complex else (np.float32, np.float64)
    if value.dtype.type not in allowed or not value.dtype.isnative:
        raise DTypeError(
            f"{name} has dtype {value.dtype}; expected float32, float64 or integers"
            f"{' (or complex128)' if allow_complex else ''}; try {name}.astype(float)"
        )
    return value


def require_array(name: str, value: object, dtype: str = "") -> Array:
    """`value` if it is a plain array, of whatever dtype; `dtype` is what the error advises."""
    if not isinstance(value, np.ndarray) or isinstance(value, (np.matrix, np.ma.MaskedArray)):
        advice = f"numpy.asarray({name}{', dtype=' if dtype else ''}{dtype})"
        kind = f"{type(value).__module__}.{type(value).__name__}"
        raise DTypeError(f"{name} is a {kind}; expected a plain numpy.ndarray; try {advice}")
    return value


def require_number(name: str, value: object, meaning: str = "a finite number") -> float:
    """`value` as a finite float; booleans and text are refused. `meaning` is what the error says was expected."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise DTypeError(f"{name} is {value!r}; expected {meaning}")
    if not math.isfinite(value):
        raise ValueRangeError(f"{name} is {value}; expected {meaning}")
    return float(value)


def require_one_of(name: str, value: object, choices: Collection[str]) -> str:
    """`value` if it is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueRangeError(f"{name} is {value!r}; expected one of {', '.join(choices)}")
    return value


def require_shape(name: str, value: Array, shape: tuple[int, ...], meaning: str) -> None:
    """Raise ShapeError unless the trailing axes of `value` are exactly `shape`."""
    n = len(shape)
    if value.ndim < n or value.shape[value.ndim - n :] != shape:
        raise ShapeError(f"{name} has shape {value.shape}; expected {meaning} = {shape}, with ensemble axes only in front")


def require_finite(name: str, value: Array) -> None:
    """Raise ValueRangeError that names the first NaN or infinity and their number."""
    finite = np.isfinite(value)
    if not finite.all():
        bad = np.argwhere(~finite)
        first = tuple(int(i) for i in bad[0])
        raise ValueRangeError(
            f"{name} has {len(bad)} non-finite values, the first at index {first} ({value[first]}); "
            "expected finite numbers; repair or drop them"
        )


def require_sequences(name: str, value: Array, features: int) -> None:
    """Raise ShapeError unless `value` is (T, *E, B, `features`) with at least one step and one sequence."""
    want = f"(T, B, {features}) with T >= 1 and B >= 1"
    if value.ndim < 3:
        raise ShapeError(f"{name} has shape {value.shape}; expected {want}, time first; one sequence is {name}[:, None, :]")
    if value.shape[-1] != features:
        raise ShapeError(f"{name} has shape {value.shape}, so {value.shape[-1]} features; expected {want}")
    if value.shape[0] == 0:
        raise ShapeError(f"{name} has shape {value.shape}, so T = 0 steps; expected {want}")
    if 0 in value.shape:
        raise ShapeError(f"{name} has shape {value.shape}, so B = 0 sequences; expected {want}")


def require_lengths(name: str, value: object, steps: int, rows: int) -> Array | None:
    """`value` as (B,) int64 from 1 to T; None stays None, and so does what says that all rows have all steps."""
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise DTypeError(f"{name} is a {kind}; expected an array of integers; try numpy.asarray({name}, dtype=int)")
    if value.shape != (rows,):
        raise ShapeError(f"{name} has shape {value.shape}; expected one entry for each of the B = {rows} rows")
    if value.min() < 1 or value.max() > steps:
        bad = value.min() if value.min() < 1 else value.max()
        raise ValueRangeError(f"{name} holds {bad}; expected 1 to T = {steps}")
    return None if bool((value == steps).all()) else value.astype(np.int64)


def require_count(name: str, value: object, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`; booleans, floats and text are refused."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        advice = f"; try {int(value)}" if isinstance(value, float) and value.is_integer() else ""
        raise DTypeError(f"{name} is {value!r}; expected an integer >= {minimum}{advice}")
    if value < minimum:
        raise ValueRangeError(f"{name} is {value}; expected an integer >= {minimum}")
    return int(value)


def require_positive(name: str, value: object) -> float:
    """`value` as a finite float above 0; booleans and text are refused."""
    number = require_number(name, value, "a finite number > 0")
    if number <= 0:
        raise ValueRangeError(f"{name} is {value}; expected a finite number > 0")
    return number


def require_callable(name: str, value: object, meaning: str) -> None:
    """Raise DTypeError unless `value` can be called; `meaning` is what was expected."""
    if not callable(value):
        raise DTypeError(f"{name} is {value!r}; expected a function {meaning}")


def require_flag(name: str, value: object) -> bool:
    """`value` if it is True or False, and not merely something that counts as one."""
    if not isinstance(value, (bool, np.bool_)):
        raise DTypeError(f"{name} is {value!r}; expected True or False")
    return bool(value)


def require_generator(name: str, value: object) -> np.random.Generator:
    """`value` if it is a Generator: seeds are chosen by the outermost caller."""
    if not isinstance(value, np.random.Generator):
        raise DTypeError(f"{name} is {value!r}; expected a numpy.random.Generator; try numpy.random.default_rng(0)")
    return value
