"""Analyses: arrays in, one frozen result out, with its status and its unit."""

from __future__ import annotations

from gradlab.analysis.branches import Bifurcation, along, bifurcation
from gradlab.analysis.carried import CarriedGradient, carried_gradient
from gradlab.analysis.curvature import ExtremeEigenvalues, Sharpness, TraceEstimate, extreme_eigenvalues, hessian_trace, sharpness
from gradlab.analysis.driven_lyapunov import network_lyapunov
from gradlab.analysis.eigenpairs import Eigenpairs
from gradlab.analysis.fisher import FisherMemory, fisher_memory
from gradlab.analysis.fixed_point_search import FixedPoints, StatePoints, fixed_points
from gradlab.analysis.flow import GradientFlow, MemoryHorizon, gradient_flow, memory_horizon
from gradlab.analysis.folds import FoldPoints, fold_points
from gradlab.analysis.gate_gradients import GateFlow, gate_flow
from gradlab.analysis.gates import (
    GateSaturation,
    GateTimeConstants,
    UnitActivity,
    gate_saturation,
    gate_time_constants,
    unit_activity,
)
from gradlab.analysis.hessian import Hessian, dense_hessian
from gradlab.analysis.hessian_products import hessian_vector_product
from gradlab.analysis.jacobian_stream import jacobians
from gradlab.analysis.lyapunov import LyapunovSpectrum, lyapunov_spectrum
from gradlab.analysis.lyapunov_map import lyapunov_of_map, runge_kutta
from gradlab.analysis.matrix_free import JacobianOperator, jacobian_operator
from gradlab.analysis.mean_field_theory import (
    CriticalLine,
    MeanField,
    RandomTanhMap,
    critical_line,
    gaussian_mean,
    mean_field,
    random_tanh_map,
)
from gradlab.analysis.normality import KreissBound, NonNormality, NumericalRange, kreiss_bound, non_normality, numerical_range
from gradlab.analysis.products import JacobianProduct, PathProducts, jacobian_product, path_products
from gradlab.analysis.pseudospectra import Pseudospectrum, pseudospectrum
from gradlab.analysis.slopes import FlowSlope, flow_slope
from gradlab.analysis.spectra import Conditioning, JacobianSpectra, conditioning, jacobian_spectra
from gradlab.analysis.spectral_densities import SpectralDensity, spectral_density
from gradlab.analysis.stacked_jacobian import NetworkJacobian, network_jacobian
from gradlab.analysis.surface_directions import gradient_direction, named_weights, normalised, random_direction
from gradlab.analysis.surfaces import LossLine, LossSurface, loss_between, loss_surface
from gradlab.analysis.temporal import FlowMap, TemporalComponents, flow_map, temporal_components
from gradlab.analysis.theory import (
    CircularLaw,
    FussCatalan,
    HochreiterBound,
    MarchenkoPastur,
    PascanuBounds,
    circular_law,
    fuss_catalan,
    gaussian_product_exponents,
    hochreiter_bound,
    marchenko_pastur,
    pascanu_bounds,
)
from gradlab.analysis.trajectory import TrajectoryPCA, trajectory_pca
from gradlab.analysis.transient_growth import TransientGrowth, power_growth, product_growth
from gradlab.analysis.truncated_gradients import Truncation, truncation
from gradlab.analysis.wide_spectra import TopSpectrum, top_spectrum

__all__ = [
    "Bifurcation",
    "CarriedGradient",
    "CircularLaw",
    "Conditioning",
    "CriticalLine",
    "Eigenpairs",
    "ExtremeEigenvalues",
    "FisherMemory",
    "FixedPoints",
    "FlowMap",
    "FlowSlope",
    "FoldPoints",
    "FussCatalan",
    "GateFlow",
    "GateSaturation",
    "GateTimeConstants",
    "GradientFlow",
    "Hessian",
    "HochreiterBound",
    "JacobianOperator",
    "JacobianProduct",
    "JacobianSpectra",
    "KreissBound",
    "LossLine",
    "LossSurface",
    "LyapunovSpectrum",
    "MarchenkoPastur",
    "MeanField",
    "MemoryHorizon",
    "NetworkJacobian",
    "NonNormality",
    "NumericalRange",
    "PascanuBounds",
    "PathProducts",
    "Pseudospectrum",
    "RandomTanhMap",
    "Sharpness",
    "SpectralDensity",
    "StatePoints",
    "TemporalComponents",
    "TopSpectrum",
    "TraceEstimate",
    "TrajectoryPCA",
    "TransientGrowth",
    "Truncation",
    "UnitActivity",
    "along",
    "bifurcation",
    "carried_gradient",
    "circular_law",
    "conditioning",
    "critical_line",
    "dense_hessian",
    "extreme_eigenvalues",
    "fisher_memory",
    "fixed_points",
    "flow_map",
    "flow_slope",
    "fold_points",
    "fuss_catalan",
    "gate_flow",
    "gate_saturation",
    "gate_time_constants",
    "gaussian_mean",
    "gaussian_product_exponents",
    "gradient_direction",
    "gradient_flow",
    "hessian_trace",
    "hessian_vector_product",
    "hochreiter_bound",
    "jacobian_operator",
    "jacobian_product",
    "jacobian_spectra",
    "jacobians",
    "kreiss_bound",
    "loss_between",
    "loss_surface",
    "lyapunov_of_map",
    "lyapunov_spectrum",
    "marchenko_pastur",
    "mean_field",
    "memory_horizon",
    "named_weights",
    "network_jacobian",
    "network_lyapunov",
    "non_normality",
    "normalised",
    "numerical_range",
    "pascanu_bounds",
    "path_products",
    "power_growth",
    "product_growth",
    "pseudospectrum",
    "random_direction",
    "random_tanh_map",
    "runge_kutta",
    "sharpness",
    "spectral_density",
    "temporal_components",
    "top_spectrum",
    "trajectory_pca",
    "truncation",
    "unit_activity",
]
