"""What a diagnosis starts from: files, models, data, and what was assumed where something is missing."""

import json
from pathlib import Path

import numpy as np
import pytest

import gradlab
from gradlab.diagnosis.demos import DEMOS
from gradlab.diagnosis.files import history_of, kind_of, read
from gradlab.diagnosis.subject import looks_of
from gradlab.errors import DTypeError, FormatError, ResourceRefused, ShapeError, ValueRangeError

NOTHING = {"params": None, "data": None, "loss": None, "lengths": None, "history": None, "seed": 0, "max_memory": None}


def look(subject, **given):
    name, looks, past, assumptions = looks_of(subject, **{**NOTHING, **given})
    return name, looks, past, assumptions


@pytest.fixture
def pair():
    net = gradlab.Network(gradlab.LSTM(), 3, 4, 2)
    return net, net.init(np.random.default_rng(0))


def noise(T=7, B=5, D=3):
    return np.random.default_rng(1).normal(size=(T, B, D))


def test_without_data_noise_is_read_and_without_a_loss_a_unit_gradient_enters_at_the_last_step(pair):
    net, params = pair
    _, (one,), past, assumptions = look(net, params=params)
    assert past is None
    assert one.record.inputs.shape == (100, 16, 3)
    assert abs(one.record.inputs.std() - 1.0) < 0.05  # 4800 draws: four standard errors are 0.04
    assert one.assumed_inputs
    assert one.assumed_loss
    assert one.loss is None
    assert any("noise of 100 steps, 16 sequences" in text for text in assumptions)
    assert any("unit gradient" in text for text in assumptions)
    immediate = one.record.layers["0"].immediate
    assert not immediate[:-1].any()
    assert immediate[-1].any()


def test_data_and_a_loss_are_used_as_they_are(pair):
    net, params = pair
    x, y = noise(), np.ones((7, 5, 2))
    _, (one,), _, assumptions = look(net, params=params, data=gradlab.Batch(x, y), loss=gradlab.mean_squared_error)
    assert assumptions == ()
    np.testing.assert_array_equal(one.record.inputs, x)
    wanted = gradlab.bptt(net, params, gradlab.Batch(x, y), gradlab.mean_squared_error)
    np.testing.assert_array_equal(one.record.gradients["0.U"], wanted.gradients["0.U"])
    assert one.loss is gradlab.mean_squared_error


def test_lengths_alone_say_how_much_noise_is_read(pair):
    net, params = pair
    _, (one,), _, _ = look(net, params=params, lengths=np.array([3, 9, 5]))
    assert one.record.inputs.shape == (9, 3, 3)
    np.testing.assert_array_equal(one.record.lengths, [3, 9, 5])


def test_numbers_that_are_not_finite_are_a_finding_and_no_crash(pair):
    net, params = pair
    params["0.U"][0, :2] = np.nan, np.inf
    found = gradlab.diagnose(net, params)
    assert any(one.code == "nonfinite" and one.place.parameter == "0.U" for one in found.findings)
    assert any("0.U has 2 of 64 numbers that are not finite" in text for text in found.assumptions)
    json.dumps(found.as_json(), allow_nan=False)
    net, params = pair
    x = noise()
    x[3, 1, 2] = np.nan
    params["0.U"][0, :2] = 0.0
    found = gradlab.diagnose(net, params, x)
    assert [one.code for one in found.findings] == ["nonfinite"]
    assert any("the data has 1 of 105" in text for text in found.assumptions)


@pytest.mark.parametrize(
    ("given", "error", "what"),
    [
        ({"data": noise(D=2)}, ShapeError, r"data has shape \(7, 5, 2\); expected \(T, B, 3\), time first"),
        ({"data": noise()[:, 0]}, ShapeError, "expected .T, B, 3."),
        ({"data": noise(T=0)}, ShapeError, "T = 0"),
        ({"data": noise(B=0)}, ShapeError, "B = 0"),
        ({"data": [[1.0]]}, DTypeError, "numpy.ndarray"),
        ({"data": noise(), "loss": gradlab.mean_squared_error}, ValueRangeError, "without targets"),
        ({"data": noise(), "lengths": np.array([1, 2])}, ShapeError, "B = 5"),
        ({"data": noise(), "lengths": np.array([1, 2, 3, 4, 8])}, ValueRangeError, "expected 1 to T = 7"),
        ({"lengths": np.array([1.5])}, DTypeError, "integers"),
        ({"lengths": np.array([0, 2])}, ValueRangeError, "1 to T"),
        ({"lengths": [3]}, DTypeError, "integers"),
        ({"params": None}, ValueRangeError, "params is None"),
        ({"data": gradlab.Batch(noise(), None), "lengths": np.array([1] * 5)}, ValueRangeError, "beside a Batch"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(pair, given, error, what):
    net, params = pair
    with pytest.raises(error, match=what):
        look(net, **{"params": params, **given})


def test_a_batch_that_does_not_fit_in_memory_is_refused_before_it_is_run(pair):
    net, params = pair
    with pytest.raises(ResourceRefused, match="7 steps of 5 sequences"):
        look(net, params=params, data=noise(), max_memory=2000)


def test_a_network_that_reads_from_the_end_gets_its_rows_turned_round(pair):
    from gradlab.adapters import Imported

    net, params = pair
    x, lengths = noise(), np.array([7, 3, 5, 7, 1])
    _, (one,), _, assumptions = look(Imported(net, params, "x", reverse=True), data=x, lengths=lengths)
    np.testing.assert_array_equal(one.record.inputs[:3, 1], x[:3, 1][::-1])
    assert any("reads each sequence from its end" in text for text in assumptions)


def test_a_record_and_a_history_bring_their_own_numbers(pair, tmp_path):
    net, params = pair
    record = gradlab.bptt(
        net, params, gradlab.Batch(noise(), np.ones((7, 5, 2))), gradlab.mean_squared_error, keep=("states", "adjoints", "gates")
    )
    record.save(tmp_path / "r.npz")
    for subject in (record, tmp_path / "r.npz", str(tmp_path / "r.npz")):
        _, (one,), _, _ = look(subject)
        assert one.net is None
        np.testing.assert_array_equal(one.record.layers["0"].adjoints, record.layers["0"].adjoints)
    with pytest.raises(ValueRangeError, match="data cannot be used here"):
        look(record, data=noise())
    monitor = gradlab.training.Monitor(tmp_path / "run")
    for n in range(3):
        monitor.record(n, loss=1.0)
    monitor.flush()
    for subject in (monitor, tmp_path / "run.npz"):
        _, looks, past, _ = look(subject)
        assert looks == ()
        assert past.series["loss"][1].tolist() == [1.0, 1.0, 1.0]
    assert history_of(str(tmp_path / "run.npz")).series.keys() == past.series.keys()


def test_the_history_is_never_looked_for_beside_the_path(tmp_path):
    monitor = gradlab.training.Monitor(tmp_path / "run")
    monitor.record(0, loss=1.0)
    monitor.flush()
    for name in ("run", "other.npz"):
        with pytest.raises(FormatError, match="no such regular file"):
            history_of(tmp_path / name)
    with pytest.raises(FormatError, match=r"expected the \.npz"):
        history_of(tmp_path / "run.json")


# ---- files ------------------------------------------------------------------------------------------------


def weights():
    rng = np.random.default_rng(0)
    shapes = {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4), "bias_ih_l0": (16,), "bias_hh_l0": (16,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def test_the_content_decides_what_a_file_is_not_its_name(tmp_path):
    from safetensors.numpy import save_file

    save_file(weights(), tmp_path / "model.safetensors")
    np.savez(tmp_path / "model.npz", **weights())
    for name, other in (
        ("model.safetensors", "a.npz"),
        ("model.npz", "a.safetensors"),
        ("model.npz", "a"),
        ("model.npz", "a.onnx"),
    ):
        (tmp_path / other).write_bytes((tmp_path / name).read_bytes())
        made = read(tmp_path / other)
        np.testing.assert_array_equal(made.params["0.W"], weights()["weight_ih_l0"])
        assert any("the file is called" in note for note in made.notes), (name, other)
    assert not any("the file is called" in note for note in read(tmp_path / "model.npz").notes)


@pytest.mark.peer
def test_an_onnx_file_is_known_by_its_content(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx_lstm(onnx)
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "m.npz").write_bytes((tmp_path / "m.onnx").read_bytes())
    assert kind_of(tmp_path / "m.npz") == "onnx"
    (made,) = read(tmp_path / "m.npz")
    assert any("its content is an ONNX model" in note for note in made.notes)


def test_what_is_no_regular_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.npz", Path("/dev/zero")):
        with pytest.raises(FormatError, match="no such regular file"):
            kind_of(path)


# ---- ONNX nodes inside a larger graph ---------------------------------------------------------------------


def onnx_lstm(onnx, before=(), x="X", fed=None, sequence_lens=None):
    """An LSTM node of a graph, D = 3, H = 4, T = 6, B = 2, time first; `before`: nodes in front of it."""
    helper, rng = onnx.helper, np.random.default_rng(3)
    arrays = {"W": rng.normal(size=(1, 16, 3)), "R": rng.normal(size=(1, 16, 4)), "h": rng.normal(size=(1, 2, 4))}
    stored = [onnx.numpy_helper.from_array(value.astype(np.float32), key) for key, value in arrays.items()]
    if sequence_lens is not None:
        stored.append(onnx.numpy_helper.from_array(np.asarray(sequence_lens, np.int32), "L"))
    node = helper.make_node("LSTM", [x, "W", "R", "", "L" if sequence_lens else "", "h"], ["Y"], name="n", hidden_size=4)
    given = [fed or helper.make_tensor_value_info("X", 1, (6, 2, 3))]
    made = [helper.make_tensor_value_info("Y", 1, None)]
    graph = helper.make_graph([*before, node], "g", given, made, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    return model


@pytest.mark.peer
def test_a_node_is_fed_through_the_graph_and_its_stored_states_and_lengths_are_used(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from gradlab.adapters.onnx_io_graph import constants
    from gradlab.diagnosis.fed import fed_nodes

    helper = onnx.helper
    # Tokens, batch first, through an embedding and a transpose.
    table = np.random.default_rng(5).normal(size=(9, 3)).astype(np.float32)
    before = [
        helper.make_node("Gather", ["table", "tokens"], ["e"]),
        helper.make_node("Transpose", ["e"], ["X"], perm=[1, 0, 2]),
    ]
    tokens = helper.make_tensor_value_info("tokens", 7, ("B", "T"))
    model = onnx_lstm(onnx, before, fed=tokens, sequence_lens=[6, 4])
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    onnx.save(model, tmp_path / "m.onnx")
    ids = np.random.default_rng(6).integers(0, 9, (2, 6))
    (one,) = fed_nodes(tmp_path / "m.onnx", ids, "graph")
    np.testing.assert_array_equal(one.x, table[ids].transpose(1, 0, 2))
    np.testing.assert_array_equal(one.lengths, [6, 4])
    stored = onnx.numpy_helper.to_array(constants("m", model)["h"])[0]
    _, (seen,), _, _ = look((one,))
    np.testing.assert_array_equal(seen.record.layers["0"].states[0][:, 4:], stored)  # c, then h
    np.testing.assert_array_equal(seen.record.lengths, [6, 4])
    with pytest.raises(ValueRangeError, match="no recurrent node reads the graph's input 'tokens' itself"):
        fed_nodes(tmp_path / "m.onnx", ids, "BTD")


@pytest.mark.peer
def test_data_for_a_node_that_reads_the_graphs_input_are_turned_to_its_layout(tmp_path):
    onnx = pytest.importorskip("onnx")
    from gradlab.diagnosis.fed import fed_nodes

    onnx.save(onnx_lstm(onnx), tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    for data, layout in ((x, "TBD"), (x.swapaxes(0, 1), "BTD"), (x, "graph"), ({"X": x}, "graph")):
        (one,) = fed_nodes(tmp_path / "m.onnx", data, layout)
        np.testing.assert_array_equal(one.x, x)
    for data, layout, what in (
        (x[..., :2], "TBD", "2 features"),
        (x[0], "TBD", "3 axes"),
        ({"X": x}, "TBD", 'expected the layout "graph"'),
    ):
        with pytest.raises((ShapeError, ValueRangeError), match=what):
            fed_nodes(tmp_path / "m.onnx", data, layout)
    with pytest.raises(ValueRangeError, match="no input of the graph is the sequence_lens"):
        fed_nodes(tmp_path / "m.onnx", x, "TBD", lengths=np.array([6, 6]))


def test_a_demo_of_every_kind_is_plain_json():
    for name in ("nonfinite", "loss-jumps"):
        data = gradlab.diagnose(**DEMOS[name].arguments()).as_json()
        assert data["schema"] == "gradlab-diagnosis-1"
        json.dumps(data, allow_nan=False)
