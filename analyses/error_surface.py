"""The cliff of a single recurrent unit, and what descent does at its foot with and without clipping.

Claim: the error surface of a recurrent network has steep walls; gradient descent is thrown off by them and
clipping the gradient's norm keeps it. Source: Pascanu, Mikolov & Bengio (2013), Fig. 6 and eq. 8: x_t = w sig(x_{t-1}) + b,
x_0 = 0.5, 50 steps, E = (sig(x_50) - 0.7)^2. The wall is where x_0 is the unstable fixed point:
b = 0.5 - w sig(0.5), for w > 1/sig'(0.5) = 4.2553.

With h_t = sig(x_t) this is an Elman unit with a sigmoid, U = w, no input, and h_0 = sig(0.5).

It would be contradicted by descent that reaches the minimum as often without clipping as with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab._math import sigmoid, sigmoid_slope
from gradlab.runs import GroundTruth, Verdict

Array = npt.NDArray[Any]

CLAIM = "The error surface of a recurrent unit has a wall; it throws gradient descent off, and clipping the norm prevents it"
SOURCE = "Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, Fig. 6, eq. 8, alg. 1"
CONTRADICTED_IF = "at every learning rate as many runs reach the minimum without clipping as with it"
NEEDS: tuple[str, ...] = ()
ALONE = False
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {
        "steps": 50,
        "w": [4.0, 7.0, 241],
        "b": [-4.0, -1.5, 201],
        "wall_points": 60,
        "starts": 100,
        "updates": 500,
        "learning_rates": [0.01, 0.03, 0.1, 0.3, 1.0],
        "clip_norm": 1.0,
        "shown_learning_rate": 0.1,
    },
    "quick": {
        "steps": 50,
        "w": [4.0, 7.0, 91],
        "b": [-4.0, -1.5, 76],
        "wall_points": 20,
        "starts": 20,
        "updates": 300,
        "learning_rates": [0.03, 0.1, 0.3],
        "clip_norm": 1.0,
        "shown_learning_rate": 0.1,
    },
}
X_0 = 0.5
THROWN = 1.0 + 1e-9  # length of a step, in (w, b), that counts as thrown off; a clipped one may round up to 1
SOLVED = 1e-3  # loss at which a run counts as at the minimum, where E = 0


def unit() -> tuple[gradlab.Network, gradlab.Batch, dict[str, Array]]:
    """The network, its batch, and its initial state."""
    net = gradlab.Network(gradlab.Elman("sigmoid"), 1, 1, readout="last")
    x = np.zeros((PARAMETERS["full"]["steps"], 1, 1))
    return net, gradlab.Batch(x, np.full((1, 1), 0.7)), {"0": sigmoid(np.full((1, 1), X_0))}


def parameters(w: Array, b: Array) -> dict[str, Array]:
    """Every point (w, b) as one member of an ensemble."""
    w, b = np.broadcast_arrays(w, b)
    return {"0.W": np.zeros((1, 1)), "0.U": w[..., None, None].copy(), "0.b": b[..., None].copy()}


def surface(w: Array, b: Array) -> tuple[Array, Array, Array]:
    """E, dE/dw, dE/db at every point."""
    net, batch, start = unit()
    record = gradlab.bptt(net, parameters(w, b), batch, gradlab.mean_squared_error, keep=(), initial_states=start)
    return record.loss, record.gradients["0.U"][..., 0, 0], record.gradients["0.b"][..., 0]


def wall_by_bisection(w: Array) -> Array:
    """The b at which x_50 crosses 0.5, for each w: bisected to the last bit, x_50 grows with b."""
    net, batch, start = unit()
    low, high = np.full(w.shape, -8.0), np.full(w.shape, 2.0)
    for _ in range(70):
        middle = 0.5 * (low + high)
        h_50 = gradlab.forward(net, parameters(w, middle), batch.inputs, start).outputs[..., 0, 0]
        above = h_50 > sigmoid(np.asarray(X_0))
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return 0.5 * (low + high)


def predicted_wall(w: Array) -> Array:
    return X_0 - w * sigmoid(np.asarray(X_0))


def descend(w: Array, b: Array, rate: float, clip: float | None, updates: int, done: Callable[[int], None]) -> tuple[Array, ...]:
    """Paths of w and b (updates + 1, starts) and losses (updates, starts)."""
    net, batch, start = unit()
    history = gradlab.training.train(
        net,
        parameters(w, b),
        lambda _: batch,
        gradlab.mean_squared_error,
        updates,
        np.random.default_rng(0),  # never drawn from: the batch is always the same
        learning_rate=rate,
        clip=None if clip is None else gradlab.training.ByNorm(clip),
        initial_states=start,
        keep_path=True,
        progress=lambda updates, _: done(updates),
    )
    if not history.status.ok:
        raise gradlab.errors.NumericalError(str(history.status))
    return history.path["0.U"][..., 0, 0], history.path["0.b"][..., 0], history.loss


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    w, b = np.linspace(*p["w"]), np.linspace(*p["b"])
    E, dE_dw, dE_db = surface(w[None, :], b[:, None])
    wall_w = np.linspace(4.3, p["w"][1], p["wall_points"])
    w_5 = np.array([5.0])
    on_wall = surface(w_5, predicted_wall(w_5))
    beside = predicted_wall(w_5) + np.linspace(-1e-4, 1e-4, 4001)
    _, beside_dw, beside_db = surface(w_5, beside)

    start_w = rng.uniform(4.6, 6.5, p["starts"])
    start_b = predicted_wall(start_w) + rng.uniform(0.05, 0.6, p["starts"])  # on the upper side of the wall
    rates, clips = p["learning_rates"], (None, p["clip_norm"])
    total, before = len(rates) * len(clips) * p["updates"], 0
    found: dict[str, list[list[Array]]] = {name: [] for name in ("final", "jump", "paths_w", "paths_b", "path_E")}
    for rate in rates:
        row: dict[str, list[Array]] = {name: [] for name in found}
        for clip in clips:

            def done(updates: int, before: int = before) -> None:
                if progress is not None:
                    progress(before + updates, total)

            path_w, path_b, loss = descend(start_w, start_b, rate, clip, p["updates"], done)
            before += p["updates"]
            row["final"].append(loss[-1])
            row["jump"].append(np.hypot(np.diff(path_w, axis=0), np.diff(path_b, axis=0)).max(axis=0))
            row["paths_w"].append(path_w)
            row["paths_b"].append(path_b)
            row["path_E"].append(np.concatenate([loss, surface(path_w[-1], path_b[-1])[0][None]]))
        for name in found:
            found[name].append(row[name])
    shown = rates.index(p["shown_learning_rate"])
    jumps = np.array(found["jump"])
    # Of the runs thrown off at the shown rate, the one with the median jump: neither the worst nor the mildest.
    thrown = np.flatnonzero(jumps[shown, 0] > THROWN)
    example = int(thrown[np.argsort(jumps[shown, 0][thrown])[len(thrown) // 2]]) if len(thrown) else 0
    return {
        "w": w,
        "b": b,
        "E": E,
        "gradient_norm": np.hypot(dE_dw, dE_db),
        "wall_w": wall_w,
        "wall_b": wall_by_bisection(wall_w),
        "on_wall": np.array([float(v[0]) for v in on_wall]),
        "beside_offset": beside - predicted_wall(w_5),
        "beside_norm": np.hypot(beside_dw, beside_db),
        "learning_rates": np.array(rates),
        "final_loss": np.array(found["final"]),  # (rate, no clip | clip, start)
        "largest_jump": jumps,
        "path_w": np.array([found["paths_w"][shown][k][:, example] for k in range(2)]),
        "path_b": np.array([found["paths_b"][shown][k][:, example] for k in range(2)]),
        "path_E": np.array([found["path_E"][shown][k][:, example] for k in range(2)]),
        "shown": np.array(shown),
    }


def check(result: Mapping[str, Array]) -> Verdict:
    gap = np.abs(result["wall_b"] - predicted_wall(result["wall_w"])).max()
    solved = (result["final_loss"] < SOLVED).mean(axis=-1)  # (rate, no clip | clip)
    thrown = (result["largest_jump"] > THROWN).mean(axis=-1)
    k = int(result["shown"])
    better, worse = int((solved[:, 1] > solved[:, 0]).sum()), int((solved[:, 1] < solved[:, 0]).sum())
    word = "confirmed" if better and not worse else "contradicted" if not better else "depends"
    source = "Pascanu, Mikolov & Bengio (2013), eq. 8, evaluated at the unstable fixed point"
    truths = (
        GroundTruth("|dE/dw| on the wall, w = 5", float(abs(result["on_wall"][1])), 411.870634, 1e-6, source),
        GroundTruth("|dE/db| on the wall, w = 5", float(abs(result["on_wall"][2])), 661.682801, 1e-6, source),
        GroundTruth("E on the wall, w = 5", float(result["on_wall"][0]), 0.0060125553, 1e-6, source),
        GroundTruth(
            "slope l of the map on the wall, w = 5", float(5.0 * sigmoid_slope(np.asarray(X_0))), 1.1750185610, 1e-9, source
        ),
        GroundTruth("1 + largest gap between bisected and predicted wall", 1.0 + float(gap), 1.0, 1e-9, "b = 0.5 - w sig(0.5)"),
        GroundTruth(
            "largest gradient beside the wall, w = 5", float(result["beside_norm"].max()), 6773.13, 1e-3, "dense scan in b"
        ),
    )
    rate = result["learning_rates"][k]
    return Verdict(
        word,
        f"|dE/dw| = {abs(result['on_wall'][1]):.3f} on the wall; at rate {rate:g} it throws {100 * thrown[k, 0]:.0f} % "
        f"of the runs by more than 1, with clipping {100 * thrown[k, 1]:.0f} %, and {100 * solved[k, 0]:.0f} % against "
        f"{100 * solved[k, 1]:.0f} % reach the minimum; clipping is better at {better} of {len(solved)} rates, worse at {worse}",
        {
            "dE/dw on the wall": float(result["on_wall"][1]),
            "dE/db on the wall": float(result["on_wall"][2]),
            "largest gap between bisected and predicted wall": float(gap),
            "largest gradient beside the wall": float(result["beside_norm"].max()),
            "median gradient norm on the grid": float(np.median(result["gradient_norm"])),
            "non-finite cells of the grid": int((~np.isfinite(result["E"])).sum()),
            **{
                f"{what}, rate {r:g}, {how}": float(values[i, j])
                for what, values in (("share thrown off", thrown), ("share at the minimum", solved))
                for i, r in enumerate(result["learning_rates"])
                for j, how in enumerate(("no clipping", "clipping"))
            },
        },
        truths,
    )


def draw(result: Mapping[str, Array]) -> Any:
    from gradlab import plotting  # first: it imports matplotlib so that the environment cannot prevent it

    from matplotlib import patheffects  # isort: skip

    figure = plotting.new_figure(plotting.PAGE, 5.2)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.25, 1.0], height_ratios=[1.0, 0.8])
    plan = figure.add_subplot(grid[0, 0])
    relief = figure.add_subplot(grid[0, 1], projection="3d")
    rates = figure.add_subplot(grid[1, 0])
    cross = figure.add_subplot(grid[1, 1])
    w, b, E = result["w"], result["b"], result["E"]

    plotting.plot_surface(plan, w, b, E, "error $E$")
    # The same two lines in every panel: no clipping vermilion and dashed, clipped black and solid; white rims on the map.
    ways = (("no clipping", plotting.COLOURS["vermilion"], "--", "x"), ("norm clipped at 1", "#000000", "-", "o"))
    rim = [patheffects.withStroke(linewidth=2.2, foreground="white")]
    for k, (label, colour, line, _) in enumerate(ways):
        path = result["path_w"][k], result["path_b"][k]
        plan.plot(*path, color=colour, linewidth=0.9, linestyle=line, label=label, path_effects=rim)
    plan.plot(result["wall_w"], result["wall_b"], color="white", linewidth=1.0, linestyle=":", label="wall (bisected)")
    start = result["path_w"][0][0], result["path_b"][0][0]
    plan.plot(*start, "s", color="white", markeredgecolor="black", markersize=5, label="start", linestyle="none")
    end = result["path_w"][1][-1], result["path_b"][1][-1]
    plan.plot(*end, "*", color="white", markeredgecolor="black", markersize=8, label="end, clipped", linestyle="none")
    plan.set(xlim=(w[0], w[-1]), ylim=(b[0], b[-1]), xlabel="$w$", ylabel="$b$")
    plan.legend(loc="upper right", frameon=True, framealpha=1.0, facecolor="#BBBBBB", edgecolor="none", fontsize=6.5)
    away = result["path_w"][0][-1], result["path_b"][0][-1]
    rate = result["learning_rates"][int(result["shown"])]
    plotting.panel_label(plan, "a", f"rate {rate:g}; unclipped thrown to ({away[0] + 0.0:.1f}, {away[1]:.1f})")

    every = max(1, len(w) // 80)
    plotting.plot_surface_3d(relief, w[::every], b[::every], E[::every, ::every])
    steps = np.hypot(np.diff(result["path_w"][0]), np.diff(result["path_b"][0]))
    kick = int(np.argmax(steps > 0.2)) if (steps > 0.2).any() else len(steps)
    shown = slice(0, kick + 6)  # later updates go up and down the cliff many times
    for k, (_, colour, line, _) in enumerate(ways):
        path_w, path_b, path_E = (result[f"path_{axis}"][k][shown] for axis in "wbE")
        inside = (path_w >= w[0]) & (path_w <= w[-1]) & (path_b >= b[0]) & (path_b <= b[-1])
        path = (np.where(inside, values, np.nan) for values in (path_w, path_b, path_E + 0.01))
        relief.plot(*path, color=colour, linestyle=line, linewidth=1.1, zorder=10, path_effects=rim)
    relief.view_init(elev=32, azim=-62)
    relief.set_xlabel("$w$", labelpad=-6)
    relief.set_ylabel("$b$", labelpad=-6)
    relief.set_zlabel("$E$", labelpad=-6)
    relief.tick_params(pad=-3, labelsize=6)
    relief.set_box_aspect((1.0, 1.0, 0.7), zoom=0.78)
    relief.set_title(f"$\\bf{{b}}$  the relief, and {kick + 5} updates", loc="left")

    solved = (result["final_loss"] < SOLVED).mean(axis=-1)
    for k, (label, colour, line, marker) in enumerate(ways):
        rates.semilogx(result["learning_rates"], 100 * solved[:, k], marker=marker, label=label, color=colour, linestyle=line)
    rates.set(xlabel="learning rate", ylabel="runs at the minimum (%)", ylim=(-4, 104))
    rates.legend(loc="upper left")
    plotting.panel_label(rates, "c", f"{result['final_loss'].shape[-1]} random starts above the wall")

    cross.semilogy(1e5 * result["beside_offset"], result["beside_norm"], color=plotting.COLOURS["black"])
    cross.axvline(0.0, color=plotting.COLOURS["grey"], linewidth=0.6)
    on_wall = float(np.hypot(*result["on_wall"][1:]))
    cross.plot(0.0, on_wall, "o", color=plotting.COLOURS["black"], markersize=3.5)
    slopes = f"on the wall {on_wall:.0f}\n$|dE/dw|$ {abs(result['on_wall'][1]):.0f}\n$|dE/db|$ {abs(result['on_wall'][2]):.0f}"
    cross.annotate(slopes, (0.0, on_wall), xytext=(5, -2), textcoords="offset points", fontsize=6.5)
    top = int(np.argmax(result["beside_norm"]))
    place = 1e5 * result["beside_offset"][top], result["beside_norm"][top]
    cross.annotate(f"largest {place[1]:.0f}", place, xytext=(0, 3), textcoords="offset points", fontsize=6.5, ha="center")
    cross.set_ylim(top=3e4)
    cross.set(xlabel=r"distance from the wall in $b$ ($10^{-5}$)", ylabel="gradient norm")
    plotting.panel_label(cross, "d", "across the wall at $w$ = 5")
    return figure
