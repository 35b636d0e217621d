"""Ready-made probes for a monitor: `Monitor(probes={"exponent": probes.leading_exponent(net)})`.

They cost more than all else that a monitor does; give it a larger `every`, or a few sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_count
from gradlab.analysis import network_lyapunov
from gradlab.analysis.curvature import extreme_eigenvalues
from gradlab.analysis.hessian import Hessian
from gradlab.analysis.spectra import jacobian_spectra
from gradlab.batch import Batch
from gradlab.errors import ValueRangeError
from gradlab.forward_pass import forward
from gradlab.losses import Loss
from gradlab.network import Network
from gradlab.record import Record

Array = npt.NDArray[Any]
Probe = Callable[[Mapping[str, Array], Any], Array]


def spectral_radius(net: Network, layer: str = "0", steps: int = 4, sequences: int = 2) -> Probe:
    """The median spectral radius of J_t of the full state, (*E,), over `steps` steps and the first `sequences`."""
    _require_layer(net, layer)
    steps, sequences = require_count("steps", steps), require_count("sequences", sequences)

    def probe(params: Mapping[str, Array], record: Record) -> Array:
        run = forward(net, params, _common_steps(record, sequences)).runs[layer]
        T = len(run.t)
        at = np.unique(np.linspace(0, T - 1, min(steps, T)).astype(int))
        J = np.stack([run.window(k, k + 1).jacobians()[0] for k in at])  # (steps, *E, B, S, S)
        return np.asarray(np.median(jacobian_spectra(J).spectral_radius, axis=(0, -1)))

    return probe


def leading_exponent(net: Network, layer: str = "0", sequences: int = 2) -> Probe:
    """The largest Lyapunov exponent along the batch's own trajectories, (*E,), nats per step: the mean over `sequences`."""
    _require_layer(net, layer)
    sequences = require_count("sequences", sequences)

    def probe(params: Mapping[str, Array], record: Record) -> Array:
        inputs = _common_steps(record, sequences)
        found = network_lyapunov(net, params, inputs, 1, rng=np.random.default_rng(0))[layer]  # the same tangent each time
        return np.asarray(found.exponents[..., 0].mean(axis=-1))

    return probe


def sharpness(net: Network, batch: Batch, loss: Loss, tol: float = 1e-3) -> Probe:
    """The largest eigenvalue of the Hessian on one fixed `batch`, to `tol`; one network, no ensemble axes.

    Plain gradient descent is stable along that direction where it is below 2/learning rate (Cohen et al. 2021).
    """

    def probe(params: Mapping[str, Array], record: Any) -> Array:
        operator = Hessian(net, params, batch, loss)
        found = extreme_eigenvalues(operator, 1, rng=np.random.default_rng(0), ends="largest", tol=tol)
        return np.asarray(found.largest.values[0])

    return probe


def _common_steps(record: Record, sequences: int) -> Array:
    """The first sequences, as far as all of them go."""
    inputs = record.inputs[..., :sequences, :]
    return inputs if record.lengths is None else inputs[: int(record.lengths[:sequences].min())]


def _require_layer(net: Network, layer: str) -> None:
    names = [one.name for one in net.layers]
    if layer not in names:
        raise ValueRangeError(f"layer is {layer!r}; expected one of {', '.join(names)}")
