"""The forward pass: all layers over a whole batch of sequences, in any common dtype and over ensemble axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._threads import shares, side_by_side
from gradlab._validate import as_numbers, require_count, require_finite, require_lengths, require_sequences, require_shape
from gradlab.cells.base import affine_rows
from gradlab.directions import broadcast_mask, flip, last, live
from gradlab.errors import DTypeError, ShapeError, ValueRangeError
from gradlab.network import Layer, Network, Params
from gradlab.workspace import Workspace, time_major

Array = npt.NDArray[Any]

WINDOW = 2**22
"""Bytes of Jacobians that are computed at a time: what lies between a formula and its result stays in the cache."""


@dataclass(frozen=True)
class LayerPass:
    """What one layer's forward pass leaves behind, in its own processing order: time-major views on ensemble-major memory.

    `x` (T, *E', B, D), `states` (T+1, *E, B, S), `tape` (T, blocks, *E, B, K), `p` the prepared parameters, `t` (T,) the
    absolute steps, `mask` (T, B) the steps that exist, None if all do.
    `shares`: spans of the first ensemble axis and the same for their members alone, as views, if threads shared the work.
    """

    layer: Layer
    p: dict[str, Any]
    x: Array
    states: Array
    tape: Array
    t: Array
    mask: Array | None
    shares: tuple[tuple[slice, LayerPass], ...] = ()

    def outputs(self) -> Array:
        """What the layer emits, (T, *E, B, outputs)."""
        return self.layer.cell.output(self.states[1:], self.states[:-1])

    def jacobians(self, threads: int = 1, out: Array | None = None) -> Array:
        """J_t = ds_t/ds_{t-1}, (T, *E, B, S, S); the identity at steps that do not exist.

        `threads`: steps computed side by side, with the same results; the cell is then called from several threads.
        `out`: where to write them, of that shape and the pass's dtype: half of the time can be that of fresh memory.
        Error: ShapeError if `out` does not fit.
        """
        return self._stacked(self.layer.cell.jacobian_into, self.states.shape[-1], 1.0, threads, out)

    def input_jacobians(self) -> Array:
        """G_t = ds_t/dx_t, (T, *E, B, S, D); 0 at steps that do not exist."""

        def into(*given: Any) -> None:
            given[-1][...] = self.layer.cell.input_jacobian(*given[:-1])

        return self._stacked(into, self.x.shape[-1], 0.0)

    def _stacked(
        self, into: Callable[..., None], columns: int, diagonal: float, threads: int = 1, out: Array | None = None
    ) -> Array:
        """All steps in one array, written a few at a time."""
        shape, dtype = (len(self.t), *self.states.shape[1:], columns), self.states.dtype
        if out is not None and (out.shape != shape or out.dtype != dtype):
            raise ShapeError(f"out has shape {out.shape}, dtype {out.dtype}; expected {shape}, {dtype}")
        J = np.zeros(shape, dtype) if out is None else out
        few = max(1, WINDOW // max(1, J[0].nbytes))

        def write(first: int) -> None:
            at = slice(first, first + few)
            if out is not None:
                J[at] = 0.0
            into(self.p, self.tape[at], self.states[:-1][at], self.states[1:][at], self.t[at], J[at])

        side_by_side([partial(write, first) for first in range(0, len(self.t), few)], require_count("threads", threads))
        if self.mask is not None:
            exists = broadcast_mask(self.mask, J[..., 0])[..., None]
            np.copyto(J, diagonal * np.eye(*J.shape[-2:], dtype=J.dtype), where=~exists)
        return J

    def window(self, start: int, stop: int) -> LayerPass:
        """The steps from `start` to before `stop`, as views."""
        return replace(
            self,
            x=self.x[start:stop],
            states=self.states[start : stop + 1],
            tape=self.tape[start:stop],
            t=self.t[start:stop],
            mask=None if self.mask is None else self.mask[start:stop],
            shares=(),
        )


@dataclass(frozen=True)
class Pass:
    """A forward pass: `outputs` as the read-out says, and `runs` by layer name, from the bottom up.

    `params`: as they were used, in one dtype. `seen`: what the read-out saw, (T, *E, B, outputs), or (1, ...) for the last
    step. `lengths` (B,) and `mask` (T, B): None where all rows have all steps.
    """

    outputs: Array
    runs: Mapping[str, LayerPass]
    params: Params
    seen: Array
    lengths: Array | None
    mask: Array | None

    @property
    def states(self) -> dict[str, Array]:
        """States (T+1, *E, B, S) by layer, in processing order; row 0 is the initial state."""
        return {name: run.states for name, run in self.runs.items()}

    @property
    def final_states(self) -> dict[str, Array]:
        """Each layer's state (*E, B, S) after each row's own last step: copies, to carry into the next chunk."""
        return {name: run.states[-1].copy() for name, run in self.runs.items()}


def forward(
    net: Network,
    params: Mapping[str, Array],
    x: Array,
    initial_states: Mapping[str, Array] | None = None,
    *,
    lengths: Array | None = None,
    first_step: int = 0,
    workspace: Workspace | None = None,
    threads: int = 1,
) -> Pass:
    """Run `net` over `x`.

    x (T, B, D), or (T, *E, B, D) with ensemble axes; parameters may carry ensemble axes in front, all broadcast.
    `initial_states`: {"0": (*E, B, S), ...} by layer, zero where absent; of the reverse direction, the state it starts from.
    `lengths` (B,): steps of each row; what stands behind is never read, states are copied through it, outputs are 0 there.
    `first_step`: absolute number of the first step, for cells with a clock when a sequence goes on in chunks.
    `workspace`: memory to reuse from call to call; the pass then lasts until the next call with it.
    `threads`: members of the first ensemble axis are shared among so many, with the same bits.
    Returns a `Pass`. Runs in the common dtype of all that it is given: float32, float64 or complex128.

    Errors: ShapeError, DTypeError, ValueRangeError, naming the argument.
    """
    x = as_numbers("x", x)
    require_sequences("x", x, net.input_size)
    first_step, threads = require_count("first_step", first_step, 0), require_count("threads", threads)
    lengths = require_lengths("lengths", lengths, x.shape[0], x.shape[-2])
    mask = live(x.shape[0], lengths)
    if mask is not None:
        x = np.where(broadcast_mask(mask, x), x, np.zeros((), x.dtype))
    require_finite("x", x)
    given = _initial(net, x, initial_states)
    cast = _common(net, params, x, given)
    ensemble = _ensemble(net, cast, x, given)
    dtype = next(iter(cast.values())).dtype
    x = x.reshape(x.shape[0], *_padded(x.shape[1:-2], len(ensemble)), *x.shape[-2:])
    x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -3), dtype), -3, 0)
    runs: dict[str, LayerPass] = {}
    with np.errstate(all="ignore"):  # what leaves the range of floats is found on the results
        for level in net.levels:
            for layer in level:
                own = flip(x, lengths) if layer.reverse else x
                start = given.get(layer.name)
                runs[layer.name] = _run_layer(layer, cast, own, start, ensemble, mask, first_step, workspace, threads)
            x = _emitted([runs[layer.name] for layer in level], lengths)
        top = [runs[layer.name] for layer in net.levels[-1]]
        seen = _seen(net, x, top, lengths)
        outputs = _read_out(net, cast, seen, mask, workspace)
    return Pass(outputs, runs, cast, seen, lengths, mask)


def _emitted(level: list[LayerPass], lengths: Array | None) -> Array:
    """What a level emits, in the order of the input: the forward direction, then the reverse one turned back."""
    if len(level) == 1:
        return level[0].outputs()
    both = [flip(run.outputs(), lengths) if run.layer.reverse else run.outputs() for run in level]
    return np.moveaxis(np.concatenate([np.moveaxis(y, 0, -3) for y in both], axis=-1), -3, 0)


def _run_layer(
    layer: Layer,
    params: Params,
    x: Array,
    initial: Array | None,
    ensemble: tuple[int, ...],
    mask: Array | None,
    first_step: int,
    workspace: Workspace | None,
    threads: int,
) -> LayerPass:
    cell, prefix = layer.cell, f"{layer.name}."
    T, B = x.shape[0], x.shape[-2]
    own = {key.removeprefix(prefix): value for key, value in params.items() if key.startswith(prefix)}
    dtype = next(iter(own.values())).dtype
    p = cell.prepare(own, (*ensemble, B))
    blocks, columns = cell.tape_shape(layer.input_size, layer.hidden_size)
    tape = time_major(workspace, f"{layer.name}.tape", (blocks, *ensemble, T, B, columns), dtype)
    states = time_major(workspace, f"{layer.name}.states", (*ensemble, T + 1, B, layer.state_size), dtype)
    states[0] = 0.0 if initial is None else initial
    run = LayerPass(layer, p, x, states, tape, first_step + np.arange(T), mask)
    if threads > 1 and ensemble and ensemble[0] > 1:
        spans = shares(ensemble[0], threads)
        run = replace(run, shares=tuple((span, _share(run, own, span)) for span in spans))
    side_by_side([partial(_march, share) for _, share in run.shares] or [partial(_march, run)], threads)
    return run


def _share(run: LayerPass, own: Params, span: slice) -> LayerPass:
    """The members `span` of the first ensemble axis, as views, with work space of their own."""
    theirs = {key: value if len(value) == 1 else value[span] for key, value in own.items()}
    x = run.x if run.x.shape[1] == 1 else run.x[:, span]
    states = run.states[:, span]
    return replace(run, p=run.layer.cell.prepare(theirs, states.shape[1:-1]), x=x, states=states, tape=run.tape[:, :, span])


def _march(run: LayerPass) -> None:
    """All steps, from the initial state in row 0 of the states."""
    cell = run.layer.cell
    cell.project(run.p, run.x, run.tape)
    for k, t in enumerate(run.t):
        cell.step_into(run.p, run.tape[k], run.states[k], run.states[k + 1], int(t))
        if run.mask is not None:
            np.copyto(run.states[k + 1], run.states[k], where=~run.mask[k][:, None])


def _seen(net: Network, x: Array, top: list[LayerPass], lengths: Array | None) -> Array:
    """What the read-out sees: the top level's outputs at every step, or each direction's own last, (1, *E, B, outputs)."""
    if net.readout == "every":
        return x
    return np.concatenate([last(run.outputs(), lengths) for run in top], axis=-1)[None]


def _read_out(net: Network, params: Params, y: Array, mask: Array | None, workspace: Workspace | None) -> Array:
    if net.output_size is not None:
        V, b = params["readout.V"], params["readout.b_y"]
        lead = np.broadcast_shapes(y.shape[1:-2], V.shape[:-2], b.shape[:-1])
        out = time_major(workspace, "outputs", (*lead, y.shape[0], y.shape[-2], net.output_size), y.dtype)
        affine_rows(y, V, b, out)
        y = out
    if net.readout == "last":
        return np.asarray(y[0])
    return y if mask is None else np.where(broadcast_mask(mask, y), y, np.zeros((), y.dtype))


def _initial(net: Network, x: Array, initial_states: Mapping[str, Array] | None) -> Params:
    """The initial states that were given, checked; the others are zero."""
    sizes = {layer.name: layer.state_size for layer in net.layers}
    checked: Params = {}
    if initial_states is None:
        return checked
    if not isinstance(initial_states, Mapping):
        raise DTypeError(f"initial_states is a {type(initial_states).__name__}; expected a dict of arrays by layer")
    for name, value in initial_states.items():
        if name not in sizes:
            raise ValueRangeError(f"initial_states has the key {name!r}; expected {', '.join(sizes)}")
        label = f'initial_states["{name}"]'
        checked[name] = as_numbers(label, value)
        require_shape(label, checked[name], (x.shape[-2], sizes[name]), "(B, S)")
        require_finite(label, checked[name])
    return checked


def _common(net: Network, params: Mapping[str, Array], x: Array, initial: Params) -> Params:
    """Every parameter checked, in the common dtype, with the common number of ensemble axes in front."""
    values = checked_params(net, params)
    dtype = np.result_type(x, *values.values(), *initial.values())
    depth = max(
        [x.ndim - 3, *(len(net.ensemble_shape(k, v)) for k, v in values.items()), *(v.ndim - 2 for v in initial.values())]
    )
    return {
        key: np.asarray(v.reshape((*_padded(net.ensemble_shape(key, v), depth), *net.shapes[key])), dtype, order="C")
        for key, v in values.items()
    }


def checked_params(net: Network, params: Mapping[str, Array]) -> Params:
    """All parameters of `net`, each an array of numbers with its own axes last.

    Errors: DTypeError, ValueRangeError, ShapeError.
    """
    if not isinstance(params, Mapping):
        raise DTypeError(f"params is a {type(params).__name__}; expected a dict of arrays, as net.init(rng) gives it")
    missing = [k for k in net.shapes if k not in params]
    unknown = [k for k in params if k not in net.shapes]
    if missing or unknown:
        wrong = [f"lacks {missing}"] * bool(missing) + [f"has unknown {unknown}"] * bool(unknown)
        raise ValueRangeError(f"params {' and '.join(wrong)}; expected {list(net.shapes)}")
    values = {key: as_numbers(f'params["{key}"]', params[key]) for key in net.shapes}
    for key, value in values.items():
        require_shape(f'params["{key}"]', value, net.shapes[key], "its own axes")
        require_finite(f'params["{key}"]', value)
    return values


def _padded(lead: tuple[int, ...], depth: int) -> tuple[int, ...]:
    return (1,) * (depth - len(lead)) + lead


def _ensemble(net: Network, params: Params, x: Array, initial: Params) -> tuple[int, ...]:
    shapes = [x.shape[1:-2], *(v.shape[:-2] for v in initial.values())]
    shapes += [net.ensemble_shape(k, v) for k, v in params.items()]
    try:
        common = np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ShapeError(f"ensemble axes do not broadcast: {sorted(set(shapes))}; expected equal sizes, or 1") from error
    if 0 in common:
        raise ShapeError(f"ensemble axes are {common}; expected at least one member along each")
    return common
