"""A plain object with `init` and `step` is a whole cell: exact gradients, or a refusal that says why."""

import numpy as np
import pytest
import scipy.special

from gradlab import LSTM, Batch, Elman, Network, bptt, forward, mean_squared_error
from gradlab._math import sigmoid
from gradlab.analysis import jacobians
from gradlab.backward import KEEP
from gradlab.checks import CONTRACT, Example, check_example, network_gradient
from gradlab.errors import DTypeError, GradientMismatch, NumericalError

# Two exact ways to one derivative differ by rounding: some 1e-15 of the sum of absolute terms a step.
BOUND = 1e-11


def affine(params, x_t, h, name=""):
    """W x + U h + b with any number of ensemble axes in front, transposed without conjugate."""
    W, U, b = (params[k + name] for k in ("W", "U", "b"))
    return x_t @ np.swapaxes(W, -1, -2) + h @ np.swapaxes(U, -1, -2) + b[..., None, :]


class Plain:
    """The Elman network, written down by a user."""

    def init(self, rng, input_size, hidden_size):
        return {
            "W": rng.normal(size=(hidden_size, input_size)),
            "U": rng.normal(size=(hidden_size, hidden_size)) / hidden_size,
            "b": rng.normal(size=hidden_size),
        }

    def step(self, params, x_t, s_prev, t):
        return np.tanh(affine(params, x_t, s_prev))

    def __repr__(self):
        return f"{type(self).__name__}()"


class TwoParts(Plain):
    """An LSTM with all four gates, by hand: state (c, h), of which h is emitted."""

    def init(self, rng, input_size, hidden_size):
        return {
            k: np.concatenate([super(TwoParts, self).init(rng, input_size, hidden_size)[k] for _ in range(4)])
            for k in ("W", "U", "b")
        }

    def step(self, params, x_t, s_prev, t):
        H = s_prev.shape[-1] // 2
        a = affine(params, x_t, s_prev[..., H:])
        i, f, g, o = (a[..., k * H : (k + 1) * H] for k in range(4))
        c = sigmoid(f) * s_prev[..., :H] + sigmoid(i) * np.tanh(g)
        return np.concatenate([c, sigmoid(o) * np.tanh(c)], axis=-1)

    def state_size(self, hidden_size):
        return 2 * hidden_size

    def parts(self, hidden_size):
        return {"c": hidden_size, "h": hidden_size}

    def output(self, s, s_prev):
        return s[..., s.shape[-1] // 2 :]


class Alternating(Plain):
    """Another map at odd steps; the state halves at even ones: a cell that reads t."""

    def step(self, params, x_t, s_prev, t):
        a = affine(params, x_t, s_prev)
        return np.tanh(a) if t % 2 else 0.5 * s_prev + np.sin(a)


class Delayed(Plain):
    """Emits a product of this state and the one before: an output that needs both."""

    def output(self, s, s_prev):
        return s * s_prev + s


class Elementwise(Plain):
    """A diagonal recurrence with a parameter that is a plain vector, and a scalar-like one of one entry."""

    def init(self, rng, input_size, hidden_size):
        return {
            "W": rng.normal(size=(hidden_size, input_size)),
            "u": rng.uniform(0.2, 0.8, hidden_size),
            "scale": np.array([0.7]),
        }

    def step(self, params, x_t, s_prev, t):
        u, scale = params["u"][..., None, :], params["scale"][..., None, :]
        return np.tanh(scale * (x_t @ np.swapaxes(params["W"], -1, -2)) + u * s_prev)


class WithVjp(Plain):
    """The same Elman network with the adjoint of one step by hand."""

    def __init__(self, **wrong):
        self.factor = {"W": 1.0, "U": 1.0, "b": 1.0, "x": 1.0, "s": 1.0} | wrong

    def vjp(self, params, x_t, s_prev, delta, t):
        W, U = params["W"], params["U"]
        y = np.tanh(affine(params, x_t, s_prev))
        da = delta * (1.0 - y * y)  # nothing saturates here
        back = np.swapaxes(da, -1, -2)
        gradients = {"W": back @ x_t, "U": back @ s_prev, "b": da.sum(axis=-2)}
        gradients = {k: self.factor[k] * v for k, v in gradients.items()}
        return gradients, self.factor["x"] * (da @ W), self.factor["s"] * (da @ U)


CELLS = [Plain(), TwoParts(), Alternating(), Delayed(), Elementwise(), WithVjp()]
STEP_ONLY = [c for c in CELLS if not hasattr(c, "vjp")]


def example_of(cell, layers=1, T=4, seed=0):
    rng = np.random.default_rng(seed)
    net = Network(cell, 2, 3, num_layers=layers)
    params = {k: rng.uniform(-0.8, 0.8, s) for k, s in net.shapes.items()}
    initial = {layer.name: rng.uniform(-0.8, 0.8, (2, layer.state_size)) for layer in net.layers}
    cotangent = rng.uniform(0.5, 1.5, (T, 2, net.layers[-1].output_size)) * rng.choice([-1.0, 1.0], (T, 2, 1))
    return Example(net, params, rng.uniform(-1.0, 1.0, (T, 2, 2)), initial, cotangent, rtol=BOUND)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_every_gradient_of_a_step_equals_the_complex_step_through_the_whole_network(cell, layers):
    example = example_of(cell, layers)
    exact = network_gradient(example.net, example.params, example.x, example.cotangent, example.initial)
    record = example.record
    assert record.status.ok
    for key in example.params:
        example.expect(key, record.gradients[key], *exact[key])
    example.expect("x", record.input_gradient, *exact["x"])
    for name, layer in record.layers.items():
        example.expect(f"s_0 {name}", layer.series("adjoints")[0], *exact[f"s_0 {name}"])


@pytest.mark.parametrize(
    ("user", "builtin"), [(Plain(), Elman("tanh")), (TwoParts(), LSTM()), (WithVjp(), Elman("tanh"))], ids=repr
)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("readout", ["every", "last"])
def test_a_user_cell_equals_the_built_in_closed_forms(user, builtin, layers, readout):
    rng = np.random.default_rng(1)
    ours, theirs = (Network(c, 2, 3, output_size=2, num_layers=layers, readout=readout) for c in (user, builtin))
    assert ours.shapes == theirs.shapes
    params = {k: rng.uniform(-0.8, 0.8, s) for k, s in ours.shapes.items()}
    batch = Batch(rng.normal(size=(5, 2, 2)), rng.normal(size=(5, 2, 2) if readout == "every" else (2, 2)))
    one, other = (bptt(net, params, batch, mean_squared_error, KEEP) for net in (ours, theirs))
    np.testing.assert_allclose(one.loss, other.loss, rtol=BOUND)
    for key in params:
        assert np.abs(one.gradients[key] - other.gradients[key]).max() <= BOUND * np.abs(other.gradients[key]).max(), key
    for name in other.layers:
        assert dict(one.layers[name].parts) == dict(other.layers[name].parts)
        for series in ("states", "immediate", "adjoints", "jacobians"):
            a, b = one.layers[name].series(series), other.layers[name].series(series)
            assert np.abs(a - b).max() <= BOUND * np.abs(b).max(), series


@pytest.mark.parametrize("cell", CELLS, ids=repr)
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_a_user_cell_keeps_the_contract_of_the_built_in_ones(check, cell):
    if check.__name__ in ("check_complex_equals_real", "check_second_derivatives") and not hasattr(cell, "vjp"):
        with pytest.raises(DTypeError):  # it is differentiated by complex steps: see below
            check(example_of(cell))
    else:
        assert check(example_of(cell)) is None


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_streamed_jacobians_of_a_user_cell_equal_the_recorded_ones(cell):
    example = example_of(cell, 2)
    for name in ("0", "1"):
        streamed = np.stack(list(jacobians(example.net, example.params, example.record, name)))
        np.testing.assert_allclose(
            streamed, example.record.layers[name].series("jacobians"), rtol=1e-13, atol=1e-16
        )  # the same code


def test_the_step_number_counts_from_zero_and_goes_on_from_first_step():
    net = Network(Alternating(), 1, 1)
    params = {"0.W": np.zeros((1, 1)), "0.U": np.zeros((1, 1)), "0.b": np.zeros(1)}
    start = {"0": np.ones((1, 1))}
    # Even steps halve the state, odd ones clear it.
    np.testing.assert_array_equal(forward(net, params, np.zeros((2, 1, 1)), start).states["0"].ravel(), [1.0, 0.5, 0.0])
    np.testing.assert_array_equal(
        forward(net, params, np.zeros((2, 1, 1)), start, first_step=1).states["0"].ravel(), [1.0, 0.0, 0.0]
    )


@pytest.mark.parametrize("cell", [Plain(), WithVjp()], ids=repr)
def test_an_ensemble_of_user_cells_equals_a_loop_and_shared_parameters_get_the_sum(cell):
    example = example_of(cell)
    factors = np.array([1.0, -0.5])
    params = example.params | {"0.U": example.params["0.U"] * factors[:, None, None]}
    together = example.run(params, example.x, example.initial)
    alone = [example.run(params | {"0.U": params["0.U"][e]}, example.x, example.initial) for e in range(2)]
    for key in params:
        stacked = np.stack([r.gradients[key] for r in alone])
        expected = stacked if key == "0.U" else stacked.sum(axis=0)
        assert np.abs(together.gradients[key] - expected).max() <= BOUND * np.abs(expected).max(), key


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_float32_parameters_of_a_user_cell_get_float32_gradients(cell):
    example = example_of(cell)
    params = {k: v.astype(np.float32) for k, v in example.params.items()}
    initial = {k: v.astype(np.float32) for k, v in example.initial.items()}
    record = example.run(params, example.x.astype(np.float32), initial)
    assert record.layers["0"].series("adjoints").dtype == np.float32
    for key, wide in example.record.gradients.items():
        assert record.gradients[key].dtype == np.float32
        assert np.abs(record.gradients[key] - wide).max() <= 1e-5 * np.abs(wide).max()  # 100 roundings of 6e-8


# ---- steps that complex numbers do not pass ----------------------------------------------------------------


class Soft(Plain):
    def step(self, params, x_t, s_prev, t):
        a = affine(params, x_t, s_prev)
        return a / (1.0 + np.abs(a))


class Normalised(Plain):
    def step(self, params, x_t, s_prev, t):
        a = affine(params, x_t, s_prev)
        return a / (1.0 + np.linalg.norm(a, axis=-1, keepdims=True))


class Signed(Plain):
    def step(self, params, x_t, s_prev, t):
        a = affine(params, x_t, s_prev)
        return np.tanh(np.sign(a) * a)


class Cast(Plain):
    def step(self, params, x_t, s_prev, t):
        return np.tanh(np.real(affine(params, x_t, s_prev)))


class SciPy(Plain):
    def step(self, params, x_t, s_prev, t):
        return scipy.special.expit(affine(params, x_t, s_prev))


class LogAdd(Plain):
    def step(self, params, x_t, s_prev, t):
        return np.logaddexp(0.0, 0.1 * affine(params, x_t, s_prev))


def differentiate(cell, keep=("states",)):
    example = example_of(cell)
    return bptt(
        example.net, example.params, Batch(example.x, example.cotangent), mean_squared_error, keep, initial_states=example.initial
    )


@pytest.mark.parametrize("cell", [Soft(), Normalised(), Signed(), Cast()], ids=repr)
def test_a_step_that_drops_the_imaginary_part_is_refused_with_the_remedy(cell):
    told = rf"{type(cell).__name__}\(\): step at t = 3: complex step and Richardson disagree .*: "
    remedy = r".*np\.where\(z\.real < 0, -z, z\) for np\.abs.*closed form vjp"
    with pytest.raises(NumericalError, match=told + remedy):
        differentiate(cell)


@pytest.mark.parametrize("cell", [SciPy(), LogAdd()], ids=repr)
def test_a_step_that_refuses_complex_numbers_is_refused_with_the_remedy(cell):
    with pytest.raises(
        NumericalError,
        match=rf"{type(cell).__name__}\(\): step at t = 3 refuses complex numbers \(.*gradlab's sigmoid.*closed form vjp",
    ):
        differentiate(cell)


class StoresReal(Plain):
    def step(self, params, x_t, s_prev, t):
        out = np.empty(s_prev.shape)
        out[...] = np.tanh(affine(params, x_t, s_prev))
        return out


def test_a_step_that_stores_into_a_real_array_is_refused():
    # NumPy warns and drops the imaginary part. In a program that shows warnings only, the result must not be wrong.
    with pytest.raises(NumericalError, match="StoresReal"):
        differentiate(StoresReal())


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_a_step_that_stores_into_a_real_array_is_refused_where_the_warning_is_silenced():
    with pytest.raises(NumericalError, match=r"StoresReal.*vjp"):
        differentiate(StoresReal())


class AbsoluteOutput(Plain):
    def output(self, s, s_prev):
        return np.abs(s)


def test_an_output_that_drops_the_imaginary_part_is_refused():
    # Where the state is positive |s| = s, and the gradient is that of Plain; in silence it would be 0.
    with pytest.raises(NumericalError, match="AbsoluteOutput"):
        differentiate(AbsoluteOutput())


class SoftWithVjp(Soft):
    """Follows the remedy: keeps np.abs in the step and gives the closed form beside it."""

    def vjp(self, params, x_t, s_prev, delta, t):
        a = affine(params, x_t, s_prev)
        da = delta / (1.0 + np.abs(a)) ** 2
        back = np.swapaxes(da, -1, -2)
        return {"W": back @ x_t, "U": back @ s_prev, "b": da.sum(axis=-2)}, da @ params["W"], da @ params["U"]


def test_a_closed_form_vjp_makes_a_step_with_abs_right():
    example = example_of(SoftWithVjp())
    record = bptt(
        example.net, example.params, Batch(example.x, example.cotangent), mean_squared_error, initial_states=example.initial
    )

    def loss(params):
        return mean_squared_error(forward(example.net, params, example.x, example.initial).outputs, example.cotangent)[0]

    h = 1e-6
    for key, value in example.params.items():
        v = np.random.default_rng(2).normal(size=value.shape)
        up, down = (loss(example.params | {key: value + s * v}) for s in (h, -h))
        # Central difference: rounding 1e-16/h = 1e-10, and h^2 = 1e-12, relative.
        np.testing.assert_allclose((record.gradients[key] * v).sum(), (up - down) / (2.0 * h), rtol=1e-7)


def test_jacobians_of_a_step_with_abs_are_right_or_refused_even_if_its_vjp_is_right():
    # The adjoints are exact here, so delta_t = e_t + J^T delta_{t+1} shows any wrong J.
    try:
        layer = differentiate(SoftWithVjp(), KEEP).layers["0"]
    except NumericalError:
        return
    J, e, delta = layer.series("jacobians"), layer.series("immediate"), layer.series("adjoints")
    expected = e[:-1] + np.einsum("tbij,tbi->tbj", J, delta[1:])
    assert np.abs(delta[:-1] - expected).max() <= BOUND * np.abs(delta).max()


def test_a_right_vjp_beside_a_step_with_abs_passes_by_richardson_and_says_so():
    report = check_example(example_of(SoftWithVjp()))
    assert report.verdict == "PASS"
    assert report.oracle.startswith("Richardson")
    assert "complex step disagrees in the pre-flight" in report.oracle
    demanded = check_example(example_of(SoftWithVjp()), oracle="complex")
    assert (demanded.verdict, demanded.reasons) == ("UNRESOLVED", ("oracle-disagrees",))


def test_a_wrong_vjp_beside_a_step_with_abs_is_rejected_by_richardson():
    class Wrong(SoftWithVjp):
        def vjp(self, *args):
            gradients, dx, ds = super().vjp(*args)
            return gradients, dx, ds * (1.0 + 1e-6)

    report = check_example(example_of(Wrong()))
    assert report.verdict == "FAIL"
    assert report.one_step == ("wrong where it is made: ds_prev 0, every step",)


# ---- closed forms of the user ------------------------------------------------------------------------------


class Counting(WithVjp):
    def __init__(self):
        super().__init__()
        self.steps = []

    def vjp(self, params, x_t, s_prev, delta, t):
        self.steps.append(t)
        return super().vjp(params, x_t, s_prev, delta, t)


def test_a_vjp_is_used_once_for_each_step_backwards():
    cell = Counting()
    differentiate(cell)
    assert cell.steps == [3, 2, 1, 0]


@pytest.mark.parametrize("wrong", ["W", "U", "b", "x", "s"])
@pytest.mark.parametrize("factor", [0.0, -1.0, 1.0 + 1e-8], ids=str)
def test_a_wrong_vjp_is_rejected_and_named_where_it_is_made(wrong, factor):
    report = check_example(example_of(WithVjp(**{wrong: factor})))
    assert report.verdict == "FAIL"
    place = {"x": "dx 0", "s": "ds_prev 0"}.get(wrong, f"d0.{wrong}")
    assert report.one_step == (f"wrong where it is made: {place}, every step",)
    with pytest.raises(GradientMismatch, match=r"WithVjp\(\)"):
        report.raise_for_failure()


def test_the_hessian_needs_a_vjp_and_then_is_exact():
    example = example_of(WithVjp())
    rng = np.random.default_rng(3)
    v = {k: rng.normal(size=p.shape) for k, p in example.params.items()}
    lifted = {k: p + 1e-30j * v[k] for k, p in example.params.items()}
    batch = Batch(example.x, example.cotangent)
    product = bptt(example.net, lifted, batch, mean_squared_error, initial_states=example.initial)
    builtin = bptt(Network(Elman("tanh"), 2, 3), lifted, batch, mean_squared_error, initial_states=example.initial)
    for key in v:
        a, b = product.gradients[key].imag, builtin.gradients[key].imag
        assert np.abs(a - b).max() <= BOUND * np.abs(b).max()


@pytest.mark.parametrize("cell", STEP_ONLY, ids=repr)
def test_a_complex_pass_of_a_cell_without_vjp_is_refused_with_the_way_out(cell):
    example = example_of(cell)
    params = {k: v.astype(complex) for k, v in example.params.items()}
    why = rf"{type(cell).__name__}\(\) differentiates its step by complex steps, so its backward pass cannot run in complex128"
    with pytest.raises(DTypeError, match=why + r".*closed form vjp\("):
        bptt(example.net, params, Batch(example.x, example.cotangent), mean_squared_error)
    assert forward(example.net, params, example.x).outputs.dtype == np.complex128  # forward alone is fine


def test_a_user_cell_does_not_see_its_parameters_change():
    cell = Plain()
    example = example_of(cell)
    before = {k: v.copy() for k, v in example.params.items()}
    differentiate(cell, KEEP)
    for key, value in example.params.items():
        np.testing.assert_array_equal(value, before[key])


def test_two_passes_of_one_user_cell_do_not_add_up():
    example = example_of(TwoParts())
    first, second = (example.run(example.params, example.x, example.initial) for _ in range(2))
    for key in example.params:
        np.testing.assert_array_equal(first.gradients[key], second.gradients[key])


class WrongSize(Plain):
    def parts(self, hidden_size):
        return {"c": hidden_size, "h": hidden_size}


def test_parts_that_do_not_add_up_to_the_state_are_refused():
    with pytest.raises(ValueError, match="parts"):
        Network(WrongSize(), 2, 3).layers[0].parts  # noqa: B018
