"""ONNX files that are damaged or hostile: gradlab's errors alone, nothing opened, little memory."""

import contextlib
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import Case, model_of

from gradlab.adapters import from_onnx, node_inputs, onnx_io_file
from gradlab.errors import FormatError, GradlabError, ResourceRefused, UnsafeFileError

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'gradlab[onnx]'")
pytestmark = pytest.mark.peer

BASES = [
    Case("LSTM", peepholes=1, clip=0.5, activations=["Sigmoid", "Tanh", "Elu"], activation_alpha=[0.3]),
    Case("GRU", direction="bidirectional", linear_before_reset=1),
]
FILES = [case.model.SerializeToString() for case in BASES]


def field(number, data):
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


@settings(max_examples=300)
@given(st.data())
def test_a_mutated_model_loads_or_raises_a_gradlab_error(data):
    which = data.draw(st.integers(0, 1))
    content = bytearray(FILES[which])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)) | st.integers(0, min(400, len(content))))  # names and lengths are in front
        kind = data.draw(st.sampled_from(["flip", "insert", "delete", "cut"]))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del content[at : at + data.draw(st.integers(1, 8))]
        elif kind == "cut":
            del content[at:]
    for read in (from_onnx, lambda source: node_inputs(source, {"X": BASES[which].X}, "n")):
        with contextlib.suppress(GradlabError):
            read(bytes(content))


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd", "..\\weights.bin", ""])
@pytest.mark.parametrize("place", ["initializer", "attribute", "function", "sparse"])
def test_data_in_another_file_is_refused_wherever_it_is(place, location, tmp_path):
    outside = onnx.TensorProto(name="W", data_type=1, dims=[1])
    outside.external_data.add(key="location", value=location)
    outside.external_data.add(key="offset", value="0")
    model = Case("RNN").model
    if place == "initializer":
        model.graph.initializer.append(outside)
    elif place == "attribute":
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=outside))
    elif place == "function":
        inner = onnx.helper.make_node("Constant", [], ["c"], value=outside)
        model.functions.append(onnx.FunctionProto(name="f", node=[inner]))
    else:
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=outside))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeFileError, match=r"m\.onnx.*data is in another file"):
        from_onnx(path)
    with pytest.raises(UnsafeFileError):
        from_onnx(model)


def test_a_tensor_that_only_says_that_its_data_is_elsewhere_is_refused():
    model = Case("RNN").model
    model.graph.initializer[0].data_location = 1
    with pytest.raises(UnsafeFileError):
        from_onnx(model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (field(7, field(1, b"") * 40_000), "more than 30000 fields"),
        (b"\x3b" * 200_000, "no protobuf field"),  # groups within groups
        (b"\xff" * 20, "unfinished number"),
        (b"\x00" * 20, "no protobuf field"),
        (varint(7 << 3 | 2) + varint(2**40), "cut short"),
        (field(7, field(2, b"\xff\xfe")), "not UTF-8"),
        (field(7, field(10, b"x" * (2**20 + 1))), "a string of 1048577 bytes"),
        (b"", "holds no graph"),
        (FILES[0][:-1], "cut short"),
    ],
    ids=["fields", "groups", "number", "zeros", "length", "text", "string", "empty", "cut"],
)
def test_a_malformed_file_is_refused_with_little_memory(content, message, monkeypatch):
    monkeypatch.setattr(onnx_io_file, "MAX_FIELDS", 30_000)
    from_onnx(FILES[0])  # what is imported once does not count
    tracemalloc.start()
    with pytest.raises(FormatError, match=message):
        from_onnx(content)
    assert tracemalloc.get_traced_memory()[1] < 2**20 + 2 * len(content)
    tracemalloc.stop()


def nested(depth):
    model = b""
    for _ in range(depth):
        model = field(1, field(5, field(6, model)))  # node, attribute, graph
    return field(7, model)


def test_deep_nesting_is_refused():
    with pytest.raises(FormatError, match="nested more than 64 deep"):
        from_onnx(nested(40))


@pytest.mark.parametrize("dims", [(2**31, 2**31), (-1, 4), (1,) * 9, (4194305, 4194305, 211106198978564)])
def test_dimensions_that_do_not_go_with_the_data_are_refused_without_allocation(dims):
    model = Case("RNN").model
    tensor = next(t for t in model.graph.initializer if t.name == "W")
    tensor.ClearField("dims")
    tensor.dims.extend(dims)
    with pytest.raises(FormatError, match="tensor 'W'"):
        from_onnx(model)


def test_a_type_of_data_that_is_no_weight_is_refused_by_name():
    case = Case("RNN")
    case.arrays["W"] = case.arrays["W"].astype(np.complex64)
    with pytest.raises(FormatError, match="tensor 'W': data type 14"):
        from_onnx(case.model)
    case.arrays["W"] = case.arrays["W"].real.astype(np.int32)
    with pytest.raises(FormatError, match="W has dtype int32"):
        from_onnx(case.model)


def test_two_initializers_of_one_name_are_refused():
    model = Case("RNN").model
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(FormatError, match="two initializers are called"):
        from_onnx(model)


def test_a_model_above_the_memory_limit_is_refused():
    with pytest.raises(ResourceRefused, match="give a larger max_memory"):
        from_onnx(FILES[0], max_memory=1000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_or_a_folder_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none"):
        with pytest.raises(FormatError, match="no such regular file"):
            from_onnx(path)


def test_importing_the_adapters_loads_no_framework_and_a_missing_one_is_named():
    code = """
import sys
import gradlab.adapters as a
print(*[name for name in ("torch", "keras", "onnx", "onnxruntime", "h5py", "safetensors") if name in sys.modules])
sys.modules["onnx"] = None
try:
    a.from_onnx(b"")
except ImportError as error:
    print(isinstance(error, __import__("gradlab").GradlabError), "pip install 'gradlab[onnx]'" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == ["", "True True"]


def test_the_base_files_load():
    assert [type(from_onnx(content)[0].net.layers[0].cell).__name__ for content in FILES] == ["Completed", "GRU"]
    assert model_of("RNN", Case("RNN").arrays, {}) is not None
