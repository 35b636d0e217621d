"""The analyses: one file is one claim and one figure. `ALL` is the order of the table."""

from __future__ import annotations

from typing import cast

from analyses import (
    adding,
    bounds,
    curvature,
    error_surface,
    forget_gate,
    gradient_checkers,
    gradient_flow,
    gru,
    language,
    lyapunov,
    peepholes,
    simplest_example,
    spectra,
    speed,
    temporal_order,
)
from gradlab.runs import Analysis

ALL: dict[str, Analysis] = {
    module.__name__.rpartition(".")[2]: cast("Analysis", module)
    for module in (
        simplest_example,
        error_surface,
        bounds,
        spectra,
        gradient_flow,
        adding,
        temporal_order,
        forget_gate,
        gru,
        peepholes,
        language,
        lyapunov,
        curvature,
        gradient_checkers,
        speed,
    )
}
