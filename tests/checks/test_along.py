"""The oracle's own forward pass: untied contributions against closed forms, and their sums against one sequence at a time."""

import numpy as np
import pytest
from hand_written import Linear, Tanh, one_layer, scalar

from gradlab import cells
from gradlab.checks import check_example, network_gradient, random_example
from gradlab.checks.along import Along, Shift, unit_shifts
from gradlab.checks.claims import SUMMED, claimed, replay
from gradlab.checks.gradients import run_steps
from gradlab.checks.untied import untied
from gradlab.errors import ResourceRefused

# Sums of a few hundred terms in another order: some 1e-15 of the sum of their absolute values.
BOUND = 1e-13


def oracle_of(example):
    """By quantity, (steps, B, *own): the exact contributions and their scales."""
    check = untied(example)
    assert check.oracle.kind == "complex"
    quantities = check.quantities(claimed(example), example.cotangent)
    return {one.name: (one.oracle, one.scale) for one in quantities if not one.name.endswith(" summed")}


# ---- closed forms ------------------------------------------------------------------------------------------


def test_the_contributions_of_a_scalar_linear_net_are_those_of_its_closed_form():
    # s_t = u s_(t-1) + w x_t + b and L = s_T: step t contributes u^(T-t) times s_(t-1), x_t and 1 to dL/du, dL/dw, dL/db.
    T, u, w, b = 6, 0.8, 1.5, -0.2
    xs = np.array([0.7, -1.0, 0.4, 2.0, 0.0, -0.3])
    last = np.zeros((T, 1, 1))
    last[-1] = 1.0
    example = one_layer(Linear(), [[w]], [[u]], [b], xs.reshape(T, 1, 1), last, s_0=[[0.5]])
    s = [0.5]
    for x in xs:
        s.append(u * s[-1] + w * x + b)
    carried = u ** np.arange(T - 1, -1, -1.0)
    exact = {"0.U": carried * s[:-1], "0.W": carried * xs, "0.b": carried, "x": carried * w, "s 0": u ** np.arange(T, -1, -1.0)}
    found = oracle_of(example)
    assert {name for name in found if not name.endswith(SUMMED)} == set(exact)
    for name, value in exact.items():
        assert np.abs(found[name][0].ravel() - value).max() <= BOUND, name
    assert check_example(example).verdict == "PASS"


def test_a_vanished_contribution_of_a_scalar_linear_net_keeps_its_digits_down_to_1e_250():
    T, u = 26, 1e-10
    example = scalar(Linear(), np.ones(T), u=u)
    example.cotangent[:-1] = 0.0
    exact = u ** np.arange(T - 1, -1, -1.0)
    found = oracle_of(example)["0.W"][0].ravel()
    assert exact[0] == pytest.approx(1e-250)
    assert np.abs(found / exact - 1.0).max() <= 1e-12
    assert check_example(example).verdict == "PASS"


@pytest.mark.parametrize("factor", [0.0, -1.0, 2.0, 1.0 + 1e-6])
def test_a_wrong_contribution_of_1e_240_fails(factor):
    class OneStep(Linear):
        def vjp(self, params, x_t, s_prev, delta, t):
            gradients, dx, ds = super().vjp(params, x_t, s_prev, delta, t)
            return {**gradients, "W": gradients["W"] * (factor if t == 1 else 1.0)}, dx, ds

    example = scalar(OneStep(), np.ones(26), u=1e-10)
    example.cotangent[:-1] = 0.0
    report = check_example(example)
    assert report.verdict == "FAIL"
    assert [(one.place, one.step) for one in report.findings] == [("d0.W", 1)]
    assert report.findings[0].oracle == pytest.approx(1e-240)


# ---- the sum of the contributions is the gradient -----------------------------------------------------------

NETWORKS = {
    "one layer": {},
    "stack": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "ragged": {"ragged": True},
    "read-out": {"output_size": 2},
    "read-out of the last step": {"output_size": 2, "readout": "last"},
    "everything": {"num_layers": 2, "bidirectional": True, "ragged": True, "output_size": 2, "readout": "last"},
}
CASES = [(cell, name) for cell in (cells.LSTM(peepholes=True), Tanh()) for name in NETWORKS]
CASES += [(cell, "everything") for cell in (cells.GRU(reset="before"), cells.Clockwork((1, 2, 4)), cells.SCRN(2))]


@pytest.mark.parametrize(("cell", "name"), CASES, ids=lambda case: str(case))
def test_untied_contributions_sum_to_the_gradient_of_one_sequence_at_a_time(cell, name):
    example = random_example(cell, T=3, D=1, seed=3, **NETWORKS[name])
    found = oracle_of(example)
    exact = network_gradient(example.net, example.params, example.x, example.cotangent, example.states, example.lengths)
    for key in example.params:
        contributions, scale = found[key]
        assert np.all(np.abs(contributions.sum(axis=(0, 1)) - exact[key][0]) <= BOUND * scale.sum(axis=(0, 1))), key
    assert np.all(np.abs(found["x"][0] - exact["x"][0]) <= BOUND * found["x"][1])
    for layer in example.net.layers:
        contributions, scale = found[f"s {layer.name}"]
        assert np.all(np.abs(contributions[0] - exact[f"s_0 {layer.name}"][0]) <= BOUND * scale[0]), layer.name


def test_what_lies_behind_the_end_of_a_row_contributes_exactly_nothing():
    example = random_example(cells.LSTM(), T=5, ragged=True)
    assert example.lengths.tolist() == [5, 3]
    for name, (contributions, _) in oracle_of(example).items():
        if name.endswith(SUMMED):
            continue
        ends = contributions[3:, 1] if not name.startswith("s ") else contributions[4:, 1]
        assert not ends.any(), name
        assert contributions[3:, 0].any(), name


# ---- the forward pass --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_member_that_is_not_shifted_is_the_plain_forward_pass(name):
    example = random_example(cells.GRU(), T=4, **NETWORKS[name])
    e = example
    shifts = [shift for _, _, shift in unit_shifts(e.net, e.params, len(e.x))]
    out = Along(e.net, e.params, e.x, e.states, e.lengths, shifts)(np.asarray(0.0))
    plain = run_steps(e.net, e.params, e.x, e.states, e.lengths)
    plain = plain if e.net.readout == "every" else plain[None]
    assert len(out) == 1 + sum(shift.size for shift in shifts)
    assert np.abs(out - plain).max() <= 1e-14  # every member, the shift being 0
    engine = replay(example).outputs
    assert np.abs(out[0] - engine).max() <= 1e-14


def test_a_shift_at_one_step_moves_nothing_before_it():
    e = random_example(cells.LSTM(), T=5)
    for t in range(5):
        shift = Shift("parameter", "0", t, {"U": np.ones((1, 12, 3))})
        out = Along(e.net, e.params, e.x, e.states, None, [shift])(np.asarray(0.1))
        assert np.array_equal(out[1, :t], out[0, :t])
        assert np.abs(out[1, t:] - out[0, t:]).max(axis=(1, 2)).min() > 1e-4


def test_a_shift_at_every_step_is_another_parameter():
    e = random_example(cells.LSTM(), T=5)
    out = Along(e.net, e.params, e.x, e.states, None, [Shift("parameter", "0", None, {"U": np.ones((1, 12, 3))})])(
        np.asarray(0.1)
    )
    other = run_steps(e.net, {**e.params, "0.U": e.params["0.U"] + 0.1}, e.x, e.states)
    assert np.abs(out[1] - other).max() <= 1e-14


def test_directions_that_do_not_fit_in_memory_are_refused(monkeypatch):
    monkeypatch.setattr("gradlab._memory.memory_limit", lambda asked=None: 10**6)
    with pytest.raises(ResourceRefused, match=r"an untied check of \d+ directions over T = 20, B = 2 needs .*smaller network"):
        check_example(random_example(cells.LSTM(), T=20))
