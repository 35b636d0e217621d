"""All that a training run carries from update to update, and its checkpoint."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._files import read_npz, write_npz
from gradlab.errors import FormatError, ValueRangeError

Array = npt.NDArray[Any]

SCHEMA = "gradlab-checkpoint-1"


@dataclass(frozen=True)
class Event:
    """A member's loss or gradient was not finite: when, whose, and where it was seen first. `stopped`: it trains no more."""

    update: int
    member: tuple[int, ...]
    what: str
    stopped: bool


@dataclass
class State:
    """`params` and the optimiser's `slots` by parameter, `counts` (*E,) of updates made, `training` (*E,) who still trains.

    Histories, a row an update: `loss`, `gradient_norm` (before clipping), `clipped`, (updates, *E). `best`: what validation liked
    most so far: its values (*E,), its parameters, and for how many validations it has stood.
    """

    update: int
    params: dict[str, Array]
    slots: dict[str, dict[str, Array]]
    counts: Array
    training: Array
    history: dict[str, list[Array]] = field(default_factory=dict)
    validation: list[tuple[int, Array]] = field(default_factory=list)
    best: dict[str, Array] = field(default_factory=dict)
    best_value: Array | None = None
    waiting: Array | None = None
    events: list[Event] = field(default_factory=list)

    def save(self, path: str | os.PathLike[str], settings: Mapping[str, Any], generators: list[np.random.Generator]) -> None:
        """Write everything to one .npz, whole or not at all."""
        arrays: dict[str, Array] = {f"params/{key}": value for key, value in self.params.items()}
        arrays |= {f"slots/{slot}/{key}": value for key, slots in self.slots.items() for slot, value in slots.items()}
        arrays |= {f"best/{key}": value for key, value in self.best.items()}
        arrays |= {f"history/{key}": np.stack(rows) for key, rows in self.history.items() if rows}
        arrays |= {"counts": self.counts, "training": self.training.astype(np.int8)}
        if self.validation:
            arrays["validation"] = np.stack([value for _, value in self.validation])
        if self.best_value is not None and self.waiting is not None:
            arrays |= {"best_value": self.best_value, "waiting": self.waiting}
        header = {
            "schema": SCHEMA,
            "update": self.update,
            "settings": dict(settings),
            "generators": [_as_text(generator) for generator in generators],
            "validated": [update for update, _ in self.validation],
            "events": [[e.update, list(e.member), e.what, e.stopped] for e in self.events],
        }
        write_npz(path, header, arrays)

    @staticmethod
    def load(path: str | os.PathLike[str], settings: Mapping[str, Any], generators: list[np.random.Generator]) -> State:
        """The state that `save` wrote; `generators` are set to where they were.

        Errors: FormatError for a file that is no checkpoint; ValueRangeError if it belongs to other settings.
        """
        header, arrays = read_npz(path)
        if header.get("schema") != SCHEMA:
            raise FormatError(
                f"{path} has schema {header.get('schema')!r}; expected {SCHEMA!r}, a checkpoint of gradlab.training"
            )
        try:
            changed = [name for name, value in settings.items() if header["settings"].get(name) != value]
            if changed:
                name = changed[0]
                raise ValueRangeError(
                    f"{path} was written with {name} = {header['settings'].get(name)}; expected {settings[name]}; "
                    "resume with the same settings, or give another file"
                )
            if len(header["generators"]) != len(generators):
                raise ValueRangeError(f"{path} holds {len(header['generators'])} generators; expected {len(generators)}")
            slots: dict[str, dict[str, Array]] = {}
            for name, value in _under(arrays, "slots/").items():
                slot, _, key = name.partition("/")
                slots.setdefault(key, {})[slot] = value
            validated = arrays.get("validation", np.zeros(0))
            state = State(
                update=int(header["update"]),
                params=_under(arrays, "params/"),
                slots=slots,
                counts=arrays["counts"],
                training=arrays["training"].astype(bool),
                history={key: list(rows) for key, rows in _under(arrays, "history/").items()},
                validation=list(zip(header["validated"], validated, strict=True)),
                best=_under(arrays, "best/"),
                best_value=arrays.get("best_value"),
                waiting=arrays.get("waiting"),
                events=[Event(update, tuple(member), what, stopped) for update, member, what, stopped in header["events"]],
            )
            for generator, text in zip(generators, header["generators"], strict=True):
                generator.bit_generator.state = _from_text(text)
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{path} lacks {error}; expected a checkpoint of gradlab.training, whole") from error
        return state


def _under(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


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
