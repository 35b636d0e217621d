"""Data files: what is read, and what is refused with file, line and column."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from gradlab.diagnosis.arrays import named_arrays, read_array
from gradlab.errors import FormatError, GradlabError, ResourceRefused, UnsafeFileError

X = np.random.default_rng(0).normal(size=(3, 2, 4))


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", ">f4", "<i8", "|u1"])
@pytest.mark.parametrize("order", "CF")
def test_an_npy_comes_back_with_every_number_in_native_order(dtype, order, tmp_path):
    values = np.asarray((10 * X).astype(int) % 100, dtype=dtype, order=order)
    np.save(tmp_path / "x.npy", values)
    found = read_array(tmp_path / "x.npy", "inputs")
    np.testing.assert_array_equal(found, values)
    assert found.dtype.isnative


def test_an_npz_gives_its_only_array_or_the_one_named_by_its_role(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, anything=X)
    np.testing.assert_array_equal(read_array(path, "inputs"), X)
    np.savez_compressed(path, x=X, y=X + 1, lengths=np.array([3, 1]))
    for role, wanted in (("inputs", X), ("targets", X + 1), ("lengths", [3, 1])):
        np.testing.assert_array_equal(read_array(path, role), wanted)
    assert set(named_arrays(path)) == {"x", "y", "lengths"}
    np.savez(path, a=X, b=X)
    with pytest.raises(FormatError, match=r"holds 'a', 'b'; expected one array, or inputs"):
        read_array(path, "inputs")
    np.savez(path, x=X, inputs=X)  # two names that both mean the inputs
    with pytest.raises(FormatError, match="expected one array"):
        read_array(path, "inputs")


def test_a_csv_has_rows_and_columns_and_whole_numbers_stay_whole(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("1.5,-2e-3\r\n  .5 ,+3\n")
    np.testing.assert_array_equal(read_array(path, "inputs"), [[1.5, -0.002], [0.5, 3.0]])
    path.write_text("1\n0\n2\n")
    labels = read_array(path, "targets")
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, [[1], [0], [2]])


@pytest.mark.parametrize(
    ("content", "line", "column", "what"),
    [
        (b"\xef\xbb\xbf1,2\n", 1, 1, "byte order mark"),
        (b"1;2\n3;4\n", 1, 1, "separated by ';'; expected commas"),
        (b"time,x\n1,2\n", 1, 1, "'time' is no number"),
        (b"1,2\n3,4,5\n", 2, 3, "3 columns; expected 2"),
        (b"1,2\n3\n", 2, 2, "1 columns; expected 2"),
        (b"1,2\n3,4\xe9\n", 2, 2, "0xe9 is not UTF-8"),
        (b"", 1, 1, "empty"),
        (b"1,2\n\n3,4\n", 2, 1, "empty"),
        (b"1,nan\n", 1, 2, "expected finite numbers"),
        (b"1,2\n3,-inf\n", 2, 2, "expected finite numbers"),
        (b"1,2\n1e400,1\n", 2, 1, "beyond the range of floats"),
        (b"1_000,2\n", 1, 1, "'1_000' is no number"),
        ("1,٣\n".encode(), 1, 2, "is no number"),
    ],
    ids=["BOM", "semicolons", "header", "ragged", "short", "latin-1", "empty", "blank", "nan", "inf", "1e400", "1_000", "digit"],
)
def test_a_malformed_csv_is_refused_with_line_and_column(content, line, column, what, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        read_array(path, "inputs")
    assert f"x.csv': line {line}, column {column}: " in str(caught.value)
    assert what in str(caught.value)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def malformed(tmp_path):
    good = io.BytesIO()
    np.save(good, X)
    data = good.getvalue()
    archive = io.BytesIO()
    np.savez(archive, x=X)
    marker = str(tmp_path / "marker")
    objects = io.BytesIO()
    np.save(objects, np.array([Payload(marker)], object), allow_pickle=True)
    member = io.BytesIO()
    with zipfile.ZipFile(member, "w") as written:
        written.writestr("../../evil.npy", data)
    return {
        "missing": None,
        "one byte short": data[:-1],
        "one byte more": data + b"\0",
        "text dtype": data.replace(b"'<f8'", b"'<U2'"),
        "complex": data.replace(b"'<f8'", b"'<c16'"[:5]),
        "header cut": data[:20],
        "negative shape": data.replace(b"(3, 2, 4)", b"(-3,-2,4)"),
        "version 3": data[:6] + b"\x03\x00" + data[8:],
        "no numbers": (lambda b: (np.save(b, np.empty((0, 2, 3))), b.getvalue())[1])(io.BytesIO()),
        "objects": objects.getvalue(),
        "pickle": pickle.dumps(Payload(marker), protocol=4),
        "zip cut": archive.getvalue()[:-30],
        "a member outside": member.getvalue(),
        "gzip": b"\x1f\x8b" + bytes(40),
        "rank 9": data.replace(b"(3, 2, 4), }", b"(3,)+(1,)*8}"),
    }


def test_a_malformed_array_is_refused_and_nothing_is_unpickled(tmp_path):
    path = tmp_path / "x.npy"
    for name, content in malformed(tmp_path).items():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FormatError, match=r"x\.npy") as caught:
            read_array(path, "inputs")
        assert isinstance(caught.value, UnsafeFileError) == (name in ("objects", "pickle")), name
    assert not (tmp_path / "marker").exists()


def test_a_file_that_is_no_regular_one_is_refused_at_once(tmp_path):
    for path in (tmp_path, "/dev/zero"):
        with pytest.raises(FormatError, match="no such regular file"):
            read_array(path, "inputs")


def test_what_does_not_fit_is_refused_before_it_is_read(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((100, 10, 10)))
    with pytest.raises(ResourceRefused, match=r"x\.npy.*max-memory"):
        read_array(tmp_path / "x.npy", "inputs", max_memory=1000)
    assert issubclass(ResourceRefused, GradlabError)
