"""Curvature of a loss: the eigenvalues at both ends of its Hessian, sharpness, trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_count, require_generator, require_one_of, require_positive
from gradlab.analysis.eigenpairs import NO_PAIRS, Eigenpairs, end_of_spectrum
from gradlab.analysis.hessian import Hessian
from gradlab.analysis.lanczos import Matvec, checked_operator, probed, rademacher, standard_error
from gradlab.errors import ValueRangeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ExtremeEigenvalues:
    """`largest` and `smallest` (most negative) eigenvalues, outermost first; an end that was not asked for has none.

    `status`: `nonconverged` if some were not found (NaN) or not to the tolerance asked for.
    """

    largest: Eigenpairs
    smallest: Eigenpairs
    status: Status


def extreme_eigenvalues(
    operator: Hessian | Matvec,
    k: int = 1,
    *,
    rng: np.random.Generator,
    size: int | None = None,
    ends: Literal["both", "largest", "smallest"] = "both",
    tol: float = 1e-10,
    restarts: int = 100,
) -> ExtremeEigenvalues:
    """The `k` largest and `k` smallest eigenvalues of a symmetric operator, with eigenvectors and residual norms.

    `operator`: a `Hessian`, or any function v (n,) -> A v (n,) with `size` = n. By implicitly restarted Lanczos (ARPACK,
    through scipy), at most `restarts` times; as a whole matrix where n is small or k near n. `tol` is relative to the
    largest modulus of the spectrum.

    Errors: NumericalError, ShapeError, DTypeError if the operator is not symmetric, linear, finite, the same twice;
    ValueRangeError for k > n. Source: Lehoucq, Sorensen & Yang (1998), ARPACK Users' Guide.
    """
    rng = require_generator("rng", rng)
    k, restarts, tol = require_count("k", k), require_count("restarts", restarts), require_positive("tol", tol)
    require_one_of("ends", ends, ("both", "largest", "smallest"))
    checked = checked_operator(operator, size, rng)
    if k > checked.size:
        raise ValueRangeError(f"k is {k}; expected at most the size of the operator, {checked.size}")
    found, faults = {"largest": NO_PAIRS, "smallest": NO_PAIRS}, []
    for name in ("largest", "smallest") if ends == "both" else (ends,):
        found[name], fault = end_of_spectrum(checked, k, 1.0 if name == "largest" else -1.0, rng, tol, restarts)
        faults += [f"{name}: {fault}"] * bool(fault)
    return ExtremeEigenvalues(found["largest"], found["smallest"], Status("nonconverged", "; ".join(faults)) if faults else OK)


@dataclass(frozen=True)
class Sharpness:
    """The largest eigenvalue of the Hessian against the learning rate of plain gradient descent.

    `value`, and `residual`, within which some eigenvalue lies; `vector` (n,), its eigenvector.
    `limit` = 2 / `learning_rate`; `ratio` = value / limit. On a quadratic loss gradient descent diverges along `vector`
    where ratio > 1 and converges where 0 < ratio < 1. `status` as in `ExtremeEigenvalues`.
    """

    value: float
    residual: float
    vector: Array
    learning_rate: float
    limit: float
    ratio: float
    status: Status


def sharpness(
    operator: Hessian | Matvec,
    learning_rate: float,
    *,
    rng: np.random.Generator,
    size: int | None = None,
    tol: float = 1e-10,
    restarts: int = 100,
) -> Sharpness:
    """Largest eigenvalue against 2/learning rate, the edge of stability (Cohen et al. 2021, sec. 2).

    Arguments and errors as for `extreme_eigenvalues`; ValueRangeError unless learning_rate > 0.
    """
    eta = require_positive("learning_rate", learning_rate)
    found = extreme_eigenvalues(operator, 1, rng=rng, size=size, ends="largest", tol=tol, restarts=restarts)
    value, residual = float(found.largest.values[0]), float(found.largest.residuals[0])
    return Sharpness(value, residual, found.largest.vectors[0], eta, 2.0 / eta, 0.5 * eta * value, found.status)


@dataclass(frozen=True)
class TraceEstimate:
    """An unbiased estimate of the trace: `value` is the mean of `samples` (K,), `standard_error` that of the mean.

    `status`: `too-short` for one probe, whose error is unknown (NaN) unless the matrix is diagonal.
    """

    value: float
    standard_error: float
    samples: Array
    status: Status


def hessian_trace(
    operator: Hessian | Matvec,
    *,
    rng: np.random.Generator,
    probes: int = 32,
    size: int | None = None,
    progress: Progress | None = None,
) -> TraceEstimate:
    """Trace by Hutchinson's estimator: the mean of <z, A z> over `probes` vectors z of random signs.

    Its variance per probe is 2 (|A|_F^2 - sum_i a_ii^2): exact for a diagonal matrix. `progress(done, total)`.
    Errors as for `extreme_eigenvalues`. Source: Hutchinson (1990), Commun. Stat. Simul. 19.
    """
    rng = require_generator("rng", rng)
    probes = require_count("probes", probes)
    checked = checked_operator(operator, size, rng)
    samples = np.empty(probes)
    for first in range(0, probes, checked.at_once):
        Z = rademacher(rng, min(checked.at_once, probes - first), checked.size)
        samples[first : first + len(Z)] = np.einsum("kn,kn->k", Z, checked.apply(Z))
        if progress is not None:
            progress(first + len(Z), probes)
    samples *= checked.unit
    return TraceEstimate(float(samples.mean()), float(standard_error(samples)), samples, probed(probes))
