"""What a rule says: code, severity, place, numbers; what to do about it stands in the catalogue under the same code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
"""From the least to the gravest. info: worth knowing, no reason not to train. warning: training will suffer.
error: what is asked for cannot be learned like this."""


@dataclass(frozen=True)
class Place:
    """Where. What does not apply is "" or None.

    `layer`: as in the record ("0", "1.backward"), behind the module's path if there is one ("encoder.lstm.0.forward").
    `direction`: "forward" or "backward" of a bidirectional layer. `gate`: a gate or part of the state, as the cell names it.
    `timestep`: which input of the sequence, from 0, as the data count (also in the backward direction).
    `lag`: steps back from the end. `update`: of training, from 0. `parameter`: "0.U".
    `phase`: of a pass, "forward" or "backward".
    """

    layer: str = ""
    direction: str = ""
    gate: str = ""
    timestep: int | None = None
    lag: int | None = None
    update: int | None = None
    parameter: str = ""
    phase: str = ""

    def __str__(self) -> str:
        words = [f"layer {self.layer}"] * bool(self.layer) + [f"gate {self.gate}"] * bool(self.gate)
        words += [f"parameter {self.parameter}"] * bool(self.parameter)
        words += [f"{self.phase} pass"] * bool(self.phase)
        for name, word in (("timestep", "step"), ("lag", "lag"), ("update", "update")):
            value = getattr(self, name)
            words += [f"{word} {value}"] * (value is not None)
        return ", ".join(words) or "the whole run"


@dataclass(frozen=True)
class Number:
    """A measured number: its unit, its interval where it is an estimate, and the threshold that it was held against."""

    value: float
    unit: str = ""
    interval: tuple[float, float] | None = None
    threshold: float | None = None

    def __str__(self) -> str:
        text = f"{self.value:.3g}" + (f" [{self.interval[0]:.3g}, {self.interval[1]:.3g}]" if self.interval else "")
        return text + (f" {self.unit}" if self.unit else "")


@dataclass(frozen=True)
class Finding:
    """One thing that a rule found.

    `code`: a key of the catalogue. `message`: one sentence with the numbers, without the place. `numbers`: the first is the one
    that decided. `remedies`, `reference`: see `gradlab.diagnosis.catalogue`.
    """

    code: str
    severity: Severity
    place: Place
    message: str
    numbers: Mapping[str, Number] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.severity}: {self.code} at {self.place}: {self.message}"

    def as_json(self) -> dict[str, Any]:
        """Plain values; what is not finite is None, with its name in "non_finite"."""
        numbers, bad = {}, []
        for name, one in self.numbers.items():
            entry = asdict(one)
            entry["interval"] = None if one.interval is None else [_plain(end) for end in one.interval]
            entry["value"] = _plain(one.value)
            bad += [name] * (entry["value"] is None)
            numbers[name] = entry
        place = {name: value for name, value in asdict(self.place).items() if value not in ("", None)}
        return {
            "code": self.code,
            "severity": self.severity,
            "place": place,
            "message": self.message,
            "numbers": numbers,
            "non_finite": bad,
        }


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
