"""A user's own package, written to a folder: cells that nobody at gradlab has seen, and modules that cannot be imported."""

from __future__ import annotations

from pathlib import Path

CELLS = '''
import os
import sys
import time

import numpy as np

print("noise at import")
if "THEIRS_MARK" in os.environ:
    open(os.environ["THEIRS_MARK"], "w").close()


class Forward:
    """Forward only: no derivative of its own."""

    def init(self, rng, input_size, hidden_size):
        shapes = {"W": (hidden_size, input_size), "U": (hidden_size, hidden_size), "b": (hidden_size,)}
        return {key: rng.normal(size=shape) for key, shape in shapes.items()}

    def step(self, params, x_t, s_prev, t):
        return np.tanh(x_t @ params["W"].T + s_prev @ params["U"].T + params["b"])


class Right(Forward):
    """A backward step as textbooks have it."""

    def vjp(self, params, x_t, s_prev, delta, t):
        y = self.step(params, x_t, s_prev, t)
        da = delta * (1.0 - y * y)
        return {"W": da.T @ x_t, "U": da.T @ s_prev, "b": da.sum(axis=0)}, da @ params["W"], da @ params["U"]


class Precise(Right):
    """Its slopes keep their digits in saturation."""

    def vjp(self, params, x_t, s_prev, delta, t):
        a = x_t @ params["W"].T + s_prev @ params["U"].T + params["b"]
        da = delta * (2.0 / (np.exp(np.clip(a, -350.0, 350.0)) + np.exp(np.clip(-a, -350.0, 350.0)))) ** 2
        return {"W": da.T @ x_t, "U": da.T @ s_prev, "b": da.sum(axis=0)}, da @ params["W"], da @ params["U"]


class Wrong(Right):
    """Its dU is too large by one part in a hundred million, at one step alone."""

    def vjp(self, params, x_t, s_prev, delta, t):
        dtheta, dx, ds = super().vjp(params, x_t, s_prev, delta, t)
        if t == 2:
            dtheta["U"] = dtheta["U"] * (1.0 + 1e-8)
        return dtheta, dx, ds


class Scaled(Right):
    """Needs an argument."""

    def __init__(self, factor):
        self.factor = factor

    def vjp(self, params, x_t, s_prev, delta, t):
        dtheta, dx, ds = super().vjp(params, x_t, s_prev, delta, t)
        return dtheta, dx, self.factor * ds


def make():
    return Scaled(1.0)


def make_wrong():
    return Scaled(2.0)


class Outer:
    Inner = Right


cell = Right()
number = 7


class WrongJacobian(Right):
    """All of the fast path, so that its Jacobian may be wrong where its gradients are right."""

    def jacobian(self, p, a, s_prev, s, t):
        return np.ones((*s_prev.shape, s_prev.shape[-1]))


class Overflowing(Right):
    def step(self, params, x_t, s_prev, t):
        return super().step(params, x_t, s_prev, t) * (np.nan if t == 1 else 1.0)


class Dropping(Right):
    """Drops the imaginary part: a complex step of it is wrong."""

    def step(self, params, x_t, s_prev, t):
        return np.tanh(np.real(x_t) @ params["W"].T + s_prev @ params["U"].T + params["b"])


class Hostile(Wrong):
    def __repr__(self):
        return "Hostile<script>alert(1)</script>\\x1b[31m[red]\\u03bb"


class Noisy(Right):
    def step(self, params, x_t, s_prev, t):
        print("noise in a step")
        return super().step(params, x_t, s_prev, t)


class Raising(Right):
    def step(self, params, x_t, s_prev, t):
        return {}["no such key"]


class Leaving(Right):
    def step(self, params, x_t, s_prev, t):
        sys.exit(0)


class Unmade(Right):
    def __init__(self):
        raise RuntimeError("out of\\norder")


class Slow(Right):
    def step(self, params, x_t, s_prev, t):
        open(os.environ["THEIRS_BEGUN"], "w").close()
        time.sleep(30.0)
        return s_prev


class NoStep:
    def init(self, rng, input_size, hidden_size):
        return {}
'''

MODULES = {
    "raises": "import numpy\n\n\ndef helper():\n    return 1 / 0\n\n\nhelper()\n",
    "syntax": "x = 1\ndef f(:\n    pass\n",
    "lacks": "import a_library_that_is_not_there\n",
    "leaves": "import sys\n\nsys.exit('no licence')\n",
}


def write(folder: Path) -> Path:
    """The package `theirs` below `folder`."""
    package = folder / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "cells.py").write_text(CELLS, encoding="utf-8")
    for name, text in MODULES.items():
        (package / f"{name}.py").write_text(text)
    return folder
