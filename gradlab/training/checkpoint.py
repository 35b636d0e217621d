"""Checkpoints: the whole state of a run in one .npz, written whole or not at all, read without unpickling."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._files import read_npz, write_npz
from gradlab.errors import FormatError, ShapeError, ValueRangeError
from gradlab.training.nonfinite import Event
from gradlab.training.settings import Settings
from gradlab.training.state import HISTORY, State

Array = npt.NDArray[Any]
Path = str | os.PathLike[str]

SCHEMA = "gradlab-checkpoint-2"


def save(path: Path, state: State, settings: Settings, generators: list[np.random.Generator]) -> None:
    """Write everything to `path`. Error: ResourceRefused if that cannot be."""
    arrays: dict[str, Array] = {f"params/{key}": value for key, value in state.params.items()}
    arrays |= {f"slots/{slot}/{key}": value for key, slots in state.slots.items() for slot, value in slots.items()}
    arrays |= {f"best/{key}": value for key, value in state.best.items()}
    arrays |= {f"history/{key}": rows[: state.update] for key, rows in state.history.items()}
    arrays |= {"counts": state.counts, "training": state.training.astype(np.int8), "skipped": state.skipped}
    if state.best_value is not None and state.waiting is not None:
        arrays |= {"best_value": state.best_value, "waiting": state.waiting}
        arrays["validation"] = np.stack([value for _, value in state.validation])
    header = {
        "schema": SCHEMA,
        "update": state.update,
        "settings": settings.fingerprint(),
        "generators": [_as_text(generator) for generator in generators],
        "validated": [update for update, _ in state.validation],
        "events": [[e.update, list(e.member), e.what, e.parameter, e.step, e.stopped] for e in state.events],
    }
    write_npz(path, header, arrays)


def load(path: Path, start: State, settings: Settings, generators: list[np.random.Generator]) -> State:
    """The state that `save` wrote, in the shapes of `start`; `generators` are set to where they were.

    Errors: FormatError for a file that is no checkpoint, or not a whole one; ValueRangeError or ShapeError for a checkpoint of
    other settings. Nothing is changed then.
    """
    header, arrays = read_npz(path)
    if header.get("schema") != SCHEMA:
        raise FormatError(f"{path} has schema {header.get('schema')!r}; expected {SCHEMA!r}, a checkpoint of gradlab.training")
    try:
        _require_settings(path, header["settings"], settings.fingerprint())
        if len(header["generators"]) != len(generators):
            raise ValueRangeError(f"{path} holds {len(header['generators'])} generators; expected the {len(generators)} in rng")
        state = _read(path, header, arrays, start)
        before = [generator.bit_generator.state for generator in generators]
        try:
            for generator, text in zip(generators, header["generators"], strict=True):
                generator.bit_generator.state = _from_text(text)
        except Exception:
            for generator, old in zip(generators, before, strict=True):
                generator.bit_generator.state = old
            raise
    except (FormatError, ShapeError, ValueRangeError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise FormatError(
            f"{path} is damaged, or of another kind ({error!r}); expected a checkpoint of gradlab.training"
        ) from error
    return state


def _require_settings(path: Path, found: Mapping[str, Any], expected: Mapping[str, str]) -> None:
    for name, value in expected.items():
        if found.get(name) != value:
            raise ValueRangeError(
                f"{path} was written with {name} {_short(found.get(name))}; expected {_short(value)}; "
                "resume with the same settings, or give another file"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _read(path: Path, header: Mapping[str, Any], arrays: Mapping[str, Array], start: State) -> State:
    """A state with the keys, shapes and dtypes of `start`."""
    update = header["update"]
    if not isinstance(update, int) or isinstance(update, bool) or update < 0:
        raise FormatError(f"{path} has update {update!r}; expected an integer >= 0")

    def like(name: str, model: Array) -> Array:
        found = arrays[name]
        if found.shape != model.shape or found.dtype != model.dtype:
            raise ShapeError(
                f"{path}: {name} is {found.dtype} {found.shape}; expected {model.dtype} {model.shape}; give another file"
            )
        return found

    members = start.counts.shape
    history = {}
    for name in HISTORY:
        rows = like(f"history/{name}", np.empty((update, *members)))
        history[name] = np.full((max(update, len(start.history[name])), *members), np.nan)
        history[name][:update] = rows
    validated = header["validated"]
    best, best_value, waiting = {}, None, None
    values: list[Array] = []
    if validated:
        values = list(like("validation", np.empty((len(validated), *members))))
        best = {key: like(f"best/{key}", value) for key, value in start.params.items()}
        best_value, waiting = like("best_value", np.empty(members)), like("waiting", np.empty(members, np.int64))
    return State(
        update=update,
        params={key: like(f"params/{key}", value) for key, value in start.params.items()},
        slots={
            key: {slot: like(f"slots/{slot}/{key}", zero) for slot, zero in slots.items()} for key, slots in start.slots.items()
        },
        counts=like("counts", start.counts),
        training=like("training", start.training.astype(np.int8)).astype(bool),
        skipped=like("skipped", start.skipped),
        history=history,
        validation=list(zip([int(one) for one in validated], values, strict=True)),
        best=best,
        best_value=best_value,
        waiting=waiting,
        events=[Event(u, tuple(member), what, key, step, stopped) for u, member, what, key, step, stopped in header["events"]],
    )


def _as_text(generator: np.random.Generator) -> dict[str, Any]:
    """The state of a bit generator with its arrays as lists and large integers as text, so that JSON holds it."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, np.ndarray):
            return {"uint": [str(one) for one in value.tolist()], "dtype": str(value.dtype)}
        return {"int": str(value)} if isinstance(value, int) else value

    return {str(key): plain(value) for key, value in copy.deepcopy(generator.bit_generator.state).items()}


def _from_text(text: Any) -> Any:
    if isinstance(text, dict) and set(text) == {"int"}:
        return int(text["int"])
    if isinstance(text, dict) and set(text) == {"uint", "dtype"}:
        return np.array([int(one) for one in text["uint"]], text["dtype"])
    return {key: _from_text(value) for key, value in text.items()} if isinstance(text, dict) else text
