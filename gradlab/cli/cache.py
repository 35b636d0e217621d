"""`gradlab cache`: look after the finished tasks that `python -m analyses` keeps."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Every task that an analysis finishes is kept in .cache of its folder of results, so that a killed run goes on where
it was and a rerun computes only what is new. A run verifies what it reads; here all is read.

  gradlab cache verify figures   reads every file, holds it against its SHA-256, changes nothing
  gradlab cache clear figures    removes all that is kept; results and figures stay, and other people's files too

exit status: 0 done, 1 a file is damaged (the next run that needs it sets it aside and computes it again), 2 usage,
3 no finished tasks are there, 5 a run is working there, or a file cannot be removed, 130 interrupted, 141 the reader of
the output is gone"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "cache",
        help="verify or clear the finished tasks of analyses",
        description="Look after the finished tasks that `python -m analyses` keeps beside its results.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=("verify", "clear"), help="read all and say what is damaged, or remove all")
    parser.add_argument("folder", metavar="DIR", type=Path, help="a folder of results, such as figures, or its .cache")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Verify or clear; 0, or 1 if something is damaged."""
    from gradlab.runs.cache_care import cache_below

    cache = cache_below(options.folder)
    return _verify(cache) if options.action == "verify" else _clear(cache)


def _verify(cache: Path) -> int:
    from collections import Counter

    from gradlab._memory import gib
    from gradlab.runs.cache_care import verify
    from gradlab.runs.text import one_line

    count: Counter[str] = Counter()
    size = 0
    for found in verify(cache):
        count[found.state] += 1
        size += found.size
        if found.state != "good":
            name = one_line(str(found.path.relative_to(cache)))
            print(f"{found.state}: {name}{f' ({one_line(found.detail)})' if found.detail else ''}")
    others = [f"{count[state]} {word}" for state, word in _WORDS.items() if count[state]]
    told = ", ".join([f"{count['good']} good", *others])
    print(f"{cache}: {told}; {gib(size)}")
    return 1 if count["damaged"] else 0


_WORDS = {"damaged": "damaged", "newer": "of a newer gradlab", "aside": "set aside by an earlier run"}


def _clear(cache: Path) -> int:
    from gradlab._memory import gib
    from gradlab.runs.cache_care import clear

    count = clear(cache)
    print(f"{cache}: {count['removed']} files removed, {gib(count['bytes'])}")
    return 0
