"""Rule: clipping that does not act on the gradients that the optimiser uses, or not where it should."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.clipped import clipped_of
from gradlab.diagnosis.entry import Threshold
from gradlab.diagnosis.evidence import Evidence
from gradlab.diagnosis.finding import Finding, Number, Place
from gradlab.diagnosis.history import History, Series, layer_of, together

Array = npt.NDArray[np.float64]

ABOVE = Threshold(1.01, "times the threshold", "exact: no norm is above it after clipping; 1 % for half precision")
BELOW = Threshold(
    0.5, "of the threshold", "exact: what was clipped has the threshold's norm, or more where each layer is clipped by itself"
)


def clipping_inactive(evidence: Evidence) -> Iterator[Finding]:
    """Norms after clipping are above the threshold that they were to be clipped at; or clipping cuts far below it.

    Clipping of each layer or parameter by itself is recognised: the joint norm may then be above the threshold.
    """
    told, history = evidence.circumstances, evidence.history
    if history is None:
        return
    after = history.global_norm("clipped")
    if told.clip_norm is not None and after is not None:
        yield from _by_norm(evidence, history, after, told.clip_norm)
    elif told.clip_value is not None:
        yield from _by_value(evidence, history, told.clip_value)


def clipping_inactive_statistic(evidence: Evidence) -> float:
    """The largest norm after clipping over the threshold; NaN without either."""
    told = evidence.circumstances
    after = None if evidence.history is None else evidence.history.global_norm("clipped")
    if told.clip_norm is None or after is None or not np.isfinite(after[1]).any():
        return float("nan")
    return float(after[1][np.isfinite(after[1])].max() / told.clip_norm)


def _by_norm(evidence: Evidence, history: History, after: Series, limit: float) -> Iterator[Finding]:
    updates, norms = after
    over = np.flatnonzero(np.isfinite(norms) & (norms > ABOVE.value * limit))
    if len(over) and not _group_by_group(history, limit):
        k = over[norms[over] > norms[over].max() * (1.0 - 1e-6)][0]  # the first of equal ones, whatever the rounding
        factor = float(norms[k] / limit)
        key = _untouched(history, updates[over])
        told = f"the norm after clipping is up to {factor:.3g} times the threshold, at {len(over)} of {len(norms)} updates"
        told += f": {key} is not clipped with the others" if key else ""
        numbers = {
            "norm after clipping": Number(factor, ABOVE.unit, threshold=ABOVE.value),
            "median": Number(float(np.median(norms[over]) / limit), ABOVE.unit),
            "share": Number(len(over) / len(norms), "of the updates"),
        }
        place = Place(layer=layer_of(key), parameter=key, update=int(updates[k]))
        yield Finding("clipping-inactive", "warning", place, told, numbers)
        return
    found = clipped_of(evidence)
    if found is None or not found.cut.any():
        return
    cut = found.after[found.cut]
    level = float(np.median(cut) / limit)
    if level < BELOW.value:
        told = f"clipping cuts to {level:.3g} of the threshold, at {len(cut)} of {len(found.cut)} updates: "
        told += "it may see the gradients of a scaled loss"
        numbers = {
            "norm after clipping": Number(level, BELOW.unit, threshold=BELOW.value),
            "share": Number(found.share, "of the updates"),
        }
        yield Finding("clipping-inactive", "warning", Place(update=int(found.updates[found.cut][0])), told, numbers)


def _by_value(evidence: Evidence, history: History, limit: float) -> Iterator[Finding]:
    """A parameter of n entries has a norm of at most limit sqrt(n) after clipping by value."""
    sizes = {}
    for look in evidence.looks:
        for key, value in look.record.gradients.items():
            sizes[f"{look.name}.{key}" if look.name else key] = np.size(value)
    worst = (ABOVE.value, "", 0, 0.0)
    for key, (updates, norms) in history.norms("clipped").items():
        finite = np.where(np.isfinite(norms), norms, 0.0)
        if key in sizes:
            bound = limit * float(np.sqrt(sizes[key]))
            k = int(np.argmax(finite))
            worst = max(worst, (float(finite[k]) / bound, key, int(updates[k]), float((finite > bound * ABOVE.value).mean())))
    factor, key, update, share = worst
    if key:
        told = f"its norm after clipping is {factor:.3g} times what entries within the threshold can have"
        numbers = {
            "norm after clipping": Number(factor, "times the largest possible", threshold=ABOVE.value),
            "share": Number(share, "of the updates"),
        }
        place = Place(layer=layer_of(key), parameter=key, update=update)
        yield Finding("clipping-inactive", "warning", place, told, numbers)


def _group_by_group(history: History, limit: float) -> bool:
    """Whether every layer, or every parameter, keeps the threshold by itself, and one was seen to be cut there."""
    own = history.norms("clipped")
    before = history.norms("gradient")
    layers: dict[str, list[str]] = {}
    for key in own:
        layers.setdefault(key.rpartition(".")[0], []).append(key)
    for groups in ([[key] for key in own], list(layers.values())):
        keeps, cut = True, False
        for keys in groups:
            after = _joint(own, keys)
            keeps = keeps and bool((after <= ABOVE.value * limit).all())
            if all(key in before for key in keys):
                first = _joint(before, keys)
                shared = len(first) == len(after)
                cut = cut or (shared and bool(((after < 0.99 * first) & (after > 0.99 * limit)).any()))
        if keeps and cut:
            return True
    return False


def _joint(norms: dict[str, Series], keys: list[str]) -> Array:
    """The joint norms of some parameters, where finite."""
    _, values = together(*(norms[key] for key in keys))
    with np.errstate(all="ignore"):
        joint = np.hypot.reduce(np.stack(values), axis=0)
    return np.asarray(np.where(np.isfinite(joint), joint, 0.0))


def _untouched(history: History, at: npt.NDArray[np.int64]) -> str:
    """The parameter with the largest norm among those that are never cut while others are; "" if all or none are."""
    before, after = history.norms("gradient"), history.norms("clipped")
    whole, cut = {}, False
    for key in after:
        if key not in before:
            continue
        updates, (first, last) = together(before[key], after[key])
        here = np.isin(updates, at)
        if not here.any():
            continue
        if (last[here] < first[here] * (1.0 - 1e-3)).any():
            cut = True
        else:
            whole[key] = float(np.median(last[here]))
    return max(whole, key=lambda key: whole[key]) if cut and whole else ""
