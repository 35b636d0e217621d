"""What the user knows about the training and a record cannot show."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab._validate import require_count, require_positive


@dataclass(frozen=True)
class Circumstances:
    """All optional; a rule that needs what is None stays silent, and the diagnosis says so.

    `learning_rate`; `clip_norm`, `clip_value`: the thresholds that the loop is meant to clip at. `dependency`: how many steps
    lie between an input and the output that needs it. `truncation`: k2, how many steps truncated BPTT goes back.
    """

    learning_rate: float | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    dependency: int | None = None
    truncation: int | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip_norm", "clip_value"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        for name in ("dependency", "truncation"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
