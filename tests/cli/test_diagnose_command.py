"""`gradlab diagnose` and `gradlab compare`: what is read, printed and written, exit status, and one line for every bad input."""

import importlib.resources
import json
import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradlab
from gradlab.cli import main
from gradlab.diagnosis import CATALOGUE, Diagnosis, Finding, Number, Place
from gradlab.diagnosis.demos import DEMOS

ROOT = Path(__file__).resolve().parent.parent.parent
SCHEMA = json.loads(
    importlib.resources.files("gradlab.report").joinpath("schemas/gradlab-diagnosis-1.schema.json").read_text("utf-8")
)


def weights(cell=1, H=4, D=3, scale=0.5, seed=0):
    """Torch's names: an RNN (cell 1), GRU (3) or LSTM (4)."""
    rng = np.random.default_rng(seed)
    shapes = {"weight_ih_l0": (cell * H, D), "weight_hh_l0": (cell * H, H), "bias_ih_l0": (cell * H,), "bias_hh_l0": (cell * H,)}
    return {name: scale * rng.normal(size=shape) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with small models and data, which is the current one."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    np.savez("lstm.npz", **weights(4))
    np.savez("rnn.npz", **weights(1))
    np.save("x.npy", rng.normal(size=(12, 5, 3)))
    np.savetxt("x.csv", rng.normal(size=(12, 3)), delimiter=",")
    np.save("y.npy", rng.normal(size=(12, 5, 4)))
    np.save("labels.npy", rng.integers(0, 4, (12, 5)))
    np.save("lengths.npy", np.array([12, 3, 7, 12, 1]))
    return tmp_path


def strict(text):
    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    return json.loads(text, parse_constant=refuse)


def run(capsys, *argv):
    """(status, stdout, stderr)."""
    status = main(["diagnose", *argv])
    return status, *capsys.readouterr()


def as_json(capsys, *argv):
    status, out, err = run(capsys, *argv, "--json", "-")
    assert err == "", err
    return status, strict(out)


def error_of(capsys, *argv, command="diagnose"):
    """(status, the one line of error): nothing on stdout, no file made or changed."""
    before = {path: path.lstat().st_mtime_ns for path in Path().rglob("*")}
    status = main([command, *argv])
    out, err = capsys.readouterr()
    assert out == ""
    assert {path: path.lstat().st_mtime_ns for path in Path().rglob("*")} == before
    if status == 2 and err.startswith("usage:"):  # argparse's own words
        return status, err
    (line,) = err.splitlines()
    assert len(line) <= 500
    assert line.isprintable()
    return status, line.removeprefix("gradlab: error: ")


# ---- the schema -------------------------------------------------------------------------------------------


def check(value, schema, place="$"):
    """The part of JSON Schema 2020-12 that the file uses; anything else in it is an error of this test."""
    known = {"$schema", "$id", "$defs", "$ref", "title", "description", "type", "const", "enum", "pattern", "minimum"}
    known |= {"required", "properties", "additionalProperties", "items", "minItems", "maxItems"}
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        check(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], place)
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "null": type(None),
        "integer": int,
        "number": (int, float),
    }
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        assert any(
            isinstance(value, kinds[name]) and not (isinstance(value, bool) and name in ("integer", "number")) for name in names
        ), f"{place}: {value!r} is no {names}"
    assert "const" not in schema or value == schema["const"], place
    assert "enum" not in schema or value in schema["enum"], f"{place}: {value!r}"
    assert "pattern" not in schema or re.search(schema["pattern"], value), f"{place}: {value!r}"
    assert "minimum" not in schema or value >= schema["minimum"], place
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value), f"{place}: {set(schema['required']) - set(value)} missing"
        own, rest = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name, inner in value.items():
            assert name in own or rest is not False, f"{place}.{name}"
            check(inner, own.get(name, rest), f"{place}.{name}")
    if isinstance(value, list):
        assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)), place
        for k, inner in enumerate(value):
            check(inner, schema.get("items", {}), f"{place}[{k}]")


@pytest.mark.parametrize("name", [name for name in DEMOS if name != "cliff"])
def test_the_json_of_every_demo_fits_its_published_schema(name, capsys):
    status, data = as_json(capsys, "--demo", name)
    assert status == 0
    check(data, SCHEMA)
    assert data["command"] == f"gradlab diagnose --demo {name}"
    assert data["healthy"] == (name == "healthy")
    if name != "healthy":
        (one, *_) = [one for one in data["findings"] if one["code"] == name]
        assert one["remedy"] == CATALOGUE[name].remedy
        assert one["decided_by"] in one["numbers"]


def test_the_check_of_the_schema_can_fail(capsys):
    _, data = as_json(capsys, "--demo", "vanishing")
    for change in (
        {"schema": "gradlab-diagnosis-2"},
        {"healthy": "no"},
        {"seed": True},
        {"findings": [{**data["findings"][0], "severity": "bad"}]},
        {"findings": [{**data["findings"][0], "place": {"row": 1}}]},
    ):
        with pytest.raises(AssertionError):
            check(data | change, SCHEMA)
    with pytest.raises(AssertionError):
        check({key: value for key, value in data.items() if key != "verdict"}, SCHEMA)


def test_numbers_that_are_not_finite_are_null_and_said_so(capsys):
    _, data = as_json(capsys, "--demo", "nonfinite")
    (layer,) = data["layers"]
    assert layer["non_finite"]
    assert layer["log_gradient"][0] is None  # overflows in every sequence
    assert {t for t, value in enumerate(layer["log_gradient"]) if value is None} <= {*layer["non_finite"], *layer["zero"]}
    inf = float("inf")
    numbers = {
        "a": Number(inf),
        "b": Number(1.0, "", (0.0, inf)),
        "c": Number(1.0, threshold=-inf),
        "d": Number(1.0, "", (0.0, 2.0), 3.0),
    }
    made = Diagnosis("x", (Finding("vanishing", "error", Place("0"), "so", numbers),)).as_json()
    check(made, SCHEMA)
    (one,) = made["findings"]
    assert one["non_finite"] == ["a", "b", "c"]
    assert one["numbers"]["a"]["value"] is None
    assert one["numbers"]["b"]["interval"] == [0.0, None]
    assert one["numbers"]["c"]["threshold"] is None
    assert one["numbers"]["d"] == {"value": 1.0, "unit": "", "interval": [0.0, 2.0], "threshold": 3.0}


# ---- the report -------------------------------------------------------------------------------------------


def test_the_verdict_is_the_first_line_and_the_status_is_0_whatever_was_found(folder, capsys):
    status, out, err = run(capsys, "--demo", "vanishing")
    assert (status, err) == (0, "")
    assert out.startswith("vanishing at layer 0")
    assert run(capsys, "--demo", "healthy")[1].startswith("healthy: ")
    assert list(folder.glob("*.html")) == []


def test_demos_are_listed_and_a_misspelt_one_is_guessed(capsys, folder):
    status, out, _ = run(capsys, "--demo", "list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(DEMOS)
    assert error_of(capsys, "--demo", "vanishin") == (2, "--demo 'vanishin' is not there; did you mean vanishing?")
    assert error_of(capsys, "--demo", "vanishing", "--data", "x.npy", "--layout", "TBD")[0] == 2


def test_html_json_and_report_are_written_together_and_equal_input_gives_equal_bytes(folder, capsys):
    for k in "ab":
        status, out, _ = run(capsys, "lstm.npz", "--html", f"{k}.html", "--json", f"{k}.json")
        assert status == 0
        assert out
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()
    assert Path("a.html").read_text("utf-8").startswith("<!doctype html>")
    assert strict(Path("a.json").read_text("utf-8"))["command"] == "gradlab diagnose lstm.npz"
    status, out, err = run(capsys, "lstm.npz", "--quiet")
    assert (status, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("demo", "level", "status"),
    [
        ("vanishing", "error", 1),
        ("vanishing", "info", 1),
        ("vanishing", "vanishing", 1),
        ("vanishing", "exploding", 0),
        ("saturated", "warning", 1),
        ("saturated", "error", 0),
        ("healthy", "warning", 0),
    ],
)
def test_fail_on_a_severity_or_a_code_makes_findings_the_status(demo, level, status, capsys):
    assert as_json(capsys, "--demo", demo, "--fail-on", level)[0] == status


def test_what_is_known_of_the_training_reaches_the_rules(folder, capsys):
    _, plain = as_json(capsys, "lstm.npz", "--data", "x.npy", "--layout", "TBD")
    _, told = as_json(capsys, "lstm.npz", "--data", "x.npy", "--layout", "TBD", "--dependency", "11", "--learning-rate", "1e-3")
    assert set(plain["not_judged"]) - set(told["not_judged"]) == {"memory horizon against the dependency"} or len(
        told["not_judged"]
    ) < len(plain["not_judged"])
    assert "--dependency 11" in told["command"]
    assert not any("=" in text for text in plain["not_judged"].values())  # flags, not arguments of functions
    assert any("--dependency" in text for text in plain["not_judged"].values())


# ---- what is read -----------------------------------------------------------------------------------------


def gradients(capsys, *argv):
    return as_json(capsys, *argv)[1]["layers"][0]["log_gradient"]


def test_both_layouts_and_all_formats_give_the_same_numbers(folder, capsys):
    x = np.load("x.npy")
    np.save("b.npy", x.swapaxes(0, 1))
    np.savez("x.npz", inputs=x, targets=np.load("y.npy"), lengths=np.load("lengths.npy"))
    wanted = gradients(capsys, "lstm.npz", "--data", "x.npy", "--layout", "TBD")
    assert gradients(capsys, "lstm.npz", "--data", "b.npy", "--layout", "BTD") == wanted
    assert gradients(capsys, "lstm.npz", "--data", "x.npz", "--layout", "TBD") == wanted
    np.savetxt("one.csv", x[:, 2], delimiter=",", fmt="%.17g")
    np.save("one.npy", x[:, 2:3])
    one = gradients(capsys, "lstm.npz", "--data", "one.npy", "--layout", "TBD")
    assert gradients(capsys, "lstm.npz", "--data", "one.csv") == one
    assert gradients(capsys, "lstm.npz", "--data", "one.csv", "--layout", "BTD") == one
    assert len(wanted) == 12


def test_targets_loss_and_lengths_are_those_of_the_files(folder, capsys):
    data = ("--data", "x.npy", "--layout", "TBD")
    found = gradients(capsys, "lstm.npz", *data, "--target", "y.npy", "--loss", "mse", "--lengths", "lengths.npy")
    made = gradlab.adapters.load("lstm.npz")
    batch = gradlab.Batch(np.load("x.npy"), np.load("y.npy"), lengths=np.load("lengths.npy"))
    record = gradlab.bptt(made.net, made.params, batch, gradlab.mean_squared_error)
    logs = gradlab.analysis.gradient_flow(record).log_total["0"][1:]
    np.testing.assert_allclose(found[0], np.median(logs[0]), rtol=1e-12)  # all five rows have the first step
    np.testing.assert_allclose(found[11], np.sort(logs[11, [0, 3]])[1], rtol=1e-12)  # two have the last, the upper one is shown
    np.save("yb.npy", np.load("y.npy").swapaxes(0, 1))
    np.save("xb.npy", np.load("x.npy").swapaxes(0, 1))
    turned = ("--data", "xb.npy", "--layout", "BTD", "--target", "yb.npy", "--loss", "mse", "--lengths", "lengths.npy")
    assert gradients(capsys, "lstm.npz", *turned) == found
    labels = gradients(capsys, "lstm.npz", *data, "--target", "labels.npy", "--loss", "cross_entropy")
    assert labels != found


def test_the_readout_of_an_imported_network_may_be_the_last_step(folder, capsys):
    np.save("last.npy", np.load("y.npy")[-1])
    _, data = as_json(
        capsys, "lstm.npz", "--data", "x.npy", "--layout", "TBD", "--target", "last.npy", "--loss", "mse", "--readout", "last"
    )
    assert "--readout last" in data["command"]


def test_what_a_file_does_not_say_is_asked_for_by_its_flag(folder, capsys):
    status, line = error_of(capsys, "rnn.npz")
    assert status == 3
    assert "--nonlinearity" in line
    assert "nonlinearity=" not in line
    assert as_json(capsys, "rnn.npz", "--nonlinearity", "tanh")[0] == 0
    assert as_json(capsys, "rnn.npz", "--nonlinearity", "relu", "--naming", "torch", "--reverse")[0] == 0


def test_gradlabs_own_names_take_a_cell(folder, capsys):
    net = gradlab.Network(gradlab.LSTM(coupled=True), 3, 4)
    np.savez("own.npz", **net.init(np.random.default_rng(0)))
    assert error_of(capsys, "own.npz")[0] == 3
    assert as_json(capsys, "own.npz", "--cell", "lstm-coupled")[0] == 0
    (folder / "mine.py").write_text("import gradlab\ndef make():\n    return gradlab.LSTM(coupled=True)\n")
    assert as_json(capsys, "own.npz", "--cell", "mine:make")[0] == 0
    assert error_of(capsys, "own.npz", "--cell", "mine:nothing")[0] == 3
    del sys.modules["mine"]


def test_a_record_and_a_history_are_diagnosed_from_their_files(folder, capsys):
    net = gradlab.Network(gradlab.GRU(), 3, 4)
    keep = ("states", "adjoints", "immediate", "gates")
    x = np.load("x.npy")
    gradlab.bptt(
        net, net.init(np.random.default_rng(0)), gradlab.Batch(x, np.zeros((12, 5, 4))), gradlab.mean_squared_error, keep
    ).save("record.npz")
    assert as_json(capsys, "record.npz")[1]["subject"] == "record.npz: record"
    monitor = gradlab.training.Monitor("run")
    for n in range(60):
        monitor.record(n, loss=9.0 if n == 50 else 1.0 + 1e-3 * (n % 5))
    monitor.flush()
    _, data = as_json(capsys, "run.npz")
    assert [one["place"] for one in data["findings"] if one["code"] == "loss-jumps"] == [{"update": 50}]
    _, both = as_json(capsys, "lstm.npz", "--history", "run.npz")
    assert "loss-jumps" in [one["code"] for one in both["findings"]]
    assert both["layers"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_a_finding(value, folder, capsys):
    bad = weights(4)
    bad["weight_hh_l0"][1, 2] = value
    np.savez("bad.npz", **bad)
    status, data = as_json(capsys, "bad.npz")
    assert status == 0
    assert [(one["code"], one["place"]["parameter"]) for one in data["findings"]] == [("nonfinite", "0.U")]
    assert as_json(capsys, "bad.npz", "--fail-on", "error")[0] == 1


def test_weights_of_zero_and_of_subnormals_are_no_crash(folder, capsys):
    for scale in (0.0, 1e-310):
        np.savez("tiny.npz", **weights(4, scale=scale))
        assert as_json(capsys, "tiny.npz")[0] == 0


@pytest.mark.peer
def test_an_onnx_file_is_fed_through_its_graph(folder, capsys):
    onnx = pytest.importorskip("onnx")
    rng, helper = np.random.default_rng(0), onnx.helper
    stored = [
        onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), key)
        for key, shape in (("W", (1, 16, 3)), ("R", (1, 16, 4)))
    ]
    node = helper.make_node("LSTM", ["X", "W", "R"], ["Y"], name="n", hidden_size=4)
    given = [helper.make_tensor_value_info("X", 1, (12, 5, 3))]
    graph = helper.make_graph([node], "g", given, [helper.make_tensor_value_info("Y", 1, None)], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), "m.onnx")
    wanted = gradients(capsys, "m.onnx", "--data", "x.npy", "--layout", "TBD")
    np.save("b.npy", np.load("x.npy").swapaxes(0, 1))
    assert gradients(capsys, "m.onnx", "--data", "b.npy", "--layout", "BTD", "--layer", "n") == wanted
    assert gradients(capsys, "m.onnx", "--data", "x.npy", "--layout", "graph") == wanted
    assert as_json(capsys, "m.onnx")[0] == 0
    np.save("wrong.npy", np.zeros((12, 5, 2)))
    status, line = error_of(capsys, "m.onnx", "--data", "wrong.npy", "--layout", "TBD")
    assert status == 3
    assert "wrong.npy" in line
    assert "m.onnx" in line
    assert error_of(capsys, "m.onnx", "--data", "x.npy", "--layout", "TBD", "--reset", "after")[0] == 2


# ---- refused ----------------------------------------------------------------------------------------------


def container(header, data=b"", length=None):
    """A safetensors file."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class Payload:
    """Creates a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("marker",)


W = {"weight_ih_l0": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
HOSTILE = {
    "empty.safetensors": b"",
    "empty.npz": b"",
    "empty.onnx": b"",
    "empty.keras": b"",
    "short.safetensors": b"\x10" * 7,
    "long.safetensors": container(W, bytes(16), 2**60),
    "cut.safetensors": container(W, bytes(15)),
    "more.safetensors": container(W, bytes(17)),
    "list.safetensors": container(b"[1]"),
    "negative.safetensors": container({"w": {"dtype": "F32", "shape": [-1, -4], "data_offsets": [0, 16]}}, bytes(16)),
    "wraps.safetensors": container(
        {"w": {"dtype": "F32", "shape": [4194305, 4194305, 211106198978564], "data_offsets": [0, 16]}}, bytes(16)
    ),
    "one.safetensors": container(W, bytes(16)),
    "pickled.npz": pickle.dumps(Payload(), protocol=4),
    "model.pt": pickle.dumps(Payload(), protocol=4),
    "model.pth": b"PK\x03\x04" + bytes(30),
    "zip.npz": b"PK\x03\x04" + bytes(30),
    "gzip.npz": b"\x1f\x8b" + bytes(40),
    "text.onnx": b"hello, world",
    "varint.onnx": b"\x08" + b"\xff" * 12,
    "beyond.onnx": b"\x3a\xff\xff\xff\xff\xff\xff\x7f",
    "hdf.keras": b"\x89HDF\r\n\x1a\n" + bytes(60),
    "array.npy": b"\x93NUMPY\x01\x00" + bytes(60),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_malformed_model_is_refused_in_one_line_that_names_it(name, folder, capsys):
    if name.endswith(".onnx"):
        pytest.importorskip("onnx")
    if name.endswith(".keras"):
        pytest.importorskip("h5py")
    (folder / name).write_bytes(HOSTILE[name])
    status, line = error_of(capsys, name, "--json", "o.json", "--html", "o.html")
    assert status == 3
    assert name in line
    assert not (folder / "marker").exists()


@pytest.mark.parametrize("path", [".", "missing.npz", "/dev/zero", "fifo", "loop", "socket\n\x1b[31m"])
def test_what_is_no_regular_file_is_refused_at_once(path, folder, capsys):
    os.mkfifo("fifo")
    os.symlink("loop", "loop")
    status, line = error_of(capsys, path)
    assert status == 3
    assert "no such regular file" in line
    for flag in ("--data", "--target", "--lengths", "--history"):
        more = () if flag in ("--lengths", "--history") else ("--layout", "TBD") if flag == "--data" else ()
        if flag == "--target":
            more = ("--loss", "mse", "--data", "x.npy", "--layout", "TBD")
        assert error_of(capsys, "lstm.npz", flag, path, *more)[0] == 3


BAD_CSV = [
    b"\xef\xbb\xbf1,2,3\n",
    b"1;2;3\n",
    b"a,b,c\n1,2,3\n",
    b"1,2,3\n4,5\n",
    b"1,2,\xe9\n",
    b"",
    b"1,nan,3\n",
    b"1,2,1e400\n",
]


@pytest.mark.parametrize("content", BAD_CSV)
def test_a_malformed_csv_is_refused_with_file_line_and_column(content, folder, capsys):
    (folder / "d.csv").write_bytes(content)
    status, line = error_of(capsys, "lstm.npz", "--data", "d.csv", "--layout", "TBD")
    assert status == 3
    assert re.match(r"'d\.csv': line \d, column \d: ", line), line


def test_data_and_model_that_do_not_fit_are_both_named(folder, capsys):
    np.save("two.npy", np.zeros((12, 5, 2)))
    assert error_of(capsys, "lstm.npz", "--data", "two.npy", "--layout", "TBD") == (3, "two.npy: 2 features; lstm.npz reads 3")
    np.save("flat.npy", np.zeros((12, 3)))
    status, line = error_of(capsys, "lstm.npz", "--data", "flat.npy", "--layout", "TBD")
    assert status == 3
    assert line.startswith("flat.npy: shape (12, 3); expected 3 axes")
    assert error_of(capsys, "lstm.npz", "--data", "x.npy", "--layout", "BTD", "--lengths", "lengths.npy")[0] == 3
    np.save("empty.npy", np.zeros((0, 5, 3)))
    status, line = error_of(capsys, "lstm.npz", "--data", "empty.npy", "--layout", "TBD")
    assert (status, "empty.npy" in line) == (3, True)


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        ((), "MODEL"),
        (("lstm.npz", "--demo", "healthy"), "one of the two"),
        (("lstm.npz", "--data", "x.npy"), "--data needs --layout"),
        (("lstm.npz", "--layout", "TBD"), "--layout needs --data"),
        (("lstm.npz", "--loss", "mse"), "--loss needs --target"),
        (("lstm.npz", "--target", "y.npy"), "--target needs --loss"),
        (("lstm.npz", "--data", "x.npy", "--layout", "graph"), "ONNX"),
        (("lstm.npz", "--layer", "a"), "--layer has no meaning"),
        (("lstm.npz", "--json", "o", "--html", "o"), "same file"),
        (("lstm.npz", "--fail-on", "bad"), "expected one of info, warning, error"),
        (("lstm.npz", "--seed", "nan"), "'nan'"),
        (("lstm.npz", "--seed", "-1"), "-1"),
        (("lstm.npz", "--learning-rate", "0"), "above 0"),
        (("lstm.npz", "--learning-rate", "inf"), "above 0"),
        (("lstm.npz", "--clip-norm", "1_0"), "above 0"),
        (("lstm.npz", "--dependency", "2.5"), "integer"),
        (("lstm.npz", "--truncation", "0"), "integer"),
        (("lstm.npz", "--max-memory", "big"), "4G"),
        (("lstm.npz", "--max-memory", "0"), "size"),
        (("lstm.npz", "--lay", "TBD"), "unrecognized"),
        (("lstm.npz", "--loss", "l1"), "invalid choice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_command_line_is_status_2_and_makes_no_file(argv, what, folder, capsys):
    status, line = error_of(capsys, *argv)
    assert status == 2
    assert what in line


def test_what_cannot_be_written_or_does_not_fit_is_status_5_before_anything_is_computed(folder, capsys):
    for flag in ("--json", "--html"):
        status, line = error_of(capsys, "lstm.npz", flag, "missing/o")
        assert status == 5
        assert "missing" in line
        assert error_of(capsys, "lstm.npz", flag, "lstm.npz/o")[0] == 5
    status, line = error_of(capsys, "lstm.npz", "--max-memory", "1K")
    assert status == 5
    assert error_of(capsys, "lstm.npz", "--data", "x.npy", "--layout", "TBD", "--max-memory", "1200")[0] == 5


def test_the_help_teaches_with_examples_and_says_the_exit_status(capsys):
    for command in ("diagnose", "compare"):
        assert main([command, "--help"]) == 0
        out = capsys.readouterr().out
        assert f"gradlab {command} " in out
        assert "exit status: 0 done" in out
        assert max(map(len, out.splitlines())) <= 130


# ---- in a real process ------------------------------------------------------------------------------------


def process(*argv, cwd, **changes):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LC_", "LANG"))}
    environment = {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **changes}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "gradlab", *argv],
        capture_output=True,
        cwd=cwd,
        timeout=120,
        env=environment,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode("utf-8")


ENVIRONMENTS = {
    "ascii": {"PYTHONIOENCODING": "ascii", "PYTHONHASHSEED": "1"},
    "posix": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "MPLBACKEND": "nonsense", "TZ": "Asia/Tokyo"},
}


@pytest.mark.parametrize("changes", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_any_encoding_and_environment_gives_a_report_and_the_same_bytes(folder, changes):
    status, out, err = process("diagnose", "lstm.npz", "--html", "a.html", "--json", "a.json", cwd=folder, **changes)
    assert (status, err) == (0, "")
    assert out
    main(["diagnose", "lstm.npz", "--html", "b.html", "--json", "b.json", "--quiet"])
    assert (folder / "a.html").read_bytes() == (folder / "b.html").read_bytes()
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()


def test_names_with_anything_in_them_work_or_are_escaped(folder, capsys):
    for name in ("with blank.npz", "quote'.npz", "-dash.npz", "new\nline.npz", "😀.npz", os.fsdecode(b"\xff\xfe.npz")):
        (folder / name).write_bytes((folder / "lstm.npz").read_bytes())
        given = f"./{name}" if name.startswith("-") else name
        page = ("--html", "o.html") if "\udcff" in name else ()
        status = main(["diagnose", given, "--json", "o.json", *page])
        out = capsys.readouterr().out
        assert status == 0, name
        assert "\nline" not in out
        strict((folder / "o.json").read_text("utf-8"))
    assert "\\udcff" in (folder / "o.html").read_text("utf-8")


# ---- compare ----------------------------------------------------------------------------------------------


def test_two_models_are_compared_finding_by_finding(folder, capsys):
    for name, gain in (("a.npz", 0.2), ("b.npz", 0.2), ("c.npz", 1.0)):
        made = weights(1, H=16)
        made["weight_hh_l0"] = gain * np.linalg.qr(made["weight_hh_l0"])[0]
        np.savez(name, **{key: value * (0.05 if "ih" in key or "bias" in key else 1.0) for key, value in made.items()})
    told = ("--nonlinearity", "tanh")
    assert main(["compare", "a.npz", "b.npz", *told]) == 0
    out = capsys.readouterr().out
    assert re.match(r"0 gone, 0 new, 0 changed, [1-9]\d* same\n", out)
    assert main(["compare", "a.npz", "c.npz", *told, "--json", "-"]) == 0
    data = strict(capsys.readouterr().out)
    assert data["schema"] == "gradlab-comparison-1"
    assert ("vanishing", "gone") in [((row["after"] or row["before"])["code"], row["change"]) for row in data["rows"]]
    assert data["before"]["subject"] != data["after"]["subject"]
    # What is gone is no failure; what is new is one.
    assert main(["compare", "a.npz", "c.npz", *told, "--fail-on", "warning", "--quiet"]) == 0
    assert main(["compare", "c.npz", "a.npz", *told, "--fail-on", "warning", "--quiet"]) == 1
    assert main(["compare", "c.npz", "a.npz", *told, "--fail-on", "exploding", "--quiet"]) == 0
    assert main(["compare", "a.npz", "b.npz", *told, "--fail-on", "info", "--quiet"]) == 0


def test_two_histories_are_compared_and_a_bad_second_file_is_named(folder, capsys):
    for name, jump in (("a", 9.0), ("b", 1.0)):
        monitor = gradlab.training.Monitor(name)
        for n in range(60):
            monitor.record(n, loss=jump if n == 50 else 1.0 + 1e-3 * (n % 5))
        monitor.flush()
    assert main(["compare", "a.npz", "b.npz"]) == 0
    assert capsys.readouterr().out.startswith("1 gone, ")
    (folder / "bad.npz").write_bytes(b"PK\x03\x04" + bytes(30))
    status, line = error_of(capsys, "a.npz", "bad.npz", command="compare")
    assert status == 3
    assert "bad.npz" in line
    assert error_of(capsys, "a.npz", "b.npz", "--json", "missing/o", command="compare")[0] == 5
