"""Gradients over time on one line of text."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.diagnosis.maps import LayerFlow

Array = npt.NDArray[Any]

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=+*#@"
"""The same where the terminal's encoding has no blocks."""
ZERO, BAD = "0", "x"


def sparkline(values: Array, bad: Array, width: int, signs: str = BLOCKS) -> str:
    """Logarithms as at most `width` signs between their own least and largest: 0 exactly zero, x not finite, blank no step.

    Of several steps in one sign the median; a single one that is not finite marks it.
    """
    pieces = np.array_split(np.arange(len(values)), min(width, len(values)))
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    found = []
    for piece in pieces:
        there = values[piece][np.isfinite(values[piece])]
        if bad[piece].any():
            found.append(BAD)
        elif len(there):
            share = (float(np.median(there)) - low) / (high - low) if high - low > 1e-9 else 1.0
            found.append(signs[min(int(share * len(signs)), len(signs) - 1)])
        else:
            found.append(ZERO if np.isneginf(values[piece]).any() else " ")
    return "".join(found)


def flow_lines(flows: tuple[LayerFlow, ...], width: int, signs: str = BLOCKS) -> list[str]:
    """One line for each layer: name, sparkline, and what its ends mean."""
    if not flows:
        return []
    label = max(len(flow.name) for flow in flows)
    lines = []
    for flow in flows:
        finite = flow.median[np.isfinite(flow.median)]
        told = f"{finite.min():.3g} to {finite.max():.3g}" if len(finite) else "zero or not finite throughout"
        lines.append(f"{flow.name:{label}}  {sparkline(flow.median, flow.bad, width, signs)}  {told}")
    return lines
