"""Hypothesis strategies: networks, parameters, sequences and whole examples; small first, so that failures shrink to few steps.

    >>> from hypothesis import given
    >>> from gradlab.checks import check_example, strategies
    >>> @given(strategies.examples())
    ... def test_gradients(example):
    ...     check_example(example).raise_for_failure()

Sizes and kinds are drawn by hypothesis. The many entries of weights come from one generator, whose seed is drawn:
thousands of single floats would make shrinking slow without making it better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradlab.cells import ALL
from gradlab.checks.comparison import RTOL
from gradlab.checks.example import Example, random_cotangent
from gradlab.network import Network

Array = npt.NDArray[Any]

ENTRIES = st.floats(-2.0, 2.0, width=16, allow_subnormal=False)
"""Inputs: short numbers, which print and shrink well."""

PARAMETERS = ("zero", "plain", "small", "identity", "orthogonal", "radius", "tiny", "saturating", "huge")
"""Kinds of parameters, see `parameters`; the first ones are the simplest."""
GENTLE = PARAMETERS[:6]
"""Those under which nothing saturates, overflows or underflows."""
SEQUENCES = ("any", "zero", "constant", "repeated rows")
"""Kinds of sequences, see `sequences`."""


def sizes(steps: int = 5, batch: int = 2, inputs: int = 2, hidden: int = 3) -> st.SearchStrategy[tuple[int, int, int, int]]:
    """(T, B, D, H), each from 1 to its bound."""
    return st.tuples(*(st.integers(1, bound) for bound in (steps, batch, inputs, hidden)))


def parameters(shapes: Mapping[str, tuple[int, ...]], kinds: Sequence[str] = PARAMETERS) -> st.SearchStrategy[dict[str, Array]]:
    """Parameters of the given shapes, all of one of `kinds`.

    "plain" is uniform in +-1, "small" in +-1/4, "tiny" in +-1e-30, "huge" in +-1e3, "saturating" has biases (vectors) of +-40
    and weights in +-1. "identity", "orthogonal" and "radius" (spectral radius 0.5, 1 or 1.5) make every square block of a
    matrix (n k, n) so, that is the recurrent weights gate by gate; the rest is plain.
    """
    return st.builds(_parameters, st.just(dict(shapes)), st.sampled_from(list(kinds)), _seeds(), st.sampled_from([0.5, 1.0, 1.5]))


def sequences(T: int, B: int, D: int, kinds: Sequence[str] = SEQUENCES) -> st.SearchStrategy[Array]:
    """Inputs (T, B, D): any, zero, constant in time, or the same in every row."""
    return st.sampled_from(list(kinds)).flatmap(lambda kind: _sequence(kind, T, B, D))


def lengths(T: int, B: int) -> st.SearchStrategy[Array | None]:
    """None, or the steps (B,) of each row, at least 1."""
    return st.none() | st.lists(st.integers(1, T), min_size=B, max_size=B).map(np.array)


@st.composite
def networks(
    draw: st.DrawFn, cells: Any = ALL, *, input_size: int = 2, hidden_size: int = 3, layers: Sequence[int] = (1, 2)
) -> Network:
    """A network over one of `cells` (a cell, or a list of them): deep or not, both directions or one, read-out or none."""
    several = list(cells) if isinstance(cells, (list, tuple)) else [cells]
    return Network(
        draw(st.sampled_from(several)),
        draw(st.integers(1, input_size)),
        draw(st.integers(1, hidden_size)),
        output_size=draw(st.sampled_from([None, 2])),
        num_layers=draw(st.sampled_from(list(layers))),
        bidirectional=draw(st.booleans()),
        readout=draw(st.sampled_from(["every", "last"])),
    )


@st.composite
def examples(
    draw: st.DrawFn,
    cells: Any = ALL,
    *,
    steps: int = 5,
    batch: int = 2,
    layers: Sequence[int] = (1, 2),
    kinds: Sequence[str] = GENTLE,
    rtol: float = RTOL,
) -> Example:
    """An `Example` over one of `cells` (a cell, or a list of them): a network, parameters, inputs, lengths, initial states.

    Under the `kinds` of parameters drawn by default nothing saturates. With `kinds=strategies.PARAMETERS` something does, and
    about a tenth of the examples are UNRESOLVED (floor): there a backward pass may have lost its digits.
    """
    net = draw(networks(cells, layers=layers))
    T, B = draw(st.integers(1, steps)), draw(st.integers(1, batch))
    params = draw(parameters(net.shapes, kinds))
    x = draw(sequences(T, B, net.input_size))
    rng = np.random.default_rng(draw(_seeds()))
    initial = {}
    if draw(st.booleans()):
        initial = {layer.name: rng.uniform(-1.0, 1.0, (B, layer.state_size)) for layer in net.layers}
    return Example(net, params, x, initial, random_cotangent(net, rng, T, B), draw(lengths(T, B)), rtol)


def _seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32 - 1)


def _parameters(shapes: Mapping[str, tuple[int, ...]], kind: str, seed: int, radius: float) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    scale = {"zero": 0.0, "small": 0.25, "tiny": 1e-30, "huge": 1e3}.get(kind, 1.0)
    found = {key: scale * rng.uniform(-1.0, 1.0, shape) for key, shape in shapes.items()}
    if kind == "saturating":
        found = {k: 40.0 * rng.choice([-1.0, 1.0], v.shape) if v.ndim == 1 else v for k, v in found.items()}
    make: dict[str, Callable[[Array], Array]] = {
        "identity": lambda block: np.eye(len(block)),
        "orthogonal": lambda block: np.linalg.qr(block)[0],
        "radius": lambda block: block * (radius / max(np.abs(np.linalg.eigvals(block)).max(), 1e-3)),
    }
    if kind in make:
        for value in found.values():
            if value.ndim == 2 and value.shape[0] % value.shape[1] == 0:
                n = value.shape[1]
                for first in range(0, len(value), n):
                    value[first : first + n] = make[kind](value[first : first + n])
    return found


def _sequence(kind: str, T: int, B: int, D: int) -> st.SearchStrategy[Array]:
    if kind == "zero":
        return st.just(np.zeros((T, B, D)))
    if kind == "constant":
        return hnp.arrays(np.float64, (1, B, D), elements=ENTRIES).map(lambda x: np.repeat(x, T, axis=0))
    if kind == "repeated rows":
        return hnp.arrays(np.float64, (T, 1, D), elements=ENTRIES).map(lambda x: np.repeat(x, B, axis=1))
    return hnp.arrays(np.float64, (T, B, D), elements=ENTRIES)
