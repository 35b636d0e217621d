"""A recurrent layer of somewhere else, run once more by gradlab's engine: from what it read and the gradients that arrived.

Levels with a dropout mask between them are replayed as separate networks. No loss is known here, only its derivative with
respect to the outputs and final states: `Record.loss` is NaN, and the status speaks of states and gradients alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import tanh_slope
from gradlab._memory import refuse_above
from gradlab.backward import DEFAULT_KEEP, assemble, sweep_levels
from gradlab.directions import broadcast_mask
from gradlab.errors import NumericalError
from gradlab.forward_pass import Pass, forward
from gradlab.network import Network
from gradlab.objective import split_outputs
from gradlab.record import LayerRecord, Record

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Replayable:
    """One call of a recurrent layer: what it read and what came back.

    x (T, B, D); `initial` {"0": (B, S), ...}, zero where absent; `lengths` (B,) or None; `masks` {k: (T, B, outputs of level k)},
    what the outputs of level k were multiplied with before level k + 1 read them; `dy` (T, B, outputs) and `final`
    {"0": (B, S), ...}: the derivatives of the loss that arrived at the outputs and final states, zero where absent.
    """

    net: Network
    params: Mapping[str, Array]
    x: Array
    initial: Mapping[str, Array]
    lengths: Array | None
    masks: Mapping[int, Array]
    dy: Array | None
    final: Mapping[str, Array]

    def astype(self, dtype: npt.DTypeLike) -> Replayable:
        """The same call in another precision."""

        def cast(arrays: Mapping[Any, Array]) -> dict[Any, Array]:
            return {key: value.astype(dtype, copy=False) for key, value in arrays.items()}

        return replace(
            self,
            params=cast(self.params),
            x=self.x.astype(dtype, copy=False),
            initial=cast(self.initial),
            masks=cast(self.masks),
            dy=None if self.dy is None else self.dy.astype(dtype, copy=False),
            final=cast(self.final),
        )


@dataclass(frozen=True)
class _Part:
    """Levels without a mask between them, as a network of their own: `names` of its layers in the whole, `top` its last level."""

    net: Network
    names: Mapping[str, str]
    top: int


def replay(call: Replayable, keep: Sequence[str] = DEFAULT_KEEP, provenance: Mapping[str, Any] | None = None) -> Record:
    """The record of `call`: states, gates, immediate and total adjoints of every layer, as `gradlab.bptt` gives them.

    `keep`: as of `bptt`. `record.loss` is NaN; the gradient at the final states counts as immediate at the last step.
    Errors: ValueRangeError if x, weights or initial states are not finite; NumericalError if what one level emits is not
    finite and a mask stands between it and the next; ResourceRefused if the Jacobians would not fit.
    """
    net = call.net
    if "jacobians" in keep:
        entries = sum(call.x.shape[0] * call.x.shape[1] * layer.state_size**2 for layer in net.layers)
        refuse_above(entries * call.x.itemsize, None, 'keep=(..., "jacobians")', "use Watched.jacobians, one step at a time")
    with np.errstate(all="ignore"):  # what leaves the range of floats is found on the results
        parts = _parts(call.net, tuple(call.masks))
        passes = _run(call, parts)
        gradients: dict[str, Array] = {}
        layers: dict[str, LayerRecord] = {}
        top = passes[-1].outputs
        d_out = np.zeros_like(top) if call.dy is None else call.dy
        dx: Array | None = None
        for k in reversed(range(len(parts))):
            part, run = parts[k], passes[k]
            d_out = d_out * call.masks[part.top] if part.top in call.masks else d_out
            d_out = d_out if run.mask is None else d_out * broadcast_mask(run.mask, d_out)
            dy = split_outputs(part.net.levels[-1], d_out, run.lengths)
            found: dict[str, Array] = {}
            final = {own: call.final[name] for own, name in part.names.items() if name in call.final}
            wanted = (*keep, "input_gradient") if k else keep
            own_layers, dx = sweep_levels(part.net, run, dy, wanted, found, final=final)
            d_out = d_out if dx is None else dx
            layers |= {part.names[own]: value for own, value in own_layers.items()}
            for key, value in found.items():
                own, letter = key.rsplit(".", 1)
                gradients[f"{part.names[own]}.{letter}"] = value
        runs = {
            layer.name: replace(run.runs[own], layer=layer)
            for part, run in zip(parts, passes, strict=True)
            for own, layer in zip(part.names, (one for one in net.layers if one.name in part.names.values()), strict=True)
        }
        whole = Pass(top, runs, dict(call.params), top, passes[0].lengths, passes[0].mask)
        record = assemble(net, call.params, call.x, whole, np.zeros((), call.x.dtype), gradients, layers, dx, provenance or {})
    return replace(record, loss=np.asarray(np.nan, call.x.dtype))


def passes_by_layer(call: Replayable) -> dict[str, Any]:
    """The forward pass alone: a `gradlab.forward_pass.LayerPass` for each layer."""
    parts = _parts(call.net, tuple(call.masks))
    with np.errstate(all="ignore"):
        passes = _run(call, parts)
    return {part.names[own]: one for part, run in zip(parts, passes, strict=True) for own, one in run.runs.items()}


@lru_cache(maxsize=64)  # the same layers are replayed again and again, and a network finds its shapes once
def _parts(net: Network, cuts: tuple[int, ...]) -> tuple[_Part, ...]:
    """The whole network cut behind each of the levels `cuts`."""
    found, first = [], 0
    for k in range(net.num_layers):
        if k in cuts or k == net.num_layers - 1:
            levels = net.levels[first : k + 1]
            size = levels[0][0].input_size
            part = Network([level[0].cell for level in levels], size, net.hidden_size, bidirectional=net.bidirectional)
            names = {own.name: layer.name for own, layer in zip(part.layers, (x for level in levels for x in level), strict=True)}
            found.append(_Part(part, names, k))
            first = k + 1
    return tuple(found)


def _run(call: Replayable, parts: Sequence[_Part]) -> list[Pass]:
    x, passes = call.x, list[Pass]()
    for part in parts:
        if passes and not np.isfinite(x).all():
            step = int(np.argmax(~np.isfinite(x).all(axis=(1, 2))))
            raise NumericalError(
                f"what reaches layer {next(iter(part.names.values()))} is non-finite from step {step} on; "
                "levels above a dropout mask cannot be replayed from it"
            )
        prefix = {name: own for own, name in part.names.items()}
        params = {
            f"{prefix[n]}.{letter}": v for key, v in call.params.items() for n, letter in [key.rsplit(".", 1)] if n in prefix
        }
        initial = {prefix[name]: value for name, value in call.initial.items() if name in prefix}
        passes.append(forward(part.net, params, x, initial, lengths=call.lengths))
        x = passes[-1].outputs
        x = x * call.masks[part.top] if part.top in call.masks else x
    return passes


@dataclass(frozen=True)
class Steps:
    """Steps of one cell, each known by itself: x (T, B, D), states before and after (T, B, S), total adjoints `delta` (T, B, S).

    `through_h`: of an LSTM, whether `delta` of the part c still holds the share that came through h_t = o tanh(c_t), as it does
    where a framework computes h_t from c_t in its graph; gradlab's coordinates hold h_t fixed.
    """

    net: Network
    params: Mapping[str, Array]
    x: Array
    before: Array
    after: Array
    delta: Array
    through_h: bool = False


def replay_steps(
    steps: Steps, keep: Sequence[str] = DEFAULT_KEEP, provenance: Mapping[str, Any] | None = None
) -> tuple[Record, Array]:
    """The record of steps that follow each other, and gradlab's own state after each (T, B, S), from the state before it.

    All steps run as one batch. States and adjoints are the framework's own; the immediate part is the difference
    e_t = delta_t - J_{t+1}^T delta_{t+1}, with the rounding errors of that difference.
    """
    T, B, _ = steps.x.shape

    def at_once(array: Array) -> Array:
        return array.reshape(1, T * B, -1)

    net, S = steps.net, steps.before.shape[-1]
    with np.errstate(all="ignore"):
        run = forward(net, steps.params, at_once(steps.x), {"0": at_once(steps.before)[0]})
        one = run.runs["0"]
        found_after = one.states[1].reshape(T, B, S)
        gates = {name: value.reshape(T, B, -1) for name, value in one.layer.cell.gate_values(one.tape).items()}
        delta = _held(steps, gates) if steps.through_h else steps.delta
        gradients: dict[str, Array] = {}
        wanted = ("adjoints", *(name for name in keep if name in ("jacobians", "input_gradient")))
        dy = {"0": np.zeros_like(run.outputs)}
        layers, dx = sweep_levels(net, run, dy, wanted, gradients, final={"0": at_once(delta)[0]})
        layer = layers["0"]
        carried = layer.series("adjoints")[0].reshape(T, B, S)  # J_t^T delta_t, what reaches the state before
        adjoints = np.concatenate([carried[:1], delta])
        immediate = np.concatenate([np.zeros_like(carried[:1]), delta])
        immediate[1:-1] -= carried[1:]
        size = np.abs(steps.delta).max(axis=-1, keepdims=True)
        immediate[1:][np.abs(immediate[1:]) <= 8.0 * np.finfo(size.dtype).eps * size] = 0.0  # what rounding leaves of nothing
        states = np.concatenate([steps.before[:1], steps.after])
        kept = LayerRecord(
            parts=layer.parts,
            states=states if "states" in keep else None,
            gates=gates if "gates" in keep else {},
            immediate=immediate if "immediate" in keep else None,
            adjoints=adjoints if "adjoints" in keep else None,
            jacobians=None if layer.jacobians is None else layer.jacobians.reshape(T, B, S, S),
        )
        whole = replace(run, runs={"0": replace(one, states=states)}, outputs=one.layer.cell.output(states[1:], states[:-1]))
        dx = None if dx is None else dx.reshape(steps.x.shape)
        zero = np.zeros((), steps.x.dtype)
        record = assemble(net, steps.params, steps.x, whole, zero, gradients, {"0": kept}, dx, provenance or {})
    return replace(record, loss=np.asarray(np.nan, steps.x.dtype)), found_after


def _held(steps: Steps, gates: Mapping[str, Array]) -> Array:
    """The adjoints with h_t held fixed: what came to c_t through h_t is taken off, and so is what rounding leaves of it."""
    H = steps.net.hidden_size
    delta = steps.delta.copy()
    share = delta[..., H:] * gates["o"] * tanh_slope(steps.after[..., :H])
    delta[..., :H] -= share
    noise = 8.0 * np.finfo(delta.dtype).eps * np.abs(share)
    delta[..., :H][np.abs(delta[..., :H]) <= noise] = 0.0
    return delta
