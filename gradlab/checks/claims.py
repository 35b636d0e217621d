"""What a backward pass claims, split into the contribution of every single step and batch row.

Gradients are linear in the adjoints. So the contribution of step t and row n is what the cell's own `param_grads` (or
`vjp`) returns when all other adjoints are zero; nothing of the cell's code is bypassed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.backward import sweep_levels
from gradlab.cells.base import Cell
from gradlab.checks.example import Example
from gradlab.directions import broadcast_mask
from gradlab.forward_pass import LayerPass, Pass, forward
from gradlab.objective import read_out_vjp

Array = npt.NDArray[Any]
Claims = dict[str, Array]

SUMMED = " summed"
"""Marks a gradient as training sees it: summed over steps and rows by the cell's own code."""


def replay(example: Example) -> Pass:
    """The engine's forward pass of an example."""
    return forward(example.net, example.params, example.x, example.initial, lengths=example.lengths)


def claimed(example: Example, run: Pass | None = None, cotangent: Array | None = None) -> Claims:
    """By quantity, (steps, B, *own): "x", "s 0", "0.W", ..., "readout.V"; one entry for each step and row.

    States have T+1 steps; the read-out of the last step alone has one. "0.W summed", (1, 1, *own), is the whole gradient.
    """
    run = replay(example) if run is None else run
    net, weight = example.net, example.cotangent if cotangent is None else cotangent
    d_outputs = np.asarray(weight, run.outputs.dtype)
    if net.readout == "every" and run.mask is not None:
        d_outputs = d_outputs * broadcast_mask(run.mask, d_outputs)
    found: Claims = {}
    with np.errstate(all="ignore"):
        if net.output_size is not None:
            found |= _read_out(example, run, d_outputs)
        gradients, dy = read_out_vjp(net, run, d_outputs)
        da: dict[str, Array] = {}
        sums = gradients
        layers, dx = sweep_levels(net, run, dy, ("adjoints", "input_gradient"), gradients, pre_adjoints=da)
        assert dx is not None  # it was asked for
        found["x"] = dx
        for name, record in layers.items():
            adjoints = record.adjoints
            assert adjoints is not None
            found[f"s {name}"] = adjoints
            found |= {f"{name}.{key}": value for key, value in layer_claims(run.runs[name], da[name], adjoints).items()}
        found |= {f"{key}{SUMMED}": value[None, None] for key, value in sums.items()}
    return found


def layer_claims(run: LayerPass, da: Array, delta: Array) -> Claims:
    """Contributions (T, B, *own) to the parameter gradients of one layer."""
    cell, p, s, a = run.layer.cell, run.p, run.states, run.tape
    T, B = len(run.t), s.shape[-2]
    differentiated = getattr(cell.param_grads, "__func__", None) is Cell.param_grads  # gradients are summed by step_vjp
    if differentiated:
        cell.param_grads(p, run.x, a, s, da, delta, run.t)  # forget what the sweep has summed
    found: Claims = {}
    for t in range(T):
        for n in range(B):
            one_delta, one_da = np.zeros_like(delta), np.zeros_like(da)
            if run.mask is None or run.mask[t, n]:
                one_delta[t + 1, n], one_da[t, n] = delta[t + 1, n], da[t, n]
                if differentiated:
                    back = np.empty_like(s[t])
                    cell.step_vjp(p, a[t], s[t], s[t + 1], one_delta[t + 1], one_da[t], back, int(run.t[t]))
            for key, value in cell.param_grads(p, run.x, a, s, one_da, one_delta, run.t).items():
                found.setdefault(key, np.empty((T, B, *np.shape(value))))[t, n] = value
    return found


def _read_out(example: Example, run: Pass, d_outputs: Array) -> Claims:
    every = example.net.readout == "every"
    steps, B = (len(d_outputs) if every else 1), d_outputs.shape[-2]
    found: Claims = {}
    for t in range(steps):
        for n in range(B):
            one = np.zeros_like(d_outputs)
            at = (t, n) if every else (n,)
            one[at] = d_outputs[at]
            for key, value in read_out_vjp(example.net, run, one)[0].items():
                found.setdefault(key, np.empty((steps, B, *value.shape)))[t, n] = value
    return found
