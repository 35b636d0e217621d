"""`python -m analyses`: regenerate every figure."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    # Before a run Ctrl-C ends the program at once; a run has a handler of its own.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    from analyses import ALL
    from gradlab.runs import main

    status = main(ALL, folder=ROOT / "figures", readme=ROOT / "README.md")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interpreter ends in its own time, with this status
    sys.exit(status)
