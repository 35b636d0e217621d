"""What a gradient check costs, beside torch's `gradcheck`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import gradlab
from analyses._speed_rows import Row, Sides, installed

CHECK = "check of an LSTM with 72 parameters"
PROPERTY = "property of 100 random LSTMs"
CHECKED = {"T": 6, "B": 2, "D": 2, "H": 3}
"""Sizes of the example that is checked: 72 parameters."""
MEANT = {CHECK: 15.0, PROPERTY: 2000.0}
"""Milliseconds that the checks were meant to take."""


def checks(rng: np.random.Generator, p: Mapping[str, Any]) -> Sides:
    """The check of one example, everything anew each time, and torch's of an LSTM with the same parameters."""
    import torch

    example = gradlab.checks.random_example(gradlab.LSTM(), **CHECKED)
    module = torch.nn.LSTM(CHECKED["D"], CHECKED["H"]).double()
    x = torch.from_numpy(example.x)
    start = torch.from_numpy(example.initial["0"])
    c_0, h_0 = (part.contiguous()[None] for part in start.split(CHECKED["H"], dim=1))
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")
    given = tuple(torch.from_numpy(value.copy()).requires_grad_() for value in example.params.values())

    def outputs(*values: Any) -> Any:
        weights = {**dict(zip(names, values, strict=True)), "bias_hh_l0": torch.zeros_like(values[-1])}
        return torch.func.functional_call(module, weights, (x, (h_0, c_0)))[0]

    def ours() -> object:
        fresh = replace(example)  # without the record that an example keeps
        report = gradlab.checks.check_example(fresh)
        products = gradlab.checks.block_products(fresh, np.random.default_rng(0))
        return report.verdict == "PASS" and all(one.passed for one in products)

    def theirs() -> object:
        return torch.autograd.gradcheck(outputs, given)

    gap = np.abs(example.record.outputs - outputs(*given).detach().numpy()).max()
    if not (gap <= 1e-12 and ours() and theirs()):
        raise gradlab.errors.NumericalError(
            f"{CHECK}: outputs differ by {gap:.1e}, or a check does not pass; no time has a meaning"
        )
    return ours, {"torch": theirs}


ROW = Row(CHECK, checks, {"torch": None})


def property_of(examples: int) -> Callable[[], object] | None:
    """A hypothesis test over random LSTMs of all kinds of weights, as a user would write it; None without hypothesis."""
    if not installed("hypothesis"):
        return None
    from hypothesis import HealthCheck, Phase, given, settings

    drawn = gradlab.checks.strategies.examples(gradlab.LSTM(), layers=(1,))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],  # no shrinking: all examples pass, or the time has no meaning
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn)
    def gradients(example: Any) -> None:
        if gradlab.checks.check_example(example, replay=False).verdict == "FAIL":
            raise gradlab.errors.NumericalError(f"{PROPERTY}: a right gradient is rejected")

    return gradients
