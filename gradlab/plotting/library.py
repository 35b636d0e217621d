"""matplotlib, imported so that no setting of the environment can prevent it.

An MPLBACKEND that does not exist makes the bare import fail; gradlab draws without any backend of a window.
"""

from __future__ import annotations

import contextlib
import os
import sys


def load() -> None:
    """Import matplotlib as if MPLBACKEND were not set, then set its backend if it is one; the environment stays as it was."""
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):  # no such backend: nothing here needs one
            matplotlib.rcParams["backend"] = backend


load()
