"""Models of other frameworks as gradlab networks, and weights files.

`from_module` (PyTorch), `from_keras`, `from_onnx`, `load` and `save` for .safetensors and .npz; each import is an `Imported`:
a network, its parameters in gradlab's letters, and notes about what was decided. `watch` looks into a PyTorch training loop.
A framework is loaded when its function is called, never before; no file is run or unpickled.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.adapters._library import MissingLibrary
    from gradlab.adapters.imported import Imported
    from gradlab.adapters.keras_io import from_keras
    from gradlab.adapters.live import from_model
    from gradlab.adapters.onnx_io import from_onnx
    from gradlab.adapters.onnx_io_run import NodeInputs, node_inputs, node_outputs
    from gradlab.adapters.pytorch import from_module
    from gradlab.adapters.watch_proof import Proof
    from gradlab.adapters.watch_result import Watched
    from gradlab.adapters.watching import Watch, watch
    from gradlab.adapters.weights import load
    from gradlab.adapters.weights_save import save

_HOME = {
    "Imported": "imported",
    "MissingLibrary": "_library",
    "NodeInputs": "onnx_io_run",
    "from_keras": "keras_io",
    "from_model": "live",
    "from_module": "pytorch",
    "from_onnx": "onnx_io",
    "load": "weights",
    "node_inputs": "onnx_io_run",
    "node_outputs": "onnx_io_run",
    "save": "weights_save",
    "Proof": "watch_proof",
    "Watch": "watching",
    "Watched": "watch_result",
    "watch": "watching",
}

__all__ = [
    "Imported",
    "MissingLibrary",
    "NodeInputs",
    "Proof",
    "Watch",
    "Watched",
    "from_keras",
    "from_model",
    "from_module",
    "from_onnx",
    "load",
    "node_inputs",
    "node_outputs",
    "save",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Load names on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'gradlab.adapters' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gradlab.adapters.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
