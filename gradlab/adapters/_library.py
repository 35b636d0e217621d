"""Libraries that are needed only for what is read from them."""

from __future__ import annotations

import importlib
from typing import Any

from gradlab.errors import GradlabError


class MissingLibrary(GradlabError, ImportError):
    """An optional library is not installed; the message has the line that installs it."""


def load_library(name: str, extra: str, purpose: str) -> Any:
    """The module `name`, imported now; `extra` of gradlab brings it, `purpose` is what needs it.

    Error: MissingLibrary, with the pip line.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        top = name.partition(".")[0]
        raise MissingLibrary(f"{purpose} needs {top} ({error}); try pip install 'gradlab[{extra}]'", name=top) from error
