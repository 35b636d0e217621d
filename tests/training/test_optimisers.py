"""Optimisers against torch's on the same gradients, and against their own formulas."""

import numpy as np
import pytest

from gradlab.training import SGD, Adam, RMSProp


def gradients():
    """100 gradients of very unlike sizes, zeros among them."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(100, 5, 3)) * 10.0 ** rng.uniform(-6, 3, (100, 5, 3))
    drawn[::7] = 0.0
    return drawn


def ours(optimiser, rates, steps):
    theta = np.linspace(-1.0, 1.0, 15).reshape(5, 3)
    slots = {name: np.zeros_like(theta) for name in optimiser.slots}
    path = []
    for count, (rate, g) in enumerate(zip(rates, steps, strict=True), start=1):
        theta = theta - rate * optimiser.change(g, slots, np.array(count))
        path.append(theta)
    return np.array(path)


PAIRS = {
    "SGD": (SGD(), lambda t, p: t.optim.SGD(p, lr=1.0)),
    "momentum": (SGD(momentum=0.9), lambda t, p: t.optim.SGD(p, lr=1.0, momentum=0.9)),
    "Nesterov": (SGD(momentum=0.9, nesterov=True), lambda t, p: t.optim.SGD(p, lr=1.0, momentum=0.9, nesterov=True)),
    "RMSprop": (RMSProp(), lambda t, p: t.optim.RMSprop(p, lr=1.0)),
    "RMSprop, other constants": (RMSProp(0.9, 1e-6), lambda t, p: t.optim.RMSprop(p, lr=1.0, alpha=0.9, eps=1e-6)),
    "Adam": (Adam(), lambda t, p: t.optim.Adam(p, lr=1.0)),
    "Adam, other constants": (Adam(0.8, 0.95, 1e-5), lambda t, p: t.optim.Adam(p, lr=1.0, betas=(0.8, 0.95), eps=1e-5)),
}


@pytest.mark.peer
@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_a_hundred_steps_agree_with_torch_also_while_the_rate_changes(name, scheduled):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")
    optimiser, make = PAIRS[name]
    rates = 0.01 * (0.97 ** np.arange(100) if scheduled else np.ones(100))
    theta = torch.tensor(np.linspace(-1.0, 1.0, 15).reshape(5, 3), requires_grad=True)
    theirs, path = make(torch, [theta]), []
    for rate, g in zip(rates, gradients(), strict=True):
        theirs.param_groups[0]["lr"] = rate
        theta.grad = torch.tensor(g)
        theirs.step()
        path.append(theta.detach().numpy().copy())
    gap = np.abs(ours(optimiser, rates, gradients()) - np.array(path)).max()
    assert gap <= 1e-12 * np.abs(np.array(path)).max()  # the same formulas, other roundings


def test_a_constant_gradient_moves_adam_by_its_rate_each_step_from_the_first_one():
    # mhat = g and shat = g^2 exactly: steps of g/(|g| + eps), which the bias correction is for.
    steps = np.full((50, 5, 3), 1e-3)
    moves = np.diff(ours(Adam(), np.full(50, 0.1), steps), axis=0)
    np.testing.assert_allclose(moves, -0.1 * 1e-3 / (1e-3 + 1e-8), rtol=1e-10)  # 50 powers of beta, each rounded


def test_momentum_builds_up_to_one_over_one_minus_momentum():
    moves = np.diff(ours(SGD(momentum=0.9), np.ones(300), np.ones((300, 5, 3))), axis=0)
    np.testing.assert_allclose(moves[-1], -1.0 / (1.0 - 0.9), rtol=1e-12)  # 0.9^300 = 2e-14


@pytest.mark.parametrize("optimiser", [SGD(), SGD(momentum=0.9), SGD(0.9, True), RMSProp(), Adam()], ids=repr)
def test_a_step_does_not_change_the_gradient(optimiser):
    g = np.full((2, 2), 0.3)
    optimiser.change(g, {name: np.zeros((2, 2)) for name in optimiser.slots}, np.array(1))
    np.testing.assert_array_equal(g, 0.3)
