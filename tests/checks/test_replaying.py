"""Replay codes: the same example bit for bit, and one clear error for everything else; nothing in a code is ever run."""

import ast
import base64
import json
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hand_written import Relu, Tanh, scalar
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab import cells
from gradlab.checks import check_example, code_of, example_from, random_example, replay, strategies
from gradlab.checks.replaying import LARGEST
from gradlab.errors import FormatError


def packed(header, body=b""):
    """A code with any header and body, well-formed as far as zlib and base64 can tell."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return "1" + base64.urlsafe_b64encode(zlib.compress(head + b"\n" + body)).decode().rstrip("=")


def opened(code):
    text = code[1:]
    head, _, body = zlib.decompress(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))).partition(b"\n")
    return json.loads(head), body


SMALL = random_example(cells.Elman(), T=2, B=1, D=1, H=1)
CODE = code_of(SMALL)
HEADER, BODY = opened(CODE)
NETWORK = HEADER["network"]


def identical(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


# ---- the way there and back --------------------------------------------------------------------------------


@given(strategies.examples(kinds=strategies.PARAMETERS, rtol=1e-7))
@settings(max_examples=100)
def test_an_example_comes_back_bit_for_bit(drawn):
    again = example_from(code_of(drawn), drawn.net.cell)
    assert again.net == drawn.net
    assert again.rtol == drawn.rtol
    assert identical(again.x, drawn.x)
    assert identical(again.cotangent, drawn.cotangent)
    for kind in ("params", "initial"):
        one, other = getattr(again, kind), getattr(drawn, kind)
        assert list(one) == list(other)
        assert all(identical(one[key], other[key]) for key in one)
    assert (again.lengths is None) == (drawn.lengths is None)
    assert drawn.lengths is None or identical(again.lengths, drawn.lengths)
    assert code_of(again) == code_of(drawn)


@pytest.mark.parametrize("value", [-0.0, 5e-324, 1e308, np.nextafter(1.0, 2.0), np.inf, -np.nan])
def test_every_float_comes_back_as_it_was(value):
    SMALL.x[0] = value
    again = example_from(code_of(SMALL), SMALL.net.cell)
    assert identical(again.x, SMALL.x)
    SMALL.x[0] = 0.5


def test_a_code_is_checked_again_to_the_same_report():
    example = random_example(Tanh(U=1.0 + 1e-6), ragged=True, num_layers=2, output_size=2)
    report = check_example(example)
    again = replay(code_of(example), Tanh(U=1.0 + 1e-6))
    assert report.verdict == again.verdict == "FAIL"
    assert again.findings == report.findings


# ---- what a report offers to paste --------------------------------------------------------------------------


class Local:
    """A user's cell without a repr of its own."""

    def init(self, rng, input_size, hidden_size):
        return {"W": rng.normal(size=(hidden_size, input_size))}

    def step(self, params, x_t, s_prev, t):
        return np.tanh(x_t @ params["W"].T) + 0.5 * s_prev

    def vjp(self, params, x_t, s_prev, delta, t):
        return {"W": delta.T @ x_t}, delta @ params["W"], 0.5 * delta


def test_a_failing_report_of_an_importable_cell_offers_a_command():
    line = check_example(random_example(Local())).replay
    start, _, code = line.rpartition(" --replay ")
    assert start == f"gradlab check {Local.__module__}:Local"
    assert replay(code, Local()).verdict == "FAIL"


def test_the_line_of_a_cell_that_cannot_be_imported_is_python():
    class Inner(Local):
        pass

    ast.parse(check_example(random_example(Inner())).replay)


def test_the_line_of_a_cell_with_options_is_python():
    line = check_example(random_example(Tanh(U=2.0))).replay
    assert isinstance(ast.parse(line), ast.Module)
    assert line.endswith(", Tanh()))")


def test_a_passing_report_offers_nothing():
    assert check_example(random_example(Tanh())).replay is None


def test_numbers_too_many_for_a_line_are_left_out_of_it():
    line = check_example(random_example(Tanh(U=2.0), T=5, D=30, H=10)).replay
    assert "too many for a line" in line
    assert len(line) < 200


def test_a_failure_by_the_kink_policy_fails_again_when_it_is_replayed():
    report = check_example(scalar(Relu(), [1.0, 0.0, 2.0]), kink="fail")
    code = report.replay.rpartition("--replay ")[2] if "--replay" in report.replay else report.replay.split('"')[1]
    assert report.verdict == "FAIL"
    assert replay(code, Relu()).verdict == "FAIL"


# ---- damaged, foreign and hostile codes ---------------------------------------------------------------------


@given(st.integers(0, len(CODE) - 1))
def test_a_code_that_is_cut_short_is_refused(length):
    with pytest.raises(FormatError, match="replay line"):
        example_from(CODE[:length], cells.Elman())


@given(st.integers(0, len(CODE) - 1), st.sampled_from("ABC019-_xyz!= \u00e9\0"))
def test_a_code_with_another_character_is_refused_or_the_same(at, character):
    damaged = CODE[:at] + character + CODE[at + 1 :]
    try:
        again = example_from(damaged, cells.Elman())
    except FormatError:
        return
    assert code_of(again) == CODE


@given(st.one_of(st.none(), st.integers(), st.binary(), st.text(), st.text().map(lambda text: "1" + text)))
def test_what_is_no_code_is_refused(other):
    with pytest.raises(FormatError, match="replay line"):
        example_from(other, cells.Elman())


def with_arrays(*first, rest=True):
    return {**HEADER, "arrays": [*first, *(HEADER["arrays"] if rest else [])]}


REFUSED = {
    "another version": "2" + CODE[1:],
    "a body too long": packed(HEADER, BODY + bytes(8)),
    "a body too short": packed(HEADER, BODY[:-8]),
    "no header": packed(b"", BODY),
    "a list for a header": packed([1, 2], BODY),
    "text for a header": packed("abc", BODY),
    "no network": packed({**HEADER, "network": None}, BODY),
    "an unknown option": packed({**HEADER, "network": {**NETWORK, "cell": "os.system"}}, BODY),
    "another size": packed({**HEADER, "network": {**NETWORK, "hidden_size": 2}}, BODY),
    "no inputs": packed({**HEADER, "arrays": HEADER["arrays"][1:]}, BODY[16:]),
    "no tolerance": packed({**HEADER, "rtol": None}, BODY),
    "a shape of floats": packed(with_arrays(["q", [2.0]]), BODY + bytes(16)),
    "a negative shape": packed(with_arrays(["q", [-1]]), BODY),
    "a shape beyond the body": packed(with_arrays(["q", [2**40]]), BODY),
    "a shape that overflows": packed(with_arrays(["q", [2**32, 2**32]]), BODY),
    "lengths beyond the sequence": packed(
        {**HEADER, "arrays": [*HEADER["arrays"], ["lengths", [1]]]}, BODY + np.array([9.0]).tobytes()
    ),
    "a bomb": packed(b"0" * (LARGEST + 10**6)),
    "a key that is no text": packed(with_arrays([1, [1]]), bytes(8) + BODY),
    "a shape beyond int64": packed(with_arrays(["q", [10**30]]), BODY),
    "a tolerance beyond float64": packed({**HEADER, "rtol": 10**400}, BODY),
    "brackets, nested": packed(b"[" * 100_000),
    "a hidden size beyond memory": packed({**HEADER, "network": {**NETWORK, "hidden_size": 10**18}}, BODY),
    "lengths that are NaN": packed(
        {**HEADER, "arrays": [*HEADER["arrays"], ["lengths", [1]]]}, BODY + np.array([np.nan]).tobytes()
    ),
    "something behind the end": CODE + "AAAA",
    "twenty thousand layers": packed({**HEADER, "network": {**NETWORK, "num_layers": 20_000}}, BODY),
    "no parameters": packed(with_arrays(*HEADER["arrays"][:2], rest=False), BODY[:32]),
    "lengths of a half": packed({**HEADER, "arrays": [*HEADER["arrays"], ["lengths", [1]]]}, BODY + np.array([1.5]).tobytes()),
    "a negative tolerance": packed({**HEADER, "rtol": -1.0}, BODY),
    "a tolerance that is NaN": packed({**HEADER, "rtol": float("nan")}, BODY),
}


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_a_code_that_no_report_has_written_is_refused(code):
    with pytest.raises(FormatError):
        example_from(code, cells.Elman())


def test_a_code_of_another_cell_is_refused():
    with pytest.raises(FormatError, match="does not fit LSTM"):
        example_from(CODE, cells.LSTM())


def test_a_cell_that_is_none_is_named():
    with pytest.raises(FormatError, match=r"does not fit .* without a method init"):
        example_from(CODE, object())


WATCHED = """
import sys
from gradlab import cells
from gradlab.checks import example_from
from gradlab.errors import FormatError

cell, codes, seen = cells.Elman(), sys.argv[1:], []
example_from(codes[0], cell)  # what the first call imports is gradlab's own
sys.addaudithook(lambda event, args: seen.append(event))
for code in codes:
    try:
        print(type(example_from(code, cell)).__name__)
    except FormatError:
        print("refused")
print([event for event in seen if event.split(".")[0] in ("exec", "compile", "import", "open", "os", "subprocess", "pickle")])
"""


def test_reading_a_code_runs_imports_and_opens_nothing():
    hostile = {**HEADER, "network": {**NETWORK, "readout": "__import__('os').system('true')"}, "arrays": [["__class__", [0]]]}
    codes = [CODE, packed(hostile), packed(HEADER, BODY), "1__import__('os')"]
    done = subprocess.run([sys.executable, "-c", WATCHED, *codes], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:5] == ["Example", "refused", "Example", "refused", "[]"]
