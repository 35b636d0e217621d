"""Pascanu's regulariser: its value where it is known, its gradient against a complex step."""

import numpy as np
import pytest
from training.problems import run, setting

from gradlab import LSTM, Batch, Elman, Network, bptt, inits, mean_squared_error
from gradlab.errors import GradlabError
from gradlab.training import NormPreserving


def omega(form, slopes, delta, U):
    """The formula of the paper for one layer, U complex or not: slopes and delta constant, (T, B, H)."""
    v = (slopes * delta) @ U  # U^T (f' delta), row by row
    r2 = (v * v).sum(axis=-1) / (delta * delta).sum(axis=-1)
    return ((np.sqrt(r2) - 1.0) ** 2 if form == "A" else (r2 - 1.0) ** 2).mean()


def example(activation, seed=0):
    net = Network(Elman(activation), 2, 5, output_size=1)
    rng = np.random.default_rng(seed)
    params = net.init(rng, recurrent_init=inits.orthogonal())
    params["0.U"] = params["0.U"] * 1.3
    batch = Batch(rng.normal(size=(9, 4, 2)), rng.normal(size=(9, 4, 1)))
    return net, params, bptt(net, params, batch, mean_squared_error)


SLOPES = {
    "tanh": lambda h: 1.0 - h**2,
    "sigmoid": lambda h: h * (1.0 - h),
    "relu": lambda h: (h > 0.0).astype(float),
    "leaky_relu": lambda h: np.where(h > 0.0, 1.0, 0.01),
    "hard_tanh": lambda h: (np.abs(h) < 1.0).astype(float),
    "linear": np.ones_like,
}


@pytest.mark.parametrize("form", ["A", "B"])
@pytest.mark.parametrize("activation", SLOPES)
def test_value_and_gradient_agree_with_a_complex_step(activation, form):
    net, params, record = example(activation)
    value, gradients = NormPreserving(1.0, form)(net, params, record)
    layer = record.layers["0"]
    slopes, delta, U = SLOPES[activation](layer.states[1:]), layer.adjoints[1:], params["0.U"]
    assert value == pytest.approx(omega(form, slopes, delta, U), rel=1e-12)  # sums in another order
    exact = np.empty_like(U)
    for index in np.ndindex(U.shape):
        moved = U.astype(complex)
        moved[index] += 1e-30j
        exact[index] = omega(form, slopes, delta, moved).imag / 1e-30
    assert list(gradients) == ["0.U"]
    assert np.abs(gradients["0.U"] - exact).max() <= 1e-9 * np.abs(exact).max()
    assert np.abs(exact).max() > 1e-3


@pytest.mark.parametrize(("form", "expected"), [("A", (1.3 - 1.0) ** 2), ("B", (1.3**2 - 1.0) ** 2)])
def test_a_linear_net_with_a_scaled_orthogonal_matrix_has_the_known_value(form, expected):
    net, params, record = example("linear")
    assert NormPreserving(1.0, form)(net, params, record)[0] == pytest.approx(expected, rel=1e-12)  # r = 1.3 at every step
    params["0.U"] /= 1.3
    rng = np.random.default_rng(1)
    record = bptt(net, params, Batch(rng.normal(size=(9, 4, 2)), rng.normal(size=(9, 4, 1))), mean_squared_error)
    value, gradients = NormPreserving(1.0, form)(net, params, record)
    assert value == pytest.approx(0.0, abs=1e-28)  # squares of roundings
    assert np.abs(gradients["0.U"]).max() < 1e-14


def test_each_member_of_an_ensemble_has_its_own():
    net, params, sample = setting(Elman("tanh"), E=3)
    batch = sample(np.random.default_rng(1))
    value, gradients = NormPreserving(1.0)(net, params, bptt(net, params, batch, mean_squared_error))
    for e in range(3):
        own = {key: v[e] for key, v in params.items()}
        alone, gradient = NormPreserving(1.0)(net, own, bptt(net, own, batch, mean_squared_error))
        assert value[e] == pytest.approx(alone, rel=1e-12)  # products blocked otherwise
        np.testing.assert_allclose(gradients["0.U"][e], gradient["0.U"], rtol=1e-10, atol=1e-14 * np.abs(gradient["0.U"]).max())


def test_steps_without_a_gradient_do_not_count():
    # Targets that are met: no error signal anywhere, nothing to preserve, and no 0/0.
    net, params, _ = example("tanh")
    x = np.random.default_rng(2).normal(size=(5, 2, 2))
    met = bptt(net, params, Batch(x, np.zeros((5, 2, 1))), lambda y, target, mask: (np.zeros(()), np.zeros_like(y)))
    value, gradients = NormPreserving(1.0)(net, params, met)
    assert value == 0.0
    np.testing.assert_array_equal(gradients["0.U"], 0.0)


def test_training_with_it_brings_the_ratio_towards_one():
    net, params, sample = setting(Elman("tanh"), length=20)
    params["0.U"] = 0.3 * params["0.U"]
    batch = sample(np.random.default_rng(1))
    found = [
        NormPreserving(1.0)(net, p, bptt(net, p, batch, mean_squared_error))[0]
        for p in (
            params,
            run(net, params, sample, 300, learning_rate=0.05).params,
            run(net, params, sample, 300, learning_rate=0.05, regulariser=NormPreserving(5.0)).params,
        )
    ]
    before, without, after = found
    assert after < 0.8 * min(before, without)


def test_cells_without_a_single_recurrent_matrix_are_refused():
    net, params, sample = setting(LSTM())
    with pytest.raises(GradlabError, match=r"regulariser is for Elman layers; layer 0 is LSTM\(\)"):
        run(net, params, sample, regulariser=NormPreserving(1.0))
