"""A monitor cheap enough to leave on: what each update did, and now and then what the gradient looks like over time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._files import dump_json, read_npz, write_bytes, write_npz
from gradlab._math import log_norm
from gradlab._validate import require_count, require_number
from gradlab.errors import FormatError, ShapeError, ValueRangeError
from gradlab.record import Record
from gradlab.training.jumps import jumps

Array = npt.NDArray[Any]

SCHEMA = "gradlab-monitor-1"


class Monitor:
    """Keeps a bounded history of a training run, in memory and in `path`.npz with a summary in `path`.json.

    After each update: loss, norm of each parameter's gradient before and after clipping, whether it was clipped, and the ratio
    |update|/|parameter|. Every `every` updates: ln of the total adjoint norms |dL/ds_t| at each step (root mean square over the
    batch), the share of saturated gate values, and what `probes` measure: {"name": f(params, record) -> number or (*E,)}, such as
    a spectral radius, a Lyapunov exponent or the sharpness.

    `capacity`: rows kept of either kind; when full, every second row is dropped and from then on only every second is kept, so
    that memory stays bounded and the whole run is covered evenly. `flush_seconds`: how often the files are written, whole or not
    at all, so that they can be read while training runs and after a kill. `path` None keeps everything in memory.

    `record` needs no gradlab loop: a PyTorch or Keras loop can call it with what it has.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        every: int = 20,
        capacity: int = 2000,
        flush_seconds: float = 5.0,
        probes: Mapping[str, Callable[[Mapping[str, Array], Any], Any]] | None = None,
    ) -> None:
        self.path = None if path is None else Path(path).with_suffix("")
        self.every, self.capacity = require_count("every", every), require_count("capacity", capacity, 4)
        if require_number("flush_seconds", flush_seconds) < 0:
            raise ValueRangeError(f"flush_seconds is {flush_seconds}; expected a number >= 0")
        self.flush_seconds, self.probes = flush_seconds, dict(probes or {})
        self._light, self._deep = _Rows(self.capacity), _Rows(self.capacity)
        self._flushed = -np.inf
        self._updates = 0

    def record(
        self,
        update: int,
        *,
        loss: Any,
        gradients: Mapping[str, Array] | None = None,
        clipped: Mapping[str, Array] | None = None,
        gradient_norm: Any = None,
        params: Mapping[str, Array] | None = None,
        new_params: Mapping[str, Array] | None = None,
        learning_rate: Any = None,
        record: Record | None = None,
        adjoint_norms: Mapping[str, Array] | None = None,
        **numbers: Any,
    ) -> None:
        """Note one update; whatever is None is left out. Ensembles give arrays with their axes in front.

        `gradients` and `clipped`: before and after clipping. `params` and `new_params`: before and after the update.
        `record`: of `gradlab.bptt`, for what is looked at every few updates; `adjoint_norms`: {"layer": (*E, T+1)} where there is
        none. `numbers`: more to keep of each update. Error: ShapeError if a row's shapes change from update to update.
        """
        lead = np.ndim(loss)
        row: dict[str, Array] = {"loss": np.asarray(loss, float), **{k: np.asarray(v, float) for k, v in numbers.items()}}
        if gradient_norm is not None:
            row["gradient_norm"] = np.asarray(gradient_norm, float)
        if learning_rate is not None:
            row["learning_rate"] = np.asarray(learning_rate, float)
        for kind, arrays in (("gradient", gradients), ("clipped", clipped)):
            row |= {f"{kind}/{key}": np.exp(_log_norm(value, lead)) for key, value in (arrays or {}).items()}
        if gradients is not None and clipped is not None:
            cut = [row[f"clipped/{key}"] < row[f"gradient/{key}"] * (1.0 - 1e-12) for key in clipped]
            row["was_clipped"] = np.any(cut, axis=0).astype(float)
        if params is not None and new_params is not None:
            with np.errstate(all="ignore"):
                for key, value in new_params.items():
                    row[f"ratio/{key}"] = np.exp(_log_norm(value - params[key], lead) - _log_norm(params[key], lead))
        self._updates = update + 1
        self._light.add(update, row)
        if update % self.every == 0:
            deep = self._look(params, record, adjoint_norms)
            if deep:
                self._deep.add(update, deep)
        if self.path is not None and time.monotonic() - self._flushed >= self.flush_seconds:
            self.flush()

    def _look(
        self, params: Mapping[str, Array] | None, record: Record | None, adjoint_norms: Mapping[str, Array] | None
    ) -> dict[str, Array]:
        """What is measured every few updates."""
        found = {f"adjoint/{name}": np.asarray(value, float) for name, value in (adjoint_norms or {}).items()}
        if record is None:
            return found
        for name, layer in record.layers.items():
            if layer.adjoints is not None:
                logs = log_norm(layer.adjoints, (-1,))  # (T+1, *E, B)
                found[f"adjoint/{name}"] = np.moveaxis(_mean_square(logs), 0, -1)
            for gate, value in layer.gates.items():
                inside = (value > 0.1) & (value < 0.9) if gate != "g" and value.min() >= 0.0 else np.abs(value) < 0.9
                axes = (0, value.ndim - 2, value.ndim - 1)
                found[f"saturated/{name}/{gate}"] = 1.0 - inside.mean(axis=axes)
        for name, probe in self.probes.items():
            found[f"probe/{name}"] = np.asarray(probe(params or {}, record), float)
        return found

    def series(self, name: str) -> tuple[Array, Array]:
        """(updates, values) of one quantity, e.g. "loss", "gradient/0.U", "adjoint/0". Error: ValueRangeError for another name."""
        for rows in (self._light, self._deep):
            if name in rows.values:
                return rows.updates, rows.stacked(name)
        raise ValueRangeError(f"name is {name!r}; expected one of {', '.join(self.names)}")

    @property
    def names(self) -> list[str]:
        """Everything that was kept."""
        return [*self._light.values, *self._deep.values]

    def summary(self) -> dict[str, Any]:
        """The run in a few numbers, as JSON holds them: non-finite ones are None."""
        updates, losses = self.series("loss") if "loss" in self._light.values else (np.zeros(0, int), np.zeros(0))
        found = {"schema": SCHEMA, "updates": self._updates, "kept_every": self._light.stride, "looked_every": self.every}
        if len(losses):
            flat = losses.reshape(len(losses), -1)
            found["loss_first"], found["loss_last"] = (_plain(flat[k].mean()) for k in (0, -1))
            found["jumps"] = [int(updates[k]) for k in np.flatnonzero(jumps(flat).any(axis=-1))][:1000]
        if "was_clipped" in self._light.values:
            found["share_clipped"] = _plain(self._light.stacked("was_clipped").mean())
        return found

    def flush(self) -> None:
        """Write the files now. Without a path nothing happens."""
        if self.path is None:
            return
        header = {
            "schema": SCHEMA,
            "updates": self._updates,
            "every": self.every,
            "strides": [self._light.stride, self._deep.stride],
        }
        arrays = {"light": self._light.updates, "deep": self._deep.updates}
        for rows, kind in ((self._light, "light"), (self._deep, "deep")):
            arrays |= {f"{kind}/{name}": rows.stacked(name) for name in rows.values}
        write_npz(self.path.with_suffix(".npz"), header, arrays)
        write_bytes(self.path.with_suffix(".json"), dump_json(self.summary()))
        self._flushed = time.monotonic()

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Monitor:
        """What `flush` wrote, also of a run that is still going on or was killed. Error: FormatError for another file."""
        header, arrays = read_npz(Path(path).with_suffix(".npz"))
        if header.get("schema") != SCHEMA or not {"light", "deep"} <= arrays.keys():
            raise FormatError(
                f"{path} has schema {header.get('schema')!r}; expected {SCHEMA!r}, a file of gradlab.training.Monitor"
            )
        monitor = Monitor(every=int(header["every"]))
        for rows, kind, stride in zip((monitor._light, monitor._deep), ("light", "deep"), header["strides"], strict=True):
            rows.stride = int(stride)
            for k, update in enumerate(arrays[kind]):
                rows.put(int(update), {n.partition("/")[2]: v[k] for n, v in arrays.items() if n.startswith(f"{kind}/")})
        monitor._updates = int(header["updates"])
        return monitor


class _Rows:
    """At most `capacity` rows; when full every second goes, and from then on every second comes."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.stride, self.seen = capacity, 1, 0
        self._updates: list[int] = []
        self.values: dict[str, list[Array]] = {}

    @property
    def updates(self) -> Array:
        return np.array(self._updates, np.int64)

    def add(self, update: int, row: Mapping[str, Array]) -> None:
        keep = self.seen % self.stride == 0
        self.seen += 1
        if not keep:
            return
        self.put(update, row)
        if len(self._updates) >= self.capacity:
            self.stride *= 2
            self._updates = self._updates[::2]
            self.values = {name: rows[::2] for name, rows in self.values.items()}

    def put(self, update: int, row: Mapping[str, Array]) -> None:
        if self.values and (set(row) != set(self.values) or any(np.shape(v) != self.values[k][0].shape for k, v in row.items())):
            changed = sorted(set(row) ^ set(self.values)) or [k for k, v in row.items() if np.shape(v) != self.values[k][0].shape]
            raise ShapeError(f"update {update}: {', '.join(changed)} differ from the updates before; record the same each time")
        self._updates.append(update)
        for name, value in row.items():
            self.values.setdefault(name, []).append(np.array(value))

    def stacked(self, name: str) -> Array:
        return np.stack(self.values[name])


def _log_norm(value: Array, lead: int) -> Array:
    """Ln of the norm over a parameter's own axes; `lead` ensemble axes stay."""
    value = np.asarray(value)
    return np.asarray(log_norm(value, tuple(range(lead, value.ndim))))


def _mean_square(logs: Array) -> Array:
    """Ln of the root mean square over the last axis, given logarithms."""
    with np.errstate(all="ignore"):
        top = logs.max(axis=-1, keepdims=True)
        safe = np.where(np.isfinite(top), top, 0.0)
        return np.asarray(safe[..., 0] + 0.5 * np.log(np.exp(2.0 * (logs - safe)).mean(axis=-1)))


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
