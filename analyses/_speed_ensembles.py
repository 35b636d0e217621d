"""Timed pairs for `speed`: many small networks trained at once, and what a monitor adds to a training step.

Each function gives callables that do the same work, once their results have been compared.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

import gradlab
from analyses._speed_rows import Row, require_equal
from gradlab.errors import NumericalError

Array = npt.NDArray[Any]
Work = Callable[[], object]

ENSEMBLE = "32 Elman nets"
KINDS = ("LSTM", "Elman net")
SIZES: dict[str, Any] = {"members": 32, "T": 100, "B": 16, "D": 2, "H": 32, "threads": 2}
TARGETS = {"torch": 4.0, "jax": 2.0}
"""How many times faster one ensemble step is meant to be than a torch loop over modules, and than jax's vmap of grad."""
STEP = {"T": 100, "B": 32, "D": 64, "H": 128}
"""Sizes of the training step that the monitor is measured on."""
OVERHEAD = 0.10
"""Share of a training step that a monitor with its defaults is meant to take at most."""
GAP = 1e-12
"""Gradients of two right programs in float64, relative to the largest entry: rounding alone."""


def ensembles(rng: np.random.Generator, p: Mapping[str, Any] = SIZES) -> tuple[Work, dict[str, Work]]:
    """(gradlab's step, {peer: its step}): loss and gradients of `members` Elman nets with a read-out, all on one batch.

    gradlab runs them as one ensemble, shared by `threads` threads, and records states and total adjoints; torch loops over
    modules, forward and backward; jax runs jit(vmap(value_and_grad)) of a scan, in float64. A peer that is not installed is
    left out.
    Error: NumericalError if any gradient of a peer differs by more than `GAP`.
    """
    E, T, B, D, H = (p[name] for name in ("members", "T", "B", "D", "H"))
    net = gradlab.Network(gradlab.Elman("tanh"), D, H, output_size=1, readout="last")
    own = [net.init(rng) for _ in range(E)]
    params = {key: np.stack([one[key] for one in own]) for key in net.shapes}
    batch = gradlab.Batch(rng.normal(size=(T, B, D)), rng.normal(size=(B, 1)))
    shared: dict[str, Any] = {"workspace": gradlab.Workspace(), "threads": p["threads"]}

    def ours() -> Mapping[str, Array]:
        kept = ("states", "adjoints")
        return gradlab.bptt(net, params, batch, gradlab.mean_squared_error, kept, **shared).gradients

    makers = {"torch": in_torch, "jax": in_jax}
    theirs = {name: make(params, batch) for name, make in makers.items() if importlib.util.find_spec(name) is not None}
    expected = {key: value.copy() for key, value in ours().items()}
    for name, work in theirs.items():
        found = work()
        for key, value in expected.items():
            require_equal(ENSEMBLE, f"gradients of {key}", name, np.asarray(found[key]), value, GAP)
    return ours, theirs


def in_torch(params: Mapping[str, Array], batch: gradlab.Batch) -> Callable[[], dict[str, Array]]:
    """A loop over modules. The gradients are stacked when they are looked at, not while the time runs."""
    import torch

    members, H, D = params["0.W"].shape
    modules = []
    for e in range(members):
        module, readout = torch.nn.RNN(D, H).double(), torch.nn.Linear(H, 1).double()
        pairs = {
            "0.W": module.weight_ih_l0,
            "0.U": module.weight_hh_l0,
            "0.b": module.bias_ih_l0,
            "readout.V": readout.weight,
            "readout.b_y": readout.bias,
        }
        with torch.no_grad():
            module.bias_hh_l0.zero_()
            for key, tensor in pairs.items():
                tensor.copy_(torch.from_numpy(params[key][e]))
        modules.append((module, readout, pairs))
    x, target = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)

    class Gradients(dict[str, Array]):
        def __missing__(self, key: str) -> Array:
            return np.stack([pairs[key].grad.numpy() for _, _, pairs in modules])

    def work() -> dict[str, Array]:
        for module, readout, _ in modules:
            module.zero_grad()
            readout.zero_grad()
            h, _ = module(x)
            torch.nn.functional.mse_loss(readout(h[-1]), target).backward()
        return Gradients()

    return work


def in_jax(params: Mapping[str, Array], batch: gradlab.Batch) -> Callable[[], Any]:
    """jit(vmap(value_and_grad)) in float64, which is switched on around each call and off again."""
    import jax

    B, H = batch.inputs.shape[1], params["0.U"].shape[-1]

    def loss(p: Any, x: Any, target: Any) -> Any:
        def step(h: Any, a: Any) -> Any:
            return jax.numpy.tanh(a + h @ p["0.U"].T), None

        h, _ = jax.lax.scan(step, jax.numpy.zeros((B, H)), x @ p["0.W"].T + p["0.b"])
        return jax.numpy.mean((h @ p["readout.V"].T + p["readout.b_y"] - target) ** 2)

    compiled = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(0, None, None)))
    with jax.enable_x64(True):
        given = ({key: jax.numpy.asarray(v) for key, v in params.items()}, *map(jax.numpy.asarray, (batch.inputs, batch.targets)))

    def work() -> Any:
        with jax.enable_x64(True):
            return jax.block_until_ready(compiled(*given))[1]

    return work


def monitored(
    rng: np.random.Generator, kind: str, p: Mapping[str, Any] = STEP, updates: int = 20
) -> tuple[Work, dict[str, Work]]:
    """(training with a monitor, {"without": the same without}): `updates` updates of an LSTM or Elman net, Adam and clipping.

    The monitor has its defaults, so that it looks at the adjoints once, and keeps what it sees in memory: writing to a disk
    takes at most `gradlab.training.monitor.SHARE_OF_TIME` more. Error: NumericalError unless both give the same parameters.
    """
    net = gradlab.Network(
        gradlab.LSTM() if kind == "LSTM" else gradlab.Elman("tanh"), p["D"], p["H"], output_size=1, readout="last"
    )
    params = net.init(rng)
    batch = gradlab.Batch(rng.normal(size=(p["T"], p["B"], p["D"])), rng.normal(size=(p["B"], 1)))

    def work(monitor: gradlab.training.Monitor | None) -> gradlab.training.Training:
        return gradlab.training.train(
            net,
            params,
            lambda _: batch,
            gradlab.mean_squared_error,
            updates,
            np.random.default_rng(0),  # never drawn from
            optimiser=gradlab.training.Adam(),
            clip=gradlab.training.ByNorm(1.0),
            monitor=monitor,
        )

    def ours() -> gradlab.training.Training:
        return work(gradlab.training.Monitor())

    def without() -> gradlab.training.Training:
        return work(None)

    one, other = ours(), without()
    if any(not np.array_equal(one.params[key], other.params[key]) for key in one.params):
        raise NumericalError(f"monitor: the parameters of the {kind} differ with it and without")
    return ours, {"without": without}


def _monitored(rng: np.random.Generator, p: Mapping[str, Any], kind: str) -> tuple[Work, dict[str, Work]]:
    return monitored(rng, kind, STEP, p["monitored_updates"])


ROW = Row(ENSEMBLE, lambda rng, p: ensembles(rng, p["ensembles"]), TARGETS, blas_threads=1)
MONITORS = tuple(
    Row(f"monitor of an {kind}", partial(_monitored, kind=kind), {"without": 1.0 / (1.0 + OVERHEAD)}) for kind in KINDS
)
"""A training step with a monitor and without."""
