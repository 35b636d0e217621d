"""Rule: the scale of what the lowest layer reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence, Look, Seen
from gradlab.diagnosis.finding import Finding, Number, Place
from gradlab.diagnosis.rules_dead import FEWEST
from gradlab.diagnosis.rules_padding import padding_counted
from gradlab.diagnosis.squashed import RANGES, SIGNED, activation, states
from gradlab.directions import live

Array = npt.NDArray[Any]

__all__ = ["input_scale", "padding_counted"]

LARGE = Threshold(1.5, "of the linear range", "half of all values are then flat by inputs alone; healthy nets: up to 0.5")
SMALL = Threshold(1e-3, "of the linear range", "calibrated: figures/diagnosis_accuracy; healthy nets: from 0.01 on")
SEEN = Threshold(0.01, "of the range of the state", "calibrated: figures/diagnosis_accuracy")
UNEVEN = Threshold(100.0, "ratio", "condition number of the Hessian at least its square, 1e4 (LeCun et al. 1998, sec. 4.3 and 5)")
BENDS = {"tanh": 2.18, "hard_tanh": 1.0, "softsign": 3.47, "sigmoid": 4.36, "hard_sigmoid": 3.0}
"""Where the slope has fallen to 5 % of its maximum, or is exactly 0: how far the linear range of each function reaches."""


def input_scale(evidence: Evidence) -> Iterator[Finding]:
    """Inputs so large that they saturate the lowest layer by themselves, so small that its state hardly sees them, or of very
    different scales; constant features as an info. Not for inputs that were assumed.
    """
    for look in evidence.looks:
        x = _read(look)
        if look.assumed_inputs or x is None:
            continue
        layers = [seen for seen in evidence.layers if seen.look is look]
        lowest = [seen for seen in layers if seen.level == layers[0].level]
        for seen in lowest:
            yield from _strength(seen, x)
        if lowest:
            yield from _features(lowest, x)


def input_scale_statistic(evidence: Evidence, seen: Seen) -> float:
    """What the inputs add to a pre-activation, root mean square of the median unit, as a share of the linear range; NaN if that
    cannot be told.
    """
    x = _read(seen.look)
    drive = None if x is None or seen.level else _drive(seen, x)
    return float("nan") if drive is None or drive.relative is None else drive.relative


@dataclass(frozen=True)
class _Drive:
    """Root mean squares over steps and sequences, of the median unit: `absolute` of W x, `relative` to the linear range of the
    unit's function (None if it has none), `varying` the same of W x less its mean; `recurrent` of U h.
    """

    absolute: float
    relative: float | None
    varying: float
    recurrent: float


def _read(look: Look) -> Array | None:
    """(N, D) the inputs at all steps that exist; None if they are not finite or of an ensemble."""
    x = look.record.inputs
    if x.ndim != 3 or not x.size or x.dtype.kind not in "biuf":
        return None
    mask = live(len(x), look.record.lengths)
    flat = x.reshape(-1, x.shape[-1]) if mask is None else x[mask]
    return flat.astype(np.float64) if np.isfinite(flat).all() else None


def _strength(seen: Seen, x: Array) -> Iterator[Finding]:
    drive = _drive(seen, x)
    if drive is None:
        return
    place = Place(seen.name, seen.direction)
    numbers = {"recurrent term": Number(drive.recurrent, "root mean square of U h")}
    if drive.relative is not None and drive.relative > LARGE.value:
        first = {"input term": Number(drive.relative, "of the linear range", None, LARGE.value)}
        text = f"W x_t is {drive.relative:.3g} times the linear range in the median unit: the inputs alone saturate it"
        yield Finding("input-scale", "warning", place, text, first | numbers)
        return
    state = _visible(seen)
    judged = len(x) >= FEWEST.value and not (np.ptp(x, axis=0) == 0.0).all()  # a constant input is a matter of its own
    against = drive.varying if drive.relative is not None else drive.absolute / max(drive.recurrent, 1e-300)
    if judged and state is not None and against < SMALL.value and state < SEEN.value:
        of = "of the linear range" if drive.relative is not None else "of the recurrent term"
        first = {"input term": Number(against, of, None, SMALL.value)}
        shown = {"state": Number(state, "of its range, over the sequences", None, SEEN.value)}
        text = f"W x_t is {against:.2g} {of} in the median unit: the state hardly sees the inputs"
        yield Finding("input-scale", "warning", place, text, first | shown | numbers)


def _drive(seen: Seen, x: Array) -> _Drive | None:
    """None without parameters, or if they are not finite."""
    params, H = seen.look.params, 0
    for layer in seen.look.net.layers if seen.look.net is not None else ():
        H = layer.hidden_size if layer.name == seen.key else H
    if params is None or not H:
        return None
    W, U = (_first(params, seen.key, letters) for letters in (("W", "A"), ("U", "R")))
    if W is None or W.ndim != 2 or W.shape[1] != x.shape[1] or len(W) % H or not np.isfinite(W).all():
        return None
    W = W.astype(np.float64)
    top = float(np.abs(x).max()) or 1.0  # squares of large numbers would leave the range of floats
    mean = (x / top).mean(axis=0)
    centred = x / top - mean
    spread = top * np.sqrt(np.maximum(np.einsum("kd,de,ke->k", W, centred.T @ centred / len(x), W), 0.0))
    size = np.hypot(spread, top * (W @ mean))
    bends = _bends(seen, len(W) // H, H)
    h = states(seen)
    h = seen.layer.states[1:][..., -H:] if h is None and seen.layer.states is not None else h
    recurrent = float("nan")
    if U is not None and h is not None and U.ndim == 2 and h.ndim == 3 and h.shape[-1] == U.shape[-1] and np.isfinite(h).all():
        flat = h.reshape(-1, h.shape[-1])[:: max(1, h.shape[0] * h.shape[1] // 4096)]
        recurrent = float(np.median(np.sqrt(np.mean(np.square(flat @ U.astype(np.float64).T), axis=0))))
    if bends is None:
        return _Drive(float(np.median(size)), None, float(np.median(spread)), recurrent)
    return _Drive(float(np.median(size)), float(np.median(size / bends)), float(np.median(spread / bends)), recurrent)


def _first(params: Any, layer: str, letters: tuple[str, ...]) -> Array | None:
    return next((np.asarray(params[f"{layer}.{k}"]) for k in letters if f"{layer}.{k}" in params), None)


def _bends(seen: Seen, blocks: int, H: int) -> Array | None:
    """(blocks * H,) how far the linear range of each row's function reaches; None if it has no end."""
    gates = seen.cell.gates if seen.cell is not None else ()
    if gates and len(gates) == blocks:
        return np.repeat([BENDS["tanh" if gate in SIGNED else "sigmoid"] for gate in gates], H)
    function = activation(seen)
    return np.full(blocks * H, BENDS[function]) if function in RANGES and blocks == 1 else None


def _visible(seen: Seen) -> float | None:
    """How much the sequences differ in a unit's state at equal steps (of a single one: its steps differ), root mean square of the
    median unit, as a share of its range: 1 for what squashes, its own root mean square otherwise. None without states.
    """
    states = seen.layer.states
    if states is None or states.ndim != 3 or not np.isfinite(states).all():
        return None
    h = states[1:].astype(np.float64)
    spread = np.sqrt(h.var(axis=1 if h.shape[1] > 1 else 0).mean(axis=0))
    bounded = bool((np.abs(h) <= 1.0).all()) and activation(seen) not in ("relu", "leaky_relu", "linear")
    size = np.ones(len(spread)) if bounded else np.maximum(np.sqrt(np.square(h).mean(axis=(0, 1))), 1e-300)
    return float(np.median(spread / size))


def _features(lowest: list[Seen], x: Array) -> Iterator[Finding]:
    """Features of very different scales, and constant ones: of the data, so once for both directions."""
    seen = lowest[0]
    name = seen.name if len(lowest) == 1 else seen.name.removesuffix(f".{seen.direction}")
    dtype = seen.look.record.inputs.dtype
    eps = float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
    constant = np.ptp(x, axis=0) <= 4.0 * eps * np.abs(x).max(axis=0)
    live_features = np.flatnonzero(~constant)
    if len(live_features) > 1:
        yield from _uneven(seen, name, x, live_features)
    # of one-hot symbols those that do not occur are no fault
    one_hot = bool(x.any() and ((x == 0.0) | (x == 1.0)).all() and (x.sum(axis=1) <= 1.0).all())
    if constant.any() and len(x) > 1 and not one_hot:
        which = ", ".join(map(str, np.flatnonzero(constant)[:6])) + (", ..." if constant.sum() > 6 else "")
        share = Number(float(constant.mean()), "of the features")
        text = f"{int(constant.sum())} of {len(constant)} features never change ({which})"
        yield Finding("input-scale", "info", Place(name), text, {"constant features": share})


def uneven_statistic(evidence: Evidence, seen: Seen) -> float:
    """The largest scale of a feature by the smallest, in the data or in what they add to the units, whichever differs less."""
    x = _read(seen.look)
    return float("nan") if x is None else _ratio(seen, x, np.flatnonzero(np.ptp(x, axis=0) > 0.0))[0]


def _ratio(seen: Seen, x: Array, features: Array) -> tuple[float, int, int, Array]:
    """(ratio, the largest, the smallest, scales). The scale of a feature is the root mean square of what is not 0: a rare
    symbol is not small. Weights that have adapted to the scales make up for them.
    """
    x = x[:, features]
    count = np.maximum((x != 0.0).sum(axis=0), 1)
    top = np.maximum(np.abs(x).max(axis=0, initial=0.0), 1e-300)
    scale = top * np.sqrt(np.square(x / top).sum(axis=0) / count)
    if len(scale) < 2:
        return 1.0, 0, 0, scale
    ratio = float(scale.max() / scale.min())
    W = None if seen.look.params is None else _first(seen.look.params, seen.key, ("W", "A"))
    if W is not None and W.ndim == 2 and W.shape[1] > features.max() and np.isfinite(W).all():
        acts = scale * np.linalg.norm(W[:, features].astype(np.float64), axis=0)
        ratio = min(ratio, float(acts.max() / max(acts.min(), 1e-300)))
    return ratio, int(features[np.argmax(scale)]), int(features[np.argmin(scale)]), scale


def _uneven(seen: Seen, name: str, x: Array, features: Array) -> Iterator[Finding]:
    ratio, largest, smallest, scale = _ratio(seen, x, features)
    if ratio > UNEVEN.value:
        text = f"feature {largest} is {ratio:.3g} times as large as feature {smallest} ({scale.max():.3g}, {scale.min():.3g})"
        number = Number(ratio, "between features", None, UNEVEN.value)
        yield Finding("input-scale", "warning", Place(name), text, {"ratio": number})
