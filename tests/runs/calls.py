"""The command line over toys, as the tests of the runner call it."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from gradlab.runs import main

ROOT = Path(__file__).resolve().parents[2]
TOYS = ROOT / "tests" / "runs" / "toys.py"


def call(analyses, folder, *argv):
    """The exit status of a run into `folder`."""
    return main(analyses, ["--out", str(folder), *map(str, argv)], folder=folder / "default")


def data(folder):
    """The reproducible files of a folder, by name."""
    plain = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.endswith("run.json"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in plain}


def tasks(folder, stem="alpha"):
    """(computed, from the cache) of the last run of an analysis."""
    told = json.loads((folder / f"{stem}.run.json").read_text())["tasks"]
    return told["computed"], told["from_cache"]


def ran(log):
    """What the tasks of a toy noted, in the order in which they began."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def entries(folder, stem="alpha"):
    """The files of finished tasks."""
    return sorted((folder / ".cache" / stem).glob("*.npz"))


def until(condition, seconds):
    """Whether `condition` came true in time."""
    end = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return true


def environment(**changes):
    """That of this process, but for what decides the number of threads and where modules are."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "OPENBLAS", "OMP"))}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {**kept, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **changes}


def started(*argv, **changes):
    """The command line over a set of toys in a process and a group of its own."""
    return subprocess.Popen(
        [sys.executable, str(TOYS), *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**changes),
        start_new_session=True,
    )
