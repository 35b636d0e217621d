"""Outputs of a network along many directions at once, from each cell's `step` alone.

The oracle's forward pass. Each direction shifts one quantity (an entry of a parameter at one step only, an input, an
entry of a state) by a common amount; with an imaginary shift of 1e-200 the outputs carry exact derivatives. All
directions run side by side as extra batch rows, and where parameters are shifted as an ensemble, so that one call of
`step` serves hundreds of them. It shares neither tape nor masks with the engine that it is held against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._memory import refuse_above
from gradlab.errors import ResourceRefused
from gradlab.network import Layer, Network

Array = npt.NDArray[Any]


DIRECTIONS = 50_000
"""More untied directions than that would take minutes and gigabytes."""


@dataclass(frozen=True)
class Shift:
    """Directions along which one quantity moves.

    `kind`: "parameter", "input", "state" or "readout". `layer`: its name ("" for inputs and the read-out). `step`: where it
    moves, in the layer's processing order (states: 0 is the initial one); None for a parameter that moves at all steps.
    `vectors`: by parameter (n, *own), or {"": (n, columns)} for inputs and states; n directions, all rows move alike.
    """

    kind: str
    layer: str
    step: int | None
    vectors: Mapping[str, Array]

    @property
    def size(self) -> int:
        """Number of directions."""
        return len(next(iter(self.vectors.values())))


def unit_shifts(net: Network, params: Mapping[str, Array], T: int) -> list[tuple[str, int, Shift]]:
    """(quantity, step, shift) for every entry of everything, at every step apart: untied parameters, inputs, states.

    Error: ResourceRefused, before anything is allocated, for more than a check can use.
    """
    entries = sum(value.size for value in params.values()) + sum(layer.state_size for layer in net.layers) + net.input_size
    if entries * T > DIRECTIONS:
        raise ResourceRefused(
            f"an untied check of {entries} entries over T = {T} steps needs {entries * T} directions; expected at most "
            f"{DIRECTIONS}; check a smaller network (gradients do not depend on the size), or use gradlab.checks.block_products"
        )
    found: list[tuple[str, int, Shift]] = []
    D = net.input_size
    found += [("x", t, Shift("input", "", t, {"": np.eye(D)})) for t in range(T)]
    for layer in net.layers:
        own = own_parameters(params, layer.name)
        for key, value in own.items():
            units = np.eye(value.size).reshape(value.size, *value.shape)
            found += [(f"{layer.name}.{key}", t, Shift("parameter", layer.name, t, {key: units})) for t in range(T)]
        units = np.eye(layer.state_size)
        found += [(f"s {layer.name}", t, Shift("state", layer.name, t, {"": units})) for t in range(T + 1)]
    if net.output_size is not None:
        for key, value in own_parameters(params, "readout").items():
            units = np.eye(value.size).reshape(value.size, *value.shape)
            steps = range(T) if net.readout == "every" else range(1)
            found += [(f"readout.{key}", t, Shift("readout", "", t, {key: units})) for t in steps]
    return found


def own_parameters(params: Mapping[str, Array], layer: str) -> dict[str, Array]:
    """Those of one layer, by their own letters."""
    return {key.removeprefix(f"{layer}."): value for key, value in params.items() if key.startswith(f"{layer}.")}


class Along:
    """The function shift -> outputs (1 + n, T, B, p) of a network, 0 behind a row's end; member 0 is not shifted.

    For readout="last" T is 1. Error: ResourceRefused if the directions would not fit in memory.
    """

    def __init__(
        self,
        net: Network,
        params: Mapping[str, Array],
        x: Array,
        initial: Mapping[str, Array],
        lengths: Array | None,
        shifts: Iterable[Shift],
    ) -> None:
        self.net, self.params, self.x, self.initial = net, params, x, initial
        T, B = x.shape[:2]
        self.lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
        self.live = np.arange(T)[:, None] < self.lengths  # (T, B)
        self.placed: list[tuple[Shift, slice]] = []
        self.members = 1
        for shift in shifts:
            self.placed.append((shift, slice(self.members, self.members + shift.size)))
            self.members += shift.size
        widest = max(max(layer.state_size, layer.input_size, layer.output_size) for layer in net.layers)
        refuse_above(
            16 * 3 * self.members * T * B * widest,
            None,
            f"an untied check of {self.members - 1} directions over T = {T}, B = {B}",
            "check a smaller network: gradients do not depend on the size",
        )

    def __call__(self, shift: Any) -> Array:
        """Outputs with every direction moved by `shift`, real or imaginary."""
        shift = np.asarray(shift)
        T, B, D = self.x.shape
        dtype = np.result_type(self.x, shift, *self.params.values())
        sequence = np.array(np.broadcast_to(self.x[:, None], (T, self.members, B, D)), dtype)
        for one, at in self._of("input", ""):
            sequence[one.step, at] += shift * one.vectors[""][:, None, :]
        finals: list[Array] = []
        for level in range(len(self.net.levels)):
            emitted, finals = [], []
            for layer in self.net.levels[level]:
                y, final = self._layer(layer, level, sequence, shift)
                emitted.append(y)
                finals.append(final)
            sequence = np.concatenate(emitted, axis=-1)
        if self.net.readout == "last":
            sequence = np.concatenate(finals, axis=-1)[None]
        out = self._read_out(sequence, shift)
        if self.net.readout == "every":
            out[~np.broadcast_to(self.live[:, None], out.shape[:-1])] = 0.0
        return np.moveaxis(out, 1, 0)

    def _of(self, kind: str, layer: str) -> list[tuple[Shift, slice]]:
        return [(one, at) for one, at in self.placed if one.kind == kind and one.layer == layer]

    def _turned(self, sequence: Array) -> Array:
        """Each row's own steps in reverse order."""
        turned = sequence.copy()
        for b, length in enumerate(self.lengths):
            turned[:length, :, b] = sequence[:length, :, b][::-1]
        return turned

    def _layer(self, layer: Layer, level: int, sequence: Array, shift: Array) -> tuple[Array, Array]:
        """Outputs of one layer in the order of the input, (T, members, B, n), and each row's own last one."""
        x = self._turned(sequence) if layer.reverse else sequence
        T, members, B, _ = x.shape
        own = own_parameters(self.params, layer.name)
        parameters = self._of("parameter", layer.name)
        s = np.array(np.broadcast_to(self.initial[layer.name], (members, B, layer.state_size)), x.dtype)
        states = self._of("state", layer.name)
        self._move(states, 0, s, shift)
        y = np.empty((T, members, B, layer.output_size), x.dtype)
        final = np.zeros((members, B, layer.output_size), x.dtype)
        for t in range(T):
            some = self._moving(layer, level, t)
            new = np.empty_like(s)
            folded = layer.cell.step(own, x[t, some].reshape(-1, x.shape[-1]), s[some].reshape(-1, s.shape[-1]), t)
            moved = np.asarray(folded).reshape(-1, B, s.shape[-1])
            new[...] = moved[0]
            new[some] = moved
            for one, at in parameters:
                if one.step in (t, None):
                    theirs = {
                        key: value[None] + shift * one.vectors[key] if key in one.vectors else value[None]
                        for key, value in own.items()
                    }
                    new[at] = layer.cell.step(theirs, x[t, at], s[at], t)
            new = np.where(self.live[t][:, None], new, s)
            self._move(states, t + 1, new, shift)
            y[t] = layer.cell.output(new, s)
            final[:, self.lengths == t + 1] = y[t][:, self.lengths == t + 1]
            s = new
        return self._turned(y) if layer.reverse else y, final

    def _moving(self, layer: Layer, level: int, t: int) -> Array:
        """Members whose input or state may differ from member 0's at step t; the others are not computed."""
        below = {one.name for under in self.net.levels[:level] for one in under}
        some = [np.zeros(1, int)]
        for one, at in self.placed:
            if one.layer == layer.name:  # parameters that move now are put in their place afterwards
                moved = one.step is not None and (one.step < t or (one.kind == "state" and one.step == t))
            elif one.kind == "input":
                moved = level > 0 or layer.reverse or (one.step is not None and one.step <= t)
            else:
                moved = one.layer in below
            if moved:
                some.append(np.arange(at.start, at.stop))
        return np.concatenate(some)

    @staticmethod
    def _move(states: list[tuple[Shift, slice]], t: int, s: Array, shift: Array) -> None:
        for one, at in states:
            if one.step == t:
                s[at] += shift * one.vectors[""][:, None, :]

    def _read_out(self, y: Array, shift: Array) -> Array:
        if self.net.output_size is None:
            return y
        own = own_parameters(self.params, "readout")
        out: Array = y @ own["V"].T + own["b_y"]
        for one, at in self._of("readout", ""):
            V = own["V"] + shift * one.vectors["V"] if "V" in one.vectors else own["V"][None]
            b = own["b_y"] + shift * one.vectors["b_y"] if "b_y" in one.vectors else own["b_y"][None]
            steps = range(len(out)) if one.step is None else [one.step]
            for t in steps:
                out[t, at] = np.matmul(y[t, at], np.swapaxes(V, -1, -2)) + b[:, None, :]
        return out
