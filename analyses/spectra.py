"""Eigenvalues of W and of the Jacobians along a trajectory, and what they do not tell.

Claim: the spectral radius decides whether a gradient vanishes or explodes (Pascanu, Mikolov & Bengio 2013, section 2.1, for the
linear case). Held against it: matrices of one spectral radius below 1, normal and not, whose powers first grow (Trefethen &
Embree 2005), and the Jacobians J_t = diag(1 - h_t^2) U of a random tanh net, whose eigenvalues fill a disc of the radius
that the mean field gives and not that of U (Girko 1984; Poole et al. 2016).

The claim is confirmed if nets of one radius below 1 have shrunk after the same number of steps, contradicted if some have grown
a tenfold by then, as the spectral radius does not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from gradlab.runs import GroundTruth, Verdict

Array = npt.NDArray[Any]

CLAIM = "The spectral radius of the recurrent matrix decides whether the gradient vanishes or explodes"
SOURCE = "Pascanu, Mikolov & Bengio (2013), section 2.1; Trefethen & Embree (2005), Spectra and pseudospectra; Girko (1984)"
CONTRADICTED_IF = "of nets with one spectral radius below 1 some have grown tenfold at a lag where others have shrunk"
NEEDS: tuple[str, ...] = ()
ALONE = False
PARAMETERS: dict[str, dict[str, Any]] = {
    "full": {"units": 400, "gain": 2.0, "warm_up": 300, "sequences": 8, "size": 64, "seeds": 5, "radius": 0.9, "steps": 400},
    "quick": {"units": 200, "gain": 2.0, "warm_up": 200, "sequences": 4, "size": 32, "seeds": 5, "radius": 0.9, "steps": 400},
}
KINDS = ("orthogonal", "Gaussian", "feed-forward chain")
COUPLING, LINKS = 0.25, 10
"""Of the chain: what each unit hands to the next, beside what it keeps, and how many units it has; the rest are orthogonal.
A much longer one would have a spectral radius that rounding alone carries above 1."""


def of_radius(rng: np.random.Generator, kind: str, n: int, radius: float) -> Array:
    """A random matrix (n, n) of spectral radius `radius`."""
    if kind == "orthogonal":
        return radius * gradlab.inits.orthogonal()(rng, (n, n))
    if kind == "Gaussian":
        drawn = rng.standard_normal((n, n))
        return np.asarray(drawn * (radius / np.abs(np.linalg.eigvals(drawn)).max()))
    whole = np.zeros((n, n))
    whole[:LINKS, :LINKS] = radius * np.eye(LINKS) + np.diag(COUPLING * rng.uniform(0.8, 1.2, LINKS - 1), 1)
    whole[LINKS:, LINKS:] = radius * gradlab.inits.orthogonal()(rng, (n - LINKS, n - LINKS))
    turn = gradlab.inits.orthogonal()(rng, (n, n))
    return np.asarray(turn @ whole @ turn.T)


def compute(rng: np.random.Generator, scale: str, progress: Any = None) -> dict[str, Array]:
    p = PARAMETERS[scale]
    N, g = p["units"], p["gain"]
    U = rng.standard_normal((N, N)) * (g / np.sqrt(N))
    net = gradlab.Network(gradlab.Elman("tanh"), 1, N)
    params = {"0.W": np.zeros((N, 1)), "0.U": U, "0.b": np.zeros(N)}
    start = {"0": rng.standard_normal((p["sequences"], N))}
    run = gradlab.forward(net, params, np.zeros((p["warm_up"], p["sequences"], 1)), start).runs["0"]
    J = run.window(p["warm_up"] - 1, p["warm_up"]).jacobians()[0]  # one step each of independent trajectories
    if progress is not None:
        progress(1, 3)
    found: dict[str, Array] = {
        "gain": np.array(g),
        "eigenvalues of U": np.linalg.eigvals(U),
        "eigenvalues of J": np.linalg.eigvals(J),
        "mean square slope": np.square(1.0 - np.square(run.states[-1])).mean(axis=-1),
        "radius": np.array(p["radius"]),
    }
    if progress is not None:
        progress(2, 3)
    for kind in KINDS:
        own = np.stack([of_radius(rng, kind, p["size"], p["radius"]) for _ in range(p["seeds"])])
        found[f"{kind} powers"] = gradlab.analysis.power_growth(own, p["steps"]).log_norm  # (steps + 1, seeds)
        found[f"{kind} radius"] = np.abs(np.linalg.eigvals(own)).max(axis=-1)
        found[f"{kind} departure"] = gradlab.analysis.non_normality(own).ratio
    jordan = np.array([[0.9, 5.0], [0.0, 0.9]])
    found["jordan"] = gradlab.analysis.power_growth(jordan, 100).log_norm
    found["ginibre gap"] = np.array(_ginibre(rng, N))
    return found


def _ginibre(rng: np.random.Generator, n: int) -> float:
    """The largest gap between the radial distribution of eigenvalues and the circular law."""
    radii = np.sort(np.abs(np.linalg.eigvals(rng.standard_normal((n, n)) / np.sqrt(n))))
    law = gradlab.analysis.circular_law().share_within(radii)
    return float(np.abs(law - (np.arange(n) + 0.5) / n).max())


def check(result: Mapping[str, Array]) -> Verdict:
    g = float(result["gain"])
    mean_field = gradlab.analysis.random_tanh_map(g)
    predicted = float(np.exp(mean_field.largest))
    radii = np.sort(np.abs(result["eigenvalues of J"]), axis=-1)
    measured = g * np.sqrt(result["mean square slope"])  # what the slopes of this very net say
    peaks = {kind: np.exp(result[f"{kind} powers"].max(axis=0)) for kind in KINDS}
    lags = {kind: result[f"{kind} powers"].argmax(axis=0) for kind in KINDS}
    chain = result["feed-forward chain powers"]
    lag = int(np.median(lags["feed-forward chain"]))  # where the chain is at its largest
    others = {kind: np.exp(np.median(result[f"{kind} powers"][lag])) for kind in KINDS}
    grown, shrunk = bool((chain[lag] > np.log(10.0)).all()), bool((result["orthogonal powers"][lag] < 0.0).all())
    numbers: dict[str, float | int | str] = {
        "radius of U": float(np.abs(result["eigenvalues of U"]).max()),
        "radius of J_t, median": float(np.median(radii[:, -1])),
        "radius of J_t by the mean field": predicted,
        "largest modulus of an eigenvalue of J_t, by the slopes of its own net": float(np.median(radii[:, -1] / measured)),
        "lag of the peak": lag,
    }
    for kind in KINDS:
        numbers[f"{kind}: peak of |U^t|, median"] = float(np.median(peaks[kind]))
        numbers[f"{kind}: |U^t| at that lag, median"] = float(others[kind])
        numbers[f"{kind}: departure from normality / |U|_F, median"] = float(np.median(result[f"{kind} departure"]))
        numbers[f"{kind}: largest radius"] = float(result[f"{kind} radius"].max())
    ends = {kind: float(np.exp(result[f"{kind} powers"][-1]).max()) for kind in KINDS}
    numbers["|U^t| of the chain after all steps, largest"] = ends["feed-forward chain"]
    vanished = all(end < 1e-3 for end in ends.values())
    word = "contradicted" if grown and shrunk else "confirmed" if not grown else "inconclusive"
    exact = 0.9**9
    peak = np.linalg.norm(np.array([[exact, 45.0 * 0.9**8], [0.0, exact]]), 2)
    truths = (
        GroundTruth(
            "peak of |[[.9, 5], [0, .9]]^t|",
            float(np.exp(result["jordan"].max())),
            float(peak),
            1e-12,
            "[[l^t, t a l^(t-1)], [0, l^t]]",
        ),
        GroundTruth("step of that peak", float(result["jordan"].argmax()), 9.0, 0.0, "the same, for t = 0, 1, 2, ..."),
        # The radius of the disc of finite nets fluctuates by a few per cent; so does the mean over their units.
        GroundTruth("radius of the disc of J_t", float(np.median(measured)), predicted, 0.05, "random tanh map, mean field"),
        GroundTruth("1 + gap from the circular law", 1.0 + float(result["ginibre gap"]), 1.0, 0.05, "Girko (1984), for large N"),
    )
    radius = float(result["radius"])
    ended = f"all {'have' if vanished else 'have not'} vanished after {len(chain) - 1}"
    return Verdict(
        word,
        f"at lag {lag}, of nets with spectral radius {radius:g}, |U^t| is {others['orthogonal']:.2g} (orthogonal), "
        f"{others['Gaussian']:.2g} (Gaussian) and {others['feed-forward chain']:.3g} (feed-forward chain); {ended}; "
        f"the Jacobians of a tanh net fill a disc of radius {float(np.median(measured)):.2f} (mean field {predicted:.2f}) "
        f"where U fills one of {g:g}",
        numbers,
        truths,
    )


def draw(result: Mapping[str, Array]) -> Any:
    from gradlab import plotting

    figure = plotting.new_figure(plotting.PAGE, 2.5)
    left, middle, right = figure.subplots(1, 3)
    g = float(result["gain"])
    edges = ((left, result["eigenvalues of U"], g, "a", "recurrent matrix $U$"),)
    own = g * float(np.sqrt(result["mean square slope"][0]))
    edges += ((middle, result["eigenvalues of J"][0], own, "b", "Jacobian $J_t$ in its chaos"),)
    around = np.exp(1j * np.linspace(0.0, 2.0 * np.pi, 200))
    for ax, values, edge, letter, title in edges:
        ax.plot(values.real, values.imag, ".", color=plotting.COLOURS["blue"], markersize=2.0)
        ax.plot(edge * around.real, edge * around.imag, color=plotting.COLOURS["vermilion"], label="law")
        ax.plot(around.real, around.imag, ":", color=plotting.COLOURS["black"], linewidth=0.8, label="unit circle")
        ax.set_aspect("equal")
        ax.set_xlim(-1.25 * g, 1.25 * g)
        ax.set_ylim(-1.25 * g, 1.25 * g)
        ax.set_xlabel("real part")
        plotting.panel_label(ax, letter, title)
        ax.set_ylabel("imaginary part")
    left.legend(loc="upper right", fontsize=6)
    for kind, line in zip(KINDS, ("first", "second", "third"), strict=True):
        powers = result[f"{kind} powers"]
        middle_line = np.exp(np.median(powers, axis=1))
        right.semilogy(middle_line, label=kind, **plotting.LINES[line])
        ends = np.exp(powers.min(axis=1)), np.exp(powers.max(axis=1))
        right.fill_between(np.arange(len(powers)), *ends, color=plotting.LINES[line]["color"], alpha=0.15, linewidth=0)
    right.axhline(1.0, color=plotting.COLOURS["grey"], linewidth=0.5, linestyle=":")
    right.set_xlabel("lag $t$, steps")
    right.set_ylabel(r"$\|U^t\|$")
    right.set_ylim(1e-5, None)
    right.legend(loc="lower right", fontsize=6)
    plotting.panel_label(right, "c", f"one radius, {float(result['radius']):g}")
    return figure
