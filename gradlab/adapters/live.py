"""Every recurrent layer of a live model of any framework."""

from __future__ import annotations

from typing import Any

from gradlab.adapters._library import load_library
from gradlab.adapters.imported import Imported
from gradlab.errors import DTypeError


def from_model(model: Any) -> dict[str, Imported]:
    """The recurrent layers of a live PyTorch or Keras model, by their paths in it ("" if it is the only thing there).

    Errors: DTypeError for anything else; those of `from_module` and `from_keras`.
    """
    roots = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    if "torch" in roots:
        from gradlab.adapters.pytorch import from_module
        from gradlab.adapters.watch_model import recurrent_modules

        torch = load_library("torch", "torch", "from_model")
        found = recurrent_modules(torch, model, None)
        return {"" if module is model else path: from_module(module) for path, (module, _) in found.items()}
    if "keras" in roots:
        from gradlab.adapters.keras_io import from_keras

        made = from_keras(model)
        return {"" if len(made) == 1 else str(k): one for k, one in enumerate(made)}
    raise DTypeError(
        f"subject is a {type(model).__name__}; expected a gradlab.Network with params, an import, a torch or Keras model, "
        "a Record, what watch saw, a Monitor, or the path of a file"
    )
