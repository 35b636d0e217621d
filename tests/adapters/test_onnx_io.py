"""ONNX nodes as gradlab networks: against the published node tests, onnxruntime, and the specification in plain loops."""

import importlib
import warnings
from itertools import product

import numpy as np
import onnx_oracle
import pytest
from onnx_models import GATES, OUTPUTS, Case, model_of

import gradlab
from gradlab.adapters import from_onnx, node_inputs, node_outputs
from gradlab.adapters._general_cell import FORMULAS, USUAL, Function, GeneralCell
from gradlab.errors import FormatError, GradlabError, ShapeError, ValueRangeError

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'gradlab[onnx]'")
pytestmark = pytest.mark.peer

ROUNDING = 1e-12  # two float64 computations of the same formula; 6e-16 is the largest seen
SINGLE = 1e-5  # onnxruntime computes in float32; 1.2e-6 is the largest seen


def replay(model, feeds, node=None, **options):
    """Y, Y_h and Y_c of gradlab's import, and the import."""
    imported = from_onnx(model, node, **options) if node else from_onnx(model, **options)[0]
    read = node_inputs(model, feeds, node)
    ran = gradlab.forward(imported.net, imported.params, read.x, read.initial_states, lengths=read.lengths)
    return node_outputs(imported, ran), imported


def relative(ours, theirs):
    assert ours.shape == theirs.shape
    assert theirs.size > 0
    assert np.abs(theirs).max() > 0
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


# ---- the node tests of ONNX ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    """ONNX's own test cases of the three operators; building them seeds NumPy's global generator, which is put back."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cases = importlib.import_module("onnx.backend.test.case.node")
            for name in ("rnn", "lstm", "gru"):  # importing one of these builds its cases
                importlib.import_module(f"onnx.backend.test.case.node.{name}")
        found = [case for case in cases._NodeTestCases if case.model.graph.node[0].op_type in GATES]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return found


def test_all_18_published_node_tests_pass(published):
    passed = []
    for case in published:
        node = case.model.graph.node[0]
        (inputs, outputs), names = case.data_sets[0], [entry.name for entry in case.model.graph.input]
        feeds = dict(zip(names, inputs, strict=True))
        found, _ = replay(case.model, feeds, values=feeds)
        for entry, wanted in zip(case.model.graph.output, outputs, strict=True):
            ours = found[OUTPUTS[list(node.output).index(entry.name)]]
            assert ours.shape == wanted.shape, case.name
            np.testing.assert_allclose(ours, wanted, rtol=case.rtol, atol=case.atol, err_msg=case.name)
        passed.append(case.name)
    print(f"{len(passed)}/{len(published)}")
    assert len(set(passed)) == 18


# ---- every option, distinct random weights ------------------------------------------------------------------

SMALL = {"RNN": ["Softsign"], "GRU": ["HardSigmoid", "Elu"], "LSTM": ["HardSigmoid", "Elu", "Affine"]}
ALPHAS = {"RNN": {}, "GRU": {"activation_alpha": [0.3, 0.7]}, "LSTM": {"activation_alpha": [0.3, 0.7, 0.5]}}
BETAS = {"RNN": {}, "GRU": {"activation_beta": [0.4]}, "LSTM": {"activation_beta": [0.4, 0.1]}}
OPTIONS = [
    *product(GATES, [{}, {"clip": 0.5}, {"plain": True}]),
    *(("GRU", {"linear_before_reset": 1, **more}) for more in ({}, {"clip": 0.5})),
    *(
        ("LSTM", {"peepholes": p, "input_forget": f, **more})
        for p, f, more in product((0, 1), (0, 1), ({}, {"clip": 0.5}))
        if p or f
    ),
]


def check(case, runtime=True):
    """Against the plain loops and, where it can, onnxruntime."""
    found, imported = replay(case.model, {"X": case.X})
    for key, wanted in zip(OUTPUTS, case.expected(), strict=False):
        assert relative(found[key], wanted) <= ROUNDING, (case, key)
    if not runtime:
        return imported
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'gradlab[onnx]'")
    settings = runtime.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads = 4, 1
    session = runtime.InferenceSession(case.model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    for key, theirs in zip(OUTPUTS, session.run(None, {"X": case.X}), strict=False):
        assert relative(found[key], theirs) <= SINGLE, (case, key)
    return imported


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_every_option_equals_the_specification_and_onnxruntime(kind, options, direction):
    imported = check(Case(kind, direction=direction, **options))
    assert imported.reverse == (direction == "reverse")
    assert imported.net.bidirectional == (direction == "bidirectional")
    assert imported.dtype == np.float32


@pytest.mark.parametrize("kind", GATES)
def test_square_weights_are_not_transposed(kind):
    check(Case(kind, D=4, H=4))


@pytest.mark.parametrize("name", onnx_oracle.SIMPLE)
@pytest.mark.parametrize("place", ["RNN 0", "GRU 0", "GRU 1", "LSTM 0", "LSTM 1", "LSTM 2"])
def test_every_activation_equals_the_specification_and_onnxruntime(name, place):
    kind, at = place.split()
    names = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}[kind]
    names[int(at)] = name
    takes_alpha = name in ("Affine", "Elu", "HardSigmoid", "LeakyRelu", "ScaledTanh", "ThresholdedRelu")
    options = {"activation_alpha": [0.1]} if takes_alpha else {}
    options |= {"activation_beta": [0.4]} if name in ("Affine", "HardSigmoid", "ScaledTanh") else {}
    check(Case(kind, activations=names, **options), runtime=(name, place) != ("Softplus", "GRU 0"))  # onnxruntime gives NaN


@pytest.mark.parametrize("name", ["Elu", "HardSigmoid", "LeakyRelu"])
def test_alpha_and_beta_have_the_defaults_of_the_operator(name):
    check(Case("RNN", activations=[name]))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_alpha_and_beta_go_in_order_to_the_functions_that_take_them(kind, direction):
    times = 2 if direction == "bidirectional" else 1
    options = {"activations": SMALL[kind] * times}
    options |= {key: value * times for key, value in (ALPHAS[kind] | BETAS[kind]).items()}
    check(Case(kind, direction=direction, **options))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_layout_1_is_layout_0_with_the_batch_first(kind, direction):  # onnxruntime has no layout 1
    case = Case(kind, direction=direction)
    turned = {key: value if key == "sequence_lens" else np.swapaxes(value, 0, 1) for key, value in case.running().items()}
    model = case.model_with(turned, layout=1)
    found, imported = replay(model, {"X": turned["X"]})
    assert imported.batch_first
    for key, wanted in zip(OUTPUTS, case.expected(), strict=False):
        assert relative(found[key], np.moveaxis(wanted, -2, 0)) <= ROUNDING


def test_float64_float16_and_bfloat16_weights_are_read_exactly():
    case = Case("LSTM")
    for dtype in (np.float64, np.float16):
        weights = {key: value.astype(dtype) for key, value in case.arrays.items()}
        imported = from_onnx(model_of("LSTM", weights, {"hidden_size": case.H}))[0]
        assert imported.dtype == (np.float64 if dtype == np.float64 else np.float32)
        rows = weights["W"][0].astype(np.float64).reshape(4, case.H, -1)[[0, 2, 3, 1]]  # i o f c -> i f g o
        np.testing.assert_array_equal(imported.params["0.W"], rows.reshape(4 * case.H, -1))
    model = case.model
    for tensor in model.graph.initializer:
        if tensor.name == "W":
            bits = (case.arrays["W"].view(np.uint32) >> 16).astype(np.uint16)
            tensor.CopyFrom(onnx.TensorProto(name="W", data_type=16, dims=bits.shape, raw_data=bits.tobytes()))
    cut = (case.arrays["W"].view(np.uint32) >> 16 << 16).view(np.float32)[0]
    found = from_onnx(model)[0].params["0.W"]
    np.testing.assert_array_equal(found[: case.H], cut[: case.H])


def test_the_notes_say_what_was_decided():
    notes = " ".join(from_onnx(Case("GRU", direction="reverse", linear_before_reset=1).model)[0].notes)
    for word in ("biases", "candidate", "after", "turned round", "initial_h is stored", "sequence_lens"):
        assert word in notes


def test_weights_that_are_not_finite_are_imported_and_reported():
    case = Case("RNN")
    case.arrays["R"][0, 1, 2] = np.nan
    imported = from_onnx(case.model)[0]
    assert "0.U has 1 non-finite values" in imported.notes


# ---- larger graphs ------------------------------------------------------------------------------------------


def larger_graph():
    """x -> Relu(2x) -> LSTM "low" -> Squeeze -> GRU "high"."""
    low, high = Case("LSTM", plain=True), Case("GRU", plain=True, D=3)
    helper = onnx.helper
    rename = [
        onnx.numpy_helper.from_array(value, f"{key}_{name}")
        for name, case in (("low", low), ("high", high))
        for key, value in case.arrays.items()
        if key in "WRB"
    ]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["2x"]),
        helper.make_node("Relu", ["2x"], ["in"]),
        helper.make_node("LSTM", ["in", "W_low", "R_low", "B_low"], ["Y_low"], name="low", hidden_size=low.H),
        helper.make_node("Squeeze", ["Y_low", "axes"], ["mid"]),
        helper.make_node("GRU", ["mid", "W_high", "R_high", "B_high"], ["Y_high"], name="high", hidden_size=high.H),
    ]
    given = [helper.make_tensor_value_info("x", 1, ("T", "N", low.D))]
    axes = onnx.numpy_helper.from_array(np.array([1]), "axes")
    graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info("Y_high", 1, None)], [*rename, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    return model, low


def test_inputs_of_a_node_inside_a_larger_graph_are_computed_or_given():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'gradlab[onnx]'")
    model, low = larger_graph()
    x = low.X
    assert [one.source for one in from_onnx(model)] == ["ONNX LSTM node 'low' (opset 21)", "ONNX GRU node 'high' (opset 21)"]
    read = node_inputs(model, {"x": x}, "low")
    np.testing.assert_array_equal(read.x, np.maximum(2 * x, 0))
    found, _ = replay(model, {"x": x}, "low")
    middle = found["Y"][:, 0]
    assert relative(node_inputs(model, {"x": x}, "high").x, middle) <= SINGLE
    np.testing.assert_array_equal(node_inputs(model, {"mid": middle}, "high").x, middle)
    with pytest.raises(ValueRangeError, match="feeds lacks 'x'"):
        node_inputs(model, {}, "high")
    with pytest.raises(ValueRangeError, match=r"expected one of the recurrent nodes .*'low', 'high'"):
        node_inputs(model, {"x": x})
    with pytest.raises(ValueRangeError, match="node 'middle' is not there; recurrent nodes: 'low', 'high'"):
        from_onnx(model, "middle")
    assert from_onnx(model, "Y_high").source.startswith("ONNX GRU")


def test_a_node_inside_a_subgraph_is_refused_by_name_and_the_others_can_be_chosen():
    case = Case("RNN", plain=True)
    helper = onnx.helper
    inner = helper.make_graph(
        [helper.make_node("RNN", ["X", "W", "R"], ["Y_in"], name="hidden", hidden_size=case.H)],
        "branch",
        [],
        [helper.make_tensor_value_info("Y_in", 1, None)],
    )
    model = case.model
    model.graph.node.append(helper.make_node("If", ["condition"], ["out"], name="choice", then_branch=inner, else_branch=inner))
    with pytest.raises(FormatError, match="RNN node 'hidden' inside a subgraph of the If node 'choice'"):
        from_onnx(model)
    assert from_onnx(model, "n").source.startswith("ONNX RNN node 'n'")
    model.graph.node[-1].CopyFrom(helper.make_node("DynamicQuantizeLSTM", ["X"], ["q"], name="q", domain="com.microsoft"))
    with pytest.raises(FormatError, match=r"DynamicQuantizeLSTM node 'q' of the domain 'com\.microsoft'"):
        from_onnx(model)


# ---- refusals -----------------------------------------------------------------------------------------------

REFUSED = [
    ("RNN", {"activations": ["Swish"]}, "activation 'Swish' is not known"),
    ("RNN", {"activations": ["Tanh", "Tanh"]}, "2 activations; expected 1"),
    ("RNN", {"activations": ["Affine"]}, "Affine without activation_alpha"),
    ("RNN", {"activations": ["Tanh"], "activation_alpha": [0.5]}, "activation_alpha has 1 entries; .*none does"),
    ("RNN", {"activation_alpha": [0.5]}, "without activations"),
    ("LSTM", {"activations": ["Sigmoid", "Elu", "Tanh"], "activation_alpha": [0.0, 0.3, 0.0]}, "3 entries; .*: Elu"),
    ("RNN", {"clip": 0.0}, "clip is 0.0"),
    ("RNN", {"clip": -1.0}, "clip is -1.0"),
    ("RNN", {"layout": 2}, "layout is 2"),
    ("LSTM", {"input_forget": 3}, "input_forget is 3"),
    ("RNN", {"input_forget": 1}, "attribute 'input_forget' is not known"),
    ("LSTM", {"linear_before_reset": 1}, "attribute 'linear_before_reset' is not known"),
    ("GRU", {"output_sequence": 1}, "attribute 'output_sequence' is not known"),
    ("GRU", {"direction": "foward"}, "direction is 'foward'"),
    ("GRU", {"hidden_size": 7}, "hidden_size is 7, R has 4 columns"),
    ("GRU", {"hidden_size": 4.0}, "attribute 'hidden_size' has type 1; expected 2"),
]


@pytest.mark.parametrize(("kind", "attributes", "message"), REFUSED, ids=str)
def test_what_is_not_supported_is_refused_by_name(kind, attributes, message):
    case = Case(kind)
    with pytest.raises(FormatError, match=message):
        from_onnx(model_of(kind, case.arrays, {"hidden_size": case.H} | attributes))


def test_directions_with_different_activations_are_refused_by_name():
    case = Case("RNN", direction="bidirectional")
    with pytest.raises(FormatError, match="Tanh, Relu differ between the two directions"):
        from_onnx(model_of("RNN", case.arrays, {"direction": "bidirectional", "activations": ["Tanh", "Relu"]}))


@pytest.mark.parametrize("opset", [1, 6, 1000])
def test_an_unknown_opset_is_refused(opset):
    with pytest.raises(FormatError, match=f"opset {opset}; expected 7 to"):
        from_onnx(Case("RNN", opset=opset).model)


def test_layout_does_not_exist_before_opset_14():
    case = Case("RNN", opset=13)
    with pytest.raises(FormatError, match="attribute 'layout' is not known at opset 13"):
        from_onnx(model_of("RNN", case.arrays, {"layout": 0}, opset=13))


def test_weights_that_the_file_does_not_store_are_asked_for():
    case = Case("RNN")
    model = model_of("RNN", case.arrays, {}, fed=("X", "W"))
    with pytest.raises(FormatError, match="W is the value 'W', which the file does not store"):
        from_onnx(model)
    with pytest.raises(ValueRangeError, match="values has 'w'; expected inputs of recurrent nodes: B, R, W"):
        from_onnx(model, values={"w": case.arrays["W"]})
    from_onnx(model, values={"W": case.arrays["W"]})


@pytest.mark.parametrize("key", ["W", "R", "B", "P"])
def test_a_weight_of_another_shape_is_refused_by_name(key):
    case = Case("LSTM", peepholes=1)
    case.arrays[key] = case.arrays[key][:, :-1]
    with pytest.raises(FormatError, match=f"{key} has shape"):
        from_onnx(case.model)


def test_inputs_of_wrong_shape_or_length_are_refused():
    case = Case("RNN")
    with pytest.raises(ShapeError, match="expected 3 axes"):
        node_inputs(case.model, {"X": case.X[0]})
    case.arrays["sequence_lens"][1] = 0
    with pytest.raises(ValueRangeError, match="sequence_lens holds 0"):
        node_inputs(case.model, {"X": case.X})


def test_nothing_but_gradlabs_errors_for_what_is_no_model(tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    for source in (tmp_path, tmp_path / "none.onnx", tmp_path / "empty.onnx", b"", b"\x00", b"hello", 3, None):
        with pytest.raises(GradlabError):
            from_onnx(source)


# ---- the cell behind clip and free activations --------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "cell"),
    [
        ("RNN", {}, gradlab.Elman("tanh")),
        ("GRU", {"reset": "after"}, gradlab.GRU(reset="after")),
        ("GRU", {"reset": "before"}, gradlab.GRU(reset="before")),
        ("LSTM", {"peepholes": True}, gradlab.LSTM(peepholes=True)),
        ("LSTM", {}, gradlab.LSTM()),
    ],
)
def test_the_general_cell_with_the_usual_functions_has_the_states_and_gradients_of_the_built_in_one(kind, options, cell):
    rng = np.random.default_rng(0)
    net = gradlab.Network(cell, 3, 4, bidirectional=True)
    params = {key: rng.normal(size=value.shape) for key, value in net.init(rng).items()}
    batch = gradlab.Batch(rng.normal(size=(5, 2, 3)), rng.normal(size=(5, 2, 8)), lengths=np.array([5, 3]))
    wanted = gradlab.bptt(net, params, batch, gradlab.mean_squared_error)
    other = gradlab.Network(GeneralCell(kind, USUAL[kind], **options), 3, 4, bidirectional=True)
    assert list(other.shapes) == list(net.shapes)
    found = gradlab.bptt(other, params, batch, gradlab.mean_squared_error)
    for key, value in wanted.gradients.items():
        assert relative(found.gradients[key], value) <= ROUNDING, key


@pytest.mark.parametrize("name", FORMULAS)
def test_every_function_carries_a_complex_step(name):
    function = Function(name, 0.3, 0.7)
    z = np.array([-30.0, -3.1, -0.4, -0.1, 0.05, 0.2, 0.9, 2.3, 30.0])
    step = function(z + 1e-200j).imag / 1e-200
    h = 1e-6
    central = (function(z + h) - function(z - h)) / (2 * h)
    np.testing.assert_allclose(step, central, rtol=1e-7, atol=1e-8)  # the central difference: h^2 and rounding / h
    assert np.isfinite(function(np.array([-700.0, 700.0]))).all()
    assert function(z.astype(np.float32)).dtype == np.float32
