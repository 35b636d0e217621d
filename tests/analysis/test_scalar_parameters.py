"""A cell of the user's own with a parameter of shape (): every analysis treats it as one number among the others."""

import numpy as np
import pytest

import gradlab
from gradlab import Batch, Cell, Network, analysis, bptt, forward, mean_squared_error, training


class LeakyUnit(Cell):
    """s_t = (1 - alpha) s_{t-1} + alpha tanh(W x_t + U s_{t-1} + b) with one rate alpha for all units (Jaeger et al. 2007)."""

    def init(self, rng, input_size, hidden_size):
        W, U = rng.normal(size=(hidden_size, input_size)), 0.5 * rng.normal(size=(hidden_size, hidden_size))
        return {"W": W, "U": U, "b": np.zeros(hidden_size), "alpha": np.array(0.3)}

    def step(self, params, x_t, s_prev, t):
        pre = x_t @ params["W"].T + s_prev @ params["U"].T + params["b"]
        return (1.0 - params["alpha"]) * s_prev + params["alpha"] * np.tanh(pre)

    def vjp(self, params, x_t, s_prev, delta, t):
        pre = x_t @ params["W"].T + s_prev @ params["U"].T + params["b"]
        y, da = np.tanh(pre), params["alpha"] * delta / np.cosh(pre) ** 2  # 1 - y^2 would lose digits in saturation
        dtheta = {"W": da.T @ x_t, "U": da.T @ s_prev, "b": da.sum(axis=0), "alpha": np.sum(delta * (y - s_prev))}
        return dtheta, da @ params["W"], (1.0 - params["alpha"]) * delta + da @ params["U"]


class StepAlone(Cell):
    """The same, differentiated by complex steps."""

    init, step = LeakyUnit.init, LeakyUnit.step


def setting(cell=None, T=5, B=2, **options):
    net = Network(LeakyUnit() if cell is None else cell, 2, 3, **({"output_size": 1} | options))
    rng = np.random.default_rng(0)
    params = net.init(rng)
    params |= {key: np.array(0.3) for key in params if key.endswith("alpha")}
    shape = (T, B, 1) if net.readout == "every" else (B, 1)
    return net, params, Batch(rng.normal(size=(T, B, 2)), rng.normal(size=shape)), rng


def loss_of(net, params, batch):
    return mean_squared_error(forward(net, params, batch.inputs).outputs, batch.targets, None)[0]


SHAPES = [{}, {"readout": "last"}, {"num_layers": 2}, {"bidirectional": True}]


@pytest.mark.parametrize("cell", [LeakyUnit, StepAlone])
@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_the_gradient_of_a_single_number_is_its_complex_step(cell, options):
    net, params, batch, _ = setting(cell(), **options)
    record = bptt(net, params, batch, mean_squared_error, ("states", "jacobians"))
    for key in (key for key in params if key.endswith("alpha")):
        exact = loss_of(net, params | {key: params[key] + 1e-30j}, batch).imag / 1e-30
        assert isinstance(record.gradients[key], np.ndarray)
        assert record.gradients[key].shape == ()
        np.testing.assert_allclose(record.gradients[key], exact, rtol=1e-12)  # both are exact to rounding


def test_each_member_of_an_ensemble_has_its_own_number():
    net, params, batch, _ = setting()
    rates = np.array([0.1, 0.5, 0.9])
    together = bptt(net, params | {"0.alpha": rates}, batch, mean_squared_error)
    alone = [bptt(net, params | {"0.alpha": np.array(rate)}, batch, mean_squared_error) for rate in rates]
    assert together.gradients["0.alpha"].shape == (3,)
    np.testing.assert_allclose(together.loss, [float(one.loss) for one in alone], rtol=1e-14)  # the same sums
    np.testing.assert_allclose(together.gradients["0.alpha"], [one.gradients["0.alpha"] for one in alone], rtol=1e-13)


def test_numbers_that_arithmetic_made_numpy_scalars_are_parameters_too():
    net, params, batch, _ = setting()
    moved = {key: value + 0.0 for key, value in params.items()}
    assert not isinstance(moved["0.alpha"], np.ndarray)  # a float64, as every sum of arrays of shape () is
    assert bptt(net, moved, batch, mean_squared_error).loss == bptt(net, params, batch, mean_squared_error).loss


@pytest.mark.parametrize("biases", ["zero", "copy", "scale"])
@pytest.mark.parametrize("normalise", ["filter", "layer", "none"])
def test_a_surface_through_a_single_number_has_the_losses_of_its_parameters(normalise, biases):
    net, params, batch, rng = setting()
    before = {key: value.copy() for key, value in params.items()}
    d = analysis.random_direction(rng, net, params, normalise=normalise, biases=biases)
    size = {"zero": 0.0, "copy": 0.3, "scale": abs(float(d["0.alpha"])) if normalise == "none" else 0.3}[biases]
    assert d["0.alpha"].shape == ()
    assert abs(abs(float(d["0.alpha"])) - size) < 1e-15
    a = np.linspace(-0.5, 0.5, 3)
    for with_gradient in (False, True):
        found = analysis.loss_surface(net, params, batch, mean_squared_error, [d], a, with_gradient=with_gradient)
        expected = [float(loss_of(net, {key: value + x * d[key] for key, value in params.items()}, batch)) for x in a]
        np.testing.assert_allclose(found.loss, expected, rtol=1e-13)  # the same sums in another order
    assert all(np.array_equal(params[key], before[key]) for key in params)


def test_curvature_of_a_single_number_is_the_second_derivative_of_the_loss():
    net, params, batch, _ = setting()
    H = analysis.Hessian(net, params, batch, mean_squared_error, ("0.alpha",))
    up, down = (bptt(net, params | {"0.alpha": np.array(0.3 + h)}, batch, mean_squared_error) for h in (1e-5, -1e-5))
    difference = (up.gradients["0.alpha"] - down.gradients["0.alpha"]) / 2e-5
    np.testing.assert_allclose(analysis.dense_hessian(H), [[difference]], rtol=1e-8)  # truncation h^2, rounding eps/h
    whole = analysis.Hessian(net, params, batch, mean_squared_error)
    dense = analysis.dense_hessian(whole)
    own = whole.vector.slices["0.alpha"]
    np.testing.assert_allclose(dense[own, own], analysis.dense_hessian(H), rtol=1e-12)
    np.testing.assert_allclose(dense, dense.T, rtol=0, atol=1e-13 * np.abs(dense).max())  # exact to rounding


def test_times_and_lags_of_a_single_number_add_up_to_its_gradient():
    net, params, batch, _ = setting()
    gradient = bptt(net, params, batch, mean_squared_error).gradients["0.alpha"]
    split = analysis.temporal_components(net, params, batch, mean_squared_error)
    assert split.by_step["0.alpha"].shape == (5,)
    assert split.log_pairs["0.alpha"].shape == (5, 5)
    np.testing.assert_allclose([split.by_step["0.alpha"].sum(), split.by_lag["0.alpha"].sum()], gradient, rtol=1e-13)
    cut = analysis.truncation(net, params, batch, mean_squared_error, [1, 5], by_sequence=True)
    assert cut.cosine["0.alpha"][1] == 1.0
    assert abs(cut.cosine["0.alpha"][0]) == 1.0


def test_fixed_points_of_leaky_units_do_not_depend_on_the_rate():
    # s = (1 - alpha) s + alpha f(s) is s = f(s) for every alpha.
    net, params, _, rng = setting()
    rates = np.linspace(0.2, 0.9, 4)
    family = analysis.along(net, params | {"0.alpha": np.array(0.0)}, {"0.alpha": np.array(1.0)}, rates)
    found = analysis.bifurcation(net, family, rates, np.array([0.5, -0.2]), rng=rng, count=8)
    assert found.status.ok
    assert (found.counts == found.counts[0]).all()
    np.testing.assert_allclose(found.points, np.broadcast_to(found.points[:1], found.points.shape), rtol=0, atol=1e-13)


def test_training_and_its_trajectory_move_a_single_number():
    net, params, batch, _ = setting()
    trajectory = [params]
    for _ in range(3):
        gradients = bptt(net, trajectory[-1], batch, mean_squared_error).gradients
        trajectory.append({key: value - 0.1 * gradients[key] for key, value in trajectory[-1].items()})
    found = analysis.trajectory_pca(net, trajectory)
    assert found.directions[0]["0.alpha"].shape == ()
    assert found.origin["0.alpha"] == trajectory[-1]["0.alpha"]
    line = analysis.loss_between(net, params, trajectory[-1], batch, mean_squared_error, np.array([0.0, 1.0]))
    assert line.loss[1] < line.loss[0]  # three small steps downhill


def test_clipped_and_truncated_training_moves_a_single_number(tmp_path):
    net, params, batch, _ = setting()
    found = training.train(
        net,
        params,
        lambda _: batch,
        mean_squared_error,
        3,
        np.random.default_rng(0),
        learning_rate=0.1,
        clip=training.ByNorm(0.01),
        keep_path=True,
    )
    assert found.path["0.alpha"].shape == (4,)
    assert 0.0 < abs(found.params["0.alpha"] - 0.3) <= 3 * 0.1 * 0.01  # three steps of at most 0.001
    record = gradlab.truncated_bptt(net, found.params, batch, mean_squared_error, 2, 2)
    assert isinstance(record.gradients["0.alpha"], np.ndarray)
    record = bptt(net, params, batch, mean_squared_error)
    record.save(tmp_path / "record.npz")
    assert gradlab.Record.load(tmp_path / "record.npz").gradients["0.alpha"] == record.gradients["0.alpha"]


def test_the_checks_of_a_cell_hold_a_single_number_to_its_step():
    assert gradlab.checks.check_cell(LeakyUnit()).verdict == "PASS"
