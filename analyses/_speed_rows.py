"""One row of the timing analysis: the same numbers by gradlab and by others, compared before any clock starts."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab.runs.threads import limited

Array = npt.NDArray[Any]
Call = Callable[[], Any]
Sides = tuple[Call, dict[str, Call]]
"""What gradlab runs, and what each peer runs that is installed."""


@dataclass(frozen=True)
class Row:
    """`make(rng, p)` builds both sides from the parameters of the analysis and raises unless they agree.

    `targets` by peer: how many times as fast gradlab is meant to be; None where the peer is only shown.
    `claimed`: part of the claim, and so of the verdict. `blas_threads` of gradlab's side: 1 where it runs threads of its
    own; None leaves them all.
    """

    name: str
    make: Callable[[np.random.Generator, Mapping[str, Any]], Sides]
    targets: Mapping[str, float | None]
    claimed: bool = False
    blas_threads: int | None = None

    @property
    def key(self) -> str:
        """The name of the row's seconds, (pairs, 1 + peers): gradlab, then the peers in the order of `targets`."""
        return f"{self.name}_seconds"

    def ratios(self, result: Mapping[str, Array], peer: str) -> Array:
        """Paired ratios gradlab / peer; NaN where the peer was not there."""
        seconds = result[self.key]
        ratio: Array = seconds[:, 0] / seconds[:, 1 + list(self.targets).index(peer)]
        return ratio

    def met(self, result: Mapping[str, Array], peer: str) -> bool:
        """Whether the median of the paired ratios reaches the target."""
        target = self.targets[peer]
        return target is not None and bool(np.median(self.ratios(result, peer)) <= 1.0 / target)


def installed(name: str) -> bool:
    """Whether a library is there, without importing it."""
    return importlib.util.find_spec(name) is not None


@contextmanager
def jax_in_double() -> Iterator[None]:
    """JAX computes in float32 unless told otherwise: told so inside, and put back."""
    if not installed("jax"):
        yield
        return
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def require_equal(name: str, what: str, peer: str, found: Array, expected: Any, tolerance: float) -> None:
    """Raise NumericalError unless max|a - b| <= tolerance max|b|, and both are numbers of one shape."""
    found, expected = np.asarray(found), np.asarray(expected)
    size = float(np.abs(expected).max())
    gap = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    if not (gap <= tolerance * size and 0.0 < size < np.inf):
        raise gradlab.errors.NumericalError(
            f"{name}: the two {what} differ by {gap:.1e} (gradlab and {peer}); a ratio of times would mean nothing"
        )


def digits(fold: float) -> str:
    """Two digits, never with an exponent: 240, 31, 0.37."""
    return np.format_float_positional(fold, precision=2, fractional=False, trim="-")


def timed(call: Call, p: Mapping[str, Any]) -> float:
    """Seconds of one run: the median of a few in a row, after a pause and one run that is not counted.

    So neither side is timed against the other's waiting threads. Runs that take long are fewer.
    """
    time.sleep(p["pause_seconds"])
    call()
    seconds: list[float] = []
    while len(seconds) < p["runs_in_a_row"] and sum(seconds) < p["seconds_in_a_row"]:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def measure(row: Row, rng: np.random.Generator, p: Mapping[str, Any], pairs: int, told: Callable[[], None]) -> Array:
    """Seconds (pairs, 1 + peers), all sides in turn; NaN for a peer that is not installed. `told` after each pair."""
    ours, theirs = row.make(rng, p)
    seconds = np.full((pairs, 1 + len(row.targets)), np.nan)
    for pair in range(pairs):
        with limited(row.blas_threads):
            seconds[pair, 0] = timed(ours, p)
        for k, peer in enumerate(row.targets, start=1):
            if peer in theirs:
                seconds[pair, k] = timed(theirs[peer], p)
        told()
    return seconds
