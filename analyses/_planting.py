"""How a defect is planted, a broken copy of a cell or of a function of the engine, and the label that a check must give it.

Every defect has a size: derivatives come out as right + size * (wrong - right), 1 is the whole defect.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.checks import Example, GradientReport, random_example

Array = npt.NDArray[Any]
Place = tuple[str, str, int, int]
"""(quantity, gate, step, row), as a finding has them."""
Plant = Callable[[Any, float], AbstractContextManager[Any]]
"""(the right cell, size) -> a cell to check within the context."""

T, B, D, H = 5, 2, 2, 3
"""The sizes on which the labels are written down."""
CARRIED = "each single step is right; what is wrong is how steps are put together"
"""What the report says where no single step is wrong; as `made` of a `defect`: just that."""


@dataclass(frozen=True)
class Defect:
    """A planted defect and its label.

    `label`: every place that must FAIL, and no other may; `made`: where a single step is wrong (quantity, gate, step), empty
    if each is right. `reading`: words of the sentence that the report must say, None if it may be silent or say anything.
    `options`: of `random_example`. `in_engine`: the defect is not the cell's.
    """

    name: str
    cell: Any
    plant: Plant
    label: frozenset[Place]
    made: frozenset[tuple[str, str, int]]
    reading: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    in_engine: bool = False

    @property
    def family(self) -> str:
        """The class of its cell, or "engine"."""
        return "engine" if self.in_engine else type(self.cell).__name__

    def example(self, cell: Any, seed: int) -> Example:
        """Numbers drawn from `seed`, over `cell`."""
        return random_example(cell, T=T, B=B, D=D, H=H, seed=seed, **self.options)


def places(text: str) -> frozenset[Place]:
    """The places of "W,U[i,f] ####.; s[c] ....#.@1": quantities of layer 0 with their gates, a sign for each step, one row."""
    found = set()
    for piece in filter(None, (part.strip() for part in text.split(";"))):
        names, gates, signs, row = re.fullmatch(r"([^\[\]]+?)(?:\[(.*)\])? ([#.]+)(?:@(\d))?", piece).groups()  # type: ignore[union-attr]
        for name in names.split(","):
            if name in ("s", "s_prev"):
                name = f"{name} 0"
            elif name != "x" and "." not in name:
                name = f"0.{name}"
            for gate in (gates or "").split(","):
                for step in (k for k, sign in enumerate(signs) if sign == "#"):
                    found |= {(name, gate, step, n) for n in ([int(row)] if row else range(B))}
    return frozenset(found)


def found(report: GradientReport) -> frozenset[Place]:
    """The places of a report that FAIL."""
    return frozenset((one.quantity, one.gate, one.step, one.row) for one in report.findings if one.verdict == "FAIL")


def found_in_single_steps(report: GradientReport) -> frozenset[tuple[str, str, int]]:
    """(quantity, gate, step) of the lines that say where a derivative is made wrong."""
    wrong = set()
    for line in report.one_step:
        match = re.fullmatch(r"wrong where it is made: d([^\[\]]+?)(?:\[(.*)\])?, (every step|step ([\d, ]+))", line)
        if match is not None:
            name, gates, when, steps = match.groups()
            at = range(T) if when == "every step" else [int(step) for step in steps.split(",")]
            wrong |= {(name, gate.strip(), step) for gate in (gates or "").split(",") for step in at}
    return frozenset(wrong)


def defect(name: str, cell: Any, plant: Plant, label: str, made: str | None = None, **rest: Any) -> Defect:
    """`label`, `made`: see `places`. Without `made` the defect is local: single steps show it where it is."""
    where = places(label)
    single = where if made is None else places("" if made == CARRIED else made)
    steps = frozenset((f"{quantity} 0" if quantity == "x" else quantity, gate, step) for quantity, gate, step, _ in single)
    return Defect(name, cell, plant, where, steps, **rest)


def mixed(right: Array, wrong: Array, size: float) -> Array:
    """Right + size * (wrong - right); the whole defect without rounding."""
    return np.asarray(wrong) if size == 1.0 else right + size * (wrong - right)


def put(array: Array, at: Any, value: Any) -> Array:
    """A copy with other entries at `at`."""
    changed = np.array(array)
    changed[at] = value
    return changed


METHODS = {
    "step_vjp": ("p", "a", "s_prev", "s", "delta", "da", "ds", "t"),
    "param_grads": ("p", "x", "a", "s", "da", "delta", "t"),
    "input_grad": ("p", "da"),
    "vjp": ("params", "x_t", "s_prev", "delta", "t"),
}
"""Methods that may be broken, with short names of their arguments."""


def _results(method: str, given: dict[str, Any], result: Any) -> dict[str, Array]:
    """What a call has given, by name: "da" and "ds"; each parameter; "dx"; each parameter, "x" and "s"."""
    if method == "step_vjp":
        return {key: given[key].copy() for key in ("da", "ds")}
    if method == "param_grads":
        return dict(result)
    return {"dx": result} if method == "input_grad" else {**result[0], "x": result[1], "s": result[2]}


def altered(cell: Any, method: str, wrong: Callable[[Any], Mapping[str, Array]], size: float) -> Any:
    """A copy of `cell` with some results of a method replaced by those of `wrong`.

    `wrong` sees the arguments by name, `v.right`, the results by name, and `v.again(name=value)`: the results of the right
    method for other arguments.
    """
    names, call = METHODS[method], getattr(cell, method)

    def again(given: dict[str, Any], **changed: Any) -> dict[str, Array]:
        fresh = {**given, **changed}
        if method == "step_vjp":
            fresh |= {key: np.empty_like(given[key]) for key in ("da", "ds")}
        return _results(method, fresh, call(*fresh.values()))

    def broken(*args: Any) -> Any:
        given = dict(zip(names, args, strict=True))
        right = _results(method, given, call(*args))
        seen = SimpleNamespace(**{**given, **({"da": right["da"], "ds": right["ds"]} if method == "step_vjp" else {})})
        seen.right, seen.again = right, lambda **changed: again(given, **changed)
        result = {**right, **{key: mixed(right[key], value, size) for key, value in wrong(seen).items()}}
        if method == "step_vjp":
            given["da"][...], given["ds"][...] = result["da"], result["ds"]
            return None
        if method == "vjp":
            return {key: result[key] for key in args[0]}, result["x"], result["s"]
        return result["dx"] if method == "input_grad" else result

    return copied(cell, method, broken)


def copied(cell: Any, method: str, replacement: Callable[..., Any]) -> Any:
    """A copy of `cell` with another method."""
    other = copy.copy(cell)
    setattr(other, method, replacement)
    return other


def in_cell(method: str, wrong: Callable[[Any], Mapping[str, Array]]) -> Plant:
    """A defect in one method of the cell, see `altered`."""

    @contextmanager
    def plant(cell: Any, size: float) -> Iterator[Any]:
        yield altered(cell, method, wrong, size)

    return plant


def step(wrong: Callable[[Any], Mapping[str, Array]]) -> Plant:
    """A defect in the adjoint of a step: "da" of the pre-activations, "ds" of the state before."""
    return in_cell("step_vjp", wrong)


def grads(wrong: Callable[[Any], Mapping[str, Array]]) -> Plant:
    """A defect in the contraction that makes the parameters' gradients."""
    return in_cell("param_grads", wrong)


def inputs(wrong: Callable[[Any], Mapping[str, Array]]) -> Plant:
    """A defect in the gradient of the inputs, "dx"."""
    return in_cell("input_grad", wrong)


def in_vjp(wrong: Callable[[Any], Mapping[str, Array]]) -> Plant:
    """A defect in a user's `vjp`: the parameters by name, "x", and "s" of the state before."""
    return in_cell("vjp", wrong)


def in_engine(module: ModuleType, name: str, wrong: Callable[[Callable[..., Any], float], Callable[..., Any]]) -> Plant:
    """A defect in a function of the engine: `wrong(the right function, size)` stands in its place for a while."""

    @contextmanager
    def plant(cell: Any, size: float) -> Iterator[Any]:
        right = getattr(module, name)
        setattr(module, name, wrong(right, size))
        try:
            yield cell
        finally:
            setattr(module, name, right)

    return plant
