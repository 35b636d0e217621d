"""`gradlab scaffold`: a test file that runs as it is, passes a right cell, fails a wrong one, and never overwrites another."""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli.user_package import write

from gradlab.cli import main

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the package `theirs`, which is the current one and forgotten afterwards."""
    monkeypatch.chdir(write(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]


def scaffold(target, capsys):
    assert main(["scaffold", target]) == 0
    return capsys.readouterr().out


def run(folder, *argv):
    """`python -m pytest` in `folder`: (status, stdout)."""
    known = any(point.name == "gradlab" for point in importlib.metadata.entry_points(group="pytest11"))
    plugin = [] if known else ["-p", "gradlab.checks.pytest_plugin"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", "-W", "error", *plugin, *argv],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    return done.returncode, done.stdout


def quick(text):
    """The same file with a twentieth of the random examples."""
    assert text.count("max_examples=100") == 1
    return text.replace("max_examples=100", "derandomize=True, database=None, max_examples=5")


# ---- the file runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Precise", "Right"])
def test_the_file_of_a_right_cell_passes_as_it_is(folder, capsys, name):
    (folder / "test_it.py").write_text(quick(scaffold(f"theirs.cells:{name}", capsys)))
    status, out = run(folder, "test_it.py")
    assert status == 0, out
    assert "7 passed" in out
    control = re.search(r"control +(\d+) alterations in \d+ checks: (\d+) rejected, (\d+) void", out)
    assert int(control[1]) == int(control[2]) + int(control[3]) > 26


def test_the_file_of_a_wrong_cell_fails_where_its_fault_can_show(folder, capsys):
    (folder / "test_it.py").write_text(scaffold("theirs.cells:Wrong", capsys))
    # Shrinking takes long; what it finds is tested with the strategies.
    status, out = run(folder, "test_it.py", "-k", "contract or one-step or repeated")
    assert status == 1
    failed = re.findall(r"^FAILED test_it\.py::(.*?) - ", out, flags=re.MULTILINE)
    # The fault is at step 2, which a sequence of one step has not.
    assert failed == ["test_the_whole_contract_holds", "test_gradients_are_right_at_the_edge[repeated rows]"]
    assert "reading    d0.U, step 2, every row: it is off by the factor 1+1.0e-08" in out


def test_edges_are_what_they_are_called(folder, capsys):
    text = scaffold("theirs.cells:Right", capsys)
    marked = '@pytest.mark.gradcheck(allow={"floor"})\n'
    assert text.count(marked) == 2
    (folder / "test_it.py").write_text(text.replace(marked, ""))  # this session may not have the plugin
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("test_it", folder / "test_it.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    edges = module.EDGES
    assert list(edges) == ["one step", "one hidden unit", "all weights zero", "repeated rows", "saturated"]
    assert len(edges["one step"].x) == 1
    assert edges["one hidden unit"].net.hidden_size == 1
    assert not any(value.any() for value in edges["all weights zero"].params.values())
    assert (edges["repeated rows"].x[:, 0] == edges["repeated rows"].x[:, 1]).all()
    assert edges["repeated rows"].x[:, 0].any()
    assert (abs(edges["saturated"].params["0.b"]) == 40.0).all()
    assert (abs(edges["saturated"].params["0.U"]) < 1.0).all()


# ---- the file is clean ------------------------------------------------------------------------------------


def ruff(*argv, folder):
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed: pip install 'gradlab[dev]'")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *argv, "--isolated", "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("target", ["theirs.cells:Right", "theirs.cells:cell", "theirs.cells:Outer.Inner", "gradlab.cells:GRU"])
def test_the_file_is_as_linters_want_it_in_any_project(folder, capsys, target):
    (folder / "test_it.py").write_text(scaffold(target, capsys))
    strict = "E,F,W,I,N,UP,B,C4,D,NPY,PT,RUF,SIM,PERF,ARG,PL,S,TRY"
    options = ("--select", strict, "--ignore", "D203,D213,S101", "--target-version", "py311")
    assert ruff("check", *options, "test_it.py", folder=folder) == (0, "All checks passed!\n")
    for width in ("88", "130"):
        assert ruff("format", "--check", "--line-length", width, "test_it.py", folder=folder)[0] == 0


@pytest.mark.parametrize(
    ("target", "expression", "imports"),
    [
        ("theirs.cells:Right", "theirs.cells.Right()", "import numpy as np\nimport pytest\n\nimport theirs.cells\n"),
        ("theirs.cells:cell", "theirs.cells.cell", "import pytest\n\nimport theirs.cells\n"),
        ("theirs.cells:make", "theirs.cells.make()", "import pytest\n\nimport theirs.cells\n"),
        ("theirs.cells:Outer.Inner", "theirs.cells.Outer.Inner()", "import pytest\n\nimport theirs.cells\n"),
        ("gradlab.cells:GRU", "gradlab.cells.GRU()", "import gradlab\nimport gradlab.cells\nimport hypothesis\n"),
        ("gradlab:LSTM", "gradlab.LSTM()", "\nimport gradlab\nimport hypothesis\nimport numpy as np\nimport pytest\n"),
    ],
)
def test_the_file_makes_the_cell_that_was_named(folder, capsys, target, expression, imports):
    text = scaffold(target, capsys)
    assert f"\nCELL = {expression}\n" in text
    assert imports in text
    assert f"Gradient checks of {target} for pytest." in text.splitlines()[0]
    compile(text, "test_it.py", "exec")


# ---- where it is written ----------------------------------------------------------------------------------


def test_an_existing_file_is_never_overwritten_unless_that_is_asked_for(folder, capsys):
    path = folder / "test_it.py"
    assert main(["scaffold", "theirs.cells:Right", "--output", "test_it.py"]) == 0
    assert capsys.readouterr().out == ""
    written = path.read_text()
    assert written == scaffold("theirs.cells:Right", capsys)
    path.write_text("mine")
    assert main(["scaffold", "theirs.cells:Right", "--output", "test_it.py"]) == 2
    assert "test_it.py exists and is left as it is; give --force" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main(["scaffold", "theirs.cells:Right", "--output", "test_it.py", "--force"]) == 0
    assert path.read_text() == written


def test_a_dangling_link_counts_as_existing_and_a_pipe_is_never_replaced(folder, capsys):
    (folder / "link").symlink_to(folder / "nowhere")
    assert main(["scaffold", "theirs.cells:Right", "--output", "link"]) == 2
    assert (folder / "link").is_symlink()
    os.mkfifo(folder / "pipe")
    assert main(["scaffold", "theirs.cells:Right", "--output", "pipe"]) == 2
    assert main(["scaffold", "theirs.cells:Right", "--output", "pipe", "--force"]) == 5
    assert "is no regular file" in capsys.readouterr().err
    assert (folder / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["nowhere:Cell"], 3, "cannot import nowhere"),
        (["theirs.cells:number"], 2, "is a int"),
        (["theirs.cells:Scaled(1.0)"], 2, "never evaluated"),
        (["theirs.raises:Cell"], 3, "theirs/raises.py:5: ZeroDivisionError"),
        (["theirs.cells:Right", "--output", "missing/test_it.py"], 5, "missing"),
        (["theirs.cells:Right", "--force"], 2, "--force has no meaning without --output"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_ends_with_its_status_and_writes_nothing(folder, capsys, argv, status, said):
    before = set(folder.rglob("*"))
    assert main(["scaffold", *argv]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("gradlab: error: ")
    assert said in err.splitlines()[-1]
    assert set(folder.rglob("*")) == before


def test_help_says_how_to_use_it(capsys):
    assert main(["scaffold", "--help"]) == 0
    out = capsys.readouterr().out
    assert "gradlab scaffold cells:Leaky > test_leaky.py" in out
    assert "exit status: 0 written, 2 usage, or the file exists" in out
