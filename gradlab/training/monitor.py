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
from gradlab._validate import require_callable, require_count, require_number
from gradlab.errors import DTypeError, FormatError, GradlabError, ResourceRefused, ValueRangeError
from gradlab.record import Record
from gradlab.training.jumps import jumps
from gradlab.training.measures import looks, norms, numbers, update_ratios
from gradlab.training.rows import FEWEST, Rows

Array = npt.NDArray[Any]
Probe = Callable[[Mapping[str, Array], Any], Any]

SCHEMA = "gradlab-monitor-2"
SHARE_OF_TIME = 0.02
"""Of the time since the last writing, what the next one may take."""


class Monitor:
    """Keeps a bounded history of a training run, in memory and in `path`.npz with a summary in `path`.json.

    After each update: loss, norm of each parameter's gradient before and after clipping, whether it was clipped, and the ratio
    |update|/|parameter|. Every `every` updates: ln of the total adjoint norms |dL/ds_t| at each step (root mean square over the
    batch), the share of saturated gate values, and what `probes` measure: {"name": f(params, record) -> number or (*E,)}, such as
    those of `gradlab.training.probes`: a spectral radius, a Lyapunov exponent, the sharpness.

    `capacity` rows of the first kind and a quarter as many of the second, and about `max_bytes` of each: when full, every second
    row is dropped and from then on only every second is kept, so that the whole run is covered evenly. `flush_seconds`: how
    often the files are written at most, whole or not at all, so that they can be read while training runs and after a kill;
    less often where writing takes long; 0 writes after every update. `path` None keeps everything in memory.

    If the files are there, the history goes on: an update that they hold already replaces it and all later ones. So a run that
    is resumed from a checkpoint repeats nothing, and one that starts again at update 0 starts a new history.

    `record` needs no gradlab loop: a PyTorch or Keras loop can call it with what it has.
    Errors: DTypeError, ValueRangeError naming the argument; FormatError if `path`.npz is there and is no monitor's file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        every: int = 20,
        capacity: int = 2000,
        max_bytes: int = 2**26,
        flush_seconds: float = 5.0,
        probes: Mapping[str, Probe] | None = None,
    ) -> None:
        self.every, self.capacity = require_count("every", every), require_count("capacity", capacity, FEWEST)
        self.max_bytes = require_count("max_bytes", max_bytes, 1024)
        self.flush_seconds = require_number("flush_seconds", flush_seconds, "a number >= 0")
        if self.flush_seconds < 0:
            raise ValueRangeError(f"flush_seconds is {flush_seconds}; expected a number >= 0")
        if probes is not None and not isinstance(probes, Mapping):
            raise DTypeError(f"probes is {probes!r}; expected a dict of functions by name")
        self.probes = dict(probes or {})
        for name, probe in self.probes.items():
            require_callable(f"probes[{name!r}]", probe, "(params, record) -> number or (*E,)")
        self._light = Rows(self.capacity, self.max_bytes)
        self._deep = Rows(max(FEWEST, self.capacity // 4), self.max_bytes)
        self._updates = 0
        self._before: dict[str, Array] = {}
        self._next_flush = -np.inf
        self.path = None if path is None else _stem(path)
        if self.path is not None and _file(self.path, ".npz").exists():
            self._read(_file(self.path, ".npz"))

    def record(
        self,
        update: int,
        *,
        loss: Any = None,
        gradients: Mapping[str, Any] | None = None,
        clipped: Mapping[str, Any] | None = None,
        gradient_norm: Any = None,
        params: Mapping[str, Any] | None = None,
        new_params: Mapping[str, Any] | None = None,
        learning_rate: Any = None,
        record: Record | None = None,
        adjoint_norms: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Note one update; whatever is None is left out. Ensembles give a loss, and
        arrays with their axes in front. Nothing is changed.

        `gradients` and `clipped`: before and after clipping, by name. `params` and `new_params`: before and after the update;
        with `new_params` alone they are compared with those of the call before. `record`: of `gradlab.bptt`, for what is looked
        at every few updates; `adjoint_norms`: {"layer": (*E, T+1)}, |dL/ds_t| itself, where there is none.
        `more`: other numbers to keep of each update. Arrays of NumPy, torch or Keras.
        Errors: DTypeError for what is no number; ShapeError if names or shapes change from update to update.
        """
        update = require_count("update", update, 0)
        if update < self._updates:
            self._light.forget_from(update)
            self._deep.forget_from(update)
        row = {name: numbers(name, value) for name, value in more.items()}
        if loss is not None:
            row["loss"] = numbers("loss", loss)
        lead = row["loss"].ndim if "loss" in row else 0
        own = _arrays("params", params), _arrays("new_params", new_params)
        if self._light.wants(update):
            for name, value in (("gradient_norm", gradient_norm), ("learning_rate", learning_rate)):
                if value is not None:
                    row[name] = numbers(name, value)
            row |= norms("gradient", gradients or {}, lead)
            row |= _clipped_norms(row, gradients, clipped, lead)
            before = own[0] or self._before
            if own[1]:
                row |= update_ratios(before or own[1], own[1], lead)
            self._light.add(update, row)
        if own[1] and not own[0]:
            self._before = {key: value.copy() for key, value in own[1].items()}  # a framework changes them in place
        self._updates = update + 1
        if update % self.every == 0 and self._deep.wants(update):
            deep = self._look(own[0] or own[1], record, adjoint_norms)
            if deep:
                self._deep.add(update, deep)
        if self.path is not None and time.monotonic() >= self._next_flush:
            self.flush()

    def _look(
        self, params: Mapping[str, Array], record: Record | None, adjoint_norms: Mapping[str, Any] | None
    ) -> dict[str, Array]:
        """What is measured every few updates."""
        with np.errstate(all="ignore"):
            given = {f"adjoint/{name}": np.log(numbers("adjoint_norms", v)) for name, v in (adjoint_norms or {}).items()}
        found = given if record is None else given | looks(record)
        for name, probe in self.probes.items():
            found[f"probe/{name}"] = numbers(f"probes[{name!r}]", probe(params, record))
        return found

    @property
    def names(self) -> list[str]:
        """Everything that was kept."""
        return [*self._light.names, *self._deep.names]

    def series(self, name: str) -> tuple[Array, Array]:
        """(updates, values) of one quantity, e.g. "loss", "gradient/0.U", "adjoint/0"; copies.

        Error: ValueRangeError for another name.
        """
        for rows in (self._light, self._deep):
            if name in rows.names:
                return rows.updates, rows.values(name)
        raise ValueRangeError(f"name is {name!r}; expected one of {', '.join(self.names) or 'none: nothing was recorded yet'}")

    def summary(self) -> dict[str, Any]:
        """The run in a few numbers, as JSON holds them: non-finite ones are None."""
        found: dict[str, Any] = {"schema": SCHEMA, "updates": self._updates, "every": self.every, "rows": self._light.size}
        if "loss" in self._light.names:
            updates, losses = self.series("loss")
            flat = losses.reshape(len(losses), -1)
            found["loss_first"], found["loss_last"] = (_plain(np.median(flat[k])) for k in (0, -1))
            found["jumps"] = [int(updates[k]) for k in np.flatnonzero(jumps(flat).any(axis=-1))][:1000]
            found["not_finite"] = int((~np.isfinite(flat)).sum())
        if "was_clipped" in self._light.names:
            found["share_clipped"] = _plain(self._light.values("was_clipped").mean())
        return found

    def flush(self) -> None:
        """Write the files now. Without a path nothing happens. Error: ResourceRefused if they cannot be written."""
        if self.path is None:
            return
        begun = time.monotonic()
        header = {"schema": SCHEMA, "updates": self._updates, "every": self.every, "gaps": [self._light.gap, self._deep.gap]}
        arrays = {"light": self._light.updates, "deep": self._deep.updates}
        for kind, rows in (("light", self._light), ("deep", self._deep)):
            arrays |= {f"{kind}/{name}": rows.values(name) for name in rows.names}
        write_npz(_file(self.path, ".npz"), header, arrays)
        write_bytes(_file(self.path, ".json"), dump_json(self.summary()))
        now = time.monotonic()
        self._next_flush = now + max(self.flush_seconds, (now - begun) / SHARE_OF_TIME) if self.flush_seconds else now

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Monitor:
        """What `flush` wrote, also of a run that is still going on or was killed; it writes nothing itself.

        Error: FormatError for another file, or none.
        """
        monitor = Monitor()
        monitor._read(_file(_stem(path), ".npz"))
        return monitor

    def _read(self, file: Path) -> None:
        header, arrays = read_npz(file)
        if header.get("schema") != SCHEMA:
            raise FormatError(
                f"{file} has schema {header.get('schema')!r}; expected {SCHEMA!r}, a file of gradlab.training.Monitor"
            )
        try:
            for kind, rows, gap in zip(("light", "deep"), (self._light, self._deep), header["gaps"], strict=True):
                rows.fill(arrays[kind], {n.partition("/")[2]: v for n, v in arrays.items() if n.startswith(f"{kind}/")}, gap)
            self._updates = require_count("updates", header["updates"], 0)
        except (LookupError, TypeError, ValueError, GradlabError) as error:
            raise FormatError(f"{file} is damaged ({error}); expected a file of gradlab.training.Monitor") from error


def _clipped_norms(
    row: Mapping[str, Array], gradients: Mapping[str, Any] | None, clipped: Mapping[str, Any] | None, lead: int
) -> dict[str, Array]:
    """Norms after clipping, and whether any of them is smaller than before."""
    if clipped is None:
        return {}
    if clipped is gradients:
        found = {f"clipped/{key}": row[f"gradient/{key}"] for key in clipped}
    else:
        found = norms("clipped", clipped, lead)
    if gradients is not None:
        cut = [found[f"clipped/{key}"] < row[f"gradient/{key}"] * (1.0 - 1e-7) for key in clipped]
        found["was_clipped"] = np.any(cut, axis=0).astype(float)
    return found


def _arrays(name: str, given: Mapping[str, Any] | None) -> dict[str, Array]:
    return {key: numbers(f"{name}[{key!r}]", value) for key, value in (given or {}).items()}


def _stem(path: str | os.PathLike[str]) -> Path:
    """The path without .npz or .json; other dots belong to the name. Error: ResourceRefused if its folder is not there."""
    if not isinstance(path, (str, os.PathLike)):
        raise DTypeError(f"path is {path!r}; expected the path of a file, without an ending")
    stem = Path(path)
    if stem.suffix in (".npz", ".json"):
        stem = stem.with_suffix("")
    if not stem.parent.is_dir():
        raise ResourceRefused(f"path is {str(path)!r}; its folder does not exist; make it, or choose another")
    return stem


def _file(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
