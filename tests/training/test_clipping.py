"""Clipping by the global norm: known norms, the direction kept, each ensemble member on its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab import Elman, Network
from gradlab.errors import GradlabError
from gradlab.training import ByLayer, ByNorm, ByValue, clip_by_norm, global_norm

NET = Network(Elman("tanh"), 1, 1)  # three parameters of one entry each


def three(a, b, c, dtype=float):
    return {"0.W": np.full((1, 1), a, dtype), "0.U": np.full((1, 1), b, dtype), "0.b": np.full(1, c, dtype)}


def flat(gradients):
    return np.concatenate([v.ravel() for v in gradients.values()])


def test_the_gradient_3_4_0_has_norm_5_and_is_scaled_by_a_fifth():
    gradients = three(3.0, 4.0, 0.0)
    clipped, norm = clip_by_norm(NET, gradients, 1.0)
    # The norm passes through its logarithm: a few roundings.
    np.testing.assert_allclose(norm, 5.0, rtol=1e-15)
    np.testing.assert_allclose(flat(clipped), [0.6, 0.8, 0.0], rtol=1e-15)
    assert clipped["0.W"] * 4.0 == pytest.approx(clipped["0.U"] * 3.0, rel=1e-15)
    assert clipped["0.b"] == 0.0


@given(
    v=st.lists(st.floats(-1e3, 1e3).filter(lambda x: x == 0.0 or abs(x) > 1e-3), min_size=3, max_size=3),
    threshold=st.floats(1e-3, 1e3),
)
def test_the_direction_stays_and_the_norm_is_the_smaller_of_both(v, threshold):
    gradients = three(*v)
    clipped, norm = clip_by_norm(NET, gradients, threshold)
    np.testing.assert_allclose(norm, np.linalg.norm(v), rtol=1e-14)  # exp(ln) of numbers of up to 7 nats
    np.testing.assert_allclose(np.linalg.norm(flat(clipped)), min(np.linalg.norm(v), threshold), rtol=1e-13)
    largest = int(np.argmax(np.abs(v)))
    factor = flat(clipped)[largest] / v[largest] if v[largest] else 1.0
    assert 0.0 < factor <= 1.0
    np.testing.assert_allclose(flat(clipped), factor * np.array(v), rtol=1e-15)  # one factor for all parameters


def test_a_gradient_below_the_threshold_is_not_touched_at_all():
    rng = np.random.default_rng(0)
    net = Network(Elman("tanh"), 2, 3, output_size=1)
    gradients = {k: rng.normal(size=s) for k, s in net.shapes.items()}
    clipped, norm = clip_by_norm(net, gradients, 100.0)
    assert norm < 100.0
    for key, value in gradients.items():
        np.testing.assert_array_equal(clipped[key], value)


@pytest.mark.parametrize("scale", [1e-200, 1e-300, 1e200])
def test_norms_neither_underflow_nor_overflow(scale):
    gradients = three(3.0 * scale, 4.0 * scale, 0.0)
    np.testing.assert_allclose(global_norm(NET, gradients), 5.0 * scale, rtol=1e-12)  # exp of up to 700 nats: 700 roundings
    clipped, _ = clip_by_norm(NET, gradients, scale)
    np.testing.assert_allclose(flat(clipped) / scale, [0.6, 0.8, 0.0], rtol=1e-12)


@pytest.mark.parametrize("threshold", [1e-300, 1.0, 1e300])
def test_a_vanished_gradient_is_clipped_by_any_threshold_without_a_warning(threshold):
    for entry in (5e-324, 1e-310, 0.0):
        clipped, norm = clip_by_norm(NET, three(entry, 0.0, -entry), threshold)
        np.testing.assert_allclose(norm, np.hypot(entry, entry), rtol=1e-12, atol=1e-323)  # exp of 713 nats
        np.testing.assert_array_equal(flat(clipped), [entry, 0.0, -entry])


def test_a_zero_gradient_has_norm_zero_and_stays_zero():
    clipped, norm = clip_by_norm(NET, three(0.0, 0.0, 0.0), 1.0)
    assert norm == 0.0
    np.testing.assert_array_equal(flat(clipped), 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_without_a_direction_is_returned_as_it_is_with_its_norm(bad):
    gradients = three(1.0, bad, -2.0)
    clipped, norm = clip_by_norm(NET, gradients, 1.0)
    assert not np.isfinite(norm)
    np.testing.assert_array_equal(flat(clipped), flat(gradients))


def ensemble(members):
    """Each row of `members` is the gradient of one member."""
    a, b, c = np.array(members).T
    return {"0.W": a[:, None, None], "0.U": b[:, None, None], "0.b": c[:, None]}


def test_each_member_of_an_ensemble_is_clipped_on_its_own():
    members = [[3.0, 4.0, 0.0], [0.0, 0.0, 0.5], [0.0, -1e200, 0.0], [0.0, 0.0, 0.0], [1.0, np.nan, 0.0], [0.0, np.inf, 2.0]]
    clipped, norm = clip_by_norm(NET, ensemble(members), 1.0)
    np.testing.assert_allclose(norm[:4], [5.0, 0.5, 1e200, 0.0], rtol=1e-12)  # as above
    assert not np.isfinite(norm[4:]).any()
    rows = np.stack([clipped["0.W"][:, 0, 0], clipped["0.U"][:, 0, 0], clipped["0.b"][:, 0]], axis=-1)
    np.testing.assert_allclose(rows[:4], [[0.6, 0.8, 0.0], [0.0, 0.0, 0.5], [0.0, -1.0, 0.0], [0.0, 0.0, 0.0]], rtol=1e-12)
    np.testing.assert_array_equal(rows[4:], members[4:])


def test_two_ensemble_axes_have_a_norm_for_each_pair():
    rng = np.random.default_rng(1)
    net = Network(Elman("tanh"), 2, 3, output_size=1)
    gradients = {k: rng.normal(size=(2, 4, *s)) for k, s in net.shapes.items()}
    clipped, norm = clip_by_norm(net, gradients, 3.0)
    assert norm.shape == (2, 4)
    assert (norm < 3.0).any() or (norm > 3.0).any()
    for index in np.ndindex(2, 4):
        one, own = clip_by_norm(net, {k: v[index] for k, v in gradients.items()}, 3.0)
        np.testing.assert_allclose(norm[index], own, rtol=1e-15)
        for key, value in one.items():
            np.testing.assert_allclose(clipped[key][index], value, rtol=1e-15)


def test_gradients_with_unequal_ensemble_axes_are_refused():
    # The gradient of a shared parameter belongs to no member: there is no norm of one member.
    gradients = ensemble([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]) | {"0.b": np.ones(1)}
    with pytest.raises(GradlabError, match=r"gradients have shapes .*; expected equal ensemble axes"):
        clip_by_norm(NET, gradients, 1.0)


def test_float32_stays_float32():
    clipped, norm = clip_by_norm(NET, three(3.0, 4.0, 0.0, np.float32), 1.0)
    assert clipped["0.U"].dtype == np.float32
    np.testing.assert_allclose(norm, 5.0, rtol=1e-6)  # rounding of float32
    np.testing.assert_allclose(flat(clipped), [0.6, 0.8, 0.0], rtol=1e-6)


def test_gradients_are_not_modified():
    gradients = three(3.0, 4.0, 0.0)
    clipped, _ = clip_by_norm(NET, gradients, 1.0)
    clipped["0.b"][...] = 7.0
    np.testing.assert_array_equal(flat(gradients), [3.0, 4.0, 0.0])


def test_a_threshold_equal_to_the_norm_changes_nothing_beyond_rounding():
    clipped, _ = clip_by_norm(NET, three(3.0, 4.0, 0.0), 5.0)
    np.testing.assert_allclose(flat(clipped), [3.0, 4.0, 0.0], rtol=1e-15)


@pytest.mark.parametrize("mode", ["warn", "raise"])
def test_members_of_very_unlike_size_raise_no_floating_point_error(mode):
    with np.errstate(all=mode):
        clipped, norm = clip_by_norm(NET, three(1.0, 1e-200, 1e-300), 0.5)
    np.testing.assert_allclose(norm, 1.0, rtol=1e-15)
    np.testing.assert_allclose(flat(clipped), [0.5, 5e-201, 5e-301], rtol=1e-15)


def test_clipping_is_multiplication_by_threshold_over_norm_exactly():
    rng = np.random.default_rng(2)
    net = Network(Elman("tanh"), 2, 3, output_size=1)
    gradients = {k: rng.normal(size=(4, *s)) for k, s in net.shapes.items()}
    clipped, norm = clip_by_norm(net, gradients, 0.7)
    assert (norm > 0.7).all()
    for key, value in gradients.items():
        factor = (0.7 / norm).reshape(4, *(1,) * (value.ndim - 1))
        np.testing.assert_array_equal(clipped[key], value * factor)  # these operations, bit for bit
    exact, _ = clip_by_norm(NET, three(3.0, 4.0, 0.0), 2.5)
    np.testing.assert_array_equal(flat(exact), [1.5, 2.0, 0.0])  # 2.5/5 is a half


@pytest.mark.peer
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_clipping_agrees_with_torch_but_for_the_millionth_that_it_adds_to_the_norm(scale):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")
    rng = np.random.default_rng(3)
    net = Network(Elman("tanh"), 5, 7, output_size=2)
    gradients = {k: scale * rng.normal(size=s) for k, s in net.shapes.items()}
    threshold = 0.1 * scale
    clipped, norm = clip_by_norm(net, gradients, threshold)
    theirs = [torch.zeros(s, dtype=torch.float64, requires_grad=True) for s in net.shapes.values()]
    for tensor, value in zip(theirs, gradients.values(), strict=True):
        tensor.grad = torch.tensor(value)
    total = torch.nn.utils.clip_grad_norm_(theirs, threshold).item()
    assert norm == pytest.approx(total, rel=1e-14)
    for tensor, value in zip(theirs, clipped.values(), strict=True):
        # threshold/(norm + 1e-6) against threshold/norm
        np.testing.assert_allclose(tensor.grad.numpy() * (1.0 + 1e-6 / norm), value, rtol=1e-12)
        np.testing.assert_allclose(tensor.grad.numpy(), value, rtol=1.01e-6 / norm)


def layered():
    rng = np.random.default_rng(4)
    net = Network(Elman("tanh"), 2, 3, num_layers=2, output_size=1, bidirectional=True)
    return net, {k: 10.0 ** rng.uniform(-2, 2) * rng.normal(size=(2, *s)) for k, s in net.shapes.items()}


def test_by_layer_each_layer_and_the_read_out_have_at_most_the_threshold():
    net, gradients = layered()
    clipped, touched = ByLayer(1.0)(net, gradients)
    assert list(clipped) == list(gradients)
    names = [layer.name for layer in net.layers] + ["readout"]
    assert len(names) == 5
    any_cut = np.zeros(2, bool)
    for name in names:
        keys = [k for k in gradients if k.rpartition(".")[0] == name]
        before, after = (
            np.array([np.linalg.norm(flat({k: g[k][e] for k in keys})) for e in range(2)]) for g in (gradients, clipped)
        )
        np.testing.assert_allclose(after, np.minimum(before, 1.0), rtol=1e-14)
        any_cut |= before > 1.0
        for k in keys:
            for e in range(2):
                np.testing.assert_allclose(clipped[k][e], gradients[k][e] * after[e] / before[e], rtol=1e-14)
    np.testing.assert_array_equal(touched, any_cut)


def test_by_value_each_entry_is_clamped_and_the_direction_turns():
    net = Network(Elman("tanh"), 1, 1)
    clipped, touched = ByValue(15.0)(net, three(30.0, 1.0, 1.0))
    np.testing.assert_array_equal(flat(clipped), [15.0, 1.0, 1.0])
    assert touched
    cosine = flat(clipped) @ [30.0, 1.0, 1.0] / np.linalg.norm(flat(clipped)) / np.linalg.norm([30.0, 1.0, 1.0])
    assert cosine == pytest.approx(0.9989, abs=5e-5)  # known to four digits
    untouched, touched = ByValue(15.0)(net, three(-15.0, 15.0, 0.0))
    assert not touched
    np.testing.assert_array_equal(flat(untouched), [-15.0, 15.0, 0.0])


@pytest.mark.parametrize("clip", [ByNorm, ByLayer, ByValue])
def test_each_member_has_its_own_threshold_and_its_own_answer(clip):
    net, gradients = layered()
    together, touched = clip(np.array([1e-3, 1e3]))(net, gradients)
    np.testing.assert_array_equal(touched, [True, False])
    for e, threshold in enumerate((1e-3, 1e3)):
        alone, own = clip(threshold)(net, {k: v[e] for k, v in gradients.items()})
        assert own == touched[e]
        for key, value in alone.items():
            np.testing.assert_array_equal(together[key][e], value)


@pytest.mark.parametrize("clip", [ByNorm(1.0), ByLayer(1.0), ByValue(1.0)], ids=repr)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nothing_that_is_not_finite_becomes_finite_but_by_value_an_infinity(clip, bad):
    clipped, touched = clip(NET, three(2.0, bad, 0.0))
    if isinstance(clip, ByValue) and not np.isnan(bad):
        np.testing.assert_array_equal(flat(clipped), [1.0, np.sign(bad), 0.0])  # the trainer has seen the infinity before
        assert touched
    else:
        assert not np.isfinite(flat(clipped)).all()


def test_by_layer_a_member_is_clipped_if_any_of_its_layers_is():
    net = Network(Elman("tanh"), 1, 1, output_size=1)
    sizes = {"0": [9.0, 0.1, 0.1], "readout": [0.1, 9.0, 0.1]}
    gradients = {
        k: np.array(sizes[k.rpartition(".")[0]]).reshape(3, *(1,) * len(s)) * np.ones((3, *s)) for k, s in net.shapes.items()
    }
    np.testing.assert_array_equal(ByLayer(1.0)(net, gradients)[1], [True, True, False])
