"""`gradlab check`: three reports on a user's cell, exit status, one-line errors, what is written, a line that runs it again."""

import importlib
import inspect
import io
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from cli.user_package import MODULES, write
from rich.console import Console

from gradlab.checks import check_cell
from gradlab.checks.doubts import KINKS
from gradlab.checks.judgement import REASONS
from gradlab.checks.oracle import CHOICES
from gradlab.cli import check, main
from gradlab.report import print_report

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ("--steps", "3", "--hidden", "2", "--layers", "1", "--no-control")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the package `theirs`, which is the current one and forgotten afterwards."""
    monkeypatch.chdir(write(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]


def user_cell(name):
    """A cell of the package `theirs`, which is not installed: its folder is looked into for this one import."""
    sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module("theirs.cells"), name)()
    finally:
        sys.path.remove("")


def environment(**changes):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LC_", "LANG"))}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **changes}


def command(*argv, cwd, options=(), **changes):
    """`python -m gradlab` in a real process: (status, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, *options, "-m", "gradlab", *argv],
        capture_output=True,
        cwd=cwd,
        timeout=60,
        env=environment(**changes),
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")


def error_of(capsys):
    """The one line of error that was printed, and nothing else."""
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line != "noise at import"]
    assert out == ""
    assert len(lines) == 1, err
    assert len(lines[0]) <= 500  # the contract of every error line
    assert lines[0].isprintable()
    return lines[0].removeprefix("gradlab: error: ")


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {
        f"theirs/{name}.py" for name in ("__init__", "cells", *MODULES)
    }


def strict(text):
    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    return json.loads(text, parse_constant=refuse)


def replays(out):
    """The lines that run it again, without their label."""
    return re.findall(r"^replay +(.*)$", out, flags=re.MULTILINE)


# ---- the three reports ------------------------------------------------------------------------------------


def test_a_cell_with_a_forward_step_alone_passes_and_the_report_says_what_was_compared(folder, capsys):
    assert main(["check", "theirs.cells:Forward", *SMALL]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Forward(): PASS, 15 checks passed, 0 failed, 0 unresolved\n")
    assert "oracle     Richardson extrapolation" in out
    assert "the cell has no derivative written by hand" in out
    assert replays(out) == []


def test_a_backward_step_wrong_by_1e_8_at_one_step_fails_and_is_named(folder, capsys):
    assert main(["check", "theirs.cells:Wrong"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("Wrong(): FAIL, ")
    assert "gradlab FAIL   Wrong()   float64 T=5 B=2 D=2 H=3\n" in out
    assert "entries    236 compared: 218 PASS, 18 FAIL, 0 UNRESOLVED" in out
    assert re.search(r"^ +d0\.U +2 +[01] +9 of 9 .* 9\.\de-09$", out, flags=re.MULTILINE)  # 1e-8 of an entry is 9e-9 of S
    assert "one step   wrong where it is made: d0.U, step 2\n" in out
    assert "reading    d0.U, step 2, every row: it is off by the factor 1+1.0e-08\n" in out
    assert len(replays(out)) == 3  # the single layer, the stack, the smallest sizes


def test_a_right_backward_step_passes_against_complex_steps_and_the_check_has_power(folder, capsys):
    assert main(["check", "theirs.cells:Right"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Right(): PASS, 17 checks passed, 0 failed, 0 unresolved\n")
    assert "oracle     complex step" in out
    assert "control    26 alterations of the backward pass: 26 rejected" in out
    assert replays(out) == []


@pytest.mark.parametrize(
    ("name", "status"), [("cell", 0), ("make", 0), ("Outer.Inner", 0), ("make_wrong", 1)], ids=lambda value: str(value)
)
def test_an_object_a_function_and_a_nested_class_stand_for_a_cell(folder, capsys, name, status):
    assert main(["check", f"theirs.cells:{name}", *SMALL]) == status
    out = capsys.readouterr().out
    assert "FAIL," in out.splitlines()[0] if status else "PASS," in out.splitlines()[0]
    # The line names the cell as the user did: its class needs an argument.
    assert all(line.startswith("gradlab check theirs.cells:make_wrong --replay ") for line in replays(out))
    assert len(replays(out)) == (3 if status else 0)


# ---- a line that runs it again ----------------------------------------------------------------------------


def worst(out):
    """Verdict and the first row of the first table."""
    return re.search(r"^gradlab (\w+) ", out, flags=re.MULTILINE)[1], re.search(r"error/S\n(.*)\n", out)[1]


def test_the_printed_line_pasted_into_the_shell_gives_the_same_verdict_and_the_same_worst_entry(folder):
    status, out, _ = command("check", "theirs.cells:Wrong", *SMALL, cwd=folder)
    assert status == 1
    program, *argv = shlex.split(replays(out)[0])
    assert program == "gradlab"
    again, second, _ = command(*argv, cwd=folder)
    assert again == 1
    assert worst(second) == worst(out)
    assert worst(out)[0] == "FAIL"


def test_every_printed_line_fails_again_and_keeps_how_it_was_judged(folder, capsys):
    judged = ("--oracle", "richardson", "--kink", "fail")
    assert main(["check", "theirs.cells:make_wrong", *SMALL, *judged]) == 1
    lines = replays(capsys.readouterr().out)
    assert len(lines) == 3
    for line in lines:
        assert "theirs.cells:make_wrong --oracle richardson --kink fail --replay 1" in line
        assert main(shlex.split(line)[1:]) == 1
        assert "oracle     Richardson extrapolation with an error estimate (asked for)" in capsys.readouterr().out


def test_a_fault_outside_the_gradients_has_a_line_as_well(folder, capsys):
    assert main(["check", "theirs.cells:WrongJacobian", "--seed", "7", *SMALL]) == 1
    out = capsys.readouterr().out
    assert "fail jacobians: " in out
    assert replays(out) == ["gradlab check theirs.cells:WrongJacobian --seed 7 --steps 3 --hidden 2 --layers 1 --no-control"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("1abc", "code cannot be read"),
        ("nonsense", "starts with 1"),
        ("", "starts with 1"),
        ("1" + "A" * 5000, "code cannot be read"),
    ],
)
def test_a_damaged_code_is_refused_in_one_line(folder, capsys, code, said):
    assert main(["check", "theirs.cells:Right", "--replay", code]) == 3
    assert said in error_of(capsys)


def test_a_code_of_another_cell_is_refused_in_one_line(folder, capsys):
    assert main(["check", "theirs.cells:make_wrong", *SMALL]) == 1
    code = replays(capsys.readouterr().out)[0].split()[-1]
    assert main(["check", "gradlab:LSTM", "--replay", code]) == 3
    error_of(capsys)


# ---- what cannot be imported or made: 3 -------------------------------------------------------------------

REFUSED = {
    "nowhere.cells:Cell": ["cannot import nowhere.cells: no module named nowhere in the current folder", "install it"],
    "theirs.nowhere:Cell": ["no module named theirs.nowhere in the current folder"],
    "theirs.cells:Rihgt": ["theirs.cells", "cells.py", "has no attribute Rihgt; did you mean theirs.cells:Right?"],
    "theirs.cells:zzz": ["has no attribute zzz; expected a class, a cell, or a function that returns one"],
    "theirs.raises:Cell": ["cannot import theirs.raises: theirs/raises.py:5: ZeroDivisionError: division by zero"],
    "theirs.syntax:Cell": ["cannot import theirs.syntax: theirs/syntax.py:2: SyntaxError: invalid syntax"],
    "theirs.lacks:Cell": ["theirs/lacks.py:1: ModuleNotFoundError: No module named 'a_library_that_is_not_there'"],
    "theirs.leaves:Cell": ["theirs/leaves.py:3: SystemExit: no licence"],
    "theirs.cells:Scaled": ["cannot be made", "'factor'", "def make(): return Scaled(...)", "theirs.cells:make"],
    "theirs.cells:Unmade": ["theirs/cells.py", r"RuntimeError: out of\norder"],
    "theirs.cells:Raising": ["theirs/cells.py", "KeyError: 'no such key'; --debug shows the whole traceback"],
    "theirs.cells:Leaving": ["theirs/cells.py", "SystemExit: 0"],
}


@pytest.mark.parametrize("target", REFUSED)
def test_what_cannot_be_imported_made_or_run_ends_with_3_and_one_line_that_says_where(folder, capsys, target):
    assert main(["check", target, "--json", "o.json", "--html", "o.html"]) == 3
    line = error_of(capsys)
    assert [part for part in REFUSED[target] if part not in line] == []
    assert files(folder) == set()


def test_debug_shows_the_whole_traceback_and_keeps_the_status(folder, capsys):
    assert main(["check", "theirs.raises:Cell", "--debug"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback (most recent call last)" in err
    assert 'raises.py", line 8, in <module>' in err
    assert err.splitlines()[-1].startswith("gradlab: error: cannot import theirs.raises")


# ---- usage: 2 ---------------------------------------------------------------------------------------------

USAGE = {
    "theirs.cells:Scaled(2.0)": "never evaluated; write a function without arguments",
    "theirs.cells:open('marker','w')": "never evaluated",
    "__import__('os').mkdir('marker'):x": "never evaluated",
    "theirs.cells.Right": "did you mean theirs.cells:Right?",
    "theirs/cells.py:Right": "names a file; expected package.module:Cell",
    "theirs": "expected package.module:Cell",
    "theirs.cells:": "expected package.module:Cell",
    ":Right": "expected package.module:Cell",
    "theirs..cells:Right": "expected package.module:Cell",
    "theirs.cells:Right or 1": "expected package.module:Cell",
    "": "expected package.module:Cell",
    "theirs.cells:number": "theirs.cells:number is a int; expected a class",
    "theirs.cells:NoStep": "without a method step; expected init(rng, input_size, hidden_size) and step(",
    "math:pi": "math:pi is a float",
    "a\nb\x1b[31m:c": "expected package.module:Cell",
    "x" * 5000: "expected package.module:Cell",
}


@pytest.mark.parametrize("target", USAGE, ids=range(len(USAGE)))
def test_what_names_no_cell_is_a_usage_error_with_a_remedy_and_nothing_is_evaluated(folder, capsys, target):
    assert main(["check", target]) == 2
    assert USAGE[target] in error_of(capsys)
    assert not (folder / "marker").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["--steps", "0"],
        ["--steps", "1e3"],
        ["--batch", "-1"],
        ["--hidden", "1001"],
        ["--layers", "two"],
        ["--seed", "-1"],
        ["--seed", "nan"],
        ["--seed", "9" * 5000],
        ["--rtol", "0"],
        ["--rtol", "1"],
        ["--rtol", "nan"],
        ["--rtol", "-1e-9"],
        ["--oracle", "jax"],
        ["--kink", "ignore"],
        ["--allow", "everything"],
        ["--ste", "3"],
        ["--atol", "1"],
        ["--json"],
    ],
    ids=lambda argv: " ".join(argv)[:30],
)
def test_values_without_meaning_and_unknown_flags_are_usage_errors(folder, capsys, argv):
    assert main(["check", "theirs.cells:Right", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert argv[0] in err.splitlines()[-1]
    assert len(err.splitlines()[-1]) < 500
    assert "noise at import" not in err  # nothing was imported


def test_sizes_beside_a_code_and_two_reports_in_one_file_are_usage_errors(folder, capsys):
    assert main(["check", "theirs.cells:Right", "--replay", "1abc", "--hidden", "2"]) == 2
    assert "--hidden has no meaning beside --replay" in error_of(capsys)
    assert main(["check", "theirs.cells:Right", "--replay", "1abc", "--no-control"]) == 2
    assert "--no-control has no meaning beside --replay" in error_of(capsys)
    assert main(["check", "theirs.cells:Right", "--json", "o", "--html", "o"]) == 2
    assert "name the same file" in error_of(capsys)
    assert files(folder) == set()


@pytest.mark.parametrize("argv", [[], ["chekc"], ["check"]], ids=["nothing", "unknown", "no target"])
def test_no_command_or_no_target_is_a_usage_error(capsys, argv):
    assert main(argv) == 2
    assert capsys.readouterr().out == ""


# ---- what is written --------------------------------------------------------------------------------------


def test_the_json_holds_all_of_the_report_and_the_exit_status(folder, capsys):
    assert main(["check", "theirs.cells:Wrong", "--json", "o.json", "--quiet", "--seed", "3"]) == 1
    assert capsys.readouterr() == ("", "noise at import\n")
    data = strict((folder / "o.json").read_text(encoding="utf-8"))
    report = check_cell(sys.modules["theirs.cells"].Wrong(), seed=3).as_json()
    # Replay lines name the cell as it was asked for, which here is what the report says too.
    assert data["report"] == json.loads(json.dumps(report))
    assert data["report"]["gradients"][0]["findings"][0]["step"] == 2
    assert {key: data[key] for key in ("schema", "target", "exit_status", "allow", "command")} == {
        "schema": 1,
        "target": "theirs.cells:Wrong",
        "exit_status": 1,
        "allow": [],
        "command": "gradlab check theirs.cells:Wrong --seed 3",
    }


def test_the_same_check_gives_the_same_bytes_and_files_have_the_permissions_of_the_umask(folder):
    argv = ["check", "theirs.cells:Wrong", "--quiet", *SMALL, "--json", "o.json", "--html", "o.html"]
    assert main(argv) == 1
    first = {name: (folder / name).read_bytes() for name in ("o.json", "o.html")}
    before = os.umask(0o027)
    try:
        assert main(argv) == 1
    finally:
        os.umask(before)
    assert {name: (folder / name).read_bytes() for name in ("o.json", "o.html")} == first
    assert (folder / "o.json").stat().st_mode & 0o777 == 0o640
    assert files(folder) == {"o.json", "o.html"}  # no temporary file, no byte code


def test_what_is_not_finite_is_a_word_in_the_json_and_not_a_number(folder, capsys):
    assert main(["check", "theirs.cells:Overflowing", *SMALL, "--json", "-"]) == 1
    out = capsys.readouterr().out
    data = strict(out)
    assert data["report"]["gradients"][0]["counts"]["unresolved"].keys() == {"nonfinite"}
    assert data["report"]["gradients"][0]["findings"][0]["backward"] in ("nan", "inf", "-inf")


def test_a_minus_writes_json_alone_to_standard_output_whatever_the_cell_prints(folder):
    status, out, err = command("check", "theirs.cells:Noisy", *SMALL, "--json", "-", cwd=folder)
    assert status == 0
    assert strict(out)["report"]["verdict"] == "PASS"
    assert "noise at import" in err
    assert "noise in a step" in err


def test_the_html_names_the_cell_and_the_verdict(folder):
    assert main(["check", "theirs.cells:Hostile", *SMALL, "--quiet", "--html", "o.html"]) == 1
    page = (folder / "o.html").read_text(encoding="utf-8")
    assert "✗ FAIL</span> Hostile&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m[red]λ" in page
    assert "<script" not in page


@pytest.mark.parametrize("path", ["missing/o.json", "theirs/cells.py/o.json", "theirs", "pipe"])
@pytest.mark.parametrize("flag", ["--json", "--html"])
def test_a_file_that_cannot_be_written_ends_with_5_before_anything_is_computed(folder, capsys, monkeypatch, flag, path):
    os.mkfifo(folder / "pipe")
    monkeypatch.setenv("THEIRS_MARK", str(folder / "imported"))
    assert main(["check", "theirs.cells:Right", flag, path]) == 5
    assert path in error_of(capsys)
    assert not (folder / "imported").exists()
    assert (folder / "pipe").is_fifo()


def test_a_name_too_long_for_the_disk_ends_with_5_and_leaves_nothing(folder, capsys):
    assert main(["check", "theirs.cells:Right", *SMALL, "--quiet", "--json", "n" * 300]) == 5
    error_of(capsys)
    assert files(folder) == set()


def test_memory_that_does_not_suffice_ends_with_5(folder, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("gradlab.checks.check_cell", refuse)
    assert main(["check", "theirs.cells:Right"]) == 5
    assert "memory does not suffice; check smaller sizes" in error_of(capsys)


# ---- verdict and status -----------------------------------------------------------------------------------


def test_unresolved_ends_with_1_unless_its_reason_is_allowed(folder, capsys):
    argv = ["check", "theirs.cells:Dropping", *SMALL, "--oracle", "complex"]
    assert main([*argv, "--quiet"]) == 1
    assert main([*argv, "--quiet", "--allow", "floor"]) == 1
    assert main([*argv, "--allow", "oracle-disagrees"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Dropping(): UNRESOLVED, ")
    assert "complex step refused: Casting complex values" in out or "complex step disagrees" in out


def test_the_three_lists_of_words_and_the_defaults_are_those_of_the_library(capsys):
    assert (check.ORACLES, check.KINKS, check.REASONS) == (CHOICES, KINKS, REASONS)
    assert main(["check", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    known = {name: one.default for name, one in inspect.signature(check_cell).parameters.items()}
    for flag, name in (
        ("--seed N", "seed"),
        ("--steps N", "steps"),
        ("--batch N", "batch"),
        ("--inputs N", "input_size"),
        ("--hidden N", "hidden_size"),
        ("--layers N", "layers"),
        ("--oracle {auto,complex,richardson}", "oracle"),
        ("--kink {interval,unresolved,fail}", "kink"),
    ):
        said = re.search(rf"{re.escape(flag)} (?!\[)[^(]*\(default: ([\w-]+)", text)
        assert said, flag
        assert said[1] == str(known[name]), flag
    assert float(re.search(r"--rtol R [^(]*\(default: ([\w.-]+)\)", text)[1]) == known["rtol"]


# ---- help -------------------------------------------------------------------------------------------------


def test_the_cell_that_the_help_shows_can_be_pasted_into_a_file_and_passes(folder, capsys):
    assert main(["check", "--help"]) == 0
    out = capsys.readouterr().out
    assert textwrap.dedent(check.EXAMPLE).strip() in textwrap.dedent(
        out[out.index("  import numpy") : out.index("  gradlab check")]
    )
    (folder / "theirs" / "taught.py").write_text(textwrap.dedent(check.EXAMPLE))
    assert main(["check", "theirs.taught:Leaky", *SMALL]) == 0
    for word in ("PASS ", "FAIL ", "UNRESOLVED ", "exit status: 0 all PASS", "--replay CODE"):
        assert word in out


def test_help_and_import_load_nothing_heavy_and_take_less_than_a_fifth_of_a_second():
    heavy = ("numpy", "scipy", "rich", "jinja2", "matplotlib", "hypothesis")
    code = f"import sys, gradlab.cli\ngradlab.cli.main(['check', '--help'])\nprint([n for n in {heavy} if n in sys.modules])"
    seconds = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Time on the processor: how busy the machine is, is not the command's fault.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.stdout.splitlines()[-1] == "[]"
    assert min(seconds) < 0.2


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"gradlab \d+\.\d+\.\S+\n", capsys.readouterr().out)


# ---- surroundings -----------------------------------------------------------------------------------------


def test_a_check_leaves_no_trace_in_the_process_and_none_in_the_folder(folder, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = (list(sys.path), sys.stdout, sys.stderr, np.geterr(), dict(os.environ), signal.getsignal(signal.SIGINT))
    for target in ("theirs.cells:Wrong", "theirs.cells:Raising", "theirs.raises:Cell"):
        main(["check", target, *SMALL])
    after = (list(sys.path), sys.stdout, sys.stderr, np.geterr(), dict(os.environ), signal.getsignal(signal.SIGINT))
    assert after == before
    assert sys.dont_write_bytecode is False
    assert files(folder) == set()


def test_control_characters_of_a_cells_name_do_not_reach_the_terminal(folder, capsys):
    assert main(["check", "theirs.cells:Hostile", *SMALL]) == 1
    out = capsys.readouterr().out
    assert out.startswith("Hostile<script>alert(1)</script>\\x1b[31m[red]λ: FAIL")
    assert "\x1b" not in out


def terminal(report, width=80, **options):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, highlight=False, legacy_windows=False, **options)
    print_report(console, report)
    return stream.getvalue()


def test_on_a_terminal_the_report_is_a_table_whose_long_lines_can_be_copied_whole(folder):
    report = check_cell(user_cell("Hostile"), steps=4)
    out = terminal(report, no_color=True)
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert "gradlab FAIL   Hostile<script>alert(1)</script>\\x1b[31m[red]λ" in plain
    assert re.search(r"^ +block products at T = 20, H = 16 +FAIL ", plain, flags=re.MULTILINE)
    row = re.search(
        r"^d0\.U +2 +[01] +9 of 9 +(-?\d\.\d{10}e\S\d\d) (-?\d\.\d{10}e\S\d\d) +(\d\.\de-0\d) FAIL", plain, flags=re.MULTILINE
    )
    # Enough digits to see the fault of 1e-8.
    assert float(row[1]) / float(row[2]) - 1.0 == pytest.approx(1e-8, rel=0.1)
    assert f"replay     {report.gradients[0].replay}" in plain.splitlines()
    assert not re.search(r"\x1b\[(\d+;)*3\dm", out)  # no colour where NO_COLOR asks for none
    assert re.search(r"\x1b\[1;31mFAIL", terminal(report, color_system="standard"))


def test_on_a_terminal_many_findings_become_a_map_of_gates_by_steps(folder):
    report = check_cell(user_cell("make_wrong"), steps=4)
    plain = re.sub(r"\x1b\[[\d;]*m", "", terminal(report, no_color=True))
    row = re.search(r"^ +d0\.b +(.*)$", plain, flags=re.MULTILINE)[1]
    # ds is doubled on its way back: the last step is right, the others are off by more than a tenth.
    assert re.fullmatch(r"✗ \d?e[-+]0\d +✗ \de[-+]0\d +✗ \de[-+]0\d +\de-1\d *", row), row
    assert "reading    the last step is right, and what lies before is wrong" in plain


def test_nobody_reads_the_report_ends_with_141_and_the_file_is_kept(folder):
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "gradlab", "check", "theirs.cells:Right", *SMALL, "--json", "o.json"]
    try:
        done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, cwd=folder, timeout=60, env=environment(), check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr.decode()) == (141, "noise at import\n")
    assert strict((folder / "o.json").read_text())["exit_status"] == 0


def test_control_c_ends_with_130_and_no_traceback(folder):
    begun = folder / "begun"
    process = subprocess.Popen(
        [sys.executable, "-m", "gradlab", "check", "theirs.cells:Slow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environment(THEIRS_BEGUN=str(begun)),
    )
    try:
        deadline = time.monotonic() + 30.0
        while not begun.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert (out, err) == (b"", b"noise at import\n")


def test_a_terminal_with_ascii_alone_and_python_at_its_strictest_are_no_trouble(folder):
    ascii_alone = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    argv = ("check", "theirs.cells:Hostile", *SMALL, "--html", "o.html")
    status, out, err = command(*argv, cwd=folder, options=("-W", "error", "-X", "dev"), **ascii_alone)
    assert (status, err) == (1, "noise at import\n")
    assert "[red]\\u03bb: FAIL" in out
    assert "[red]λ" in (folder / "o.html").read_text(encoding="utf-8")


def test_a_folder_that_is_gone_is_an_error_in_one_line(folder):
    gone = folder / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD" && exec "$0" -m gradlab check theirs.cells:Right'
    done = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable],
        cwd=gone,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "no module named theirs" in done.stderr
