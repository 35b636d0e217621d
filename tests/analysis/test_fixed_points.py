"""Fixed points, their stability, and the values of a parameter at which they are born: all against closed forms."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab import GRU, LSTM, SCRN, Clockwork, Elman, Jordan, Network, cells, forward, irnn
from gradlab._derivatives import complex_step_jacobian
from gradlab._math import sigmoid, sigmoid_slope
from gradlab.analysis.branches import along, bifurcation
from gradlab.analysis.fixed_point_search import fixed_points
from gradlab.analysis.folds import fold_points
from gradlab.analysis.surface_directions import named_weights
from gradlab.errors import DTypeError, ResourceRefused, ShapeError, ValueRangeError

ZERO = np.zeros(1)


def unit(activation, w=0.0, b=0.0):
    net = Network(Elman(activation), 1, 1)
    return net, {"0.W": np.zeros((1, 1)), "0.U": np.full((1, 1), w), "0.b": np.full(1, b)}


def rng():
    return np.random.default_rng(0)


def drawn(cell, seed=0, size=3, scale=1.0):
    generator = np.random.default_rng(seed)
    net = Network(cell, 2, size)
    return net, {k: scale * generator.uniform(-1.5, 1.5, s) for k, s in net.shapes.items()}, generator.normal(size=2), generator


def diagram(net, params, name, values, **options):
    (direction,) = named_weights(net, name)
    family = along(net, params, direction, values)
    return direction, bifurcation(net, family, values, ZERO, rng=rng(), **options)


# ---- known points -----------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_a_linear_net_stands_still_where_linear_algebra_says(seed, size):
    net, params, x, _ = drawn(Elman("linear"), seed, size)
    A = np.eye(size) - params["0.U"]
    found = fixed_points(net, params, x, rng=rng(), count=5)
    exact = np.linalg.solve(A, params["0.W"] @ x + params["0.b"])
    assert len(found.fixed) == 1
    # Both solutions carry the error of one linear solve.
    np.testing.assert_allclose(found.fixed.points[0], exact, rtol=0, atol=1e-14 * np.linalg.cond(A) * (1.0 + np.abs(exact).max()))
    radius = np.abs(np.linalg.eigvals(params["0.U"]))
    assert found.fixed.spectral_radius[0] == pytest.approx(radius.max(), rel=1e-9)
    assert found.fixed.unstable[0] == (radius > 1.0 + 1e-6).sum()
    assert found.fixed.hits.tolist() == [5]
    assert found.status.ok


def test_a_logistic_unit_on_its_wall_has_the_three_known_points_and_slopes():
    wall = 0.5 - 5.0 * float(sigmoid(np.asarray(0.5)))
    found = fixed_points(*unit("sigmoid", 5.0, wall), ZERO, rng=rng()).fixed
    # x_t = 5 sig(x_{t-1}) + b of Pascanu et al. (2013) is this unit's pre-activation. Derived values, printed to ten digits.
    np.testing.assert_allclose(5.0 * found.points[:, 0] + wall, [-2.0337976181, 0.5, 1.3932807138], rtol=0, atol=5e-11)
    np.testing.assert_allclose(found.eigenvalues[:, 0].real, [0.511567, 1.175019, 0.796647], rtol=0, atol=5e-7)
    assert found.stability == ("stable", "unstable", "stable")
    assert found.index.tolist() == [1, -1, 1]
    assert found.hits.sum() == 64
    assert found.speed.max() <= 1e-15


def test_a_latch_keeps_its_bit_at_the_known_states():
    found = fixed_points(*unit("tanh", 1.25), ZERO, rng=rng()).fixed
    np.testing.assert_allclose(found.points[:, 0], [-0.7104117835, 0.0, 0.7104117835], rtol=0, atol=5e-11)  # derived
    np.testing.assert_allclose(np.abs(found.eigenvalues[:, 0]), [0.619143872, 1.25, 0.619143872], rtol=0, atol=5e-10)


def test_a_slow_point_is_kept_apart_from_the_fixed_ones():
    # Just above its threshold h* = 0.077805169 a latch has lost one attractor; its ghost is a minimum of the speed. The
    # excess over the threshold is what is left of the speed there, to first order: d(tanh)/dh = 1 - s^2 = 1/w at the fold.
    excess = 1e-5
    found = fixed_points(*unit("tanh", 1.25, -0.077805169 - excess), ZERO, rng=rng(), count=200)
    assert len(found.fixed) == 1
    assert len(found.slow) == 1
    assert found.slow.points[0, 0] == pytest.approx(np.sqrt(1.0 - 1.0 / 1.25), abs=1e-3)
    assert found.slow.speed[0] == pytest.approx(excess / 1.25, rel=1e-3)
    assert found.slow.spectral_radius[0] == pytest.approx(1.0, abs=1e-3)
    assert found.fixed.speed[0] <= 1e-15
    none = fixed_points(*unit("tanh", 1.25, -0.077805169 - excess), ZERO, rng=rng(), slow=1e-7)
    assert len(none.slow) == 0


def test_speed_and_stability_of_a_line_of_fixed_points_are_marginal():
    # The identity recurrent net at rest: every state with positive entries stands still.
    net = Network(irnn(), 1, 2)
    params = {"0.W": np.zeros((2, 1)), "0.U": np.eye(2), "0.b": np.zeros(2)}
    starts = np.array([[1.0, 2.0], [0.5, 0.25], [1.0, 2.0]])
    found = fixed_points(net, params, ZERO, starts=starts)
    np.testing.assert_array_equal(found.fixed.points, [[0.5, 0.25], [1.0, 2.0]])
    assert found.fixed.hits.tolist() == [1, 2]
    assert found.fixed.stability == ("marginal", "marginal")
    assert found.fixed.marginal.tolist() == [2, 2]
    assert found.fixed.index.tolist() == [0, 0]


def test_the_context_of_an_scrn_rests_at_its_input_whatever_the_hidden_units_do():
    net, params, x, _ = drawn(SCRN(2))
    found = fixed_points(net, params, x, rng=rng()).fixed
    # q = alpha q + (1 - alpha) B x has the one solution B x; its eigenvalues are alpha, twice.
    np.testing.assert_allclose(found.points[:, :2], np.broadcast_to(params["0.B"] @ x, (len(found), 2)), rtol=1e-13)
    assert (np.abs(np.abs(found.eigenvalues) - 0.95) < 1e-9).sum(axis=-1).min() >= 2


def test_a_map_without_fixed_points_says_that_all_starts_were_lost():
    found = fixed_points(*unit("linear", 1.0, 0.25), ZERO, rng=rng(), count=7)  # h + 1/4 never stands still
    assert len(found.fixed) == 0
    assert found.fixed.points.shape == (0, 1)
    assert len(found.slow) == 0
    assert found.nonconverged == 7
    assert found.status.code == "nonconverged"
    assert "7 of 7 starts" in found.status.detail


# ---- every cell -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_every_cell_has_points_that_stand_still_or_says_that_it_found_none(cell):
    net, params, x, generator = drawn(cell, seed=3)
    found = fixed_points(net, params, x, rng=generator, count=24)
    assert found.fixed.hits.sum() + found.slow.hits.sum() + found.nonconverged == 24
    assert found.status.ok == (found.nonconverged == 0)
    assert len(found.fixed) or not found.status.ok
    assert (found.fixed.residual < 1e-12).all()
    own = {key.removeprefix("0."): value for key, value in params.items()}

    def cycle(s):
        for t in range(found.period):
            s = cell.step(own, x[None], s[None], t)[0]
        return s

    for point, values in zip(found.fixed.points, found.fixed.eigenvalues, strict=True):
        # Two cycles further, computed by the network itself.
        run = forward(net, params, np.tile(x, (2 * found.period, 1, 1)), {"0": point[None]})
        growth = max(1.0, float(np.abs(values).max()))
        size = max(1.0, float(np.linalg.norm(point)))
        assert np.abs(run.final_states["0"][0] - point).max() <= 1e-11 * growth**2 * size
        exact = np.linalg.eigvals(complex_step_jacobian(cycle, point))
        exact = exact[np.argsort(-np.abs(exact), kind="stable")]
        np.testing.assert_allclose(np.abs(exact), np.abs(values), rtol=0, atol=1e-6)  # close eigenvalues split by sqrt(eps)


@given(st.integers(0, 2**32 - 1), st.sampled_from([Elman("tanh"), Elman("sigmoid"), LSTM(), GRU(reset="before")]))
@settings(max_examples=12, deadline=None)
def test_the_indices_of_all_fixed_points_of_a_bounded_cell_add_up_to_one(seed, cell):
    # Lefschetz: a continuous map of a ball into itself. Two units, many starts: no point is missed. What saturated gates hold
    # far outside is marginal and has the index 0.
    net, params, x, generator = drawn(cell, seed, size=2)
    found = fixed_points(net, params, x, rng=generator, count=60)
    assert found.fixed.index.sum() == 1


@pytest.mark.parametrize("reset", ["after", "before"])
def test_saturated_gates_far_outside_do_not_hide_the_attractor(reset):
    # Where z is almost 1 a GRU holds any state, the better the farther out: a descent of the speed runs there for ever. Such
    # places are no minima of the speed, and starts that end there must be tried again.
    net, params, x, generator = drawn(GRU(reset=reset), seed=1, size=5)
    found = fixed_points(net, params, x, rng=generator)
    near = np.abs(found.fixed.points).max(axis=-1) <= 1.0  # where a GRU can be
    assert near.sum() == 1
    assert found.fixed.stability[int(np.argmax(near))] == "stable"
    assert found.fixed.hits[near][0] > 40
    assert len(found.slow) == 0
    assert found.status.ok


def test_starts_that_a_descent_leaves_in_a_valley_are_tried_again():
    # Of 64 starts only 4 descend to the one fixed point of this bounded map; the others end in minima of the speed above 0.7.
    net, params, x, generator = drawn(Jordan(2), seed=1, size=5)
    found = fixed_points(net, params, x, rng=generator)
    assert found.fixed.hits.tolist() == [64]
    assert found.status.ok


def test_an_eigenvalue_within_the_margin_of_one_is_marginal():
    net, params = unit("linear", 1.0 - 1e-7, 0.25)
    for margin, name in ((1e-6, "marginal"), (1e-8, "stable")):
        found = fixed_points(net, params, ZERO, rng=rng(), margin=margin).fixed
        assert found.stability == (name,)
        assert found.points[0, 0] == pytest.approx(0.25e7, rel=1e-8)
        net, params = unit("linear", 1.0 + 1e-7, 0.25)
        found = fixed_points(net, params, ZERO, rng=rng(), margin=margin).fixed
        assert found.stability == ("unstable" if margin < 1e-7 else "marginal",)
        net, params = unit("linear", 1.0 - 1e-7, 0.25)
    # The cubic slows the last steps of this one down: at the tolerance it is still 1e-5 away.
    found = fixed_points(*unit("tanh", 1.0 - 1e-7), ZERO, rng=rng()).fixed
    assert found.stability == ("marginal",)
    assert abs(found.points[0, 0]) < 1e-9


def test_an_upper_layer_is_a_map_of_its_own_input():
    rng_ = np.random.default_rng(0)
    net = Network([GRU(), Elman("linear")], 2, 3)
    params = {k: rng_.uniform(-0.5, 0.5, s) for k, s in net.shapes.items()}
    x = np.array([0.3, -0.2, 0.7])  # what layer 0 emits
    found = fixed_points(net, params, x, rng=rng(), layer="1").fixed
    exact = np.linalg.solve(np.eye(3) - params["1.U"], params["1.W"] @ x + params["1.b"])
    np.testing.assert_allclose(found.points[0], exact, rtol=1e-13)


def test_a_cell_of_the_users_own_has_fixed_points():
    class Own:
        def init(self, generator, input_size, hidden_size):
            return {"w": np.full((hidden_size, hidden_size), 1.25)}

        def step(self, params, x_t, s_prev, t):
            return np.tanh(s_prev @ params["w"].T)

    net = Network(Own(), 1, 1)
    found = fixed_points(net, {"0.w": np.full((1, 1), 1.25)}, ZERO, rng=rng()).fixed
    np.testing.assert_allclose(found.points[:, 0], [-0.7104117835, 0.0, 0.7104117835], rtol=0, atol=5e-11)


# ---- clocks -----------------------------------------------------------------------------------------------


def test_a_clockwork_cell_is_searched_over_its_whole_cycle():
    net, params, x, generator = drawn(Clockwork((1, 2, 6), "linear"), scale=0.4)
    found = fixed_points(net, params, x, rng=generator)
    assert found.period == 6
    # At step 0 all units move, so where the whole cell stands still: (I - U)^{-1} (W x + b), U cut to its blocks.
    U = params["0.U"] * net.cell.connections(3)
    exact = np.linalg.solve(np.eye(3) - U, params["0.W"] @ x + params["0.b"])
    np.testing.assert_allclose(found.fixed.points[0], exact, rtol=1e-12)
    # One unit a module: over 6 steps they move 6, 3 and 1 times, and U is triangular.
    moves = np.abs(np.diag(U)) ** np.array([6, 3, 1])
    np.testing.assert_allclose(np.abs(found.fixed.eigenvalues[0]), np.sort(moves)[::-1], rtol=1e-9)


def test_a_cell_that_depends_on_t_is_refused_by_name_unless_its_cycle_is_given():
    net, params, x, _ = drawn(Clockwork((1, 2)))
    with pytest.raises(
        ValueRangeError, match=r"period is 1; the cell Clockwork\(.*\) of layer 0 .* depends on t; expected period"
    ):
        fixed_points(net, params, x, rng=rng(), period=1)
    assert fixed_points(net, params, x, rng=rng(), period=4).period == 4

    class Drift:
        def init(self, generator, input_size, hidden_size):
            return {"w": np.ones((1, 1))}

        def step(self, params, x_t, s_prev, t):
            return 0.5 * s_prev + 0.1 * t

    with pytest.raises(ValueRangeError, match="depends on t"):
        fixed_points(Network(Drift(), 1, 1), {"0.w": np.ones((1, 1))}, ZERO, rng=rng())


def test_a_given_cycle_multiplies_its_jacobians_in_the_order_of_time():
    A = np.random.default_rng(0).normal(size=(3, 3, 3))

    class Turning:
        def init(self, generator, input_size, hidden_size):
            return {"g": np.ones((1, 1))}

        def step(self, params, x_t, s_prev, t):
            return params["g"] * np.tanh(s_prev @ A[t % 3].T)

    net = Network(Turning(), 1, 3)
    found = fixed_points(net, {"0.g": np.ones((1, 1))}, ZERO, starts=1e-3 * np.eye(3), period=3).fixed
    at_rest = int(np.argmin(np.abs(found.points).max(axis=-1)))
    # At the origin J_t = A_t; the first step's matrix stands on the right. Three factors in reverse have other eigenvalues.
    exact = np.linalg.eigvals(A[2] @ A[1] @ A[0])
    np.testing.assert_allclose(np.abs(found.eigenvalues[at_rest]), np.sort(np.abs(exact))[::-1], rtol=1e-10)


# ---- families ---------------------------------------------------------------------------------------------


def test_a_logistic_unit_has_one_three_and_one_fixed_points_across_its_folds():
    net, params = unit("sigmoid", 5.0)
    values = np.linspace(-3.0, -2.0, 41)
    direction, found = diagram(net, params, ("0.b", 0), values)
    root = np.sqrt(1.0 - 4.0 / 5.0)
    s = np.array([0.5 * (1.0 + root), 0.5 * (1.0 - root)])  # sig at the folds, in the order of b
    folds = np.log(s / (1.0 - s)) - 5.0 * s
    inside = (values > folds[0]) & (values < folds[1])
    np.testing.assert_array_equal(found.counts, np.where(inside, 3, 1))
    assert found.branches == 3
    np.testing.assert_array_equal(found.changes, np.flatnonzero(np.diff(inside)))
    # Points satisfy the equation b = logit(s) - 5 s, and slopes 5 s (1 - s).
    there = found.branch >= 0
    p = found.points[..., 0][there]
    np.testing.assert_allclose(np.log(p / (1.0 - p)) - 5.0 * p, np.broadcast_to(values[:, None], there.shape)[there], atol=1e-13)
    np.testing.assert_allclose(found.spectral_radius[there], 5.0 * p * (1.0 - p), rtol=1e-13)
    np.testing.assert_array_equal(found.unstable[there], 5.0 * p * (1.0 - p) > 1.0)
    exact = fold_points(net, params, direction, ZERO, found)
    np.testing.assert_allclose(exact.values, [-2.655610338631, -2.344389661369], rtol=0, atol=5e-13)  # derived, 12 digits
    np.testing.assert_allclose(exact.values, folds, rtol=1e-14)
    np.testing.assert_allclose(exact.points[:, 0], s, rtol=1e-10)  # the place of a fold is softer than its value
    np.testing.assert_allclose(5.0 * sigmoid_slope(np.log(s / (1.0 - s))), 1.0, rtol=1e-14)  # the truth itself: slope 1
    assert exact.status.ok


@pytest.mark.parametrize("w", [1.05, 1.25, 3.0])
def test_a_latch_loses_its_bit_at_the_derived_threshold(w):
    net, params = unit("tanh", w)
    q = np.sqrt(1.0 - 1.0 / w)
    threshold = w * q - np.arctanh(q)  # h*(w), after Bengio, Simard & Frasconi (1994)
    direction, found = diagram(net, params, ("0.b", 0), threshold * np.linspace(-2.0, 2.0, 12))
    assert found.counts.tolist() == [1, 1, 1, 3, 3, 3, 3, 3, 3, 1, 1, 1]
    exact = fold_points(net, params, direction, ZERO, found)
    np.testing.assert_allclose(exact.values, [-threshold, threshold], rtol=1e-12)
    if w == 1.25:
        assert exact.values[1] == pytest.approx(0.077805169, abs=5e-10)


def test_the_sign_is_kept_below_the_threshold_and_lost_above_it():
    net, params = unit("tanh", 1.25)
    for share, kept in ((0.999, True), (1.001, False)):
        found = fixed_points(net, params | {"0.b": np.full(1, -share * 0.077805169)}, ZERO, rng=rng(), count=200).fixed
        assert bool((found.points > 0.0).any()) == kept


def test_a_symmetric_unit_branches_at_one_and_keeps_its_branches_apart():
    net, params = unit("tanh")
    values = np.linspace(0.5, 1.5, 20)
    direction, found = diagram(net, params, ("0.U", (0, 0)), values)
    np.testing.assert_array_equal(found.counts, np.where(values < 1.0, 1, 3))
    assert found.branches == 4  # the origin before and after, and two new ones
    for k in range(4):
        where, column = np.nonzero(found.branch == k)
        assert np.all(np.diff(where) == 1)
        side = np.sign(np.round(found.points[where, column, 0], 12))
        assert len(set(side)) == 1
    crossing = fold_points(net, params, direction, ZERO, found)
    assert crossing.values == pytest.approx([1.0], abs=1e-7)  # half the digits where branches cross


def test_folds_of_a_wide_cell_have_an_eigenvalue_of_one_and_a_fixed_point():
    generator = np.random.default_rng(0)
    net = Network(LSTM(), 1, 4)
    params = net.init(generator)
    params["0.U"] *= 4.0
    direction, values = {"0.U": params["0.U"]}, np.linspace(-0.6, -0.5, 12)
    found = bifurcation(net, along(net, params, direction, values), values, ZERO, rng=rng())
    folds = fold_points(net, params, direction, ZERO, found)
    assert len(folds.values) == 2
    assert folds.status.ok
    for value, point, vector in zip(folds.values, folds.points, folds.null_vectors, strict=True):
        moved = params | {"0.U": (1.0 + value) * params["0.U"]}
        run = forward(net, moved, np.zeros((1, 1, 1)), {"0": point[None]}).runs["0"]
        np.testing.assert_allclose(run.states[1, 0], point, rtol=0, atol=1e-14)
        J = run.jacobians()[0, 0]
        np.testing.assert_allclose(J @ vector, vector, rtol=0, atol=1e-13)
        assert np.abs(np.linalg.eigvals(J) - 1.0).min() < 1e-12
        assert np.linalg.norm(vector) == pytest.approx(1.0, rel=1e-14)


def test_neighbours_find_what_the_starts_missed(monkeypatch):
    net, params = unit("tanh")
    values = np.linspace(0.5, 1.5, 11)
    (direction,) = named_weights(net, ("0.U", (0, 0)))
    family = along(net, params, direction, values)
    # Starts from which every unit falls to the positive attractor alone.
    found = bifurcation(net, family, values, ZERO, starts=np.full((3, 1), 0.9))
    monkeypatch.setattr(importlib.import_module("gradlab.analysis.branches"), "SWEEPS", 0)
    alone = bifurcation(net, family, values, ZERO, starts=np.full((3, 1), 0.9))
    assert (found.counts >= alone.counts).all()
    assert found.counts.sum() > alone.counts.sum()


def test_a_family_of_inputs_is_a_family_too():
    net, params = unit("sigmoid", 5.0)
    params["0.W"][...] = 1.0
    values = np.linspace(-3.0, -2.0, 9)
    by_input = bifurcation(net, params, values, values[:, None], rng=rng())
    _, by_bias = diagram(net, params, ("0.b", 0), values)
    np.testing.assert_array_equal(by_input.counts, by_bias.counts)
    np.testing.assert_allclose(by_input.points, by_bias.points, rtol=1e-13)


def test_groups_of_values_change_nothing_and_descending_values_turn_the_diagram_round(monkeypatch):
    net, params = unit("sigmoid", 5.0)
    values = np.linspace(-3.0, -2.0, 9)
    _, whole = diagram(net, params, ("0.b", 0), values)
    _, turned = diagram(net, params, ("0.b", 0), values[::-1])
    np.testing.assert_allclose(turned.points[::-1], whole.points, rtol=1e-13)
    monkeypatch.setattr(importlib.import_module("gradlab.analysis.branches"), "AT_ONCE", 1)
    told = []
    _, parts = diagram(net, params, ("0.b", 0), values, progress=lambda *done: told.append(done))
    np.testing.assert_allclose(parts.points, whole.points, rtol=1e-13)
    assert told == [(k, 9) for k in range(1, 10)]


def test_starts_that_end_nowhere_are_counted_by_value():
    net, params = unit("linear")
    values = np.array([0.5, 1.0, 1.5])
    params["0.b"][...] = 0.25
    _, found = diagram(net, params, ("0.U", (0, 0)), values, count=4)
    assert found.nonconverged.tolist() == [0, 4, 0]  # h + 1/4 never stands still
    assert found.counts.tolist() == [1, 0, 1]
    assert found.status.code == "nonconverged"
    assert "4 of 12 starts" in found.status.detail


# ---- what must not happen, and bad input ------------------------------------------------------------------


def test_parameters_and_starts_are_bit_identical_afterwards():
    net, params, x, generator = drawn(LSTM())
    starts = generator.normal(size=(8, 6))
    everything = [*params.values(), x, starts]
    before = [value.tobytes() for value in everything]
    for value in everything:
        value.flags.writeable = False
    fixed_points(net, params, x, starts=starts)
    assert [value.tobytes() for value in everything] == before


def test_the_same_generator_finds_the_same_points():
    net, params, x, _ = drawn(GRU())
    one, other = (fixed_points(net, params, x, rng=rng()) for _ in range(2))
    np.testing.assert_array_equal(one.fixed.points, other.fixed.points)
    np.testing.assert_array_equal(one.fixed.hits, other.fixed.hits)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros(3)}, ShapeError, r"x has shape \(3,\); expected \(2,\): the constant input of layer 0"),
        ({"x": np.array([np.nan, 0.0])}, ValueRangeError, "x has 1 non-finite"),
        ({"layer": "1"}, ValueRangeError, "layer is '1'; expected one of 0"),
        ({"rng": None}, ValueRangeError, "starts and rng: neither given"),
        ({"starts": np.zeros((4, 6))}, ValueRangeError, "starts and rng: both given"),
        ({"rng": None, "starts": np.zeros((4, 3))}, ShapeError, r"starts has shape \(4, 3\); expected \(N, 6\)"),
        ({"rng": None, "starts": np.full((4, 6), np.inf)}, ValueRangeError, "starts has 24 non-finite"),
        ({"rng": 7}, DTypeError, "default_rng"),
        ({"tol": 0.0}, ValueRangeError, "tol is 0.0"),
        ({"spread": -1.0}, ValueRangeError, "spread is -1.0"),
        ({"count": 0}, ValueRangeError, "count is 0"),
        ({"max_iterations": 0}, ValueRangeError, "max_iterations is 0"),
        ({"max_memory": 1000}, ResourceRefused, "64 starts of 1 network"),
        ({"params": {}}, ValueRangeError, "params lacks"),
    ],
    ids=str,
)
def test_bad_input_is_refused_by_name(change, error, message):
    net, params, x, generator = drawn(LSTM())
    given_ = {"params": params, "x": x, "rng": generator} | change
    with pytest.raises(error, match=message):
        fixed_points(net, **given_)


def test_ensembles_and_complex_parameters_are_refused():
    net, params, x, generator = drawn(LSTM())
    with pytest.raises(ShapeError, match=r"ensemble axes are \{'0.U': \(3,\)\}; expected none; try gradlab.analysis.bifurcation"):
        fixed_points(net, params | {"0.U": np.repeat(params["0.U"][None], 3, axis=0)}, x, rng=generator)
    with pytest.raises(DTypeError, match="expected real parameters"):
        fixed_points(net, params | {"0.U": params["0.U"] + 0j}, x, rng=generator)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (np.array([0.0]), ValueRangeError, "expected at least 2"),
        (np.array([0.0, 1.0, 0.5]), ValueRangeError, "all ascending or all descending"),
        (np.array([0.0, np.nan]), ValueRangeError, "values has 1 non-finite"),
        (np.zeros((2, 2)), ShapeError, r"values has shape \(2, 2\)"),
        (np.array([0.0, 1.0, 2.0]), ShapeError, "a family of 2; expected 3"),
    ],
    ids=str,
)
def test_bad_values_are_refused_by_name(values, error, message):
    net, params = unit("tanh")
    family = params | {"0.U": np.array([0.5, 1.5]).reshape(2, 1, 1)}
    with pytest.raises(error, match=message):
        bifurcation(net, family, values, ZERO, rng=rng())


def test_folds_of_another_network_are_refused_by_name():
    net, params = unit("sigmoid", 5.0)
    direction, found = diagram(net, params, ("0.b", 0), np.linspace(-3.0, -2.0, 9))
    with pytest.raises(ShapeError, match=r"\['x'\] have ensemble axes"):
        fold_points(net, params, direction, np.zeros((9, 1)), found)
    with pytest.raises(ShapeError, match=r"\['0.U'\] have ensemble axes"):
        fold_points(net, params | {"0.U": np.full((9, 1, 1), 5.0)}, direction, ZERO, found)
    wide = Network(LSTM(), 1, 1)
    with pytest.raises(ShapeError, match="diagram has states of 1; expected S = 2"):
        fold_points(wide, wide.init(rng()), {"0.b": np.ones(4)}, ZERO, found)


def test_a_family_without_any_fixed_point_has_an_empty_diagram_and_says_so():
    net, params = unit("linear", 1.0)  # s -> s + b
    values = np.array([0.5, 1.0, 1.5])
    direction, found = diagram(net, params, ("0.b", 0), values, count=4)
    assert found.counts.tolist() == [0, 0, 0]
    assert found.branches == 0
    assert found.points.shape == (3, 0, 1)
    assert str(found.status) == "nonconverged: 12 of 12 starts ended at no fixed point, at 3 of 3 values"
    assert len(fold_points(net, params, direction, ZERO, found).values) == 0


def test_starts_out_of_all_proportion_are_refused_with_their_size():
    net, params = unit("tanh", 0.5)
    with pytest.raises(ValueRangeError, match=r"starts reach 1e\+200; expected states of at most 1e\+100"):
        fixed_points(net, params, ZERO, starts=np.full((2, 1), 1e200))
    found = fixed_points(net, params, ZERO, starts=np.full((2, 1), 1e99))
    assert len(found.fixed) == 1
    assert found.status.ok


def test_a_cell_whose_state_drifts_for_ever_has_no_fixed_point():
    # c grows by i g - (1 - f) c, and f -> 1 exponentially as c grows through its peephole: slower and slower, never at rest.
    net = Network(LSTM(peepholes=True), 1, 1)
    params = {key: np.zeros(shape) for key, shape in net.shapes.items()}
    params["0.b"][2], params["0.p_f"][...] = 1.0, 1.0
    found = fixed_points(net, params, ZERO, rng=rng(), count=16)
    assert found.status.code == "nonconverged"
    assert found.nonconverged == 16 - int(found.fixed.hits.sum() + found.slow.hits.sum())
    assert all(point[0] < 20.0 for point in found.fixed.points)  # far out the speed is below any tolerance
