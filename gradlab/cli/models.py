"""A model, a record or a training history on the command line: its options, and how it is read and diagnosed."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gradlab.cli.options import CELLS, LOSSES
from gradlab.cli.target import Usage, loaded
from gradlab.errors import GradlabError, ShapeError, ValueRangeError

if TYPE_CHECKING:
    from gradlab.diagnosis import Diagnosis

READING = ("naming", "prefix", "nonlinearity", "reset", "cell", "readout", "reverse", "layer", "config")
WEIGHTS, FILES = ("naming", "prefix", "nonlinearity", "reset", "cell", "reverse"), ("layer", "config")


def diagnosed(path: str, options: argparse.Namespace, progress: Callable[[int, int], None] | None = None) -> Diagnosis:
    """The diagnosis of the file at `path`. Errors: Usage; GradlabError, naming the file."""
    _consistent(options)
    try:
        return _diagnosed(path, options, progress)
    except GradlabError as error:
        message = _as_flags(str(error))
        if any(name in message for name in _names(path, options)):
            raise type(error)(message) from error
        raise type(error)(f"{path}: {message}") from error


def _names(path: str, options: argparse.Namespace) -> list[str]:
    files = [path, options.data, options.target, options.lengths, options.history, options.config]
    return [form for name in files if name for form in (name, repr(name), repr(name)[1:-1])]


def _consistent(options: argparse.Namespace) -> None:
    for one, other in (("loss", "target"), ("target", "loss"), ("target", "data"), ("layout", "data")):
        if getattr(options, one) is not None and getattr(options, other) is None:
            raise Usage(f"--{one} needs --{other}; give both, or neither")
    if options.data is not None and options.layout is None:
        from gradlab.diagnosis.arrays import is_text

        if not is_text(options.data):
            raise Usage("--data needs --layout: TBD, time first, or BTD, batch first; it is never guessed")


def _diagnosed(path: str, options: argparse.Namespace, progress: Callable[[int, int], None] | None) -> Diagnosis:
    from gradlab.diagnosis.diagnose import diagnose
    from gradlab.diagnosis.files import kind_of
    from gradlab.runs.threads import limited

    kind = kind_of(path)
    own: dict[str, Any] = {name: getattr(options, name) for name in READING if getattr(options, name) is not None}
    data: Any = None
    lengths: Any = None
    with _cell(own), limited(1):  # with more threads sums come in another order, and bits differ
        if kind == "onnx" and options.data is not None:
            subject, data = _fed(path, options, own)
        else:
            subject = _read(path, kind, own, options.max_memory)
            data, lengths = _data(path, subject, options)
        found = diagnose(
            subject,
            None,
            data,
            None if options.loss is None else _loss(options.loss),
            lengths=lengths,
            history=options.history,
            learning_rate=options.learning_rate,
            clip_norm=options.clip_norm,
            clip_value=options.clip_value,
            dependency=options.dependency,
            truncation=options.truncation,
            seed=options.seed,
            max_memory=options.max_memory,
            progress=progress,
        )
    name = os.path.basename(path)
    return in_flags(replace(found, subject=found.subject if name in found.subject else f"{name}: {found.subject}"))


def in_flags(found: Diagnosis) -> Diagnosis:
    """What could not be judged, in the words of the command line."""
    return replace(found, silent={what: _as_flags(why) for what, why in found.silent.items()})


def _cell(own: dict[str, Any]) -> Any:
    """The context in which a user's own cell can be imported; `own["cell"]` becomes the cell."""
    from contextlib import contextmanager

    @contextmanager
    def context() -> Any:
        name = own.get("cell")
        if name is None:
            yield
        elif name in CELLS:
            import gradlab.cells

            factory, given = CELLS[name]
            own["cell"] = getattr(gradlab.cells, factory)(**given)
            yield
        else:
            with loaded(name) as own["cell"]:
                yield

    return context()


def _read(path: str, kind: str, own: dict[str, Any], max_memory: int | None) -> Any:
    """The subject at `path`, with the options that its kind has."""
    from gradlab.diagnosis.files import read

    readout = own.get("readout")
    given = {name: value for name, value in own.items() if name != "readout"}
    if kind in ("onnx", "keras", "h5"):
        _useless(path, given, WEIGHTS)
        if kind == "onnx":
            _useless(path, given, ("config",))
            given = {"node": given["layer"]} if given else {}
        found = read(path, max_memory, **given)
    elif kind:
        _useless(path, given, (*WEIGHTS, *FILES))
        return read(path, max_memory)
    else:
        _useless(path, given, FILES)
        if "naming" in given:
            given["layout"] = given.pop("naming")
        try:
            found = read(path, max_memory, **given, **({} if readout is None else {"readout": readout}))
            readout = None
        except ValueRangeError as error:
            if readout is None or "no read-out of gradlab" not in str(error):
                raise
            found = read(path, max_memory, **given)
    many = found if isinstance(found, Sequence) else [found]
    if readout is not None:
        many = [replace(one, net=replace(one.net, readout=readout)) for one in many]
    return many if len(many) > 1 else many[0]


def _useless(path: str, given: dict[str, Any], names: Sequence[str]) -> None:
    wrong = [name for name in names if name in given]
    if wrong:
        raise Usage(f"--{wrong[0]} has no meaning for {path}; drop it")


def _fed(path: str, options: argparse.Namespace, own: dict[str, Any]) -> tuple[Any, Any]:
    """Nodes of an ONNX file with their inputs, and a Batch for the targets, if there are any."""
    from gradlab.batch import Batch
    from gradlab.diagnosis.arrays import is_text, named_arrays, read_array
    from gradlab.diagnosis.fed import Layout, fed_nodes

    _useless(path, own, (*WEIGHTS, "config", "readout"))
    text = is_text(options.data)
    layout: Layout = options.layout or "TBD"
    data: Any
    if layout == "graph" and not text and options.data.endswith(".npz"):
        data = named_arrays(options.data, options.max_memory)
        data = next(iter(data.values())) if len(data) == 1 else data
    else:
        data = read_array(options.data, "inputs", options.max_memory)
        data = _one_sequence(data, layout) if text and layout != "graph" else data
    lengths = None if options.lengths is None else read_array(options.lengths, "lengths", options.max_memory).ravel()
    try:
        nodes = fed_nodes(path, data, layout, lengths=lengths, node=options.layer, max_memory=options.max_memory)
    except ShapeError as error:
        raise ShapeError(f"{options.data}: {error}") from error
    return nodes, None if options.target is None else Batch(nodes[0].x, _target(options))


def _data(path: str, subject: Any, options: argparse.Namespace) -> tuple[Any, Any]:
    """Inputs, or a Batch, and lengths."""
    from gradlab.adapters.imported import Imported
    from gradlab.batch import Batch
    from gradlab.diagnosis.arrays import is_text, read_array

    lengths = None if options.lengths is None else read_array(options.lengths, "lengths", options.max_memory).ravel()
    if options.data is None:
        return None, lengths
    if options.layout == "graph":
        raise Usage(f"--layout graph is for ONNX files; {path} is none; give TBD or BTD")
    if isinstance(subject, list):
        raise Usage(f"--data cannot go to all of the {len(subject)} layers of {path}; name one: --layer")
    x = read_array(options.data, "inputs", options.max_memory)
    if is_text(options.data):
        x = _one_sequence(x, "TBD")
    elif options.layout == "BTD" and x.ndim == 3:
        x = x.swapaxes(0, 1)
    if isinstance(subject, Imported):
        D = subject.net.input_size
        if x.ndim != 3:
            advice = "; one sequence has an axis of length 1 for the batch" if x.ndim == 2 else ""
            raise ShapeError(f"{options.data}: shape {x.shape}; expected 3 axes, {options.layout}{advice}")
        if x.shape[-1] != D:
            raise ShapeError(f"{options.data}: {x.shape[-1]} features; {path} reads {D}")
    return (x, lengths) if options.target is None else (Batch(x, _target(options), lengths=lengths), None)


def _one_sequence(x: Any, layout: str) -> Any:
    """(T, D) of a .csv as a batch of one."""
    return x[None] if layout == "BTD" else x[:, None]


def _target(options: argparse.Namespace) -> Any:
    """The targets, time first."""
    from gradlab.diagnosis.arrays import is_text, read_array

    y = read_array(options.target, "targets", options.max_memory)
    timed = 3 if options.loss == "mse" else 2
    if is_text(options.target):
        y = y[:, None, :] if options.loss == "mse" else y
        return y if len(y) > 1 else y[0]
    return y.swapaxes(0, 1) if options.layout == "BTD" and y.ndim == timed else y


def _loss(name: str) -> Any:
    import gradlab.losses

    return getattr(gradlab.losses, LOSSES[name])


_ARGUMENTS = re.compile(
    r"\b(nonlinearity|reset|prefix|cell|readout|node|layer|config|lengths|max_memory|history|learning_rate|clip_norm|clip_value"
    r"|dependency|truncation)=(?=(.?))"
)


def _as_flags(message: str) -> str:
    """Arguments of functions in a message as flags of the command line."""

    def flag(found: re.Match[str]) -> str:
        name = "layer" if found[1] == "node" else found[1].replace("_", "-")
        return f"--{name}{'' if found[2] in ' ,.:;' else ' '}"

    message = _ARGUMENTS.sub(flag, message.replace("give layout=", "give --naming "))
    return message.replace("larger max_memory", "larger --max-memory")


def typed(command: str, paths: Sequence[str], options: argparse.Namespace) -> str:
    """The command that does the same again, without where its output goes."""
    names = ("data", "layout", "lengths", "target", "loss", "history", "learning_rate", "clip_norm", "clip_value", "dependency")
    words = ["gradlab", command, *(shlex.quote(path) for path in paths)]
    for name in (*names, "truncation", *READING, "max_memory", "seed"):
        value = getattr(options, name)
        if value is not None and (name, value) != ("seed", 0):
            flag = f"--{name.replace('_', '-')}"
            words.append(flag if value is True else f"{flag} {shlex.quote(str(value))}")
    return " ".join(words)
