"""What a pattern of mismatches looks like, from a closed list; silence if it looks like none of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.checks.claims import SUMMED
from gradlab.checks.judgement import FAILED, Quantity

Array = npt.NDArray[Any]

CLOSE = 1e-6
"""Two arrays match a pattern if they agree to this share of the scale."""


def read(quantities: list[Quantity], states: dict[str, Array] | None = None, located: bool = True) -> str | None:
    """One sentence on the mismatch, or None. `states` (T+1, B, S) by layer, to recognise a gradient built on the wrong one.

    `located`: False for functions, which have neither steps nor rows.
    """
    failing = [quantity for quantity in quantities if (quantity.verdict == FAILED).any()]
    if not failing:
        return None
    if all(quantity.name.endswith(SUMMED) for quantity in failing):
        names = ", ".join(f"d{quantity.name.removesuffix(SUMMED)}" for quantity in failing)
        return f"{names}: the contribution of every step and row is right, their sum is not"
    if not located:
        shapes = {_shape_of_error(quantity, quantity.verdict == FAILED) for quantity in failing}
        shape = shapes.pop() if len(shapes) == 1 else None
        return shape and f"{', '.join(f'd{quantity.name}' for quantity in failing)}: it {shape}"
    cut = _truncated(failing)
    if cut is not None:
        return cut
    if len(failing) > 1:
        return _common(failing)
    quantity = failing[0]
    failed = quantity.verdict == FAILED
    steps = np.flatnonzero(failed.any(axis=tuple(a for a in range(failed.ndim) if a != 0)))
    rows = np.flatnonzero(failed.any(axis=tuple(a for a in range(failed.ndim) if a != 1)))
    gates = [gate for gate, block in quantity.blocks() if gate and failed[(slice(None), slice(None), *block)].any()]
    place = f"d{quantity.name}" + (f"[{', '.join(gates)}]" if gates and len(gates) < len(quantity.parts) else "")
    when = _words("step", steps, len(failed))
    who = _words("row", rows, failed.shape[1])
    swapped = _swapped(quantity, gates)
    if swapped is not None:
        return swapped
    if quantity.value.ndim == 4:
        stale = _stale(quantity, states)
        if stale is not None:
            return f"{place}, {when}, {who}: {stale}"
    whole = _shape_of_error(quantity, failed)
    if whole is not None:
        if len(rows) < failed.shape[1] and whole == "adds nothing":
            return f"{place}, {when}: wrong row: what {who} contributes is missing"
        return f"{place}, {when}, {who}: it {whole}"
    return None


def _words(name: str, found: Array, total: int) -> str:
    if len(found) == total:
        return f"every {name}"
    return f"{name} {', '.join(map(str, found[:6]))}{'...' if len(found) > 6 else ''}"


def _close(a: Array, b: Array, scale: Array) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.isfinite(a).all() and (np.abs(a - b) <= CLOSE * scale).all())


def _shape_of_error(quantity: Quantity, failed: Array) -> str | None:
    """How the failing entries differ: nothing, sign, factor, neighbours in time, transposed."""
    a, n, scale = quantity.value[failed], quantity.oracle[failed], quantity.scale[failed]
    if not a.any():
        return "adds nothing"
    if _close(a, -n, scale):
        return "has the wrong sign"
    used = np.abs(n) > 1e-3 * scale
    if used.any():
        ratio = a[used] / n[used]
        middle = float(np.median(ratio))
        if np.isfinite(middle) and (np.abs(ratio - middle) <= 1e-3 * abs(middle - 1.0)).all():
            text = f"1{middle - 1.0:+.1e}" if abs(middle - 1.0) < 1e-3 else f"{middle:.6g}"
            return f"is off by the factor {text}"
    for lag, text in ((1, "one step late"), (-1, "one step early")):
        moved = np.roll(quantity.oracle, lag, axis=0)
        inner = failed.copy()
        inner[0 if lag == 1 else -1] = False
        if inner.any() and _close(quantity.value[inner], moved[inner], quantity.scale[inner]):
            return f"is shifted by one step: it holds what belongs {text}"
    if quantity.value.ndim == 4:
        for _, block in quantity.blocks():
            at = (slice(None), slice(None), *block)
            mine = failed[at]
            if mine.any() and quantity.value[at].shape[-1] == quantity.value[at].shape[-2]:
                turned = np.swapaxes(quantity.oracle[at], -1, -2)
                if _close(quantity.value[at], turned, np.swapaxes(quantity.scale[at], -1, -2)):
                    return "is transposed"
    return None


def _swapped(quantity: Quantity, gates: list[str]) -> str | None:
    """Two gates that hold each other's contributions."""
    spans = quantity.parts
    for k, one in enumerate(gates):
        for other in gates[k + 1 :]:
            a, b = slice(*spans[one]), slice(*spans[other])
            if spans[one][1] - spans[one][0] != spans[other][1] - spans[other][0]:
                continue
            there = _close(quantity.value[:, :, a], quantity.oracle[:, :, b], quantity.scale[:, :, b])
            back = _close(quantity.value[:, :, b], quantity.oracle[:, :, a], quantity.scale[:, :, a])
            if there and back:
                return f"d{quantity.name}: gates {one} and {other} are swapped"
    return None


def _stale(quantity: Quantity, states: dict[str, Array] | None) -> str | None:
    """A recurrent weight's gradient built on s_t where s_(t-1) belongs: n = da s_(t-1)^T, a = da s_t^T."""
    layer = quantity.name.rpartition(".")[0]
    if states is None or layer not in states:
        return None
    s, columns = states[layer], quantity.oracle.shape[-1]
    for first in range(0, s.shape[-1] - columns + 1, columns):
        before, after = s[:-1, :, first : first + columns], s[1:, :, first : first + columns]
        norm = (before * before).sum(axis=-1)[..., None]
        with np.errstate(all="ignore"):
            da = np.einsum("tbij,tbj->tbi", quantity.oracle, before) / norm
        outer = da[..., None] * before[..., None, :]
        known = np.broadcast_to((norm > 0)[..., None], outer.shape)
        if not known.any() or not _close(quantity.oracle[known], outer[known], quantity.scale[known]):
            continue
        wrong = da[..., None] * after[..., None, :]
        size = np.abs(da)[..., None] * (np.abs(after) + np.abs(before))[..., None, :]
        if _close(quantity.value[known], wrong[known], size[known]):
            return "stale state: it is built on s_t where s_(t-1) belongs"
    return None


def _truncated(failing: list[Quantity]) -> str | None:
    """Every failing contribution is exactly 0 up to one step, and none is wrong later."""
    last = []
    for quantity in failing:
        if quantity.name.startswith("s "):  # an adjoint keeps the loss of its own step
            continue
        failed = quantity.verdict == FAILED
        if quantity.value[failed].any():
            return None
        last.append(int(np.flatnonzero(failed.any(axis=tuple(range(1, failed.ndim)))).max()))
    if len(last) < 3 or max(last) + 1 >= max(len(quantity.value) for quantity in failing if not quantity.name.startswith("s ")):
        return None
    return f"truncated: nothing arrives at steps 0..{max(last)}; the backward pass stops there"


def _common(failing: list[Quantity]) -> str | None:
    """Several quantities: where the error begins, going back in time."""
    lasts = {}
    for quantity in failing:
        failed = quantity.verdict == FAILED
        lasts[quantity.name] = int(np.flatnonzero(failed.any(axis=tuple(range(1, failed.ndim)))).max())
    shapes = {_shape_of_error(quantity, quantity.verdict == FAILED) for quantity in failing}
    names = ", ".join(f"d{name}" for name in lasts)
    if len(shapes) == 1 and None not in shapes:
        return f"{names}: each {shapes.pop()}"
    last = max((k for name, k in lasts.items() if not name.startswith("s ")), default=-1)
    steps = max((len(quantity.value) for quantity in failing if not quantity.name.startswith("s ")), default=0)
    if 0 <= last < steps - 1 and any(name.startswith("s ") for name in lasts):
        later = "the last step is" if last == steps - 2 else f"steps {last + 1}..{steps - 1} are"
        return f"{later} right, and what lies before is wrong in {names}: the adjoint is carried back wrongly"
    return None
