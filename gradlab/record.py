"""Record: what the instruments wrote during one pass forward and back through time."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gradlab._files import read_npz, write_npz
from gradlab._version import __version__
from gradlab.errors import DTypeError, FormatError, ValueRangeError
from gradlab.status import OK, Status

Array = npt.NDArray[Any]

SCHEMA = 1
SERIES = ("states", "immediate", "adjoints", "jacobians")
"""The arrays a layer may carry beside its gates."""


@dataclass(frozen=True)
class LayerRecord:
    """One layer in one direction, in its own processing order. What was not kept is None.

    The parts of a state are its coordinates: dL/dc_t of an LSTM holds h_t fixed, and the loss at the last step,
    which reads h_T, has dL/dc_T = 0. (A framework that computes h_t from c_t adds both and calls the sum dL/dc_t.)

    `parts`: name and first and last column of each part of the state, e.g. {"c": (0, H), "h": (H, 2H)}.
    `states` (T+1, *E, B, S), row 0 the initial state.
    `gates`: named gate values, (T, *E, B, H) each; row t - 1 belongs to step t, and means nothing at steps that do not exist.
    `immediate` (T+1, *E, B, S): e_t, the direct partial of the loss with respect to s_t: through the read-out
    at t for the top layer, through the layer above at t for a lower one. Row 0 is zero unless the
    cell emits the previous state.
    `adjoints` (T+1, *E, B, S): delta_t = dL/ds_t, the TOTAL derivative, through all later steps too:
    delta_t = e_t + J_{t+1}^T delta_{t+1}.
    `jacobians` (T, *E, B, S, S): J_t = ds_t/ds_{t-1} of the full state in row t - 1.
    """

    parts: Mapping[str, tuple[int, int]]
    states: Array | None = None
    gates: Mapping[str, Array] = field(default_factory=dict)
    immediate: Array | None = None
    adjoints: Array | None = None
    jacobians: Array | None = None

    def series(self, name: str, part: str | None = None) -> Array:
        """The array `name` ("states", "immediate", "adjoints" or "jacobians"), whole or one part's columns.

        Errors: ValueRangeError if it was not kept, or if there is no such part.
        """
        if name not in SERIES:
            raise ValueRangeError(f"name is {name!r}; expected one of {', '.join(SERIES)}")
        value: Array | None = getattr(self, name)
        if value is None:
            raise ValueRangeError(f'{name} was not kept; expected a record made with keep=(..., "{name}")')
        if part is None:
            return value
        if name == "jacobians":
            raise ValueRangeError(f"part is {part!r}; Jacobians belong to the full state; expected part=None")
        if part not in self.parts:
            raise ValueRangeError(f"part is {part!r}; expected one of {', '.join(self.parts)}")
        start, stop = self.parts[part]
        return value[..., start:stop]


@dataclass(frozen=True, repr=False)
class Record:
    """Everything one call of `bptt` measured; holds numbers only, no code.

    `loss`: a scalar, or one value for each ensemble member (*E,). `outputs`: what the network emitted.
    `gradients`: dL/dtheta under the parameters' own keys and shapes (of the sum over the ensemble where a
    parameter is shared by it). `inputs` (T, *E, B, D): a read-only view of what was read.
    `input_gradient` (T, *E, B, D): dL/dx_t, if it was kept.
    `layers`: "0", "1", ... from the bottom up; "0.forward", "0.backward", ... if bidirectional. `lengths` (B,): steps of
    each row, None if all have T; behind a row's end the state is a copy, its Jacobian the identity.
    `first_step`: absolute number of the first step. `status` says whether numbers left the range of floats.
    """

    loss: Array
    outputs: Array
    gradients: Mapping[str, Array]
    layers: Mapping[str, LayerRecord]
    inputs: Array
    input_gradient: Array | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    status: Status = OK
    lengths: Array | None = None
    first_step: int = 0

    def __repr__(self) -> str:
        loss = np.array2string(np.asarray(self.loss), precision=6, threshold=6)
        return f"Record(loss={loss}, layers {', '.join(self.layers)}, status {self.status})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record to `path` (.npz with a JSON header, no pickle), whole or not at all."""
        arrays = {"loss": self.loss, "outputs": self.outputs, "inputs": self.inputs}
        if self.input_gradient is not None:
            arrays["input_gradient"] = self.input_gradient
        if self.lengths is not None:
            arrays["lengths"] = self.lengths
        arrays |= {f"gradients/{key}": value for key, value in self.gradients.items()}
        for key, layer in self.layers.items():
            for name in SERIES:
                value = getattr(layer, name)
                if value is not None:
                    arrays[f"layers/{key}/{name}"] = value
            arrays |= {f"layers/{key}/gates/{gate}": value for gate, value in layer.gates.items()}
        header = {
            "schema": SCHEMA,
            "kind": "gradlab.Record",
            "provenance": dict(self.provenance),
            "status": [self.status.code, self.status.detail],
            "order": list(self.layers),
            "first_step": self.first_step,
            "layers": {key: {"parts": {p: list(span) for p, span in layer.parts.items()}} for key, layer in self.layers.items()},
        }
        write_npz(path, header, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], max_memory: int | None = None) -> Self:
        """Read a record written by `save`; `max_memory` bounds the bytes of its arrays.

        Errors: FormatError, UnsafeFileError or ResourceRefused, naming the file; nothing else.
        """
        header, arrays = read_npz(path, max_memory)
        if header.get("kind") != "gradlab.Record" or header.get("schema") != SCHEMA:
            raise FormatError(
                f"{os.fspath(path)!r}: kind {header.get('kind')!r}, schema {header.get('schema')!r}; "
                f"expected 'gradlab.Record', schema {SCHEMA}"
            )
        try:
            layers = {key: _layer(key, header["layers"][key], arrays) for key in header["order"]}
            code, detail = header["status"]
            if not isinstance(header["status"], list) or not isinstance(header["provenance"], dict):
                raise ValueError("status is no list, or provenance no object")
            for layer in layers.values():
                sizes = {getattr(layer, name).shape[-1] for name in SERIES if getattr(layer, name) is not None}
                if any(not 0 <= first <= end <= min(sizes, default=end) for first, end in layer.parts.values()):
                    raise ValueError(f"parts {dict(layer.parts)} of a state of {sizes} columns")
            return cls(
                loss=arrays["loss"],
                outputs=arrays["outputs"],
                gradients={k.removeprefix("gradients/"): v for k, v in arrays.items() if k.startswith("gradients/")},
                layers=layers,
                inputs=arrays["inputs"],
                input_gradient=arrays.get("input_gradient"),
                provenance=header["provenance"],
                status=Status(str(code), str(detail)),
                lengths=arrays.get("lengths"),
                first_step=int(header["first_step"]),
            )
        except (LookupError, ArithmeticError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"{os.fspath(path)!r}: a member or header entry is missing or malformed ({error!r})") from error


def _layer(key: str, entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> LayerRecord:
    prefix = f"layers/{key}/"
    gates = {k.removeprefix(f"{prefix}gates/"): v for k, v in arrays.items() if k.startswith(f"{prefix}gates/")}
    series = {name: arrays.get(prefix + name) for name in SERIES}
    return LayerRecord(parts={p: (int(span[0]), int(span[1])) for p, span in entry["parts"].items()}, gates=gates, **series)


def versions() -> dict[str, str]:
    """Versions of what computes: part of every provenance."""
    return {"gradlab": __version__, "python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}


def require_layers(record: object) -> None:
    """Raise DTypeError for what is no `Record`, ValueRangeError for one that holds no layers."""
    if not isinstance(record, Record):
        raise DTypeError(f"record is a {type(record).__name__}; expected a gradlab.Record, as gradlab.bptt returns it")
    if not record.layers:
        raise ValueRangeError("record has no layers (one of truncated_bptt has none); expected one made by bptt")
