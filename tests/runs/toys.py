"""Small analyses for tests of the runner; run as a script, the command line over one set of them in a real process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from gradlab.runs import GroundTruth, Verdict, main


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


GREEK = "the exponent λ exceeds σ − 1"
SETS = {
    "slow": {"first": toy(), "second": toy(compute=sleep), "third": toy()},
    "greek": {"first": toy(CLAIM=GREEK, check=verdict(sentence=f"λ = 1: {GREEK}"))},
    "crash": {"first": toy(compute=crash(ValueError("λ = −1 is not a value")))},
}

if __name__ == "__main__":
    sys.exit(main(SETS[sys.argv[1]], sys.argv[3:], folder=Path(sys.argv[2])))
