"""Analyses: arrays in, one frozen result out, with its status and its unit."""

from __future__ import annotations

from gradlab.analysis.gradient_flow import GradientFlow, MemoryHorizon, gradient_flow, memory_horizon
from gradlab.analysis.jacobians import jacobians
from gradlab.analysis.network_jacobian import NetworkJacobian, network_jacobian
from gradlab.analysis.products import JacobianProduct, jacobian_product
from gradlab.analysis.spectra import JacobianSpectra, jacobian_spectra

__all__ = [
    "GradientFlow",
    "JacobianProduct",
    "JacobianSpectra",
    "MemoryHorizon",
    "NetworkJacobian",
    "gradient_flow",
    "jacobian_product",
    "jacobian_spectra",
    "jacobians",
    "memory_horizon",
    "network_jacobian",
]
