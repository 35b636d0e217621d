"""Each step of each layer alone, at the states that the engine recorded: where a derivative goes wrong, not where it arrives.

A wrong adjoint travels back through time and spoils everything before it. One step at a time the fault stays where it was made.
It is also the only check left when a sequence amplifies rounding beyond any comparison.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.checks.along import own_parameters
from gradlab.checks.claims import layer_claims
from gradlab.checks.example import Example
from gradlab.checks.judgement import Quantity
from gradlab.checks.oracle import Oracle, derivative
from gradlab.checks.untied import parts_of
from gradlab.forward_pass import LayerPass

Array = npt.NDArray[Any]


def one_step_quantities(example: Example, run: LayerPass, oracle: Oracle, rng: np.random.Generator) -> list[Quantity]:
    """Of one layer, for random adjoints delta_t of every step: J_t^T delta ("s_prev"), G_t^T delta ("x"), each parameter's."""
    name, cell, s = run.layer.name, run.layer.cell, run.states
    T, B, S = len(run.t), s.shape[-2], s.shape[-1]
    live = np.ones((T, B), bool) if run.mask is None else run.mask
    delta = np.zeros((T + 1, B, S))
    delta[1:] = rng.uniform(0.5, 1.5, (T, B, S)) * rng.choice([-1.0, 1.0], (T, B, S)) * live[..., None]
    da = np.zeros((T, B, cell.pre_size(run.layer.input_size, run.layer.hidden_size)))
    back = np.zeros((T, B, S))
    with np.errstate(all="ignore"):
        for t in range(T):
            cell.step_vjp(run.p, run.tape[t], s[t], s[t + 1], delta[t + 1], da[t], back[t], int(run.t[t]))
        da[~live], back[~live] = 0.0, 0.0
        claims = {f"s_prev {name}": back, f"x {name}": cell.input_grad(run.p, da)}
        claims |= {f"{name}.{key}": value for key, value in layer_claims(run, da, delta).items()}
        found = []
        for key, (slopes, errors) in step_slopes(run, own_parameters(example.params, name), oracle).items():
            weight = delta[1:, None]
            exact, scale = (slopes * weight).sum(axis=-1), np.abs(slopes * weight).sum(axis=-1)
            estimate = (errors * np.abs(weight)).sum(axis=-1) if errors.ndim else np.zeros(exact.shape)
            label = {"x": f"x {name}", "s": f"s_prev {name}"}.get(key, f"{name}.{key}")
            shape = claims[label].shape
            n, S, unsure = (np.moveaxis(side, 1, 2).reshape(shape) for side in (exact, scale, estimate))
            parts = dict(run.layer.parts) if key == "s" and len(run.layer.parts) > 1 else parts_of(example.net, label)
            found.append(Quantity(label, claims[label], n, S, unsure, example.rtol, parts))
    return found


def step_slopes(run: LayerPass, own: dict[str, Array], oracle: Oracle) -> dict[str, tuple[Array, Array]]:
    """(ds_t/d(entry), error estimate), each (T, entries, B, S), for "x", "s" (the state before) and each parameter."""
    cell, steps = run.layer.cell, []
    for t in range(len(run.t)):
        x, s, at = run.x[t], run.states[t], int(run.t[t])
        D, S = x.shape[-1], s.shape[-1]

        def f(shift: Any, x: Array = x, s: Array = s, at: int = at, D: int = D, S: int = S) -> Array:
            xs, ss = np.broadcast_to(x, (D, *x.shape)), np.broadcast_to(s, (S, *s.shape))
            moved_x = (xs + shift * np.eye(D)[:, None, :]).reshape(-1, D)
            moved_s = (ss + shift * np.eye(S)[:, None, :]).reshape(-1, S)
            rows = [cell.step(own, moved_x, np.tile(s, (D, 1)), at), cell.step(own, np.tile(x, (S, 1)), moved_s, at)]
            found = [np.asarray(row).reshape(-1, *s.shape) for row in rows]
            for key, value in own.items():
                n = value.size
                theta = {k: v[None] for k, v in own.items()}
                theta[key] = value + shift * np.eye(n).reshape(n, *value.shape)
                found.append(cell.step(theta, np.broadcast_to(x, (n, *x.shape)), np.broadcast_to(s, (n, *s.shape)), at))
            return np.concatenate(found)

        steps.append(derivative(f, oracle))
    slopes = np.stack([value for value, _ in steps])
    if run.mask is not None:
        slopes = slopes * run.mask[:, None, :, None]
    errors = np.stack([error for _, error in steps]) if steps[0][1].ndim else np.zeros(())
    sizes = {"x": run.x.shape[-1], "s": run.states.shape[-1], **{key: value.size for key, value in own.items()}}
    found, start = {}, 0
    for key, n in sizes.items():
        found[key] = (slopes[:, start : start + n], errors[:, start : start + n] if errors.ndim else errors)
        start += n
    return found


def value_gap(example: Example, run: LayerPass) -> tuple[float, int]:
    """Largest difference between the engine's step and `step`, and where.

    Relative to the state's size at that step, and to the numbers that a pre-activation adds up: their rounding moves it.
    """
    own = own_parameters(example.params, run.layer.name)
    worst, where = 0.0, 0
    with np.errstate(all="ignore"):
        for t in range(len(run.t)):
            plain = np.asarray(run.layer.cell.step(own, run.x[t], run.states[t], int(run.t[t])))
            if run.mask is not None:
                plain = np.where(run.mask[t][:, None], plain, run.states[t])
            size = max(float(np.abs(plain).max()), example.subnormal)
            gap = float(np.abs(plain - run.states[t + 1]).max()) / (size * example.largest)
            if not gap <= worst:
                worst, where = gap, t
    return worst, where
