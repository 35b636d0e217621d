"""What each strategy promises of what it draws, and that a planted defect shrinks to the fewest steps that show it."""

import numpy as np
import pytest
from hand_written import Tanh
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from gradlab import cells
from gradlab.checks import check_example, strategies

SHAPES = {"0.W": (12, 2), "0.U": (12, 3), "0.b": (12,), "readout.V": (2, 3), "readout.b_y": (2,)}
FAST = settings(max_examples=30)


def drawn(kind):
    return strategies.parameters(SHAPES, [kind])


def recurrent(params):
    """The square blocks of U, gate by gate."""
    return params["0.U"].reshape(4, 3, 3)


# ---- kinds of parameters -----------------------------------------------------------------------------------


@given(strategies.parameters(SHAPES))
def test_parameters_have_the_shapes_asked_for_and_are_finite(params):
    assert {key: value.shape for key, value in params.items()} == SHAPES
    assert all(np.isfinite(value).all() and value.dtype == np.float64 for value in params.values())


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [("zero", 0.0, 0.0), ("plain", 0.1, 1.0), ("small", 0.02, 0.25), ("tiny", 1e-31, 1e-30), ("huge", 1e2, 1e3)],
)
def test_the_size_of_parameters_is_that_of_their_kind(kind, least, most):
    @given(drawn(kind))
    @FAST
    def holds(params):
        for value in params.values():
            assert np.abs(value).max() <= most
            assert value.size < 12 or least <= np.abs(value).max()  # of a few entries all may happen to be small

    holds()


@given(drawn("identity"))
@FAST
def test_identity_is_exact_gate_by_gate_and_leaves_biases_and_inputs(params):
    assert all(np.array_equal(block, np.eye(3)) for block in recurrent(params))
    assert np.abs(params["0.b"]).max() > 0.1
    assert len(np.unique(params["readout.V"])) == 6  # (2, 3): no square block
    # (12, 2): six square blocks of an input matrix, which become identities, too
    assert np.array_equal(params["0.W"][:2], np.eye(2))


@given(drawn("orthogonal"))
@FAST
def test_orthogonal_blocks_are_orthogonal_to_rounding(params):
    for block in recurrent(params):
        assert np.abs(block.T @ block - np.eye(3)).max() <= 1e-14


@given(drawn("radius"))
@FAST
def test_every_gate_has_one_of_three_spectral_radii_to_rounding(params):
    radii = [np.abs(np.linalg.eigvals(block)).max() for block in recurrent(params)]
    target = min((0.5, 1.0, 1.5), key=lambda one: abs(one - radii[0]))
    assert np.abs(np.array(radii) / target - 1.0).max() <= 1e-12


def test_all_three_spectral_radii_are_drawn():
    seen = set()

    @given(drawn("radius"))
    @FAST
    def collect(params):
        seen.add(round(2.0 * np.abs(np.linalg.eigvals(params["0.U"][:3])).max()) / 2.0)

    collect()
    assert seen == {0.5, 1.0, 1.5}


@given(drawn("saturating"))
@FAST
def test_saturating_parameters_have_biases_of_forty_and_ordinary_weights(params):
    assert set(np.abs(np.concatenate([params["0.b"], params["readout.b_y"]]))) == {40.0}
    assert np.abs(params["0.U"]).max() <= 1.0


def test_every_kind_is_drawn_and_the_gentle_ones_come_first():
    assert strategies.PARAMETERS[:6] == strategies.GENTLE
    assert {"tiny", "huge", "saturating"}.isdisjoint(strategies.GENTLE)
    assert all(
        find(st.sampled_from(strategies.PARAMETERS), lambda one, kind=kind: one == kind) == kind for kind in strategies.PARAMETERS
    )


@given(strategies.parameters({"a": (), "b": (1,), "c": (1, 1), "d": (3, 1), "e": (1, 3)}))
@FAST
def test_odd_shapes_are_served_too(params):
    assert [value.shape for value in params.values()] == [(), (1,), (1, 1), (3, 1), (1, 3)]


# ---- sequences, lengths, sizes -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", strategies.SEQUENCES)
def test_a_sequence_is_what_its_kind_says(kind):
    @given(strategies.sequences(4, 3, 2, [kind]))
    @FAST
    def holds(x):
        assert x.shape == (4, 3, 2)
        assert x.dtype == np.float64
        assert np.abs(x).max() <= 2.0
        assert np.array_equal(x, x.astype(np.float16))  # short numbers
        if kind == "zero":
            assert not x.any()
        if kind == "constant":
            assert np.array_equal(x, np.broadcast_to(x[:1], x.shape))
        if kind == "repeated rows":
            assert np.array_equal(x, np.broadcast_to(x[:, :1], x.shape))

    holds()


@given(strategies.sizes(steps=4, batch=3, inputs=2, hidden=5))
def test_sizes_lie_between_one_and_their_bounds(sizes):
    assert all(1 <= size <= bound for size, bound in zip(sizes, (4, 3, 2, 5), strict=True))


def test_sizes_shrink_to_one_and_reach_their_bounds():
    assert find(strategies.sizes(), lambda sizes: True) == (1, 1, 1, 1)
    assert find(strategies.sizes(steps=7), lambda sizes: sizes[0] > 6) == (7, 1, 1, 1)


@given(st.integers(1, 5).flatmap(lambda T: st.tuples(st.just(T), strategies.lengths(T, 3))))
def test_lengths_are_none_or_one_to_the_number_of_steps(found):
    T, lengths = found
    assert lengths is None or (lengths.shape == (3,) and lengths.dtype.kind == "i" and 1 <= lengths.min() <= lengths.max() <= T)


def test_ragged_rows_are_drawn():
    lengths = find(strategies.lengths(3, 2), lambda one: one is not None and len(set(one)) > 1)
    assert sorted(lengths) == [1, 2]


# ---- networks and examples ---------------------------------------------------------------------------------


@given(strategies.networks([cells.GRU(), cells.LSTM()], input_size=3, hidden_size=4, layers=(1, 3)))
def test_networks_keep_to_their_cells_and_bounds(net):
    assert isinstance(net.cell, (cells.GRU, cells.LSTM))
    assert 1 <= net.input_size <= 3
    assert 1 <= net.hidden_size <= 4
    assert net.num_layers in (1, 3)
    assert net.output_size in (None, 2)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda e: e.net.bidirectional and e.net.num_layers == 2,
        lambda e: e.net.readout == "last" and e.net.output_size == 2,
        lambda e: e.lengths is not None and len(set(e.lengths)) == 2,
        lambda e: len(e.x) == 1,
        lambda e: len(e.x) == 5 and e.x.shape[1] == 2,
        lambda e: bool(e.initial) and all(state.any() for state in e.initial.values()),
        lambda e: not e.initial and not e.x.any() and not any(value.any() for value in e.params.values()),
        lambda e: isinstance(e.net.cell, cells.Clockwork),
    ],
    ids=[
        "deep, both directions",
        "last read-out",
        "ragged",
        "one step",
        "all steps",
        "initial states",
        "all zero",
        "a cell of ALL",
    ],
)
def test_examples_reach_every_corner(wanted):
    assert wanted(find(strategies.examples(), wanted, settings=settings(max_examples=1000, phases=[Phase.generate])))


@given(strategies.examples(Tanh(), steps=3, batch=1, layers=(2,), rtol=1e-8))
@FAST
def test_examples_keep_to_what_they_are_asked_for(drawn):
    assert repr(drawn.net.cell) == "Tanh()"
    assert drawn.net.num_layers == 2
    assert 1 <= len(drawn.x) <= 3
    assert drawn.x.shape[1] == 1
    assert drawn.rtol == 1e-8
    assert drawn.cotangent.any()


@given(strategies.examples(cells.Elman("tanh"), kinds=strategies.GENTLE))
@settings(max_examples=25)
def test_a_right_cell_passes_on_gentle_examples(drawn):
    check_example(drawn).raise_for_failure()


# ---- shrinking ---------------------------------------------------------------------------------------------


class MissesAStep(cells.Elman):
    """Step `missing` adds nothing to the parameters' gradients."""

    def __init__(self, missing):
        super().__init__("tanh")
        self.missing = missing

    def param_grads(self, p, x, a, s, da, delta, t):
        there = np.where(np.asarray(t) == self.missing, 0.0, 1.0)[:, None, None]
        return super().param_grads(p, x, a, s, da * there, delta, t)


# Without the phase that explains: it goes on trying larger examples, and `find` would return the last of them.
SHRINK = settings(max_examples=200, database=None, phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_step_shrinks_to_the_fewest_steps_that_have_it(missing):
    small = find(
        strategies.examples(MissesAStep(missing)),
        lambda drawn: check_example(drawn, replay=False).verdict == "FAIL",
        settings=SHRINK,
    )
    assert len(small.x) == missing + 1
    assert (small.x.shape[1], small.net.input_size, small.net.hidden_size, small.net.num_layers) == (1, 1, 1, 1)
    assert not small.x.any()
    assert not any(value.any() for value in small.params.values())
    assert (small.net.bidirectional, small.net.output_size, small.lengths, small.initial) == (False, None, None, {})


def test_a_failing_property_shows_the_smallest_example():
    seen = []

    @given(strategies.examples(MissesAStep(1), layers=(1,)))
    @settings(SHRINK, phases=[Phase.generate, Phase.shrink], max_examples=50)
    def right(drawn):
        seen.append(drawn)
        check_example(drawn).raise_for_failure()

    with pytest.raises(AssertionError, match=r"gradlab FAIL   Elman\('tanh'\)   float64 T=2 B=1 D=1 H=1") as caught:
        right()
    assert seen[-1].x.shape == (2, 1, 1)
    assert "d0.b" in str(caught.value)
