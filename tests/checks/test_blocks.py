"""The dot product block by block: a network too large for the untied check, one gate wrong by 1e-8."""

import numpy as np
import pytest

from gradlab import cells
from gradlab.checks import block_products, random_example
from gradlab.errors import DTypeError

LARGE = {"T": 60, "B": 2, "D": 8, "H": 32, "scale": 0.25}


class WrongGate(cells.LSTM):
    """One gate of one parameter's gradient is scaled by 1 + 1e-8."""

    def __init__(self, key, gate):
        super().__init__()
        self.key, self.gate = key, gate

    def param_grads(self, *args):
        gradients = super().param_grads(*args)
        H = len(gradients["b"]) // 4
        gradients[self.key][self.gate * H : (self.gate + 1) * H] *= 1.0 + 1e-8
        return gradients


def products(example, **options):
    return block_products(example, np.random.default_rng(0), **options)


@pytest.mark.parametrize("cell", [cells.LSTM(), cells.GRU()], ids=repr)
def test_every_block_of_a_right_backward_pass_agrees_at_sixty_steps_and_32_units(cell):
    found = products(random_example(cell, **LARGE))
    gates = "ifgo" if isinstance(cell, cells.LSTM) else "rzn"
    names = {f"d0.{key}[{gate}]" for key in "WUb" for gate in gates} | {"ds_0 0"} | {f"dx at step {t}" for t in range(60)}
    assert names <= {one.name for one in found}
    assert all(one.passed for one in found)
    assert max(one.error for one in found) < 1e-15  # 1e-11 is asked for


@pytest.mark.parametrize(("key", "gate"), [("W", 0), ("U", 1), ("U", 3), ("b", 2)])
def test_a_gate_wrong_by_1e_8_is_rejected_by_its_own_label_alone(key, gate):
    # Along one random direction the terms of U[f] cancel to 2e-4 of S: it takes more than one to see 1e-8 of them.
    found = products(random_example(WrongGate(key, gate), **LARGE))
    wrong = [one for one in found if not one.passed]
    assert [one.name for one in wrong] == [f"d0.{key}[{'ifgo'[gate]}]"]
    assert wrong[0].value / wrong[0].oracle - 1.0 == pytest.approx(1e-8, rel=1e-4)


class WrongAdjoint(cells.Elman):
    """The adjoint that step 30 hands back is scaled by 1 + 1e-8."""

    def step_vjp(self, p, a_t, s_prev, s_t, delta, da_out, ds_out, t):
        super().step_vjp(p, a_t, s_prev, s_t, delta, da_out, ds_out, t)
        ds_out *= 1.0 + (1e-8 if t == 30 else 0.0)


def test_an_adjoint_wrong_at_one_step_is_seen_in_the_inputs_before_it_alone():
    # Spectral radius 1.1: what is lost at step 30 is still there some steps earlier.
    example = random_example(WrongAdjoint("linear"), **LARGE)
    U = example.params["0.U"]
    U *= 1.1 / np.abs(np.linalg.eigvals(U)).max()
    wrong = [one.name for one in products(example) if not one.passed]
    steps = {int(name.rpartition(" ")[2]) for name in wrong if name.startswith("dx at step")}
    assert max(steps) == 29
    assert "dx at step 30" not in wrong


def test_deep_networks_in_both_directions_agree_too():
    example = random_example(cells.GRU(), T=7, num_layers=2, bidirectional=True, ragged=True, output_size=2, readout="last")
    found = products(example)
    assert {"dreadout.V", "dreadout.b_y", "d1.backward.U[n]", "ds_0 0.forward"} <= {one.name for one in found}
    assert max(one.error for one in found) < 1e-14


@pytest.mark.parametrize(("factor", "passed"), [(1.0, True), (1.0 + 1e-6, False)])
def test_richardson_resolves_less_and_still_sees_a_millionth(factor, passed):
    class Scaled(cells.Elman):
        def param_grads(self, *args):
            gradients = super().param_grads(*args)
            return {**gradients, "U": factor * gradients["U"]}

    found = products(random_example(Scaled(), T=8, H=6), oracle="richardson")
    assert [one.name for one in found if not one.passed] == ([] if passed else ["d0.U"])


def test_a_seed_in_place_of_a_generator_is_refused():
    with pytest.raises(DTypeError, match="rng"):
        block_products(random_example(cells.Elman()), 0)
