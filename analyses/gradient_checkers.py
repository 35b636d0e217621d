"""Which gradient checkers see which wrong gradients, and how small a defect may get before gradlab's own misses it.

Claim: gradlab's check rejects a forget gate that is wrong by 1e-8 at a single step, and wrong gradients of size 1e-11, and
accepts the right ones. A checker with an absolute tolerance certifies such gradients, wrong or right. The gradients of an
LSTM with 72 parameters are scaled by 1 + delta in dU[f], at every step or at one; a tanh net with |dh_T/dh_0| = 1e-11
returns zero, the negative or the double of its gradient; each defect of the catalogue is shrunk by decades until it passes.
Every checker keeps its own defaults. `check_example` knows the cell and sees what each step contributes; `check_vjp` and
the peers are handed the same NumPy functions, whose gradients are sums over all steps. What they say is reported as
measured and has no part in the verdict.

It would be contradicted by one seed that passes at 1e-8, by a wrong vanished gradient that passes, or by a right one that
is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from analyses._checkers import PEERS, Vanishing, as_functions, vanishing
from analyses._planted_defects import DEFECTS
from analyses._planting import Plant, grads, put, step
from gradlab.checks import check_example, check_vjp, random_example
from gradlab.runs import GroundTruth, Verdict

Array = npt.NDArray[Any]

CLAIM = "gradlab rejects a gate wrong by 1e-8 at a single step and wrong gradients of size 1e-11, and accepts the right ones"
SOURCE = "this project; torch.autograd.gradcheck and jax.test_util.check_grads with their own defaults"
CONTRADICTED_IF = "a seed passes at 1e-8, a wrong gradient of 1e-11 passes, or gradlab rejects a right gradient"
NEEDS = ("torch", "jax")
ALONE = False
FULL: dict[str, Any] = {
    "lstm": {"T": 6, "B": 2, "D": 2, "H": 3},
    "step": 2,
    "deltas": [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8],
    "seeds": 8,
    "vanishing": {"T": 40, "H": 4, "radius": 0.6, "size": 1e-11},
    "decades": 12,
    "catalogue_seeds": 3,
    "every": 1,
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": FULL,
    "quick": {**FULL, "deltas": [1.0, 1e-4, 1e-8], "seeds": 2, "catalogue_seeds": 1, "every": 8},
}
CHECKERS = ("gradlab check_example", "gradlab check_vjp", *PEERS)
PLACES = ("every step", "one step")
CASES = {"right": 1.0, "zero": 0.0, "negated": -1.0, "doubled": 2.0}
CRITERION = 1e-9
"""Of S: what gradlab's check compares with."""

FORGET = slice(3, 6)  # rows of U that belong to the forget gate, H = 3


def scaled_everywhere() -> Plant:
    """dU[f] times 1 + size at every step."""
    return grads(lambda v: {"U": put(v.right["U"], FORGET, 2.0 * v.right["U"][FORGET])})


def scaled_once(t: int) -> Plant:
    """dU[f] times 1 + size in what step `t` contributes."""

    def wrong(v: Any) -> dict[str, Array]:
        return {"U": v.again(da=put(v.da, (t, ..., FORGET), 2.0 * v.da[t][..., FORGET]))["U"]}

    return grads(wrong)


def on_lstm(plant: Plant, size: float, seed: int, p: Mapping[str, Any]) -> tuple[list[bool], bool]:
    """Whether each checker rejects the LSTM with a defect, and whether gradlab names that gate at that step and nothing else."""
    with plant(gradlab.LSTM(), size) as cell:
        example = random_example(cell, seed=seed, **p["lstm"])
        report = check_example(example, replay=False)
        f, vjp, args = as_functions(example)
        plain = check_vjp(f, vjp, *args, control=False)
        others = [rejects(f, vjp, args) for rejects in PEERS.values()]
    places = {(one.quantity, one.gate, one.step) for one in report.findings}
    return [report.verdict == "FAIL", plain.verdict == "FAIL", *others], places == {("0.U", "f", p["step"])}


def on_vanishing(net: Vanishing, factor: float) -> list[bool]:
    """Whether each checker rejects the gradient with respect to h_0 times `factor`."""

    def vjp(h: Array, cotangent: Array) -> tuple[Array, ...]:
        return (factor * net.vjp(h, cotangent)[0],)

    plant = step(lambda v: {"ds": factor * v.ds} if v.t == 0 else {})
    with plant(gradlab.Elman("tanh"), 1.0) as cell:
        report = check_example(net.example(cell), replay=False)
    plain = check_vjp(net.f, vjp, net.start, control=False)
    others = [rejects(net.f, vjp, (net.start,)) for rejects in PEERS.values()]
    return [report.verdict == "FAIL", plain.verdict == "FAIL", *others]


def smallest(rejected: Callable[[float], bool], decades: int) -> float:
    """The smallest of 1, 1e-1, ... that is rejected, by bisection; infinite if none is."""
    seen, missed = -1, decades + 1  # exponents; -1 stands for infinity
    while missed - seen > 1:
        middle = (seen + missed) // 2
        seen, missed = (middle, missed) if rejected(10.0**-middle) else (seen, middle)
    return 10.0**-seen if seen >= 0 else float("inf")


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    seeds = [int(seed) for seed in rng.integers(2**31, size=p["seeds"])]
    deltas, catalogue = p["deltas"], DEFECTS[:: p["every"]]
    total, count = len(seeds) * (1 + len(PLACES) * len(deltas) + 1) + len(catalogue), 0

    def done() -> None:
        nonlocal count
        count += 1
        if progress is not None:
            progress(count, total)

    rejected = np.zeros((len(CHECKERS), len(PLACES), len(deltas), len(seeds)), bool)
    named = np.zeros((len(deltas), len(seeds)), bool)
    alarms = np.zeros((len(CHECKERS), len(seeds)), bool)
    faint = np.zeros((len(CHECKERS), len(CASES), len(seeds)), bool)
    gaps = np.zeros(len(seeds))
    for k, seed in enumerate(seeds):
        alarms[:, k] = on_lstm(scaled_everywhere(), 0.0, seed, p)[0]
        done()
        for j, delta in enumerate(deltas):
            rejected[:, 0, j, k] = on_lstm(scaled_everywhere(), delta, seed, p)[0]
            done()
            rejected[:, 1, j, k], named[j, k] = on_lstm(scaled_once(p["step"]), delta, seed, p)
            done()
        net = vanishing(np.random.default_rng(seed), **p["vanishing"])
        gaps[k] = net.gap()
        faint[:, :, k] = np.transpose([on_vanishing(net, factor) for factor in CASES.values()])
        done()
    sizes = np.zeros((len(catalogue), p["catalogue_seeds"]))
    for j, defect in enumerate(catalogue):
        for k, seed in enumerate(range(p["catalogue_seeds"])):

            def seen(size: float, defect: Any = defect, seed: int = seed) -> bool:
                with defect.plant(defect.cell, size) as cell:
                    return check_example(defect.example(cell, seed), replay=False).verdict == "FAIL"

            sizes[j, k] = smallest(seen, p["decades"])
        done()
    names = "\n".join(f"{defect.family}\t{defect.name}" for defect in catalogue)
    return {
        "deltas": np.array(deltas),
        "rejected": rejected,  # (checker, every step | one step, delta, seed)
        "named": named,  # (delta, seed), at one step
        "false_alarms": alarms,  # (checker, seed)
        "vanishing": faint,  # (checker, case, seed)
        "vanishing_gap": gaps,
        "smallest": sizes,  # (defect, seed)
        "finest": np.array(10.0 ** -p["decades"]),
        "catalogue": np.frombuffer(names.encode(), np.uint8),
    }


def check(result: Mapping[str, Array]) -> Verdict:
    seeds = result["rejected"].shape[-1]
    finest = int(np.argmin(result["deltas"]))
    at_once = result["rejected"][:, PLACES.index("one step"), finest].sum(axis=-1)
    named = int((result["named"][finest] & result["rejected"][0, PLACES.index("one step"), finest]).sum())
    faint = result["vanishing"].sum(axis=-1)  # (checker, case)
    wrong = faint[:, 1:].sum(axis=-1)
    alarms = result["false_alarms"].sum(axis=-1) + faint[:, 0]
    holds = at_once[0] == seeds and wrong[0] == 3 * seeds and alarms[0] == 0
    largest = float(result["smallest"].max())
    missed = int(np.isinf(result["smallest"]).any(axis=-1).sum())
    numbers: dict[str, float | int | str] = {
        "seeds": seeds,
        "sizes of the defect": " ".join(f"{delta:g}" for delta in result["deltas"]),
        "planted defects with a size": len(result["smallest"]),
        "planted defects missed at size 1": missed,
        "largest of the smallest sizes still rejected": largest,
        "median of the smallest sizes still rejected": float(np.median(result["smallest"])),
        f"{CHECKERS[0]}, one step, 1e-08: named as that gate and step alone": named,
    }
    for k, checker in enumerate(CHECKERS):
        for place, name in enumerate(PLACES):
            counts = result["rejected"][k, place].sum(axis=-1)
            numbers[f"{checker}, {name}: rejected at each size"] = " ".join(str(int(n)) for n in counts)
        for j, case in enumerate(CASES):
            numbers[f"{checker}, 1e-11 {case}: rejected"] = int(faint[k, j])
        numbers[f"{checker}: false alarms"] = int(alarms[k])
    others = ", ".join(f"{name} {at_once[k]} and {wrong[k]}" for k, name in enumerate(CHECKERS) if k)
    sentence = (
        f"gate wrong by {result['deltas'][finest]:g} at one step, and wrong gradients of 1e-11: {CHECKERS[0]} rejects "
        f"{at_once[0]} of {seeds} ({named} named as that gate and step alone) and {wrong[0]} of {3 * seeds}, {others}; false "
        f"alarms {', '.join(str(int(n)) for n in alarms)}; each of {len(result['smallest'])} planted defects is rejected down "
        f"to {largest:g} of its size"
    )
    gap = 1.0 + float(result["vanishing_gap"].max())
    source = "product of diag(1 - h_t^2) U (Pascanu, Mikolov & Bengio 2013, eq. 5) against a complex step"
    truth = GroundTruth("1 + largest gap between two forms of dh_T/dh_0", gap, 1.0, 1e-12, source)
    return Verdict("confirmed" if holds else "contradicted", sentence, numbers, (truth,))


STYLES = (
    ("black", "-", "o"),
    ("black", ":", "X"),
    ("vermilion", "--", "s"),
    ("blue", (0, (1, 1)), "v"),
    ("green", "-.", "D"),
)
"""Colour, dashes and marker of each checker."""
MARKERS = {"LSTM": "o", "GRU": "s", "Elman": "v", "Jordan": "^", "Clockwork": "D", "SCRN": "P", "Leaky": "X", "engine": "*"}
"""Of each family of defects; a user's cell is called Leaky."""


def draw(result: Mapping[str, Array]) -> Any:
    from gradlab import plotting

    figure = plotting.new_figure(plotting.PAGE, 8.0)
    left, right = figure.subfigures(1, 2, width_ratios=[1.0, 1.6])
    *curves, table = left.subplots(3, 1, height_ratios=[1.0, 1.0, 0.75])
    for place, ax in enumerate(curves):
        draw_detection(ax, result["deltas"], result["rejected"][:, place].mean(axis=-1))
        plotting.panel_label(ax, "ab"[place], f"LSTM, d$U$[f] wrong at {PLACES[place]}")
    left.legend(*curves[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=6.5, columnspacing=1.0)
    draw_decisions(table, result["vanishing"])
    plotting.panel_label(table, "c", r"$|\mathrm{d}h_T/\mathrm{d}h_0| = 10^{-11}$: seeds rejected")
    dots = right.subplots()
    draw_catalogue(dots, result)
    heading = f"$\\bf{{d}}$  gradlab on {len(result['smallest'])} planted defects: the smallest size still rejected"
    right.suptitle(heading, x=0.08, ha="left", fontsize=8)
    return figure


def draw_detection(ax: Any, deltas: Array, share: Array) -> None:
    """Share of the seeds that each checker (one row of `share`) rejects, against the size of the defect."""
    from gradlab import plotting

    for checker, values, (colour, line, marker) in zip(CHECKERS, share, STYLES, strict=True):
        ours = checker == CHECKERS[0]  # a small dot on top, in the hollow signs of the others
        look = {"markersize": 2.5, "zorder": 3} if ours else {"markersize": 5.0, "markerfacecolor": "white"}
        ax.semilogx(deltas, 100.0 * values, color=plotting.COLOURS[colour], linestyle=line, marker=marker, label=checker, **look)
    ax.set(ylim=(-5, 106), xlabel=r"defect $\delta$: d$U$[f] times 1 + $\delta$", ylabel="seeds rejected (%)")


def draw_decisions(ax: Any, rejected: Array) -> None:
    """How many seeds each checker rejects of each case; dark where that is wrong."""
    seeds = rejected.shape[-1]
    counts = rejected.sum(axis=-1)  # (checker, case)
    wrong = np.where(np.arange(len(CASES)) == 0, counts, seeds - counts) / seeds
    ax.imshow(wrong, cmap="Greys", vmin=0.0, vmax=2.8, aspect="auto")
    for row, column in np.ndindex(*counts.shape):
        text = f"{counts[row, column]} of {seeds}"
        ax.text(column, row, text, ha="center", va="center", fontsize=6.5)
    ax.set_xticks(range(len(CASES)), list(CASES), fontsize=6.5)
    ax.set_yticks(range(len(CHECKERS)), [name.replace(" ", "\n", 1) for name in CHECKERS], fontsize=6)
    ax.set_xlabel("gradient returned (dark: wrong decision)")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def draw_catalogue(ax: Any, result: Mapping[str, Array]) -> None:
    """Sorted: median over the seeds as a marker, all seeds as a line; nothing finer was tried than the first tick."""
    from gradlab import plotting

    entries = [line.split("\t") for line in bytes(result["catalogue"]).decode().split("\n")]
    missed = 1.0  # a place to the right of size 1
    sizes = np.where(np.isinf(result["smallest"]), missed, np.log10(result["smallest"]))
    middle = np.median(sizes, axis=-1)
    order = np.lexsort((np.arange(len(middle)), -middle))
    smallest = middle.min()
    for row, k in enumerate(order):
        family = entries[k][0]
        ax.plot(
            [sizes[k].min(), sizes[k].max()], [row, row], color=plotting.COLOURS["grey"], linewidth=0.8, linestyle="-", zorder=1
        )
        ax.plot(middle[k], row, MARKERS[family], color="black", markersize=3.6, markerfacecolor="white", markeredgewidth=0.7)
    for family, marker in MARKERS.items():
        label = {"Leaky": "user's cell"}.get(family, family)
        ax.plot([], [], marker, color="black", markersize=3.6, markerfacecolor="white", markeredgewidth=0.7, label=label)
    ax.axvline(np.log10(CRITERION), color=plotting.COLOURS["vermilion"], linewidth=0.8, linestyle="--", zorder=0)
    ax.set_yticks(range(len(order)), [entries[k][1] for k in order], fontsize=6)
    ax.tick_params(axis="y", length=0, pad=1)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlim(smallest - 0.5, max(-7.0, sizes.max() + 0.5))
    finest = round(float(np.log10(result["finest"])))
    ticks = range(round(smallest), int(ax.get_xlim()[1]) + 1)
    labels = {k: f"$10^{{{k}}}$" for k in ticks if k % 2 == 0} | {finest: f"$\\leq10^{{{finest}}}$"}
    ax.set_xticks(ticks, ["missed" if k == missed else labels.get(k, "") for k in ticks])
    ax.annotate("criterion", (np.log10(CRITERION), -0.6), xytext=(-2, 1), textcoords="offset points", fontsize=6, ha="right")
    ax.set_xlabel(r"size $\sigma$: right + $\sigma$ (wrong $-$ right)")
    spaces = {"borderaxespad": 0.0, "labelspacing": 0.3, "handletextpad": 0.2, "handlelength": 1.0}
    legend = ax.legend(loc="lower left", bbox_to_anchor=(0.67, 0.0), fontsize=6, **spaces)
    legend.set_in_layout(False)
