"""One call of a recurrent torch module: what it read and emitted, as NumPy arrays in gradlab's order, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.adapters.pytorch import Spec
from gradlab.adapters.replay import Replayable
from gradlab.errors import DTypeError, ValueRangeError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shape:
    """How a call's sequences lie in memory: padded or packed, batched or not, batch first or not.

    `packed`: (batch_sizes, sorted_indices, unsorted_indices) of the PackedSequence that was read, else None.
    """

    batch_first: bool
    batched: bool
    packed: tuple[Any, Any, Any] | None = None
    single: bool = False

    def sequence(self, torch: Any, tensor: Any) -> Array:
        """Inputs, outputs or their gradients as (T, B, K), rows in the caller's order, 0 behind the end of a row."""
        tensor = tensor.detach()
        if self.packed is not None:
            rnn = torch.nn.utils.rnn
            tensor, _ = rnn.pad_packed_sequence(rnn.PackedSequence(tensor, *self.packed))
        elif self.single:
            tensor = tensor[None] if self.batched else tensor[None, None]
        elif not self.batched:
            tensor = tensor[:, None]
        elif self.batch_first:
            tensor = tensor.transpose(0, 1)
        return copied(tensor)

    def state(self, tensor: Any) -> Array:
        """States or their gradients as (layers, B, H); of a cell, one layer."""
        tensor = tensor.detach()
        if self.single:
            tensor = tensor[None]
        return copied(tensor if self.batched else tensor[:, None])


@dataclass(eq=False)
class Call:
    """What one call read and emitted. `arrived`: by backward pass, what came back at "y", "h_n" and "c_n".

    `weights` by torch's name: (the tensor's key, the values it had); `trainable`: those that a gradient may reach.
    `previous`: the call whose output states this one read, of a cell.
    """

    name: str
    number: int
    order: int
    spec: Spec
    shape: Shape
    training: bool
    x: Array
    initial: dict[str, Array]
    lengths: Array | None
    weights: dict[str, tuple[int, Array]]
    trainable: frozenset[str]
    y: Array
    h_n: Array
    c_n: Array | None
    masks: dict[int, Array]
    through_h: bool = False
    previous: Call | None = None
    arrived: dict[str, Array] = field(default_factory=dict)
    handles: list[Any] = field(default_factory=list)

    @property
    def params(self) -> dict[str, Array]:
        """The weights as they were, in gradlab's letters."""
        return self.spec.params({name: value for name, (_, value) in self.weights.items()})

    def by_layer(self, h: Array | None, c: Array | None) -> dict[str, Array]:
        """States or their gradients (layers, B, H) as gradlab's {"0": (B, S), ...}; what is None counts as 0."""
        there = h if h is not None else c
        if there is None:
            return {}
        found = {}
        for k, layer in enumerate(self.spec.net.layers):
            own = np.zeros_like(there[k]) if h is None else h[k]
            if self.spec.kind == "LSTM":
                own = np.concatenate([np.zeros_like(there[k]) if c is None else c[k], own], axis=-1)
            found[layer.name] = own
        return found

    def replayable(self) -> Replayable:
        """The call with what arrived in the backward pass just ended."""
        final = self.by_layer(self.arrived.get("h_n"), self.arrived.get("c_n"))
        dy = self.arrived.get("y")
        return Replayable(self.spec.net, self.params, self.x, self.initial, self.lengths, self.masks, dy, final)


def parse(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """(input, hx) of a recurrent module's forward."""
    given = dict(zip(("input", "hx"), args, strict=False)) | dict(kwargs)
    return given["input"], given.get("hx")


def shape_of(torch: Any, spec: Spec, x: Any) -> Shape:
    """How the input lies in memory."""
    if isinstance(x, torch.nn.utils.rnn.PackedSequence):
        return Shape(False, True, (x.batch_sizes, x.sorted_indices, x.unsorted_indices))
    return Shape(spec.batch_first, x.dim() == (2 if spec.single else 3), None, spec.single)


def lengths_of(torch: Any, shape: Shape) -> Array | None:
    """Steps of each row in the caller's order; None if the input is not packed."""
    if shape.packed is None:
        return None
    batch_sizes, _, unsorted = shape.packed
    lengths = (batch_sizes[None, :] > torch.arange(int(batch_sizes[0]))[:, None]).sum(1)
    return copied(lengths if unsorted is None else lengths[unsorted.cpu()])


def states_of(spec: Spec, hx: Any) -> tuple[Any, Any]:
    """(h, c) tensors of an initial or final state; None where there are none."""
    if hx is None:
        return None, None
    return hx if spec.kind == "LSTM" else (hx, None)


def copied(tensor: Any) -> Array:
    """An array of its own on the CPU."""
    return np.array(tensor.detach().cpu().numpy())


def require_precision(torch: Any, name: str, tensors: Mapping[str, Any]) -> None:
    """Refuse what computes in half precision, or in two: no replay in float32 or float64 would prove anything."""
    types = {tensor.dtype for tensor in tensors.values()}
    if len(types) != 1 or not types <= {torch.float32, torch.float64}:
        listed = ", ".join(f"{key} {tensor.dtype}" for key, tensor in tensors.items())
        raise DTypeError(
            f"module {name!r} computes in {listed}; expected float32 or float64 throughout: a replay proves nothing about half "
            "precision (autocast, .half(), .bfloat16()); try a few updates without it"
        )


def require_cpu(name: str, device: Any, dropout: float) -> None:
    """Refuse dropout between layers on a device whose masks cannot be drawn again."""
    if device.type != "cpu":
        raise ValueRangeError(
            f"module {name!r} has dropout={dropout} between layers and runs on {device}; expected the CPU, where the masks can "
            "be drawn again from the generator's state; try model.eval(), dropout=0 or model.cpu() for the updates looked at"
        )


def redraw_masks(torch: Any, spec: Spec, shape: Shape, x: Any, state: Any) -> dict[int, Array]:
    """The masks that dropout between the layers drew, from the generator's state before the call: its stream is left alone."""
    generator = torch.Generator()
    generator.set_state(state)
    data = x.data if shape.packed is not None else x
    lead = data.shape[:1] if shape.packed is not None else _time_major(shape, data)
    canonical = Shape(False, True, shape.packed)
    masks = {}
    for k, level in enumerate(spec.net.levels[:-1]):
        kept = torch.empty((*lead, sum(layer.output_size for layer in level)), dtype=data.dtype)
        if spec.dropout < 1.0:
            kept.bernoulli_(1.0 - spec.dropout, generator=generator).div_(1.0 - spec.dropout)
        else:
            kept.zero_()
        masks[k] = canonical.sequence(torch, kept)
    return masks


def _time_major(shape: Shape, x: Any) -> tuple[int, int]:
    if not shape.batched:
        return x.shape[0], 1
    return (x.shape[1], x.shape[0]) if shape.batch_first else (x.shape[0], x.shape[1])
