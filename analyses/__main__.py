"""`python -m analyses`: regenerate every figure."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    try:
        from analyses import ALL
        from gradlab.runs import main
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(main(ALL, folder=ROOT / "figures", readme=ROOT / "README.md"))
