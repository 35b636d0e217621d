"""The analyses: one file is one claim and one figure. `ALL` is the order of the table.

A file has what `gradlab.runs.Analysis` says, and computes in one piece (`compute`, see `gradlab.runs.Whole`) or in tasks
(`tasks`, `run_task`, `collect`, see `gradlab.runs.Split`; `adding` is one). Whatever takes minutes and has independent
parts, such as lengths, cells or rates, belongs into tasks: they run side by side, and a killed run loses only those in flight.
A new sentence, claim or picture recomputes nothing; `gradlab.runs.sources` says what does.
"""

from __future__ import annotations

from typing import cast

from analyses import (
    adding,
    bounds,
    curvature,
    diagnosis_accuracy,
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
        diagnosis_accuracy,
        speed,
    )
}
