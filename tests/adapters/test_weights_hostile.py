"""Weights files that are damaged or hostile: gradlab's errors alone, nothing run, little memory."""

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradlab
from gradlab.adapters import Imported, load, save
from gradlab.errors import FormatError, GradlabError, UnsafeFileError

SPANS = {"weight_ih_l0": ([8, 1], 0), "weight_hh_l0": ([8, 2], 32)}


def container(header, data=bytes(96), length=None):
    """A safetensors file of any header, text or object."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def header(**changes):
    """A valid header of a small LSTM, with entries changed; None leaves one out."""
    own = {}
    for name, (shape, first) in SPANS.items():
        size = 4 * shape[0] * shape[1]
        own[name] = {"dtype": "F32", "shape": shape, "data_offsets": [first, first + size]}
    for name, change in changes.items():
        own[name] = own.get(name, {}) | change if isinstance(change, dict) else change
    return own


def read(content, tmp_path, name="w.safetensors"):
    path = tmp_path / name
    path.write_bytes(content)
    return load(path)


def test_the_control_file_loads(tmp_path):
    values = np.arange(24, dtype=np.float32)
    found = read(container(header(), values.tobytes()), tmp_path)
    np.testing.assert_array_equal(found.params["0.W"], values[:8].reshape(8, 1))
    np.testing.assert_array_equal(found.params["0.U"], values[8:].reshape(8, 2))


GOOD = container(header())
W = "weight_hh_l0"
BROKEN = {
    "0 bytes": b"",
    "7 bytes": b"\x10" * 7,
    "header of 0": container(b""),
    "header of 2^60": container(header(), length=2**60),
    "header of 2^64 - 1": container(header(), length=2**64 - 1),
    "header beyond the end": container(header(), length=99_000_000),
    "last byte missing": GOOD[:-1],
    "one byte more": GOOD + b"\0",
    "hole": container(header(**{W: {"data_offsets": [36, 100]}}), bytes(100)),
    "overlap": container(header(**{W: {"data_offsets": [28, 92]}}), bytes(92)),
    "NUL behind the JSON": container(json.dumps(header()).encode() + b"\0\0"),
    "not UTF-8": container(b'{"\xff": 1}'),
    "a list": container(b"[1, 2]"),
    "not JSON": container(b"{,}"),
    "nested": container(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "twice": container(b'{"weight_hh_l0": {}, ' + json.dumps(header()).encode()[1:]),
    "metadata": container(header(__metadata__={"a": 1})),
    "metadata list": container(header(__metadata__=["a"])),
    "no offsets": container(header(x={"dtype": "F32", "shape": [0]})),
    "more keys": container(header(**{W: {"more": 1}})),
    "negative": container(header(**{W: {"shape": [-8, -2]}})),
    "float": container(header(**{W: {"shape": [8.0, 2]}})),
    "text": container(header(**{W: {"shape": ["8", 2]}})),
    "boolean": container(header(**{W: {"shape": [True, 16]}})),
    "wraps": container(header(**{W: {"shape": [4194305, 4194305, 211106198978564]}})),
    "rank": container(header(**{W: {"shape": [8, 2, *[1] * 7]}})),
    "infinite": container(json.dumps(header()).encode().replace(b"[8, 2]", b"[8, Infinity]")),
    "offsets turned": container(header(**{W: {"data_offsets": [96, 32]}})),
    "huge offsets": container(header(**{W: {"data_offsets": [2**80, 2**80 + 64]}})),
    "entry": container(header(**{W: 3})),
    "F128": container(header(**{W: {"dtype": "F128"}})),
    "F8": container(header(**{W: {"dtype": "F8_E4M3"}})),
    "list of dtypes": container(header(**{W: {"dtype": ["F32"]}})),
    "integers": container(header(**{W: {"dtype": "I32"}})),
    "long name": container(header(**{"x" * 1025: {"dtype": "F32", "shape": [0], "data_offsets": [96, 96]}})),
    "many": container({f"t{k}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for k in range(25_000)}),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(90),
    "gzip": b"\x1f\x8b" + bytes(90),
    "array": b"\x93NUMPY\x01\x00" + bytes(90),
    "text file": b"hello, world, this is no file of weights",
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("name", ["w.safetensors", "w.npz"])
def test_a_malformed_file_is_refused_with_little_memory(case, name, tmp_path):
    tracemalloc.start()
    with pytest.raises(FormatError, match=name):
        read(BROKEN[case], tmp_path, name)
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


def test_half_precisions_are_decoded_exactly(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=24).astype(np.float32)
    small = {"weight_ih_l0": {"shape": [8, 1], "data_offsets": [0, 16]}, W: {"shape": [8, 2], "data_offsets": [16, 48]}}
    upper = (values.view(np.uint32) >> 16).astype("<u2")
    for dtype, data, wanted in (
        ("F16", values.astype("<f2").tobytes(), values.astype(np.float16)),
        ("BF16", upper.tobytes(), (upper.astype(np.uint32) << 16).view(np.float32)),
    ):
        changed = {key: entry | {"dtype": dtype} for key, entry in small.items()}
        found = read(container(header(**changed), data), tmp_path)
        np.testing.assert_array_equal(found.params["0.U"].ravel(), wanted[8:].astype(np.float64))
    assert np.array([0x3F80], np.uint16).astype(np.uint32)[0] << 16 == np.float32(1.0).view(np.uint32)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.pt", "w.pkl", "w"])
@pytest.mark.parametrize("form", ["pickle", "zip", "object array", "pickled member"])
def test_nothing_is_ever_unpickled(form, name, tmp_path):
    marker = tmp_path / "marker"
    raw = pickle.dumps(Payload(str(marker)), protocol=4)
    buffer = io.BytesIO()
    if form == "pickle":
        buffer.write(raw)
    elif form == "object array":
        np.savez(buffer, weight_hh_l0=np.array([Payload(str(marker))]), weight_ih_l0=np.zeros((4, 1)))
    else:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl" if form == "zip" else "weight_hh_l0.npy", raw)
    with pytest.raises(FormatError):
        read(buffer.getvalue(), tmp_path, name)
    if form in ("pickle", "zip", "object array"):
        with pytest.raises(UnsafeFileError):
            read(buffer.getvalue(), tmp_path, name)
    assert not marker.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_or_a_folder_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", tmp_path, tmp_path / "none.npz", "a\0b"):
        with pytest.raises(FormatError, match="no such regular file"):
            load(path)
    for path in (3, None, b"w.npz"):
        with pytest.raises(GradlabError):
            load(path)


def test_an_archive_that_inflates_is_refused_before_it_does(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("weight_hh_l0.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (2**15, 2**13)})
        for _ in range(64):
            member.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(GradlabError):
        read(buffer.getvalue(), tmp_path, "w.npz")
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Bytes of small valid files in every naming and format, with what `load` has to be told."""
    folder = tmp_path_factory.mktemp("bases")
    found = []
    for cell, layout in ((gradlab.LSTM(), "torch"), (gradlab.GRU(), "keras"), (gradlab.SCRN(2), "gradlab")):
        net = gradlab.Network(cell, 2, 3, bidirectional=True)
        for ending in (".npz", ".safetensors"):
            save(folder / f"w{ending}", Imported(net, net.init(np.random.default_rng(0)), "x"), layout=layout)
            found.append(((folder / f"w{ending}").read_bytes(), {"cell": cell} if layout == "gradlab" else {}))
    return folder, found


@settings(max_examples=250)
@given(data=st.data())
def test_a_mutated_file_loads_or_raises_a_gradlab_error(data, bases):
    folder, found = bases
    content, told = data.draw(st.sampled_from(found))
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)) | st.integers(0, min(800, len(content))))  # the header is in front
        kind = data.draw(st.sampled_from(["flip", "insert", "delete", "cut", "sign"]))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "sign" and at < len(content):
            content[at] = data.draw(st.sampled_from(b'0123456789{}[],:"'))
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del content[at : at + data.draw(st.integers(1, 8))]
        elif kind == "cut":
            del content[at:]
    path = folder / "mutated.npz"
    path.write_bytes(content)
    with suppress(GradlabError):
        load(path, **told)
