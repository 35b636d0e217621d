"""Pictures: functions of (ax, result). matplotlib is imported here and in an analysis' draw(), nowhere else."""

from __future__ import annotations

from gradlab.plotting import library  # first: the others import matplotlib
from gradlab.plotting.curvature import plot_sharpness, plot_spectral_density
from gradlab.plotting.curves import band, reference_line
from gradlab.plotting.fixed_points import plot_bifurcation, plot_fixed_points
from gradlab.plotting.flow import plot_gradient_flow, plot_memory_horizon
from gradlab.plotting.gates import plot_gate_flow, plot_gate_saturation, plot_time_constants, plot_unit_activity
from gradlab.plotting.loss_surface import plot_loss_line, plot_loss_slice, plot_loss_surface, plot_trajectory
from gradlab.plotting.lyapunov import plot_exponent_against_gain, plot_lyapunov_convergence, plot_lyapunov_spectrum
from gradlab.plotting.spectra import (
    plot_conditioning,
    plot_eigenvalues,
    plot_pseudospectrum,
    plot_singular_values,
    plot_transient_growth,
)
from gradlab.plotting.style import COLOURS, COLUMN, LINES, PAGE, new_figure, panel_label, stamp, style
from gradlab.plotting.surface import plot_surface, plot_surface_3d
from gradlab.plotting.temporal import plot_flow_map, plot_lag_split, plot_paths
from gradlab.plotting.theory import (
    plot_circular_law,
    plot_critical_line,
    plot_fisher_memory,
    plot_marchenko_pastur,
    plot_numerical_range,
)
from gradlab.plotting.training import (
    plot_adjoint_map,
    plot_clipping,
    plot_gate_shares,
    plot_loss_with_jumps,
    plot_sharpness_limit,
    plot_update_ratios,
    training_page,
)
from gradlab.plotting.truncation import plot_truncation

__all__ = [
    "COLOURS",
    "COLUMN",
    "LINES",
    "PAGE",
    "band",
    "library",
    "new_figure",
    "panel_label",
    "plot_adjoint_map",
    "plot_bifurcation",
    "plot_circular_law",
    "plot_clipping",
    "plot_conditioning",
    "plot_critical_line",
    "plot_eigenvalues",
    "plot_exponent_against_gain",
    "plot_fisher_memory",
    "plot_fixed_points",
    "plot_flow_map",
    "plot_gate_flow",
    "plot_gate_saturation",
    "plot_gate_shares",
    "plot_gradient_flow",
    "plot_lag_split",
    "plot_loss_line",
    "plot_loss_slice",
    "plot_loss_surface",
    "plot_loss_with_jumps",
    "plot_lyapunov_convergence",
    "plot_lyapunov_spectrum",
    "plot_marchenko_pastur",
    "plot_memory_horizon",
    "plot_numerical_range",
    "plot_paths",
    "plot_pseudospectrum",
    "plot_sharpness",
    "plot_sharpness_limit",
    "plot_singular_values",
    "plot_spectral_density",
    "plot_surface",
    "plot_surface_3d",
    "plot_time_constants",
    "plot_trajectory",
    "plot_transient_growth",
    "plot_truncation",
    "plot_unit_activity",
    "plot_update_ratios",
    "reference_line",
    "stamp",
    "style",
    "training_page",
]
