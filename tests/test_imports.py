"""The rooms of the package know only what lies below them, and `import gradlab` stays light."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gradlab

PACKAGE = Path(gradlab.__file__).parent

# From the bottom up; rooms on one floor do not know each other, a room knows itself and lower floors. The ground is one room.
GROUND = "_version _math _derivatives _parameters _threads record errors _files _memory _validate status batch workspace"
GROUND += " directions"
FLOORS = [
    GROUND,
    "cells losses inits tasks",
    "network",
    "forward_pass",
    "objective",
    "backward",
    "truncated",
    "analysis",
    "training checks adapters",
    "plotting",
    "diagnosis",
]
FLOORS += ["report runs", "cli", "__main__"]
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor.split()}

FOREIGN = {
    "hypothesis": {"checks"},
    "torch": {"adapters"},
    "keras": {"adapters"},
    "onnx": {"adapters"},
    "jax": set(),
    "analyses": set(),
}


def may_use(room, library, inside):
    """Who may import a library from outside; `inside`: in a function, so not when the room itself is imported."""
    if library == "matplotlib":
        return room == "plotting" or (room == "runs" and inside)
    return room in FOREIGN.get(library, {room})


def imports_of(tree):
    """(module, in a function) for every import, except those that only a type checker reads."""
    found = []

    def walk(node, inside):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node = ast.Module(node.orelse, [])
        if isinstance(node, ast.Import):
            found.extend((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from gradlab import x` is a room, or the version that the lazy front holds.
            names = [f"gradlab.{a.name}" for a in node.names] if node.module == "gradlab" else [node.module]
            found.extend((name, inside) for name in names)
        for child in ast.iter_child_nodes(node):
            walk(child, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    walk(tree, False)
    return found


def violations(package):
    """Every import in `package` that points up, sideways or to a library that has no business there."""
    wrong = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        room = place.parts[0].removesuffix(".py")
        if room == "__init__":
            continue  # the lazy front names every room
        if room not in LEVEL:
            wrong.append(f"{place}: the room {room} stands on no floor")
            continue
        for module, inside in imports_of(ast.parse(path.read_text("utf-8"))):
            top, _, rest = module.partition(".")
            if top == "gradlab" and rest != "__version__":
                other = rest.partition(".")[0]
                same = other == room or {LEVEL.get(other), LEVEL[room]} == {0}
                if not same and LEVEL.get(other, 99) >= LEVEL[room]:
                    wrong.append(f"{place}: imports {module}")
            elif not may_use(room, top, inside):
                wrong.append(f"{place}: imports {module}")
    return wrong


def test_no_import_points_up_or_sideways_and_foreign_libraries_stay_in_their_room():
    assert violations(PACKAGE) == []


def test_every_room_that_the_front_offers_stands_on_a_floor():
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} <= set(LEVEL)
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} <= set(LEVEL)


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("cells/elman.py", "from gradlab.network import Network"),
        ("cells/elman.py", "from gradlab import losses"),
        ("losses.py", "import gradlab.cells"),
        ("tasks/adding.py", "from gradlab.inits import glorot"),
        ("analysis/products.py", "from gradlab.checks.comparison import compare"),
        ("analysis/products.py", "from gradlab import training as t"),
        ("checks/contract.py", "import gradlab.training.trainer"),
        ("record.py", "from gradlab.backward import bptt"),
        ("network.py", "def f():\n    from gradlab.backward import bptt"),
        ("network.py", "class C:\n    def f(self):\n        import gradlab.checks"),
        ("network.py", "try:\n    import gradlab.runs\nexcept ImportError:\n    pass"),
        ("network.py", "import hypothesis"),
        ("checks/contract.py", "import torch"),
        ("backward.py", "from torch.nn import LSTM"),
        ("backward.py", "import numpy, jax.numpy"),
        ("analysis/spectra.py", "from analyses import speed"),
        ("analysis/spectra.py", "import matplotlib"),
        ("attic.py", ""),
        ("network.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import gradlab.runs"),
    ],
)
def test_a_planted_violation_is_caught(place, line, tmp_path):
    copy = tmp_path / "gradlab"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = violations(copy)
    with (copy / place).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    caught = [v for v in violations(copy) if v not in before]
    assert len(caught) == 1
    assert caught[0].startswith(place)


@pytest.mark.parametrize(
    "line",
    [
        "if TYPE_CHECKING:\n    from gradlab.backward import bptt",
        "from gradlab import __version__",
        "from gradlab.network import Layer",
        "from gradlab.errors import ShapeError\nfrom gradlab import cells, _math",
        "import numpy.linalg",
    ],
)
def test_an_allowed_import_is_not_caught(line, tmp_path):
    copy = tmp_path / "gradlab"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = violations(copy)
    with (copy / "network.py").open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    assert violations(copy) == before


def in_a_fresh_python(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


HEAVY = ("matplotlib", "scipy", "rich", "hypothesis", "jinja2", "torch")


def test_importing_the_package_loads_nothing_heavy_and_takes_a_quarter_of_a_second_at_most():
    code = f"""
import sys, time
start = time.perf_counter()
import gradlab
print(time.perf_counter() - start)
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""
    runs = [in_a_fresh_python(code) for _ in range(5)]
    assert all(found == [] for _, *found in runs)
    assert min(float(seconds) for seconds, *_ in runs) < 0.25  # the best of five: a busy machine is not the package's fault


def test_the_main_path_loads_no_figures_no_terminal_library_and_no_test_library():
    code = f"""
import sys
import numpy as np, gradlab
rng = np.random.default_rng(0)
net = gradlab.Network(gradlab.LSTM(), input_size=2, hidden_size=3, output_size=1, readout="last")
batch = gradlab.tasks.adding.sample(rng, batch=2, length=5)
record = gradlab.bptt(net, net.init(rng), batch, gradlab.mean_squared_error)
gradlab.analysis.gradient_flow(record)
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""
    assert in_a_fresh_python(code) == []


def test_importing_every_room_changes_no_global_state():
    code = """
import os, signal, warnings
import numpy as np
np.random.seed(0)
def state():
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    found = np.geterr(), np.random.get_state()[1].tolist(), list(warnings.filters), dict(os.environ), handlers
    return dict(zip(("errstate", "legacy_rng", "warning_filters", "environment", "signal_handlers"), found))
before = state()
import gradlab
for name in gradlab.__all__:
    getattr(gradlab, name)
after = state()
print(*[key for key in before if after[key] != before[key]])
"""
    assert in_a_fresh_python(code) == []


@pytest.mark.parametrize("name", gradlab.__all__)
def test_every_public_name_resolves(name):
    assert getattr(gradlab, name) is not None
    assert name in dir(gradlab)


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="module 'gradlab' has no attribute 'nothing'"):
        gradlab.nothing  # noqa: B018


def test_the_front_offers_every_name_once_and_in_order():
    assert len(set(gradlab.__all__)) == len(gradlab.__all__)
    assert sorted(gradlab.__all__) == dir(gradlab)
