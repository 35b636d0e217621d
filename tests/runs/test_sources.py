"""What changes the code version of an analysis, and what does not."""

import importlib
import sys
import types

import pytest
from runs.toys import toy

from gradlab.runs import sources

SIBLING = "SIZE = 3\n"
DRAWING = "COLOUR = 'red'\n"
FILE = '''
"""A claim."""
import numpy as np
from paper import _sibling
from paper._other import helper as own

CLAIM = "a claim"
NEEDS = ()
PARAMETERS = {"full": {"n": 1}, "quick": {"n": 1}}
LIMIT = 2
COLOURS = ("red", "blue")


def step(x):
    """One step."""
    return LIMIT * x + own(x)


def compute(rng, scale, progress=None):
    p = PARAMETERS[scale]
    return {"x": step(rng.normal(size=_sibling.SIZE))}  # a comment


def told(result):
    return f"{result}"


def check(result):
    return told(result)


def draw(result):
    from paper import _drawing

    return COLOURS, _drawing
'''


@pytest.fixture
def version(tmp_path, monkeypatch):
    """A function from the text of an analysis, and of files beside it, to its code version."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "paper"
    folder.mkdir()
    (folder / "__init__.py").touch()

    def of(text=FILE, **beside):
        for name, content in {"_sibling": SIBLING, "_drawing": DRAWING, "_other": "def helper(x): return x\n", **beside}.items():
            (folder / f"{name}.py").write_text(content)
        (folder / "claim.py").write_text(text)
        for name in [name for name in sys.modules if name.partition(".")[0] == "paper"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return sources.code_version(importlib.import_module("paper.claim"))

    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"a claim"', '"another claim"'),
        ('"""A claim."""', '"""A claim, said better."""'),
        ('"""One step."""', '"""One step, said better."""'),
        ("# a comment", "# another comment"),
        ('return f"{result}"', 'return f"the result is {result}"'),
        ("return told(result)", "return told(result) + told(result)"),
        ('("red", "blue")', '("green", "blue")'),
        ('"full": {"n": 1}', '"full": {"n": 2}'),  # part of the key anyway
        ("def step(x):", "\n\n\ndef step(x):"),
    ],
)
def test_what_is_told_or_drawn_does_not_count(version, old, new):
    assert old in FILE
    assert version(FILE.replace(old, new)) == version()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT * x", "LIMIT + x"),
        ("LIMIT = 2", "LIMIT = 3"),
        ("size=_sibling.SIZE", "size=1 + _sibling.SIZE"),
        ("def step(x):", "np.seterr(all='ignore')\n\n\ndef step(x):"),
        ("def step(x):", "if True:\n    LIMIT = 5\n\n\ndef step(x):"),
    ],
)
def test_what_compute_reaches_counts_and_so_does_what_binds_no_name(version, old, new):
    assert old in FILE
    assert version(FILE.replace(old, new)) != version()


def test_files_beside_it_count_where_the_computation_imports_them_and_with_what_they_import(version):
    assert version(_drawing="COLOUR = 'blue'\n") == version()
    assert version(_sibling="SIZE = 4\n") != version()
    assert version(_other="def helper(x): return 2 * x\n") != version()
    deeper = {"_sibling": "from paper._deep import SIZE\n"}
    assert version(**deeper, _deep="SIZE = 3\n") != version(**deeper, _deep="SIZE = 5\n")


def test_the_settings_count_where_a_task_reads_them_itself(version):
    text = (
        FILE.replace("compute(rng, scale, progress=None)", "run_task(rng, parameters, progress=None)")
        + "\ntasks = collect = None\n"
    )
    clean = text.replace("p = PARAMETERS[scale]", "p = parameters")
    changed = '"full": {"n": 2}'
    assert version(clean) == version(clean.replace('"full": {"n": 1}', changed))
    assert version(text) != version(text.replace('"full": {"n": 1}', changed))


def test_gradlab_counts_but_not_the_rooms_that_draw_and_tell(tmp_path, monkeypatch):
    for name in (
        "_math.py",
        "cells/lstm.py",
        "plotting/style.py",
        "cli/check.py",
        "runs/board.py",
        "runs/plan.py",
        "runs/sources.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "runs" / "sources.py"))

    def changed(name):
        before = sources._package.__wrapped__()
        (tmp_path / name).write_text("new")
        return sources._package.__wrapped__() != before

    counts = {str(p.relative_to(tmp_path)): changed(str(p.relative_to(tmp_path))) for p in sorted(tmp_path.rglob("*.py"))}
    assert [name for name, yes in counts.items() if yes] == ["_math.py", "cells/lstm.py", "runs/plan.py"]


def test_a_library_that_it_needs_counts_with_its_version(monkeypatch):
    before = sources.code_version(toy(NEEDS=("scipy",)))
    monkeypatch.setattr(sources.importlib.metadata, "version", lambda name: "9.9")
    assert sources.code_version(toy(NEEDS=("scipy",))) != before


def test_what_has_no_source_file_is_never_taken_for_unchanged():
    space = {}
    exec("def compute(rng, scale, progress=None): return {}", space)
    nowhere = types.SimpleNamespace(compute=space["compute"], NEEDS=())
    assert sources.code_version(nowhere) != sources.code_version(nowhere)
    assert sources.code_version(toy()) == sources.code_version(toy())
