"""Archives are written whole or not at all, and read without running anything: only GradlabError leaves the reader."""

import io
import os
import pickle
import stat
import struct
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab._files import HEADER, MAX_HEADER, MAX_MEMBERS, atomic_write, dump_json, read_npz, write_bytes, write_npz
from gradlab.errors import FormatError, GradlabError, ResourceRefused, UnsafeFileError

CONTENT = {"schema": 1, "text": "λ = −1", "nested": {"b": [1.5, None], "a": True}}


def arrays():
    rng = np.random.default_rng(0)
    return {
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3)),
        "float64": rng.normal(size=(3, 2)),
        "float32": rng.normal(size=4).astype(np.float32),
        "complex": rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2)),
        "integers": np.arange(-3, 3),
        "flags": np.array([True, False]),
        "special": np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324]),
        "deep/er/name": np.asfortranarray(rng.normal(size=(3, 4))),
        "view": rng.normal(size=(6, 4))[::2, 1:],
    }


def npy(header, data=b""):
    """An array file with any text as its header."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def described(descr, shape, data, fortran="False"):
    return npy(f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}", data)


def archive_at(path, members, **options):
    """A zip with a valid gradlab header and `members`, whatever they are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(HEADER, options.pop("header", b"{}"))
        for name, data in members:
            archive.writestr(name, data)
    return path


ONE = described("'<f8'", "(1,)", b"\0" * 8)


# ---- writing ----------------------------------------------------------------------------------------------


def test_header_and_arrays_come_back_with_values_shapes_and_dtypes(tmp_path):
    write_npz(tmp_path / "a.npz", CONTENT, arrays())
    header, back = read_npz(tmp_path / "a.npz")
    assert header == CONTENT
    assert list(back) == list(arrays())
    for name, array in arrays().items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array, strict=True)
        assert np.array_equal(np.signbit(back[name].real), np.signbit(array.real))  # -0.0 stays -0.0


def test_arrays_that_were_read_may_be_written_to(tmp_path):
    write_npz(tmp_path / "a.npz", {}, {"x": np.arange(3.0)})
    _, back = read_npz(tmp_path / "a.npz")
    back["x"][0] = 7.0
    np.testing.assert_array_equal(back["x"], [7.0, 1.0, 2.0])


def test_equal_content_gives_equal_bytes_at_any_time_and_under_any_name(tmp_path, monkeypatch):
    write_npz(tmp_path / "a.npz", CONTENT, arrays())
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_npz(tmp_path / "b.npz", dict(reversed(CONTENT.items())), arrays())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_numpy_itself_reads_the_arrays(tmp_path):
    write_npz(tmp_path / "a.npz", CONTENT, {"x": np.arange(3.0)})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["x"], [0.0, 1.0, 2.0])


def test_a_large_array_of_zeros_comes_back(tmp_path):
    # A vanished gradient is mostly zeros and deflates a thousand to one: what gradlab writes it must read.
    write_npz(tmp_path / "a.npz", {}, {"immediate": np.zeros((70, 2**20), bool)})
    _, back = read_npz(tmp_path / "a.npz")
    assert back["immediate"].shape == (70, 2**20)
    assert not back["immediate"].any()


def test_objects_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_npz(tmp_path / "a.npz", {}, {"x": np.array([{}], dtype=object)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_json_holds_no_number_that_json_does_not_know(value, tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        dump_json({"x": value})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_npz(tmp_path / "a.npz", {"x": value}, {})
    assert list(tmp_path.iterdir()) == []


def test_json_is_utf8_with_sorted_keys():
    assert dump_json({"b": 1, "a": "λ"}) == '{\n "a": "λ",\n "b": 1\n}\n'.encode()


@pytest.mark.parametrize("failure", [RuntimeError("planted"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_an_exception_while_writing_leaves_the_old_file_and_no_temporary(failure, tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def write():
        with atomic_write(target) as stream:
            stream.write(b"half of the new")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failing_rename_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def refuse(source, destination):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ResourceRefused, match=r"a\.bin: cannot be written \(No space left on device\)"):
        write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_has_the_final_name_before_everything_is_written(tmp_path):
    with atomic_write(tmp_path / "a.bin") as stream:
        stream.write(b"half")
        stream.flush()
        assert not (tmp_path / "a.bin").exists()
        stream.write(b" and half")
    assert (tmp_path / "a.bin").read_bytes() == b"half and half"


def test_the_umask_decides_who_may_read(tmp_path):
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a.bin", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


def test_a_folder_that_does_not_exist_is_refused_by_name(tmp_path):
    with pytest.raises(ResourceRefused, match=r"nowhere/a\.npz: cannot be written \(No such file"):
        write_npz(tmp_path / "nowhere" / "a.npz", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ResourceRefused, match=r"file/a\.bin: cannot be written \(Not a directory\)"):
        write_bytes(tmp_path / "file" / "a.bin", b"x")


def test_a_folder_in_place_of_the_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(ResourceRefused, match=r"a\.bin: cannot be written"):
        write_bytes(tmp_path / "a.bin", b"x")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.bin"]


@pytest.mark.parametrize(
    "name", ["with space", "-dash", "new\nline", "x" * 255, "λ" * 127, "😀" * 60], ids=lambda n: ascii(n)[:12]
)
def test_every_name_that_the_system_takes_can_be_written(name, tmp_path):
    write_bytes(tmp_path / name, b"x")
    assert [p.name for p in tmp_path.iterdir()] == [name]


# ---- reading: what is refused -----------------------------------------------------------------------------


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    for path in (tmp_path / "missing.npz", tmp_path):
        with pytest.raises(FormatError, match=f"{path.name}.*no such regular file"):
            read_npz(path)


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(FormatError, match="no such regular file"):
        read_npz(tmp_path / "pipe.npz")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    write_npz(tmp_path / "a.npz", CONTENT, {"x": np.arange(5.0), "y": np.ones(2)})
    whole = (tmp_path / "a.npz").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"cut\.npz"):
            read_npz(tmp_path / "cut.npz")


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_one_flipped_byte_anywhere_is_refused_or_harmless(mask, tmp_path):
    original = {"x": np.arange(5.0), "y": np.ones((2, 1))}
    write_npz(tmp_path / "a.npz", CONTENT, original)
    whole = (tmp_path / "a.npz").read_bytes()
    accepted, silent = 0, []
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= mask
        (tmp_path / "flipped.npz").write_bytes(flipped)
        try:
            header, back = read_npz(tmp_path / "flipped.npz")
        except GradlabError:
            continue
        accepted += 1  # dates, permissions and the like in the directory: they change no number
        if header != CONTENT or list(back) != list(original) or any(not np.array_equal(back[k], original[k]) for k in original):
            silent.append((position - len(whole), list(back)))
    assert silent == []  # positions counted from the end of the file, and the arrays that were read instead
    assert accepted < len(whole) / 2  # most bytes do matter, or the loop tested nothing


@given(
    edits=st.lists(
        st.tuples(st.integers(0, 10**6), st.sampled_from(["flip", "insert", "delete"]), st.integers(0, 255)), max_size=8
    ),
    end=st.integers(0, 10**6),
)
@settings(max_examples=300)
def test_any_damage_gives_arrays_or_a_gradlab_error(edits, end, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    write_npz(path, CONTENT, {"x": np.arange(5.0), "c": np.ones(3, complex)})
    data = bytearray(path.read_bytes())
    for position, kind, value in edits:
        at = position % len(data)
        if kind == "flip":
            data[at] ^= value
        elif kind == "insert":
            data.insert(at, value)
        else:
            del data[at]
    path.write_bytes(data[: len(data) - end % 40])
    try:
        header, back = read_npz(path)
    except GradlabError:
        return
    assert isinstance(header, dict)
    assert all(isinstance(array, np.ndarray) for array in back.values())


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_an_array_of_objects_is_refused_and_never_unpickled(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(tmp_path / "marker")], dtype=object), allow_pickle=True)
    archive_at(tmp_path / "a.npz", [("x.npy", buffer.getvalue())])
    with pytest.raises(UnsafeFileError, match=r"a\.npz', member 'x\.npy': holds Python objects"):
        read_npz(tmp_path / "a.npz")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("descr", ["'|O'", "[('a', '|O')]", "[('a', '<f8'), ('b', [('c', '|O')])]"])
def test_objects_hidden_in_a_structure_are_refused(descr, tmp_path):
    archive_at(tmp_path / "a.npz", [("x.npy", described(descr, "(1,)", b"\0" * 16))])
    with pytest.raises(UnsafeFileError, match=r"member 'x\.npy'"):
        read_npz(tmp_path / "a.npz")


def test_a_pickle_under_the_name_npz_is_refused_and_never_unpickled(tmp_path):
    (tmp_path / "a.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "marker")))
    with pytest.raises(FormatError, match=r"a\.npz"):
        read_npz(tmp_path / "a.npz")
    assert not (tmp_path / "marker").exists()


def test_a_pickle_as_a_member_is_refused_and_never_unpickled(tmp_path):
    archive_at(tmp_path / "a.npz", [("x.npy", pickle.dumps(Bomb(tmp_path / "marker"))), ("y.pkl", b"")])
    with pytest.raises(FormatError, match=r"member 'y\.pkl'"):
        read_npz(tmp_path / "a.npz")
    archive_at(tmp_path / "b.npz", [("x.npy", pickle.dumps(Bomb(tmp_path / "marker")))])
    with pytest.raises(FormatError, match=r"b\.npz"):
        read_npz(tmp_path / "b.npz")
    assert not (tmp_path / "marker").exists()


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    """One member of 1 GiB of zeros in about 1 MB, written by streaming."""
    path = tmp_path_factory.mktemp("bomb") / "bomb.npz"
    size = 2**30
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(HEADER, b"{}")
        with archive.open("x.npy", "w", force_zip64=True) as stream:
            stream.write(described("'|u1'", f"({size},)", b""))
            block = bytes(2**22)
            for _ in range(size // len(block)):
                stream.write(block)
    assert path.stat().st_size < 2**23
    return path


@pytest.mark.parametrize("max_memory", [None, 2**20, 2**24])
def test_a_megabyte_that_inflates_to_a_gibibyte_is_refused_at_once(bomb, max_memory):
    start = time.perf_counter()
    with pytest.raises((FormatError, ResourceRefused), match=r"bomb\.npz"):
        read_npz(bomb, max_memory)
    # Inflating it takes a second or more; reading the directory takes a millisecond. 0.2 s allows for a busy machine.
    assert time.perf_counter() - start < 0.2


def test_more_than_max_memory_is_refused_with_both_numbers(tmp_path):
    noise = np.random.default_rng(0).normal(size=2**17)  # 1 MiB that does not deflate
    write_npz(tmp_path / "a.npz", {}, {"x": noise})
    with pytest.raises(ResourceRefused, match=r"a\.npz' holds 1 MiB, the limit is 0\.5 MiB"):
        read_npz(tmp_path / "a.npz", max_memory=2**19)
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz", max_memory=2**21)[1]["x"], noise)


def test_many_members_are_counted_together(tmp_path):
    write_npz(tmp_path / "a.npz", {}, {str(k): np.zeros(2**14) for k in range(16)})  # 128 KiB each, 2 MiB in all
    with pytest.raises(ResourceRefused, match="2 MiB"):
        read_npz(tmp_path / "a.npz", max_memory=2**20)


def patched(path, member, **fields):
    """Rewrite fields of a member's entry in both directories of a zip: flag (2 bytes), method (2), size (4)."""
    data = bytearray(path.read_bytes())
    places = {"flag": (6, 8, "<H"), "method": (8, 10, "<H"), "size": (22, 24, "<I")}
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    central = data.rindex(b"PK\x01\x02", 0, data.rindex(member.encode()))
    for field, value in fields.items():
        local_at, central_at, form = places[field]
        struct.pack_into(form, data, info.header_offset + local_at, value)
        struct.pack_into(form, data, central + central_at, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [1, 2**16, 2**32 - 2])
def test_a_member_that_lies_about_its_size_is_refused(size, tmp_path):
    path = patched(archive_at(tmp_path / "a.npz", [("x.npy", described("'<f8'", "(1000,)", bytes(8000)))]), "x.npy", size=size)
    with pytest.raises(GradlabError, match=r"a\.npz"):
        read_npz(path, max_memory=2**24)


def test_an_encrypted_member_is_refused(tmp_path):
    path = patched(archive_at(tmp_path / "a.npz", [("x.npy", ONE)]), "x.npy", flag=1)
    with pytest.raises(FormatError, match=r"a\.npz', member 'x\.npy': encrypted"):
        read_npz(path)


@pytest.mark.parametrize("method", [97, 12, 14, 9])
def test_an_unknown_compression_is_refused(method, tmp_path):
    path = patched(archive_at(tmp_path / "a.npz", [("x.npy", ONE)]), "x.npy", method=method)
    with pytest.raises(FormatError, match=r"a\.npz', member 'x\.npy'.*unknown compression"):
        read_npz(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")  # of the writer, which must be talked into it
def test_a_name_that_occurs_twice_is_refused(tmp_path):
    with pytest.raises(FormatError, match="occurs twice"):
        read_npz(archive_at(tmp_path / "a.npz", [("x.npy", ONE), ("x.npy", ONE)]))


@pytest.mark.parametrize("name", ["../../evil.npy", "a/../evil.npy", "x.txt", "x", ".npy/", "folder/"])
def test_a_member_that_is_no_array_or_climbs_out_is_refused(name, tmp_path):
    with pytest.raises(FormatError, match=r"a\.npz', member '.*': expected header\.json or an array named \*\.npy"):
        read_npz(archive_at(tmp_path / "a.npz", [(name, ONE)]))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_too_many_members_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for k in range(MAX_MEMBERS + 1):
            archive.writestr(zipfile.ZipInfo(f"{k}.npy"), b"")
    with pytest.raises(FormatError, match=f"{MAX_MEMBERS + 1} members; expected at most {MAX_MEMBERS}"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"a": 1} x',
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b"1" * 5000,
        b'{"a": "\xed\xa0"}',
    ],
    ids=lambda h: ascii(h[:6]) + f"x{len(h)}",
)
def test_a_header_that_is_no_json_object_is_refused(header, tmp_path):
    with pytest.raises(FormatError, match=r"a\.npz"):
        read_npz(archive_at(tmp_path / "a.npz", [("x.npy", ONE)], header=header))


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_a_header_with_a_number_that_json_does_not_know_is_refused(number, tmp_path):
    with pytest.raises(FormatError, match=r"a\.npz"):
        read_npz(archive_at(tmp_path / "a.npz", [], header=b'{"x": ' + number + b"}"))


def test_a_giant_header_is_refused_unread(tmp_path):
    path = archive_at(tmp_path / "a.npz", [], header=b'{"a": "' + b" " * MAX_HEADER + b'"}')
    with pytest.raises(FormatError, match=f"expected at most {MAX_HEADER}"):
        read_npz(path)


def test_an_archive_without_header_or_without_members_is_refused(tmp_path):
    np.savez(tmp_path / "plain.npz", x=np.zeros(2))
    with zipfile.ZipFile(tmp_path / "none.npz", "w"):
        pass
    for name in ("plain.npz", "none.npz"):
        with pytest.raises(FormatError, match=f"{name}.*no header.json"):
            read_npz(tmp_path / name)


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (described("'<f8'", "(2,)", bytes(17)), "trailing byte"),
        (described("'<f8'", "(3,)", bytes(16)), "one element short"),
        (described("'<f8'", "(-1, 4)", bytes(32)), "negative axis"),
        (described("'<f8'", "(-1, -4)", bytes(32)), "two negative axes"),
        (described("'<f8'", "(True,)", bytes(8)), "boolean axis"),
        (described("'<f8'", "(1.0,)", bytes(8)), "float axis"),
        (described("'<f8'", "('1',)", bytes(8)), "text axis"),
        (described("'<f8'", "[1]", bytes(8)), "list as shape"),
        (described("'<f8'", f"({2**62}, {2**62})", bytes(8)), "size beyond 64 bits"),
        (described("'<f8'", "(4194305, 4194305, 211106198978564)", bytes(32)), "size that wraps to a small one"),
        (described("'<f8'", f"(0, {10**30})", b""), "empty, with an axis beyond 64 bits"),
        (described("'<f8'", f"({'1, ' * 9})", bytes(8)), "rank 9"),
        (described("'|V0'", "(4,)", b""), "void of no bytes"),
        (described("'|V8'", "(1,)", bytes(8)), "void"),
        (described("'<U4'", "(1,)", bytes(16)), "text"),
        (described("'<U1'", "(1,)", b"\xff" * 4), "text that is no text"),
        (described("'|S4'", "(1,)", bytes(4)), "bytes"),
        (described("'<M8[s]'", "(1,)", bytes(8)), "dates"),
        (described("[('a', '<f8')]", "(1,)", bytes(8)), "structure"),
        (described("('<f8', (2,))", "(1,)", bytes(16)), "subarray"),
        (described("'<f8'", "(1,)", bytes(8), fortran="1"), "order that is no boolean"),
        (described("'nonsense'", "(1,)", bytes(8)), "unknown dtype"),
        (b"", "nothing"),
        (b"\x93NUMPY", "magic alone"),
        (b"\x93NUMPY\x03\x00" + bytes(20), "version 3"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "header length past the end"),
        (b"PK\x03\x04" + bytes(100), "another format"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_member_that_is_no_plain_array_of_numbers_is_refused(member, why, tmp_path):
    with pytest.raises(FormatError, match=r"a\.npz"):
        read_npz(archive_at(tmp_path / "a.npz", [("x.npy", member)]))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "[]",
        "{'descr': '<f8', 'fortran_order': False}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2",
        "{'descr': '<f8', 'fortran_order': False, 'shape': ('''",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2L,), }",
        "{1: 1, 'descr': 2}",
        "{[]: 1}",
        "{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,), }",
        "(" * 5000,
        "-" * 9000 + "1",
        "\\",
        "\0",
        "  1\n 2",
    ],
    ids=lambda h: ascii(h)[:60],
)
def test_an_array_header_that_is_no_header_is_refused(header, tmp_path):
    with pytest.raises(FormatError, match=r"a\.npz"):
        read_npz(archive_at(tmp_path / "a.npz", [("x.npy", npy(header, bytes(16)))]))


@given(
    text=st.text(st.characters(codec="latin1"), max_size=40),
    at=st.integers(0, 70),
    cut=st.integers(0, 8),
    data=st.sampled_from([b"", bytes(8), bytes(24)]),
)
@settings(max_examples=300)
def test_any_array_header_gives_an_array_or_a_gradlab_error(text, at, cut, data, tmp_path_factory):
    # The zip's checksum is right here: only the array's own header is damaged.
    whole = "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }"
    path = tmp_path_factory.getbasetemp() / "header.npz"
    archive_at(path, [("x.npy", npy(whole[:at] + text + whole[at + cut :], data))])
    try:
        _, back = read_npz(path)
    except GradlabError:
        return
    assert back["x"].dtype.kind in "biufc"


def test_text_after_the_archive_and_data_before_it_change_no_number(tmp_path):
    # zipfile finds the directory from the end; what it then reads is still checked by its CRC.
    write_npz(tmp_path / "a.npz", CONTENT, {"x": np.arange(3.0)})
    whole = (tmp_path / "a.npz").read_bytes()
    for data in (b"#!/bin/sh\n" + whole, whole + b"trailing"):
        (tmp_path / "b.npz").write_bytes(data)
        try:
            header, back = read_npz(tmp_path / "b.npz")
        except FormatError:
            continue
        assert header == CONTENT
        np.testing.assert_array_equal(back["x"], [0.0, 1.0, 2.0])


def test_reading_leaves_no_file_open_and_writes_nothing(tmp_path):
    write_npz(tmp_path / "a.npz", CONTENT, {"x": np.arange(3.0)})
    before = (tmp_path / "a.npz").read_bytes()
    opened = len(os.listdir("/proc/self/fd"))
    for damage in (before, before[:-5], before[:60] + b"\xff" + before[61:]):
        (tmp_path / "a.npz").write_bytes(damage)
        try:
            read_npz(tmp_path / "a.npz")
        except GradlabError:
            continue
    assert len(os.listdir("/proc/self/fd")) == opened
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_the_checksum_of_a_member_is_what_catches_altered_numbers(tmp_path):
    # Stored, not deflated: one altered byte of data would otherwise read as another number.
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(HEADER, b"{}")
        archive.writestr("x.npy", described("'<f8'", "(1,)", struct.pack("<d", 1.5)))
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data.replace(struct.pack("<d", 1.5), struct.pack("<d", 2.5)))
    with pytest.raises(FormatError, match="CRC"):
        read_npz(tmp_path / "a.npz")
