"""What a report shows beside the findings: the gradient by layer and step, spectra of Jacobians, leading exponents.

Each at a bounded cost; what would cost more is left out with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab.analysis.lyapunov import LyapunovSpectrum, lyapunov_spectrum
from gradlab.analysis.spectra import JacobianSpectra, jacobian_spectra
from gradlab.diagnosis.evidence import Evidence, Look, Seen
from gradlab.directions import flip
from gradlab.errors import GradlabError
from gradlab.forward_pass import LayerPass

Array = npt.NDArray[Any]

MOMENTS = 4
"""Steps whose Jacobians are taken apart."""
LARGEST_STATE = 512
"""State variables up to which Jacobians are formed for a report: eigenvalues cost S^3."""
LARGEST_STACK = 2**27
"""Bytes of the Jacobians of one step."""
EXPONENTS, EXPONENT_ROWS, EXPONENT_STEPS = 6, 4, 400
"""How many exponents, over how many sequences and steps at most."""
LARGEST_WORK = 4e9
"""Multiplications that forming Jacobians for exponents may take."""


@dataclass(frozen=True)
class LayerFlow:
    """ln |dL/ds| of one layer in one direction, at the state behind each input, in the order of the data (T,).

    `median`, `low`, `high`: over the sequences that have that step, with the quartiles; -inf where the gradient is exactly
    zero, NaN where no sequence has the step. `bad` (T,): a gradient there is NaN or infinite; it does not count above.
    """

    name: str
    direction: str
    median: Array
    low: Array
    high: Array
    bad: Array


def layer_flows(evidence: Evidence) -> tuple[LayerFlow, ...]:
    """The gradient of every layer that has adjoints, from the bottom up."""
    return tuple(flow for seen in evidence.layers if (flow := layer_flow(seen)) is not None)


def layer_flow(seen: Seen) -> LayerFlow | None:
    """The gradient of one layer; None without adjoints."""
    adjoints = seen.layer.adjoints
    if adjoints is None or len(adjoints) < 2:
        return None
    logs = np.array(log_norm(adjoints[1:]))  # (T, *E, B)
    bad: Array = np.asarray(~np.isfinite(adjoints[1:]).all(axis=-1))
    logs[bad] = np.nan
    lengths = seen.look.record.lengths
    if seen.live is not None:
        gone = ~np.broadcast_to(seen.live.reshape(len(logs), *(1,) * (logs.ndim - 2), -1), logs.shape)
        logs[gone], bad[gone] = np.nan, False
    if seen.direction == "backward":
        logs, bad = flip(logs[..., None], lengths)[..., 0], flip(bad[..., None], lengths)[..., 0]
    flat = logs.reshape(len(logs), -1)
    low, median, high = np.full((3, len(flat)), np.nan)
    for t, row in enumerate(flat):
        there = np.sort(row[~np.isnan(row)])
        if len(there):  # order statistics: the mean of two values would mix a zero with a number
            low[t], median[t], high[t] = (there[int(q * (len(there) - 1) + 0.5)] for q in (0.25, 0.5, 0.75))
    return LayerFlow(seen.name, seen.direction, median, low, high, np.asarray(bad.reshape(len(bad), -1).any(axis=1)))


@dataclass(frozen=True)
class LayerSpectra:
    """Eigenvalues and singular values of J_t of one layer at `steps`, counted as the layer processes them from 1.

    Of up to 4 sequences, (len(steps), rows, S). `reason`: why there are none, else "".
    """

    steps: tuple[int, ...]
    spectra: JacobianSpectra | None
    reason: str = ""


def layer_spectra(seen: Seen) -> LayerSpectra:
    """Spectra of the Jacobians at a few steps, evenly spread."""
    run = seen.run
    reason = _refusal(run)
    if run is None or reason:
        return LayerSpectra((), None, reason)
    last = len(run.t) if run.mask is None else int(run.mask[:, 0].sum())
    steps = tuple(int(t) for t in np.unique(np.linspace(1, last, MOMENTS + 1).astype(int)[1:]))
    with np.errstate(all="ignore"):
        stacked = np.stack([run.window(t - 1, t).jacobians()[0][..., : (1 if run.mask is not None else 4), :, :] for t in steps])
        return LayerSpectra(steps, jacobian_spectra(stacked))


def _refusal(run: LayerPass | None) -> str:
    if run is None:
        return "no network: a record alone does not hold the Jacobians"
    S = run.states.shape[-1]
    if not np.isfinite(run.states).all():
        return "the states are not finite"
    if run.states.ndim != 3:
        return "an ensemble of networks; look at one of them"
    if S > LARGEST_STATE or run.states[0].size * S * run.states.itemsize > LARGEST_STACK:
        return f"S = {S} state variables; gradlab.analysis.top_spectrum needs no matrix"
    return ""


def exponents(look: Look, seed: int) -> dict[str, LyapunovSpectrum | str]:
    """The leading Lyapunov exponents of each layer along the data, or the reason why there are none, by layer."""
    found: dict[str, LyapunovSpectrum | str] = {}
    for name in look.record.layers:
        run = look.runs.get(name)
        found[name] = _refusal(run) or "too short: an exponent needs at least 10 steps"
        if run is None or _refusal(run):
            continue
        steps, rows = _extent(run)
        if steps < 10:
            continue
        S = run.states.shape[-1]
        if steps * run.states.shape[1] * float(S) ** 2 * EXPONENTS > LARGEST_WORK:
            found[name] = f"S = {S} over {steps} steps would take too long here; see gradlab.analysis.network_lyapunov"
            continue
        rng = np.random.default_rng([seed, len(found)])
        try:
            with np.errstate(all="ignore"):
                found[name] = lyapunov_spectrum(_stream(run, steps, rows), min(EXPONENTS, S), rng=rng)
        except GradlabError as error:
            found[name] = str(error)
    return found


def _extent(run: LayerPass) -> tuple[int, Array]:
    """Steps, and the longest sequences, all of which have them."""
    ends = np.full(run.states.shape[1], len(run.t)) if run.mask is None else run.mask.sum(axis=0)
    rows = np.sort(np.argsort(-ends, kind="stable")[:EXPONENT_ROWS])
    return int(min(ends[rows].min(), EXPONENT_STEPS)), rows


def _stream(run: LayerPass, steps: int, rows: Array) -> Iterator[Array]:
    for t in range(steps):
        yield run.window(t, t + 1).jacobians()[0][rows]
