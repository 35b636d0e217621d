"""How many parameters a cell has, under a stated convention for its biases."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from gradlab._validate import require_count
from gradlab.cells.clockwork import Clockwork
from gradlab.cells.completed import as_cell
from gradlab.errors import ValueRangeError


def parameter_count(cell: Any, input_size: int, hidden_size: int, biases: Literal["own", "one", "two", "none"] = "own") -> int:
    """Trainable numbers of one layer of `cell`, without a network's read-out.

    `biases`: "own" as gradlab stores them; "one" bias vector for each gate or block, as most papers count; "two" of them, as
    PyTorch stores (and Keras for the GRU); "none". A ratio of counts means nothing without the convention.
    Entries of a Clockwork's U that do not exist are not counted.
    """
    if biases not in ("own", "one", "two", "none"):
        raise ValueRangeError(f'biases is {biases!r}; expected "own", "one", "two" or "none"')
    D, H = require_count("input_size", input_size), require_count("hidden_size", hidden_size)
    complete = as_cell(cell)
    sizes = {key: np.size(value) for key, value in complete.init(np.random.default_rng(0), D, H).items()}
    if isinstance(complete, Clockwork):
        sizes["U"] = int(complete.connections(H).sum())
    # b_hn of the GRU is the second bias of its candidate, not a block of its own.
    one = sum(size for key, size in sizes.items() if key in ("b", "b_y"))
    own = sum(size for key, size in sizes.items() if key.startswith("b") and key != "beta")
    return sum(sizes.values()) - own + {"own": own, "one": one, "two": 2 * one, "none": 0}[biases]
