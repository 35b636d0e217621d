"""Small analyses for tests of the runner; run as a script, the command line over one set of them in a real process."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from gradlab import _memory
from gradlab.runs import GroundTruth, Verdict, main, threads


def toy(**changes):
    """A complete analysis that takes no time: five random numbers, their mean, one line."""

    def compute(rng, scale, progress=None):
        if progress is not None:
            progress(1, 2)
            progress(2, 2)
        return {"x": rng.normal(size=5), "two": np.array(2.0)}

    def check(result):
        truth = GroundTruth("two", float(result["two"]), 2.0, 1e-12, "arithmetic")
        mean = float(result["x"].mean())
        return Verdict("confirmed", f"the mean is {mean:.3f}", {"mean": mean, "count": len(result["x"])}, (truth,))

    def draw(result):
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

        figure = Figure(figsize=(0.5, 0.5), layout="none")  # no axes: they take most of the time of a picture
        figure.add_artist(Line2D(np.linspace(0.1, 0.9, 5), 0.5 + 0.1 * result["x"]))
        return figure

    parts = {
        "CLAIM": "a claim about toys",
        "SOURCE": "nobody (2013)",
        "CONTRADICTED_IF": "the mean is not a number",
        "PARAMETERS": {"full": {"size": 5}, "quick": {"size": 5}},
        "NEEDS": (),
        "ALONE": False,
        "compute": compute,
        "check": check,
        "draw": draw,
    }
    return SimpleNamespace(**{**parts, **changes})


def verdict(word="confirmed", sentence="the number is 1", numbers=None, truths=()):
    """A `check` that concludes this, whatever the arrays say."""
    return lambda result: Verdict(word, sentence, {"number": 1.0} if numbers is None else numbers, truths)


def broken(expected=3.0, word="confirmed"):
    """A `check` whose ground truth measures 2 where `expected` is expected."""
    return verdict(word, "two is what it is", truths=(GroundTruth("two", 2.0, expected, 1e-6, "arithmetic"),))


def crash(error):
    """A `compute`, `check` or `draw` that raises."""

    def raises(*args):
        raise error

    return raises


def sleep(rng, scale, progress=None):
    """A `compute` that is interrupted long before it ends; it says that it has begun by the file TOY_BEGUN."""
    Path(os.environ["TOY_BEGUN"]).touch()
    for step in range(1200):
        time.sleep(0.05)
        progress(step, 1200)
    return {"x": np.zeros(5), "two": np.array(2.0)}


def split(*tasks, log=None, **changes):
    """A toy in tasks. `tasks`: their parameters, or how many plain ones; `log`: a file that gets a line for each that runs.

    What a task does is in its parameter `does`, see `misbehave`; a second one, `mark`, is a file that it may leave.
    """
    given = [{"k": k} for k in range(tasks[0])] if tasks and isinstance(tasks[0], int) else list(tasks)

    def run_task(rng, parameters, progress=None):
        if log is not None:
            with open(log, "a") as stream:
                stream.write(f"{json.dumps(parameters, sort_keys=True)}\n")
        odd = misbehave(parameters)
        if odd is not None:
            return odd
        if progress is not None:
            progress(1, 1)
        matrix = rng.normal(size=(60, 60))  # products whose last digits depend on the number of threads
        return {"x": rng.normal(size=2), "product": matrix @ matrix.T}

    def collect(results, scale):
        return {"x": np.concatenate([one["x"] for one in results]), "two": np.array(2.0), "last": results[-1]["product"]}

    def draw(result):
        return toy().draw({"x": result["x"][:5]}) if len(result["x"]) >= 5 else toy().draw({"x": np.zeros(5)})

    made = toy(tasks=lambda scale: given, run_task=run_task, collect=collect, draw=draw, **changes)
    del made.compute
    return made


def misbehave(parameters):
    """What a task does besides, by its name; what is not None is its result."""
    does, mark = parameters.get("does"), Path(parameters.get("mark", "/nonexistent"))
    if does == "die" or (does == "die once" and not mark.exists()):
        mark.parent.exists() and mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "crash memory":
        ctypes.string_at(0)
    if does == "hang":
        mark.parent.exists() and mark.write_text(str(os.getpid()))
        time.sleep(120)
    if does == "print":
        print("x" * 10_000_000, flush=True)
    if does == "raise":
        raise ValueError("seven is not eight")
    if does == "raise oddly":

        class OddError(Exception):
            def __init__(self, one, two):
                super().__init__(lambda: None)

        raise OddError(1, 2)
    if does == "wait":
        time.sleep(parameters["seconds"])
    if does == "threads":
        return {"x": np.array([_memory.SHARE]), "product": np.array([pool["num_threads"] for pool in threads.pools()])}
    return {"x": lambda: None} if does == "lambda" else None


GREEK = "the exponent λ exceeds σ − 1"
SETS = {
    "slow": {"first": toy(), "second": toy(compute=sleep), "third": toy()},
    "greek": {"first": toy(CLAIM=GREEK, check=verdict(sentence=f"λ = 1: {GREEK}"))},
    "crash": {"first": toy(compute=crash(ValueError("λ = −1 is not a value")))},
    "waits": {"first": toy(), "second": split(*({"k": k, "does": "wait", "seconds": 0.1} for k in range(8)))},
    "hangs": {
        "first": split(2),
        "second": split(*({"k": k, "does": "hang", "mark": f"{os.environ.get('TOY_BEGUN')}{k or ''}"} for k in range(2))),
    },
}

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))  # as in analyses/__main__.py
    status = main(SETS[sys.argv[1]], sys.argv[3:], folder=Path(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)
