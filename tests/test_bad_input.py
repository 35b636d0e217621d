"""Bad input is refused at once by one clear error that names the argument, its value and what was expected."""

import numpy as np
import pytest

from gradlab import LSTM, Batch, Elman, Network, bptt, forward, inits, mean_squared_error, softmax_cross_entropy
from gradlab.analysis import jacobian_product, jacobian_spectra, memory_horizon
from gradlab.backward import KEEP
from gradlab.cells import as_cell
from gradlab.errors import DTypeError, GradlabError, ShapeError, ValueRangeError
from gradlab.tasks import adding, characters
from gradlab.training import ByNorm, clip_by_norm, train

T, B, D, H, P = 5, 3, 2, 4, 2


def network(cell=None, **options):
    return Network(cell or Elman("tanh"), D, H, **({"output_size": P} | options))


def good(net=None):
    net = net or network()
    rng = np.random.default_rng(0)
    return net, net.init(rng), rng.normal(size=(T, B, D)), rng.normal(size=(T, B, P))


def trained(net, params, batch, **options):
    return train(net, params, lambda rng: batch, mean_squared_error, 1, np.random.default_rng(0), **options)


def refused(call, error, message):
    """`call` raises exactly `error`, which is a GradlabError, with `message` in it."""
    with pytest.raises(GradlabError, match=message) as caught:
        call()
    assert type(caught.value) is error


def test_errors_are_also_the_builtin_errors_that_users_expect():
    assert issubclass(ShapeError, ValueError)
    assert issubclass(ValueRangeError, ValueError)
    assert issubclass(DTypeError, TypeError)


def test_the_good_case_is_good():
    net, params, x, targets = good()
    assert bptt(net, params, Batch(x, targets), mean_squared_error).status.ok


# ---- kinds of arrays: the same list for inputs, parameters and initial states ------------------------------


def without_index(shape):
    class Frame:
        """Looks like a table: has values, is no array."""

        values = np.zeros(shape)

        def __array__(self, dtype=None, copy=None):
            return self.values

    return Frame()


WRONG_KIND = {
    "list": (
        lambda v: v.tolist(),
        r"is a builtins\.list; expected a plain numpy\.ndarray; try numpy\.asarray\(.*, dtype=float\)",
    ),
    "tuple": (lambda v: tuple(v.tolist()), r"is a builtins\.tuple; expected a plain numpy\.ndarray"),
    "None": (lambda v: None, r"is a builtins\.NoneType; expected a plain numpy\.ndarray"),
    "number": (lambda v: 3.0, r"is a builtins\.float; expected a plain numpy\.ndarray"),
    "matrix": (lambda v: v.reshape(v.shape[0], -1).view(np.matrix), r"is a numpy\..*matrix; expected a plain"),
    "masked array": (
        lambda v: np.ma.array(v, mask=np.arange(v.size).reshape(v.shape) % 2),
        r"is a numpy\.ma(\.core)?\.MaskedArray; expected a plain",
    ),
    "table": (lambda v: without_index(v.shape), r"is a .*Frame; expected a plain numpy\.ndarray"),
    "object": (lambda v: v.astype(object), "has dtype object; expected float32, float64 or integers"),
    "bool": (lambda v: v > 0, "has dtype bool; expected float32"),
    "str": (lambda v: v.astype(str), "has dtype <U.*; expected float32"),
    "bytes": (lambda v: v.astype("S8"), r"has dtype \|S8; expected float32"),
    "datetime": (lambda v: np.zeros(v.shape, "datetime64[s]"), r"has dtype datetime64\[s\]; expected float32"),
    "timedelta": (lambda v: np.zeros(v.shape, "timedelta64[s]"), r"has dtype timedelta64\[s\]; expected float32"),
    "structured": (lambda v: np.zeros(v.shape, [("a", float)]), r"has dtype \[\('a', '<f8'\)\]; expected float32"),
    "longdouble": (lambda v: v.astype(np.longdouble), "has dtype (float128|longdouble|float96); expected float32"),
    "clongdouble": (lambda v: v.astype(np.clongdouble), "has dtype (complex256|clongdouble|complex192); expected float32"),
    "complex64": (lambda v: v.astype(np.complex64), "has dtype complex64; expected float32"),
    "byte-swapped": (lambda v: v.astype(">f8"), "has dtype >f8; expected float32"),
}


@pytest.mark.parametrize("keep", [("states",), KEEP], ids=["states", "everything"])
@pytest.mark.parametrize("kind", WRONG_KIND)
def test_inputs_of_a_wrong_kind_are_refused(kind, keep):
    net, params, x, targets = good()
    alter, message = WRONG_KIND[kind]
    refused(lambda: forward(net, params, alter(x)), DTypeError, f"^x {message}")
    refused(
        lambda: bptt(net, params, Batch(alter(x), targets), mean_squared_error, keep), DTypeError, rf"^batch\.inputs {message}"
    )


@pytest.mark.parametrize("keep", [("states",), KEEP], ids=["states", "everything"])
@pytest.mark.parametrize("key", ["0.U", "0.b", "readout.V"])
@pytest.mark.parametrize("kind", WRONG_KIND)
def test_parameters_of_a_wrong_kind_are_refused(kind, key, keep):
    net, params, x, targets = good()
    alter, message = WRONG_KIND[kind]
    params[key] = alter(params[key])
    refused(lambda: forward(net, params, x), DTypeError, rf'^params\["{key}"\] {message}')
    refused(lambda: bptt(net, params, Batch(x, targets), mean_squared_error, keep), DTypeError, rf'^params\["{key}"\] {message}')


@pytest.mark.parametrize("kind", ["list", "number", "masked array", "str", "structured", "longdouble"])
def test_training_refuses_parameters_of_a_wrong_kind_too(kind):
    net, params, x, targets = good()
    alter, message = WRONG_KIND[kind]
    params["0.U"] = alter(params["0.U"])
    refused(lambda: trained(net, params, Batch(x, targets)), DTypeError, rf'^params\["0\.U"\] {message}')


@pytest.mark.parametrize("kind", [k for k in WRONG_KIND if k != "None"])
def test_initial_states_of_a_wrong_kind_are_refused(kind):
    net, params, x, _ = good()
    alter, message = WRONG_KIND[kind]
    refused(lambda: forward(net, params, x, {"0": alter(np.ones((B, H)))}), DTypeError, rf'^initial_states\["0"\] {message}')


@pytest.mark.parametrize("loss", [mean_squared_error, softmax_cross_entropy], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "kind", ["list", "None", "number", "matrix", "masked array", "table", "object", "str", "datetime", "structured", "complex64"]
)
def test_targets_of_a_wrong_kind_are_refused(kind, loss):
    net, params, x, targets = good()
    if loss is softmax_cross_entropy:
        targets = np.ones((T, B), int)
    alter, _ = WRONG_KIND[kind]
    with pytest.raises(GradlabError, match="targets"):
        bptt(net, params, Batch(x, alter(targets)), loss)


@pytest.mark.parametrize(
    "kind", ["list", "tuple", "number", "matrix", "masked array", "table", "object", "str", "bytes", "datetime", "structured"]
)
def test_masks_of_a_wrong_kind_are_refused(kind):
    net, params, x, targets = good()
    alter, _ = WRONG_KIND[kind]
    with pytest.raises(GradlabError, match="mask"):
        bptt(net, params, Batch(x, targets, alter(np.ones((T, B)))), mean_squared_error)


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_integers_are_computed_as_float64(kind):
    net, params, _, targets = good()
    whole = np.random.default_rng(1).integers(0, 3, (T, B, D))
    record = bptt(net, params, Batch(whole.astype(kind), targets), mean_squared_error)
    reference = bptt(net, params, Batch(whole.astype(float), targets), mean_squared_error)
    assert record.outputs.dtype == np.float64
    np.testing.assert_array_equal(record.gradients["0.U"], reference.gradients["0.U"])


def test_integer_parameters_are_computed_as_float64():
    net, params, x, targets = good()
    whole = {k: np.ones(v.shape, int) for k, v in params.items()}
    record = bptt(net, whole, Batch(x, targets), mean_squared_error)
    reference = bptt(net, {k: v.astype(float) for k, v in whole.items()}, Batch(x, targets), mean_squared_error)
    np.testing.assert_array_equal(record.gradients["0.U"], reference.gradients["0.U"])


def test_float16_is_computed_as_float32():
    net, params, x, targets = good()
    half = {k: v.astype(np.float16) for k, v in params.items()}
    record = bptt(net, half, Batch(x.astype(np.float16), targets.astype(np.float32)), mean_squared_error)
    single = {k: v.astype(np.float32) for k, v in half.items()}
    x32 = x.astype(np.float16).astype(np.float32)
    reference = bptt(net, single, Batch(x32, targets.astype(np.float32)), mean_squared_error)
    assert record.gradients["0.U"].dtype == np.float32
    np.testing.assert_array_equal(record.gradients["0.U"], reference.gradients["0.U"])


# ---- inputs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((), r"has shape \(\); expected \(T, B, 2\)"),
        ((T,), r"has shape \(5,\); expected \(T, B, 2\) with T >= 1 and B >= 1, time first"),
        ((T, D), r"has shape \(5, 2\); expected \(T, B, 2\) .*one sequence is (x|batch\.inputs)\[:, None, :\]"),
        ((0, B, D), r"has shape \(0, 3, 2\), so T = 0 steps; expected \(T, B, 2\)"),
        ((T, 0, D), r"has shape \(5, 0, 2\), so B = 0 sequences; expected \(T, B, 2\)"),
        ((T, B, 0), r"has shape \(5, 3, 0\), so 0 features; expected \(T, B, 2\)"),
        ((T, B, D + 1), r"has shape \(5, 3, 3\), so 3 features; expected \(T, B, 2\)"),
        ((0, 0, 0), r"has shape \(0, 0, 0\)"),
        ((T, 0, B, D), r"has shape \(5, 0, 3, 2\)"),
    ],
)
@pytest.mark.parametrize("keep", [("states",), KEEP], ids=["states", "everything"])
def test_inputs_of_a_wrong_shape_are_refused(shape, message, keep):
    net, params, _, targets = good()
    refused(lambda: forward(net, params, np.zeros(shape)), ShapeError, f"^x {message}")
    # bptt's argument is batch.inputs; `forward` calls it x.
    call = lambda: bptt(net, params, Batch(np.zeros(shape), targets), mean_squared_error, keep)  # noqa: E731
    refused(call, ShapeError, rf"^(x|batch\.inputs) {message}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("call", ["forward", "bptt"])
def test_the_first_non_finite_input_is_named_with_its_index_and_their_number(call, value):
    net, params, x, targets = good()
    x[3, 0, 1] = x[4, 2, 0] = value
    message = rf"has 2 non-finite values, the first at index \(3, 0, 1\) \({value}\); expected finite numbers"
    run = (
        (lambda: forward(net, params, x))
        if call == "forward"
        else lambda: bptt(net, params, Batch(x, targets), mean_squared_error)
    )
    refused(run, ValueRangeError, message)


def test_a_batch_must_be_a_batch():
    net, params, x, targets = good()
    refused(lambda: bptt(net, params, (x, targets), mean_squared_error), DTypeError, r"batch is a tuple; expected gradlab\.Batch")
    refused(lambda: bptt(net, params, x, mean_squared_error), DTypeError, "batch is a ndarray; expected")


# ---- parameters -------------------------------------------------------------------------------------------


def test_missing_and_unknown_parameters_are_both_named():
    net, params, x, targets = good()
    del params["0.U"]
    params["0.V"] = np.zeros((H, H))
    message = (
        r"params lacks \['0\.U'\] and has unknown \['0\.V'\]; expected \['0\.W', '0\.U', '0\.b', 'readout\.V', 'readout\.b_y'\]"
    )
    refused(lambda: forward(net, params, x), ValueRangeError, message)
    for keep in (("states",), KEEP):
        refused(lambda keep=keep: bptt(net, params, Batch(x, targets), mean_squared_error, keep), ValueRangeError, message)


def test_training_names_missing_and_unknown_parameters_too():
    net, params, x, targets = good()
    batch = Batch(x, targets)
    extra = params | {"0.V": np.zeros((H, H))}
    refused(lambda: trained(net, extra, batch), ValueRangeError, r"unknown \['0\.V'\]")
    del params["0.U"]
    refused(lambda: trained(net, params, batch), ValueRangeError, r"params lacks \['0\.U'\]")


WRONG_SHAPES = [
    (Elman("tanh"), "0.W", (H,)),
    (Elman("tanh"), "0.W", (D, H)),
    (Elman("tanh"), "0.U", (H, H + 1)),
    (Elman("tanh"), "0.U", (H + 1, H)),
    (Elman("tanh"), "0.U", ()),
    (Elman("tanh"), "0.U", (0, 0)),
    (Elman("tanh"), "0.b", (1,)),
    (Elman("tanh"), "0.b", (H, 1)),
    (Elman("tanh"), "0.b", ()),
    (Elman("tanh"), "readout.V", (H, P)),
    (Elman("tanh"), "readout.b_y", (1,)),
    (Elman("tanh"), "readout.b_y", (P, 1)),
    (LSTM(), "0.W", (H, D)),
    (LSTM(), "0.U", (3 * H, H)),
    (LSTM(), "0.b", (1,)),
    (LSTM(), "0.b", (H,)),
    (LSTM(), "0.b", (4 * H, 1)),
    (LSTM(), "0.b", (4, H)),
]


@pytest.mark.parametrize("keep", [("states",), KEEP], ids=["states", "everything"])
@pytest.mark.parametrize(("cell", "key", "shape"), WRONG_SHAPES, ids=str)
def test_parameters_of_a_wrong_shape_are_refused_and_never_broadcast(cell, key, shape, keep):
    net, params, x, targets = good(network(cell))
    own = tuple(net.shapes[key])
    params[key] = np.zeros(shape)
    found, wanted = (str(s).replace("(", r"\(").replace(")", r"\)") for s in (shape, own))
    message = rf'^params\["{key}"\] has shape {found}; expected its own axes = {wanted}, with ensemble axes only in front'
    refused(lambda: forward(net, params, x), ShapeError, message)
    refused(lambda: bptt(net, params, Batch(x, targets), mean_squared_error, keep), ShapeError, message)


@pytest.mark.parametrize("keep", [("states",), KEEP], ids=["states", "everything"])
def test_ensemble_axes_that_do_not_broadcast_are_refused(keep):
    net, params, x, targets = good()
    params["0.U"], params["0.W"] = np.zeros((2, H, H)), np.zeros((5, H, D))
    message = r"ensemble axes do not broadcast: .*\(2,\).*\(5,\).*; expected equal sizes, or 1"
    refused(lambda: forward(net, params, x), ShapeError, message)
    refused(lambda: bptt(net, params, Batch(x, targets), mean_squared_error, keep), ShapeError, message)


def test_an_ensemble_of_no_members_is_refused():
    net, params, x, targets = good()
    params["0.U"] = np.zeros((0, H, H))
    with pytest.raises(GradlabError, match="0"):
        bptt(net, params, Batch(x, targets), mean_squared_error)


@pytest.mark.parametrize("params", [None, [], 5, np.zeros(3)], ids=["None", "list", "number", "array"])
def test_parameters_that_are_no_mapping_are_refused(params):
    net, _, x, _ = good()
    with pytest.raises(GradlabError, match="params"):
        forward(net, params, x)


# ---- initial states ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(H,), (1, H), (B + 1, H), (B, H + 1), (B,), (H, B), (B, H, 1), ()])
def test_initial_states_of_a_wrong_shape_are_refused(shape):
    net, params, x, _ = good()
    refused(
        lambda: forward(net, params, x, {"0": np.zeros(shape)}),
        ShapeError,
        r'^initial_states\["0"\] has shape .*; expected \(B, S\) = \(3, 4\)',
    )


def test_an_lstm_wants_its_whole_state():
    net, params, x, _ = good(network(LSTM()))
    refused(lambda: forward(net, params, x, {"0": np.zeros((B, H))}), ShapeError, r"expected \(B, S\) = \(3, 8\)")


@pytest.mark.parametrize("key", ["1", 0, "h", "0.h"])
def test_initial_states_of_an_unknown_layer_are_refused(key):
    net, params, x, _ = good()
    refused(
        lambda: forward(net, params, x, {key: np.zeros((B, H))}),
        ValueRangeError,
        f"initial_states has the key {key!r}; expected 0",
    )


def test_a_non_finite_initial_state_is_refused_with_its_index():
    net, params, x, _ = good()
    s = np.zeros((B, H))
    s[2, 1] = np.nan
    message = r'initial_states\["0"\] has 1 non-finite values, the first at index \(2, 1\) \(nan\)'
    refused(lambda: forward(net, params, x, {"0": s}), ValueRangeError, message)


@pytest.mark.parametrize("states", [np.zeros((B, H)), [np.zeros((B, H))]], ids=["array", "list"])
def test_initial_states_that_are_no_mapping_are_refused(states):
    net, params, x, _ = good()
    with pytest.raises(GradlabError, match="initial_states"):
        forward(net, params, x, states)


# ---- targets and masks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "readout"),
    [
        ((T, B), "every"),
        ((T, B, P + 1), "every"),
        ((T, B + 1, P), "every"),
        ((T + 1, B, P), "every"),
        ((1, B, P), "every"),
        ((B, T, P), "every"),
        ((B, P), "every"),  # not one target for every step: that would make T members of an ensemble
        ((P,), "every"),
        ((), "every"),
        ((0, B, P), "every"),
        ((T, B, P), "last"),
        ((B,), "last"),
        ((P,), "last"),
        ((B, 1), "last"),
    ],
)
def test_targets_of_a_wrong_shape_are_refused_and_never_broadcast(shape, readout):
    net, params, x, _ = good(network(readout=readout))
    with pytest.raises(
        ShapeError, match=r"^targets have shape .*, outputs .*; expected (equal axes|2 features, as the network emits)"
    ):
        bptt(net, params, Batch(x, np.zeros(shape)), mean_squared_error)


@pytest.mark.parametrize(
    ("shape", "readout"),
    [((T,), "every"), ((B,), "every"), ((), "every"), ((T, B, 1), "every"), ((B, T), "every"), ((T, B), "last"), ((), "last")],
)
def test_labels_of_a_wrong_shape_are_refused_and_never_broadcast(shape, readout):
    net, params, x, _ = good(network(readout=readout))
    with pytest.raises(
        ShapeError, match=r"^targets have shape .*, outputs .*; expected (equal axes|2 features, as the network emits)"
    ):
        bptt(net, params, Batch(x, np.zeros(shape, int)), softmax_cross_entropy)


def test_targets_with_a_time_axis_for_a_last_step_read_out_get_the_reason():
    net, params, x, targets = good(network(readout="last"))
    message = r'targets have shape \(5, 3, 2\), outputs \(3, 2\); .*readout="last" takes targets without a time axis'
    refused(lambda: bptt(net, params, Batch(x, targets), mean_squared_error), ShapeError, message)


def test_non_finite_targets_are_refused():
    net, params, x, targets = good()
    targets[0, 0, 0] = targets[1, 1, 1] = np.nan
    refused(
        lambda: bptt(net, params, Batch(x, targets), mean_squared_error),
        ValueRangeError,
        "targets hold 2 non-finite values; expected",
    )


@pytest.mark.parametrize(("label", "dtype"), [(P, int), (-1, int), (255, np.uint8), (2**62, np.int64)])
def test_labels_out_of_range_are_refused_with_the_label(label, dtype):
    net, params, x, _ = good()
    labels = np.zeros((T, B), dtype)
    labels[2, 1] = label
    message = f"targets hold the label {label}; expected 0 to 1, the network has 2 outputs"
    refused(lambda: bptt(net, params, Batch(x, labels), softmax_cross_entropy), ValueRangeError, message)


@pytest.mark.parametrize("dtype", [float, np.float32, bool, complex])
def test_labels_that_are_no_integers_are_refused(dtype):
    net, params, x, _ = good()
    refused(
        lambda: bptt(net, params, Batch(x, np.zeros((T, B), dtype)), softmax_cross_entropy),
        DTypeError,
        f"targets have dtype {np.dtype(dtype)}; expected integer labels",
    )


@pytest.mark.parametrize("loss", [mean_squared_error, softmax_cross_entropy], ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", [(T, B, P), (T,), (B,), (T, B + 1), (1, B), (T, 1), ()])
def test_masks_of_a_wrong_shape_are_refused(shape, loss):
    net, params, x, targets = good()
    targets = targets if loss is mean_squared_error else np.zeros((T, B), int)
    refused(
        lambda: bptt(net, params, Batch(x, targets, np.ones(shape)), loss),
        ShapeError,
        r"mask has shape .*; expected \(5, 3\), one entry for each target",
    )


@pytest.mark.parametrize("loss", [mean_squared_error, softmax_cross_entropy], ids=lambda f: f.__name__)
@pytest.mark.parametrize("entries", [0.0, -1.0, np.nan, np.inf], ids=str)
def test_masks_that_weigh_nothing_or_are_no_weights_are_refused(entries, loss):
    net, params, x, targets = good()
    targets = targets if loss is mean_squared_error else np.zeros((T, B), int)
    mask = np.full((T, B), entries)
    refused(
        lambda: bptt(net, params, Batch(x, targets, mask), loss),
        ValueRangeError,
        "mask sums to .*; expected entries >= 0, not all",
    )


def test_one_negative_entry_in_a_mask_is_refused():
    net, params, x, targets = good()
    mask = np.ones((T, B))
    mask[0, 0] = -0.5
    refused(lambda: bptt(net, params, Batch(x, targets, mask), mean_squared_error), ValueRangeError, "mask")


def test_a_loss_that_returns_the_wrong_cotangent_is_refused():
    net, params, x, targets = good()

    def wrong(outputs, targets, mask):
        return outputs.sum(), np.ones(outputs.shape[:-1])

    message = r"loss returned d_outputs of shape \(5, 3\); expected that of its outputs, \(5, 3, 2\)"
    refused(lambda: bptt(net, params, Batch(x, targets), wrong), ShapeError, message)


def test_sequences_of_members_need_targets_of_members():
    net, params, _, targets = good()
    x = np.zeros((T, 2, B, D))
    for wrong in (targets, np.zeros((2, T, B, P)), None):
        with pytest.raises(GradlabError, match="targets"):
            bptt(net, params, Batch(x, wrong), mean_squared_error)


# ---- networks and cells -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers", "output_size"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueRangeError),
        (-1, ValueRangeError),
        (True, DTypeError),
        (np.True_, DTypeError),
        (1.5, DTypeError),
        (2.0, DTypeError),
        ("3", DTypeError),
        (np.nan, DTypeError),
        ([3], DTypeError),
    ],
    ids=repr,
)
def test_sizes_are_positive_integers(name, value, error):
    sizes = {"input_size": 2, "hidden_size": 3} | {name: value}
    refused(lambda: Network(Elman(), **sizes), error, rf"{name} is .*; expected an integer >= 1")


def test_sizes_may_be_numpy_integers():
    net = Network(Elman(), np.int64(2), np.int32(3), output_size=np.uint8(1))
    assert net.shapes == {"0.W": (3, 2), "0.U": (3, 3), "0.b": (3,), "readout.V": (1, 3), "readout.b_y": (1,)}


@pytest.mark.parametrize("readout", ["first", "LAST", None, 1, ""])
def test_an_unknown_read_out_is_refused(readout):
    refused(lambda: network(readout=readout), ValueRangeError, f'readout is {readout!r}; expected "every" or "last"')


@pytest.mark.parametrize("activation", ["softmax", "Tanh", "", None, 3, np.tanh, ["tanh"]], ids=repr)
def test_an_unknown_activation_is_refused(activation):
    with pytest.raises(GradlabError, match=r"activation is .*; expected one of tanh, sigmoid, relu, "):
        Elman(activation)


@pytest.mark.parametrize("cell", [Elman, LSTM])
def test_a_class_in_place_of_a_cell_is_refused_with_the_cure(cell):
    refused(
        lambda: network(cell), DTypeError, rf"cell is the class {cell.__name__}; expected an instance; try {cell.__name__}\(\)"
    )


class WithoutStep:
    def init(self, rng, input_size, hidden_size):
        return {}


class WithoutInit:
    def step(self, params, x_t, s_prev, t):
        return s_prev


class Partial(WithoutStep, WithoutInit):
    def project(self, p, x, a):
        pass

    def step_into(self, p, a_t, s_prev, s_out, t):
        pass


@pytest.mark.parametrize(
    ("cell", "missing"),
    [(WithoutStep(), "step"), (WithoutInit(), "init"), ("LSTM", "init"), (42, "init"), (lambda: 0, "init")],
    ids=["no step", "no init", "text", "number", "function"],
)
def test_a_cell_without_init_or_step_is_refused(cell, missing):
    refused(
        lambda: network(cell),
        DTypeError,
        rf"cell is .* without a method {missing}; expected init\(rng, input_size, hidden_size\)",
    )


def test_a_cell_with_a_part_of_the_fast_path_is_refused_with_what_is_missing():
    message = "has project, step_into but not tape_shape, pre_size, step_vjp, input_grad, param_grads; these belong together"
    refused(lambda: as_cell(Partial()), DTypeError, message)


@pytest.mark.parametrize("rng", [None, 0, -1, 1.5, 2**64, "abc", np.random, np.random.RandomState(0)])
def test_randomness_is_a_generator_not_a_seed(rng):
    for call in (
        lambda: network().init(rng),
        lambda: adding.sample(rng, 2, 5),
        lambda: characters.sample(rng, 2, 5),
    ):
        refused(call, DTypeError, r"rng is .*; expected a numpy\.random\.Generator; try numpy\.random\.default_rng\(0\)")


@pytest.mark.parametrize("make", [inits.gaussian, inits.glorot, inits.orthogonal, inits.identity], ids=lambda f: f.__name__)
def test_a_gain_is_a_finite_number(make):
    for gain in (np.nan, np.inf, "2", None):
        with pytest.raises(GradlabError, match=r"(gain|factor) is"):
            make(gain)(np.random.default_rng(0), (2, 2))


# ---- tasks, training, analyses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueRangeError), (-1, ValueRangeError), (True, DTypeError), (2.5, DTypeError), ("4", DTypeError)],
    ids=repr,
)
def test_batch_and_length_of_a_task_are_positive_integers(value, error):
    rng = np.random.default_rng(0)
    for sample in (adding.sample, characters.sample):
        refused(lambda sample=sample: sample(rng, value, 5), error, "batch is")
        refused(lambda sample=sample: sample(rng, 2, value), error, "length is")


def test_the_adding_task_needs_two_steps_for_two_markers():
    refused(lambda: adding.sample(np.random.default_rng(0), 2, 1), ValueRangeError, "length is 1; expected an integer >= 2")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueRangeError),
        (0.0, ValueRangeError),
        (-1, ValueRangeError),
        (-1e-300, ValueRangeError),
        (np.nan, ValueRangeError),
        (np.inf, ValueRangeError),
        (-np.inf, ValueRangeError),
        (True, DTypeError),
        (np.True_, DTypeError),
        ("10", DTypeError),
        (None, DTypeError),
        ([0.1], DTypeError),
        (0.1j, DTypeError),
    ],
    ids=repr,
)
def test_learning_rate_and_thresholds_are_positive_finite_numbers(value, error):
    net, params, x, targets = good()
    rate = "learning_rate is .*; expected a (finite )?number > 0"
    refused(lambda: trained(net, params, Batch(x, targets), learning_rate=value), error, rate)
    refused(lambda: ByNorm(value), error, "threshold is .*; expected a (finite )?number > 0")
    refused(lambda: clip_by_norm(net, params, value), error, "threshold is .*; expected a (finite )?number > 0")


@pytest.mark.parametrize("value", [10, 10.0, np.int64(10), np.float32(10.0), np.float64(10.0)], ids=repr)
def test_every_kind_of_number_is_a_learning_rate_and_a_threshold(value):
    net, params, x, targets = good()
    batch = Batch(x, targets)
    one, other = (trained(net, params, batch, learning_rate=v, clip=ByNorm(v)) for v in (value, 10.0))
    for key in params:
        np.testing.assert_array_equal(one.params[key], other.params[key])


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 2.0, np.nan])
def test_the_level_of_a_memory_horizon_is_a_share(level):
    refused(lambda: memory_horizon(np.zeros((5, 2)), level), ValueRangeError, "level is .*; expected a share between 0 and 1")


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 3)])
def test_a_memory_horizon_needs_two_rows(shape):
    refused(lambda: memory_horizon(np.zeros(shape)), ShapeError, r"log_total has shape .*; expected \(T\+1, \.\.\.\) with T >= 1")


def test_a_memory_horizon_of_no_sequence_is_refused():
    refused(lambda: memory_horizon(np.zeros((5, 0))), ShapeError, r"log_total has shape \(5, 0\)")


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 3, 3), (4, 2, 3)])
def test_spectra_want_square_matrices(shape):
    refused(
        lambda: jacobian_spectra(np.zeros(shape)), ShapeError, r"jacobians has shape .*; expected \(\.\.\., S, S\), at least one"
    )


def test_products_want_square_matrices_of_one_shape_and_name_the_odd_one():
    refused(lambda: jacobian_product([]), ShapeError, "jacobians is empty; expected at least one matrix")
    refused(lambda: jacobian_product([np.eye(2), np.eye(3)]), ShapeError, r"jacobians\[1\] has shape \(3, 3\); expected \(2, 2\)")
    refused(
        lambda: jacobian_product([np.zeros((2, 3))]), ShapeError, r"jacobians\[0\] has shape \(2, 3\); expected \(\.\.\., S, S\)"
    )
    refused(lambda: jacobian_product([np.eye(2), np.zeros(4)]), ShapeError, r"jacobians\[1\]")


@pytest.mark.parametrize(
    "call",
    [
        lambda: jacobian_spectra([[1.0, 0.0], [0.0, 1.0]]),
        lambda: jacobian_product([[[1.0]]]),
        lambda: memory_horizon([0.0, -1.0]),
    ],
)
def test_analyses_refuse_lists(call):
    with pytest.raises(GradlabError, match="expected"):
        call()
