"""Which layers of a model can be watched, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlab.adapters.pytorch import Spec, is_recurrent, spec_of
from gradlab.errors import DTypeError, ValueRangeError


def recurrent_modules(torch: Any, model: Any, only: Sequence[str] | None) -> dict[str, tuple[Any, Spec]]:
    """Every recurrent layer in `model` by its path, with what it is; `only`: those paths alone.

    Errors: DTypeError if `model` is no torch.nn.Module; ValueRangeError if it is compiled, scripted or replicated, has no
    recurrent layer, or one with an option that gradlab lacks.
    """
    if not isinstance(model, torch.nn.Module):
        raise DTypeError(f"model is a {type(model).__module__}.{type(model).__qualname__}; expected a torch.nn.Module")
    for path, module in model.named_modules():
        _refuse_wrapped(torch, path or "model", module)
    every = {path or "model": module for path, module in model.named_modules() if is_recurrent(torch, module)}
    if not every:
        raise ValueRangeError(
            f"model, a {type(model).__qualname__}, has no recurrent layer; expected an nn.RNN, LSTM, GRU or a cell"
        )
    unknown = [name for name in only or () if name not in every]
    if unknown or isinstance(only, str):
        raise ValueRangeError(f"only is {only!r}; expected a sequence of names out of {', '.join(every)}")
    found = {}
    for name, module in every.items():
        if only is None or name in only:
            try:
                found[name] = module, spec_of(torch, module)
            except ValueRangeError as error:
                rest = [other for other in every if other != name]
                raise ValueRangeError(f"{name}: {error}; try watch(model, only={rest!r})") from error
    return found


def _refuse_wrapped(torch: Any, name: str, module: Any) -> None:
    if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
        raise ValueRangeError(f"{name} is compiled by torch.compile, which removes what hooks see; expected the model before it")
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueRangeError(f"{name} is a torch.jit.ScriptModule; expected the Python module that it was made from")
    if isinstance(module, torch.nn.DataParallel):
        raise ValueRangeError(f"{name} is a DataParallel, which runs copies of its layers; expected the module inside it")
