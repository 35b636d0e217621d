"""Keras layers as gradlab networks: against Keras' own output in float64, and from its files without Keras."""

import json
import os
import subprocess
import sys
import warnings
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradlab
from gradlab.adapters import from_keras
from gradlab.adapters.keras_io_config import Entry, describe, groups, snake_case
from gradlab.errors import DTypeError, FormatError, GradlabError, ResourceRefused, UnsafeFileError, ValueRangeError

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'gradlab[keras]'")
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")]

ROUNDING = 1e-12  # two float64 computations of the same formula; 6e-16 is the largest seen
SINGLE = 1e-5  # Keras in its default float32


@pytest.fixture(scope="session")
def keras(tmp_path_factory):
    """Keras on torch. Its ops.matmul turns two float64 tensors into a float32 one, so torch's own stands in for it."""
    pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"], os.environ["KERAS_HOME"] = "torch", str(tmp_path_factory.mktemp("keras"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras = pytest.importorskip("keras", reason="keras is not installed: pip install 'gradlab[keras]'")
    if keras.backend.backend() != "torch":
        pytest.skip("keras already runs on another backend")
    return keras


@pytest.fixture
def exact(keras, monkeypatch):
    """Keras computing in float64 throughout."""
    import torch

    monkeypatch.setattr("keras.src.ops.matmul", torch.matmul)
    return keras


def fill(layer, seed=0):
    """Distinct random weights, biases included."""
    rng = np.random.default_rng(seed)
    for variable in layer.weights:
        if "seed" not in variable.path:
            variable.assign(rng.normal(0.0, 0.5, variable.shape))


def relative(ours, theirs):
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 0
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def replay(imported, x):
    """Outputs of gradlab's network in Keras' order of axes, for x (B, T, D)."""
    assert imported.batch_first
    own = np.ascontiguousarray(np.swapaxes(x, 0, 1))
    ran = gradlab.forward(imported.net, imported.params, own[::-1].copy() if imported.reverse else own).outputs
    return np.swapaxes(ran, 0, 1) if imported.net.readout == "every" else ran


def check(keras, layer, D=3, limit=ROUNDING):
    x = np.random.default_rng(5).normal(size=(2, 5, D))
    layer(x)
    fill(layer)
    theirs = keras.ops.convert_to_numpy(layer(x))
    (imported,) = from_keras(layer)
    assert relative(replay(imported, x), theirs) <= limit
    return imported


MAKERS = {
    "SimpleRNN": lambda L, H, **k: L.SimpleRNN(H, **k),
    "LSTM": lambda L, H, **k: L.LSTM(H, **k),
    "GRU after": lambda L, H, **k: L.GRU(H, reset_after=True, **k),
    "GRU before": lambda L, H, **k: L.GRU(H, reset_after=False, **k),
    "LSTM other": lambda L, H, **k: L.LSTM(H, activation="elu", recurrent_activation="hard_sigmoid", **k),
    "GRU other": lambda L, H, **k: L.GRU(H, activation="softsign", recurrent_activation="hard_sigmoid", **k),
}
DOUBLE = {"dtype": "float64"}


@pytest.mark.parametrize("options", [{}, {"use_bias": False}, {"go_backwards": True}, {"unroll": True}], ids=str)
@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_layer_computes_what_keras_computes(exact, kind, sequences, options):
    imported = check(exact, MAKERS[kind](exact.layers, 4, return_sequences=sequences, **DOUBLE, **options))
    assert imported.reverse == options.get("go_backwards", False)
    assert imported.dtype == np.float64


@pytest.mark.parametrize("kind", MAKERS)
def test_square_weights_are_not_transposed(exact, kind):
    check(exact, MAKERS[kind](exact.layers, 3, **DOUBLE))


@pytest.mark.parametrize("kind", MAKERS)
def test_without_the_stand_in_for_matmul_single_precision_agrees(keras, kind):
    check(keras, MAKERS[kind](keras.layers, 4), limit=SINGLE)


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_bidirectional_layer_computes_what_keras_computes(exact, kind, sequences):
    inner = MAKERS[kind](exact.layers, 4, return_sequences=sequences, **DOUBLE)
    imported = check(exact, exact.layers.Bidirectional(inner, **DOUBLE))
    assert imported.net.bidirectional
    assert not imported.reverse


@pytest.mark.parametrize(
    "name", ["elu", "hard_sigmoid", "hard_tanh", "leaky_relu", "linear", "relu", "sigmoid", "softplus", "softsign", "tanh"]
)
def test_every_activation_is_that_of_keras(exact, name):
    check(exact, exact.layers.SimpleRNN(4, activation=name, **DOUBLE))


@pytest.mark.parametrize("cell", ["SimpleRNNCell", "LSTMCell", "GRUCell"])
def test_cells_in_an_rnn_and_stacked_cells_are_read(exact, cell):
    L = exact.layers

    def one():
        return getattr(L, cell)(4, **DOUBLE)

    assert check(exact, L.RNN(one(), return_sequences=True, **DOUBLE)).net.num_layers == 1
    stacked = L.StackedRNNCells([one(), one(), one()], **DOUBLE)
    assert check(exact, L.RNN(stacked, return_sequences=True, **DOUBLE)).net.num_layers == 3
    assert check(exact, L.Bidirectional(L.RNN(one(), return_sequences=True, **DOUBLE), **DOUBLE)).net.bidirectional


def test_a_right_padded_mask_is_a_ragged_batch(exact):
    layer = exact.layers.Bidirectional(exact.layers.LSTM(4, **DOUBLE), **DOUBLE)
    x = np.random.default_rng(5).normal(size=(3, 5, 3))
    lengths = np.array([5, 2, 4])
    layer(x)
    fill(layer)
    mask = np.arange(5) < lengths[:, None]
    theirs = exact.ops.convert_to_numpy(layer(x, mask=exact.ops.convert_to_tensor(mask)))
    (imported,) = from_keras(layer)
    ran = gradlab.forward(imported.net, imported.params, np.swapaxes(x, 0, 1).copy(), lengths=lengths)
    assert relative(ran.outputs, theirs) <= ROUNDING


def test_the_notes_say_what_was_decided(keras):
    layer = keras.layers.GRU(4, dropout=0.3, recurrent_dropout=0.1, stateful=True, go_backwards=True)
    layer.build((2, 5, 3))
    notes = " ".join(from_keras(layer)[0].notes)
    for word in ("dropout 0.3 and recurrent_dropout 0.1", "stateful", "turned round", "reset_after=True"):
        assert word in notes


@pytest.mark.parametrize("mode", ["sum", "mul", "ave"])
def test_merge_modes_that_mix_the_directions_are_refused_by_name(keras, mode):
    layer = keras.layers.Bidirectional(keras.layers.LSTM(4), merge_mode=mode)
    layer.build((2, 5, 3))
    with pytest.raises(FormatError, match=f"merge_mode is '{mode}'; expected 'concat'"):
        from_keras(layer)


def test_merge_mode_none_is_noted(keras):
    layer = keras.layers.Bidirectional(keras.layers.LSTM(4), merge_mode=None)
    layer.build((2, 5, 3))
    assert any("halves" in note for note in from_keras(layer)[0].notes)


def test_what_is_not_supported_is_refused_by_name(keras):
    L = keras.layers

    class Mine(L.LSTM):
        pass

    class Cell(L.LSTMCell):
        pass

    def wave(x):
        return x

    refused = [
        (Mine(4), "a class of its own"),
        (L.RNN(Cell(4)), "a class of its own"),
        (L.ConvLSTM1D(4, 2), "ConvLSTM1D"),
        (L.LSTM(4, activation="gelu"), "activation is 'gelu'"),
        (L.LSTM(4, activation=wave), "activation is"),
        (L.RNN([L.LSTMCell(4), L.LSTMCell(5)]), r"its cells have \(4, 5\) units"),
        (L.Bidirectional(L.LSTM(4), backward_layer=L.LSTM(5, go_backwards=True)), "the two directions differ"),
        (L.Bidirectional(L.LSTM(4), backward_layer=L.GRU(4, go_backwards=True)), "the two directions differ"),
        (L.Bidirectional(L.RNN([L.LSTMCell(4), L.LSTMCell(4)])), "upper cells see one direction only"),
    ]
    for layer, message in refused:
        layer.build((2, 5, 6, 3) if "Conv" in type(layer).__name__ else (2, 5, 3))
        with pytest.raises(FormatError, match=message):
            from_keras(layer)
    with pytest.raises(FormatError, match="has no weights yet"):
        from_keras(L.LSTM(4))
    with pytest.raises(FormatError, match="no recurrent layer"):
        from_keras(L.Dense(4))
    with pytest.raises(DTypeError, match="is no Keras layer"):
        from_keras(3)


# ---- models and files ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(keras, tmp_path_factory):
    """A model with names that its file does not keep, nested and repeated classes; its three files."""
    L = keras.layers
    inner = keras.Sequential(
        [keras.Input((5, 6)), L.LSTM(3, return_sequences=True), L.GRU(2, return_sequences=True)], name="inner"
    )
    given = keras.Input((5, 3))
    y = L.LSTM(4, return_sequences=True, name="encoder")(given)
    y = L.Bidirectional(L.GRU(3, return_sequences=True, reset_after=False), name="both")(y)
    y = inner(y)
    y = L.TimeDistributed(L.Dense(2))(y)
    y = L.RNN([L.LSTMCell(3), L.LSTMCell(3)], return_sequences=True, name="stack")(y)
    y = L.LSTM(4, name="decoder", go_backwards=True)(y)
    model = keras.Model(given, L.Dense(1)(y))
    fill(model)
    folder = tmp_path_factory.mktemp("saved")
    model.save(folder / "m.keras")
    model.save_weights(folder / "m.weights.h5")
    (folder / "m.json").write_text(model.to_json(), "utf-8")
    return model, folder


NAMES = ["encoder", "both", "lstm", "gru", "stack", "decoder"]


def equal(one, other):
    assert one.source.split("'")[0] == other.source.split("'")[0]
    assert repr(one.net) == repr(other.net)
    assert one.params.keys() == other.params.keys()
    for key, value in one.params.items():
        np.testing.assert_array_equal(value, other.params[key])
    assert (one.dtype, one.reverse, one.notes) == (other.dtype, other.reverse, other.notes)


def test_files_hold_the_same_networks_as_the_live_model(saved):
    model, folder = saved
    live = from_keras(model)
    assert len(live) == len(NAMES)
    from_file = from_keras(folder / "m.keras")
    for config in (json.loads(model.to_json()), model.to_json(), folder / "m.json"):
        for one, other, third in zip(live, from_file, from_keras(folder / "m.weights.h5", config=config), strict=True):
            equal(one, other)
            equal(one, third)
    assert [one.source.split("'")[1].rstrip("_0123456789") for one in live] == NAMES
    (decoder,) = from_keras(folder / "m.keras", "decoder")
    equal(decoder, live[-1])


def test_a_file_is_read_without_keras(saved):
    _, folder = saved
    code = """
import sys
from gradlab.adapters import from_keras
print(len(from_keras(sys.argv[1])), *[name for name in ("keras", "torch", "jax", "tensorflow") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "m.keras")], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["6"]


def test_weights_alone_ask_for_the_layers(saved):
    _, folder = saved
    with pytest.raises(FormatError, match=r"m\.weights\.h5': holds weights alone.*model\.to_json\(\)"):
        from_keras(folder / "m.weights.h5")
    with pytest.raises(ValueRangeError, match="layer 'coder' is not there; recurrent layers: 'encoder', 'both'"):
        from_keras(folder / "m.keras", "coder")
    with pytest.raises(ResourceRefused):
        from_keras(folder / "m.keras", max_memory=10_000)


def test_a_config_that_is_not_that_of_the_weights_is_refused(saved, keras):
    _, folder = saved
    config = json.loads((folder / "m.json").read_text("utf-8"))
    layers = config["config"]["layers"]
    swapped = {"class_name": "Functional", "config": {"layers": [layers[-2], *layers[1:-2], layers[1], layers[-1]]}}
    with pytest.raises(FormatError, match="'layers/lstm' holds the layer 'encoder', the config says 'decoder'"):
        from_keras(folder / "m.weights.h5", config=swapped)
    fewer = {"class_name": "Functional", "config": {"layers": layers[:2]}}
    with pytest.raises(FormatError, match="which the config does not name"):
        from_keras(folder / "m.weights.h5", config=fewer)
    layers[1]["config"]["units"] = 5
    with pytest.raises(FormatError, match="kernel, recurrent_kernel and bias have shapes"):
        from_keras(folder / "m.weights.h5", config=config)


def test_groups_are_named_as_keras_names_them(keras):
    from keras.src.utils.naming import to_snake_case

    for name in (
        "LSTM",
        "GRU",
        "SimpleRNN",
        "RNN",
        "Bidirectional",
        "TimeDistributed",
        "StackedRNNCells",
        "InputLayer",
        "MyLSTM2",
    ):
        assert snake_case(name) == to_snake_case(name)
    assert groups(["LSTM", "GRU", "LSTM", "LSTM"]) == ["lstm", "gru", "lstm_1", "lstm_2"]


# ---- hostile files ------------------------------------------------------------------------------------------

CONFIG = {"class_name": "Sequential", "config": {"layers": [{"class_name": "LSTM", "config": {"name": "a", "units": 4}}]}}
VARS = "layers/lstm/cell/vars"
SHAPES = {"0": (3, 16), "1": (4, 16), "2": (16,)}


def weights_file(path, change=None, skip=()):
    with h5py.File(path, "w") as file:
        group = file.create_group(VARS)
        for key, shape in SHAPES.items():
            if key not in skip:
                group[key] = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        if change is not None:
            change(group, path)
    return path


def test_the_control_file_loads(tmp_path):
    (imported,) = from_keras(weights_file(tmp_path / "a.weights.h5"), config=CONFIG)
    assert imported.params["0.U"].shape == (16, 4)


def link(kind):
    def change(group, path):
        outside = path.with_name("outside.h5")
        weights_file(outside)
        if kind == "external":
            group["1"] = h5py.ExternalLink(str(outside), f"{VARS}/1")
        elif kind == "soft":
            group["1"] = h5py.SoftLink(f"/{VARS}/0")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(SHAPES["1"], np.float32)
            layout[...] = h5py.VirtualSource(str(outside), f"{VARS}/1", SHAPES["1"])
            group.create_virtual_dataset("1", layout)
        else:
            group.create_dataset("1", SHAPES["1"], np.float32, external=[(str(path.with_name("raw")), 0, 256)])

    return change


@pytest.mark.parametrize("kind", ["external", "soft", "virtual", "storage"])
def test_numbers_in_another_place_are_refused(kind, tmp_path):
    path = weights_file(tmp_path / "a.weights.h5", link(kind), skip="1")
    (tmp_path / "raw").write_bytes(b"\0" * 256)
    with pytest.raises(UnsafeFileError):
        from_keras(path, config=CONFIG)


def bad_array(**options):
    return lambda group, path: group.create_dataset("1", **options)


@pytest.mark.parametrize(
    "change",
    [
        bad_array(data=np.zeros((4, 16), np.int32)),
        bad_array(data=np.array([b"text"])),
        bad_array(shape=(4, 16), dtype=h5py.vlen_dtype(np.float32)),
        bad_array(shape=(4, 16), dtype=np.float32, chunks=(4, 16), compression="lzf"),
        bad_array(shape=(2**20, 2**20), dtype=np.float32, chunks=(2**10, 2**10)),
        bad_array(shape=(2**13, 2**13), dtype=np.float32, chunks=(2**10, 2**10), compression="gzip", fillvalue=1.0),
        bad_array(data=np.zeros((5, 16), np.float32)),
        bad_array(data=np.zeros((4, 4, 4), np.float32)),
        lambda group, path: group.create_group("1"),
        lambda group, path: None,
    ],
)
def test_arrays_that_are_no_weights_are_refused(change, tmp_path):
    path = weights_file(tmp_path / "a.weights.h5", change, skip="1")
    with pytest.raises(GradlabError):
        from_keras(path, config=CONFIG)


def test_an_array_that_would_be_inflated_is_refused(tmp_path):
    def change(group, path):
        group.create_dataset("1", data=np.zeros((2**12, 2**12), np.float32), chunks=(2**12, 2**12), compression="gzip")

    with pytest.raises(UnsafeFileError, match="'layers/lstm/cell/vars/1' is compressed or filtered"):
        from_keras(weights_file(tmp_path / "a.weights.h5", change, skip="1"), config=CONFIG)


def broken_name(content):
    """The file with the length of its stored layer name, in the library's heap, overwritten."""
    at = content.index(b"GCOL")
    return content[: at + 16] + b"\xff" * 24 + content[at + 40 :]


def test_a_file_that_upsets_the_library_ends_its_process_and_not_ours(tmp_path, monkeypatch):
    def change(group, path):
        group.create_dataset("1", data=np.zeros((4, 16), np.float32))
        group.attrs["name"] = "a"

    path = weights_file(tmp_path / "a.weights.h5", change, skip="1")
    assert len(from_keras(path, config=CONFIG)) == 1
    path.write_bytes(broken_name(path.read_bytes()))
    with pytest.raises(FormatError, match=r"a\.weights\.h5': its HDF5 .*damaged"):
        from_keras(path, config=CONFIG)


@pytest.mark.parametrize(
    "program", ["import time; time.sleep(60)", "import os; os.kill(os.getpid(), 9)", "print('x')", "raise SystemExit(3)"]
)
def test_whatever_the_reading_process_does_is_an_error(program, tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text(program, "utf-8")
    monkeypatch.setattr("gradlab.adapters.keras_io_file.keras_io_h5.__file__", str(tmp_path / "program.py"))
    monkeypatch.setattr("gradlab.adapters.keras_io_file.TIMEOUT", 0.5)
    with pytest.raises(FormatError, match="could not be read"):
        from_keras(weights_file(tmp_path / "a.weights.h5"), config=CONFIG)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "no config.json"),
        ({"config.json": "{}", "metadata.json": "{}"}, r"no model\.weights\.h5"),
        (
            {"config.json": "{}", "metadata.json": '{"keras_version": "2.15.0"}', "model.weights.h5": ""},
            r"written by Keras 2\.15",
        ),
        ({"config.json": "{", "metadata.json": '{"keras_version": "3.1"}', "model.weights.h5": ""}, "not JSON"),
        ({"config.json": "[" * 100_000, "metadata.json": '{"keras_version": "3.1"}', "model.weights.h5": ""}, "not JSON"),
        ({"config.json": "{}", "metadata.json": '{"keras_version": "3.1"}', "model.weights.h5": "x"}, "its HDF5 is damaged"),
        ({"config.json": " " * 2_100_000, "metadata.json": "{}", "model.weights.h5": ""}, "expected at most 2097152"),
    ],
    ids=str,
)
def test_an_archive_that_is_none_of_keras_3_is_refused(members, message, tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme", "x")
        for name, text in members.items():
            archive.writestr(name, text)
    with pytest.raises(FormatError, match=message):
        from_keras(tmp_path / "m.keras")


@pytest.mark.parametrize("config", [{}, [], "x", "{}", {"class_name": "Sequential", "config": {}}, {"class_name": 3}])
def test_a_config_that_is_none_is_refused(config, tmp_path):
    with pytest.raises(GradlabError):
        from_keras(weights_file(tmp_path / "a.weights.h5"), config=config)


@pytest.mark.parametrize("key", ["units", "activation", "recurrent_activation", "use_bias", "go_backwards", "return_sequences"])
@pytest.mark.parametrize("value", [-1, 1.5, "x", [], {"a": 1}, 10**30])
def test_an_option_of_the_wrong_type_is_refused(key, value):
    with pytest.raises(FormatError, match=f"{key} is"):
        describe("file", Entry("LSTM", {"name": "a", "units": 4, key: value}, "layers/lstm"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = weights_file(tmp_path_factory.mktemp("base") / "a.weights.h5")
    return path, path.read_bytes()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_file_loads_or_raises_a_gradlab_error(data, base):
    path, content = base[0].with_name("mutated.weights.h5"), bytearray(base[1])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        kind = data.draw(st.sampled_from(["flip", "insert", "delete", "cut"]))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del content[at : at + data.draw(st.integers(1, 8))]
        elif kind == "cut":
            del content[at:]
    path.write_bytes(content)
    with suppress(GradlabError):
        from_keras(path, config=CONFIG)
