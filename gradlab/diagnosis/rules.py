"""The rules, causes before what they cause: of two equally severe findings the earlier one makes the headline."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gradlab.diagnosis import (
    rules_clipping,
    rules_curvature,
    rules_data,
    rules_flow,
    rules_gates,
    rules_history,
    rules_nonfinite,
    rules_structure,
)
from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding

Rule = Callable[[Evidence], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    rules_nonfinite.nonfinite,
    rules_data.padding_counted,
    rules_data.input_scale,
    rules_gates.dead_relu,
    rules_gates.saturated,
    rules_gates.forget_closed,
    rules_flow.transient_growth,
    rules_flow.exploding,
    rules_flow.vanishing,
    rules_history.flow_history,
    rules_flow.short_horizon,
    rules_structure.truncation_short,
    rules_structure.unused,
    rules_structure.initial_state,
    rules_structure.ill_conditioned,
    rules_curvature.cliff,
    rules_history.loss_jumps,
    rules_clipping.clipping_always,
    rules_clipping.clipping_never,
    rules_clipping.clipping_inactive,
    rules_history.update_ratio,
)
