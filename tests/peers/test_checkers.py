"""The wrapped checkers of other libraries decide as they do when they are called in the way of their own documentation."""

import numpy as np
import pytest

from analyses._checkers import PEERS, jax_rejects, torch_rejects

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")
jax = pytest.importorskip("jax", reason="jax is not installed: pip install jax")
pytestmark = pytest.mark.peer

FACTORS = [0.0, -1.0, 1.0, 1.0 + 1e-8, 1.0 + 1e-5, 1.0 + 1e-4, 1.0 + 5e-3, 1.1, 2.0]
SIZES = [1.0, 1e-4, 1e-11]


def problem(size, factor):
    """size * tanh(x U^T) with a gradient of x that is off by a factor."""
    rng = np.random.default_rng(3)

    def f(x, U):
        return size * np.tanh(x @ U.T)

    def vjp(x, U, cotangent):
        back = size * cotangent * (1.0 - np.tanh(x @ U.T) ** 2)
        return factor * (back @ U), back.T @ x

    return f, vjp, (rng.normal(size=(4, 3)), rng.normal(size=(3, 3)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", FACTORS)
def test_jax_s_check_of_a_custom_vjp_under_check_grads_decides_the_same(size, factor):
    from jax.test_util import check_grads

    f, vjp, args = problem(size, factor)

    @jax.custom_vjp
    def in_jax(x, U):
        return size * jax.numpy.tanh(x @ U.T)

    def forward(x, U):
        return in_jax(x, U), (x, U)

    def backward(saved, cotangent):
        x, U = saved
        back = size * cotangent * (1.0 - jax.numpy.tanh(x @ U.T) ** 2)
        return factor * (back @ U), back.T @ x

    in_jax.defvjp(forward, backward)
    with jax.enable_x64(True):
        try:
            check_grads(in_jax, args, order=1, modes=("rev",))
            rejected = False
        except AssertionError:
            rejected = True
    assert jax_rejects(f, vjp, args) == rejected


@pytest.mark.parametrize("fast_mode", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", FACTORS)
def test_torch_s_check_of_a_function_in_torch_decides_the_same(size, factor, fast_mode):
    f, vjp, args = problem(size, factor)

    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return factor * gradient

    def in_torch(x, U):
        return size * torch.tanh(Scaled.apply(x) @ U.T)

    given = tuple(torch.tensor(value, requires_grad=True) for value in args)
    accepted = torch.autograd.gradcheck(in_torch, given, fast_mode=fast_mode, raise_exception=False)
    assert torch_rejects(f, vjp, args, fast_mode) == (not accepted)


@pytest.mark.parametrize("name", PEERS)
def test_each_of_them_rejects_a_gross_error_and_accepts_the_right_gradient(name):
    assert PEERS[name](*problem(1.0, 2.0)) is True
    assert PEERS[name](*problem(1.0, 1.0)) is False


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("factor", [0.0, -1.0, 2.0])
def test_each_of_them_certifies_wrong_gradients_of_1e_11(name, factor):
    """Their absolute tolerance is 1e-5."""
    assert PEERS[name](*problem(1e-11, factor)) is False


def test_asking_jax_leaves_its_precision_as_it_was():
    before = jax.config.jax_enable_x64
    jax_rejects(*problem(1.0, 2.0))
    assert jax.config.jax_enable_x64 == before
    assert jax.numpy.ones(1).dtype == (np.float64 if before else np.float32)
