"""`watch`: look into the recurrent layers of a PyTorch model while the user's own script trains it."""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gradlab._validate import require_callable, require_count, require_positive
from gradlab.adapters._library import load_library
from gradlab.adapters.watch_call import Call
from gradlab.adapters.watch_feed import Feed
from gradlab.adapters.watch_job import jobs_of
from gradlab.adapters.watch_model import recurrent_modules
from gradlab.adapters.watch_prove import prove
from gradlab.adapters.watch_result import Watched
from gradlab.adapters.watch_tracker import Tracker
from gradlab.backward import DEFAULT_KEEP, KEEP
from gradlab.errors import ValueRangeError

Array = npt.NDArray[Any]


def watch(
    model: Any,
    *,
    every: int = 1,
    loss_scale: float | Callable[[], float] = 1.0,
    monitor: Any = None,
    keep: Sequence[str] = DEFAULT_KEEP,
    history: int = 1,
    only: Sequence[str] | None = None,
) -> Watch:
    """Watch every recurrent layer of a torch `model` for as long as the block lasts:

        with gradlab.adapters.watch(model) as seen:
            train(model)                      # unchanged
        print(seen["encoder.lstm"])           # the proof; .record has total adjoints, gates, states

    While the user's own forward and backward passes run, hooks copy what each nn.RNN, LSTM, GRU and *Cell reads (padded or
    packed, batched or not, from any device), its weights as they are, and the gradients that arrive at its outputs AND final
    states. At the end of the backward pass gradlab replays each call with its own engine and holds the weight gradients
    against torch's, taken from this very backward pass, before clipping and without what accumulated before.
    Results, gradients and the random stream of the user's script are bit for bit the same as without.

    An update here is one backward pass that reaches a recurrent layer (not a step of the optimiser): with gradient
    accumulation each backward pass is looked at on its own. `every`: look at updates 0, every, 2 every, ...; in between nothing
    is captured: a look sees calls made after the backward pass before it.

    Calls of a cell, each of which reads the state that the one before emitted, are one sequence and one record.

    `loss_scale`: what the user multiplied the loss with, or a function that tells, such as `scaler.get_scale`; divided out.
    `monitor`: any object with `record(update, **measured)`, such as `gradlab.training.Monitor`, told after each look.
    `keep`: as of `gradlab.bptt`. `history`: how many looks are held. `only`: paths of the modules to watch, None for all.

    Dropout between layers: the masks are drawn again from a copy of the generator's state, on the CPU; elsewhere it is refused.
    Refused by name: torch.compile, ScriptModule, DataParallel, checkpointing, half precision, proj_size > 0.
    Errors: at once MissingLibrary, DTypeError or ValueRangeError for what cannot be watched at all. What shows while training
    runs never stops it: it is warned of when the block ends, and raised when results are asked for. ValueRangeError for what is
    refused by name; NumericalError for a replay that deviates from torch where rounding cannot be why, with the numbers.
    """
    torch = load_library("torch", "torch", "watch")
    unknown = [name for name in keep if name not in KEEP]
    if isinstance(keep, str) or unknown:
        raise ValueRangeError(f"keep is {keep!r}; expected a sequence of names out of {', '.join(KEEP)}")
    if not callable(loss_scale):
        require_positive("loss_scale", loss_scale)
    if monitor is not None:
        require_callable("monitor.record", getattr(monitor, "record", None), "record(update, **measured)")
    every, history = require_count("every", every), require_count("history", history)
    names = (*dict.fromkeys((*DEFAULT_KEEP, *keep)),)
    return Watch(torch, model, recurrent_modules(torch, model, only), every, loss_scale, monitor, names, history)


class Watch:
    """What `watch` returns: a context manager that holds what was seen.

    `updates`: backward passes that reached a recurrent layer so far. `looks`: results of the newest `history` of those that were
    looked at, the newest last. `notes`: what was seen but could not be replayed, in words.
    """

    def __init__(
        self,
        torch: Any,
        model: Any,
        modules: Any,
        every: int,
        loss_scale: float | Callable[[], float],
        monitor: Any,
        keep: Sequence[str],
        history: int,
    ) -> None:
        self.updates = 0
        self._torch, self._model, self._modules = torch, model, modules
        self._every, self._loss_scale, self._keep = every, loss_scale, keep
        self._feed = None if monitor is None else Feed(monitor)
        self._tracker = Tracker(torch, modules, self._ended, self._idle, self._fail)
        self._looks: deque[tuple[Watched, ...]] = deque(maxlen=history)
        self._error: Exception | None = None
        self._idled: Counter[tuple[str, str]] = Counter()
        self._unplayed: dict[str, None] = {}
        self._active = False

    def __enter__(self) -> Self:
        if self._active:
            raise ValueRangeError("this watch is running already; expected one with-block at a time")
        self._active = True
        self._tracker.attach()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._tracker.close()
        self._active = False
        if not self.updates and not self._idled and self._error is None:
            self._unplayed["no call was seen: none was made here, or by a function that torch.compile had compiled before"] = None
        if self._error is not None and kind is None:
            warnings.warn(f"gradlab.adapters.watch: {self._error}", RuntimeWarning, stacklevel=2)

    # ---- results --------------------------------------------------------------------------------------

    @property
    def looks(self) -> tuple[tuple[Watched, ...], ...]:
        """Results of the looks held. Errors: the first that a look met, see `watch`."""
        if self._error is not None:
            raise self._error
        return tuple(self._looks)

    @property
    def results(self) -> tuple[Watched, ...]:
        """Results of the newest look, in the order of the calls; empty if there was none. Errors as `looks`."""
        held = self.looks
        return held[-1] if held else ()

    def __getitem__(self, name: str) -> Watched:
        """The newest result of the module `name`, of its last call. Errors as `looks`; ValueRangeError if there is none."""
        for look in reversed(self.looks):
            for one in reversed(look):
                if one.name == name:
                    return one
        said = [note for note in self.notes if note.startswith(f"{name}:")]
        there = f"a module that was looked at, out of {', '.join(self._modules)}"
        raise ValueRangeError("; ".join([f"nothing was seen of {name!r}; expected {there}", *said]))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was seen and not replayed: calls that no gradient reached, with how many; inputs that are not finite."""
        idle = [
            f"{name}: {reason} ({count} {'call' if count == 1 else 'calls'})" for (name, reason), count in self._idled.items()
        ]
        return (*idle, *self._unplayed)

    def __str__(self) -> str:
        return "\n".join([*(str(one) for one in self.results), *self.notes]) or "nothing was seen yet"

    # ---- what the tracker tells -------------------------------------------------------------------------

    def _idle(self, name: str, reason: str) -> None:
        self._idled[name, reason] += 1

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error

    def _ended(self, calls: list[Call], gradients: dict[int, Array]) -> None:
        update, self.updates = self.updates, self.updates + 1
        if calls:
            try:
                self._look(calls, gradients, update)
            except Exception as error:
                self._fail(error)
        if self.updates % self._every == 0 or (self._tracker.attached and not calls):
            self._tracker.attach()
        else:
            self._tracker.detach(self._counted())

    def _look(self, calls: list[Call], gradients: dict[int, Array], update: int) -> None:
        scale = self._loss_scale() if callable(self._loss_scale) else self._loss_scale
        scale = require_positive("loss_scale", np.asarray(scale).item())
        looked = prove(self._torch, jobs_of(calls), gradients, update, scale, self._keep)
        for error in looked.refused:
            self._fail(error)
        self._unplayed |= dict.fromkeys(looked.notes[: max(0, 100 - len(self._unplayed))])
        if looked.watched:
            self._looks.append(looked.watched)
            if self._feed is not None:
                self._feed(update, looked.watched)

    def _counted(self) -> list[Any]:
        """Tensors whose gradient says that a backward pass went by: the recurrent layers' own, or, if frozen, the model's."""
        own = [p for module, _ in self._modules.values() for p in module.parameters() if p.requires_grad]
        return own or [p for p in self._model.parameters() if p.requires_grad]
