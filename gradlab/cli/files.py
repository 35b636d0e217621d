"""Where a command may write."""

from __future__ import annotations

import os
from pathlib import Path

from gradlab.errors import ResourceRefused


def require_writable(path: str) -> Path:
    """`path`, if a file can be made there. Error: ResourceRefused, before anything is computed.

    What is no regular file, a device or a pipe, would be replaced by one.
    """
    found = Path(path)
    if os.path.lexists(found) and not os.path.isfile(found):
        raise ResourceRefused(f"{path}: is no regular file, and would be replaced by one; choose another path")
    if not os.path.isdir(found.parent) or not os.access(found.parent, os.W_OK):
        raise ResourceRefused(f"{path}: cannot be written, {found.parent} is no folder, or may not be written; choose another")
    return found
